"""Guessing is slowed down; the owner is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.throttle import (
    ELSEWHERE_AT_ONCE,
    FORGOTTEN_AFTER_S,
    LONGEST_WAIT_S,
    PLACES_KEPT,
    Throttle,
    place_of,
)


def test_after_some_attempts_each_waits_twice_as_long() -> None:
    """Three are free; then 10, 20, 40 seconds, up to ten minutes."""
    throttle = Throttle(3, 10)
    now, waits = 0.0, []
    for _ in range(12):
        assert throttle.admit("alice", "192.0.2.1", now, known=True) == 0
        wait = throttle.admit("alice", "192.0.2.1", now, known=True)
        waits.append(wait)
        now += max(wait, 0.0)
        if wait == 0:
            waits.pop()
    assert waits[:4] == [10, 20, 40, 80]
    assert max(waits) <= LONGEST_WAIT_S


def test_many_attempts_at_once_are_as_few_as_one_after_the_other() -> None:
    """An attempt counts when it is let in, not when its password was found wrong."""
    throttle = Throttle(3, 10)
    admitted = [throttle.admit("alice", "192.0.2.1", 0.0) == 0 for _ in range(100)]
    assert sum(admitted) == 3


def test_a_right_password_gives_the_whole_budget_back() -> None:
    """Somebody who mistyped twice is not slow the next time."""
    throttle = Throttle(3, 10)
    for _ in range(3):
        assert throttle.admit("alice", "192.0.2.1", 0.0) == 0
    assert throttle.admit("alice", "192.0.2.1", 1.0) > 0
    throttle.succeeded("alice", "192.0.2.1", 1.0)
    assert throttle.admit("alice", "192.0.2.1", 1.0) == 0


def test_an_attack_from_elsewhere_does_not_keep_the_owner_out() -> None:
    """Ten thousand addresses guess at alice: a hundred an hour are looked at, and alice logs in from her own place."""
    throttle = Throttle(5, 10)
    times = [n * 0.36 for n in range(10_000)]
    looked_at = [now for n, now in enumerate(times) if throttle.admit("alice", f"203.0.{n >> 8}.{n & 255}", now) == 0]
    assert 100 <= len(looked_at) <= 100 + ELSEWHERE_AT_ONCE
    now = looked_at[-1] + 1
    assert throttle.admit("alice", "198.51.100.7", now) > 0
    assert throttle.admit("alice", "192.0.2.1", now, known=True) == 0


def test_one_place_that_tries_many_names_is_slowed_down() -> None:
    """The names need not exist."""
    throttle = Throttle(5, 10)
    admitted = sum(throttle.admit(f"name{n}", "192.0.2.1", 0.0) == 0 for n in range(100))
    assert admitted == 20


def test_what_was_not_judged_does_not_count() -> None:
    """A login that found the queue full, or lacked its second factor, is no wrong one."""
    throttle = Throttle(2, 10)
    for _ in range(50):
        assert throttle.admit("alice", "192.0.2.1", 0.0, known=True) == 0
        throttle.not_judged("alice", "192.0.2.1", 0.0)


def test_it_forgets_after_an_hour_and_never_grows_without_bound() -> None:
    """An address that invents names costs bounded memory."""
    throttle = Throttle(1, 10)
    assert throttle.admit("alice", "192.0.2.1", 0.0) == 0
    assert throttle.admit("alice", "192.0.2.1", FORGOTTEN_AFTER_S + 1) == 0
    for n in range(3 * PLACES_KEPT):
        throttle.admit(f"name{n}", f"place{n}", 0.0)
    assert len(throttle) <= PLACES_KEPT


def test_a_place_is_an_address_or_a_network_of_ipv6() -> None:
    """A host has 2^64 addresses of IPv6 to guess from; they are one place."""
    assert place_of("192.0.2.1") == "192.0.2.1"
    assert place_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert place_of("2001:db8:1:2:3::4") == place_of("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert place_of("fe80::1%eth0") == "fe80::/64"
    assert place_of("a name" * 100) == ("a name" * 100)[:64]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 100)), max_size=60))
def test_a_wait_is_never_longer_than_ten_minutes(attempts: list[tuple[str, str, float]]) -> None:
    """Whatever happens, whoever waits as long as they are told is let in afterwards."""
    throttle = Throttle(2, 10)
    now = 0.0
    for account, place, step in attempts:
        now += step
        wait = throttle.admit(account, place, now, known=True)
        assert 0 <= wait <= LONGEST_WAIT_S
    wait = throttle.admit("a", "x", now, known=True)
    if wait:
        assert throttle.admit("a", "x", now + wait + 0.001, known=True) == 0
