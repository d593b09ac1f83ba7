"""Captures when something breaks in the middle: a full disk, a killed web process, clients that hold on.

Over TCP, with a real web process and a real worker; the disk is a small one of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.analysis import job
from tests.gateway.analysis.made_packets import conversation, pcap
from tests.webui.admin.capture_admin import TOKEN, Web, running_web, running_worker, trusting
from tests.webui.admin.test_captures import finished, jobs_in, long_capture, status_of, upload, wait_for

SMALL = pcap(conversation())
DISK_MB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the spool."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0770", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left; returns the file that does."""
    path = disk / "something-else"
    with path.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(1 << 16))
    with path.open("ab", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"x")
    return path


@contextlib.contextmanager
def begun(web: Web, data: bytes, part: int) -> Iterator[ssl.SSLSocket]:
    """An upload of `data` of which so many octets were sent."""
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nX-Filename: a.pcap\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    raw = socket.create_connection(("127.0.0.1", web.port), timeout=60)
    with trusting().wrap_socket(raw) as secured:
        secured.sendall(head.encode() + data[:part])
        wait_for(lambda: any(size_of(path) > 0 for path in jobs_in(web.spool)), "the upload has begun")
        yield secured


def size_of(directory: str | Path) -> int:
    """Octets of a capture on its way."""
    part = Path(directory) / (job.CAPTURE + ".part")
    return part.stat().st_size if part.exists() else 0


def answer_of(secured: ssl.SSLSocket) -> tuple[int, dict[str, object]]:
    """Status and JSON of the answer to an upload."""
    response = http.client.HTTPResponse(secured)
    response.begin()
    return response.status, json.loads(response.read())


@pytest.mark.root
def test_a_disk_that_fills_up_during_an_upload(disk: Path) -> None:
    """507 with a sentence and what to do; nothing is left, and with room again all goes on."""
    data = long_capture(80_000)
    with running_web(disk) as web:
        with begun(web, data, len(data) // 2) as secured:
            filler = fill(disk)
            secured.sendall(data[len(data) // 2 :])
            status, problem = answer_of(secured)
        assert (status, problem["code"]) == (507, "disk-full")
        assert "Delete captures" in str(problem["detail"])
        wait_for(lambda: not jobs_in(disk), "nothing is left")
        filler.unlink()  # the half file is gone: fill its place, too
        filler = fill(disk)
        code, _, refused = upload(web, SMALL)
        assert (code, refused["code"]) == (507, "disk-full")
        health = json.loads(web.ask("GET", "/health", token="")[2])["captures"]
        assert health["status"] == "failing"
        filler.unlink()
        assert upload(web, SMALL)[0] == 202


@pytest.mark.root
def test_a_disk_that_fills_up_during_an_analysis(disk: Path) -> None:
    """The worker lives; the job ends with a report, or with a sentence about room; the next one is analysed."""
    with running_worker(disk) as worker, running_web(disk) as web:
        task = upload(web, long_capture(100_000))[2]["task_id"]
        wait_for(lambda: status_of(web, task)["phase"] == "reading", "the analysis runs")
        filler = fill(disk)
        waiting = upload_despite(web, disk)
        wait_for(lambda: is_at_rest(worker, disk, task), "the analysis has ended, or waits for room")
        assert worker.poll() is None
        filler.unlink()
        state = finished(web, task)
        assert state["status"] == "completed" or state["error"]["error"] == "disk-full", state
        assert worker.poll() is None
        assert finished(web, waiting or upload(web, SMALL)[2]["task_id"])["status"] == "completed"


def upload_despite(web: Web, disk: Path) -> str:
    """Try to upload to a full disk; empty when that is refused, as it should be."""
    code, _, answer = upload(web, SMALL)
    assert code in (202, 507), answer
    return str(answer.get("task_id", ""))


def is_at_rest(worker: subprocess.Popen[bytes], spool: Path, task: str) -> bool:
    """Whether nothing is being analysed: the job has ended, or the worker has no child any more."""
    state = job.load(spool / task)
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(encoding="ascii").split()
    return (state is not None and state.status in job.FINISHED) or not children


def test_a_killed_web_process_leaves_an_upload_to_the_sweep(tmp_path: Path) -> None:
    """Its place is free at once; the half file goes when nothing was written to it for a while."""
    spool = tmp_path / "spool"
    spool.mkdir()
    data = long_capture(20_000)
    with running_web(spool) as web, begun(web, data, len(data) // 2):
        os.kill(web.process.pid, signal.SIGKILL)
        web.process.wait()
    (left,) = spool.iterdir()
    assert not (left / job.STATE).exists()
    with running_web(spool) as web:
        queue = json.loads(web.ask("GET", "/queue/status")[2])
        assert (queue["uploading"], queue["waiting"]) == (0, 0)
        with running_worker(spool):
            done = finished(web, upload(web, SMALL)[2]["task_id"])
            assert done["status"] == "completed"
        assert left.exists(), "it might still be written to"
        for path in left.iterdir():
            os.utime(path, (1.0, 1.0))
        with running_worker(spool):
            wait_for(lambda: not left.exists(), "the sweep removes it")


def test_those_who_hold_on_and_say_nothing_shut_out_nobody_else(tmp_path: Path) -> None:
    """Half handshakes, half requests and streams that nobody reads, all from one address; another one is served."""
    spool = tmp_path / "spool"
    spool.mkdir()
    with running_web(spool) as web, contextlib.ExitStack() as stack:

        def hold(source: str) -> socket.socket:
            found = socket.create_connection(("127.0.0.1", web.port), timeout=20, source_address=(source, 0))
            return stack.enter_context(found)

        def hold_secured(source: str, first: bytes) -> None:
            with contextlib.suppress(OSError):  # refused: more than one address may have
                secured = stack.enter_context(trusting().wrap_socket(hold(source)))
                secured.sendall(first)

        stream = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        for _ in range(30):
            hold_secured("127.0.0.6", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        for _ in range(30):
            hold_secured("127.0.0.7", stream.encode())
        for _ in range(150):
            hold("127.0.0.8").sendall(b"\x16\x03\x01")
        for _ in range(3):
            status, _, _ = web.ask("GET", "/queue/status")
            assert status == 200
        assert upload(web, SMALL)[0] == 202
        assert web.resident_kb() < 120_000
