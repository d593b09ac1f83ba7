"""The session machine: conversations as they happen, and the table as a whole."""

from __future__ import annotations

import typing
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from gateway.addresses import MacAddress
from gateway.session.actions import (
    AllowTraffic,
    ApplyLimits,
    BindAddress,
    CancelLogin,
    DenyTraffic,
    ForgetSession,
    Note,
    QueueAccounting,
    ReadActivity,
    ReadCounters,
    ReplyLogin,
    SaveSession,
    SendAccessRequest,
    UnbindAddress,
    VerifyLocalUser,
)
from gateway.session.events import (
    AccessAccepted,
    AccessFailed,
    AccessRejected,
    AuthorizeRequested,
    ChangeRequested,
    ClientEvent,
    ClockSet,
    LeaseBound,
    LeaseEnded,
    LoginRequested,
    LogoutRequested,
    NumberSwept,
    TrafficAllowed,
    TrafficDenied,
    TrafficRefused,
)
from gateway.session.machine import TABLE, SessionMachine, UnplannedEvent
from gateway.session.model import (
    AccountingStatus,
    ClientKey,
    Counters,
    GrantChange,
    Limits,
    LoginMethod,
    LoginResult,
    SessionState,
    TerminateCause,
)
from gateway.session.policy import Policy
from gateway.session.store import SavedSession, load_session, save_session
from tests.gateway.session.life import ALICE, BOB, UNIX, ZONE, Life, address_of, grant

IMPOSSIBLE = {
    # The kernel answers what it was asked and nothing else: these would be errors of ours.
    (SessionState.HELD, TrafficAllowed),
    (SessionState.AUTHENTICATING, TrafficAllowed),
    (SessionState.ONLINE, TrafficAllowed),
    (SessionState.HELD, TrafficRefused),
    (SessionState.AUTHENTICATING, TrafficRefused),
    (SessionState.HELD, TrafficDenied),
    (SessionState.AUTHENTICATING, TrafficDenied),
    (SessionState.OPENING, TrafficDenied),
    (SessionState.ONLINE, TrafficDenied),
}


def test_every_pair_of_state_and_event_is_planned_or_named_impossible() -> None:
    """The table has an entry for each pair, but for those that only an error of ours could bring about."""
    events = typing.get_args(ClientEvent)
    pairs = {(state, event) for state in SessionState for event in events}
    assert pairs - set(TABLE) == IMPOSSIBLE
    assert set(TABLE) <= pairs


def test_an_impossible_pair_raises() -> None:
    """An answer of the kernel that nobody asked for is loud."""
    life = Life()
    life.lease(ALICE)
    with pytest.raises(UnplannedEvent, match="TrafficDenied in state held"):
        life.send(TrafficDenied(ALICE, Counters()))


def test_a_lease_binds_the_address_and_nothing_more() -> None:
    """A client with an address may not pass yet."""
    life = Life()
    assert [type(action) for action in life.lease(ALICE)] == [BindAddress, Note]
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert session.state is SessionState.HELD


def test_a_login_is_saved_and_accounted_before_the_guest_is_told() -> None:
    """Opening the kernel comes before the Start, the Start and the record before the answer."""
    life = Life()
    life.lease(ALICE)
    asked = life.ask(ALICE)
    assert [type(action) for action in asked] == [Note, VerifyLocalUser]
    asked = life.send(AccessRejected(ALICE, life.login_id(ALICE), unknown_user=True))
    request = asked[0]
    assert isinstance(request, SendAccessRequest)
    assert request.acct_session_id == "00000007-00000001"
    opened = life.send(AccessAccepted(ALICE, request.login_id, grant(reply_message="hello")))
    assert opened == [AllowTraffic(ALICE, address_of(ALICE), request.client_number, None)]
    done = life.send(TrafficAllowed(ALICE))
    assert [type(action) for action in done] == [SaveSession, QueueAccounting, Note, ReplyLogin]
    (start,) = life.records()
    assert start.status is AccountingStatus.START
    assert start.acct_session_id == request.acct_session_id
    assert start.event_unix == UNIX
    assert life.replies() == [ReplyLogin(1, ALICE, LoginResult.SUCCESS, "hello", "")]


