"""Beacons: sessions that begin at regular times. Always measured between starts of sessions, never between packets."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, graded, is_group, percent, raised, short_s, spread
from gateway.analysis.neighbourhood import membership
from gateway.analysis.services import service_by_port
from gateway.analysis.sessions import Session, of_connection
from gateway.analysis.udp import U_PAYLOAD, UdpFlow
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.report import PeriodicRow
    from gateway.analysis.state import State

# Services and names that are regular by nature: named and reported, but as information.
_EXPECTED_PORTS: Final = frozenset({53, 67, 68, 123, 137, 138, 161, 546, 547, 1900, 5353, 5355, 3478})
_EXPECTED_NAMES: Final = (
    "ntp.",
    "time.",
    "connectivitycheck.",
    "captive.apple.com",
    "detectportal.",
    "msftconnecttest.com",
    "msftncsi.com",
    "nmcheck.gnome.org",
    "connectivity-check.",
    "update.",
    "updates.",
    "push.",
    "mtalk.google.com",
    "telemetry.",
)


Folded = tuple[int, int, int, int, int]  # start, end, bytes up and down, frame of a session, see `fold`


class Start(NamedTuple):
    """Start of one session, or of a request within one: of datagrams on the same ports after a silence."""

    t: int
    size: int
    frame: int
    inside: bool = False


def _groups(st: State, least: int) -> Iterator[tuple[bytes, bytes, int, str, list[Start]]]:
    """Who, to whom, port and protocol of what began at least so often, with the starts; nearly all began once."""
    sessions: dict[tuple[bytes, bytes, int], list[Session | Folded]] = defaultdict(list)
    for conn in st.connections:
        session = of_connection(conn)
        if session.established and session.syn:
            sessions[session.source, session.target, session.port].append(session)
    for name, rows in st.folded_sessions.items():
        sessions[name] += rows
    for name, members in sessions.items():
        if len(members) >= least:
            yield *name, "tcp", [_start(member) for member in members]
    flows: dict[tuple[bytes, bytes, int], list[UdpFlow]] = defaultdict(list)
    for flow in st.udp_flows:
        source, target, _, port = split_key(flow.key)
        flows[source, target, port].append(flow)
    for name, talks in flows.items():
        enough = len(talks) >= least or sum(len(flow.starts) for flow in talks) >= least
        if enough and not is_group(name[1]):
            yield *name, "udp", [start for flow in talks for start in _requests(flow)]


def _start(session: Session | Folded) -> Start:
    if isinstance(session, Session):
        return Start(session.start, session.up + session.down, session.frame)
    start, _, up, down, frame = session
    return Start(start, up + down, frame)


def _requests(flow: UdpFlow) -> Iterable[Start]:
    """What nobody answers is no session, and a keep-alive on the same ports begins none."""
    size = sum(d[U_PAYLOAD] for d in (flow.orig, flow.resp) if d is not None) // len(flow.starts)
    unanswered = flow.resp is None
    return [Start(t, size, frame, number > 0 or unanswered) for number, (t, frame) in enumerate(flow.starts)]


def detect(st: State, out: Findings, scanners: set[bytes]) -> list[PeriodicRow]:
    """Report beacons and list everything periodic."""
    rows: list[PeriodicRow] = []
    limits, periodic = st.settings.beacon, st.settings.periodic
    local = membership(st)
    for source, target, port, proto, starts in _groups(st, min(limits.min_starts, periodic.min_starts)):
        if source in scanners:
            continue
        starts.sort()
        merged = [starts[0]]
        for start in starts[1:]:
            # Connections opened together are one visit.
            if start.t - merged[-1].t >= limits.min_period_s * SECOND / 2:
                merged.append(start)
        if len(merged) < periodic.min_starts:
            continue
        period, scatter = spread(_gaps(merged))
        name = _name(st, source, target)
        service = service_by_port(proto, port) or f"{proto}/{port}"
        if scatter <= periodic.max_spread and period >= limits.min_period_s and len(rows) < st.settings.tables.rows:
            rows.append(
                {
                    "source": st.address_text(source),
                    "target": name or st.address_text(target),
                    "service": service,
                    "proto": proto,
                    "port": port,
                    "starts": len(merged),
                    "period_s": period,
                    "spread": scatter,
                    "first_frame": merged[0].frame,
                    "last_frame": merged[-1].frame,
                }
            )
        _judge(st, out, local, source, target, port, merged, name, service)
    rows.sort(key=lambda row: (-row["starts"], row["first_frame"]))
    return rows


def _gaps(starts: list[Start]) -> list[float]:
    return [(after.t - before.t) / SECOND for before, after in itertools.pairwise(starts)]


def _name(st: State, source: bytes, target: bytes) -> str | None:
    return st.dns.addresses.get(target) or st.names_seen.get(target)


def _judge(
    st: State,
    out: Findings,
    local: Callable[[bytes], bool],
    source: bytes,
    target: bytes,
    port: int,
    starts: list[Start],
    name: str | None,
    service: str,
) -> None:
    limits = st.settings.beacon
    expected = port in _EXPECTED_PORTS or (name is not None and any(part in name.lower() for part in _EXPECTED_NAMES))
    if not expected:
        starts = [start for start in starts if not start.inside]
    if len(starts) < limits.min_starts:
        return
    period, scatter = spread(_gaps(starts))
    span = (starts[-1].t - starts[0].t) / SECOND
    if not limits.min_period_s <= period <= limits.max_period_s or (
        span < limits.min_span_s and span < limits.min_periods * period * 0.99
    ):
        return
    _, size_scatter = spread([start.size for start in starts]) if any(start.size for start in starts) else (0.0, 0.0)
    coverage = min(1.0, len(starts) / (span / period + 1))
    score = 0.5 * max(0.0, 1 - scatter) + 0.3 * max(0.0, 1 - size_scatter) + 0.2 * coverage
    grade: Severity | None = graded(
        score, (limits.score_low, "low"), (limits.score_medium, "medium"), (limits.score_high, "high")
    )
    if grade is None:
        return
    signals = ["regular-starts"]
    if expected:
        grade = "info"
        signals.append("expected-service")
    elif local(target):
        # Monitors and controllers of this network keep time as well: nothing to be alarmed by on its own.
        grade = raised(grade, -2)
        signals.append("local-target")
    elif name is None:
        grade = raised(grade)
        signals.append("no-name")
    shown = f"{name} ({st.address_text(target)})" if name else st.address_text(target)
    out.add(
        "security.beacon",
        grade,
        0.5,
        f"Regular sessions from {st.address_text(source)} to {shown}:{port}",
        f"{len(starts):,} sessions of {service} begin every {short_s(period)} (spread {percent(scatter)}, sizes "
        f"{percent(size_scatter)}) "
        f"over {short_s(span)}; score {score:.2f}.",
        frames=[start.frame for start in starts][: st.frames_cap],
        count=len(starts),
        first_ns=starts[0].t,
        last_ns=starts[-1].t,
        source=source,
        target=target,
        port=port,
        evidence={
            "period_s": period,
            "spread": scatter,
            "size_spread": size_scatter,
            "coverage": coverage,
            "score": score,
            "starts": len(starts),
            "port": port,
            "name": name,
        },
        threshold={"score": limits.score_low, "starts": limits.min_starts, "span_s": limits.min_span_s},
        signals=signals,
        advice="security.beacon",
        group="security",
    )
