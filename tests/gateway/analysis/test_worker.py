"""Jobs from the spool: run, refused, cancelled, out of time, out of memory, taken up again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.analysis import job, worker
from gateway.analysis.job import Retention
from gateway.analysis.supervise import Bounds, run_job
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap, udp

PROJECT = Path(__file__).resolve().parents[3]


def _job(spool: Path, data: bytes, *, at: float | None = None, settings: dict[str, str] | None = None) -> Path:
    directory = job.create(spool, "a.pcap", now_unix=time.time() if at is None else at, settings=settings)
    (directory / job.CAPTURE).write_bytes(data)
    job.submit(directory)
    return directory


def _long_capture(tmp_path: Path) -> bytes:
    """A capture that takes seconds: a small one whose packets are repeated."""
    frames = [udp((f"10.1.{n % 250}.{n // 250 % 250}", 1024 + n % 50000), (SERVER, 53), b"x" * 20) for n in range(2000)]
    once = pcap(frames)
    return once[:24] + once[24:] * 400


def test_a_job_ends_with_a_report_and_a_page(tmp_path: Path) -> None:
    """The state says completed, the report is the engine's, the page is there, progress stands at the end."""
    directory = _job(tmp_path, pcap(conversation(lost=True)))
    state = run_job(directory, Bounds())
    assert (state.status, state.error, state.attempts) == ("completed", None, 1)
    assert job.load(directory) == state
    report = json.loads((directory / job.REPORT).read_bytes())
    assert state.packets == report["capture"]["packets"] == len(conversation(lost=True))
    assert "Content-Security-Policy" in (directory / job.REPORT_HTML).read_text()
    progress = job.read_progress(directory)
    assert (progress.phase, progress.percent) == ("completed", 100.0)
    assert not list(directory.glob("*.part"))


def test_the_layers_of_confinement_are_told(tmp_path: Path) -> None:
    """Each is on or off by name, and those that every kernel has are on."""
    state = run_job(_job(tmp_path, pcap(conversation())), Bounds())
    layers = {line.split(":")[0]: line.split(": ")[1].split()[0] for line in state.sandbox}
    assert list(layers) == ["rlimits", "priority", "network", "user", "no_new_privs", "landlock", "seccomp"]
    assert layers["rlimits"] == layers["user"] == layers["no_new_privs"] == "on"


def test_what_is_no_capture_is_refused_by_name(tmp_path: Path) -> None:
    """The refusal has its sentence, and there is no report."""
    directory = _job(tmp_path, b"hello, I am a text file and not a capture at all")
    state = run_job(directory, Bounds())
    assert state.status == "failed"
    assert state.error is not None
    assert state.error.error == "not-a-capture"
    assert not (directory / job.REPORT).exists()


def test_a_setting_that_does_not_exist_fails_with_a_sentence(tmp_path: Path) -> None:
    """It names the setting."""
    state = run_job(_job(tmp_path, pcap(conversation()), settings={"gap.lwo_s": "1"}), Bounds())
    assert state.error is not None
    assert "gap.lwo_s" in state.error.message


def test_a_job_is_cancelled_within_a_second(tmp_path: Path) -> None:
    """Asked for by a file in the directory, whoever made it."""
    directory = _job(tmp_path, _long_capture(tmp_path))
    asked: list[float] = []

    def cancel() -> None:
        while job.read_progress(directory).phase != "reading":
            time.sleep(0.01)
        asked.append(time.monotonic())
        job.request_cancel(directory)

    thread = threading.Thread(target=cancel)
    thread.start()
    state = run_job(directory, Bounds())
    ended = time.monotonic()
    thread.join()
    assert state.status == "cancelled"
    assert ended - asked[0] < 1.0


def test_time_runs_out_with_a_partial_report(tmp_path: Path) -> None:
    """What was read until then is kept, marked as partial, and the state says why."""
    data = _long_capture(tmp_path)
    # Time enough for a busy machine to begin, packets enough for a fast one not to end.
    directory = _job(tmp_path, data + data[24:])
    state = run_job(directory, Bounds(wall_s=1.0, grace_s=60.0))
    assert (state.status, state.partial) == ("failed", True)
    assert state.error is not None
    assert state.error.error == "timeout"
    report = json.loads((directory / job.REPORT).read_bytes())
    assert 0 < report["capture"]["packets"] < 1_600_000
    assert report["capture"]["notes"][0]["name"] == "partial"
    assert (directory / job.REPORT_HTML).exists()


