"""What happened with one server and purpose, in numbers: counters, a histogram and recent round-trip times.

Plain counters that the metrics room reads when it is asked; nothing here decides anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Final

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECENT: Final = 256


class Tallies:
    """Numbers of one server and purpose since the start.

    `buckets` counts durations not above the bound of the same place in BUCKETS_S, the last one those above all bounds
    (not cumulative). A duration runs from the first transmission of a request to its answer.
    """

    __slots__ = ("_recent", "buckets", "duration_sum_s", "last_answer_at", "refused", "requests", "transmissions")

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()  # by status: accept, reject, challenge, response, timeout
        self.refused: Counter[str] = Counter()  # answers dropped, by reason
        self.transmissions = 0  # repetitions included
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.duration_sum_s = 0.0
        self.last_answer_at: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def answered(self, status: str, duration_s: float, now: float) -> None:
        """Count a valid answer."""
        self.requests[status] += 1
        self.buckets[bisect_left(BUCKETS_S, duration_s)] += 1
        self.duration_sum_s += duration_s
        self.last_answer_at = now
        self._recent.append(duration_s)

    def quantile_s(self, share: float) -> float | None:
        """Round-trip time that this share of recent answers did not exceed, None before the first answer."""
        if not self._recent:
            return None
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