def test_the_timeline_says_who_refused() -> None:
    """A refusal names the source that gave it, with its words in one line."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    refused = life.send(AccessRejected(ALICE, life.login_id(ALICE), "wrong password"))
    assert Note(ALICE, "login_failed", "local accounts refused: wrong password") in refused
    life.ask(ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), unknown_user=True))
    refused = life.send(AccessRejected(ALICE, life.login_id(ALICE), "no credit\nleft"))
    assert Note(ALICE, "login_failed", "RADIUS refused: no credit left") in refused
    assert life.replies()[-1].message == "no credit\nleft"
    life.ask(ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), unknown_user=True))
    assert Note(ALICE, "login_failed", "RADIUS refused") in life.send(AccessRejected(ALICE, life.login_id(ALICE)))


def test_click_through_asks_nobody() -> None:
    """Accepting the terms opens the gate under the device's own name."""
    life = Life(radius=False)
    life.lease(ALICE)
    actions = life.send(LoginRequested(ALICE, 1, LoginMethod.CLICK))
    assert [type(action) for action in actions] == [Note, AllowTraffic]
    life.send(TrafficAllowed(ALICE))
    assert life.replies()[0].result is LoginResult.SUCCESS
    assert life.records() == []  # no server wants to know


@pytest.mark.parametrize("method", list(LoginMethod))
def test_a_method_that_the_zone_does_not_offer_is_refused(method: LoginMethod) -> None:
    """What is not on the page cannot be had by sending the form all the same."""
    others = tuple(other for other in LoginMethod if other is not method)
    life = Life(replace(ZONE, methods=others))
    life.lease(ALICE)
    life.send(LoginRequested(ALICE, 1, method))
    assert life.replies()[0].result is LoginResult.FORBIDDEN


def test_a_stranger_is_told_that_it_has_no_lease() -> None:
    """An address that we did not give out cannot log in."""
    life = Life()
    life.ask(BOB)
    assert life.replies()[0].result is LoginResult.NO_LEASE


def test_a_wrong_password_holds_the_client_and_frees_its_number() -> None:
    """After a reject the client may try again at once, under a new session id."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    life.send(AccessRejected(ALICE, life.login_id(ALICE), "no"))
    assert life.replies() == [ReplyLogin(1, ALICE, LoginResult.REJECT, "no")]
    assert life.machine.numbers.in_use == 0
    life.ask(ALICE)
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert session.acct_session_id.endswith("2")


def test_a_known_user_with_a_wrong_password_is_not_handed_on() -> None:
    """Only a name that the local accounts do not know goes to RADIUS."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    actions = life.send(AccessRejected(ALICE, life.login_id(ALICE), "wrong password"))
    assert not any(isinstance(action, SendAccessRequest) for action in actions)


def test_silent_servers_are_a_timeout_not_a_reject() -> None:
    """The guest hears that nobody answered, the operator why."""
    life = Life(replace(ZONE, auth=("radius",)))
    life.lease(ALICE)
    life.ask(ALICE)
    actions = life.send(AccessFailed(ALICE, life.login_id(ALICE), "no answer from main"))
    assert life.replies()[0].result is LoginResult.TIMEOUT
    assert Note(ALICE, "login_failed", "no answer from main") in actions


def test_the_same_login_twice_gets_one_decision_for_both() -> None:
    """A sheet that was closed and reopened does not ask the server again."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    assert life.ask(ALICE) == []
    life.send(AccessAccepted(ALICE, life.login_id(ALICE), grant()))
    life.send(TrafficAllowed(ALICE))
    assert [reply.request_id for reply in life.replies()] == [1, 2]
    assert len(life.records()) == 1


def test_another_login_meanwhile_is_busy() -> None:
    """Other credentials while a login is being decided are refused."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    life.ask(ALICE, "bob")
    assert life.replies()[0].result is LoginResult.BUSY


