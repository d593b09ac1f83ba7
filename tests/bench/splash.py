"""Login pages: how many per second, next to openNDS, and how soon their first octet comes at a steady rate.

Guests ask from many addresses, each with a new connection, as phones do; the generator is on the same machine.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Sequence
from typing import Final

from tests.bench import http, opennds
from tests.bench.rows import Row, least, most
from tests.bench.stage import Meter
from tests.bench.web_stage import WebStage
from tests.netns.harness import WEB4

CONCURRENCY: Final = 8
PACE: Final = 50
_PORTAL: Final = ("10.41.0.1", 3990)
_LATE_S: Final = 5.0
_LOCATION: Final = re.compile(r"location: http://([0-9.]+):([0-9]+)(/\S*)", re.IGNORECASE)


def measure(stage: WebStage, seconds: float) -> list[Row]:
    """The rows of both questions."""
    return [*_per_second(stage, seconds), *_first_octets(stage, seconds * 2), *_opennds(seconds)]


def _per_second(stage: WebStage, seconds: float) -> list[Row]:
    request = http.probe_request("10.41.0.1:3990", "/")
    load = http.Load(_PORTAL, request, keep_alive=False, expect=200, sources=stage.sources)
    pids = {"postern-web": stage.portal_pid, "posternd": stage.daemon_pid}
    with stage.lab.inside(stage.guest.netns):
        page = _fetch(_PORTAL, request, stage.sources[0])
        load.run(CONCURRENCY, 1.0)
        meter = Meter(pids | {"generator": os.getpid()})
        took = load.run(CONCURRENCY, seconds)
    shares = meter.shares({})
    assert b'name="token"' in page, page[:300]
    times = sorted(load.times_s)
    p50, p95, p99 = (http.percentile_ms(times, share) for share in (0.5, 0.95, 0.99))
    rate = len(times) / took
    each = {name: shares.cpu_s(name) / max(1, len(times)) * 1e6 for name in pids}
    cost = ", ".join(f"{name} {cpu:.0f}" for name, cpu in each.items())
    return [
        least(
            f"login pages of {len(page) / 1000:.1f} kB, concurrency {CONCURRENCY}",
            rate,
            1000,
            "/s",
            f"{rate:,.0f}/s, {load.errors} errors",
        ),
        most("  their time, p50 / p95 / p99", p95, 15, "ms", f"{p50:.1f} / {p95:.1f} / {p99:.1f} ms"),
        Row("  processor time of one, µs", cost),
        Row("  what bound the rate", shares.limit()),
        Row("  errors", str(load.errors), "none", not load.errors),
    ]


def _opennds(seconds: float) -> list[Row]:
    title = f"openNDS's page, concurrency {CONCURRENCY}"
    try:
        with opennds.running() as peer, peer.inside():
            probe = http.probe_request(str(WEB4), "/generate_204")
            found = _LOCATION.search(_fetch(peer.target, probe, "").decode("latin-1"))
            if found is None:
                return [Row(title, "was not measured: it did not lead to its page")]
            place = (found[1], int(found[2]))
            request = http.probe_request(f"{place[0]}:{place[1]}", found[3])
            page = _fetch(place, request, "")
            load = http.Load(place, request, keep_alive=False, expect=200)
            took = load.run(CONCURRENCY, seconds)
    except opennds.Unavailable as why:
        return [Row(title, f"was not measured: {why}")]
    except ConnectionError as why:
        return [Row(title, f"was not measured: it gave up under the load ({why.strerror})")]
    times = sorted(load.times_s)
    p50, p95, p99 = (http.percentile_ms(times, share) for share in (0.5, 0.95, 0.99))
    title = f"openNDS's page of {len(page) / 1000:.1f} kB, concurrency {CONCURRENCY}"
    return [
        Row(title, f"{len(times) / took:,.1f}/s, {load.errors} errors"),
        Row("  their time, p50 / p95 / p99", f"{p50:.0f} / {p95:.0f} / {p99:.0f} ms"),
    ]


def _first_octets(stage: WebStage, seconds: float) -> list[Row]:
    with stage.lab.inside(stage.guest.netns):
        times, lost = steady(_PORTAL, http.probe_request("10.41.0.1:3990", "/"), stage.sources, PACE, seconds)
    times.sort()
    p50, p95, p99 = (http.percentile_ms(times, share) for share in (0.5, 0.95, 0.99))
    title = f"first octet of the login page at {PACE} requests/s, p50 / p95 / p99"
    return [
        most(title, p95, 20, "ms", f"{p50:.1f} / {p95:.1f} / {p99:.1f} ms"),
        Row("  without an answer", f"{lost} of {lost + len(times)}", "none", not lost),
    ]


def steady(
    place: tuple[str, int], request: bytes, sources: Sequence[str], per_second: float, seconds: float
) -> tuple[list[float], int]:
    """Ask at a steady rate, whether or not answers come; seconds from each one's time to its first octet, and how
    many had none.

    Counted from when it was due, so that a server that stops for a moment is charged for all who had to wait.
    """
    poller = select.epoll()
    waiting: dict[int, tuple[float, socket.socket]] = {}
    times: list[float] = []
    lost = number = 0
    wanted = int(per_second * seconds)
    began = time.perf_counter()
    while number < wanted or waiting:
        now = time.perf_counter()
        while number < wanted and (due := began + number / per_second) <= now:
            sock = socket.create_connection(place, _LATE_S, (sources[number % len(sources)], 0))
            sock.sendall(request)
            sock.setblocking(False)
            poller.register(sock, select.EPOLLIN)
            waiting[sock.fileno()] = (due, sock)
            number += 1
        pause = max(0.0, began + number / per_second - time.perf_counter()) if number < wanted else 0.1
        for descriptor, _ in poller.poll(pause):
            due, sock = waiting.pop(descriptor)
            try:
                good = sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            except OSError:
                good = False
            times += [time.perf_counter() - due] if good else []
            lost += not good
            sock.close()
        for descriptor, (due, sock) in list(waiting.items()):
            if time.perf_counter() - due > _LATE_S:
                del waiting[descriptor]
                lost += 1
                sock.close()
    poller.close()
    return times, lost


def _fetch(place: tuple[str, int], request: bytes, source: str) -> bytes:
    """One whole answer, head and all."""
    with socket.create_connection(place, 10, (source, 0) if source else None) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer
