"""Running one job: a confined child analyses, this process watches it and keeps the job directory.

The child can do nothing but compute, so everything it finds comes through a pipe and is written here, each file
replaced by rename. The supervisor holds the wall-clock limit, asks several times a second whether somebody cancelled,
and turns every way in which a child can end into a state with a sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.analysis import job
from gateway.analysis.job import Failure, Progress, State

LOOK_EVERY_S: Final = 0.2
LONGEST_MESSAGE: Final = 64 << 20
STDERR_KEPT: Final = 4096
_PIPE_BYTES: Final = 1 << 20  # a report of usual size in one piece: each one more wakes both sides


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one job."""

    memory_bytes: int = 256 << 20
    cpu_s: int = 30 * 60
    wall_s: float = 30 * 60
    grace_s: float = 15.0  # after the wall limit, for the report of what was read


@dataclass(slots=True)
class _Received:
    """What the child has said so far."""

    progress: Progress
    sandbox: tuple[str, ...] = ()
    figures: dict[str, Any] | None = None  # Any: a JSON object; what the row of the job tells of its report
    failure: Failure | None = None
    done: bool = False
    partial: bool = False
    errors: bytes = b""
    buffer: bytearray = field(default_factory=bytearray)
    head: tuple[str, int] | None = None  # of the message whose body is coming: its kind and its size


def run_job(
    directory: Path,
    bounds: Bounds,
    *,
    stopping: Callable[[], bool] = lambda: False,
    beat: Callable[[], None] = lambda: None,
) -> State:
    """Run one job to its end and return its final state.

    When `stopping` says so (the service is told to end) the job goes back to the queue as if it had not begun. `beat`
    is called several times a second.
    """
    waiting = job.load(directory)
    if waiting is None:
        raise FileNotFoundError(f"{directory} is not a job: it has no {job.STATE}")
    capture = directory / job.CAPTURE
    size = capture.stat().st_size
    state = dataclasses.replace(
        waiting, status="processing", started_unix=time.time(), attempts=waiting.attempts + 1, size_bytes=size
    )
    job.save(directory, state)
    received = _Received(Progress(phase="starting", bytes_total=size))
    job.write_progress(directory, received.progress)
    began = time.monotonic()
    with capture.open("rb") as stream:
        child = _start(stream.fileno(), state, bounds, size)
    try:
        verdict = _watch(child, directory, received, began, bounds, stopping, beat)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    if verdict == "stopping":
        job.save(directory, waiting)
        return waiting
    state = dataclasses.replace(_conclude(state, verdict, received, child.returncode), finished_unix=time.time())
    job.save(directory, state)
    _last_progress(directory, received, state)
    return state


