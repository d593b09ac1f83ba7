"""Vouchers at the session machine: one budget for all devices and logins, and devices that come back by themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.resume import usage_records
from gateway.session.actions import (
    Action,
    ChargeUsage,
    RecallDevice,
    RememberDevice,
    ReplyLogin,
    SendAccessRequest,
    VerifyVoucher,
)
from gateway.session.events import (
    AccessAccepted,
    AccessRejected,
    AuthorizeRequested,
    ChangeRequested,
    DeviceReturned,
    LeaseBound,
    LeaseEnded,
    LoginRequested,
    LogoutRequested,
    TrafficAllowed,
    UsageCharged,
)
from gateway.session.model import (
    AuthenticatedBy,
    ClientKey,
    Counters,
    Grant,
    GrantChange,
    Limits,
    LoginMethod,
    LoginResult,
    SessionState,
    TerminateCause,
    UsedBefore,
    VoucherCode,
)
from gateway.session.store import in_this_boot, load_session, load_usage, save_session, save_usage
from gateway.session.usage import rates_bps, remaining_bytes
from tests.gateway.session.life import ALICE, BOB, UNIX, ZONE, Life, address_of

VOUCHERS = replace(ZONE, methods=(LoginMethod.VOUCHER, LoginMethod.CLICK, LoginMethod.PASSWORD))
REMEMBERING = replace(VOUCHERS, remember=24)
NAME = "voucher-3-17"


def grant(limits: Limits, used: UsedBefore | None = None, devices: int | None = 2) -> Grant:
    """What the store says of the voucher."""
    return Grant(NAME, AuthenticatedBy.LOCAL, limits, devices=devices, account=NAME, used=used or UsedBefore())


def ask(life: Life, key: ClientKey) -> list[Action]:
    """The guest types the code."""
    if life.machine.sessions.get(key) is None:
        life.lease(key)
    return life.send(LoginRequested(key, life.request(), LoginMethod.VOUCHER, VoucherCode("48219-07365")))


def log_in(life: Life, key: ClientKey, granted: Grant) -> list[Action]:
    """The code is right."""
    ask(life, key)
    actions = life.send(AccessAccepted(key, life.login_id(key), granted))
    session = life.machine.sessions.get(key)
    assert session is not None
    if session.state is SessionState.OPENING:
        life.kernel[key] = Counters()
        actions += life.send(TrafficAllowed(key))
    return actions


def charges(life: Life) -> list[ChargeUsage]:
    """What was ordered to be written so far."""
    return [action for action in life.log if isinstance(action, ChargeUsage)]


def online(life: Life, key: ClientKey) -> bool:
    """Whether the client is let through."""
    session = life.machine.sessions.get(key)
    return session is not None and session.online


def ended_with(life: Life, cause: TerminateCause) -> int:
    """How many sessions ended so."""
    return life.machine.ended[cause]


def test_a_code_goes_to_the_vouchers_and_into_no_line_of_the_timeline() -> None:
    """RADIUS is not asked, and who reads the events learns no code."""
    life = Life(VOUCHERS)
    actions = ask(life, ALICE)
    assert [action for action in actions if isinstance(action, VerifyVoucher)]
    assert not [action for action in actions if isinstance(action, SendAccessRequest)]
    assert "48219" not in repr(actions)


def test_why_a_code_was_refused_reaches_the_guest() -> None:
    """As a fixed word that the page has in the guest's language, and how long to wait."""
    life = Life(VOUCHERS)
    ask(life, ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), "no such code", reason="wrong", wait_s=10.0))
    ask(life, ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), "slow", reason="throttled", wait_s=9.0))
    first, second = life.replies()
    assert (first.result, first.reason, first.wait_s) == (LoginResult.REJECT, "wrong", 10.0)
    assert (second.result, second.wait_s) == (LoginResult.THROTTLED, 9.0)