def test_an_answer_to_a_login_that_was_given_up_is_ignored() -> None:
    """A late Access-Accept opens nothing."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    late = life.login_id(ALICE)
    actions = life.send(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "guest"))
    assert CancelLogin(late) in actions
    assert life.send(AccessAccepted(ALICE, late, grant())) == []
    life.ask(ALICE)
    assert life.send(AccessAccepted(ALICE, late, grant())) == []


def test_a_kernel_that_refuses_is_an_error_and_leaves_the_client_held() -> None:
    """The guest is told; nothing was accounted."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    life.send(AccessAccepted(ALICE, life.login_id(ALICE), grant()))
    life.send(TrafficRefused(ALICE, "table full"))
    assert life.replies()[0].result is LoginResult.ERROR
    assert life.records() == []


def test_logout_accounts_the_last_counters_with_its_cause() -> None:
    """The Stop has what the kernel counted at removal."""
    life = Life()
    life.online(ALICE)
    life.now += 60
    (save, deny) = life.send(LogoutRequested(ALICE, 9, TerminateCause.USER_REQUEST, "guest"))
    assert isinstance(save, SaveSession)
    assert isinstance(deny, DenyTraffic)
    done = life.send(TrafficDenied(ALICE, Counters(1000, 1, 5000, 5)))
    stop = life.records()[-1]
    assert (stop.status, stop.terminate_cause) == (AccountingStatus.STOP, TerminateCause.USER_REQUEST)
    assert (stop.counters, stop.session_time_s) == (Counters(1000, 1, 5000, 5), 60)
    assert ForgetSession(ALICE) in done
    assert life.answers()[0].done
    assert life.machine.numbers.retired == 1
    life.send(NumberSwept(deny.client_number))
    assert life.machine.numbers.retired == 0


def test_a_lost_lease_ends_the_session_and_forgets_the_client() -> None:
    """The Stop still names the address that the client had."""
    life = Life()
    life.online(ALICE)
    actions = life.act(LeaseEnded(ALICE, address_of(ALICE), "expired"))
    stop = life.records()[-1] if life.records()[-1].status is AccountingStatus.STOP else None
    assert any(isinstance(action, UnbindAddress) for action in actions)
    stops = [action.record for action in actions if isinstance(action, QueueAccounting)]
    assert stop is None or stop in stops
    assert stops[0].terminate_cause is TerminateCause.LOST_CARRIER
    assert stops[0].address == address_of(ALICE)
    assert life.machine.sessions.get(ALICE) is None


def test_a_client_that_moves_to_another_address_must_log_in_again() -> None:
    """A grant is for MAC and address together."""
    life = Life()
    life.online(ALICE)
    actions = life.act(LeaseBound(ALICE, IPv4Address("10.41.0.99"), life.now + 10))
    assert UnbindAddress(ALICE, address_of(ALICE)) in actions
    assert BindAddress(ALICE, IPv4Address("10.41.0.99")) in actions
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    assert session.state is SessionState.HELD


def test_a_renewed_lease_changes_nothing() -> None:
    """Renewing says nothing to the kernel and nothing to the journal of sessions."""
    life = Life()
    life.online(ALICE)
    assert life.lease(ALICE) == []


@pytest.mark.parametrize(
    ("limits", "up", "down", "cause"),
    [
        (Limits(session_time_s=100), 0, 0, TerminateCause.SESSION_TIMEOUT),
        (Limits(terminate_unix=UNIX + 100), 0, 0, TerminateCause.SESSION_TIMEOUT),
        (Limits(idle_time_s=100), 0, 0, TerminateCause.IDLE_TIMEOUT),
    ],
)
def test_time_limits_hold_within_two_seconds(limits: Limits, up: int, down: int, cause: TerminateCause) -> None:
    """Session time, terminate time and idle time end the session when they are reached."""
    life = Life()
    life.online(ALICE, grant(limits=limits))
    life.wait(99)
    assert ALICE in life.kernel
    life.wait(3)
    assert ALICE not in life.kernel
    stop = life.machine.sessions.get(ALICE)
    assert stop is not None
    assert stop.state is SessionState.HELD


