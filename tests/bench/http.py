"""Portal load: redirects per second with a new connection each, as probes and background traffic of apps make them.

    python -m tests.bench.http [--url http://10.41.0.1:3990/generate_204] [--host connectivitycheck.gstatic.com]
        [--concurrency 1,8,50] [--seconds 5] [--parser httptools,h11] [--loop uvloop] [--keep-alive] [--json]

Without --url a portal of ours is started on loopback against a daemon in memory, once per parser. One process offers
the load with an epoll loop of its own, so both share the machine. A request's time runs from the start of connecting
to the end of the connection (or, with --keep-alive, of the answer). Answers of another status than --expect (302) are
errors.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import urlsplit

_WARM_UP_S: Final = 0.5
_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: the port is chosen when connecting
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Result:
    """One measurement; times in milliseconds."""

    server: str
    concurrency: int
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us_per_request: float | None  # of the server, where it was started here


class _Exchange:
    """One connection of the load."""

    __slots__ = ("answer", "asked", "sock", "started")

    def __init__(self, sock: socket.SocketType, started: float) -> None:
        self.sock = sock
        self.started = started
        self.asked = False
        self.answer = b""


class Load:
    """`concurrency` clients that each ask again as soon as they were answered."""

    def __init__(
        self,
        place: tuple[str, int],
        request: bytes,
        *,
        keep_alive: bool,
        expect: int,
        sources: Sequence[str] = (),
    ) -> None:
        """`sources` are addresses of ours that connections come from in turn; none: as the kernel chooses."""
        self._place = place
        self._sources = itertools.cycle(sources) if sources else None
        self._request = request
        self._keep_alive = keep_alive
        self._good = b"HTTP/1.1 %d " % expect
        self._epoll = select.epoll()
        self._exchanges: dict[int, _Exchange] = {}
        self.times_s: list[float] = []
        self.errors = 0

    def run(self, concurrency: int, seconds: float) -> float:
        """Offer load; returns the seconds it really took. Results are in `times_s` and `errors`."""
        self.times_s.clear()
        self.errors = 0
        for _ in range(concurrency):
            self._connect()
        begin = time.perf_counter()
        end = begin + seconds
        while (now := time.perf_counter()) < end:
            for number, _ in self._epoll.poll(0.2):
                self._handle(self._exchanges[number])
        for exchange in list(self._exchanges.values()):
            self._drop(exchange)
        return now - begin

    def _connect(self) -> None:
        # The plain C class: the load's own cost is part of what limits the rate.
        sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if self._sources is not None:
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((next(self._sources), 0))
        exchange = _Exchange(sock, time.perf_counter())
        code = sock.connect_ex(self._place)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, os.strerror(code))
        self._exchanges[sock.fileno()] = exchange
        # Within one machine the connection is nearly always there already, before anybody was asked about it.
        self._epoll.register(sock.fileno(), select.EPOLLIN if self._ask(exchange) else select.EPOLLOUT)

    def _ask(self, exchange: _Exchange) -> bool:
        """Send the request; False when there is no connection yet."""
        try:
            exchange.sock.send(self._request)
        except BlockingIOError:
            return False
        exchange.asked = True
        return True

    def _drop(self, exchange: _Exchange) -> None:
        del self._exchanges[exchange.sock.fileno()]
        exchange.sock.close()  # leaves the epoll set with it

    def _handle(self, exchange: _Exchange) -> None:
        try:
            if not exchange.asked:
                if self._ask(exchange):
                    self._epoll.modify(exchange.sock.fileno(), select.EPOLLIN)
                return
            self._read(exchange)
        except BlockingIOError:
            pass
        except OSError:
            self._finish(exchange, good=False)

    def _read(self, exchange: _Exchange) -> None:
        """Take what came, to the end of the connection when that is there; raises BlockingIOError when it is not."""
        recv = exchange.sock.recv
        while True:
            data = recv(65536)
            exchange.answer += data
            if not data:
                self._finish(exchange, good=exchange.answer.startswith(self._good))
                return
            if self._keep_alive and self._is_whole(exchange.answer):
                self.times_s.append(time.perf_counter() - exchange.started)
                self.errors += not exchange.answer.startswith(self._good)
                exchange.answer = b""
                exchange.started = time.perf_counter()
                exchange.sock.send(self._request)
                return

    def _is_whole(self, answer: bytes) -> bool:
        head, mark, body = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return bool(mark) and len(body) >= (int(length[1]) if length else 0)

    def _finish(self, exchange: _Exchange, *, good: bool) -> None:
        if good:
            self.times_s.append(time.perf_counter() - exchange.started)
        else:
            self.errors += 1
        self._drop(exchange)
        self._connect()


def probe_request(host: str, path: str, connection: str = "Connection: close\r\n") -> bytes:
    """What a browser or a phone's probe asks for."""
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0 Safari/537.36"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{connection}\r\n".encode()