def test_time_that_was_used_before_is_gone() -> None:
    """An hour of which fifty minutes were used lasts ten minutes."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600), UsedBefore(3000)))
    life.wait(599)
    assert online(life, ALICE)
    life.wait(2)
    assert not online(life, ALICE)
    assert ended_with(life, TerminateCause.SESSION_TIMEOUT) == 1
    (charge,) = charges(life)
    assert charge.usage.seconds == 600
    assert charge.usage.account == NAME


def test_octets_that_were_used_before_are_gone() -> None:
    """The session ends when the voucher is used up, not when the session has used that much."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(total_bytes=10_000), UsedBefore(0, Counters(4_000, 1, 3_000, 1))))
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert remaining_bytes(session) == 3_000
    life.traffic(ALICE, 1_000, 1_999)
    life.wait(70)
    assert online(life, ALICE)
    life.traffic(ALICE, 1, 0)
    life.wait(70)
    assert not online(life, ALICE)
    assert charges(life)[0].usage.counters.upload_bytes == 1_001


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        (Limits(session_time_s=60), UsedBefore(60)),
        (Limits(total_bytes=10), UsedBefore(0, Counters(5, 1, 5, 1))),
        (Limits(terminate_unix=UNIX - 1), UsedBefore()),
    ],
)
def test_a_voucher_with_nothing_left_lets_nobody_in(limits: Limits, used: UsedBefore) -> None:
    """Even when the store did not know it yet."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(limits, used))
    assert not online(life, ALICE)
    assert life.replies()[-1].result is LoginResult.REJECT
    assert life.replies()[-1].reason == "used_up"


def test_two_devices_share_the_time() -> None:
    """Together they have an hour: thirty minutes alone leave fifteen for each."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    life.wait(1800)
    log_in(life, BOB, grant(Limits(session_time_s=3600)))
    life.wait(890)
    assert online(life, ALICE)
    assert online(life, BOB)
    life.wait(20)
    assert not online(life, ALICE)
    assert not online(life, BOB)
    assert sum(charge.usage.seconds for charge in charges(life)) == 3600


def test_the_time_of_one_that_leaves_is_the_others() -> None:
    """After ten minutes together one leaves; the other has what is left to itself."""
    life = Life(VOUCHERS)
    for key in (ALICE, BOB):
        log_in(life, key, grant(Limits(session_time_s=3600)))
    life.wait(600)
    life.act(LogoutRequested(BOB, None, TerminateCause.USER_REQUEST, "the guest"))
    life.wait(2390)
    assert online(life, ALICE)
    life.wait(20)
    assert not online(life, ALICE)


def test_two_devices_share_the_octets() -> None:
    """What one has used the other has not; both end within a look of each other."""
    life = Life(VOUCHERS)
    for key in (ALICE, BOB):
        log_in(life, key, grant(Limits(total_bytes=1_000_000)))
    life.traffic(ALICE, 400_000)
    life.wait(61)
    session = life.machine.sessions.get(BOB)
    assert session is not None
    assert remaining_bytes(session) == 600_000
    life.traffic(BOB, 0, 600_000)
    life.wait(61)
    assert not online(life, ALICE)
    assert not online(life, BOB)


def test_a_device_too_many_is_refused_and_takes_no_time() -> None:
    """The others' share does not change."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600), devices=1))
    log_in(life, BOB, grant(Limits(session_time_s=3600), devices=1))
    assert not online(life, BOB)
    assert life.replies()[-1].result is LoginResult.LIMIT
    life.wait(3590)
    assert online(life, ALICE)


def test_usage_that_the_store_has_not_written_counts_at_the_next_login() -> None:
    """A guest who logs out and in at once does not get the time again."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    life.wait(3000)
    life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))  # as the store knew it before
    life.wait(599)
    assert online(life, ALICE)
    life.wait(2)
    assert not online(life, ALICE)


def test_usage_that_was_written_counts_once() -> None:
    """After the store's word it is in the grant, and no longer beside it."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    life.wait(1000)
    life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
    life.send(UsageCharged((charges(life)[0].usage.acct_session_id,)))
    log_in(life, ALICE, grant(Limits(session_time_s=3600), UsedBefore(1000)))
    life.wait(2590)
    assert online(life, ALICE)
    life.wait(20)
    assert not online(life, ALICE)
    assert not [usage for usage in life.machine.shared.pending.values() if usage.seconds == 1000]


def test_usage_survives_the_journal() -> None:
    """What is read back is what was written."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    life.wait(5)
    life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
    usage = charges(life)[0].usage
    assert load_usage(usage.acct_session_id, save_usage(usage)) == usage


