"""The portal's numbers, as cumulative counts that the daemon exports with its own metrics.

Names and labels are those of the predecessor (`chilli_http_logins_total` and the other two); here they are plain
numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from webui.portal.daemon import JsonValue

LoginType = Literal["uam", "api", "wispr"]
LoginStatus = Literal["success", "failure", "timeout"]

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


@dataclass(slots=True)
class Histogram:
    """How many values were at most each bound of `BOUNDS_S`, and beyond the last."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def as_json(self) -> dict[str, JsonValue]:
        """Bounds, cumulative counts (one more than bounds: the last is for all), and the sum."""
        return {"bounds": list(BOUNDS_S), "counts": list(accumulate(self.buckets)), "sum": self.total_s}


class PortalCounts:
    """Logins by way of asking and by outcome, and how long they took."""

    def __init__(self) -> None:
        self.logins: dict[LoginType, int] = {"uam": 0, "api": 0}
        self.outcomes: dict[tuple[LoginType, LoginStatus], int] = {}
        self.durations: dict[LoginType, Histogram] = {"uam": Histogram(), "api": Histogram()}
        self.redirects = 0
        self.probes_answered = 0

    def login_ended(self, kind: LoginType, status: LoginStatus, seconds: float) -> None:
        """Count one login that was asked and answered."""
        self.logins[kind] += 1
        self.outcomes[kind, status] = self.outcomes.get((kind, status), 0) + 1
        self.durations[kind].observe(seconds)
