"""Which happenings are worth a line in a client's timeline: at most one per client and kind every few seconds.

Pure state, bounded. A phone's apps ask dozens of times a minute; the operator wants to see that, not each time.
"""

from __future__ import annotations

from typing import Final, Literal

Kind = Literal["probe", "redirect", "page"]

INTERVAL_S: Final = 5.0
_MAX_ENTRIES: Final = 16384


class NoteLimiter:
    """When each client and kind was last noted."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, Kind], float] = {}

    def allows(self, ip: str, kind: Kind, now: float) -> bool:
        """Whether to note now; if so it counts as noted."""
        key = (ip, kind)
        last = self._noted.get(key)
        if last is not None:
            if now - last < INTERVAL_S:
                return False
            del self._noted[key]
        elif len(self._noted) >= _MAX_ENTRIES:
            del self._noted[next(iter(self._noted))]
        self._noted[key] = now
        return True
