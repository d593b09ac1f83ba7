"""How fast clients may ask: token buckets per client and per zone, and how often a refusal is reported.

Pure state. The buckets keep one instant instead of tokens and a refill time (generic cell rate algorithm): the moment
at which the bucket would be full again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

KEYS_KEPT: Final = 16384
"""Clients remembered at once; forgetting the one that asked longest ago only gives it a fresh burst."""

REPORT_INTERVAL_S: Final = 60.0
REPORTS_PER_INTERVAL: Final = 60
"""All sources together: an attack with invented MACs must not fill the log, each MAC being a new source."""


class TokenBucket:
    """One rate with a burst, such as that of new clients in a zone."""

    def __init__(self, rate: float, burst: int) -> None:
        self._step = 1 / rate
        self._slack = (burst - 1) / rate
        self._full_at = float("-inf")

    def take(self, now: float) -> bool:
        """Use a token if there is one."""
        full_at = max(self._full_at, now)
        if full_at - now > self._slack:
            return False
        self._full_at = full_at + self._step
        return True


class ClientBuckets:
    """The same rate and burst for each of many clients."""

    def __init__(self, rate: float, burst: int, keep: int = KEYS_KEPT) -> None:
        self._step = 1 / rate
        self._slack = (burst - 1) / rate
        self._keep = keep
        # The client that asked longest ago first. Not a dict: finding its first key walks over those removed before.
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: bytes, now: float) -> bool:
        """Use a token of this client if it has one."""
        full_at = self._full_at.pop(client, now)
        if full_at < now:
            full_at = now
        allowed = full_at - now <= self._slack
        self._full_at[client] = full_at + self._step if allowed else full_at
        if len(self._full_at) > self._keep:
            self._full_at.popitem(last=False)
        return allowed


class ReportLimit:
    """Whether a refusal deserves a log line: once per source and minute, and not too many in all."""

    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}
        self._started_at = float("-inf")

    def allow(self, source: bytes, now: float) -> bool:
        """Whether this source may be reported now."""
        if now - self._started_at >= REPORT_INTERVAL_S:
            self._started_at = now
            self._since = {known: at for known, at in self._since.items() if now - at < REPORT_INTERVAL_S}
        last = self._since.get(source)
        if last is not None and now - last < REPORT_INTERVAL_S:
            return False
        if len(self._since) >= REPORTS_PER_INTERVAL:
            return False
        self._since[source] = now
        return True
