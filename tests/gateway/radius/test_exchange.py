"""Conversations with servers that answer, stay silent, lie, die and come back, in simulated time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, Radius
from gateway.radius.breaker import BreakerState
from gateway.radius.channel import Purpose
from gateway.radius.exchange import Exchange
from gateway.radius.messages import (
    DatagramReceived,
    DecideLogin,
    ExchangeAction,
    LoginCancelled,
    LoginSubmitted,
    PortUnreachable,
    RecordSubmitted,
    RememberSigner,
    ReportRefusal,
    ReportServer,
    SettleRecord,
    Transmit,
)
from gateway.radius.packets import Code, Type, attribute, decode
from gateway.radius.requests import AccountingBody
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import ChapCredentials, PapCredentials
from tests.gateway.radius.build import UNIX, answer, config, exchange, login, others, record, sent, server

AUTH, ACCT = Purpose.AUTH, Purpose.ACCT


def submit(core: Exchange, login_id: int = 1, now: float = 0.0) -> list[ExchangeAction]:
    return core.receive(LoginSubmitted(login(login_id), UNIX), now)


def reply(
    core: Exchange,
    request: Transmit,
    now: float,
    code: Code = Code.ACCESS_ACCEPT,
    attributes: bytes = b"",
    *,
    sign: bool = True,
) -> list[ExchangeAction]:
    return deliver(core, request, answer(request.data, code, attributes, sign=sign), now)


def deliver(core: Exchange, request: Transmit, data: bytes, now: float) -> list[ExchangeAction]:
    return core.receive(DatagramReceived(request.server, request.purpose, request.socket, data, UNIX), now)


def run(core: Exchange, until: float) -> list[tuple[float, ExchangeAction]]:
    """Let time pass without any answer; returns what happened when."""
    seen: list[tuple[float, ExchangeAction]] = []
    while (due := core.deadline()) is not None and due <= until:
        seen.extend((due, action) for action in core.tick(due))
    return seen


def decisions(actions: Iterable[ExchangeAction]) -> list[AccessAccepted | AccessRejected | AccessFailed]:
    return [action.event for action in actions if isinstance(action, DecideLogin)]


def failure(actions: Iterable[ExchangeAction]) -> str:
    (event,) = decisions(actions)
    assert isinstance(event, AccessFailed)
    return event.reason


def fail_trains(core: Exchange, count: int, now: float, first_id: int = 100) -> float:
    """Let `count` logins one after the other end without an answer; returns when."""
    for number in range(count):
        submit(core, first_id + number, now)
        ended = [at for at, action in run(core, now + 60) if isinstance(action, DecideLogin)]
        now = ended[-1]
    return now


def test_an_accept_is_posted_once() -> None:
    """A login is one packet, its answer one event; the same answer again is too late."""
    core = exchange(config())
    (request,) = sent(submit(core))
    assert decode(request.data).code == Code.ACCESS_REQUEST
    actions = reply(core, request, 0.02, attributes=attribute(Type.CLASS, b"gold"))
    (event,) = decisions(actions)
    assert isinstance(event, AccessAccepted)
    assert event.grant.class_values == (b"gold",)
    (late,) = reply(core, request, 0.03)
    assert isinstance(late, ReportRefusal)
    assert late.reason == "identifier"
    assert core.deadline() is None


@pytest.mark.parametrize("code", [Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE])
def test_a_reject_is_an_answer(code: Code) -> None:
    """Reject and challenge reject the login and are successes for the breaker."""
    core = exchange(config())
    (request,) = sent(submit(core))
    (event,) = decisions(reply(core, request, 0.02, code, attribute(Type.REPLY_MESSAGE, b"No.")))
    assert isinstance(event, AccessRejected)
    assert event.message == "No."
    assert core.channels["one", AUTH].breaker.failures == 0


def test_repetitions_are_identical_and_timed() -> None:
    """Two repetitions of the same octets from the same socket, three seconds apart, then the end (RFC 5080 §2.2.1)."""
    core = exchange(config())
    (first,) = sent(submit(core))
    history = run(core, 60)
    assert [at for at, action in history if action == first] == pytest.approx([3.0, 6.0])
    assert "did not answer 3 request(s) in 9.0 s" in failure(action for _, action in history)
    assert core.deadline() is None


def test_waits_are_jittered_by_a_tenth() -> None:
    """With real randomness waits differ, but by no more than ten per cent."""
    from random import Random

    from gateway.radius.requests import RequestWriter

    settings_ = config()
    random = Random(11)
    core = Exchange(settings_, RequestWriter(settings_, random, lambda _zone: None), random)
    waits = set()
    for number in range(20):
        submit(core, number, 100.0 * number)
        due = core.deadline()
        assert due is not None
        waits.add(round(due - 100.0 * number, 6))
        core.receive(LoginCancelled(number), 100.0 * number)
    assert len(waits) == 20
    assert 2.7 <= min(waits) <= max(waits) <= 3.3


def test_wrong_answers_do_not_end_the_wait() -> None:
    """Forged, foreign and broken answers are counted, reported and dropped; the right one still counts."""
    core = exchange(config())
    (request,) = sent(submit(core))
    good = answer(request.data, Code.ACCESS_ACCEPT)
    forgeries = {
        "authenticator": answer(request.data, Code.ACCESS_ACCEPT, secret=b"guessed1"),
        "identifier": bytes((2, request.data[1] ^ 1)) + good[2:],
        "malformed": good[:-1],
        "proxy_state": answer(request.data, Code.ACCESS_ACCEPT, attribute(Type.PROXY_STATE, b"x")),
    }
    for reason, data in forgeries.items():
        (report,) = deliver(core, request, data, 0.01)
        assert isinstance(report, ReportRefusal)
        assert report.reason == reason
    assert core.channels["one", AUTH].tallies.refused == dict.fromkeys(forgeries, 1)
    assert isinstance(decisions(deliver(core, request, good, 0.02))[0], AccessAccepted)


def test_a_missing_signature_has_its_own_sentence() -> None:
    """With policy require an unsigned answer is not used, and the failure says what is missing and what to do."""
    core = exchange(config(server(policy="require")))
    (request,) = sent(submit(core))
    (report,) = reply(core, request, 0.01, sign=False)
    assert isinstance(report, ReportRefusal)
    assert report.reason == "message_authenticator_missing"
    reason = failure(action for _, action in run(core, 60))
    assert "without Message-Authenticator" in reason
    assert "require_message_authenticator" in reason
    assert "did not answer" not in reason


def test_a_signed_answer_after_an_unsigned_one_counts() -> None:
    """The unsigned one may be forged, so the wait goes on for the real one."""
    core = exchange(config(server(policy="require")))
    (request,) = sent(submit(core))
    reply(core, request, 0.01, Code.ACCESS_ACCEPT, sign=False)
    (event,) = decisions(reply(core, request, 0.02, Code.ACCESS_REJECT))
    assert isinstance(event, AccessRejected)


def test_policy_off_takes_unsigned_answers_for_ever() -> None:
    """With policy off a server that once signed may stop doing so."""
    core = exchange(config(server(policy="off")))
    for number, sign in enumerate((True, False)):
        (request,) = sent(submit(core, number))
        assert isinstance(decisions(reply(core, request, 0.01, sign=sign))[0], AccessAccepted)


def test_policy_auto_learns_from_the_first_signed_answer() -> None:
    """Unsigned answers pass until a signed one was seen; that is reported, and kept over a restart."""
    settings_ = config()
    core = exchange(settings_)
    (request,) = sent(submit(core, 1))
    assert decisions(reply(core, request, 0.01, sign=False))
    (request,) = sent(submit(core, 2))
    assert any(isinstance(action, RememberSigner) for action in reply(core, request, 0.01))
    restarted = exchange(settings_, learned=core.snapshot())
    for again in (core, restarted):
        (request,) = sent(submit(again, 3))
        (report,) = reply(again, request, 0.01, sign=False)
        assert isinstance(report, ReportRefusal)


def test_a_server_at_another_address_is_learned_anew() -> None:
    """What was learned belongs to the name and the address together."""
    core = exchange(config(), learned=["one@192.0.2.99"])
    (request,) = sent(submit(core))
    assert decisions(reply(core, request, 0.01, sign=False))


def two(radius: Radius | None = None) -> Config:
    return config(server("one", 10), server("two", 20), radius=radius)


def test_failover_makes_a_new_packet() -> None:
    """When the first server is silent the second gets its own packet: identifier, authenticator, hidden password."""
    core = exchange(two())
    (first,) = sent(submit(core))
    history = run(core, 9.0)
    (second,) = [action for _, action in history if isinstance(action, Transmit) and action.server == "two"]
    assert second.data[4:20] != first.data[4:20]
    assert decode(second.data).octets("User-Password") != decode(first.data).octets("User-Password")
    assert isinstance(decisions(reply(core, second, 9.1))[0], AccessAccepted)
    assert others(reply(core, first, 9.2, Code.ACCESS_REJECT)) != []  # refused: it is no longer asked
    assert decisions(reply(core, first, 9.3, Code.ACCESS_REJECT)) == []


def test_both_servers_silent_end_within_the_login_time() -> None:
    """Two servers are 18 s at worst, and the sentence names both."""
    core = exchange(two())
    submit(core)
    history = run(core, 60)
    at, _ = next((at, action) for at, action in history if isinstance(action, DecideLogin))
    assert at == pytest.approx(18.0)
    reason = failure(action for _, action in history)
    assert "one (" in reason
    assert "two (" in reason


def test_the_login_deadline_is_kept() -> None:
    """Nothing is sent or waited for after the portal's time for a login is over."""
    core = exchange(replace(two(), uam=replace(two().uam, login_timeout=10)))
    submit(core)
    history = run(core, 60)
    assert [at for at, action in history if isinstance(action, DecideLogin)] == [9.5]
    assert max(at for at, _ in history) == 9.5


