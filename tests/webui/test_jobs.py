"""Decisions about uploads, queue and history, without a file or a socket."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis.job import Failure, Progress, Retention, State
from gateway.analysis.refusals import EXIT_STATUS, AnalysisRefused
from webui import jobs
from webui.jobs import Limits, Refusal, Room

NOW = 1_700_000_000.0
LIMITS = Limits()
RETENTION = Retention()
ROOMY = Room(disk_bytes=100 << 30, free_bytes=50 << 30)


def job(number: int, status: str = "pending", **more: object) -> State:
    """A job that came in second `number`."""
    identity = f"00000000-0000-4000-8000-{number:012}"
    return State(identity, f"{number}.pcap", status=status, created_unix=NOW + number, **more)  # type: ignore[arg-type]


def admitted(states: list[State], uploading: int = 0, room: Room = ROOMY, declared: int | None = 1000) -> str:
    """The name of the refusal, or how many bytes are accepted."""
    try:
        return str(jobs.admit(LIMITS, RETENTION, states, uploading, room, declared))
    except Refusal as refusal:
        return f"{refusal.status} {refusal.failure.error}"


def test_five_wait_and_the_sixth_is_refused() -> None:
    """One runs, five wait; an upload that comes in has its place already; what is finished takes none."""
    running = [job(0, "processing"), job(90, "completed"), job(91, "failed")]
    waiting = [job(number) for number in range(1, 6)]
    assert admitted(running + waiting[:4]) == str(LIMITS.upload_bytes)
    assert admitted(running + waiting) == "503 queue-full"
    assert admitted(running + waiting[:4], uploading=1) == "503 queue-full"
    assert admitted([], uploading=LIMITS.uploads) == "503 queue-full"


def test_a_refused_upload_is_told_when_to_come_back() -> None:
    """The usual time of a job for each that waits, between 5 and 300 seconds."""
    quick = job(90, "completed", started_unix=NOW, finished_unix=NOW + 0.2)
    slow = job(91, "completed", started_unix=NOW, finished_unix=NOW + 900)
    assert jobs.retry_after_s([quick, job(1)]) == 5
    assert jobs.retry_after_s([slow, job(1)]) == 300
    assert jobs.retry_after_s([job(1), job(2)]) == 20
    with pytest.raises(Refusal) as caught:
        jobs.admit(LIMITS, RETENTION, [job(number) for number in range(5)], 0, ROOMY, 1)
    assert caught.value.retry_after_s == 50


def test_size_quota_and_disk_bound_an_upload() -> None:
    """Finished jobs make room, running and waiting ones do not; a tenth of the disk stays free."""
    assert admitted([], declared=LIMITS.upload_bytes + 1) == "413 too-large"
    assert admitted([], declared=None) == str(LIMITS.upload_bytes)
    full = dataclasses.replace(ROOMY, used_bytes=RETENTION.quota_bytes)
    assert admitted([], room=full) == "507 disk-full"
    assert admitted([], room=dataclasses.replace(full, removable_bytes=5000)) == "5000"
    small = Room(disk_bytes=1000, free_bytes=150)
    assert admitted([], room=small, declared=51) == "507 disk-full"
    assert admitted([], room=small, declared=None) == "50"
    assert admitted([], room=Room(disk_bytes=1000, free_bytes=100)) == "507 disk-full"


def test_every_refusal_of_a_capture_has_its_status() -> None:
    """The names of the command line, in HTTP's numbers."""
    for name in set(EXIT_STATUS) - {"cancelled"}:
        refusal = jobs.refused(AnalysisRefused(name, "a sentence", "detail", 7, "hint"))
        assert refusal.status in {413, 415, 422}
        assert refusal.failure == Failure(name, "a sentence", "detail", 7, "hint")


def test_an_upload_that_drips_is_given_up() -> None:
    """A minute of grace, then two kilobytes a second on the average."""
    assert not jobs.is_too_slow(LIMITS, 0, 59)
    assert jobs.is_too_slow(LIMITS, 10, 70)
    assert not jobs.is_too_slow(LIMITS, 1 << 20, 70)


