"""The queue of accounting records: order, outages, replay, bounds; in simulated time."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.radius.accounting import (
    AccountingAction,
    AccountingQueue,
    RecordQueued,
    RecordsDone,
    RecordSettled,
    RecordsRestored,
    SendRecord,
    ServerSeen,
)
from gateway.session.model import AccountingRecord, AccountingStatus
from tests.gateway.radius.build import UNIX, EvenRandom, record

START, STOP, INTERIM = AccountingStatus.START, AccountingStatus.STOP, AccountingStatus.INTERIM


def queue(limit: int = 1000, window: int = 1000) -> AccountingQueue:
    return AccountingQueue(limit=limit, window=window, random=EvenRandom(1))


def add(core: AccountingQueue, made: AccountingRecord, now: float = 0.0) -> list[AccountingAction]:
    return core.receive(RecordQueued(made), now)


def settle(core: AccountingQueue, record_id: int, answered: bool, now: float = 0.0) -> list[AccountingAction]:
    return core.receive(RecordSettled(record_id, answered), now)


def gone_out(actions: Iterable[AccountingAction]) -> list[int]:
    return [action.record_id for action in actions if isinstance(action, SendRecord)]


def done(actions: Iterable[AccountingAction]) -> list[int]:
    return [number for action in actions if isinstance(action, RecordsDone) for number in action.record_ids]


def next_tick(core: AccountingQueue) -> tuple[float, list[int]]:
    due = core.deadline()
    assert due is not None
    return due, gone_out(core.tick(due))


def test_a_record_goes_at_once_and_is_done_when_answered() -> None:
    """While servers answer nothing waits."""
    core = queue()
    assert gone_out(add(core, record(1))) == [1]
    assert done(settle(core, 1, True)) == [1]
    assert len(core) == 0
    assert core.deadline() is None


def test_sessions_do_not_wait_for_each_other() -> None:
    """Different sessions are told side by side."""
    core = queue()
    assert [gone_out(add(core, record(number, session=f"s{number}"))) for number in (1, 2, 3)] == [[1], [2], [3]]


def test_a_stop_waits_for_its_start() -> None:
    """The records of one session go one after the other."""
    core = queue()
    assert gone_out(add(core, record(1))) == [1]
    assert gone_out(add(core, record(2, STOP))) == []
    assert gone_out(settle(core, 1, True)) == [2]


def test_a_newer_interim_replaces_an_older_one() -> None:
    """Only the newest Interim that waits is told, and a Stop removes it too."""
    core = queue()
    add(core, record(1))
    add(core, record(2, INTERIM))
    assert done(add(core, record(3, INTERIM))) == [2]
    assert done(add(core, record(4, STOP))) == [3]
    assert gone_out(settle(core, 1, True)) == [4]
    assert core.replaced == 2


def test_an_interim_under_way_is_not_sent_again_once_replaced() -> None:
    """When its train fails after the Stop came, it is dropped and the Stop's turn comes with the next try."""
    core = queue()
    add(core, record(1, INTERIM))
    assert gone_out(add(core, record(2, STOP))) == []
    assert done(settle(core, 1, False, 30.0)) == [1]
    due, out = next_tick(core)
    assert out == [2]
    assert due == pytest.approx(60.0)


def test_an_outage_holds_everything_back_and_tries_ever_more_seldom() -> None:
    """After a failed train one record at a time is tried: after 30 s, 60 s, and so on up to 600 s."""
    core = queue()
    for number in (1, 2, 3):
        add(core, record(number, session=f"s{number}"))
    now = 30.0
    for number in (1, 2, 3):
        settle(core, number, False, now)
    assert core.outage
    assert gone_out(add(core, record(4, session="s4"), now)) == []
    waits = []
    for _ in range(7):
        due, out = next_tick(core)
        assert len(out) == 1
        waits.append(due - now)
        now = due + 30.0
        settle(core, out[0], False, now)
    assert waits == pytest.approx([30, 60, 120, 240, 480, 600, 600])


def test_the_end_of_an_outage_replays_oldest_first_at_fifty_a_second() -> None:
    """The first answer ends the outage; what waited follows in order and not faster than allowed."""
    core = queue()
    add(core, record(1, session="s1"))
    settle(core, 1, False, 30.0)
    for number in range(2, 202):
        add(core, record(number, session=f"s{number}"), 31.0)
    now, out = next_tick(core)
    assert out == [2]  # the oldest one that was not tried in this outage
    order: list[int] = []
    began = now
    pending = gone_out(settle(core, 2, True, now))
    while len(core):
        for number in pending:
            order.append(number)
            pending = gone_out(settle(core, number, True, now))
        if not pending and len(core):
            now, pending = next_tick(core)
    assert order == [1, *range(3, 202)]
    assert now - began == pytest.approx(200 / 50, abs=0.1)


