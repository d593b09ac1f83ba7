"""Client numbers: the small integers that mark a client's packets in the kernel and name its port to RADIUS (NAS-Port).

A number that was in the kernel is retired when its session ends, because connection-tracking entries still carry it,
and comes back only when they were swept. Numbers are reused oldest first, so that a number rests as long as it can.
"""

from __future__ import annotations

from array import array
from typing import Final

HIGHEST: Final = 65534  # a 16-bit class id of tc, without the reserved 0 and 65535

# Of each number; _FREED stand in the queue.
_NEW: Final = 0
_USED: Final = 1
_RETIRED: Final = 2
_FREED: Final = 3


class ClientNumbers:
    """Which numbers are free, in use, or retired. Pure bookkeeping, in 200 kB however many there are."""

    def __init__(self, highest: int = HIGHEST) -> None:
        self._highest = highest
        self._next = 1
        self._state = bytearray(highest + 1)
        self._queue = array("H", bytes(2 * highest))  # a ring of freed numbers, oldest first
        self._first = 0
        self._queued = 0
        self._in_use = 0
        self._retired = 0

    def take(self) -> int | None:
        """A free number, or None when all are in use or retired."""
        while self._next <= self._highest:
            number = self._next
            self._next += 1
            if self._state[number] == _NEW:
                break
        else:
            if not self._queued:
                return None
            number = self._queue[self._first]
            self._first = (self._first + 1) % self._highest
            self._queued -= 1
        self._use(number)
        return number

    def claim(self, number: int) -> bool:
        """Take a certain number again (a resumed session's); False when it is not free."""
        if not 1 <= number <= self._highest or self._state[number] in (_USED, _RETIRED):
            return False
        if self._state[number] == _FREED:
            waiting = [self._queue[(self._first + place) % self._highest] for place in range(self._queued)]
            waiting.remove(number)
            self._queue[: len(waiting)] = array("H", waiting)
            self._first, self._queued = 0, len(waiting)
        self._use(number)
        return True

    def give_back(self, number: int) -> None:
        """Free a number that never was in the kernel."""
        if self._is(number, _USED):
            self._in_use -= 1
            self._free(number)

    def retire(self, number: int) -> None:
        """Set a number aside until it was swept."""
        if self._is(number, _USED):
            self._in_use -= 1
            self._retired += 1
            self._state[number] = _RETIRED

    def swept(self, number: int) -> None:
        """A retired number is free again."""
        if self._is(number, _RETIRED):
            self._retired -= 1
            self._free(number)

    @property
    def in_use(self) -> int:
        """How many numbers are in use."""
        return self._in_use

    @property
    def retired(self) -> int:
        """How many numbers wait to be swept."""
        return self._retired

    def _is(self, number: int, state: int) -> bool:
        return 1 <= number <= self._highest and self._state[number] == state

    def _use(self, number: int) -> None:
        self._state[number] = _USED
        self._in_use += 1

    def _free(self, number: int) -> None:
        self._queue[(self._first + self._queued) % self._highest] = number
        self._queued += 1
        self._state[number] = _FREED
