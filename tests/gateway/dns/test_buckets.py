"""Rate limits per client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.dns.buckets import ClientBuckets


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    """Five at once, then two per second."""
    buckets = ClientBuckets(2.0, 5)
    assert [buckets.take("a", 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [buckets.take("a", 100.5), buckets.take("a", 100.5)] == [True, False]
    assert [buckets.take("a", 200.0) for _ in range(6)] == [True] * 5 + [False]


def test_one_client_does_not_use_anothers_tokens() -> None:
    """Buckets are per client."""
    buckets = ClientBuckets(1.0, 1)
    assert buckets.take("a", 1.0)
    assert not buckets.take("a", 1.0)
    assert buckets.take("b", 1.0)


def test_the_table_is_bounded_and_forgets_full_buckets_first() -> None:
    """A flood of forged addresses cannot fill the memory."""
    buckets = ClientBuckets(1.0, 2, max_clients=100)
    for number in range(1000):
        assert buckets.take(number, 10.0)
    assert len(buckets) == 100
    buckets.take("later", 100.0)
    assert len(buckets) == 1


@given(st.lists(st.floats(0, 0.5), max_size=200), st.floats(0.5, 50), st.integers(1, 20))
def test_never_more_than_burst_and_rate_allow(pauses: list[float], rate: float, burst: int) -> None:
    """Over any stretch of time, what passes is at most burst + rate x time."""
    buckets = ClientBuckets(rate, burst)
    now, passed = 5.0, 0
    for pause in pauses:
        now += pause
        passed += buckets.take("a", now)
        assert passed <= burst + rate * (now - 5.0) + 1e-6
