"""Captures benchmark: uploads, memory, latency of live progress, and what the web adds to an analysis.

    python -m tests.bench.web_captures [--rounds 3] [--large-mb 1000] [--only upload,memory,latency,overhead]

The web process and the worker are those of the tests, on loopback with TLS, each in a process of its own. Wall time is
what a user waits; processor time says what it cost where other programs share the machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.analysis import job
from gateway.analysis.job import Progress
from tests.bench.analysis import small
from tests.webui.admin.capture_admin import TOKEN, Web, running_web, running_worker, trusting

_PIECE: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_EVENTS: Final = 60

Row = tuple[str, str, str, bool]  # what, measured, floor, held


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICKS


def send_file(web: Web, path: Path) -> str:
    """Upload a file as a program would, a megabyte at a time; returns the job's id."""
    size = path.stat().st_size
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\nX-Filename: {path.name}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.port)) as raw, trusting().wrap_socket(raw) as secured:
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


def upload(folder: Path, rounds: int) -> list[Row]:
    """100 MB on loopback: seconds until the job is accepted and its bytes are on the disk."""
    path = folder / "100.pcap"
    write_capture(path, 100)
    spool = _spool(folder, "upload")
    taken, spent = [], []
    with running_web(spool) as web:
        for _ in range(rounds):
            before, began = cpu_s(web.process.pid), time.monotonic()
            task = send_file(web, path)
            taken.append(time.monotonic() - began)
            spent.append(cpu_s(web.process.pid) - before)
            assert web.ask("DELETE", f"/reports/{task}")[0] == 204
    best = min(taken)
    return [
        ("upload of 100 MB", f"{best:.2f} s", "< 2 s", best < 2),
        ("processor time of the web process for it", f"{min(spent):.2f} s", "", True),
    ]


def memory(folder: Path, megabytes: int) -> list[Row]:
    """What a large upload adds to the web process, and what it has at rest."""
    path = folder / "large.pcap"
    write_capture(path, megabytes)
    spool = _spool(folder, "memory")
    with running_worker(spool, "--quota-mb", str(4 * megabytes)):
        time.sleep(1)  # says how much it keeps; nothing is analysed here
    with running_web(spool, limit_mb=2 * megabytes) as web:
        web.ask("GET", "/queue/status")
        rest = web.resident_kb()
        send_file(web, path)
        grown = web.resident_kb("VmHWM") - rest
    path.unlink()
    return [
        ("memory of the web process at rest", f"{rest / 1000:.1f} MB", "< 40 MB", rest < 40_000),
        (f"added by an upload of {megabytes} MB", f"{grown / 1000:.1f} MB", "< 10 MB", grown < 10_000),
    ]


def latency(folder: Path) -> list[Row]:
    """From the write of a progress file to the event at a client, 95 of 100."""
    spool = _spool(folder, "latency")
    directory = job.create(spool, "a.pcap", owner="ada", now_unix=time.time())
    (directory / job.CAPTURE).write_bytes(bytes(1000))
    job.save(directory, replace(job.submit(directory), status="processing"))
    job.write_progress(directory, Progress(1, "reading", 1, 1000))
    delays: list[float] = []
    with running_web(spool) as web:
        connection = web.connect()
        began = time.monotonic()
        connection.request("GET", f"/api/v1/progress/{directory.name}", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        first_s = None
        written: dict[int, float] = {}

        def write() -> None:
            for number in range(2, 2 + _EVENTS):
                time.sleep(0.26 + number % 7 * 0.01)  # the worker writes four times a second at most
                written[number] = time.monotonic()
                job.write_progress(directory, Progress(number, "reading", number, 1000))

        writer = threading.Thread(target=write)
        while len(delays) < _EVENTS:
            line = answer.readline()
            now = time.monotonic()
            if line.startswith(b"id: "):
                number = int(line[4:])
                if first_s is None:
                    first_s = now - began
                    writer.start()
                elif number in written:
                    delays.append(now - written[number])
        writer.join()
        connection.close()
    p95 = statistics.quantiles(delays, n=20)[18]
    assert first_s is not None
    return [
        (
            "live progress, median and 95 of 100",
            f"{statistics.median(delays) * 1e3:.0f}, {p95 * 1e3:.0f} ms",
            "< 200 ms",
            p95 < 0.2,
        ),
        ("first event after connecting", f"{first_s * 1e3:.0f} ms", "< 100 ms", first_s < 0.1),
    ]


def overhead(folder: Path, rounds: int) -> list[Row]:
    """An analysis by the web against the same by the command, with report and page: processor time and wall time."""
    path = folder / "small.pcap"
    small(path)
    command_cpu, command_wall, web_cpu, web_wall = [], [], [], []
    command = [sys.executable, "-m", "gateway.cli", "analyze", str(path), "--quiet"]
    command += ["--json", str(folder / "r.json"), "--html", str(folder / "r.html")]
    spool = _spool(folder, "overhead")
    with running_worker(spool) as worker, running_web(spool) as web:
        for _ in range(rounds):
            before, began = os.times(), time.monotonic()
            subprocess.run(command, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
            command_wall.append(time.monotonic() - began)
            after = os.times()
            command_cpu.append(
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            pids = (web.process.pid, worker.pid)
            spent, began = sum(map(cpu_s, pids)), time.monotonic()
            task = send_file(web, path)
            connection = web.connect()
            connection.request("GET", f"/api/v1/progress/{task}", headers={"Authorization": f"Bearer {TOKEN}"})
            assert b"event: done" in connection.getresponse().read()
            web_wall.append(time.monotonic() - began)
            web_cpu.append(sum(map(cpu_s, pids)) - spent)
            connection.close()
            assert web.ask("DELETE", f"/reports/{task}")[0] == 204
    size = path.stat().st_size / 1e6
    more = min(web_wall) - min(command_wall)
    more_cpu = min(web_cpu) - min(command_cpu)
    return [
        (
            f"analysis of {size:.0f} MB by the command",
            f"{min(command_wall):.2f} s, {min(command_cpu):.2f} s of processor",
            "",
            True,
        ),
        (
            "by the web, upload and live progress included",
            f"{min(web_wall):.2f} s, {min(web_cpu):.2f} s of processor",
            "5 % or 0.3 s more",
            more < max(0.3, 0.05 * min(command_wall)) or more_cpu < max(0.3, 0.05 * min(command_cpu)),
        ),
    ]


def _spool(folder: Path, name: str) -> Path:
    spool = folder / f"spool-{name}"
    spool.mkdir()
    return spool


def measure(parts: Sequence[str], rounds: int, large_mb: int) -> list[Row]:
    """The rows of the chosen parts."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        folder = Path(name)
        every: dict[str, Callable[[], list[Row]]] = {
            "upload": lambda: upload(folder, rounds),
            "memory": lambda: memory(folder, large_mb),
            "latency": lambda: latency(folder),
            "overhead": lambda: overhead(folder, rounds),
        }
        for part in parts:
            rows += every[part]()
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-mb", type=int, default=1000)
    parser.add_argument("--only", default="upload,memory,latency,overhead")
    chosen = parser.parse_args(argv)
    rows = measure(chosen.only.split(","), chosen.rounds, chosen.large_mb)
    width = max(len(row[0]) for row in rows)
    for what, measured, floor, held in rows:
        print(
            f"{what:<{width}}  {measured:<36}  {floor:<18}  {'' if not floor else 'ok' if held else 'MISSED'}".rstrip()
        )
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