@pytest.mark.parametrize(
    ("limits", "up", "down"),
    [
        (Limits(upload_bytes=5_000_000), 6_000_000, 0),
        (Limits(download_bytes=5_000_000), 0, 6_000_000),
        (Limits(total_bytes=5_000_000), 3_000_000, 3_000_000),
    ],
)
def test_quotas_hold_within_two_seconds(limits: Limits, up: int, down: int) -> None:
    """Octets up, down and together; counters are read when the rest could be used up, not before."""
    life = Life()
    life.online(ALICE, grant(limits=limits))
    life.wait(10)
    life.traffic(ALICE, up, down)
    actions = life.wait(2)
    stops = [action.record for action in actions if isinstance(action, QueueAccounting)]
    assert [stop.terminate_cause for stop in stops] == [TerminateCause.SESSION_TIMEOUT]
    assert stops[0].counters.upload_bytes == up
    assert ALICE not in life.kernel


def test_a_large_quota_is_not_looked_at_all_the_time() -> None:
    """Ten gigabytes on a gigabit link take 80 seconds at least: nothing is read before that."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(total_bytes=10_000_000_000)))
    reads = [action for action in life.wait(59) if isinstance(action, ReadCounters)]
    assert reads == []


def test_a_client_that_sends_now_and_then_is_never_idle() -> None:
    """Each packet from the client begins the idle time anew, also one that comes just before the end."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(idle_time_s=30)))
    for _ in range(10):
        life.wait(29.5)
        life.traffic(ALICE, up=100)
        assert ALICE in life.kernel
    life.wait(33)
    assert ALICE not in life.kernel


