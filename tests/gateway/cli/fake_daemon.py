"""A daemon without a gateway: the real control server in a thread, with methods that answer from a table."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, ControlServer, Handler, Method

SESSION: dict[str, JsonValue] = {
    "zone": "guest",
    "mac": "02:00:5e:10:00:2a",
    "ip": "10.41.0.20",
    "ipv6": ["2001:db8::2a"],
    "state": "online",
    "username": "alice",
    "session_id": "5f2a-0001",
    "method": "password",
    "since_s": 754,
    "seconds_left": 2846,
    "idle_s": 3,
    "upload_bytes": 1_234_567,
    "download_bytes": 98_765_432,
    "bytes_left": None,
    "client_number": 17,
    "hostname": "alices-phone",
}
EVENTS: list[dict[str, JsonValue]] = [
    {
        "at_unix": 1_700_000_000.0 + number,
        "at": 10.0 + number,
        "zone": "guest",
        "mac": "02:00:5e:10:00:2a",
        "ip": "10.41.0.20",
        "kind": kind,
        "text": words,
    }
    for number, (kind, words) in enumerate(
        (
            ("lease", "got 10.41.0.20 as alices-phone"),
            ("login", "asks to be let in as alice"),
            ("gate_opened", "let through by RADIUS server 192.0.2.10, 3600 s"),
        )
    )
]

SERVER: dict[str, JsonValue] = {
    "server": "main",
    "address": "192.0.2.10",
    "port": 1812,
    "purpose": "auth",
    "breaker": "open",
    "failures_in_a_row": 5,
    "reason": "no answer within 3 s",
    "last_answer_age_s": 61.2,
    "rtt_p50_s": 0.0021,
    "rtt_p95_s": 0.034,
    "in_flight": 2,
    "warning": "main: no answer with Message-Authenticator has come yet",
    "requests": {"accept": 40, "reject": 2},
}
ANSWERS: dict[str, JsonValue] = {
    "status": {
        "version": "0.1.0",
        "python": "3.11.2",
        "loop": "uvloop",
        "msgpack": "C",
        "parser": "httptools",
        "uptime_s": 93_784,
        "zones": [
            {"name": "guest", "interface": "br-guest", "leases": 12, "pool": 240, "online": 9, "held": 3},
            {"name": "staff", "interface": "br-staff", "leases": 2, "pool": 50, "online": 2, "held": 0},
        ],
        "sessions": {"online": 11, "total": 14},
        "radius": [SERVER],
        "datapath": {"elements": "netlink", "clients": 11, "refusals": 0, "problems": []},
        "journal": {"records": 420, "size_bytes": 65_536, "waiting": 0, "lost": 0},
        "warnings": ["the clock was set by nobody yet: connect the box to the Internet"],
        "memory_rss_bytes": 42_000_000,
        "clock_set": False,
    },
    "doctor.run": {"rows": [{"check": "clock", "state": "ok", "text": "The clock is set.", "remedy": ""}]},
    "sessions.list": {"total": 1, "rows": [SESSION]},
    "sessions.show": {
        **SESSION,
        "limits": {"session_time_s": 3600, "download_bps": 2_000_000},
        "class_count": 1,
        "reply_message": "Welcome",
        "filter_ids": [],
        "events": list(EVENTS),
    },
    "sessions.kick": {"ended": 1},
    "sessions.authorize": {"result": "success"},
    "leases.list": {
        "rows": [
            {
                "zone": "guest",
                "ip": "10.41.0.20",
                "mac": "02:00:5e:10:00:2a",
                "hostname": "alices-phone",
                "client_id": "01:02:00:5e:10:00:2a",
                "expires_in_s": 3200,
                "state": "bound",
            },
            {
                "zone": "guest",
                "ip": "10.41.0.21",
                "mac": None,
                "hostname": "",
                "client_id": "",
                "expires_in_s": 600,
                "state": "quarantined",
            },
        ]
    },
    "leases.release": {"released": 1},
    "users.add": {"added": "bob"},
    "users.passwd": {"changed": "bob"},
    "users.remove": {"removed": "bob"},
    "users.list": {"rows": [{"username": "bob", "session_time_s": 3600, "total_bytes": None}]},
    "accounts.list": {"rows": [{"name": "alice", "role": "administrator", "totp": False}]},
    "accounts.add": {"name": "carol", "role": "operator"},
    "accounts.passwd": {"name": "carol"},
    "accounts.remove": {"name": "alice"},
    "accounts.totp_remove": {"name": "alice", "removed": True},
    "admin.setup_code": {"code": "ZW98-8LMD-TM4S-ZK9G"},
    "config.check": {"problems": []},
    "config.show": {
        "rows": [
            {
                "section": "zone",
                "name": "guest",
                "option": "lease_time",
                "value": "3600",
                "source": "default",
                "unit": "s",
                "doc": "Life of a lease.",
            },
            {
                "section": "radius_server",
                "name": "main",
                "option": "secret",
                "value": "…",
                "source": "/etc/config/postern:12",
                "unit": "",
                "doc": "Secret shared with the server.",
            },
        ]
    },
    "config.reload": {"changed": ["zone 'guest', option lease_time: 3600 -> 7200"], "problems": []},
    "ruleset.print": {"text": "table inet postern {\n\tchain guest { # why\n\t}\n}\n"},
    "ruleset.check": {"problems": []},
    "events.list": {"rows": list(EVENTS)},
    "radius.status": {
        "servers": [SERVER],
        "queue": {"length": 3, "outage": True, "answered": 90, "replaced": 2, "dropped": 0},
    },
    "metrics.text": {"text": "# HELP postern_sessions Clients.\npostern_sessions 3\n"},
    "debug.profile": {"text": "10 samples in 0.1 s\n", "samples": 10, "rows": []},
    "debug.heap": {
        "memory_rss_bytes": 42_000_000,
        "tracing": True,
        "frozen": 120_000,
        "types": [{"type": "builtins.tuple", "count": 1234}],
        "lines": [{"where": "gateway/timeline.py:70", "bytes": 4096, "count": 2}],
    },
    "debug.tasks": {"total": 1, "rows": [{"name": "control", "where": "run (server.py:1)", "stack": []}]},
    "debug.rate_limiters": {"rows": [{"name": "dhcp clients", "sources": 3, "limited": 1}]},
}


class FakeDaemon:
    """What was asked, and what is answered: `answers` may be changed by a test; a ControlError in it is raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, Params]] = []
        self.answers: dict[str, JsonValue | ControlError] = dict(ANSWERS)

    def methods(self) -> Mapping[str, Method]:
        methods = {name: Method(self._answer(name), Access.READ | Access.WRITE) for name in self.answers}
        methods["events.follow"] = Method(self._follow, Access.READ, stream=True)
        return methods

    def _answer(self, name: str) -> Handler:
        def handler(caller: Caller, params: Params) -> JsonValue:
            self.asked.append((name, params))
            answer = self.answers[name]
            if isinstance(answer, ControlError):
                raise answer
            return answer

        return handler

    async def _follow(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        self.asked.append(("events.follow", params))
        for event in EVENTS:
            yield event


@contextmanager
def running(path: Path) -> Iterator[FakeDaemon]:
    """The fake daemon, serving at `path` until the context ends."""
    daemon = FakeDaemon(path)
    server = ControlServer(path, daemon.methods(), socket_group=None)
    server.bind()
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.run())

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=serve, name="fake daemon")
    thread.start()
    try:
        yield daemon
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
