"""Detectors of TCP trouble: handshakes, loss, round trips, windows, resets, silences, slow transfers."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.analysis.findings import Findings
from gateway.analysis.flow_rows import active_ns, limited_by
from gateway.analysis.flows import (
    BASE,
    FIN,
    LA,
    LAST,
    LAST_FRAME,
    MASK,
    NSEQ_TIME,
    PAYLOAD,
    PEAK,
    RTTS,
    SEGMENTS,
    TROUBLE,
    Connection,
    Direction,
)
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, counted, graded, many_bytes, percent, rank, short_s
from gateway.analysis.report import Severity
from gateway.analysis.sessions import Session, attempts, conn_state, of_attempt, of_connection
from gateway.analysis.settings import Rtt
from gateway.analysis.tcp import unacked

if TYPE_CHECKING:
    from gateway.analysis.state import State
    from gateway.analysis.summary import TcpTotals


def detect(st: State, out: Findings, totals: TcpTotals, scanners: set[bytes]) -> None:
    """All detectors of this module; attempts of `scanners` are reported as scans and not again here."""
    answering = {of_connection(conn).target for conn in st.connections if conn.syn_ack_time is not None}
    _attempts(st, out, scanners, answering)
    _repeated_syns(st, out, scanners)
    for conn in st.connections:
        session = of_connection(conn)
        _handshake(st, out, conn, session)
        for d in (conn.orig, conn.resp):
            if d is not None:
                if d[TROUBLE] is not None:
                    _loss(st, out, conn, session, d)
                    _black_hole(st, out, conn, session, d)
                _rtt(st, out, conn, session, d)
                if d[TROUBLE] is not None:
                    _window(st, out, conn, session, d)
                _slow(st, out, conn, session, d)
        _reset(st, out, conn, session, scanners)
        _ends(st, out, conn, session)
        _gaps(st, out, conn, session)


def _who(st: State, session: Session) -> str:
    name = session.connection.name if session.connection is not None else None
    name = name or st.dns.addresses.get(session.target)
    return f"{st.address_text(session.target)}:{session.port}" + (f" ({name})" if name else "")


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
            f"{len(sessions)} of {counted(total, 'attempt')} to {_who(st, sessions[0])} "
            f"{'was' if len(sessions) == 1 else 'were'} refused with a reset.",
            frames=[item.last_frame for item in sessions],
            first_ns=sessions[0].start,
            last_ns=sessions[-1].last,
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
            f"{counted(len(waiting), 'attempt')} of {st.address_text(source)} to reach {_who(st, session)} "
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
        frames = sorted(frame for conn in rows for frame in conn.syn_frames)
        lost = sum(conn.syn_times[-1] - conn.syn_times[0] for conn in rows) / SECOND
        who = _who(st, of_connection(worst))
        if len(rows) == 1:
            title = f"SYN to {st.address_text(target)}:{port} sent {repeats + 1} times"
            text = (
                f"The SYN to {who} had to be sent {repeats + 1} times before it was answered; "
                f"{short_s(lost)} were lost."
            )
        else:
            title = f"{len(rows)} connections to {st.address_text(target)}:{port} needed more than one SYN"
            text = (
                f"{len(rows)} connections of {st.address_text(source)} to {who} were answered only after the SYN had "
                f"been sent again, at worst {counted(repeats, 'time')}; {short_s(lost)} were lost together."
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
                "intervals_s": [(later - before) / SECOND for before, later in pairwise(times)][:16],
                "answered_by": worst.syn_ack_frame,
                "lost_s": lost,
            },
            threshold={"medium": limits.syn_medium, "high": limits.syn_high},
            signals=["syn-repeated"],
            advice="tcp.syn",
            only="tcp.flags.syn == 1 && tcp.flags.ack == 0",
        )


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
            f"{_who(st, session)} answered {conn.syn_ack_count} times: the answer was lost on the way to the client, "
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
            f"{_who(st, session)} took {short_s(server)} from the last SYN to its answer.",
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
            f"{short_s(client)} passed between the answer of {_who(st, session)} and the client's acknowledgement.",
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


def _ends_of(conn: Connection, session: Session, d: Direction) -> tuple[bytes, bytes]:
    """Sender and receiver of a direction."""
    return (session.source, session.target) if d is conn.orig else (session.target, session.source)


def _loss(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    trouble = d[TROUBLE]
    if trouble is None:
        return
    limits = st.settings.loss
    sender, receiver = _ends_of(conn, session, d)
    segments = max(1, d[SEGMENTS])
    events = conn.events or {}
    genuine = trouble.retransmitted - trouble.needless
    rate = genuine / segments
    if genuine >= limits.min_count and segments >= limits.min_segments:
        grade = graded(rate, (limits.rate_low, "low"), (limits.rate_medium, "medium"), (limits.rate_high, "high"))
    elif genuine >= limits.min_count:
        grade = "low"  # few segments: the count stands, a rate would say more than is known
    else:
        grade = None
    if grade is not None:
        way = "up" if d is conn.orig else "down"
        names = ("sent-again-" + way, "lost-before-" + way)
        frames = sorted(_frames(events, names[0]) + _frames(events, names[1]))
        rows = [events[name] for name in names if name in events]
        timeouts = trouble.cause.get("rto", 0) + trouble.cause.get("rto-backoff", 0)
        kind = "tcp.retransmission.rto" if timeouts * 2 > trouble.retransmitted else "tcp.retransmission.loss"
        where = (
            "between the sender and the capture point"
            if trouble.lost_before > trouble.lost_behind
            else "between the capture point and the receiver, or their acknowledgements were"
        )
        out.add(
            kind,
            grade,
            1.0,
            f"{counted(genuine, 'retransmission')} towards {st.address_text(receiver)}",
            f"{genuine} of {counted(d[SEGMENTS], 'data segment')} from {st.address_text(sender)} to "
            f"{st.address_text(receiver)} ({percent(rate)}) were lost and sent again, {timeouts} of them after a "
            f"timeout; they were lost {where}.",
            frames=frames[: st.frames_cap],
            count=genuine,
            first_ns=min(row[1] for row in rows) if rows else conn.time,
            last_ns=max(row[3] for row in rows) if rows else conn.time,
            last_frame=max((row[2] for row in rows), default=None),
            flow=conn.frame,
            source=sender,
            target=receiver,
            port=session.port,
            evidence={
                "retransmitted": genuine,
                "segments": d[SEGMENTS],
                "rate": rate,
                "timeouts": timeouts,
                "seen_again": trouble.seen_again,
                "hole_fills": trouble.lost_before,
                "needless": trouble.needless,
                "max_delay_s": trouble.max_delay / SECOND,
            },
            threshold={"rate": limits.rate_low, "count": limits.min_count},
            signals=sorted(trouble.cause),
            advice="tcp.loss",
        )
    needless = events.get("needless-up" if d is conn.orig else "needless-down")
    if trouble.dsack and trouble.dsack > limits.dsack_share * segments:
        out.add(
            "tcp.retransmission.spurious",
            "low",
            1.0,
            f"{counted(trouble.dsack, 'needless retransmission')} by {st.address_text(sender)}",
            f"{st.address_text(receiver)} reported {counted(trouble.dsack, 'segment')} it already had (D-SACK): "
            f"{'it was' if trouble.dsack == 1 else 'they were'} sent again too early, or doubled by the network.",
            frames=needless[4] if needless is not None else [conn.frame],
            count=trouble.dsack,
            first_ns=needless[1] if needless is not None else conn.time,
            last_ns=needless[3] if needless is not None else session.last,
            last_frame=needless[2] if needless is not None else session.last_frame,
            flow=conn.frame,
            source=sender,
            target=receiver,
            evidence={"dsack": trouble.dsack, "segments": d[SEGMENTS]},
            threshold={"share": limits.dsack_share},
            advice="tcp.spurious",
        )
    if trouble.reordered >= limits.min_count and trouble.reordered > limits.rate_low * segments:
        row = events.get("reordered-up" if d is conn.orig else "reordered-down")
        out.add(
            "tcp.reordering",
            "low",
            0.8,
            f"{counted(trouble.reordered, 'segment')} overtaken on the way to {st.address_text(receiver)}",
            f"{trouble.reordered} of {d[SEGMENTS]} segments from {st.address_text(sender)} arrived here out of order, "
            "without having been sent again.",
            frames=row[4] if row is not None else [conn.frame],
            count=trouble.reordered,
            first_ns=row[1] if row is not None else conn.time,
            last_ns=row[3] if row is not None else session.last,
            flow=conn.frame,
            source=sender,
            target=receiver,
            evidence={"reordered": trouble.reordered, "segments": d[SEGMENTS]},
            threshold={"count": limits.min_count, "share": limits.rate_low},
            advice="tcp.reordering",
        )
    options, others = (conn.options, conn.resp_options) if d is conn.orig else (conn.resp_options, conn.options)
    lossy = segments >= limits.min_segments and rate > limits.rate_low
    if lossy and others is not None and options is not None and not (others[2] and options[2]):
        out.add(
            "tcp.sack.missing",
            "medium",
            1.0,
            f"No selective acknowledgements between {st.address_text(sender)} and {st.address_text(receiver)}",
            f"Segments are lost ({percent(rate)}) and "
            f"{'the receiver' if not others[2] else 'the sender'} did not offer "
            "SACK, so each loss costs more than it must.",
            frames=[conn.syn_frame or conn.frame],
            first_ns=conn.time,
            last_ns=session.last,
            flow=conn.frame,
            source=sender,
            target=receiver,
            evidence={"rate": rate},
            threshold={"rate": limits.rate_low},
            advice="tcp.sack",
        )


def _frames(events: dict[str, list[Any]], name: str) -> list[int]:
    row = events.get(name)
    return list(row[4]) if row is not None else []


def _rtt(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    samples = d[RTTS]
    limits = st.settings.rtt
    if samples is None or len(samples) < limits.min_samples:
        return
    if max(samples) < min(limits.low_s, limits.bufferbloat_s, limits.spike_s) * SECOND:
        return  # neither far away nor queued nor uneven, whatever their order
    ordered = sorted(samples)
    middle, high, least = rank(ordered, 0.5), rank(ordered, 0.95), ordered[0]
    _, receiver = _ends_of(conn, session, d)
    grade = graded(middle / SECOND, (limits.low_s, "low"), (limits.medium_s, "medium"), (limits.high_s, "high"))
    common: dict[str, Any] = {
        "frames": [conn.frame],
        "last_frame": session.last_frame,
        "count": len(ordered),
        "first_ns": conn.time,
        "last_ns": session.last,
        "flow": conn.frame,
        "source": session.source,
        "target": session.target,
        "port": session.port,
    }
    if grade is not None:
        out.add(
            "tcp.rtt.high",
            grade,
            0.8,
            f"Long way to {st.address_text(receiver)}",
            f"Data to {st.address_text(receiver)} are acknowledged after {short_s(middle / SECOND)} (median of "
            f"{len(ordered)}, least {short_s(least / SECOND)}).",
            evidence={"median_s": middle / SECOND, "min_s": least / SECOND, "p95_s": high / SECOND, "n": len(ordered)},
            threshold={"low_s": limits.low_s, "medium_s": limits.medium_s, "high_s": limits.high_s},
            advice="tcp.rtt",
            **common,
        )
    spikes = rtt_spikes(ordered, limits)
    if spikes >= limits.spike_min and spikes <= limits.spike_share * len(ordered):
        out.add(
            "tcp.rtt.spikes",
            "low",
            0.5,
            f"Round trip to {st.address_text(receiver)} jumps",
            f"{spikes} of {len(ordered)} round trips to {st.address_text(receiver)} took far longer than the usual "
            f"{short_s(middle / SECOND)}, up to {short_s(ordered[-1] / SECOND)}.",
            evidence={"spikes": spikes, "n": len(ordered), "median_s": middle / SECOND, "max_s": ordered[-1] / SECOND},
            threshold={"above_s": limits.spike_s, "ratio": limits.spike_ratio, "count": limits.spike_min},
            advice="tcp.rtt",
            **common,
        )
    peak = d[PEAK] * 8.0
    active = active_ns(d) / SECOND
    mean = d[PAYLOAD] * 8 / active if active >= 1 else 0.0
    if (high - least) / SECOND > limits.bufferbloat_s and peak and mean > limits.bufferbloat_load * peak:
        out.add(
            "tcp.rtt.bufferbloat",
            "medium",
            0.5,
            f"Queue grows on the way to {st.address_text(receiver)}",
            f"While {mean / 1e6:.1f} Mbit/s were sent, the round trip rose from {short_s(least / SECOND)} to "
            f"{short_s(high / SECOND)}: a buffer on the way fills up.",
            evidence={"min_s": least / SECOND, "p95_s": high / SECOND, "bps": mean, "peak_bps": peak},
            threshold={"rise_s": limits.bufferbloat_s, "load": limits.bufferbloat_load},
            advice="tcp.bufferbloat",
            **common,
        )


def rtt_spikes(ordered: Sequence[int], limits: Rtt) -> int:
    """How many of some sorted round trips are far above their median."""
    middle = rank(ordered, 0.5)
    limit = max(limits.spike_ratio * middle, middle + limits.spike_s * SECOND)
    return len(ordered) - bisect_right(ordered, limit)


def _black_hole(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    """A large segment that never arrives while small ones do, and no router says why (RFC 2923 section 2.1)."""
    trouble = d[TROUBLE]
    limits = st.settings.icmp
    other = conn.resp if d is conn.orig else conn.orig
    if len(trouble.resent) < limits.black_hole_repeats or other is None or other[LA] is None or d[BASE] is None:
        return
    sender, receiver = _ends_of(conn, session, d)
    if receiver in st.icmp.mtu:
        return  # somebody does say why
    again: dict[int, list[Any]] = defaultdict(list)
    for entry in trouble.resent:
        if entry[1] - entry[0] & MASK >= limits.black_hole_bytes:
            again[entry[0]].append(entry)
    for begin, entries in again.items():
        size = entries[0][1] - begin & MASK
        before = begin - d[BASE] & MASK
        arrived = d[SEGMENTS] - len(trouble.resent)
        if (
            len(entries) < limits.black_hole_repeats
            or conn.ack_time is None
            or not (
                other[LA] == begin or any(item[0] == begin and item[1] - begin & MASK < size for item in trouble.resent)
            )
            # What went through before was smaller, and the receiver is still there to say so.
            or before > size * max(1, arrived) / 2
            or other[LAST] < entries[0][3]
        ):
            continue
        out.add(
            "ip.pmtu.black_hole",
            "high",
            0.5,
            f"Large packets to {st.address_text(receiver)} vanish",
            f"A segment of {size} bytes from {st.address_text(sender)} was sent {len(entries) + 1} times without ever "
            f"being acknowledged, while smaller packets pass and no router says that it is too large: somewhere on the "
            "way the packet size is limited and the message about it is dropped.",
            frames=[entry[2] for entry in entries],
            first_ns=entries[0][3],
            last_ns=entries[-1][3],
            flow=conn.frame,
            source=sender,
            target=receiver,
            port=session.port,
            evidence={"bytes": size, "transmissions": len(entries) + 1},
            threshold={"repeats": limits.black_hole_repeats, "bytes": limits.black_hole_bytes},
            signals=["large-lost", "small-pass", "no-icmp"],
            advice="ip.pmtu",
        )
        return


def _window(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    trouble = d[TROUBLE]
    if trouble is None or not trouble.zero_time:
        return
    limits = st.settings.window
    zero = trouble.zero_time / SECOND
    active = max(1, session.last - conn.time) / SECOND
    grade = graded(zero, (limits.zero_low_s, "low"), (limits.zero_medium_s, "medium"), (limits.zero_high_s, "high"))
    if grade is None:
        return
    if zero > limits.zero_share_high * active and zero > limits.zero_medium_s:
        grade = "high"
    receiver, sender = _ends_of(conn, session, d)
    row = (conn.events or {}).get("zero_window")
    out.add(
        "tcp.window.zero",
        grade,
        1.0,
        f"{st.address_text(receiver)} does not take its data",
        f"The program at {st.address_text(receiver)} did not read: its window was closed for {short_s(zero)} in "
        f"{trouble.zero_count} packets, {percent(min(1.0, zero / active))} of the connection, "
        f"longest {short_s(trouble.zero_longest / SECOND)}.",
        frames=row[4] if row is not None else [conn.frame],
        count=trouble.zero_count,
        first_ns=row[1] if row is not None else conn.time,
        last_ns=row[3] if row is not None else session.last,
        flow=conn.frame,
        source=sender,
        target=receiver,
        port=session.port,
        evidence={
            "zero_s": zero,
            "count": trouble.zero_count,
            "longest_s": trouble.zero_longest / SECOND,
            "share": min(1.0, zero / active),
        },
        threshold={"low_s": limits.zero_low_s, "medium_s": limits.zero_medium_s, "high_s": limits.zero_high_s},
        signals=["zero-window"],
        advice="tcp.window",
        only="tcp.window_size == 0",
    )


def _slow(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    limits = st.settings.throughput
    active = active_ns(d) / SECOND
    if d[PAYLOAD] < limits.slow_min_bytes or d[SEGMENTS] < limits.min_segments or active < limits.min_active_s:
        return
    rate = d[PAYLOAD] * 8 / active
    reason = limited_by(conn, d, st.settings.window.limited_share)
    if rate >= limits.slow_bps or reason is None:
        return
    sender, receiver = _ends_of(conn, session, d)
    out.add(
        "tcp.throughput.slow",
        "low",
        0.5,
        f"Slow transfer to {st.address_text(receiver)}",
        f"{many_bytes(d[PAYLOAD])} from {st.address_text(sender)} to {st.address_text(receiver)} ran at "
        f"{rate / 1000:.0f} kbit/s; what held it back: {reason}.",
        frames=[conn.frame],
        last_frame=session.last_frame,
        count=d[SEGMENTS],
        first_ns=conn.time,
        last_ns=session.last,
        flow=conn.frame,
        source=sender,
        target=receiver,
        port=session.port,
        evidence={"bps": rate, "bytes": d[PAYLOAD], "limit": reason},
        threshold={"bps": limits.slow_bps, "bytes": limits.slow_min_bytes},
        advice="tcp.throughput",
    )


def _reset(st: State, out: Findings, conn: Connection, session: Session, scanners: set[bytes]) -> None:
    reset = conn.reset
    if reset is None or reset[3] == "after FIN":
        return
    by_orig, frame, t, phase, plausible, jump, sent = reset
    sender = session.source if by_orig else session.target
    d = conn.orig if by_orig else conn.resp
    # Who resets a connection sends no more of it: new data, a SYN-ACK or a FIN afterwards come from the real owner.
    went_on = d is not None and d[NSEQ_TIME] is not None and d[NSEQ_TIME] > t
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
        f"ended the connection with {_who(st, session)} {phase}" + (f"; {strange}." if injected else "."),
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


def _ends(st: State, out: Findings, conn: Connection, session: Session) -> None:
    limits = st.settings.handshake
    idle = (st.max_ns - session.last) / SECOND
    if conn.reset is not None or idle <= min(limits.half_closed_s, limits.zombie_s):
        return
    waiting = [d for d in (conn.orig, conn.resp) if d is not None and unacked(d)]
    both = conn.orig is not None and conn.resp is not None
    if waiting and both and idle > limits.zombie_s:
        d = waiting[0]
        sender, receiver = _ends_of(conn, session, d)
        out.add(
            "tcp.state.zombie",
            "medium",
            0.8,
            f"Connection to {st.address_text(session.target)}:{session.port} went dead",
            f"{unacked(d)} bytes from {st.address_text(sender)} to {st.address_text(receiver)} "
            "were never acknowledged and "
            f"nothing was sent for the last {short_s(idle)}.",
            frames=[d[LAST_FRAME]],
            first_ns=d[LAST],
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
        closed = conn.orig if conn.orig is not None and conn.orig[FIN] is not None else conn.resp
        assert closed is not None
        out.add(
            "tcp.state.half_closed",
            "low",
            1.0,
            f"Half-closed connection to {st.address_text(session.target)}:{session.port}",
            f"Only one side closed; the other one has been silent for {short_s(idle)}.",
            frames=[closed[FIN][1]],
            first_ns=closed[FIN][0],
            last_ns=session.last,
            flow=conn.frame,
            source=session.source,
            target=session.target,
            evidence={"idle_s": idle},
            threshold={"idle_s": limits.half_closed_s},
            advice="tcp.half_closed",
        )


def _gaps(st: State, out: Findings, conn: Connection, session: Session) -> None:
    if not conn.gaps:
        return
    limits = st.settings.gap
    for awaited in ("acknowledgement", "server"):
        found = [gap for gap in conn.gaps if gap[4] == awaited]
        if not found:
            continue
        longest = max(found)
        what = "the server's answer" if awaited == "server" else "an acknowledgement"
        out.add(
            f"tcp.gap.{awaited}",
            "medium" if longest[0] > limits.medium_s * SECOND else "low",
            0.8,
            f"Silence of {short_s(longest[0] / SECOND)} with {st.address_text(session.target)}:{session.port}",
            f"{len(found)} {'silence' if len(found) == 1 else 'silences'} in the middle of a transfer "
            f"with {_who(st, session)} while {what} was awaited, "
            f"the longest {short_s(longest[0] / SECOND)}.",
            frames=sorted({frame for gap in found for frame in gap[2:4]}),
            count=len(found),
            first_ns=found[0][1] - found[0][0],
            last_ns=found[-1][1],
            flow=conn.frame,
            source=session.source,
            target=session.target,
            port=session.port,
            evidence={"longest_s": longest[0] / SECOND, "count": len(found)},
            threshold={"gap_s": limits.low_s, "medium_s": limits.medium_s},
            advice="tcp.gap",
        )