def test_priority_decides_not_the_order_of_the_file() -> None:
    """The server with the lower number is asked first."""
    core = exchange(config(server("late", 50), server("early", 5)))
    assert sent(submit(core))[0].server == "early"


def test_unreachable_speeds_up_failover_only() -> None:
    """ICMP moves the login to the next server soon; with one server alone it changes nothing."""
    core = exchange(two())
    (request,) = sent(submit(core))
    core.receive(PortUnreachable("one", AUTH, request.socket), 0.001)
    history = run(core, 1.0)
    assert [action.server for _, action in history if isinstance(action, Transmit)] == ["two"]
    assert history[0][0] < 0.5
    alone = exchange(config())
    submit(alone)
    alone.receive(PortUnreachable("one", AUTH, 0), 0.001)
    assert alone.deadline() == pytest.approx(3.0)


def test_an_answer_overtakes_the_unreachable_message() -> None:
    """A forged ICMP error cannot keep out an answer that is on its way."""
    core = exchange(two())
    (request,) = sent(submit(core))
    core.receive(PortUnreachable("one", AUTH, request.socket), 0.001)
    assert isinstance(decisions(reply(core, request, 0.1))[0], AccessAccepted)


def test_a_cancelled_login_is_forgotten() -> None:
    """Nothing is sent or posted any more, and the identifier is free."""
    core = exchange(config())
    (request,) = sent(submit(core))
    assert core.receive(LoginCancelled(1), 1.0) == []
    assert core.deadline() is None
    assert decisions(reply(core, request, 1.1)) == []
    assert core.receive(LoginCancelled(99), 1.0) == []