def percentile_ms(times_s: list[float], share: float) -> float:
    """The time that `share` of all did not exceed; `times_s` is sorted."""
    return 1000 * times_s[min(len(times_s) - 1, int(len(times_s) * share))] if times_s else 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  # one read of one line
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def own_portal(parser: str, loop: str) -> Iterator[tuple[int, int]]:
    """Our portal in a process of its own; gives its port and process id."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "tests.webui.fake_daemon",
        f"--port={port}",
        f"--parser={parser}",
        f"--loop={loop}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the portal did not start")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


def measure(
    server: str, place: tuple[str, int], request: bytes, options: argparse.Namespace, pid: int | None
) -> Iterator[Result]:
    """One result for each concurrency."""
    for concurrency in [int(text) for text in options.concurrency.split(",")]:
        load = Load(place, request, keep_alive=options.keep_alive, expect=options.expect)
        load.run(concurrency, _WARM_UP_S)
        before_s = cpu_seconds(pid) if pid is not None else 0.0
        took_s = load.run(concurrency, options.seconds)
        times_s = sorted(load.times_s)
        spent_s = cpu_seconds(pid) - before_s if pid is not None else 0.0
        yield Result(
            server,
            concurrency,
            len(times_s),
            load.errors,
            round(len(times_s) / took_s, 1),
            round(percentile_ms(times_s, 0.50), 3),
            round(percentile_ms(times_s, 0.95), 3),
            round(percentile_ms(times_s, 0.99), 3),
            round(1e6 * spent_s / len(times_s), 1) if pid is not None and times_s else None,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="")
    parser.add_argument("--host", default="connectivitycheck.gstatic.com")
    parser.add_argument("--concurrency", default="1,8,50")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--parser", default="httptools,h11")
    parser.add_argument("--loop", default="uvloop", choices=("uvloop", "asyncio"))
    parser.add_argument("--keep-alive", action="store_true")
    parser.add_argument("--expect", type=int, default=302)
    parser.add_argument("--path", default="/generate_204")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: list[Result] = []
    connection = "" if options.keep_alive else "Connection: close\r\n"

    def request(path: str) -> bytes:
        return probe_request(options.host, path, connection)

    if options.url:
        parts = urlsplit(options.url)
        place = (parts.hostname or "127.0.0.1", parts.port or 80)
        results += measure(options.url, place, request(parts.path or "/"), options, None)
    else:
        for name in options.parser.split(","):
            with own_portal(name, options.loop) as (port, pid):
                results += measure(name, ("127.0.0.1", port), request(options.path), options, pid)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    heads = ("conc.", "per s", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU us")
    print(f"{'server':<12} {heads[0]:>5} {heads[1]:>9} " + " ".join(f"{head:>8}" for head in heads[2:]))
    for result in results:
        cpu = f"{result.cpu_us_per_request:8.1f}" if result.cpu_us_per_request is not None else "       -"
        print(
            f"{result.server:<12} {result.concurrency:>5} {result.per_second:>9.0f} {result.p50_ms:>8.2f} "
            f"{result.p95_ms:>8.2f} {result.p99_ms:>8.2f} {result.errors:>8} {cpu}"
        )


if __name__ == "__main__":
    main()