def test_new_records_are_not_slowed_down_by_a_replay() -> None:
    """Once servers answer, a new session's Start goes at once."""
    core = queue()
    core.receive(RecordsRestored(tuple(record(number, session=f"s{number}") for number in range(100))), 0.0)
    assert gone_out(add(core, record(500, session="new"))) == [500]


def test_a_hint_brings_the_next_try_forward() -> None:
    """When a server is seen to live again the next try is a second away instead of minutes."""
    core = queue()
    add(core, record(1))
    now = 30.0
    settle(core, 1, False, now)
    for _ in range(5):
        now, out = next_tick(core)
        settle(core, out[0], False, now)
    assert core.receive(ServerSeen(), now) == []
    due, out = next_tick(core)
    assert due == pytest.approx(now + 1.0)
    assert out == [1]


def test_a_record_that_nobody_wants_does_not_stop_the_others() -> None:
    """A poisoned record is tried ever more seldom, in the end without taking its failure for an outage."""
    core = queue()
    now = 0.0
    number = 1
    add(core, record(0, session="poison"), now)
    outages = 0
    for _ in range(400):
        now += 10.0
        number += 1
        out = gone_out(add(core, record(number, session=f"s{number}"), now))
        due = core.deadline()
        if due is not None and due <= now:
            out += gone_out(core.tick(now))
        while out:
            sent_id = out.pop(0)
            out += gone_out(settle(core, sent_id, sent_id != 0, now))
        outages += core.outage
    assert outages < 20
    assert len(core) < 5
    assert core.answered >= 395
    assert core.snapshot()[0].record_id == 0


def test_accounting_on_goes_before_everything_younger() -> None:
    """While Accounting-On is under way nothing younger is sent, for it would close the sessions just begun."""
    core = queue()
    assert gone_out(add(core, record(1, AccountingStatus.ON, "boot"))) == [1]
    assert gone_out(add(core, record(2, session="s2"))) == []
    assert gone_out(settle(core, 1, True)) == [2]


def test_accounting_on_stays_first_in_an_outage() -> None:
    """A failed Accounting-On is the one that is tried again."""
    core = queue()
    add(core, record(1, AccountingStatus.ON, "boot"))
    add(core, record(2, session="s2"))
    settle(core, 1, False, 30.0)
    _, out = next_tick(core)
    assert out == [1]


def test_restored_records_are_late() -> None:
    """What the journal kept is sent with Acct-Delay-Time counted from its event, and its own timestamp."""
    core = queue()
    (out,) = gone_out(core.receive(RecordsRestored((record(7),)), 5.0))
    body = core.body(out, 5.0, UNIX + 100)
    assert (body.record, body.event_unix, body.delay_s) == (record(7), UNIX, 100)


def test_a_first_transmission_has_no_delay() -> None:
    """A record that goes at once does not speak of delay; after a failed train it does, with the same timestamp."""
    core = queue()
    add(core, record(1))
    assert core.body(1, 0.0, UNIX).delay_s is None
    settle(core, 1, False, 30.0)
    due, _ = next_tick(core)
    body = core.body(1, due, UNIX + due)
    assert (body.event_unix, body.delay_s) == (UNIX, 60)


def test_a_record_without_clock_stays_without_timestamp() -> None:
    """A record from before the clock was set never gets a timestamp, so that two copies are the same."""
    core = queue()
    add(core, record(1, event_unix=None))
    settle(core, 1, False, 30.0)
    due, _ = next_tick(core)
    body = core.body(1, due, UNIX)
    assert (body.event_unix, body.delay_s) == (None, 60)


def test_a_clock_that_went_back_gives_no_negative_delay() -> None:
    """Acct-Delay-Time is never below zero."""
    core = queue()
    core.receive(RecordsRestored((record(7),)), 5.0)
    assert core.body(7, 5.0, UNIX - 1000).delay_s == 0


def test_what_waited_is_sent_with_the_same_values() -> None:
    """A record that was held back is what it was, to the last field, whichever of them it has."""
    full = replace(
        record(2, STOP, upload_bytes=1 << 40),
        ipv6_addresses=(IPv6Address("2001:db8::1"),),
        class_values=(b"\xff\x00", b"two"),
        chargeable_user_identity=b"\x00cui",
        username="Zo\u00eb",
    )
    core = queue()
    core.receive(RecordsRestored((record(1, AccountingStatus.ON, "on", event_unix=None), full)), 0.0)
    settle(core, 1, False)
    assert core.snapshot()[1] == full
    assert core.body(2, 10.0, UNIX + 10).record == full
    assert core.body(1, 10.0, None).record == record(1, AccountingStatus.ON, "on", event_unix=None)