def test_the_breaker_leaves_a_dead_server_alone() -> None:
    """After five silent trains logins fail at once, with the reason, until the timeout has passed."""
    core = exchange(config(server(status_server=False)))
    now = fail_trains(core, 5, 0.0)
    actions = submit(core, 1, now + 1)
    assert sent(actions) == []
    assert "did not answer" in failure(actions)
    (trial,) = sent(submit(core, 2, now + 30))
    actions = reply(core, trial, now + 30.1)
    assert [action.state for action in actions if isinstance(action, ReportServer)] == [BreakerState.CLOSED]


def test_breakers_are_per_purpose() -> None:
    """A dead authentication port says nothing about accounting."""
    core = exchange(config(server(status_server=False)))
    now = fail_trains(core, 5, 0.0)
    assert sent(core.receive(RecordSubmitted(AccountingBody(record(1), UNIX, None)), now))


def test_an_open_breaker_sends_logins_to_the_other_server_at_once() -> None:
    """While the preferred server is left alone nobody waits for it."""
    core = exchange(two())
    for number in range(5):
        submit(core, number, 0.0)
    history = run(core, 9.0)
    assert any(isinstance(action, ReportServer) for _, action in history)
    assert sent(submit(core, 50, 9.5))[0].server == "two"


def lose_the_first(core: Exchange) -> float:
    """Let five logins fail at the first server and be answered by the second; returns when."""
    for number in range(5):
        submit(core, number, 0.0)
    for at, action in run(core, 9.0):
        if isinstance(action, Transmit) and action.server == "two":
            reply(core, action, at)
    assert core.channels["one", AUTH].breaker.state is BreakerState.OPEN
    assert core.channels["two", AUTH].breaker.state is BreakerState.CLOSED
    return 9.0


def next_probe(core: Exchange) -> tuple[float, Transmit]:
    """Let time pass until Status-Server is sent."""
    due = core.deadline()
    assert due is not None
    (probe,) = sent(core.tick(due))
    assert decode(probe.data).code == Code.STATUS_SERVER
    return due, probe


