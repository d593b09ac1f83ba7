"""Token buckets: rate, burst, and their bound."""

from __future__ import annotations

from webui.buckets import TokenBuckets


def test_a_burst_passes_and_then_the_rate() -> None:
    """The answer to one too many is how long to wait."""
    buckets = TokenBuckets(rate=2, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("a", 0.5) == 0.5
    assert buckets.take("b", 0.5) == 0


def test_full_buckets_are_forgotten_at_a_sweep() -> None:
    """A client that was quiet costs nothing."""
    buckets = TokenBuckets(rate=1, burst=2)
    buckets.take("a", 0.0)
    buckets.take("b", 10.0)
    buckets.sweep(10.0)
    assert len(buckets) == 1


def test_the_table_is_bounded() -> None:
    """A thousand addresses do not make a thousand entries."""
    buckets = TokenBuckets(rate=1, burst=1, capacity=10)
    for number in range(1000):
        buckets.take(str(number), 0.0)
    assert len(buckets) == 10


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    """Nor does it take any."""
    buckets = TokenBuckets(rate=1, burst=1)
    assert buckets.take("a", 100.0) == 0
    assert buckets.take("a", 50.0) == 1
