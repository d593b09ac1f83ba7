"""Clients' counters, read from the kernel when the session core asks: of some, of all, or only who has sent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable

from gateway.datapath.damage import Damage
from gateway.datapath.elements import UP, Elements, ElementsRefused, Readings
from gateway.datapath.kernel import READ
from gateway.datapath.ledger import Ledger
from gateway.session.events import ClientsActive, CountersRead, Event
from gateway.session.model import ClientKey, Counters


class CounterReader:
    """Reads counters through `elements`, and posts what they say."""

    def __init__(self, elements: Elements, ledger: Ledger, post: Callable[[Event], None], damage: Damage) -> None:
        self.elements = elements
        self._ledger = ledger
        self._post = post
        self._damage = damage
        self._read_all = asyncio.Event()
        self._look_at_activity = asyncio.Event()

    def read(self, keys: tuple[ClientKey, ...]) -> None:
        """Read these clients' counters, or everybody's by and by when there are none or too many for one request."""
        if keys and len(keys) <= READ:
            self._read(keys)
        else:
            self._read_all.set()

    def read_activity(self) -> None:
        """Tell soon who has sent since the last look."""
        self._look_at_activity.set()

    async def run_all(self) -> None:
        """Read everybody's counters when asked to, in slices that leave the loop to others in between."""
        while True:
            await self._read_all.wait()
            self._read_all.clear()
            keys = list(self._ledger.clients)
            for first in range(0, len(keys), READ):
                self._read(keys[first : first + READ])
                await asyncio.sleep(0)

    async def run_activity(self) -> None:
        """When asked to, compare everybody's upload packets with those of the last look, and tell who has sent."""
        last: dict[bytes, int] = {}
        while True:
            await self._look_at_activity.wait()
            self._look_at_activity.clear()
            try:
                stored = await self.elements.dump(UP)
            except ElementsRefused:
                self._damage.note()
                continue
            now = {element: value.tally.packets for element, value in stored.items()}
            numbers = self._ledger.numbers
            active = (_number(element) for element, packets in now.items() if packets != last.get(element, 0))
            self._post(ClientsActive(tuple(numbers[number] for number in active if number in numbers)))
            last = now

    def _read(self, keys: Iterable[ClientKey]) -> None:
        asked = {key: client for key in keys if (client := self._ledger.clients.get(key)) is not None}

        def done(found: Readings) -> None:
            readings: list[tuple[ClientKey, Counters]] = []
            for key, client in asked.items():
                if client.number in found:
                    readings.append((key, client.note(*found[client.number])))
                elif self._ledger.clients.get(key) is client:
                    # Somebody emptied the set: what was last seen stands until the element is back.
                    readings.append((key, client.total()))
                    self._damage.note((key,))
            self._post(CountersRead(tuple(readings)))

        self.elements.read([client.number for client in asked.values()], done)


def _number(element: bytes) -> int:
    return int.from_bytes(element, sys.byteorder)