def test_status_server_revives_and_fails_back() -> None:
    """Three answers in a row, 30 s apart, bring the preferred server back; no login is spent on trying."""
    core = exchange(two())
    began = lose_the_first(core)
    for number in range(3):
        now, probe = next_probe(core)
        assert now == pytest.approx(began + 30.0 * (number + 1), abs=0.1)
        actions = reply(core, probe, now + 0.01)
        (request,) = sent(submit(core, 60 + number, now + 0.02))
        assert request.server == ("one" if number == 2 else "two")  # half open it is, but others are in good health
        reply(core, request, now + 0.03)
    assert [action.reason for action in actions if isinstance(action, ReportServer)] == ["it answers Status-Server"]
    assert core.deadline() is None


def test_a_missed_probe_begins_the_count_anew() -> None:
    """Three answers in a row are needed; silence in between sets it back."""
    core = exchange(config())
    now = fail_trains(core, 5, 0.0)
    channel = core.channels["one", AUTH]
    for answered in (True, True, False, True):
        due = core.deadline()
        assert due is not None
        (probe,) = sent(core.tick(due))
        assert decode(probe.data).code == Code.STATUS_SERVER
        if answered:
            reply(core, probe, due + 0.01)
        else:
            assert core.deadline() == pytest.approx(due + 3.0)
            core.tick(due + 3.001)
    assert channel.healthy_probes == 1
    assert channel.breaker.state is not BreakerState.CLOSED
    assert now < 60


def test_a_server_that_does_not_know_status_server_is_tried_by_traffic() -> None:
    """When it answers logins but not Status-Server, no more probes are sent and logins try it, one at a time."""
    core = exchange(two())
    channel = core.channels["one", AUTH]
    lose_the_first(core)
    now = channel.breaker.opened_at + 31
    run(core, now)
    (trial,) = [action for action in sent(submit(core, 1, now)) if action.server == "one"]
    (other,) = sent(submit(core, 2, now))
    assert other.server == "two"  # one trial at a time
    reply(core, other, now + 0.01)
    reply(core, trial, now + 0.01)
    assert channel.breaker.state is BreakerState.CLOSED
    probes = [action for _, action in run(core, now + 10) if isinstance(action, Transmit) and action.server == "one"]
    assert [decode(probe.data).code for probe in probes] == [Code.STATUS_SERVER]
    assert channel.answers_status is False
    run(core, now + 200)
    assert channel.probe_due is None


def test_accounting_trains_double_their_waits() -> None:
    """Two seconds, doubled up to sixteen, at most five transmissions or thirty seconds; then the queue is told."""
    core = exchange(config())
    (first,) = sent(core.receive(RecordSubmitted(AccountingBody(record(8), UNIX, None)), 0.0))
    assert decode(first.data).code == Code.ACCOUNTING_REQUEST
    history = run(core, 100)
    assert [at for at, action in history if action == first] == pytest.approx([2.0, 6.0, 14.0])
    ended, last = history[-1]
    assert ended == pytest.approx(30.0)
    assert last == SettleRecord(8, answered=False)


def test_accounting_fails_over_and_settles() -> None:
    """The second server's answer settles the record."""
    core = exchange(two())
    core.receive(RecordSubmitted(AccountingBody(record(8), UNIX, None)), 0.0)
    second = next(action for _, action in run(core, 31) if isinstance(action, Transmit) and action.server == "two")
    assert SettleRecord(8, answered=True) in reply(core, second, 31.0, Code.ACCOUNTING_RESPONSE, sign=False)


def test_a_thousand_requests_fly_at_once_over_several_sockets() -> None:
    """More than 256 requests use more sockets; no two share socket and identifier, and each gets its own answer."""
    core = exchange(config())
    requests = [sent(submit(core, number))[0] for number in range(1000)]
    assert len({(request.socket, request.data[1]) for request in requests}) == 1000
    assert len({request.socket for request in requests}) == 4
    for number, request in reversed(list(enumerate(requests))):
        (event,) = decisions(reply(core, request, 0.5))
        assert event.login_id == number


def test_what_does_not_fit_waits_in_front() -> None:
    """Beyond the bound on requests in flight logins wait, go when others end, and fail when time is over."""
    core = exchange(config(radius=Radius(max_in_flight=16)))
    requests = [request for number in range(20) for request in sent(submit(core, number))]
    assert len(requests) == 16
    assert core.waiting == 4
    released = sent(reply(core, requests[0], 0.1))
    assert len(released) == 1
    failed = decisions(action for _, action in run(core, 60))
    assert len(failed) == 19
    assert core.waiting == 0
    assert core.deadline() is None or core.channels["one", AUTH].probe_due is not None


def test_the_queue_in_front_is_bounded() -> None:
    """When as many wait as may fly, the next login fails at once."""
    core = exchange(config(radius=Radius(max_in_flight=16)))
    for number in range(32):
        assert decisions(submit(core, number)) == []
    assert "too many requests" in failure(submit(core, 99))