def test_memory_that_is_not_enough_is_named(tmp_path: Path) -> None:
    """The state says memory, not a crash."""
    directory = _job(tmp_path, _long_capture(tmp_path))
    state = run_job(directory, Bounds(memory_bytes=24 << 20))
    assert state.status == "failed"
    assert state.error is not None
    assert state.error.error == "memory"


def test_progress_only_rises(tmp_path: Path) -> None:
    """Ids rise by one, nothing goes back, and it is not written more than about four times a second."""
    directory = _job(tmp_path, _long_capture(tmp_path)[: 24 << 20])
    seen = {}

    def look() -> None:
        progress = job.read_progress(directory)
        seen[progress.id] = progress

    run_job(directory, Bounds(), beat=look)
    ordered = [seen[number] for number in sorted(seen)]
    for before, after in itertools.pairwise(ordered):
        assert after.bytes_processed >= before.bytes_processed
        assert after.packets_processed >= before.packets_processed
        assert after.percent >= before.percent


def test_one_job_by_hand_has_an_exit_status(tmp_path: Path) -> None:
    """0 for a report, 65 for a refusal with its name, 1 where there is no job."""

    def run(directory: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.analysis.worker", str(directory)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert run(_job(tmp_path, pcap(conversation()))).returncode == 0
    refused = run(_job(tmp_path, b"x" * 100))
    assert refused.returncode == 65
    assert "not-a-capture" in refused.stderr
    assert run(tmp_path).returncode == 1


def _service(spool: Path) -> tuple[worker.Service, threading.Thread]:
    service = worker.Service(spool, Bounds(), Retention())
    thread = threading.Thread(target=service.run)
    thread.start()
    return service, thread


def _wait(spool: Path, count: int) -> list[job.State]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        states = job.listing(spool)
        if sum(state.status in job.FINISHED for state in states) >= count:
            return states
        time.sleep(0.05)
    pytest.fail(f"still waiting: {[(state.id, state.status) for state in job.listing(spool)]}")


def test_the_service_works_in_order_and_beats(tmp_path: Path) -> None:
    """The oldest job first; a crashed one is taken up again; a cancelled one is closed without being run."""
    now = time.time()
    second = _job(tmp_path, pcap(conversation()), at=now + 1)
    first = _job(tmp_path, pcap(conversation()), at=now)
    third = _job(tmp_path, pcap([udp((CLIENT, 1), (SERVER, 2))]), at=now + 2)
    job.request_cancel(third)
    crashed = job.load(first)
    assert crashed is not None
    job.save(first, dataclasses.replace(crashed, status="processing", attempts=1))
    service, thread = _service(tmp_path)
    try:
        states = {state.id: state for state in _wait(tmp_path, 3)}
    finally:
        service.stop()
        thread.join()
        service.close()
    assert states[first.name].status == states[second.name].status == "completed"
    assert states[first.name].attempts == 2
    assert states[third.name].status == "cancelled"
    a, b = states[first.name].finished_unix, states[second.name].finished_unix
    assert a is not None
    assert b is not None
    assert a < b
    assert json.loads((tmp_path / worker.BEAT).read_text())["stopping"] is True


def test_a_waiting_job_is_cancelled_while_another_runs(tmp_path: Path) -> None:
    """Nobody waits half an hour to be told."""
    running = _job(tmp_path, _long_capture(tmp_path), at=time.time() - 1)
    waiting = _job(tmp_path, pcap(conversation()))
    service, thread = _service(tmp_path)
    try:
        while job.read_progress(running).phase != "reading":
            time.sleep(0.02)
        job.request_cancel(waiting)
        asked = time.monotonic()
        while (state := job.load(waiting)) is not None and state.status == "pending":
            assert time.monotonic() - asked < 3
            time.sleep(0.05)
        during = job.load(running)
        assert state is not None
        assert during is not None
        assert (state.status, during.status) == ("cancelled", "processing")
    finally:
        service.stop()
        thread.join()
        service.close()


def test_a_service_that_is_stopped_gives_its_job_back(tmp_path: Path) -> None:
    """SIGTERM ends it soon; the job waits again as if it had not begun."""
    directory = _job(tmp_path, _long_capture(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.analysis.worker", "--spool", str(tmp_path)],
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while job.read_progress(directory).phase != "reading" and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
    state = job.load(directory)
    assert state is not None
    assert (state.status, state.attempts) == ("pending", 0)


def test_a_service_without_a_spool_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not make one in the wrong place."""
    assert worker.main(["--spool", str(tmp_path / "missing")]) == 1
    assert "--spool" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
