"""The circuit breaker's three states."""

from __future__ import annotations

from gateway.radius.breaker import Breaker, BreakerState


def breaker() -> Breaker:
    return Breaker(failure_threshold=5, timeout_s=30, max_requests=3)


def opened() -> Breaker:
    made = breaker()
    for _ in range(5):
        made.failed(100.0)
    return made


def test_it_opens_at_the_threshold_exactly() -> None:
    """Four failures in a row leave it closed, the fifth opens it and says so."""
    made = breaker()
    assert [made.failed(100.0) for _ in range(5)] == [False, False, False, False, True]
    assert not made.admits(100.0)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    """Only failures in a row count."""
    made = breaker()
    for _ in range(4):
        made.failed(100.0)
    assert not made.answered()
    assert not made.failed(100.0)
    assert made.state is BreakerState.CLOSED


def test_half_open_admits_a_bounded_number() -> None:
    """After the timeout as many as configured may try at once, or one when others have somewhere to go."""
    made = opened()
    assert not made.admits(129.9)
    assert made.admits(130.0, cautiously=True)
    made.begin()
    assert not made.admits(130.0, cautiously=True)
    for _ in range(2):
        assert made.admits(130.0)
        made.begin()
    assert not made.admits(130.0)
    made.withdraw()
    assert made.admits(130.0)


def test_the_first_answer_closes_it() -> None:
    """One valid answer, also a reject, closes it and says so once."""
    made = opened()
    assert made.admits(130.0)
    assert made.answered()
    assert not made.answered()
    assert made.admits(130.0)


def test_a_failure_while_half_open_opens_it_again() -> None:
    """A failed try costs the whole timeout again."""
    made = opened()
    assert made.admits(130.0)
    made.begin()
    assert made.failed(139.0)
    assert not made.admits(168.9)
    assert made.admits(169.0)


def test_late_failures_do_not_prolong_the_wait() -> None:
    """Trains that began before it opened say nothing new when they fail."""
    made = opened()
    assert not made.failed(110.0)
    assert made.admits(130.0)
