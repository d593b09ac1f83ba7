"""The job directory: queue, crash, retention."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis import job
from gateway.analysis.job import Failure, Progress, Removal, Retention, State, Stored
from tests.gateway.analysis.made_packets import compressed, pcap, udp

NOW = 1_700_000_000.0


def _submitted(spool: Path, *, at: float = NOW, size: int = 100, **changes: object) -> Path:
    directory = job.create(spool, "a.pcap", now_unix=at)
    (directory / job.CAPTURE).write_bytes(b"x" * size)
    state = job.submit(directory)
    if changes:
        job.save(directory, dataclasses.replace(state, **changes))  # type: ignore[arg-type]
    return directory


def test_a_job_is_in_the_queue_only_when_its_capture_is_complete(tmp_path: Path) -> None:
    """While the upload runs there is no state and the listing does not know it."""
    directory = job.create(tmp_path, "a.pcap", owner="eve", now_unix=NOW)
    (directory / "capture.part").write_bytes(b"half")
    assert job.listing(tmp_path) == []
    (directory / "capture.part").rename(directory / job.CAPTURE)
    state = job.submit(directory)
    assert job.listing(tmp_path) == [state]
    assert (state.status, state.owner, state.size_bytes) == ("pending", "eve", 4)
    assert sorted(path.name for path in directory.iterdir()) == ["capture", "state.json"]


def test_every_member_of_the_group_can_go_on_with_a_job_under_any_umask(tmp_path: Path) -> None:
    """Web process, recorder and worker are different users: modes do not depend on what they were started with."""
    before = os.umask(0o077)
    try:
        directory = _submitted(tmp_path)
        job.write_progress(directory, Progress())
        os.close(job.open_wake(tmp_path))
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o770
    assert {name: (directory / name).stat().st_mode & 0o777 for name in ("state.json", "progress")} == {
        "state.json": 0o660,
        "progress": 0o660,
    }
    assert (tmp_path / job.WAKE).stat().st_mode & 0o777 == 0o660


def test_a_job_wakes_the_worker(tmp_path: Path) -> None:
    """Who listens is woken by a new job and by a wish to cancel; without a listener nothing happens."""
    first = _submitted(tmp_path)
    pipe = job.open_wake(tmp_path)
    try:
        with pytest.raises(BlockingIOError):
            os.read(pipe, 10)
        _submitted(tmp_path)
        assert os.read(pipe, 10) == b"."
        job.request_cancel(first)
        assert os.read(pipe, 10) == b"."
        for _ in range(70_000):  # more than a pipe holds
            job.wake(tmp_path)
    finally:
        os.close(pipe)


def test_something_else_in_the_place_of_the_pipe_is_replaced(tmp_path: Path) -> None:
    """A file of that name, and a link that leads away, are not written to."""
    other = tmp_path / "other"
    other.write_text("untouched")
    (tmp_path / job.WAKE).symlink_to(other)
    job.wake(tmp_path)
    os.close(job.open_wake(tmp_path))
    assert other.read_text() == "untouched"


def test_a_cancelled_job_that_waits_is_closed(tmp_path: Path) -> None:
    """The others stay as they are."""
    cancelled, waiting = _submitted(tmp_path), _submitted(tmp_path)
    running = _submitted(tmp_path, status="processing")
    job.request_cancel(cancelled)
    job.request_cancel(running)
    (closed,) = job.close_cancelled(tmp_path, now_unix=NOW + 9)
    assert (closed.id, closed.status, closed.finished_unix) == (cancelled.name, "cancelled", NOW + 9)
    assert job.load(cancelled) == closed
    left = {state.id: state.status for state in job.listing(tmp_path)}
    assert (left[waiting.name], left[running.name]) == ("pending", "processing")


def test_a_job_that_is_removed_while_it_is_closed_troubles_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels a waiting job deletes it next; the worker, which has just read it, goes on."""
    gone, stays = _submitted(tmp_path), _submitted(tmp_path, at=NOW + 1)
    for directory in (gone, stays):
        job.request_cancel(directory)
    load = job.load

    def load_and_lose(directory: Path) -> State | None:
        state = load(directory)
        if directory == gone:
            shutil.rmtree(directory)
        return state

    monkeypatch.setattr(job, "load", load_and_lose)
    assert [state.id for state in job.close_cancelled(tmp_path, now_unix=NOW + 9)] == [stays.name]