def test_records_of_an_outage_take_little_memory() -> None:
    """Ten thousand that wait for a server are a few megabytes, not tens."""
    core = queue(limit=10_000)
    add(core, record(0, START, "first"))
    settle(core, 0, False)
    assert core.outage
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, 1001):
            add(core, record(number, STOP, f"{number:08x}", upload_bytes=number << 20), 1.0)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(core) == 1001
    assert taken < 1000 * 800


def test_a_full_queue_drops_the_oldest_complete_session() -> None:
    """Start and Stop of one session go together, the sessions still open keep their Start."""
    core = queue(limit=4)
    add(core, record(0, session="probe"))
    settle(core, 0, False, 30.0)
    add(core, record(1, session="open"), 31.0)
    add(core, record(2, session="old"), 31.0)
    add(core, record(3, STOP, session="old"), 31.0)
    actions = add(core, record(4, session="new"), 31.0)
    assert actions == [RecordsDone((2, 3), dropped=2)]
    assert [kept.record_id for kept in core.snapshot()] == [0, 1, 4]
    assert core.dropped == 2


def test_a_full_queue_without_complete_sessions_drops_the_oldest() -> None:
    """Without a pair the oldest record goes, and what was behind it in its session takes its place."""
    core = queue(limit=2)
    add(core, record(1, session="a"))
    settle(core, 1, False, 30.0)
    add(core, record(2, INTERIM, session="a"), 31.0)
    assert done(add(core, record(3, session="b"), 31.0)) == [1]
    _, out = next_tick(core)
    assert out == [2]


def test_the_window_bounds_what_is_under_way() -> None:
    """No more records than the window fly at once; the others follow without being slowed down."""
    core = queue(window=2)
    out = [number for made in range(5) for number in gone_out(add(core, record(made, session=f"s{made}")))]
    assert out == [0, 1]
    assert gone_out(settle(core, 0, True)) == [2]
    assert core.body(2, 1.0, UNIX).delay_s is None


def test_the_same_record_is_queued_once() -> None:
    """A record that is already there is not told twice."""
    core = queue()
    add(core, record(1))
    assert add(core, record(1)) == []
    assert len(core) == 1


def test_settling_what_is_not_under_way_changes_nothing() -> None:
    """A late word about a record that is gone is ignored."""
    core = queue()
    assert settle(core, 99, True) == []


_STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "interim", "stop", "answer", "fail", "time", "restart"]), st.integers(0, 40)),
    max_size=150,
)


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_no_start_or_stop_is_ever_lost(steps: list[tuple[str, int]]) -> None:
    """Through failures and restarts every Start and Stop is answered in the end, each session's in order."""
    core = AccountingQueue(limit=10_000, window=3, random=Random(3))
    journal: dict[int, AccountingRecord] = {}
    told: list[AccountingRecord] = []
    under_way: list[int] = []
    open_sessions: list[str] = []
    now, number, finished = 0.0, 0, 0

    def note(actions: Iterable[AccountingAction]) -> None:
        for action in actions:
            if isinstance(action, SendRecord):
                assert action.record_id not in under_way
                under_way.append(action.record_id)
            else:
                assert action.dropped == 0
                for gone in action.record_ids:
                    del journal[gone]

    def make(status: AccountingStatus, session: str) -> None:
        nonlocal number
        number += 1
        journal[number] = record(number, status, session)
        note(core.receive(RecordQueued(journal[number]), now))

    def finish(answered: bool, which: int) -> None:
        settled = under_way.pop(which % len(under_way))
        if answered:
            told.append(journal[settled])
        note(core.receive(RecordSettled(settled, answered), now))

    for step, amount in steps:
        now += 0.1
        if step == "start":
            finished += 1
            open_sessions.append(f"s{finished}")
            make(START, open_sessions[-1])
        elif step in ("interim", "stop") and open_sessions:
            session = open_sessions[amount % len(open_sessions)]
            if step == "stop":
                open_sessions.remove(session)
            make(STOP if step == "stop" else INTERIM, session)
        elif step in ("answer", "fail") and under_way:
            finish(step == "answer", amount)
        elif step == "time":
            now += amount
            note(core.tick(now))
        elif step == "restart":
            under_way.clear()
            assert core.snapshot() == tuple(journal[key] for key in sorted(journal))
            core = AccountingQueue(limit=10_000, window=3, random=Random(3))
            note(core.receive(RecordsRestored(tuple(journal.values())), now))
    for _ in range(10_000):
        while under_way:
            finish(True, 0)
        due = core.deadline()
        if due is None:
            break
        now = max(now, due)
        note(core.tick(now))
    assert len(core) == 0
    assert not journal
    for session in {made.acct_session_id for made in told}:
        order = [made.status for made in told if made.acct_session_id == session]
        assert order[0] is START
        assert order.count(START) == 1
        assert order.count(STOP) == (session not in open_sessions)
        assert STOP not in order[:-1]