def test_what_the_gateway_sends_does_not_keep_a_client_alive() -> None:
    """Downloads alone do not count as activity of the client (Idle-Timeout, radius: no packet from the client)."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(idle_time_s=30)))
    for _ in range(3):
        life.traffic(ALICE, down=1000)
        life.wait(9.5)
    life.wait(3)
    assert ALICE not in life.kernel


def test_nobody_asks_for_activity_when_no_session_has_an_idle_time() -> None:
    """A gateway at rest does nothing."""
    life = Life()
    life.online(ALICE)
    assert not any(isinstance(action, ReadActivity) for action in life.wait(50))


def test_interim_records_keep_their_rhythm_and_fresh_counters() -> None:
    """The first comes early by chance, the others at the interval; each has what the kernel counted then."""
    life = Life()
    life.online(ALICE, grant(interim_interval_s=100))
    life.traffic(ALICE, up=700)
    life.wait(300)
    interims = [record for record in life.records() if record.status is AccountingStatus.INTERIM]
    assert [record.session_time_s for record in interims] == [75, 175, 275]
    assert all(record.counters.upload_bytes == 700 for record in interims)


def test_devices_that_are_being_let_in_count() -> None:
    """Of two devices accepted before the kernel answered for the first, one comes in; what was given up counts not."""
    life = Life(replace(ZONE, sessions_per_user=1))
    for key in (ALICE, BOB):
        life.lease(key)
        life.ask(key, "carol")
        life.send(AccessRejected(key, life.login_id(key), unknown_user=True))
        life.send(AccessAccepted(key, life.login_id(key), grant("carol")))
    assert [reply.result for reply in life.replies()] == [LoginResult.LIMIT]
    life.send(TrafficRefused(ALICE, "the table is full"))
    life.ask(BOB, "carol")
    life.send(AccessAccepted(BOB, life.login_id(BOB), grant("carol")))
    life.send(TrafficAllowed(BOB))
    assert life.replies()[-1].result is LoginResult.SUCCESS


def test_a_user_with_enough_devices_is_told_to_log_one_out() -> None:
    """The bound counts a name without regard to case, and refuses the newcomer."""
    life = Life(replace(ZONE, sessions_per_user=1))
    life.online(ALICE)
    life.lease(BOB)
    life.ask(BOB, "ALICE")
    life.send(AccessAccepted(BOB, life.login_id(BOB), grant("ALICE")))
    reply = life.replies()[-1]
    assert reply.result is LoginResult.LIMIT
    assert "log it out first" in reply.message


def test_a_full_gateway_refuses_before_it_asks_anybody() -> None:
    """max_sessions bounds logins under way too."""
    life = Life(max_sessions=1)
    life.online(ALICE)
    life.lease(BOB)
    actions = life.ask(BOB)
    assert life.replies()[-1].result is LoginResult.LIMIT
    assert not any(isinstance(action, VerifyLocalUser | SendAccessRequest) for action in actions)


def test_an_operator_lets_a_client_in_over_a_pending_login() -> None:
    """Both, operator and guest, hear of the success."""
    life = Life()
    life.lease(ALICE)
    life.ask(ALICE)
    pending = life.login_id(ALICE)
    actions = life.send(AuthorizeRequested(ALICE, 50, grant("by-hand"), "operator root"))
    assert CancelLogin(pending) in actions
    life.send(TrafficAllowed(ALICE))
    assert {reply.request_id: reply.result for reply in life.replies()} == {
        1: LoginResult.SUCCESS,
        50: LoginResult.SUCCESS,
    }


def test_a_change_replaces_only_what_it_names() -> None:
    """CoA of the session time leaves the quota alone, tells the kernel, and an interim record follows."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(session_time_s=1000, total_bytes=10**9)))
    change = GrantChange(Limits(session_time_s=500), frozenset({"session_time_s"}))
    actions = life.act(ChangeRequested(ALICE, 5, change, "RADIUS server"))
    applied = [action for action in actions if isinstance(action, ApplyLimits)]
    assert applied[0].limits.total_bytes == 10**9
    assert applied[0].lifetime_s == 560
    life.wait(501)
    assert ALICE not in life.kernel


def test_a_change_of_zero_takes_a_limit_away() -> None:
    """Session-Timeout 0 in a CoA means no end."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(session_time_s=100)))
    life.act(ChangeRequested(ALICE, 5, GrantChange(Limits(session_time_s=0), frozenset({"session_time_s"})), "x"))
    life.wait(1000)
    assert ALICE in life.kernel


def test_a_change_of_address_and_policies_is_kept_with_the_session() -> None:
    """WISPr-Redirection-URL and Filter-Id of a CoA are saved; a later change that does not name them leaves them."""
    life = Life()
    life.online(ALICE)
    session = life.machine.sessions.get(ALICE)
    assert session is not None
    change = GrantChange(Limits(), frozenset(), filter_ids=("slow",), redirection_url="http://198.51.100.9/pay")
    actions = life.act(ChangeRequested(ALICE, 5, change, "RADIUS server"))
    assert SaveSession(ALICE) in actions
    life.act(ChangeRequested(ALICE, 6, GrantChange(Limits(), frozenset()), "RADIUS server"))
    saved = load_session(save_session(session, life.now, UNIX, "boot"))
    assert saved.grant.redirection_url == "http://198.51.100.9/pay"
    assert saved.grant.filter_ids == ("slow",)
    assert saved.grant.username == "alice"


def test_a_stepping_wall_clock_moves_only_what_is_told_in_wall_time() -> None:
    """The session time runs on the monotonic clock; a terminate time follows the wall clock."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(session_time_s=100)))
    life.online(BOB, grant("bob", limits=Limits(terminate_unix=UNIX + 1000)))
    life.send(ClockSet(UNIX - 1000.0 + 5000))
    life.wait(1)
    assert ALICE in life.kernel
    assert BOB not in life.kernel
    life.wait(100)
    assert ALICE not in life.kernel


