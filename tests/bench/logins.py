"""The load of logins: members of a crowd log in or out, so many at once, each with a connection of its own.

    python -m tests.bench.logins api|form|logout|packet CONCURRENCY FIRST COUNT

Runs in the crowd's namespace as a process of its own: says "ready", begins when it is sent a line, and prints one JSON
object. A login ends when the first packet has passed: after the portal's answer one UDP datagram goes from the client's
address to the Internet's echo server, and its return ends the time; a datagram that does not come back within two
seconds is a failed login. `form` is what a phone's sheet does (page, then form with its token), `api` one POST of JSON,
`packet` the datagram alone, of members that are online.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import resource
import select
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Final

from tests.bench.crowd import address_of

PORTAL: Final = ("10.41.0.1", 3990)
ECHO: Final = ("203.0.113.80", 7007)
PASSWORD: Final = "a-guest's-password"
ECHO_LIMIT_S: Final = 2.0
ANSWER_LIMIT_S: Final = 25.0
_IP_PKTINFO: Final = 8
_BIND_ADDRESS_NO_PORT: Final = 24
_TOKEN: Final = re.compile(rb'name="token"[^>]*value="([^"]*)"')
_PACKET_SOURCE: Final = struct.Struct("=I4s4s")
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


class Kind(Enum):
    """What each member does."""

    API = "api"
    FORM = "form"
    LOGOUT = "logout"
    PACKET = "packet"


@dataclass(slots=True)
class Outcome:
    """What came of it; times in seconds from the first octet to the first packet that passed."""

    seconds: float = 0.0
    done: int = 0
    times_s: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0


def user_of(member: int) -> str:
    """The account of a member."""
    return f"guest{member}"


class _Visit:
    """One member's connection."""

    __slots__ = ("address", "answer", "asked", "member", "sock", "started")

    def __init__(self, member: int, address: str, sock: socket.SocketType, started: float) -> None:
        self.member = member
        self.address = address
        self.sock = sock
        self.started = started
        self.asked = 0  # requests sent on this connection
        self.answer = b""


