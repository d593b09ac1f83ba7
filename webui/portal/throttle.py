"""Back-off after wrong passwords, per client and per user name. Pure state, time is an argument.

A client may be wrong `attempts` times, then waits `backoff_s`, doubled after each further mistake up to ten minutes.
Against an attacker who changes the MAC address for each try, mistakes are also counted per user name: once a name has
seen twice `attempts` mistakes, a client that was wrong about it waits from its first mistake on, and the first try of a
client that never logged in under that name is delayed by a growing time. It is never refused, so the owner of
the name gets in, from any device, at the first try; a device that was let in under it before notices nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from gateway.addresses import MacAddress
from gateway.values import value_class

K = TypeVar("K")
T = TypeVar("T")

MAX_WAIT_S: Final = 600.0
MAX_DELAY_S: Final = 8.0  # leaves time for the answer within the login's own limit
_FORGET_S: Final = 1800.0  # without a mistake
_MAX_ENTRIES: Final = 8192


@dataclass(slots=True)
class _Mistakes:
    count: int = 0
    wait_until: float = 0.0
    last: float = 0.0


@value_class
class Verdict:
    """What happens to an attempt: refused for `wait_s` seconds, or made after `delay_s` seconds."""

    wait_s: float = 0.0
    delay_s: float = 0.0


class LoginThrottle:
    """Who was wrong how often. Bounded: the entry that was touched least recently is forgotten first."""

    def __init__(self, attempts: int, backoff_s: float) -> None:
        self.attempts = attempts
        self.backoff_s = backoff_s
        self._clients: dict[MacAddress, _Mistakes] = {}
        self._names: dict[str, _Mistakes] = {}
        self._pairs: dict[tuple[str, MacAddress], _Mistakes] = {}
        self._familiar: dict[tuple[str, MacAddress], None] = {}

    def check(self, client: MacAddress, username: str, now: float) -> Verdict:
        """Judge an attempt before it is made."""
        name = username.casefold()
        wait_until = 0.0
        for mistakes in (_find(self._clients, client, now), _find(self._pairs, (name, client), now)):
            if mistakes is not None:
                wait_until = max(wait_until, mistakes.wait_until)
        if wait_until > now:
            return Verdict(wait_s=wait_until - now)
        about_name = _find(self._names, name, now)
        excess = about_name.count - 2 * self.attempts if about_name is not None else -1
        if excess >= 0 and (name, client) not in self._familiar:
            return Verdict(delay_s=min(MAX_DELAY_S, 2.0 ** min(excess, 8)))
        return Verdict()

    def failed(self, client: MacAddress, username: str, now: float) -> float:
        """Note a wrong password; returns the seconds that the client must wait now (0.0: none)."""
        name = username.casefold()
        about_client = _note(self._clients, client, now)
        about_name = _note(self._names, name, now)
        about_pair = _note(self._pairs, (name, client), now)
        self._delay_next(about_client, about_client.count - self.attempts, now)
        if about_name.count > 2 * self.attempts:
            self._delay_next(about_pair, about_pair.count - 1, now)
        return max(0.0, about_client.wait_until - now, about_pair.wait_until - now)

    def succeeded(self, client: MacAddress, username: str) -> None:
        """Note a login: the client's mistakes are forgotten, and it is familiar under this name.

        The name's own count stays: an attacker with one good account must not clear another's, nor their own trail.
        """
        name = username.casefold()
        self._clients.pop(client, None)
        self._pairs.pop((name, client), None)
        self._familiar.pop((name, client), None)
        _make_room(self._familiar)
        self._familiar[(name, client)] = None

    def _delay_next(self, mistakes: _Mistakes, excess: int, now: float) -> None:
        if excess >= 0:
            mistakes.wait_until = now + min(MAX_WAIT_S, self.backoff_s * 2.0 ** min(excess, 10))


def _find(table: dict[K, _Mistakes], key: K, now: float) -> _Mistakes | None:
    mistakes = table.get(key)
    if mistakes is not None and now - mistakes.last > _FORGET_S:
        del table[key]
        return None
    return mistakes


def _note(table: dict[K, _Mistakes], key: K, now: float) -> _Mistakes:
    mistakes = _find(table, key, now) or _Mistakes()
    table.pop(key, None)
    _make_room(table)
    table[key] = mistakes  # now the last to be forgotten
    mistakes.count += 1
    mistakes.last = now
    return mistakes


def _make_room(table: dict[K, T]) -> None:
    if len(table) >= _MAX_ENTRIES:
        del table[next(iter(table))]
