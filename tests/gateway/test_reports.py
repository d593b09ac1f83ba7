"""How often something is reported."""

from __future__ import annotations

from gateway.reports import REPORTS_PER_INTERVAL, ReportLimit


def test_a_source_is_reported_once_a_minute() -> None:
    """What was held back meanwhile is told with the next report; other sources are not held back."""
    limit = ReportLimit()
    assert limit.admit("a", 0.0) == 0
    assert limit.admit("a", 1.0) is None
    assert limit.admit("b", 1.0) == 0
    assert limit.admit("a", 59.9) is None
    assert limit.admit("a", 60.0) == 2
    assert limit.admit("a", 120.0) == 0


def test_many_sources_together_are_bounded() -> None:
    """An attack with a new MAC per packet fills neither the log nor the memory; a minute later others are heard."""
    limit = ReportLimit()
    admitted = sum(limit.admit(number, number / 1000) is not None for number in range(10_000))
    assert admitted == len(limit) == REPORTS_PER_INTERVAL
    assert limit.admit("other", 59.9) is None
    assert limit.admit("other", 60.0) == 0
    assert len(limit) == REPORTS_PER_INTERVAL


def test_over_any_minute_no_more_than_the_bound_is_reported() -> None:
    """Also when sources come back just after their minute."""
    limit = ReportLimit(most=5)
    reported = [now for now in range(600) for source in range(20) if limit.admit(source, float(now)) is not None]
    assert all(sum(start <= now < start + 60 for now in reported) <= 5 for start in range(600))
    assert len(reported) >= 50
