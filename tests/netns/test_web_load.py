"""Operators load the web interface with all they have; guests who log in meanwhile hardly notice.

The whole gateway with FreeRADIUS and a crowd of guests, the administration, the worker: real processes, each with the
priority of its service. What loads the administration here runs with a low one, for it shares the machine.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.analysis import job
from tests.bench.crowd import address_of
from tests.bench.logins import PORTAL, Kind
from tests.bench.stage import LoginRun, Meter, Stage
from tests.browser.administration import PASSWORD, Administration
from tests.gateway.analysis.made_packets import conversation, pcap
from tests.netns.captures import Captures
from tests.netns.harness import wait_for
from tests.webui.admin import queue_users
from tests.webui.admin.capture_admin import trusting
from tests.webui.admin.operators import Answer, Operator
from tests.webui.admin.test_captures import long_capture

pytestmark = [pytest.mark.root, pytest.mark.slow]

MEMBERS = 400
STREAMS = 50
DEAF = 10  # of these do not read what they asked for
UPLOADS = 10
HOLDERS, HELD_EACH = 80, 30  # devices that hold connections, and how many each
USERS = 20
QUEUE_S = 20.0
_LOWEST = 15
_QUIET = 0.7  # idle share of the processors while we do nothing
_SMALL_MS = 200  # a login that takes less is a good one, whatever it took before


@dataclass
class Web:
    """Everything that runs, and operators with a token each."""

    stage: Stage
    captures: Captures
    administration: Administration
    operators: list[Operator]

    @property
    def pid(self) -> int:
        """The administration's process id."""
        assert self.administration.process is not None
        return self.administration.process.pid

    def resident_mb(self) -> float:
        """Memory of the administration's process."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError("VmRSS")

    def state_of(self, task: str) -> job.State | None:
        """Where a job stands."""
        return job.load(self.captures.spool / task)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """Made once; nobody is online and nothing waits when a test begins."""
    with (
        Stage(MEMBERS) as stage,
        Captures(stage.hotspot) as captures,
        Administration(stage.hotspot, options=("--spool", str(captures.spool))) as administration,
    ):
        operators = []
        for number in range(USERS):
            name = f"person{number}"
            stage.hotspot.call("accounts.add", name=name, password=PASSWORD, role="operator")
            operator = Operator(administration.port, source=f"127.0.1.{number + 1}")
            operator.log_in(name, PASSWORD)
            operator.make_token("read", "captures")
            operators.append(operator)
        yield Web(stage, captures, administration, operators)


@pytest.fixture(autouse=True)
def empty_queue(web: Web) -> Iterator[None]:
    """Every capture is removed after a test."""
    yield
    for directory in web.captures.spool.iterdir():
        if job.is_job_id(directory.name):
            job.request_cancel(directory)
    wait_for(lambda: all(s.status in job.FINISHED for s in job.listing(web.captures.spool)), timeout_s=20)
    for state in job.listing(web.captures.spool):
        job.delete(web.captures.spool / state.id)


def low() -> None:
    """Give way to what is measured; a thread has a priority of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)


def idle_share() -> float:
    """How much of the processors nobody uses while this test does nothing."""
    meter = Meter({})
    time.sleep(1.0)
    return meter.shares({}).idle / (os.cpu_count() or 1)


def logins(web: Web) -> LoginRun:
    """Half of the guests log in as fast as eight at a time can, and out again."""
    half = MEMBERS // 2
    run = web.stage.load(Kind.FORM, 8, half, half)
    assert web.stage.load(Kind.LOGOUT, 8, half, half).failed == 0
    return run


