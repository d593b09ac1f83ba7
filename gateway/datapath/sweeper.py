"""Retired client numbers: their connection-tracking entries are deleted in the background, then they may be used again.

A number is the connection mark of everything that its client did. Given to another client too soon, what is left of the
former one's connections would pass and be counted as the new one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from gateway.datapath.conntrack import sweep, sweep_unknown
from gateway.datapath.damage import Statistics
from gateway.datapath.ledger import Ledger
from gateway.session.events import Event, NumberSwept

log = logging.getLogger(__name__)

SWEEP_BACKLOG: Final = 4096  # retired numbers that start a sweep before its time; a walk costs the same for all


class Sweeper:
    """Collects retired numbers and gives them back swept."""

    def __init__(self, ledger: Ledger, post: Callable[[Event], None], statistics: Statistics, interval_s: int) -> None:
        self.interval_s = interval_s
        self._ledger = ledger
        self._post = post
        self._statistics = statistics
        self._retired: list[int] = []
        self._now = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Numbers that wait for the next sweep."""
        return len(self._retired)

    def retire(self, number: int) -> None:
        """The number's client is out of the kernel."""
        self._retired.append(number)
        if len(self._retired) >= SWEEP_BACKLOG:
            self.sweep_soon()

    def sweep_soon(self) -> None:
        """Sweep before the interval is over."""
        self._now.set()

    async def run(self) -> None:
        """Sweep from time to time until cancelled."""
        await self._sweep_strangers()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._now.wait(), self.interval_s)
            self._now.clear()
            if self._retired:
                await self._sweep_retired()

    async def _sweep_retired(self) -> None:
        numbers, self._retired = self._retired, []
        try:
            walks = await asyncio.to_thread(sweep, numbers)  # not netlink's: ports must not wait for it
        except OSError as error:
            log.warning("connection tracking could not be swept, trying again later reason=%s", error)
            self._statistics.sweep_failures += 1
            self._retired += numbers
            return
        self._statistics.sweep_walks += walks
        self._statistics.numbers_swept += len(numbers)
        for number in numbers:
            self._post(NumberSwept(number))

    async def _sweep_strangers(self) -> None:
        """After a start: numbers that were retired before it are known to nobody any more."""
        try:
            is_known = self._ledger.numbers.__contains__  # one look-up, safe from the worker thread
            self._statistics.sweep_walks += await asyncio.to_thread(sweep_unknown, is_known)
        except OSError as error:
            log.warning("connection tracking could not be swept reason=%s", error)
            self._statistics.sweep_failures += 1
