"""Detectors of how TCP connections begin and end: attempts, handshakes, resets, connections that nobody closes."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.analysis.findings import Findings
from gateway.analysis.flows import Connection, Direction
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, counted, graded, short_s
from gateway.analysis.sessions import Session, attempts, conn_state, of_attempt, of_connection
from gateway.analysis.tcp import unacked
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.state import State


def detect(st: State, out: Findings, scanners: set[bytes]) -> None:
    """All detectors of this module; attempts of `scanners` are reported as scans and not again here."""
    answering = {of_connection(conn).target for conn in st.connections if conn.syn_ack_time is not None}
    _attempts(st, out, scanners, answering)
    _repeated_syns(st, out, scanners)
    idle: list[Session] = []
    for conn in st.connections:
        session = of_connection(conn)
        _handshake(st, out, conn, session)
        _reset(st, out, conn, session, scanners)
        _ends(st, out, conn, session, idle)
    _idle(st, out, idle)


def who(st: State, session: Session) -> str:
    """The service of a session, with its name where it is known."""
    name = session.connection.name if session.connection is not None else None
    name = name or st.dns.addresses.get(session.target)
    return f"{st.address_text(session.target)}:{session.port}" + (f" ({name})" if name else "")


def ends_of(conn: Connection, session: Session, d: Direction) -> tuple[bytes, bytes]:
    """Sender and receiver of a direction."""
    return (session.source, session.target) if d is conn.orig else (session.target, session.source)


def _attempts(st: State, out: Findings, scanners: set[bytes], answering: set[bytes]) -> None:
    """Refused and unanswered attempts, by service; repeated SYNs."""
    limits = st.settings.handshake
    refused: dict[tuple[bytes, int], list[Session]] = defaultdict(list)
    tried: dict[tuple[bytes, int], int] = defaultdict(int)
    silent: dict[tuple[bytes, bytes, int], list[tuple[Session, int]]] = defaultdict(list)
    floods = {row for row, value in st.syn_targets.items() if value[0] > 5_000}
    for conn in st.connections:
        session = of_connection(conn)
        if session.syn:
            tried[session.target, session.port] += 1
            if session.state == "REJ" and session.source not in scanners:
                refused[session.target, session.port].append(session)
            elif session.state == "S0" and session.source not in scanners:
                silent[session.source, session.target, session.port].append((session, len(conn.syn_times)))
    for key, half in attempts(st):
        source, target, _, port = split_key(key)
        tried[target, port] += 1
        if source in scanners or target + port.to_bytes(2, "big") in floods:
            continue
        session = of_attempt(key, half)
        if session.state == "REJ":
            refused[session.target, session.port].append(session)
        elif session.state == "S0":
            repeats: Any = half[10]
            silent[session.source, session.target, session.port].append((session, 1 + len(repeats)))
    for (target, port), sessions in sorted(refused.items(), key=lambda item: -len(item[1]))[:50]:
        total = tried[target, port]
        share = len(sessions) / total
        bad = share > limits.refused_share and total >= limits.refused_min
        out.add(
            "tcp.connect.refused",
            "medium" if bad else "info",
            1.0,
            f"{counted(len(sessions), 'connection')} refused by {st.address_text(target)}:{port}",
            f"{len(sessions):,} of {counted(total, 'attempt')} to {who(st, sessions[0])} "
            f"{'was' if len(sessions) == 1 else 'were'} refused with a reset.",
            frames=sorted(item.last_frame for item in sessions),
            first_ns=min(item.last for item in sessions),
            last_ns=max(item.last for item in sessions),
            flow=sessions[0].frame,
            source=sessions[0].source if len({item.source for item in sessions}) == 1 else None,
            target=target,
            port=port,
            evidence={"refused": len(sessions), "attempts": total, "share": share, "port": port},
            threshold={"share": limits.refused_share, "attempts": limits.refused_min},
            signals=["reset-after-syn"],
            advice="tcp.refused",
        )
    for (source, target, port), entries in sorted(silent.items(), key=lambda item: -len(item[1]))[:100]:
        waiting = [
            (item, count)
            for item, count in entries
            if (st.max_ns - item.last) / SECOND > limits.unanswered_s or count > limits.syn_high
        ]
        if not waiting:
            continue
        session = waiting[0][0]
        repeats = sum(count - 1 for _, count in waiting)
        most = max(count for _, count in waiting)
        severity: Severity = "low"
        if most - 1 >= limits.syn_high:
            severity = "critical" if target in answering else "high"
        elif most - 1 >= limits.syn_medium:
            severity = "medium"
        last = max(item.last for item, _ in waiting)
        out.add(
            "tcp.connect.unanswered",
            severity,
            1.0,
            f"No answer from {st.address_text(target)}:{port}",
            f"{counted(len(waiting), 'attempt')} of {st.address_text(source)} to reach {who(st, session)} "
            f"{'was' if len(waiting) == 1 else 'were'} never answered; "
            f"the SYN was sent {counted(repeats + len(waiting), 'time')}"
            + (", though the host answered others." if target in answering else "."),
            frames=[item.frame for item, _ in waiting],
            first_ns=session.start,
            last_ns=last,
            last_frame=max(item.last_frame for item, _ in waiting),
            flow=session.frame,
            source=source,
            target=target,
            port=port,
            evidence={
                "attempts": len(waiting),
                "syns": repeats + len(waiting),
                "port": port,
                "host_answers_others": target in answering,
            },
            threshold={"unanswered_s": limits.unanswered_s, "repeats_high": limits.syn_high},
            signals=["no-syn-ack"],
            advice="tcp.unanswered",
        )


def _repeated_syns(st: State, out: Findings, scanners: set[bytes]) -> None:
    """SYNs that were answered in the end: one finding for each client and service, however many connections it made."""
    limits = st.settings.handshake
    groups: dict[tuple[bytes, bytes, int], list[Connection]] = defaultdict(list)
    for conn in st.connections:
        session = of_connection(conn)
        if conn.syn_ack_time is not None and len(conn.syn_times) > 1 and session.source not in scanners:
            groups[session.source, session.target, session.port].append(conn)
    for (source, target, port), rows in groups.items():
        worst = max(rows, key=lambda conn: len(conn.syn_times))
        times = worst.syn_times
        repeats = len(times) - 1
        severity: Severity = (
            "high" if repeats >= limits.syn_high else "medium" if repeats >= limits.syn_medium else "low"
        )
        intervals = [(later - before) / SECOND for before, later in pairwise(times)]
        frames = sorted(frame for conn in rows for frame in conn.syn_frames)
        lost = sum(conn.syn_times[-1] - conn.syn_times[0] for conn in rows) / SECOND
        service = who(st, of_connection(worst))
        if len(rows) == 1:
            title = f"SYN to {st.address_text(target)}:{port} sent {repeats + 1} times"
            text = (
                f"The SYN to {service} had to be sent {repeats + 1} times before it was answered; "
                f"{short_s(lost)} were lost."
            )
        else:
            title = f"{len(rows):,} connections to {st.address_text(target)}:{port} needed more than one SYN"
            text = (
                f"{len(rows):,} connections of {st.address_text(source)} to {service} were answered only after the SYN "
                f"had been sent again, at worst {counted(repeats, 'time')}; {short_s(lost)} were lost together."
            )
        out.add(
            "tcp.syn.retransmission",
            severity,
            1.0,
            title,
            text,
            frames=frames,
            first_ns=min(conn.syn_times[0] for conn in rows),
            last_ns=max(conn.syn_times[-1] for conn in rows),
            flow=worst.frame,
            source=source,
            target=target,
            port=port,
            evidence={
                "connections": len(rows),
                "attempts": repeats + 1,
                "intervals_s": intervals[:16],
                "backoff_ratio": _backoff(intervals),
                "answered_by": worst.syn_ack_frame,
                "lost_s": lost,
            },
            threshold={"medium": limits.syn_medium, "high": limits.syn_high},
            signals=["syn-repeated"],
            advice="tcp.syn",
            only="tcp.flags.syn == 1 && tcp.flags.ack == 0",
        )


def _backoff(intervals: list[float]) -> float | None:
    """By how much each interval is longer than the one before, in the middle; None with fewer than two."""
    ratios = sorted(later / before for before, later in pairwise(intervals) if before > 0)
    return ratios[len(ratios) // 2] if ratios else None


def _handshake(st: State, out: Findings, conn: Connection, session: Session) -> None:
    limits = st.settings.handshake
    times = conn.syn_times
    if conn.syn_ack_time is None or not times:
        return
    if conn.syn_ack_count > 1:
        out.add(
            "tcp.syn_ack.retransmission",
            "low" if conn.syn_ack_count == 2 else "medium",
            1.0,
            f"SYN-ACK of {st.address_text(session.target)}:{session.port} sent {conn.syn_ack_count} times",
            f"{who(st, session)} answered {conn.syn_ack_count} times: the answer was lost on the way to the client, "
            "filtered there, or the client's acknowledgement was lost.",
            frames=[conn.syn_ack_frame or conn.frame],
            first_ns=conn.syn_ack_time,
            last_ns=conn.syn_ack_time,
            count=conn.syn_ack_count,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            evidence={"syn_acks": conn.syn_ack_count},
            threshold={"syn_acks": 2},
            advice="tcp.syn",
        )
    server = (conn.syn_ack_time - times[-1]) / SECOND
    client = (conn.ack_time - conn.syn_ack_time) / SECOND if conn.ack_time is not None and conn.ack_time >= 0 else 0.0
    grade = graded(server, (limits.slow_medium_s, "medium"), (limits.slow_high_s, "high"))
    if grade is not None:
        out.add(
            "tcp.handshake.slow",
            grade,
            0.8,
            f"Slow connection to {st.address_text(session.target)}:{session.port}",
            f"{who(st, session)} took {short_s(server)} from the last SYN to its answer.",
            frames=[conn.syn_frames[-1], conn.syn_ack_frame or conn.frame],
            first_ns=times[-1],
            last_ns=conn.syn_ack_time,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            port=session.port,
            evidence={"server_s": server},
            threshold={"medium_s": limits.slow_medium_s, "high_s": limits.slow_high_s},
            signals=["syn-to-syn-ack"],
            advice="tcp.handshake",
        )
    if client > limits.client_slow_s and conn.ack_frame is not None and conn.ack_time is not None:
        out.add(
            "tcp.handshake.client",
            "medium",
            0.8,
            f"Slow client {st.address_text(session.source)}",
            f"{short_s(client)} passed between the answer of {who(st, session)} and the client's acknowledgement.",
            frames=[conn.syn_ack_frame or conn.frame, conn.ack_frame],
            first_ns=conn.syn_ack_time,
            last_ns=conn.ack_time,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            evidence={"client_s": client},
            threshold={"client_s": limits.client_slow_s},
            signals=["syn-ack-to-ack"],
            advice="tcp.handshake",
        )


def _reset(st: State, out: Findings, conn: Connection, session: Session, scanners: set[bytes]) -> None:
    reset = conn.reset
    if reset is None or reset[3] == "after FIN":
        return
    by_orig, frame, t, phase, plausible, jump, sent = reset
    sender = session.source if by_orig else session.target
    d = conn.orig if by_orig else conn.resp
    # Who resets a connection sends no more of it: new data, a SYN-ACK or a FIN afterwards come from the real owner.
    went_on = d is not None and d.nseq_time is not None and d.nseq_time > t
    signals = [
        name
        for name, found in (
            ("sequence", not plausible),
            ("ttl", jump > st.settings.handshake.ttl_jump),
            ("went-on", went_on and jump > 0),
        )
        if found
    ]
    injected = "went-on" in signals or len(signals) > 1
    if not injected and (phase != "after data" or session.source in scanners):
        return
    phase = "in answer to its SYN" if phase == "SYN" else phase
    strange = " and ".join(
        {
            "sequence": "its sequence number does not fit",
            "ttl": f"its TTL differs by {jump}",
            "went-on": f"{st.address_text(sender)} went on as if nothing had happened (TTL other by {jump})",
        }[name]
        for name in signals
        if name != "ttl" or "went-on" not in signals
    )
    out.add(
        "tcp.reset.injected" if injected else "tcp.reset",
        "high" if injected else "low",
        0.8 if injected else 1.0,
        f"Connection to {st.address_text(session.target)}:{session.port} reset"
        + (" by somebody else" if injected else f" by {'client' if by_orig else 'server'}"),
        f"A reset {'in the name of' if injected else 'by'} {st.address_text(sender)} "
        f"ended the connection with {who(st, session)} {phase}" + (f"; {strange}." if injected else "."),
        frames=[frame],
        first_ns=t,
        last_ns=t,
        flow=conn.frame,
        source=session.source,
        target=session.target,
        port=session.port,
        evidence={
            "by": "client" if by_orig else "server",
            "phase": phase,
            "bytes_before": sent,
            "ttl_delta": jump,
            "plausible": plausible,
            "went_on": went_on,
        },
        threshold={"ttl_jump": st.settings.handshake.ttl_jump},
        signals=signals if injected else [],
        advice="tcp.reset",
        group="security" if injected else "performance",
    )


def _ends(st: State, out: Findings, conn: Connection, session: Session, open_idle: list[Session]) -> None:
    limits = st.settings.handshake
    idle = (st.max_ns - session.last) / SECOND
    if conn.reset is not None or idle <= min(limits.half_closed_s, limits.zombie_s):
        return
    waiting = [d for d in (conn.orig, conn.resp) if d is not None and unacked(d)]
    both = conn.orig is not None and conn.resp is not None
    if waiting and both and idle > limits.zombie_s:
        d = waiting[0]
        sender, receiver = ends_of(conn, session, d)
        out.add(
            "tcp.state.zombie",
            "medium",
            0.8,
            f"Connection to {st.address_text(session.target)}:{session.port} went dead",
            f"{unacked(d):,} bytes from {st.address_text(sender)} to {st.address_text(receiver)} "
            "were never acknowledged and "
            f"nothing was sent for the last {short_s(idle)}.",
            frames=[d.last_frame],
            first_ns=d.last,
            last_ns=session.last,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            port=session.port,
            evidence={"unacked_bytes": unacked(d), "idle_s": idle},
            threshold={"idle_s": limits.zombie_s},
            advice="tcp.zombie",
        )
    elif conn_state(conn) in ("S2", "S3") and idle > limits.half_closed_s:
        closed = conn.orig if conn.orig is not None and conn.orig.fin is not None else conn.resp
        assert closed is not None
        out.add(
            "tcp.state.half_closed",
            "low",
            1.0,
            f"Half-closed connection to {st.address_text(session.target)}:{session.port}",
            f"Only one side closed; the other one has been silent for {short_s(idle)}.",
            frames=[closed.fin[1]],
            first_ns=closed.fin[0],
            last_ns=session.last,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            evidence={"idle_s": idle},
            threshold={"idle_s": limits.half_closed_s},
            advice="tcp.half_closed",
        )
    elif session.established and conn_state(conn) == "S1":
        open_idle.append(session)


def _idle(st: State, out: Findings, rows: list[Session]) -> None:
    """Connections that are open and of which nothing was heard: harmless, and one finding for all of them."""
    if not rows:
        return
    longest = max((st.max_ns - item.last) / SECOND for item in rows)
    out.add(
        "tcp.state.idle",
        "info",
        1.0,
        f"{counted(len(rows), 'open connection')} without traffic",
        f"{counted(len(rows), 'connection was', 'connections were')} left open with nothing outstanding, the longest "
        f"silent for the last {short_s(longest)}.",
        frames=sorted(item.last_frame for item in rows),
        first_ns=min(item.last for item in rows),
        last_ns=max(item.last for item in rows),
        evidence={"connections": len(rows), "idle_s": longest},
        threshold={"idle_s": min(st.settings.handshake.half_closed_s, st.settings.handshake.zombie_s)},
        advice="tcp.idle",
    )