class Load:
    """Streams, of which some are never read, and uploads by ten at once, again and again."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._over = threading.Event()
        self._start = threading.Barrier(UPLOADS)
        self.tally = queue_users.Tally()
        self.first: list[int] = []  # the statuses of the first ten
        self.events = 0  # lines that were read of streams
        self.refused_streams: list[str] = []
        self._lock = threading.Lock()
        self._ready = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._follow, args=(number,)) for number in range(STREAMS)]
        self._threads += [threading.Thread(target=self._upload, args=(number,)) for number in range(UPLOADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._ready.acquire(timeout=60), "not everybody was served"
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def _follow(self, number: int) -> None:
        low()
        operator = self._web.operators[number % USERS]
        path = "/api/v1/events/stream"
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {operator.token}\r\n\r\n"
        address = ("127.0.0.1", operator.port)
        with (
            socket.create_connection(address, 30, (operator.source, 0)) as raw,
            trusting().wrap_socket(raw) as secured,
        ):
            secured.sendall(head.encode())
            if number < DEAF:
                self._ready.release()
                self._over.wait()
                return
            response = http.client.HTTPResponse(secured)
            response.begin()
            if response.status != 200:
                self.refused_streams.append(f"{response.status} {response.read()[:200]!r}")
            secured.settimeout(0.5)
            self._ready.release()
            while not self._over.is_set() and response.status == 200:
                with contextlib.suppress(TimeoutError):
                    if not secured.recv(65536):
                        self.refused_streams.append("a stream ended")
                        return
                    with self._lock:
                        self.events += 1

    def _upload(self, number: int) -> None:
        low()
        operator, data, began = self._web.operators[number], long_capture(100_000), False
        while not self._over.is_set():
            self._start.wait(60) if not began else None
            try:
                begin = time.monotonic()
                answer = operator.upload(data, f"{number}.pcap")
                self.tally.note("upload", answer, time.monotonic() - begin, 202)
                if not began:
                    self.first.append(answer.status)
            except (OSError, http.client.HTTPException) as err:
                self.tally.broken("upload", err)
            if not began:
                began = True
                self._ready.release()
            self._over.wait(1.0)


def test_guests_log_in_while_operators_load_the_administration(web: Web) -> None:
    """Fifty streams, ten uploads at once: no login fails, and their 95th percentile is at most three times as long.

    Times are compared only where nothing else has the processors.
    """
    logins(web)  # warm
    idle = idle_share()
    quiet = [logins(web)]
    with Load(web) as load:
        loaded = logins(web)
        assert load.refused_streams == []
        assert load.events > 0
    quiet.append(logins(web))
    assert load.tally.wrong == []
    assert sorted(set(load.first)) == [202, 503], load.first
    assert loaded.failed == 0, loaded.outcome.failures
    p95 = loaded.quantile_s(0.95)
    before = max(run.quantile_s(0.95) for run in quiet)
    said = f"{p95 * 1e3:.0f} ms, without load {before * 1e3:.0f} ms"
    assert idle < _QUIET or p95 < max(3 * before, _SMALL_MS / 1000), said


def test_guests_log_in_while_others_hold_connections(web: Web) -> None:
    """More half requests than the portal keeps connections, from many devices: no login of the others fails."""
    with contextlib.ExitStack() as stack, web.stage.lab.inside(web.stage.guest.netns):
        for number in range(HOLDERS * HELD_EACH):
            source = address_of(number % HOLDERS)
            with contextlib.suppress(OSError):  # refused: more than one address may have
                sock = stack.enter_context(socket.create_connection(PORTAL, 5, (source, 0)))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        run = logins(web)
    assert run.failed == 0, run.outcome.failures


def test_twenty_users_at_a_full_queue(web: Web) -> None:
    """Nothing ends in 5xx but the refusal by the book; memory stays; the queue works afterwards."""
    small, long = pcap(conversation()), long_capture(150_000)
    sizes = []
    for _ in range(2):
        tally = queue_users.run(web.operators, [long, small], QUEUE_S / 2)
        sizes.append(web.resident_mb())
        assert tally.wrong == []
        assert tally.count("upload", 202) > 0
        assert tally.count("upload", 503) > 0
    assert sizes[1] - sizes[0] < 16, sizes
    for state in job.listing(web.captures.spool):
        assert web.operators[0].ask("GET", f"/api/v1/status/{state.id}").status in (200, 404)
        job.request_cancel(web.captures.spool / state.id)

    answers: list[Answer] = []

    def taken() -> bool:
        answers.append(web.operators[3].upload(small))
        return answers[-1].status == 202

    assert wait_for(taken, timeout_s=60, every_s=3.0), answers
    task = str(answers[-1].json()["task_id"])
    assert wait_for(lambda: (web.state_of(task) or job.State("", "")).status == "completed", timeout_s=60)


def test_an_upload_outlives_the_daemon(web: Web) -> None:
    """posternd is killed in the middle of an upload: the capture is taken and analysed, its owner finds it again."""
    operator, data = web.operators[5], long_capture(20_000)
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {operator.token}\r\nX-Filename: a.pcap\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", operator.port), 30) as raw,
        trusting().wrap_socket(raw) as secured,
    ):
        secured.sendall(head.encode() + data[: len(data) // 2])
        assert wait_for(lambda: any(job.is_job_id(path.name) for path in web.captures.spool.iterdir()))
        web.stage.hotspot.stop_daemon(signal.SIGKILL)
        try:
            refused = operator.ask("GET", "/api/v1/queue/status")
            assert (refused.status, refused.headers["content-type"]) == (503, queue_users.PROBLEM)
            secured.sendall(data[len(data) // 2 :])
            answer = http.client.HTTPResponse(secured)
            answer.begin()
            assert answer.status == 202
        finally:
            web.stage.hotspot.start_daemon()
    (state,) = job.listing(web.captures.spool)
    assert wait_for(lambda: (web.state_of(state.id) or state).status == "completed", timeout_s=60)
    assert wait_for(lambda: operator.ask("GET", f"/api/v1/status/{state.id}").status == 200, timeout_s=20)
