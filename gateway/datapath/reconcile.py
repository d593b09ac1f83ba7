"""Makes the kernel's elements those of the ledger: at a start, after a reload, and when somebody removed some.

Orders go on meanwhile, so each slice is made from what is wanted at that moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from gateway.datapath.damage import Damage, Statistics
from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Drop,
    Elements,
    ElementSet,
    ElementsRefused,
    Finals,
    Stored,
    key_of_number,
)
from gateway.datapath.ledger import Client, Ledger
from gateway.session.events import Event, TrafficAllowed
from gateway.session.model import ClientKey, Counters

log = logging.getLogger(__name__)
_Item = TypeVar("_Item")

BULK: Final = 200  # elements of one transaction when many are set: some milliseconds


class Reconciler:
    """Compares ledger and kernel through `elements`, and sets right what differs."""

    def __init__(
        self,
        elements: Elements,
        ledger: Ledger,
        post: Callable[[Event], None],
        clock: Callable[[], float],
        damage: Damage,
        statistics: Statistics,
    ) -> None:
        self.elements = elements
        self._ledger = ledger
        self._post = post
        self._clock = clock
        self._damage = damage
        self._statistics = statistics

    async def dump(self) -> dict[ElementSet, dict[bytes, Stored]]:
        """All elements of clients that the kernel has; raises ElementsRefused."""
        return {element_set: await self.elements.dump(element_set) for element_set in self._ledger.sets()}

    async def adopt(self, leaving: Sequence[Client]) -> dict[ClientKey, Counters]:
        """Reconcile at a start: what the elements of known clients have counted is taken over, and returned.

        Also that of those who are `leaving`, whose elements go. Raises ElementsRefused.
        """
        present = await self.dump()
        kept = self._adopt(present, leaving)
        await self._reconcile(present, tell=False)
        return kept

    async def reconcile(self) -> None:
        """Reconcile, and tell the hub of clients that are let through only now. Raises ElementsRefused."""
        await self._reconcile(await self.dump(), tell=True)

    async def _reconcile(self, present: dict[ElementSet, dict[bytes, Stored]], *, tell: bool) -> None:
        ledger = self._ledger
        for drops in _slices(ledger.surplus(present)):
            await self._bulk(
                [drop for drop in drops if not ledger.is_wanted(drop.set, drop.key, present[drop.set][drop.key])]
            )
        for clients in _slices(list(ledger.clients.values()), BULK // 4):
            here = [client for client in clients if ledger.clients.get(client.key) is client]
            now = self._clock()
            await self._bulk([change for client in here for change in ledger.missing(client, present, now)])
            for client in here:
                if not client.confirmed and ledger.clients.get(client.key) is client:
                    client.confirmed = True
                    if tell:
                        self._post(TrafficAllowed(client.key))
        for keys in _slices(list(ledger.bound)):
            await self._bulk([change for key in keys for change in ledger.missing_bindings(key, present)])

    def _adopt(
        self, present: dict[ElementSet, dict[bytes, Stored]], leaving: Sequence[Client]
    ) -> dict[ClientKey, Counters]:
        """Take over counters of clients that the kernel knows already; elements under a stranger's number go."""
        kept: dict[ClientKey, Counters] = {}
        holders = self._ledger.holders(present)
        for former in leaving:
            number = key_of_number(former.number)
            if (
                holders.get(former.number, former.key) == former.key
                and former.number not in self._ledger.numbers
                and number in present[UP]
                and number in present[DOWN]
            ):
                kept[former.key] = former.note(present[UP][number].tally, present[DOWN][number].tally)
        foreign: list[Change] = []
        for client in self._ledger.clients.values():
            number = key_of_number(client.number)
            if holders.get(client.number, client.key) != client.key:
                foreign += (Drop(UP, number), Drop(DOWN, number))
                present[UP].pop(number, None)
                present[DOWN].pop(number, None)
            elif number in present[UP] and number in present[DOWN]:
                kept[client.key] = client.note(present[UP][number].tally, present[DOWN][number].tally)
        if foreign:
            self.elements.commit(foreign, self._log_refusal)
        return kept

    async def _bulk(self, changes: list[Change]) -> None:
        """Make many changes without holding up the loop."""
        if changes:
            self.elements.commit(changes, self._log_refusal)
            await asyncio.sleep(0)

    def _log_refusal(self, refused: ElementsRefused | None, _finals: Finals) -> None:
        if refused is not None:
            self._statistics.refusals += 1
            log.warning("the kernel did not take elements, trying again reason=%s", refused)
            self._damage.note(self._ledger.clients)


def _slices(items: Sequence[_Item], size: int = BULK) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
