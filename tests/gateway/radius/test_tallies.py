"""Numbers about a server."""

from __future__ import annotations

from gateway.radius.tallies import BUCKETS_S, Tallies


def test_durations_fall_into_buckets() -> None:
    """A duration counts in the first bucket that is not below it, a very long one in the last."""
    tallies = Tallies()
    for duration_s in (0.0005, 0.001, 0.3, 60.0):
        tallies.answered("accept", duration_s, 5.0)
    assert tallies.buckets[0] == 2
    assert tallies.buckets[BUCKETS_S.index(0.5)] == 1
    assert tallies.buckets[-1] == 1
    assert tallies.requests["accept"] == sum(tallies.buckets) == 4
    assert tallies.duration_sum_s == 60.3015
    assert tallies.last_answer_at == 5.0


def test_quantiles_are_of_recent_answers() -> None:
    """Half of the answers took no longer than the median; without answers there is none."""
    tallies = Tallies()
    assert tallies.quantile_s(0.5) is None
    for number in range(1000):
        tallies.answered("accept", float(number), 0.0)
    median = tallies.quantile_s(0.5)
    assert median is not None
    assert 744 <= median <= 1000
    assert tallies.quantile_s(1.0) == 999.0
