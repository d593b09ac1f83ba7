"""Back-off after wrong passwords: per client, and against guessing one account from many clients."""

from __future__ import annotations

from gateway.addresses import MacAddress
from webui.portal.throttle import MAX_DELAY_S, MAX_WAIT_S, LoginThrottle, Verdict


def mac(number: int) -> MacAddress:
    """One of many clients."""
    return MacAddress(bytes((2, 0)) + number.to_bytes(4, "big"))


def test_a_client_waits_after_its_last_free_attempt_and_the_wait_doubles() -> None:
    """Up to ten minutes."""
    throttle, now = LoginThrottle(attempts=3, backoff_s=10), 0.0
    waits = []
    for number in range(12):
        now += throttle.check(mac(1), f"user{number}", now).wait_s
        waits.append(throttle.failed(mac(1), f"user{number}", now))
    assert waits == [0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
    assert throttle.check(mac(1), "alice", now).wait_s == MAX_WAIT_S
    assert throttle.check(mac(2), "alice", now) == Verdict()


def test_a_success_clears_the_clients_mistakes() -> None:
    """Somebody who remembered the password starts afresh."""
    throttle = LoginThrottle(attempts=2, backoff_s=10)
    throttle.failed(mac(1), "alice", 0.0)
    throttle.succeeded(mac(1), "alice")
    assert throttle.failed(mac(1), "alice", 1.0) == 0


def test_mistakes_are_forgotten_after_half_an_hour() -> None:
    """Nobody is punished for yesterday."""
    throttle = LoginThrottle(attempts=2, backoff_s=10)
    throttle.failed(mac(1), "alice", 0.0)
    assert throttle.failed(mac(1), "alice", 2000.0) == 0


def test_guessing_one_account_with_changing_addresses_becomes_slow() -> None:
    """Each new address gets one delayed try, and waits after it; the delay grows to its bound."""
    throttle = LoginThrottle(attempts=5, backoff_s=10)
    for number in range(10):
        assert throttle.check(mac(number), "Alice", 0.0) == Verdict()
        throttle.failed(mac(number), "alice", 0.0)
    delays = []
    for number in range(10, 16):
        delays.append(throttle.check(mac(number), "ALICE", 0.0).delay_s)
        assert throttle.failed(mac(number), "alice", 0.0) == 10
        assert throttle.check(mac(number), "alice", 1.0).wait_s == 9
    assert delays == [1, 2, 4, 8, 8, 8]
    assert max(delays) == MAX_DELAY_S


def test_the_owner_of_a_guessed_account_is_never_locked_out() -> None:
    """From a new device a short delay, from a familiar one nothing; other accounts are not touched."""
    throttle = LoginThrottle(attempts=5, backoff_s=10)
    throttle.succeeded(mac(999), "alice")
    for number in range(500):
        throttle.failed(mac(number), "alice", 0.0)
    assert throttle.check(mac(999), "alice", 0.0) == Verdict()
    new_device = throttle.check(mac(998), "alice", 0.0)
    assert new_device.wait_s == 0
    assert 0 < new_device.delay_s <= MAX_DELAY_S
    assert throttle.check(mac(998), "bob", 0.0) == Verdict()


def test_logging_in_with_one_account_does_not_clear_the_count_about_another() -> None:
    """An attacker with one good account gains nothing by using it between guesses."""
    throttle = LoginThrottle(attempts=5, backoff_s=10)
    for number in range(20):
        throttle.failed(mac(number), "alice", 0.0)
        throttle.succeeded(mac(number), "mallory")
    assert throttle.check(mac(19), "alice", 0.0).wait_s > 0
    assert throttle.check(mac(100), "alice", 0.0).delay_s > 0


def test_the_tables_are_bounded() -> None:
    """A flood of names and clients forgets the oldest, and the memory stays."""
    throttle = LoginThrottle(attempts=5, backoff_s=10)
    for number in range(20_000):
        throttle.failed(mac(number), f"user{number}", 0.0)
        throttle.succeeded(mac(number), f"other{number}")
    assert max(len(throttle._clients), len(throttle._names), len(throttle._pairs), len(throttle._familiar)) <= 8192
