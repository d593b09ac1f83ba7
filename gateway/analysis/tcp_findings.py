"""Detectors of trouble in the middle of a TCP connection: loss, round trips, windows, silences, slow transfers."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.analysis.connection_findings import ends_of, who
from gateway.analysis.findings import Findings
from gateway.analysis.flow_rows import active_ns, limited_by
from gateway.analysis.flows import MASK, Connection, Direction
from gateway.analysis.measures import SECOND, counted, graded, many_bytes, percent, rank, short_s
from gateway.analysis.sessions import Session, of_connection
from gateway.analysis.settings import Rtt

if TYPE_CHECKING:
    from gateway.analysis.state import State


def detect(st: State, out: Findings) -> None:
    """All detectors of this module."""
    for conn in st.connections:
        session = of_connection(conn)
        for d in (conn.orig, conn.resp):
            if d is not None:
                if d.trouble is not None:
                    _loss(st, out, conn, session, d)
                    _black_hole(st, out, conn, session, d)
                _rtt(st, out, conn, session, d)
                if d.trouble is not None:
                    _window(st, out, conn, session, d)
                _slow(st, out, conn, session, d)
        _gaps(st, out, conn, session)


def _loss(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    trouble = d.trouble
    if trouble is None:
        return
    limits = st.settings.loss
    sender, receiver = ends_of(conn, session, d)
    segments = max(1, d.segments)
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
            f"{genuine:,} of {counted(d.segments, 'data segment')} from {st.address_text(sender)} to "
            f"{st.address_text(receiver)} ({percent(rate)}) were lost and sent again, {timeouts:,} of them after a "
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
                "segments": d.segments,
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
            evidence={"dsack": trouble.dsack, "segments": d.segments},
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
            f"{trouble.reordered:,} of {d.segments:,} segments from {st.address_text(sender)} arrived here out of "
            "order, without having been sent again.",
            frames=row[4] if row is not None else [conn.frame],
            count=trouble.reordered,
            first_ns=row[1] if row is not None else conn.time,
            last_ns=row[3] if row is not None else session.last,
            flow=conn.frame,
            source=sender,
            target=receiver,
            evidence={"reordered": trouble.reordered, "segments": d.segments},
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
            last_frame=session.last_frame,
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
    ordered = d.rtts
    limits = st.settings.rtt
    if ordered is None or len(ordered) < limits.min_samples:
        return
    if ordered[-1] < min(limits.low_s, limits.bufferbloat_s, limits.spike_s) * SECOND:
        return  # neither far away nor queued nor uneven, whatever their order
    middle, high, least = rank(ordered, 0.5), rank(ordered, 0.95), ordered[0]
    _, receiver = ends_of(conn, session, d)
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
            f"{len(ordered):,}, least {short_s(least / SECOND)}).",
            evidence={"median_s": middle / SECOND, "min_s": least / SECOND, "p95_s": high / SECOND, "n": len(ordered)},
            threshold={"low_s": limits.low_s, "medium_s": limits.medium_s, "high_s": limits.high_s},
            advice="tcp.rtt",
            **common,
        )
    spikes, limit = rtt_spikes(ordered, limits)
    if spikes >= limits.spike_min and spikes <= limits.spike_share * len(ordered):
        ended = sorted((t, frame) for trip, t, frame in d.slow if trip > limit)
        out.add(
            "tcp.rtt.spikes",
            "low",
            0.5,
            f"Round trip to {st.address_text(receiver)} jumps",
            f"{spikes:,} of {len(ordered):,} round trips to {st.address_text(receiver)} took far longer than the usual "
            f"{short_s(middle / SECOND)}, up to {short_s(ordered[-1] / SECOND)}.",
            evidence={"spikes": spikes, "n": len(ordered), "median_s": middle / SECOND, "max_s": ordered[-1] / SECOND},
            threshold={"above_s": limits.spike_s, "ratio": limits.spike_ratio, "count": limits.spike_min},
            advice="tcp.rtt",
            **{
                **common,
                "frames": [frame for _, frame in ended],
                "count": spikes,
                "first_ns": ended[0][0],
                "last_ns": ended[-1][0],
                "last_frame": ended[-1][1],
            },
        )
    peak = d.peak * 8.0
    active = active_ns(d) / SECOND
    mean = d.payload * 8 / active if active >= 1 else 0.0
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


def rtt_spikes(ordered: Sequence[int], limits: Rtt) -> tuple[int, float]:
    """How many of some sorted round trips are far above their median, and from how many nanoseconds on."""
    middle = rank(ordered, 0.5)
    limit = max(limits.spike_ratio * middle, middle + limits.spike_s * SECOND)
    return len(ordered) - bisect_right(ordered, limit), limit


def _black_hole(st: State, out: Findings, conn: Connection, session: Session, d: Direction) -> None:
    """A large segment that never arrives while small ones do, and no router says why (RFC 2923 section 2.1)."""
    trouble = d.trouble
    limits = st.settings.icmp
    other = conn.resp if d is conn.orig else conn.orig
    if len(trouble.resent) < limits.black_hole_repeats or other is None or other.la is None or d.base is None:
        return
    sender, receiver = ends_of(conn, session, d)
    if receiver in st.icmp.mtu:
        return  # somebody does say why
    again: dict[int, list[Any]] = defaultdict(list)
    for entry in trouble.resent:
        if entry[1] - entry[0] & MASK >= limits.black_hole_bytes:
            again[entry[0]].append(entry)
    for begin, entries in again.items():
        size = entries[0][1] - begin & MASK
        before = begin - d.base & MASK
        arrived = d.segments - len(trouble.resent)
        if (
            len(entries) < limits.black_hole_repeats
            or conn.ack_time is None
            or not (
                other.la == begin or any(item[0] == begin and item[1] - begin & MASK < size for item in trouble.resent)
            )
            # What went through before was smaller, and the receiver is still there to say so.
            or before > size * max(1, arrived) / 2
            or other.last < entries[0][3]
        ):
            continue
        out.add(
            "ip.pmtu.black_hole",
            "high",
            0.5,
            f"Large packets to {st.address_text(receiver)} vanish",
            f"A segment of {size:,} bytes from {st.address_text(sender)} was sent {len(entries) + 1} times without "
            f"ever being acknowledged, while smaller packets pass and no router says that it is too large: somewhere "
            "on the way the packet size is limited and the message about it is dropped.",
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
    trouble = d.trouble
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
    receiver, sender = ends_of(conn, session, d)
    row = (conn.events or {}).get("zero_window")
    out.add(
        "tcp.window.zero",
        grade,
        1.0,
        f"{st.address_text(receiver)} does not take its data",
        f"The program at {st.address_text(receiver)} did not read: its window was closed for {short_s(zero)} in "
        f"{trouble.zero_count:,} packets, {percent(min(1.0, zero / active))} of the connection, "
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
    if d.payload < limits.slow_min_bytes or d.segments < limits.min_segments or active < limits.min_active_s:
        return
    rate = d.payload * 8 / active
    reason = limited_by(conn, d, st.settings.window.limited_share)
    if rate >= limits.slow_bps or reason in (None, "sender application"):  # who has nothing to send is not slow
        return
    sender, receiver = ends_of(conn, session, d)
    out.add(
        "tcp.throughput.slow",
        "low",
        0.5,
        f"Slow transfer to {st.address_text(receiver)}",
        f"{many_bytes(d.payload)} from {st.address_text(sender)} to {st.address_text(receiver)} ran at "
        f"{rate / 1000:.0f} kbit/s; what held it back: {reason}.",
        frames=[conn.frame],
        last_frame=session.last_frame,
        count=d.segments,
        first_ns=conn.time,
        last_ns=session.last,
        flow=conn.frame,
        source=sender,
        target=receiver,
        port=session.port,
        evidence={"bps": rate, "bytes": d.payload, "limit": reason},
        threshold={"bps": limits.slow_bps, "bytes": limits.slow_min_bytes},
        advice="tcp.throughput",
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
            f"{len(found):,} {'silence' if len(found) == 1 else 'silences'} in the middle of a transfer "
            f"with {who(st, session)} while {what} was awaited, "
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
