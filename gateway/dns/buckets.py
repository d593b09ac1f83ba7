"""Rate limits per client: token buckets that cost one float each.

A bucket is kept as the time at which it will be full again (the generic cell rate algorithm): full in the future by
`burst / rate` seconds means empty. A bucket that is full again need not be remembered at all.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

MAX_CLIENTS: Final = 16384  # about 3 MB; more addresses than that in one burst are forged
_SWEEP_PAUSE_S: Final = 1.0


class ClientBuckets:
    """One token bucket per client, bounded: beyond `max_clients` the oldest is forgotten and starts full again."""

    def __init__(self, rate: float, burst: int, max_clients: int = MAX_CLIENTS) -> None:
        """`rate` in tokens per second, `burst` the size of a bucket."""
        self._max_clients = max_clients
        self._full_at: dict[Hashable, float] = {}
        self._next_sweep = 0.0
        self.configure(rate, burst)

    def __len__(self) -> int:
        return len(self._full_at)

    def configure(self, rate: float, burst: int) -> None:
        """Change rate and burst; what clients have used so far stays used."""
        self._token_s = 1.0 / rate
        self._empty_s = (burst - 1) / rate

    def take(self, client: Hashable, now: float) -> bool:
        """Take one token of the client's bucket; False when it is empty."""
        full_at = self._full_at.get(client)
        if full_at is None:
            if len(self._full_at) >= self._max_clients:
                self._make_room(now)
            self._full_at[client] = now + self._token_s
            return True
        if full_at < now:
            full_at = now
        elif full_at - now > self._empty_s:
            return False
        self._full_at[client] = full_at + self._token_s
        return True

    def _make_room(self, now: float) -> None:
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_PAUSE_S
            self._full_at = {client: full_at for client, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) >= self._max_clients:
            del self._full_at[next(iter(self._full_at))]
