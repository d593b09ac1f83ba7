"""Token buckets: rate, burst, and their bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.buckets import TokenBuckets


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    """Five at once, then two per second; after a pause the whole burst again and no more."""
    buckets = TokenBuckets(2.0, 5)
    assert [buckets.take("a", 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [buckets.take("a", 100.5), buckets.take("a", 100.5)] == [True, False]
    assert [buckets.take("a", 200.0) for _ in range(6)] == [True] * 5 + [False]


def test_the_wait_is_told_to_who_came_too_soon() -> None:
    """After that time there is a token, and before it there is none."""
    buckets = TokenBuckets(rate=2, burst=1)
    assert buckets.wait_s("a", 0.0) == 0
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.125)
    assert buckets.wait_s("a", 0.125) == 0.375
    assert buckets.take("a", 0.5)


def test_one_key_does_not_use_anothers_tokens() -> None:
    """One client's storm costs another nothing."""
    buckets = TokenBuckets(1.0, 1)
    assert buckets.take(b"storm", 1.0)
    assert not buckets.take(b"storm", 1.0)
    assert buckets.take(b"calm", 1.0)


def test_keys_remembered_are_bounded_and_who_asks_on_stays_known() -> None:
    """Invented clients push each other out, not the memory up, and do not free a client from its limit."""
    buckets = TokenBuckets(rate=1, burst=1, keep=10)
    buckets.take("storm", 0)
    for number in range(1000):
        buckets.take(number, 0)
        assert not buckets.take("storm", 0)
    assert len(buckets) == 10


def test_a_changed_rate_holds_at_once_and_forgives_nothing() -> None:
    """A reload is no fresh burst."""
    buckets = TokenBuckets(1.0, 2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    buckets.configure(10.0, 1)
    assert not buckets.take("a", 0.0)
    assert buckets.take("a", 2.0)
    assert not buckets.take("a", 2.05)
    assert buckets.take("a", 2.1)


def test_full_buckets_are_forgotten_at_a_sweep() -> None:
    """A client that was quiet costs nothing."""
    buckets = TokenBuckets(rate=1, burst=2)
    buckets.take("a", 0.0)
    buckets.take("b", 10.0)
    buckets.sweep(10.0)
    assert len(buckets) == 1


@given(st.lists(st.floats(0, 2), max_size=200), st.floats(0.5, 50), st.integers(1, 20))
def test_never_more_than_burst_and_rate_allow(pauses: list[float], rate: float, burst: int) -> None:
    """Over any stretch of time, what passes is at most burst + rate x time."""
    buckets = TokenBuckets(rate, burst)
    now, passed = 5.0, 0
    for pause in pauses:
        now += pause
        passed += buckets.take("a", now)
        assert passed <= burst + rate * (now - 5.0) + 1e-6