def _start(capture: int, state: State, bounds: Bounds, size: int) -> subprocess.Popen[bytes]:
    order = {
        "name": state.name,
        "settings": state.settings,
        "size_bytes": size,
        "limits": {"memory_bytes": bounds.memory_bytes, "cpu_s": bounds.cpu_s, "file_bytes": 0},
    }
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if sys.pycache_prefix is not None:  # where compiled modules are; to compile them anew costs more than a short job
        environment["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    return subprocess.Popen(
        # Without `site`: what is installed beside us is not needed, and to look for it takes as long as a small file.
        [sys.executable, "-S", "-m", "gateway.analysis.child", json.dumps(order)],
        stdin=capture,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def _watch(
    child: subprocess.Popen[bytes],
    directory: Path,
    received: _Received,
    began: float,
    bounds: Bounds,
    stopping: Callable[[], bool],
    beat: Callable[[], None],
) -> str:
    """Read messages until the child has ended; returns `ended`, `cancelled`, `timeout` or `stopping`."""
    assert child.stdout is not None
    assert child.stderr is not None
    out, errors = child.stdout.fileno(), child.stderr.fileno()
    poller = select.poll()
    with contextlib.suppress(OSError):  # more than this system allows: then it is the usual size
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    for descriptor in (out, errors):
        os.set_blocking(descriptor, False)
        poller.register(descriptor, select.POLLIN)
    open_pipes = {out, errors}
    looked, overdue = 0.0, False
    while open_pipes:
        for descriptor, _ in poller.poll(LOOK_EVERY_S * 1000):
            piece = os.read(descriptor, _PIPE_BYTES)
            if not piece:
                poller.unregister(descriptor)
                open_pipes.discard(descriptor)
            elif descriptor == out:
                received.buffer += piece
                _take_messages(directory, received)
            else:
                received.errors = (received.errors + piece)[-STDERR_KEPT:]
        now = time.monotonic()
        if now - looked < LOOK_EVERY_S:
            continue
        looked = now
        beat()
        if stopping():
            child.terminate()
            return "stopping"
        if job.cancel_requested(directory):
            child.terminate()
            return "cancelled"
        # Before its first message the child would die of the signal instead of finishing.
        if now - began > bounds.wall_s and not overdue and received.sandbox:
            overdue = True
            child.send_signal(signal.SIGUSR1)
        if now - began > bounds.wall_s + bounds.grace_s:
            child.kill()
            return "timeout"
    try:
        child.wait(timeout=bounds.grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
    return "timeout" if overdue else "ended"


def _take_messages(directory: Path, received: _Received) -> None:
    """Act on every whole message in the buffer."""
    while True:
        if received.head is None:
            line_end = received.buffer.find(b"\n")
            if line_end < 0:
                return
            head = json.loads(received.buffer[:line_end])
            received.head = str(head["kind"]), min(int(head["bytes"]), LONGEST_MESSAGE)
            del received.buffer[: line_end + 1]
        kind, size = received.head
        if len(received.buffer) < size:
            return
        body, received.buffer = received.buffer[:size], received.buffer[size:]
        received.head = None
        try:
            _act(directory, received, kind, body)
        except OSError as err:
            if not job.is_full(err):
                raise
            received.failure = job.no_room(directory)


def _act(directory: Path, received: _Received, kind: str, body: bytearray) -> None:
    if kind == "progress":
        _note_progress(directory, received, json.loads(body))
    elif kind == "sandbox":
        received.sandbox = tuple(
            f"{layer['name']}: {'on' if layer['active'] else 'off'} {layer['detail']}".rstrip()
            for layer in json.loads(body)
        )
    elif kind == "report":
        job.store_file(directory, job.REPORT, body)  # as it came: reading it here would take as much memory as there
    elif kind == "figures":
        received.figures = json.loads(body)
    elif kind == "html":
        job.store_file(directory, job.REPORT_HTML, body)
    elif kind == "refused":
        received.failure = Failure(**json.loads(body))
    elif kind == "memory":
        received.failure = Failure(
            "memory",
            "The analysis needed more memory than it may have.",
            hint="Raise the memory limit of the analysis, or cut the capture into smaller files.",
        )
    elif kind == "done":
        received.done, received.partial = True, json.loads(body)["partial"]


def _note_progress(directory: Path, received: _Received, told: dict[str, Any]) -> None:  # Any: a JSON object
    before = received.progress
    now = time.time()
    total = told["bytes_total"] or before.bytes_total
    packets = max(told["packets"], before.packets_processed)
    rate = before.packets_per_s
    if packets > before.packets_processed and before.written_unix and now > before.written_unix:
        rate = (packets - before.packets_processed) / (now - before.written_unix)
    # The bytes read are 95 of 100: detectors and pictures come behind them, and nothing may go back.
    percent = min(95.0, 95.0 * told["bytes_processed"] / total) if total else 0.0
    received.progress = Progress(
        id=before.id + 1,
        phase=told["phase"],
        bytes_processed=max(told["bytes_processed"], before.bytes_processed),
        bytes_total=total,
        packets_processed=packets,
        packets_per_s=round(rate, 1),
        findings=max(told["findings"], before.findings),
        percent=round(max(percent, before.percent), 1),
        written_unix=now,
    )
    job.write_progress(directory, received.progress)


def _last_progress(directory: Path, received: _Received, state: State) -> None:
    finished = dataclasses.replace(
        received.progress, id=received.progress.id + 1, phase=state.status, findings=state.findings
    )
    if state.status == "completed":
        finished = dataclasses.replace(
            finished, percent=100.0, bytes_processed=state.size_bytes, packets_processed=state.packets
        )
    job.write_progress(directory, dataclasses.replace(finished, written_unix=time.time()))


def _conclude(state: State, verdict: str, received: _Received, returncode: int) -> State:
    state = dataclasses.replace(state, sandbox=received.sandbox)
    if verdict == "cancelled":
        cancelled = Failure("cancelled", "The analysis was cancelled.")
        return dataclasses.replace(state, status="cancelled", error=cancelled)
    figures = received.figures
    if figures is not None:
        state = dataclasses.replace(
            state, packets=figures["packets"], health_score=figures["health_score"], findings=figures["findings"]
        )
    if received.done and not received.partial and received.failure is None:
        return dataclasses.replace(state, status="completed")
    failure = received.failure
    if failure is None and (verdict == "timeout" or received.partial or returncode == -signal.SIGXCPU):
        failure = Failure(
            "timeout",
            "The analysis took longer than it may."
            + (" The report covers what was read until then." if figures is not None else ""),
            hint="Raise the time limit of the analysis, or cut the capture into smaller files.",
        )
    if failure is None:
        failure = _lost(returncode, received.errors)
    return dataclasses.replace(state, status="failed", error=failure, partial=figures is not None)


def _lost(returncode: int, errors: bytes) -> Failure:
    last = errors.decode("utf-8", "replace").strip().splitlines()[-1:]
    detail = last[0] if last else ""
    if "MemoryError" in detail:
        return Failure(
            "memory",
            "The analysis needed more memory than it may have.",
            hint="Raise the memory limit of the analysis, or cut the capture into smaller files.",
        )
    how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
    return Failure("worker-lost", f"The analysis process ended before its report was done ({how}).", detail=detail)
