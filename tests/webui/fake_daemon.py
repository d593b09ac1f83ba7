"""A daemon in memory that speaks the control methods of the portal, and a portal that runs on loopback against it.

`python -m tests.webui.fake_daemon --port 3990` serves it for looking at pages and for load programs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.control.client import ControlError
from webui.parsing import DEFAULT_PARSER, PARSERS
from webui.portal.daemon import JsonValue, Params
from webui.portal.service import PortalService

PORTAL_NAME = "login.postern.lan"
STATUS_NAME = "status.postern.lan"
SECRET = "00112233445566778899aabbccddeeff"


def free_port() -> int:
    """A port of loopback that nobody used a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class FakeClient:
    """One guest as the daemon would know it."""

    ip: str
    mac: str
    state: str = "held"
    username: str = ""
    since_s: float = 0.0
    seconds_left: int | None = None
    bytes_left: int | None = None
    upload_bytes: int = 0
    download_bytes: int = 0
    reply_message: str = ""
    redirection_url: str = ""
    method: str = ""


@dataclass
class FakeDaemon:
    """Answers as the daemon does; every address of 127.0.0.0/8 holds a lease but those in `without_lease`."""

    port: int
    prefix: int = 8
    methods: list[str] = field(default_factory=lambda: ["click", "password"])
    terms: str = ""
    title: str = "Welcome"
    ssid: str = "Guest WiFi"
    redirect_url: str = ""
    language: str = ""
    uam: dict[str, JsonValue] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=lambda: {"alice": "wonderland"})
    grant: dict[str, int] = field(default_factory=dict)  # seconds_left, bytes_left of a new session
    reply_message: str = ""
    redirection_url: str = ""
    reject_message: str = ""
    without_lease: set[str] = field(default_factory=set)
    login_delay_s: float = 0.0
    login_result: str = ""  # forces a result
    login_reason: str = ""
    login_wait_s: int = 0
    theme: str = ""
    theme_files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, JsonValue] = field(default_factory=dict)
    remember: int = 0
    reachable: bool = True
    clients: dict[str, FakeClient] = field(default_factory=dict)
    calls: list[tuple[str, Params]] = field(default_factory=list)
    notices: list[tuple[str, Params]] = field(default_factory=list)
    connections: set[FakeConnection] = field(default_factory=set)

    def client(self, ip: str) -> FakeClient:
        """The guest at an address; raises ControlError when it holds no lease."""
        if ip in self.without_lease:
            raise ControlError("no_lease", f"{ip} is not an address that was given out")
        if ip not in self.clients:
            last = bytes(int(part) for part in ip.split("."))
            self.clients[ip] = FakeClient(ip, f"02:00:{last.hex(':')}")
        return self.clients[ip]

    def set_state(self, ip: str, state: str) -> None:
        """Change a session and tell the portals."""
        client = self.client(ip)
        client.state = state
        if state == "online":
            client.since_s = time.monotonic()
        for connection in self.connections:
            connection.events.put_nowait({"ip": ip, "state": state})

    def config_changed(self) -> None:
        """Tell the portals to fetch their configuration again."""
        for connection in self.connections:
            connection.events.put_nowait({"config": True})

    def stop(self) -> None:
        """Be gone, as in a restart."""
        self.reachable = False
        for connection in list(self.connections):
            connection.break_off()

    async def connect(self) -> FakeConnection:
        """What `ControlClient.connect` is to the real one."""
        if not self.reachable:
            raise ControlError("unreachable", "posternd is not running")
        connection = FakeConnection(self)
        self.connections.add(connection)
        return connection

    def config(self) -> JsonValue:
        """The answer of `portal.config`."""
        return {
            "portal_name": PORTAL_NAME,
            "status_name": STATUS_NAME,
            "uam": {"port": self.port, "rate_limit_enabled": False, "max_connections_per_client": 512, **self.uam},
            "csrf_secret": SECRET,
            "zones": [
                {
                    "name": "guests",
                    "interface": "lo",
                    "address": "127.0.0.1",
                    "prefix": self.prefix,
                    "port": self.port,
                    "methods": [*self.methods],
                    "title": self.title,
                    "terms": self.terms,
                    "ssid": self.ssid,
                    "redirect_url": self.redirect_url,
                    "language": self.language,
                    "theme": self.theme,
                    "theme_version": "1" if self.theme else "",
                    "texts": self.texts,
                    "remember": self.remember,
                }
            ],
        }

    def lookup(self, ip: str, page: str = "") -> JsonValue:
        """The answer of `client.lookup`; what a client is shown that is not online counts as a note."""
        client = self.client(ip)
        online = client.state == "online"
        if page and client.state == "held":
            self.notices.append(("client.note", {"ip": ip, "kind": "page", "text": page}))
        return {
            "zone": "guests",
            "mac": client.mac,
            "ip": ip,
            "state": client.state,
            "username": client.username,
            "session_id": "67a1b2c30000002a" if online else "",
            "online_since_s": client.since_s,
            "session_start_unix": 1767225600.0 if online else None,
            "seconds_left": client.seconds_left,
            "upload_bytes": client.upload_bytes,
            "download_bytes": client.download_bytes,
            "bytes_left": client.bytes_left,
            "reply_message": client.reply_message,
            "redirection_url": client.redirection_url,
            "upload_bps": 512_000 if client.method == "voucher" else None,
            "download_bps": 10_000_000 if client.method == "voucher" else None,
            "method": client.method,
        }

    def theme_answer(self) -> JsonValue:
        """The answer of `portal.theme`."""
        return {"files": {name: base64.b64encode(data).decode("ascii") for name, data in self.theme_files.items()}}

    async def login(self, params: Params) -> JsonValue:
        """The answer of `client.login`."""
        ip, username = str(params["ip"]), str(params["username"])
        client = self.client(ip)
        if params.get("mac", client.mac) != client.mac:
            raise ControlError("no_lease", f"{ip} is another device's now")
        await asyncio.sleep(self.login_delay_s)
        result = self.login_result
        if not result:
            good = params["method"] in ("click", "voucher") or self.users.get(username) == params["password"]
            result = "success" if good else "reject"
        if result == "success":
            client.method = str(params["method"])
            client.username = "voucher-3-17" if client.method == "voucher" else username
            client.seconds_left = self.grant.get("seconds_left")
            client.bytes_left = self.grant.get("bytes_left")
            client.reply_message = self.reply_message
            client.redirection_url = self.redirection_url
            self.set_state(ip, "online")
        return {
            "result": result,
            "message": self.reject_message if result == "reject" else "",
            "redirection_url": self.redirection_url if result == "success" else "",
            "seconds_left": client.seconds_left,
            "reason": self.login_reason,
            "wait_s": self.login_wait_s,
        }

    def logout(self, ip: str) -> JsonValue:
        """The answer of `client.logout`."""
        client = self.client(ip)
        done = client.state == "online"
        self.set_state(ip, "held")
        return {"done": done, "reason": "" if done else "not online"}

    def called(self, method: str) -> list[Params]:
        """The parameters of every call of a method."""
        return [params for name, params in self.calls if name == method]