def test_usage_in_a_journal_is_read_back_and_what_is_damaged_is_said() -> None:
    """One bad record keeps no other from being charged."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    life.wait(5)
    life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
    usage = charges(life)[0].usage
    found, notes = usage_records({usage.acct_session_id: save_usage(usage), "bad": {"zone": "guest"}})
    assert found == [usage]
    assert len(notes) == 1
    assert "'bad'" in notes[0]


def test_after_a_restart_a_shared_voucher_goes_on_with_what_is_left() -> None:
    """Both devices come back, and still have one hour together, with what a third used before."""
    before = Life(VOUCHERS)
    for key in (ALICE, BOB):
        log_in(before, key, grant(Limits(session_time_s=3600), UsedBefore(600)))
    before.wait(600)
    records = [save_session(session, before.now, UNIX, "boot") for session in before.machine.snapshot()]
    after = Life(VOUCHERS)
    after.now = before.now
    for record in records:
        saved = in_this_boot(load_session(record), "boot", after.now)
        after.send(LeaseBound(saved.key, saved.address, after.now + 3600))
        after.machine.claim(saved.number)
        after.machine.restore(saved, after.now, kept=Counters())
        after.kernel[saved.key] = Counters()
    after.wait(890)
    assert online(after, ALICE)
    assert online(after, BOB)
    after.wait(20)
    assert not online(after, ALICE)
    assert not online(after, BOB)


def test_a_session_that_is_lost_at_a_restart_is_charged() -> None:
    """The time until it was saved last is gone."""
    before = Life(VOUCHERS)
    log_in(before, ALICE, grant(Limits(session_time_s=3600)))
    before.wait(60)
    (session,) = before.machine.snapshot()
    saved = in_this_boot(load_session(save_session(session, before.now, UNIX, "boot")), "boot", before.now)
    after = Life(VOUCHERS)
    actions = after.machine.lost(saved, TerminateCause.LOST_CARRIER, "gone", before.now)
    (charge,) = (action for action in actions if isinstance(action, ChargeUsage))
    assert charge.usage.seconds == 60


def test_sessions_of_users_are_charged_to_nobody() -> None:
    """A user's limits are for each session, as they always were."""
    life = Life(VOUCHERS)
    life.online(ALICE)
    life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
    assert charges(life) == []


# -- devices that come back -------------------------------------------------------------------------------------------


def recalls(actions: list[Action]) -> list[RecallDevice]:
    """Questions about a device that came back."""
    return [action for action in actions if isinstance(action, RecallDevice)]


def leave(life: Life, key: ClientKey) -> None:
    """The device goes away."""
    life.act(LeaseEnded(key, address_of(key), "released"))


def test_a_device_that_logged_in_comes_back_with_its_next_address() -> None:
    """Its next lease is enough; the way it logged in is kept."""
    life = Life(REMEMBERING)
    actions = log_in(life, ALICE, grant(Limits(session_time_s=3600)))
    (kept,) = (action for action in actions if isinstance(action, RememberDevice))
    assert kept.method is LoginMethod.VOUCHER
    assert kept.until_unix == pytest.approx(UNIX + 24 * 3600)
    assert kept.at_most == 2
    life.wait(100)
    leave(life, ALICE)
    assert charges(life)[-1].usage.comes_back
    assert recalls(life.lease(ALICE))
    back = grant(Limits(session_time_s=3600), UsedBefore(100))
    life.send(UsageCharged((charges(life)[-1].usage.acct_session_id,)))
    life.act(AccessAccepted(ALICE, life.login_id(ALICE), back, LoginMethod.VOUCHER))
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert session.online
    assert session.method is LoginMethod.VOUCHER
    assert len([action for action in life.log if isinstance(action, RememberDevice)]) == 1, "its time is not prolonged"
    life.wait(3490)
    assert online(life, ALICE)
    life.wait(20)
    assert not online(life, ALICE)


def test_a_device_that_idled_comes_back_when_it_wants_something() -> None:
    """Its request for a page is enough."""
    life = Life(replace(REMEMBERING, idle_timeout=60))
    log_in(life, ALICE, grant(Limits()))
    life.wait(120)
    assert ended_with(life, TerminateCause.IDLE_TIMEOUT) == 1
    assert not recalls(life.lease(ALICE)), "a sleeping phone renews its lease too"
    assert recalls(life.send(DeviceReturned(ALICE)))


