"""Identifiers of requests in flight: 256 per socket, taken in the order in which they were set free.

A RADIUS request is known to its server by source port and identifier (RFC 5080 §2.2.2), so one that was used within
`REST_S` is not used again while others are free; another socket is opened first, up to a bound. Pure state: sockets are
numbers here. A slot is socket number times 256 plus identifier.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

from gateway.radius.requests import Randomness

PER_SOCKET: Final = 256
REST_S: Final = 30.0


class Identifiers:
    """The slots of one server and purpose."""

    __slots__ = ("_free", "_last_sent", "_max_sockets", "_random", "sockets")

    def __init__(self, max_sockets: int, random: Randomness) -> None:
        self._max_sockets = max_sockets
        self._random = random
        self._free: deque[int] = deque()
        self._last_sent = array("d")
        self.sockets = 0

    def take(self, now: float) -> int | None:
        """A free slot, None when all are in flight."""
        if not self._free or now < self._last_sent[self._free[0]] + REST_S:
            self._open_socket()
        return self._free.popleft() if self._free else None

    def sent(self, slot: int, now: float) -> None:
        """A request went out under this slot."""
        self._last_sent[slot] = now

    def release(self, slot: int) -> None:
        """The request under this slot is over."""
        self._free.append(slot)

    def _open_socket(self) -> None:
        if self.sockets >= self._max_sockets:
            return
        base = self.sockets * PER_SOCKET
        first = self._random.randrange(PER_SOCKET)
        self._last_sent.extend([float("-inf")] * PER_SOCKET)
        self._free.extendleft(base + (first - step) % PER_SOCKET for step in range(PER_SOCKET))
        self.sockets += 1


def socket_of(slot: int) -> int:
    """The socket number of a slot."""
    return slot // PER_SOCKET


def identifier_of(slot: int) -> int:
    """The packet identifier of a slot."""
    return slot % PER_SOCKET
