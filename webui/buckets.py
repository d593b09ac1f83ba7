"""Token buckets per key, bounded in number: how often one client address may ask. Pure state, time is an argument."""

from __future__ import annotations

from typing import Final

_MAX_KEYS: Final = 16384  # more clients than any zone we serve; at the bound the longest known key is forgotten


class TokenBuckets:
    """`rate` tokens per second and key, at most `burst` at once."""

    __slots__ = ("_buckets", "_burst", "_capacity", "_rate")

    def __init__(self, rate: float, burst: float, capacity: int = _MAX_KEYS) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> tokens, and when that was true

    def take(self, key: str, now: float) -> float:
        """Spend one token; 0.0 when there was one, else the seconds until there is."""
        found = self._buckets.get(key)
        if found is None:
            if len(self._buckets) >= self._capacity:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[key] = (self._burst - 1, now)
            return 0.0
        tokens = min(self._burst, found[0] + max(0.0, now - found[1]) * self._rate)
        if tokens >= 1:
            self._buckets[key] = (tokens - 1, now)
            return 0.0
        self._buckets[key] = (tokens, now)
        return (1 - tokens) / self._rate

    def sweep(self, now: float) -> None:
        """Forget the keys whose bucket is full again: they are as good as unknown."""
        full = [
            key for key, (tokens, then) in self._buckets.items() if tokens + (now - then) * self._rate >= self._burst
        ]
        for key in full:
            del self._buckets[key]

    def __len__(self) -> int:
        return len(self._buckets)
