"""What is known to be wrong in the kernel, between those who find it and the watch that mends it; counts of events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.session.model import ClientKey


@dataclass(slots=True)
class Statistics:
    """What happened since the start, for metrics."""

    tables_lost: int = 0
    lost_at: float | None = None  # when the last of them was, in seconds of our clock
    elements_restored: int = 0
    logins: int = 0
    logouts: int = 0
    refusals: int = 0
    numbers_swept: int = 0
    sweep_walks: int = 0
    sweep_failures: int = 0


class Damage:
    """Clients whose elements are missing; `look` wakes the watch before its time."""

    def __init__(self) -> None:
        self.look = asyncio.Event()
        self._keys: set[ClientKey] = set()

    def note(self, keys: Iterable[ClientKey] = ()) -> None:
        """These clients lack elements, or, without any, the table itself should be looked at."""
        self._keys.update(keys)
        self.look.set()

    def take(self) -> set[ClientKey]:
        """The clients noted until now, which are forgotten here."""
        keys, self._keys = self._keys, set()
        return keys

    def __bool__(self) -> bool:
        """Whether a client is noted."""
        return bool(self._keys)
