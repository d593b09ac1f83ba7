"""Retired client numbers come back when their connections are gone, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import pytest

from gateway.config import Config, Network, Zone
from gateway.datapath import sweeper as module
from gateway.datapath.damage import Statistics
from gateway.datapath.ledger import Ledger, zone_sets
from gateway.datapath.sweeper import SWEEP_BACKLOG, Sweeper
from gateway.session.events import Event, NumberSwept

CONFIG = Config(network=Network(uplinks=("eth0",)), zones=(Zone(name="guest", interface="br-guest"),))


class Scene:
    """A sweeper over a connection tracking that is only written down; `trouble` makes its walks fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.walks: list[list[int]] = []
        self.strangers = 0
        self.trouble: OSError | None = None
        self.events: list[Event] = []
        self.statistics = Statistics()
        monkeypatch.setattr(module, "sweep", self._sweep)
        monkeypatch.setattr(module, "sweep_unknown", self._sweep_unknown)
        self.sweeper = Sweeper(Ledger(zone_sets(CONFIG)), self.events.append, self.statistics, 3600)

    def _sweep(self, numbers: Collection[int]) -> int:
        if self.trouble is not None:
            raise self.trouble
        self.walks.append(list(numbers))
        return 1

    def _sweep_unknown(self, is_known: Callable[[int], bool]) -> int:
        self.strangers += 1
        return 1

    def while_running(self, *steps: Callable[[], None], until: Callable[[], bool]) -> None:
        """Do the steps while the sweeper runs, and wait for the end of what they began."""

        async def story() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.sweeper.run())
                for step in steps:
                    step()
                async with asyncio.timeout(20):
                    while not until():
                        await asyncio.sleep(0.001)
                task.cancel()

        asyncio.run(story())


def test_numbers_are_swept_together_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk for all; a number of before the start, which nobody knows any more, goes first."""
    scene = Scene(monkeypatch)
    for number in (3, 1, 2):
        scene.sweeper.retire(number)
    assert scene.sweeper.backlog == 3
    scene.while_running(scene.sweeper.sweep_soon, until=lambda: len(scene.events) == 3)
    assert scene.walks == [[3, 1, 2]]
    assert scene.strangers == 1
    assert scene.events == [NumberSwept(number) for number in (3, 1, 2)]
    assert scene.sweeper.backlog == 0
    assert scene.statistics.numbers_swept == 3


def test_a_long_row_of_numbers_does_not_wait_for_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """When many log out at once their numbers are wanted back."""
    scene = Scene(monkeypatch)
    for number in range(SWEEP_BACKLOG):
        scene.sweeper.retire(number)
    scene.while_running(until=lambda: len(scene.events) == SWEEP_BACKLOG)
    assert len(scene.walks) == 1


def test_a_walk_that_fails_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given to another client the number would carry the former one's connections; it waits for the next sweep."""
    scene = Scene(monkeypatch)
    scene.trouble = OSError("no buffer space")
    scene.sweeper.retire(5)

    def given_back() -> bool:
        if scene.statistics.sweep_failures and scene.trouble is not None:
            assert scene.events == []
            assert scene.sweeper.backlog == 1
            scene.trouble = None
            scene.sweeper.sweep_soon()
        return bool(scene.events)

    scene.while_running(scene.sweeper.sweep_soon, until=given_back)
    assert scene.events == [NumberSwept(5)]
    assert scene.walks == [[5]]
