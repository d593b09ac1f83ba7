"""Client numbers: the small integers that mark a client's packets in the kernel and name its port to RADIUS (NAS-Port).

A number that was in the kernel is retired when its session ends, because connection-tracking entries still carry it,
and comes back only when they were swept. Numbers are reused oldest first, so that a number rests as long as it can.
"""

from __future__ import annotations

from collections import deque
from typing import Final

HIGHEST: Final = 65534  # a 16-bit class id of tc, without the reserved 0 and 65535


class ClientNumbers:
    """Which numbers are free, in use, or retired. Pure bookkeeping."""

    def __init__(self, highest: int = HIGHEST) -> None:
        self._highest = highest
        self._next = 1
        self._free: deque[int] = deque()
        self._used: set[int] = set()
        self._retired: set[int] = set()

    def take(self) -> int | None:
        """A free number, or None when all are in use or retired."""
        if self._next <= self._highest:
            while self._next in self._used or self._next in self._retired:
                self._next += 1
            if self._next <= self._highest:
                number = self._next
                self._next += 1
                self._used.add(number)
                return number
        if not self._free:
            return None
        number = self._free.popleft()
        self._used.add(number)
        return number

    def claim(self, number: int) -> bool:
        """Take a certain number again (a resumed session's); False when it is not free."""
        if not 1 <= number <= self._highest or number in self._used or number in self._retired:
            return False
        if number in self._free:
            self._free.remove(number)
        self._used.add(number)
        return True

    def give_back(self, number: int) -> None:
        """Free a number that never was in the kernel."""
        if number in self._used:
            self._used.remove(number)
            self._free.append(number)

    def retire(self, number: int) -> None:
        """Set a number aside until it was swept."""
        if number in self._used:
            self._used.remove(number)
            self._retired.add(number)

    def swept(self, number: int) -> None:
        """A retired number is free again."""
        if number in self._retired:
            self._retired.remove(number)
            self._free.append(number)

    @property
    def in_use(self) -> int:
        """How many numbers are in use."""
        return len(self._used)

    @property
    def retired(self) -> int:
        """How many numbers wait to be swept."""
        return len(self._retired)
