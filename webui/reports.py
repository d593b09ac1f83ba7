"""Finished reports for pages: the JSON document read in a thread, the last one kept for the clicks that follow.

A report is a megabyte or two of text and some times that in memory, so only `_KEPT` stay, and none for long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_KEPT: Final = 1
_KEEP_S: Final = 120.0
Report = dict[str, Any]  # Any: a Report of gateway.analysis.report, read back from JSON


class Reports:
    """A small cache over files that are replaced, never changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._kept: dict[Path, tuple[tuple[int, int], float, Report]] = {}

    async def load(self, path: Path) -> Report:
        """The report in a file; raises OSError when it is gone, ValueError when it is damaged."""
        self.sweep()
        stamp = _stamp(path)
        known = self._kept.get(path)
        if known is not None and known[0] == stamp:
            report = known[2]
        else:
            self._kept.clear()  # before the next is read: two at once are what we want to avoid
            report = await asyncio.to_thread(_read, path)
        self._kept[path] = (stamp, self._clock(), report)
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return report

    def sweep(self) -> None:
        """Forget what nobody looked at for a while."""
        now = self._clock()
        for path in [path for path, (_, used, _) in self._kept.items() if now - used > _KEEP_S]:
            del self._kept[path]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _read(path: Path) -> Report:
    report = json.loads(path.read_bytes())
    if not isinstance(report, dict):
        raise ValueError(f"{path} holds no report")
    return report
