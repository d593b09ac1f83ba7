"""Circuit breaker: a server that does not answer is left alone for a while, so that nobody waits for it in vain.

One per server and purpose. Closed, it lets everything through. After `failure_threshold` trains in a row without a
valid answer it opens for `timeout_s`; then it is half open and lets at most `max_requests` through at once: the first
answer closes it, a failure opens it again. A reject is an answer. Pure state; times are monotonic seconds.
"""

from __future__ import annotations

from enum import Enum


class BreakerState(Enum):
    """Whether requests go to a server."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The state of one server for one purpose."""

    __slots__ = ("_max_requests", "_threshold", "_timeout_s", "_trials", "failures", "opened_at", "state")

    def __init__(self, *, failure_threshold: int, timeout_s: float, max_requests: int) -> None:
        self.state = BreakerState.CLOSED
        self.failures = 0  # in a row
        self.opened_at = 0.0
        self._trials = 0  # under way while half open
        self.configure(failure_threshold=failure_threshold, timeout_s=timeout_s, max_requests=max_requests)

    def configure(self, *, failure_threshold: int, timeout_s: float, max_requests: int) -> None:
        """Take over other thresholds; the state stays."""
        self._threshold = failure_threshold
        self._timeout_s = timeout_s
        self._max_requests = max_requests

    def admits(self, now: float, *, cautiously: bool = False) -> bool:
        """Whether a request may go out now; `cautiously`: one at a time while half open, as others can go elsewhere."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now >= self.opened_at + self._timeout_s:
            self.state = BreakerState.HALF_OPEN
            self._trials = 0
        return self.state is BreakerState.HALF_OPEN and self._trials < (1 if cautiously else self._max_requests)

    def begin(self) -> None:
        """A train starts."""
        if self.state is BreakerState.HALF_OPEN:
            self._trials += 1

    def withdraw(self) -> None:
        """A train ended without saying anything about the server."""
        if self.state is BreakerState.HALF_OPEN:
            self._trials = max(0, self._trials - 1)

    def answered(self) -> bool:
        """A valid answer came; returns whether that closed the breaker."""
        closed = self.state is not BreakerState.CLOSED
        self.state = BreakerState.CLOSED
        self.failures = 0
        return closed

    def failed(self, now: float) -> bool:
        """A train ended without a valid answer; returns whether that opened the breaker."""
        self.failures += 1
        if self.state is BreakerState.OPEN or (self.state is BreakerState.CLOSED and self.failures < self._threshold):
            return False
        self.state = BreakerState.OPEN
        self.opened_at = now
        return True
