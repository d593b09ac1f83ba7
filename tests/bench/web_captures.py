"""Captures: uploads, memory, latency of live progress, and what the web adds to an analysis.

Wall time is what a user waits; processor time says what it cost where other programs share the machine.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.analysis import job
from gateway.analysis.job import Progress
from tests.bench.analysis import big, small
from tests.bench.rows import Row, most
from tests.bench.web_stage import WebStage, reset_peak, resident_mb
from tests.netns.harness import PROJECT
from tests.webui.admin.capture_admin import trusting
from tests.webui.admin.operators import Operator

_PIECE: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_EVENTS: Final = 60


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICKS


def send_file(operator: Operator, path: Path) -> str:
    """Upload a file as a program would, a megabyte at a time; returns the job's id."""
    size = path.stat().st_size
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {operator.token}\r\n"
        f"X-Filename: {path.name}\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", operator.port)) as raw, trusting().wrap_socket(raw) as secured:
        secured.sendall(head.encode())
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                secured.sendall(piece)
        answer = http.client.HTTPResponse(secured)
        answer.begin()
        body = answer.read()
        assert answer.status == 202, (answer.status, body)
        return str(json.loads(body)["task_id"])


def write_capture(path: Path, megabytes: int) -> None:
    """A valid capture of about so many megabytes: a small one whose records are repeated."""
    once = path.with_suffix(".once")
    small(once)
    data = once.read_bytes()
    with path.open("wb") as out:
        out.write(data[:24])
        while out.tell() < megabytes * 1_000_000:
            out.write(data[24 : 24 + megabytes * 1_000_000 - out.tell()])
    once.unlink()


def remove(operator: Operator, task: str) -> None:
    """Delete a job, running or not."""
    answer = operator.ask("DELETE", f"/api/v1/reports/{task}")
    assert answer.status == 204, (answer.status, answer.body)


def upload(stage: WebStage, folder: Path, rounds: int) -> list[Row]:
    """100 MB on loopback: seconds until the job is accepted and its bytes are on the disk."""
    path = folder / "100.pcap"
    write_capture(path, 100)
    taken, spent = [], []
    stage.captures.stop()  # what is uploaded waits
    try:
        for _ in range(rounds):
            before, began = cpu_s(stage.admin_pid), time.monotonic()
            task = send_file(stage.operator, path)
            taken.append(time.monotonic() - began)
            spent.append(cpu_s(stage.admin_pid) - before)
            remove(stage.operator, task)
    finally:
        stage.captures.start()
        path.unlink()
    return [
        most("upload of 100 MB over TLS on loopback", min(taken), 2, "s", digits=2),
        Row("  processor time of the web process for it", f"{min(spent):.2f} s"),
    ]


def _at_rest(stage: WebStage) -> list[Row]:
    """Memory of each web process while nobody asks for anything; each has served a page before."""
    stage.operator.ask("GET", "/api/v1/queue/status")
    time.sleep(2.0)
    return [
        most("memory of postern-web, portal, at rest", resident_mb(stage.portal_pid), 40, "MB"),
        most("memory of postern-web, admin, at rest", resident_mb(stage.admin_pid), 40, "MB"),
    ]


def memory(stage: WebStage, folder: Path, megabytes: int) -> list[Row]:
    """What the web processes have at rest, and what a large upload adds."""
    rows = _at_rest(stage)
    path = folder / "large.pcap"
    write_capture(path, megabytes)
    stage.captures.stop()
    try:
        time.sleep(1.0)
        rest = resident_mb(stage.admin_pid)
        reset_peak(stage.admin_pid)
        task = send_file(stage.operator, path)
        grown = resident_mb(stage.admin_pid, "VmHWM") - rest
        remove(stage.operator, task)
    finally:
        stage.captures.start()
        path.unlink()
    return [*rows, most(f"  added to it by an upload of {megabytes} MB", grown, 10, "MB")]


def latency(stage: WebStage) -> list[Row]:
    """From the write of a progress file to the event at a client, 95 of 100."""
    stage.captures.stop()
    spool = stage.captures.spool
    directory = job.create(spool, "a.pcap", owner="ada", now_unix=time.time())  # of the spool's group, as it is
    try:
        (directory / job.CAPTURE).write_bytes(bytes(1000))
        job.save(directory, replace(job.submit(directory), status="processing"))
        job.write_progress(directory, Progress(1, "reading", 1, 1000))
        return _latency(stage.operator, directory)
    finally:
        job.delete(directory)
        stage.captures.start()


