"""Rate limits: token buckets by key, such as one per client. Pure state; time arrives as an argument.

A bucket is kept as the time at which it will be full again (the generic cell rate algorithm), one float: full in the
future by more than `(burst - 1) / rate` seconds means that there is no token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

KEYS_KEPT: Final = 16384
"""About 3 MB. Beyond it keys are invented; forgetting the one that asked longest ago only gives it a fresh burst."""


class TokenBuckets:
    """The same rate and burst for each of many keys."""

    def __init__(self, rate: float, burst: float, keep: int = KEYS_KEPT) -> None:
        """`rate` in tokens per second, `burst` the most at once, `keep` how many keys are remembered."""
        self._keep = keep
        # The key that asked longest ago first. Not a dict: finding its first key walks over those removed before.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        self.configure(rate, burst)

    def __len__(self) -> int:
        return len(self._full_at)

    def configure(self, rate: float, burst: float) -> None:
        """Change rate and burst; what was used so far stays used."""
        self._step_s = 1 / rate
        self._slack_s = (burst - 1) / rate

    def take(self, key: Hashable, now: float) -> bool:
        """Use a token of this key if it has one."""
        full_at = self._full_at.pop(key, now)
        if full_at < now:
            full_at = now
        allowed = full_at - now <= self._slack_s
        self._full_at[key] = full_at + self._step_s if allowed else full_at
        if len(self._full_at) > self._keep:
            self._full_at.popitem(last=False)
        return allowed

    def wait_s(self, key: Hashable, now: float) -> float:
        """How long until this key has a token."""
        return max(0.0, self._full_at.get(key, now) - now - self._slack_s)

    def sweep(self, now: float) -> None:
        """Forget the keys whose bucket is full again: they are as good as unknown."""
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