def test_sockets_per_server_are_bounded() -> None:
    """With one socket allowed 256 requests fly and the rest wait."""
    settings_ = config()
    core = exchange(replace(settings_, performance=replace(settings_.performance, radius_workers=1)))
    flying = [request for number in range(300) for request in sent(submit(core, number))]
    assert len(flying) == 256
    assert core.waiting == 44
    assert len(sent(reply(core, flying[3], 0.1))) == 1


def test_no_server_is_said() -> None:
    """Without servers a login fails with that reason."""
    settings_ = config(replace(server(), auth_port=0))
    assert "no RADIUS server is configured" in failure(submit(exchange(settings_)))


def test_impossible_credentials_are_rejected_without_asking() -> None:
    """A password that cannot be sent is a wrong password."""
    core = exchange(config())
    actions = core.receive(LoginSubmitted(login(1, PapCredentials("alice", "x" * 129)), UNIX), 0.0)
    assert sent(actions) == []
    assert isinstance(decisions(actions)[0], AccessRejected)


def test_protocol_chap_hides_clear_passwords() -> None:
    """With option protocol chap the packet holds a CHAP response instead of the password."""
    core = exchange(config(radius=Radius(protocol="chap")))
    packet = decode(sent(submit(core))[0].data)
    assert packet.has("CHAP-Password")
    assert not packet.has("User-Password")
    given_ = ChapCredentials("alice", 1, b"r" * 16, b"c" * 16)
    packet = decode(sent(core.receive(LoginSubmitted(login(2, given_), UNIX), 0.0))[0].data)
    assert packet.octets("CHAP-Challenge") == (b"c" * 16,)


def test_reconfiguration_moves_what_is_under_way() -> None:
    """Requests to a server that is gone go to its successor; the state of servers that stay is kept."""
    core = exchange(two())
    (request,) = sent(submit(core))
    stays = core.channels["two", AUTH]
    actions = core.reconfigure(config(server("two", 20), server("three", 5)), 1.0)
    assert [transmit.server for transmit in sent(actions)] == ["three"]
    assert core.channels["two", AUTH] is stays
    assert decisions(reply(core, request, 1.1)) == []
    assert isinstance(decisions(reply(core, sent(actions)[0], 1.2))[0], AccessAccepted)


def test_reconfiguration_to_nothing_ends_everything() -> None:
    """Without any server left the logins under way fail."""
    core = exchange(config())
    submit(core)
    gone = replace(config(), radius=replace(config().radius, servers=()))
    assert failure(core.reconfigure(gone, 1.0))
    assert core.deadline() is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["submit", "accept", "reject", "forge", "time", "cancel", "icmp"]), st.integers(0, 30)), max_size=80))  # fmt: skip  # noqa: E501
def test_every_login_ends_exactly_once(steps: list[tuple[str, int]]) -> None:
    """Whatever servers do, each login gets one event, or none if it was cancelled; and nothing stays in flight."""
    core = exchange(two(Radius(max_in_flight=16, circuit_breaker_failure_threshold=2)))
    now, made, cancelled = 0.0, 0, set[int]()
    on_the_way: list[Transmit] = []
    ended: list[int] = []

    def note(actions: Iterable[ExchangeAction]) -> None:
        for action in actions:
            if isinstance(action, Transmit):
                on_the_way.append(action)
            elif isinstance(action, DecideLogin):
                ended.append(action.event.login_id)

    for step, amount in steps:
        now += 0.01
        if step == "submit":
            note(submit(core, made, now))
            made += 1
        elif step == "time":
            now += amount / 3
            note(action for _, action in run(core, now))
        elif step == "cancel" and made:
            target = amount % made
            if target not in ended:
                cancelled.add(target)
            note(core.receive(LoginCancelled(target), now))
        elif on_the_way:
            request = on_the_way[amount % len(on_the_way)]
            if step == "icmp":
                note(core.receive(PortUnreachable(request.server, AUTH, request.socket), now))
            elif decode(request.data).code == Code.ACCESS_REQUEST:
                code = Code.ACCESS_REJECT if step == "reject" else Code.ACCESS_ACCEPT
                secret = b"guessed1" if step == "forge" else b"testing123"
                note(deliver(core, request, answer(request.data, code, secret=secret), now))
    note(action for _, action in run(core, now + 100))
    assert sorted(ended) == sorted(set(range(made)) - cancelled)
    assert core.waiting == 0
    assert all(not channel.in_flight or channel.probe_due for channel in core.channels.values())