def test_positions_are_in_order_of_coming() -> None:
    """1 is next; what runs has 0, what is finished none."""
    states = [job(3), job(1), job(2, "processing"), job(4, "completed")]
    assert jobs.positions(states) == {job(1).id: 1, job(3).id: 2, job(2).id: 0}


def test_history_is_newest_first_and_searched_by_words() -> None:
    """Every word must occur: in the name, the owner, the status or the error."""
    failed = job(2, "failed", error=Failure("gzip-bomb", "It grows."), owner="Eve")
    states = [job(1, "completed", owner="alice"), failed, job(3)]
    assert [state.id for state in jobs.history(states).rows] == [job(3).id, job(2).id, job(1).id]
    assert jobs.history(states, search="eve BOMB").rows == [failed]
    assert jobs.history(states, search="eve completed").rows == []


@given(count=st.integers(0, 30), limit=st.integers(1, 12), same_time=st.booleans())
def test_pages_of_history_hold_every_job_once(count: int, limit: int, same_time: bool) -> None:
    """Also when jobs came in the same instant."""
    states = [dataclasses.replace(job(n), created_unix=NOW if same_time else NOW + n) for n in range(count)]
    seen: list[str] = []
    before, rounds = "", 0
    while rounds == 0 or before:
        page = jobs.history(states, limit=limit, before=before)
        assert page.total == count
        seen += [state.id for state in page.rows]
        before, rounds = page.before, rounds + 1
    assert sorted(seen) == sorted(state.id for state in states)


def test_others_jobs_are_not_seen_but_by_administrators() -> None:
    """What nobody owns is everybody's."""
    mine, others, nobodys = job(1, owner="eve"), job(2, owner="bob"), job(3)
    assert [jobs.may_see(state, "eve", administrator=False) for state in (mine, others, nobodys)] == [True, False, True]
    assert jobs.may_see(others, "eve", administrator=True)


def test_a_row_has_a_link_only_when_there_is_a_report() -> None:
    """A completed job and a partial one; an expired one has none."""

    def row(state: State) -> dict[str, object]:
        return jobs.status_row(state, Progress(percent=40.0, phase="reading"), None, RETENTION)

    done = row(job(1, "completed", finished_unix=NOW))
    assert done["report_url"] == f"/api/v1/reports/{job(1).id}/html"
    assert (done["percent"], done["expires_unix"]) == (100.0, NOW + RETENTION.report_s)
    assert row(job(1, "failed", partial=True, finished_unix=NOW))["report_json_url"] is not None
    for status in ("pending", "processing", "failed", "cancelled", "expired"):
        assert row(job(1, status))["report_url"] is None
    assert (row(job(1))["phase"], row(job(1, "processing"))["phase"]) == ("waiting", "reading")


def test_health_is_failing_without_a_worker_or_room() -> None:
    """And degraded while nobody can upload."""

    def health(states: list[State], room: Room = ROOMY, age: float | None = 1.0) -> str:
        row = jobs.health_row(LIMITS, RETENTION, states, 0, room, beat_age_s=age)
        assert bool(row["reasons"]) == (row["status"] != "ok")
        return str(row["status"])

    assert health([]) == "ok"
    assert health([], age=None) == health([], age=31.0) == "failing"
    assert health([], Room(disk_bytes=1000, free_bytes=40)) == "failing"
    assert health([], Room(disk_bytes=1000, free_bytes=90)) == "degraded"
    assert health([job(number) for number in range(5)]) == "degraded"


def test_the_queue_counts_what_is_available() -> None:
    """Bounded by places and by bodies read at once."""
    row = jobs.queue_row(LIMITS, [job(0, "processing"), job(1), job(2), job(9, "completed")], 1)
    assert (row["waiting"], row["running"], row["available"], row["uploading"]) == (2, job(0).id, 1, 1)
    assert row["totals"] == {"completed": 1, "pending": 2, "processing": 1}