def _latency(operator: Operator, directory: Path) -> list[Row]:
    connection = operator.connect()
    began = time.monotonic()
    connection.request("GET", f"/api/v1/progress/{directory.name}", headers=operator.headers())
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    first_s = None
    written: dict[int, float] = {}
    seen: dict[int, float] = {}
    last = 1 + _EVENTS

    def write() -> None:
        for number in range(2, last + 1):
            time.sleep(0.26 + number % 7 * 0.01)  # the worker writes four times a second at most
            written[number] = time.monotonic()
            job.write_progress(directory, Progress(number, "reading", number, 1000))

    writer = threading.Thread(target=write, daemon=True)
    while last not in seen:
        line = answer.readline()
        now = time.monotonic()
        assert line, "the live progress ended"
        if line.startswith(b"id: "):
            number = int(line[4:])
            if first_s is None:
                first_s = now - began
                writer.start()
            # What was written before is told with it, where two writes came between two looks.
            seen.update((older, now) for older in range(2, number + 1) if older not in seen)
    delays = [seen[number] - written[number] for number in written]
    writer.join()
    connection.close()
    assert first_s is not None
    p95 = statistics.quantiles(delays, n=20)[18] * 1e3
    shown = f"{statistics.median(delays) * 1e3:.0f} / {p95:.0f} ms"
    return [
        most("live progress, written to seen, p50 / p95", p95, 200, "ms", shown),
        Row("  first event after connecting", f"{first_s * 1e3:.0f} ms"),
    ]


def overhead(stage: WebStage, folder: Path, rounds: int, packets: int) -> list[Row]:
    """An analysis by the web against the same by the command, report and page included, on two files.

    The long one, of `packets`, is held against the floor; the short one shows what is the same for every file.
    """
    short, long = folder / "short.pcap", folder / "long.pcap"
    small(short)
    big(long, packets)
    rows = [
        *_overhead(stage, folder, short, rounds, judged=False),
        *_overhead(stage, folder, long, rounds, judged=True),
    ]
    short.unlink()
    long.unlink()
    return rows


def _overhead(stage: WebStage, folder: Path, path: Path, rounds: int, *, judged: bool) -> list[Row]:
    command = [sys.executable, "-m", "gateway.cli", "analyze", str(path), "--quiet"]
    command += ["--json", str(folder / "r.json"), "--html", str(folder / "r.html")]
    command_s, job_s, whole_s = [], [], []
    command_cpu, job_cpu = [], []
    pids = (stage.admin_pid, stage.captures.worker_pid)
    for _ in range(rounds):  # in turn, so that what else runs is the same for both
        before, began = os.times(), time.monotonic()
        subprocess.run(command, check=True, cwd=PROJECT)
        command_s.append(time.monotonic() - began)
        after = os.times()
        command_cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        began = time.monotonic()
        task = send_file(stage.operator, path)
        spent, accepted = sum(map(cpu_s, pids)), time.monotonic()
        connection = stage.operator.connect()
        connection.request("GET", f"/api/v1/progress/{task}", headers=stage.operator.headers())
        events = connection.getresponse().read()
        job_s.append(time.monotonic() - accepted)
        whole_s.append(time.monotonic() - began)
        job_cpu.append(sum(map(cpu_s, pids)) - spent)
        connection.close()
        assert b"event: done" in events, events[-1000:]
        remove(stage.operator, task)
    more, more_cpu = (100 * (min(web) / min(own) - 1) for web, own in ((job_s, command_s), (job_cpu, command_cpu)))
    shown = f"{min(job_s):.2f} s ({more:+.1f} %), {min(job_cpu):.2f} s of processor ({more_cpu:+.1f} %)"
    what = "  by the web, from accepted to done"
    return [
        Row(
            f"analysis of {path.stat().st_size / 1e6:.0f} MB by the command",
            f"{min(command_s):.2f} s, {min(command_cpu):.2f} s of processor",
        ),
        most(what, more, 5, "% more", shown) if judged else Row(what, shown),
        Row("  with its upload", f"{min(whole_s):.2f} s"),
    ]