class FakeConnection:
    """One connection of a portal; the shape of `ControlClient`."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.events: asyncio.Queue[JsonValue] = asyncio.Queue()
        self.broken = asyncio.Event()

    def __hash__(self) -> int:
        return id(self)

    def break_off(self) -> None:
        """The daemon went away."""
        self.broken.set()
        self.events.put_nowait(None)
        self.daemon.connections.discard(self)

    async def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Answer one call."""
        params = params or {}
        self.daemon.calls.append((method, params))
        work = asyncio.ensure_future(self._answer(method, params))
        broken = asyncio.ensure_future(self.broken.wait())
        try:
            done, _ = await asyncio.wait((work, broken), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            if broken in done:
                raise ControlError("unreachable", "posternd closed the connection")
            raise ControlError("timeout", "no answer")
        finally:
            work.cancel()
            broken.cancel()

    async def _answer(self, method: str, params: Params) -> JsonValue:
        if self.broken.is_set():
            raise ControlError("unreachable", "posternd closed the connection")
        match method:
            case "portal.config":
                return self.daemon.config()
            case "portal.theme":
                if not self.daemon.theme_files:
                    raise ControlError("not_found", "there is no such theme")
                return self.daemon.theme_answer()
            case "client.lookup":
                return self.daemon.lookup(str(params["ip"]), str(params.get("page", "")))
            case "client.login":
                return await self.daemon.login(params)
            case "client.logout":
                return self.daemon.logout(str(params["ip"]))
            case _:
                raise ControlError("unknown_method", method)

    def notify(self, method: str, params: Params | None = None) -> bool:
        """Keep a notice."""
        self.daemon.notices.append((method, params or {}))
        del self.daemon.notices[:-1000]
        return True

    async def subscribe(self, method: str, params: Params | None = None) -> AsyncIterator[JsonValue]:
        """All who are online, then every change."""
        assert method == "portal.events"
        yield {
            "clients": [
                {"ip": client.ip, "state": client.state}
                for client in self.daemon.clients.values()
                if client.state == "online"
            ]
        }
        while True:
            event = await self.events.get()
            if event is None:
                raise ControlError("unreachable", "posternd closed the connection")
            yield event

    async def close(self) -> None:
        """Close."""
        self.daemon.connections.discard(self)


async def eventually(condition: object, what: str = "") -> None:
    """Wait until `condition()` holds, for five seconds at most."""
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never true: {what}")


@asynccontextmanager
async def running_portal(daemon: FakeDaemon, parser: str = DEFAULT_PARSER) -> AsyncIterator[PortalService]:
    """A portal that listens on loopback at `daemon.port`."""
    async with asyncio.TaskGroup() as group:
        service = PortalService(daemon.connect, parser, group, time.monotonic)
        service.start()
        try:
            await eventually(lambda: service.places and service.daemon.available, "the portal listens")
            yield service
        finally:
            await service.stop(1.0)


async def _serve(daemon: FakeDaemon, parser: str) -> None:
    async with running_portal(daemon, parser):
        print(f"listening on 127.0.0.1:{daemon.port}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=3990)
    options.add_argument("--parser", choices=sorted(PARSERS), default=DEFAULT_PARSER)
    options.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options.add_argument("--terms", default="")
    options.add_argument("--methods", default="click,password")
    chosen = options.parse_args()
    daemon = FakeDaemon(
        chosen.port,
        methods=chosen.methods.split(","),
        terms=chosen.terms,
        title="Hotel Miramar",
        ssid="Miramar Guests",
        grant={"seconds_left": 5400, "bytes_left": 1_400_000_000},
        reject_message="Ask at the reception for a new password.",
    )
    factory = asyncio.new_event_loop
    if chosen.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(daemon, chosen.parser))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
