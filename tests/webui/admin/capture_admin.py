"""The administration with a spool, in a process of its own: what captures are tested with over TCP.

    python -m tests.webui.admin.capture_admin --spool DIR --port N

prints `ready` when it listens on https://127.0.0.1:N/. The tokens TOKEN (scope captures) and the sessions `ada`, `otto`
and `vera` are there from the start.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from gateway.analysis import job
from tests.webui.admin.fake_admin import FakeAdmin
from tests.webui.admin.fake_world import World
from tests.webui.fake_daemon import eventually, free_port
from webui.admin.daemon import AdminDaemon, JsonValue, Params
from webui.admin.service import AdminService, Options, Place
from webui.parsing import DEFAULT_PARSER

PROJECT = Path(__file__).resolve().parents[3]
TOKEN = "token-of-the-tests"
WAIT_S = 30.0


@dataclass
class Web:
    """A running administration, from outside."""

    port: int
    spool: Path
    process: subprocess.Popen[str]

    def connect(self, timeout_s: float = WAIT_S) -> http.client.HTTPSConnection:
        """A connection."""
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=trusting())

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, token: str = TOKEN
    ) -> tuple[int, dict[str, str], bytes]:
        """One request with the token; status, headers in lower case, body."""
        connection = self.connect()
        try:
            given = {"Authorization": f"Bearer {token}", **(headers or {})}
            connection.request(method, f"/api/v1{path}", body, given)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def page(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """A page as `ada` sees it."""
        connection = self.connect()
        try:
            given = {
                "Cookie": "__Host-postern=ada",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            }
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, answer.read().decode()
        finally:
            connection.close()

    def resident_kb(self, name: str = "VmRSS") -> int:
        """Memory of the process; `VmHWM` is the most that it ever had."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise AssertionError(name)


def trusting() -> ssl.SSLContext:
    """A client that takes the certificate which the administration made."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def running_web(spool: Path, *, limit_mb: int = 500, port: int = 0) -> Iterator[Web]:
    """The administration; ended and waited for at the end."""
    port = port or free_port()
    command = [sys.executable, "-m", "tests.webui.admin.capture_admin", "--spool", str(spool), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--capture-limit-mb", str(limit_mb)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Web(port, spool, process)
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def running_worker(spool: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The analysis worker of a spool."""
    command = [sys.executable, "-m", "gateway.analysis.worker", "--spool", str(spool), *arguments]
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_S
        while not (spool / job.WAKE).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process of ours."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class _CaptureWorld(World):
    """A gateway that can record, in words."""

    def captures_interfaces(self, params: Params, who: str) -> JsonValue:
        return {
            "rows": [
                {"name": "br-guest", "kind": "zone", "zone": "guests"},
                {"name": "eth0", "kind": "uplink", "zone": None},
                {"name": "lo", "kind": "other", "zone": None},
            ]
        }

    def captures_recordings(self, params: Params, who: str) -> JsonValue:
        return {"rows": []}

    def captures_record(self, params: Params, who: str) -> JsonValue:
        return {"id": "x", "interface": params.get("interface") or "br-guest", "status": "recording"}


async def _serve(port: int, spool: Path, folder: Path, limit_mb: int) -> None:
    fake = FakeAdmin()
    fake.tokens[TOKEN] = ("ada", ("read", "captures"))
    fake.sessions.update({name: name for name in fake.accounts})
    fake.world = _CaptureWorld()
    options = Options((Place("127.0.0.1", port),), folder, spool=spool, capture_limit_bytes=limit_mb << 20)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as group:
        service = AdminService(AdminDaemon(fake), options, DEFAULT_PARSER, group, time.monotonic, time.time)
        service.start()
        await eventually(lambda: service.places, "the administration listens")
        print("ready", flush=True)
        await stop.wait()
        await service.stop(1.0)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--capture-limit-mb", type=int, default=500)
    chosen = parser.parse_args()
    os.umask(0o077)  # a strict one, as services have it
    with (
        tempfile.TemporaryDirectory(prefix="postern-admin-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(chosen.port, chosen.spool, Path(folder), chosen.capture_limit_mb))


if __name__ == "__main__":
    main()
