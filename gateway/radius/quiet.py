"""How often a line about a misbehaving peer is logged: once per source, reason and minute. Pure."""

from __future__ import annotations

from typing import Final

_QUIET_S: Final = 60.0
_MAX_SOURCES: Final = 1024


class Quiet:
    """Remembers what was said lately, for a bounded number of sources; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def admits(self, source: str, reason: str, now: float) -> bool:
        """Whether a line may be written now; if so, it is taken as written."""
        key = (source, reason)
        if now < self._last.get(key, float("-inf")) + _QUIET_S:
            return False
        if len(self._last) >= _MAX_SOURCES:
            del self._last[next(iter(self._last))]
        self._last[key] = now
        return True