@pytest.mark.parametrize("cause", [TerminateCause.USER_REQUEST, TerminateCause.ADMIN_RESET])
def test_a_device_that_was_logged_out_does_not_come_back(cause: TerminateCause) -> None:
    """Whoever says goodbye means it, and a kick is no greeting."""
    life = Life(REMEMBERING)
    log_in(life, ALICE, grant(Limits()))
    life.act(LogoutRequested(ALICE, None, cause, "somebody"))
    assert not charges(life)[-1].usage.comes_back
    leave(life, ALICE)
    assert not recalls(life.lease(ALICE))
    assert not recalls(life.send(DeviceReturned(ALICE)))


def test_a_device_whose_limit_is_reached_sees_the_page() -> None:
    """There is nothing left to come back with."""
    life = Life(REMEMBERING)
    log_in(life, ALICE, grant(Limits(session_time_s=60)))
    life.wait(61)
    assert not recalls(life.send(DeviceReturned(ALICE)))


def test_a_device_that_is_refused_is_asked_about_once() -> None:
    """A voucher that was revoked meanwhile: the page, and no more questions."""
    life = Life(REMEMBERING)
    log_in(life, ALICE, grant(Limits()))
    leave(life, ALICE)
    life.lease(ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), "revoked", reason="revoked"))
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert session.state is SessionState.HELD
    assert life.machine.numbers.in_use == 0
    assert not recalls(life.send(DeviceReturned(ALICE)))


def test_the_time_to_come_back_ends() -> None:
    """After its hours the page is shown."""
    life = Life(replace(REMEMBERING, remember=1))
    log_in(life, ALICE, grant(Limits()))
    leave(life, ALICE)
    life.wait(3601)
    assert not recalls(life.lease(ALICE))
    assert life.machine.remembered == {}


def test_what_an_operator_let_in_is_not_remembered() -> None:
    """That was one permission, for once; and a zone that does not remember devices keeps none."""
    life = Life(REMEMBERING)
    life.lease(ALICE)
    life.act(AuthorizeRequested(ALICE, life.request(), grant(Limits()), "operator eve"))
    assert online(life, ALICE)
    assert life.machine.remembered == {}
    life = Life(VOUCHERS)
    assert not [action for action in log_in(life, ALICE, grant(Limits())) if isinstance(action, RememberDevice)]


def test_a_clicked_session_goes_on_with_what_was_left() -> None:
    """Used time counts over the absence, because the store says so with the grant."""
    life = Life(replace(REMEMBERING, session_timeout=600))
    life.lease(ALICE)
    life.act(LoginRequested(ALICE, life.request(), LoginMethod.CLICK))
    life.wait(400)
    leave(life, ALICE)
    assert charges(life)[-1].usage.seconds == 400
    life.lease(ALICE)
    back = Grant(ALICE.mac.dashed(), AuthenticatedBy.LOCAL, used=UsedBefore(400))
    life.act(AccessAccepted(ALICE, life.login_id(ALICE), back, LoginMethod.CLICK))
    life.wait(199)
    assert online(life, ALICE)
    life.wait(2)
    assert not online(life, ALICE)


def test_a_guest_who_logs_in_while_the_device_is_looked_up_is_told_to_wait() -> None:
    """It takes milliseconds, and the page comes back by itself."""
    life = Life(REMEMBERING)
    log_in(life, ALICE, grant(Limits()))
    leave(life, ALICE)
    life.lease(ALICE)
    actions = ask(life, ALICE)
    assert [action.result for action in actions if isinstance(action, ReplyLogin)] == [LoginResult.BUSY]


def test_rates_are_those_between_two_readings() -> None:
    """Two readings in one moment say nothing; a second apart they do."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(total_bytes=10**12)))
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert rates_bps(session) == (0, 0)
    life.traffic(ALICE, 60_000, 600_000)
    life.wait(60)
    assert rates_bps(session) == (8_000, 80_000)


def test_limits_of_a_voucher_change_live() -> None:
    """An hour more, as an operator gives it."""
    life = Life(VOUCHERS)
    log_in(life, ALICE, grant(Limits(session_time_s=600), UsedBefore(300)))
    change = GrantChange(Limits(session_time_s=4200), frozenset({"session_time_s"}))
    life.send(ChangeRequested(ALICE, life.request(), change, "operator eve"))
    life.wait(3890)
    assert online(life, ALICE)
    life.wait(20)
    assert not online(life, ALICE)