def test_without_a_clock_records_have_no_event_time() -> None:
    """Event-Timestamp is left out while the wall clock was never set."""
    life = Life()
    life.send(ClockSet(None))
    life.online(ALICE)
    assert life.records()[0].event_unix is None


def test_counters_never_run_backwards() -> None:
    """A kernel that lost its table does not make an accounting record shrink."""
    life = Life()
    life.online(ALICE, grant(interim_interval_s=100))
    life.traffic(ALICE, up=5000, down=7000)
    life.wait(80)
    life.kernel[ALICE] = Counters(10, 1, 10, 1)
    life.wait(200)
    octets = [record.counters.upload_bytes for record in life.records()]
    assert octets == sorted(octets)


def saved_online(life: Life, key: ClientKey) -> SavedSession:
    """The session as it would be read back from the journal."""
    session = life.machine.sessions.get(key)
    assert session is not None
    return load_session(save_session(session, life.now, UNIX, "boot-1"))


def test_a_session_goes_on_after_a_restart_with_what_remained() -> None:
    """Remaining time, counters, Class and session id are as before, and no second Start is sent."""
    life = Life()
    life.online(ALICE, grant(limits=Limits(session_time_s=1000), class_values=(b"blue",)))
    life.traffic(ALICE, up=400, down=600)
    life.wait(100)
    saved = saved_online(life, ALICE)

    again = Life()
    again.now = life.now + 5
    again.lease(ALICE)
    assert again.machine.claim(saved.number) == saved.number
    again.kernel[ALICE] = Counters(500, 1, 900, 1)
    actions = again.machine.restore(saved, again.now, kept=again.kernel[ALICE])
    assert [type(action) for action in actions] == [Note, SaveSession]
    again.wait(894)
    assert ALICE in again.kernel
    done = again.wait(3)
    stop = next(action.record for action in done if isinstance(action, QueueAccounting))
    assert stop.acct_session_id == saved.acct_session_id
    assert stop.class_values == (b"blue",)
    assert stop.counters == Counters(500, 1, 900, 1)
    assert stop.session_time_s == pytest.approx(1000, abs=2)


def test_counters_after_a_reboot_go_on_from_what_was_saved() -> None:
    """New kernel elements count from nothing; what was saved is their base."""
    life = Life()
    life.online(ALICE)
    life.traffic(ALICE, up=400, down=600)
    life.wait(100)
    saved = saved_online(life, ALICE)
    again = Life()
    again.lease(ALICE)
    again.machine.claim(saved.number)
    again.machine.restore(saved, again.now, kept=None)
    again.kernel[ALICE] = Counters(10, 1, 20, 1)
    again.log.clear()
    done = again.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "guest"))
    stop = next(action.record for action in done if isinstance(action, QueueAccounting))
    assert stop.counters == Counters(410, 2, 620, 2)


def test_a_session_that_is_gone_after_a_restart_gets_its_stop() -> None:
    """Lost sessions are accounted with what was saved."""
    life = Life()
    life.online(ALICE)
    saved = saved_online(life, ALICE)
    again = Life()
    actions = again.machine.lost(saved, TerminateCause.NAS_REBOOT, "gone", again.now)
    stop = next(action.record for action in actions if isinstance(action, QueueAccounting))
    assert stop.terminate_cause is TerminateCause.NAS_REBOOT
    assert stop.address == address_of(ALICE)
    assert ForgetSession(ALICE) in actions


