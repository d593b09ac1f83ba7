"""Counters that are read from the kernel: of whom is asked, of everybody, and who has sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address

from gateway.addresses import MacAddress
from gateway.config import Config, Network, Zone
from gateway.datapath.damage import Damage
from gateway.datapath.elements import DOWN, UP, ElementsRefused, Tally, key_of_number
from gateway.datapath.kernel import READ
from gateway.datapath.ledger import Client, Ledger, zone_sets
from gateway.datapath.readings import CounterReader
from gateway.session.events import ClientsActive, CountersRead, Event
from gateway.session.model import ClientKey, Counters
from tests.gateway.datapath.kernel_in_memory import NOTHING, MemoryElements

CONFIG = Config(network=Network(uplinks=("eth0",)), zones=(Zone(name="guest", interface="br-guest"),))


class Scene:
    """Clients number 1 to `count`, all let through, and who reads their counters."""

    def __init__(self, count: int) -> None:
        self.kernel = MemoryElements()
        self.kernel.sets = {UP: {}, DOWN: {}}
        self.ledger = Ledger(zone_sets(CONFIG))
        self.keys = [ClientKey("guest", MacAddress(b"\2\0\0\0" + number.to_bytes(2, "big"))) for number in range(count)]
        for number, key in enumerate(self.keys, 1):
            self.ledger.remember(Client(key, IPv4Address(0x0A290000 + number), number, None))
            self.kernel.count(number, NOTHING, NOTHING)
        self.events: list[Event] = []
        self.damage = Damage()
        self.reader = CounterReader(self.kernel, self.ledger, self.events.append, self.damage)

    def while_running(self, *steps: Callable[[], None]) -> None:
        """Do each step while the reader runs, and let it come to rest after each."""

        async def story() -> None:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.reader.run_all()), group.create_task(self.reader.run_activity())]
                for step in steps:
                    await asyncio.sleep(0)
                    step()
                    for _ in range(20):
                        await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()

        asyncio.run(story())


def test_some_are_read_at_once() -> None:
    """The answer is there when the call returns, with those alone who were asked for and are known."""
    scene = Scene(3)
    scene.kernel.count(2, Tally(10, 1), Tally(20, 2))
    stranger = ClientKey("guest", MacAddress(b"\2\0\0\0\xff\xff"))
    scene.reader.read((scene.keys[1], stranger))
    assert scene.events == [CountersRead(((scene.keys[1], Counters(10, 1, 20, 2)),))]


def test_everybody_is_read_in_slices() -> None:
    """More than one request may ask for are read by and by, each client once."""
    scene = Scene(READ + 5)
    scene.while_running(lambda: scene.reader.read(tuple(scene.keys)))
    sizes = [len(event.readings) for event in scene.events if isinstance(event, CountersRead)]
    assert sizes == [READ, 5]


def test_a_client_whose_counters_are_gone_keeps_its_total_and_is_restored() -> None:
    """Somebody emptied the set: nothing is counted back, and the watch hears of it."""
    scene = Scene(1)
    scene.kernel.count(1, Tally(10, 1), Tally(20, 2))
    scene.reader.read((scene.keys[0],))
    del scene.kernel.sets[UP][key_of_number(1)]
    scene.reader.read((scene.keys[0],))
    assert scene.events == [CountersRead(((scene.keys[0], Counters(10, 1, 20, 2)),))] * 2
    assert scene.damage.take() == {scene.keys[0]}


def test_who_has_sent_since_the_last_look_is_active() -> None:
    """By packets of the upload alone; what was received keeps nobody awake."""
    scene = Scene(3)
    first, second, _ = scene.keys

    def look_after(number: int, up: Tally, down: Tally) -> None:
        scene.kernel.count(number, up, down)
        scene.reader.read_activity()

    scene.while_running(
        lambda: look_after(1, Tally(10, 1), NOTHING),
        lambda: look_after(2, Tally(5, 1), Tally(9, 9)),
        lambda: look_after(3, NOTHING, Tally(9, 9)),
    )
    assert scene.events == [ClientsActive((first,)), ClientsActive((second,)), ClientsActive(())]


def test_a_table_that_is_gone_tells_of_no_activity() -> None:
    """The watch is woken, and the next look works again."""
    scene = Scene(1)
    scene.kernel.refusal = ElementsRefused("no such table", lost=True)

    def mend() -> None:
        scene.kernel.refusal = None
        scene.kernel.count(1, Tally(1, 1), NOTHING)
        scene.reader.read_activity()

    scene.while_running(scene.reader.read_activity, mend)
    assert scene.damage.look.is_set()
    assert scene.events == [ClientsActive((scene.keys[0],))]
