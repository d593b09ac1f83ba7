"""Bounds on guessing voucher codes, per client and for all together. Pure state; time is an argument.

A client may be wrong `FREE_MISTAKES` times, then waits, twice as long after each further mistake up to ten minutes.
A MAC address costs an attacker nothing, so mistakes are also counted for all clients together, as a level that falls by
`FORGIVEN_PER_S`: typing errors of a full hotel stay below `TOLERANCE`. Above it

- a client that is not known here has its attempt *delayed* before the code is looked at, up to `MAX_DELAY_S`, and
- a client must wait from its first mistake on.

Nobody is refused for what others did: the right code lets in at the first try, after eight seconds at worst, and at
once on a device that was let in before. What that leaves to an attacker is one guess per address of the pool and eight
seconds: 31 a second with 250 addresses, all of which must be held meanwhile. With a thousand valid vouchers of ten
digits that finds one in about four days, hence `codes.SPARSENESS`, and hence a sentence in `postern status` meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from gateway.addresses import MacAddress
from gateway.values import value_class

FREE_MISTAKES: Final = 5
FIRST_WAIT_S: Final = 10.0
MAX_WAIT_S: Final = 600.0
MAX_DELAY_S: Final = 8.0  # leaves time for the answer within the login's own limit
TOLERANCE: Final = 40.0  # mistakes of all clients that nobody notices
FORGIVEN_PER_S: Final = 0.1
_HIGHEST: Final = 4 * TOLERANCE  # so that an attack that ended is forgotten within half an hour
_FORGET_S: Final = 1800.0
_MAX_ENTRIES: Final = 8192
T = TypeVar("T")


@dataclass(slots=True)
class _Mistakes:
    count: int = 0
    wait_until: float = 0.0
    last: float = 0.0


@value_class
class Verdict:
    """What happens to an attempt: refused for `wait_s` seconds, or looked at after `delay_s` seconds."""

    wait_s: float = 0.0
    delay_s: float = 0.0


class GuessingGuard:
    """Who was wrong how often. Bounded: the entry that was touched least recently is forgotten first."""

    def __init__(self) -> None:
        self._clients: dict[MacAddress, _Mistakes] = {}
        self._familiar: dict[MacAddress, None] = {}
        self._level = 0.0
        self._level_at = 0.0

    def check(self, client: MacAddress, now: float) -> Verdict:
        """Judge an attempt before it is made."""
        mistakes = self._clients.get(client)
        if mistakes is not None and mistakes.wait_until > now:
            return Verdict(wait_s=mistakes.wait_until - now)
        excess = self._level_now(now) - TOLERANCE
        if excess < 0 or client in self._familiar:
            return Verdict()
        return Verdict(delay_s=min(MAX_DELAY_S, 2.0 ** (excess / 8)))

    def failed(self, client: MacAddress, now: float) -> float:
        """Note a wrong code; returns the seconds that the client must wait now (0.0: none)."""
        mistakes = self._clients.pop(client, None)
        if mistakes is None or now - mistakes.last > _FORGET_S:
            mistakes = _Mistakes()
        _make_room(self._clients)
        self._clients[client] = mistakes  # now the last to be forgotten
        mistakes.count += 1
        mistakes.last = now
        self._level = min(_HIGHEST, self._level_now(now) + 1.0)
        free = 1 if self._level >= TOLERANCE else FREE_MISTAKES
        excess = mistakes.count - free
        if excess >= 0:
            mistakes.wait_until = now + min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(excess, 10))
        return max(0.0, mistakes.wait_until - now)

    def succeeded(self, client: MacAddress) -> None:
        """Note a right code: the client's mistakes are forgotten. The level stays: one voucher buys no guesses."""
        self._clients.pop(client, None)
        self._familiar.pop(client, None)
        _make_room(self._familiar)
        self._familiar[client] = None

    def under_attack(self, now: float) -> bool:
        """Whether more is wrong than people mistype."""
        return self._level_now(now) >= TOLERANCE

    def _level_now(self, now: float) -> float:
        self._level = max(0.0, self._level - max(0.0, now - self._level_at) * FORGIVEN_PER_S)
        self._level_at = now
        return self._level


def _make_room(table: dict[MacAddress, T]) -> None:
    if len(table) >= _MAX_ENTRIES:
        del table[next(iter(table))]