class Load:
    """Runs members through `kind`, `concurrency` at a time."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._epoll = select.epoll()
        self._visits: dict[int, _Visit] = {}  # by file descriptor
        self._echoes: dict[int, tuple[float, float]] = {}  # member -> begun, echo sent
        self._echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._echo.bind(("0.0.0.0", 0))
        self._epoll.register(self._echo.fileno(), select.EPOLLIN)
        self.outcome = Outcome()

    def run(self, concurrency: int, first: int, count: int) -> Outcome:
        """Everybody once; returns what came of it."""
        outcome = self.outcome
        members = iter(range(first, first + count))
        cpu = _cpu_s()
        begin = time.perf_counter()
        looked = begin
        while True:
            while len(self._visits) + len(self._echoes) < concurrency and (member := next(members, None)) is not None:
                self._begin(member)
            if not self._visits and not self._echoes:
                break
            for number, events in self._epoll.poll(0.2):
                if number == self._echo.fileno():
                    self._take_echoes()
                elif number in self._visits:
                    self._go_on(self._visits[number], events)
            now = time.perf_counter()
            if now - looked > 0.2:
                looked = now
                self._look_for_late(now)
        outcome.seconds = time.perf_counter() - begin
        outcome.cpu_s = _cpu_s() - cpu
        return outcome

    def _begin(self, member: int) -> None:
        if self._kind is Kind.PACKET:
            self._send_packet(member, address_of(member), time.perf_counter())
            return
        # The plain C class: the load's own cost is part of what limits the rate.
        sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        address = address_of(member)
        sock.bind((address, 0))
        visit = _Visit(member, address, sock, time.perf_counter())
        code = sock.connect_ex(PORTAL)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "cannot connect to the portal")
        self._visits[sock.fileno()] = visit
        # Within one machine the connection is nearly always there already, before anybody was asked about it.
        with contextlib.suppress(BlockingIOError):
            sock.send(self._request(visit))
            visit.asked = 1
        self._epoll.register(sock.fileno(), select.EPOLLIN if visit.asked else select.EPOLLOUT)

    def _go_on(self, visit: _Visit, events: int) -> None:
        sock = visit.sock
        try:
            if not visit.asked:
                sock.send(self._request(visit))
                visit.asked = 1
                self._epoll.modify(sock.fileno(), select.EPOLLIN)
                return
            data = sock.recv(65536)
        except OSError as error:
            self._fail(visit, f"connection: {error.strerror}")
            return
        visit.answer += data
        head, mark, body = visit.answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if mark else None
        if not mark or (data and len(body) < (int(length[1]) if length else 0)):
            if not data:
                self._fail(visit, "connection closed without an answer")
            return
        self._answered(visit, int(head[9:12]), body)

    def _answered(self, visit: _Visit, status: int, body: bytes) -> None:
        if self._kind is Kind.FORM and visit.asked == 1:
            token = _TOKEN.search(body)
            if status != 200 or token is None:
                self._fail(visit, f"login page: status {status}")
                return
            visit.asked = 2
            visit.answer = b""
            visit.sock.send(_form(visit.member, token[1]))
            return
        if status != (303 if self._kind is Kind.FORM else 200):
            self._fail(visit, f"status {status}: {body[:60].decode('latin-1')}")
            return
        self._drop(visit)
        if self._kind is Kind.LOGOUT:
            self._finish(visit.started)
            return
        self._send_packet(visit.member, visit.address, visit.started)

    def _send_packet(self, member: int, address: str, started: float) -> None:
        source = _PACKET_SOURCE.pack(0, socket.inet_aton(address), bytes(4))
        self._echoes[member] = (started, time.perf_counter())
        self._echo.sendmsg([member.to_bytes(4, "big")], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, ECHO)

    def _request(self, visit: _Visit) -> bytes:
        if self._kind is Kind.FORM:
            return _PAGE
        if self._kind is Kind.LOGOUT:
            return _LOGOUT
        body = json.dumps({"username": user_of(visit.member), "password": PASSWORD}).encode()
        return _post("/api/v1/login", "application/json", body)

    def _take_echoes(self) -> None:
        while True:
            try:
                payload = self._echo.recv(64)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error for one of them: its datagram was refused
                self._count(f"first packet: {error.strerror}")
                return
            echo = self._echoes.pop(int.from_bytes(payload[:4], "big"), None)
            if echo is not None:
                self._finish(echo[0])

    def _look_for_late(self, now: float) -> None:
        for member, (_, sent_at) in list(self._echoes.items()):
            if now - sent_at > ECHO_LIMIT_S:
                del self._echoes[member]
                self._count("the first packet did not pass")
        for visit in list(self._visits.values()):
            if now - visit.started > ANSWER_LIMIT_S:
                self._fail(visit, "no answer")

    def _finish(self, started: float) -> None:
        self.outcome.done += 1
        self.outcome.times_s.append(time.perf_counter() - started)

    def _fail(self, visit: _Visit, why: str) -> None:
        self._drop(visit)
        self._count(why)

    def _count(self, why: str) -> None:
        self.outcome.failures[why] = self.outcome.failures.get(why, 0) + 1

    def _drop(self, visit: _Visit) -> None:
        del self._visits[visit.sock.fileno()]
        visit.sock.close()


def _head(method: str, path: str, more: str) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {PORTAL[0]}:{PORTAL[1]}\r\n"
        "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)\r\nAccept-Language: en\r\n"
        f"{more}"
    ).encode()


def _post(path: str, content_type: str, body: bytes) -> bytes:
    more = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return _head("POST", path, more) + body


_PAGE: Final = _head("GET", "/", "") + b"\r\n"
_LOGOUT: Final = _post("/api/v1/logout", "application/json", b"{}")


def _form(member: int, token: bytes) -> bytes:
    fields = f"method=password&username={user_of(member)}&password={PASSWORD.replace(chr(39), '%27')}&token="
    return _post("/login", "application/x-www-form-urlencoded", fields.encode() + token)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run one load and print its outcome."""
    kind, concurrency, first, count = sys.argv[1:]
    load = Load(Kind(kind))
    print("ready", flush=True)
    sys.stdin.readline()
    outcome = load.run(int(concurrency), int(first), int(count))
    print(json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
