"""How often what strangers can cause at will is reported: once per source and minute, and not too often in all.

Pure state; time arrives as an argument. Sources may be invented (a forged address, a new MAC per packet), so that their
number is bounded too: beyond it a new source goes unreported, as it would else fill the log in the place of the memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

INTERVAL_S: Final = 60.0
REPORTS_PER_INTERVAL: Final = 60


class ReportLimit:
    """Which sources were reported within the interval."""

    def __init__(self, interval_s: float = INTERVAL_S, most: int = REPORTS_PER_INTERVAL) -> None:
        self._interval_s = interval_s
        self._most = most
        self._reported: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()  # oldest first: when, held back since

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._reported)

    def admit(self, source: Hashable, now: float) -> int | None:
        """Whether this source may be reported now: how many of its reports were held back before, or None if not."""
        last = self._reported.get(source)
        if last is not None:
            reported_at, held_back = last
            if now - reported_at < self._interval_s:
                self._reported[source] = (reported_at, held_back + 1)
                return None
        elif len(self._reported) >= self._most:
            oldest, _ = next(iter(self._reported.values()))
            if now - oldest < self._interval_s:
                return None
            self._reported.popitem(last=False)
        self._reported[source] = (now, 0)
        self._reported.move_to_end(source)
        return 0 if last is None else last[1]
