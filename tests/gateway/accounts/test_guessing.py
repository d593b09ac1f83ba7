"""The guard against guessed codes: people who mistype get in, programs that guess get slow."""

from __future__ import annotations

from gateway.accounts.guessing import (
    FIRST_WAIT_S,
    FORGIVEN_PER_S,
    FREE_MISTAKES,
    MAX_DELAY_S,
    MAX_WAIT_S,
    TOLERANCE,
    GuessingGuard,
    Verdict,
)
from gateway.addresses import MacAddress


def device(number: int) -> MacAddress:
    """One of many devices."""
    return MacAddress(b"\x02\x00" + number.to_bytes(4, "big"))


def attacked(guard: GuessingGuard, now: float, mistakes: int = 400) -> None:
    """Many devices were wrong once each."""
    for number in range(mistakes):
        guard.failed(device(1000 + number), now)


def test_some_mistakes_are_free_and_then_each_costs_twice_as_much() -> None:
    """A guest who mistypes waits for nothing; the sixth try waits ten seconds, the seventh twenty."""
    guard, one = GuessingGuard(), device(1)
    waits = [guard.failed(one, 100.0 + number) for number in range(FREE_MISTAKES + 2)]
    assert waits[: FREE_MISTAKES - 1] == [0.0] * (FREE_MISTAKES - 1)
    assert waits[FREE_MISTAKES - 1 :] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert guard.check(one, 107.0).wait_s > 0
    assert guard.check(device(2), 107.0) == Verdict()
    for number in range(30):
        assert guard.failed(one, 200.0 + number) <= MAX_WAIT_S


def test_under_attack_unknown_devices_are_delayed_and_never_refused() -> None:
    """Whoever has the right code gets in at the first try, whatever others did."""
    guard = GuessingGuard()
    attacked(guard, 0.0)
    verdict = guard.check(device(1), 1.0)
    assert verdict.wait_s == 0.0
    assert 0.0 < verdict.delay_s <= MAX_DELAY_S
    assert guard.under_attack(1.0)


def test_under_attack_a_device_that_was_let_in_before_notices_nothing() -> None:
    """The guests of yesterday do not suffer."""
    guard = GuessingGuard()
    guard.succeeded(device(1))
    attacked(guard, 0.0)
    assert guard.check(device(1), 1.0) == Verdict()


def test_a_new_address_for_each_guess_costs_a_delay_each() -> None:
    """Under attack one mistake is the last free one, so a MAC address is good for one guess in eight seconds."""
    guard = GuessingGuard()
    attacked(guard, 0.0)
    assert guard.failed(device(1), 1.0) == FIRST_WAIT_S
    assert guard.check(device(2), 1.0).delay_s == MAX_DELAY_S


def test_a_full_hotel_that_mistypes_is_no_attack_and_an_attack_is_forgotten() -> None:
    """Mistakes of people are forgiven as time goes by."""
    guard, now = GuessingGuard(), 0.0
    for number in range(600):
        now += 1 / FORGIVEN_PER_S
        guard.failed(device(number), now)
    assert guard.check(device(9999), now) == Verdict()
    attacked(guard, now)
    assert guard.check(device(9999), now + 4 * TOLERANCE / FORGIVEN_PER_S) == Verdict()


def test_a_right_code_buys_no_guesses() -> None:
    """Mistakes of one device are forgotten at its login, the count of all is not."""
    guard, one = GuessingGuard(), device(1)
    attacked(guard, 0.0)
    for _ in range(3):
        guard.failed(one, 1.0)
    guard.succeeded(one)
    assert guard.check(one, 1.0) == Verdict()
    assert guard.under_attack(1.0)


def test_what_is_remembered_is_bounded() -> None:
    """A hundred thousand addresses take no more memory than eight thousand."""
    guard = GuessingGuard()
    for number in range(20_000):
        guard.failed(device(number), 1.0)
        guard.succeeded(device(number + 100_000))
    assert len(guard._clients) <= 8192
    assert len(guard._familiar) <= 8192