def test_the_stop_of_a_lost_session_has_what_the_kernel_counted_last() -> None:
    """Its elements outlived us and went on counting; what was saved is never undercut."""
    life = Life()
    life.online(ALICE)
    life.traffic(ALICE, up=400, down=600)
    life.wait(100)
    saved = saved_online(life, ALICE)
    for kept, told in ((Counters(500, 2, 900, 3), Counters(500, 2, 900, 3)), (Counters(), Counters(400, 1, 600, 1))):
        actions = Life().machine.lost(saved, TerminateCause.LOST_CARRIER, "gone", 2000.0, kept=kept)
        stop = next(action.record for action in actions if isinstance(action, QueueAccounting))
        assert stop.counters == told


def test_ids_are_unique_over_restarts() -> None:
    """Session ids and record ids begin with the number of the start."""
    first = SessionMachine(Policy.of(Life().config), epoch=1, spread=lambda: 0.0)
    second = SessionMachine(Policy.of(Life().config), epoch=2, spread=lambda: 0.0)
    records = [machine.gateway_record(AccountingStatus.ON, 0.0).record for machine in (first, second)]
    assert records[0].acct_session_id != records[1].acct_session_id
    assert records[1].record_id > records[0].record_id


def test_ten_thousand_sessions_do_not_make_the_list_of_wakes_grow() -> None:
    """Entries of old times are dropped; the heap stays near the number of sessions."""
    life = Life(max_sessions=20_000)
    keys = [ClientKey("guest", MacAddress(bytes([2, 0, 0, 0, n >> 8, n & 255]))) for n in range(300)]
    for number, key in enumerate(keys):
        life.lease(key, IPv4Address("10.41.0.0") + number + 300)
        life.online(key, grant(f"user{number}", limits=Limits(total_bytes=10**8, idle_time_s=900)))
    for _ in range(30):
        for key in keys:
            life.traffic(key, up=1000)
        life.wait(60)
    assert len(life.machine._watch) < 8 * len(keys)


def test_who_logs_in_and_out_all_day_leaves_nothing_behind() -> None:
    """The heap of wakes follows the sessions there are, not those there were, and no time is lost with the old ones."""
    life = Life()
    life.online(BOB, grant("bob", limits=Limits(session_time_s=3600)))
    for _ in range(5000):
        life.online(ALICE, grant(limits=Limits(session_time_s=86_400)))
        life.act(LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"))
        life.now += 0.1
    assert len(life.machine._watch) < 1200
    life.wait(3601)
    of_bob = [record for record in life.records() if record.username == "bob"]
    assert of_bob[-1].terminate_cause is TerminateCause.SESSION_TIMEOUT


def test_many_sessions_are_saved_in_slices() -> None:
    """Counters of all are saved every interval, but never more than a slice in one go."""
    life = Life(max_sessions=1000)
    keys = [ClientKey("guest", MacAddress(bytes([2, 0, 0, 0, n >> 8, n & 255]))) for n in range(450)]
    for number, key in enumerate(keys):
        life.lease(key, IPv4Address("10.41.0.0") + number + 300)
        life.online(key, grant(f"user{number}"))
    life.now += life.config.sessions.save_interval
    slices = []
    for _ in range(10):
        slices.append([action.key for action in life.machine.tick(life.now) if isinstance(action, SaveSession)])
        life.now += 1
    assert max(map(len, slices)) < len(keys)
    assert sorted(key for piece in slices for key in piece) == sorted(keys)


def test_a_reload_ends_what_it_does_not_allow_any_more() -> None:
    """A device that is blocked and a zone that is gone: sessions end, logins under way are refused."""
    for zones in ((replace(ZONE, block_macs=(ALICE.mac, BOB.mac)),), ()):
        life = Life()
        life.online(ALICE)
        life.lease(BOB)
        life.ask(BOB, "bob")
        actions = life.machine.reconfigure(Policy.of(replace(life.config, zones=zones)), life.now)
        assert [type(action) for action in actions if isinstance(action, DenyTraffic | CancelLogin)] == [
            DenyTraffic,
            CancelLogin,
        ]
        assert [action.result for action in actions if isinstance(action, ReplyLogin)] == [LoginResult.FORBIDDEN]
