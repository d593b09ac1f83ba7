"""How often somebody may try to log in as an administrator. Pure state; time arrives as an argument.

Three rules, none of which shuts out the real owner:

- One account from one place: some wrong attempts are free, then each waits twice as long as the one before, up to ten
  minutes. A place is an IPv4 address, or the /64 of an IPv6 address, since a single host has as many of those as it
  likes.
- One place, whatever the account: the same with four times the attempts, against somebody who tries many names.
- One account from all places together, against somebody who has many: a hundred an hour (OWASP ASVS 2.2.1). Places that
  this account has logged in from are outside of it and have their own budget by the first rule, so that an attack from
  elsewhere does not keep the owner out.

An attempt counts as wrong as soon as it is admitted, until it turns out right: many that are under way at once are then
as few as one after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gateway.buckets import TokenBuckets

LONGEST_WAIT_S: Final = 600.0
FORGOTTEN_AFTER_S: Final = 3600.0
PLACES_KEPT: Final = 4096
ELSEWHERE_PER_S: Final = 100 / 3600
ELSEWHERE_AT_ONCE: Final = 20
SPRAYING: Final = 4  # times the attempts of one account


@dataclass(slots=True)
class _Tries:
    wrong: int = 0
    open_at: float = 0.0
    last_at: float = 0.0


class Throttle:
    """Attempts by account and place. An account's name need not exist."""

    def __init__(self, attempts: int, backoff_s: float) -> None:
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()
        self._elsewhere = TokenBuckets(ELSEWHERE_PER_S, ELSEWHERE_AT_ONCE, PLACES_KEPT)
        self.configure(attempts, backoff_s)

    def configure(self, attempts: int, backoff_s: float) -> None:
        """Change the bounds; what was counted stays."""
        self._attempts = attempts
        self._backoff_s = backoff_s

    def admit(self, account: str, place: str, now: float, *, known: bool = False) -> float:
        """0 when an attempt may be made (and is counted), else the seconds to wait.

        `known` says that the account has logged in from this place before.
        """
        here, anywhere = self._of((account, place), now), self._of(("", place), now)
        wait = max(here.open_at, anywhere.open_at) - now
        if wait > 0:
            return wait
        if not known and not self._elsewhere.take(account, now):
            return max(1.0, self._elsewhere.wait_s(account, now))
        self._count(here, self._attempts, now)
        self._count(anywhere, self._attempts * SPRAYING, now)
        return 0.0

    def succeeded(self, account: str, place: str, now: float) -> None:
        """The attempt was right: the place has its whole budget for this account again."""
        self._tries.pop((account, place), None)
        self._take_back(("", place), now)

    def not_judged(self, account: str, place: str, now: float) -> None:
        """The attempt could not be looked at, or was right as far as it went."""
        self._take_back((account, place), now)
        self._take_back(("", place), now)

    def __len__(self) -> int:
        """Accounts and places that are remembered."""
        return len(self._tries)

    def _of(self, key: tuple[str, str], now: float) -> _Tries:
        tries = self._tries.pop(key, None)
        if tries is None or now - tries.last_at > FORGOTTEN_AFTER_S:
            tries = _Tries(open_at=now, last_at=now)
        self._tries[key] = tries
        if len(self._tries) > PLACES_KEPT:
            self._tries.popitem(last=False)
        return tries

    def _take_back(self, key: tuple[str, str], now: float) -> None:
        tries = self._of(key, now)
        tries.wrong = max(0, tries.wrong - 1)
        tries.open_at = now

    def _count(self, tries: _Tries, free: int, now: float) -> None:
        tries.wrong += 1
        tries.last_at = now
        if tries.wrong >= free:
            tries.open_at = now + min(LONGEST_WAIT_S, self._backoff_s * 2 ** min(20, tries.wrong - free))


def place_of(address: str) -> str:
    """The place that an address belongs to; what is no address is a place of its own."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