@pytest.mark.parametrize("status", ["completed", "processing"])
def test_a_job_that_is_removed_in_the_middle_of_a_sweep_troubles_nobody(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator deletes what the worker has just listed, at a sweep or after a crash."""
    gone = _submitted(tmp_path, status=status, finished_unix=NOW)
    listing = job.listing

    def list_and_lose(spool: Path) -> list[State]:
        states = listing(spool)
        shutil.rmtree(gone, ignore_errors=True)
        return states

    monkeypatch.setattr(job, "listing", list_and_lose)
    far = NOW + 10 * 86400
    if status == "processing":
        assert job.restart(tmp_path, now_unix=far) == []
    else:
        assert [removal.what for removal in job.sweep(tmp_path, Retention(), now_unix=far)] == ["expire"]


def test_the_queue_is_in_order_of_creation(tmp_path: Path) -> None:
    """First in, first out, whatever the directory is called."""
    late = _submitted(tmp_path, at=NOW + 5)
    early = _submitted(tmp_path, at=NOW)
    assert [state.id for state in job.listing(tmp_path)] == [early.name, late.name]


def test_client_names_are_display_text_only() -> None:
    """No path, no control character, no endless name."""
    assert job.display_name("../../etc/passwd") == "passwd"
    assert job.display_name("C:\\temp\\a.pcap") == "a.pcap"
    assert job.display_name("a\x1b\u202eb.pcap") == "ab.pcap"
    assert len(job.display_name("x" * 999)) == 255
    assert job.display_name("///") == "capture"


def test_ids_are_uuids_and_differ(tmp_path: Path) -> None:
    """Nothing else becomes the name of a directory."""
    names = {job.create(tmp_path, "a.pcap", now_unix=1.0).name for _ in range(50)}
    assert len(names) == 50
    assert all(job.is_job_id(name) for name in names)


@pytest.mark.root
def test_a_job_is_made_where_proc_shows_processes_only(tmp_path: Path) -> None:
    """As the services of the packages see it (ProcSubset=pid)."""
    make = (
        "import sys, pathlib; from gateway.analysis import job; job.create(pathlib.Path(sys.argv[1]), '', now_unix=1)"
    )
    inside = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    command = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", inside, "sh", sys.executable, "-c", make]
    subprocess.run([*command, str(tmp_path)], check=True, timeout=30, cwd=Path(__file__).parents[3])
    assert len(list(tmp_path.iterdir())) == 1


def test_only_the_form_of_a_uuid_is_an_id() -> None:
    """Nothing else ever becomes a path."""
    assert job.is_job_id("0b7e1f2a-52d4-4c1a-9f0e-000000000001")
    for text in ("..", "0b7e1f2a-52d4-4c1a-9f0e-000000000001/", "0B7E1F2A-52D4-4C1A-9F0E-000000000001", ""):
        assert not job.is_job_id(text)


def test_state_survives_a_round_trip_and_unknown_fields(tmp_path: Path) -> None:
    """Every field comes back; a field of a later version is ignored; damage is no job."""
    directory = _submitted(tmp_path)
    state = State(
        directory.name,
        "a.pcap",
        status="failed",
        error=Failure("memory", "m"),
        sandbox=("a", "b"),
        settings={"a.b": "1"},
    )
    job.save(directory, state)
    assert job.load(directory) == state
    fields = json.loads((directory / job.STATE).read_text())
    (directory / job.STATE).write_text(json.dumps({**fields, "later": 1}))
    assert job.load(directory) == state
    (directory / job.STATE).write_text("{")
    assert job.load(directory) is None


def test_progress_is_replaced_and_missing_progress_is_the_beginning(tmp_path: Path) -> None:
    """A reader sees a whole file or none."""
    directory = _submitted(tmp_path)
    assert job.read_progress(directory) == Progress()
    job.write_progress(directory, Progress(id=4, phase="reading"))
    assert job.read_progress(directory) == Progress(id=4, phase="reading")
    assert not list(directory.glob("*.part"))


def test_a_crash_sends_a_job_back_once(tmp_path: Path) -> None:
    """A job that was running is tried again; the second time it has failed with a sentence."""
    first = _submitted(tmp_path, at=NOW - 10)
    second = _submitted(tmp_path, at=NOW, status="processing", attempts=1, started_unix=NOW)
    third = _submitted(tmp_path, at=NOW + 1, status="processing", attempts=2, started_unix=NOW)
    job.restart(tmp_path, now_unix=NOW + 60)
    states = {state.id: state for state in job.listing(tmp_path)}
    assert states[first.name].status == "pending"
    assert (states[second.name].status, states[second.name].attempts) == ("pending", 1)
    failed = states[third.name]
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.error == "worker-lost"


def test_an_abandoned_upload_is_removed_a_running_one_is_not(tmp_path: Path) -> None:
    """Directories without a state go when nothing was written to them for a while."""
    old, new = job.create(tmp_path, "a", now_unix=NOW), job.create(tmp_path, "b", now_unix=NOW)
    for path in (*old.iterdir(), old):
        os.utime(path, (NOW - 1000, NOW - 1000))
    for path in (*new.iterdir(), new):
        os.utime(path, (NOW - 10, NOW - 10))
    (tmp_path / "unrelated").mkdir()
    job.restart(tmp_path, now_unix=NOW)
    assert not old.exists()
    assert new.exists()
    assert (tmp_path / "unrelated").exists()


def _stored(name: str, status: str, ended: float, capture: int = 100, report: int = 10) -> Stored:
    state = State(name, name, status=status, created_unix=ended, finished_unix=ended)  # type: ignore[arg-type]
    return Stored(state, capture, report)


def test_ages_come_first() -> None:
    """Reports expire after a day, stubs after a week, waiting jobs never."""
    retention = Retention()
    jobs = [
        _stored("old", "completed", NOW - 25 * 3600),
        _stored("fresh", "completed", NOW - 3600),
        _stored("stub", "expired", NOW - 8 * 86400, 0, 0),
        _stored("waiting", "pending", NOW - 30 * 86400),
    ]
    assert job.plan_sweep(jobs, retention, now_unix=NOW) == [Removal("old", "expire"), Removal("stub", "all")]


def test_a_failed_upload_does_not_keep_its_capture() -> None:
    """Nobody will look into it again, unless there is a report of a part of it."""
    failed = _stored("a", "failed", NOW)
    assert job.plan_sweep([failed], Retention(), now_unix=NOW) == [Removal("a", "capture")]
    partial = dataclasses.replace(failed, state=dataclasses.replace(failed.state, partial=True))
    assert job.plan_sweep([partial], Retention(), now_unix=NOW) == []


def test_the_quota_takes_captures_before_reports_and_the_oldest_first() -> None:
    """As little as possible is lost."""
    jobs = [_stored("b", "completed", NOW - 10), _stored("a", "completed", NOW - 20), _stored("run", "processing", NOW)]
    assert job.plan_sweep(jobs, Retention(quota_bytes=240), now_unix=NOW) == [Removal("a", "capture")]
    tight = job.plan_sweep(jobs, Retention(quota_bytes=115), now_unix=NOW)
    assert tight == [Removal("a", "capture"), Removal("b", "capture"), Removal("a", "expire"), Removal("b", "expire")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pending", "processing", "completed", "failed", "cancelled", "expired"]),
            st.floats(0, 10 * 86400),
            st.integers(0, 500),
            st.integers(0, 50),
        ),
        max_size=12,
    ),
    st.integers(0, 2000),
)
def test_a_sweep_never_touches_what_waits_and_keeps_the_quota(
    rows: list[tuple[str, float, int, int]], quota: int
) -> None:
    """After it, finished jobs hold no more than the quota leaves them."""
    jobs = [
        _stored(str(n), status, NOW - age, capture, report) for n, (status, age, capture, report) in enumerate(rows)
    ]
    removals = job.plan_sweep(jobs, Retention(quota_bytes=quota), now_unix=NOW)
    waiting = {j.state.id for j in jobs if j.state.status in job.WAITING}
    assert not waiting & {removal.id for removal in removals}
    gone = {removal.id for removal in removals if removal.what != "capture"}
    bare = {removal.id for removal in removals if removal.what == "capture"}
    kept = sum(
        (0 if j.state.id in bare else j.capture_bytes) + j.report_bytes
        for j in jobs
        if j.state.status in job.FINISHED and j.state.id not in gone
    )
    held = sum(j.capture_bytes + j.report_bytes for j in jobs if j.state.status in job.WAITING)
    assert kept + held <= quota or kept == 0


def test_a_sweep_on_disk_leaves_the_row_of_an_expired_job(tmp_path: Path) -> None:
    """Files go, the row says expired, and stays in the history."""
    directory = _submitted(tmp_path, status="completed", finished_unix=NOW - 2 * 86400)
    job.store_file(directory, job.REPORT, b"{}")
    job.sweep(tmp_path, Retention(), now_unix=NOW)
    assert [path.name for path in directory.iterdir()] == [job.STATE]
    assert [state.status for state in job.listing(tmp_path)] == ["expired"]
    job.sweep(tmp_path, Retention(), now_unix=NOW + 8 * 86400)
    assert not directory.exists()


def test_a_compressed_capture_is_unpacked_once_and_counted(tmp_path: Path) -> None:
    """The first look makes the file, later ones find it, the sweep removes both; without room the original serves."""
    directory = _submitted(tmp_path, status="completed", finished_unix=NOW)
    data = pcap([udp(("192.0.2.1", 1), ("192.0.2.2", 2), b"x" * 500)] * 20)
    (directory / job.CAPTURE).write_bytes(compressed(data))
    assert job.capture_to_look_into(directory, limit_bytes=100).name == job.CAPTURE
    unpacked = job.capture_to_look_into(directory, limit_bytes=1 << 20)
    assert unpacked.read_bytes() == data
    assert job.capture_to_look_into(directory, limit_bytes=100) == unpacked
    job.sweep(tmp_path, Retention(quota_bytes=len(data)), now_unix=NOW)
    assert [path.name for path in directory.iterdir()] == [job.STATE]


def test_deleting_twice_is_no_error(tmp_path: Path) -> None:
    """The second time there is nothing to delete, and that is the answer."""
    directory = _submitted(tmp_path)
    assert job.delete(directory)
    assert not job.delete(directory)


def test_a_spool_full_of_rubbish_is_listed(tmp_path: Path) -> None:
    """Files, links and foreign directories are not jobs."""
    directory = _submitted(tmp_path)
    (tmp_path / "0b7e1f2a-52d4-4c1a-9f0e-000000000001").write_text("a file")
    (tmp_path / "0b7e1f2a-52d4-4c1a-9f0e-000000000002").symlink_to(directory)
    copied = tmp_path / "0b7e1f2a-52d4-4c1a-9f0e-000000000003"
    copied.mkdir()
    (copied / job.STATE).write_bytes((directory / job.STATE).read_bytes())
    assert [state.id for state in job.listing(tmp_path)] == [directory.name]
    with pytest.raises(FileNotFoundError):
        job.submit(copied)
