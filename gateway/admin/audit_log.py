"""Writing down who changed what: to the log at once, to the file in the thread, and read again in pages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.admin.audit import Entry
from gateway.admin.thread import AdminThread
from gateway.buckets import TokenBuckets

FAILURES_PER_S, FAILURES_AT_ONCE = 1 / 60, 30  # of wrong logins, which strangers cause

LOG: Final = logging.getLogger(__name__)


class AuditLog:
    """The record. `keep` tells how many entries are to be kept."""

    def __init__(self, thread: AdminThread, keep: Callable[[], int], clock: Callable[[], float]) -> None:
        self._thread = thread
        self._keep = keep
        self._clock = clock
        self._failures = TokenBuckets(FAILURES_PER_S, FAILURES_AT_ONCE, 16)

    def add(self, entry: Entry, *, failure: bool = False) -> None:
        """Write an entry; of failures only so many a minute."""
        if failure and not self._failures.take("", self._clock()):
            return
        LOG.info(
            "administration who=%s from=%s method=%s outcome=%s",
            entry.who,
            entry.address or entry.via,
            entry.method,
            entry.outcome,
        )
        self._thread.later(partial(self._thread.store.add_entry, entry, self._keep()))

    async def page(self, *, who: str, method: str, search: str, offset: int, limit: int) -> tuple[int, list[Entry]]:
        """How many entries match, and a page of them, newest first."""
        find = partial(self._thread.store.entries, who=who, method=method, search=search, offset=offset, limit=limit)
        return await self._thread.ask(find)
