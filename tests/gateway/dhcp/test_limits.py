"""Token buckets and the limit on reports."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.dhcp.limits import REPORTS_PER_INTERVAL, ClientBuckets, ReportLimit, TokenBucket


def test_a_burst_then_the_rate() -> None:
    """A full bucket gives its burst at once, then one token per step."""
    bucket = TokenBucket(rate=2, burst=3)
    assert [bucket.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take(0.5)
    assert not bucket.take(0.6)


@given(st.floats(0.5, 50), st.integers(1, 20), st.lists(st.floats(0, 2), max_size=200))
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[float]) -> None:
    """Over any stretch from the start, at most burst + rate × time is let through."""
    bucket, now, taken = TokenBucket(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
        assert taken <= burst + rate * now + 1e-6


def test_each_client_has_its_own_bucket() -> None:
    """One client's storm costs another nothing."""
    buckets = ClientBuckets(rate=1, burst=2)
    assert [buckets.take(b"storm", 0) for _ in range(4)] == [True, True, False, False]
    assert buckets.take(b"calm", 0)


def test_clients_remembered_are_bounded() -> None:
    """Invented clients push each other out, not the memory up."""
    buckets = ClientBuckets(rate=1, burst=1, keep=10)
    for number in range(1000):
        buckets.take(number.to_bytes(6, "big"), 0)
    assert len(buckets) == 10


def test_a_source_is_reported_once_a_minute() -> None:
    """The second report within a minute is swallowed, the one after it is not."""
    limit = ReportLimit()
    assert limit.allow(b"a", 0)
    assert not limit.allow(b"a", 59)
    assert limit.allow(b"a", 60)


def test_many_sources_together_are_bounded() -> None:
    """An attack with a new MAC per packet fills neither the log nor the memory, and a minute later others are heard."""
    limit = ReportLimit()
    allowed = sum(limit.allow(number.to_bytes(6, "big"), 1.0) for number in range(10_000))
    assert allowed == REPORTS_PER_INTERVAL
    assert limit.allow(b"other", 62.0)
