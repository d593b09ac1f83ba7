"""Flows for the report: the thousand that matter most, the troubled ones first."""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.flows import RESENT, Connection, Direction, Trouble
from gateway.analysis.fold import attempt_traffic, split_key
from gateway.analysis.measures import MS, SECOND, median, stats_ms
from gateway.analysis.services import service_by_port, service_of_tcp, service_of_udp
from gateway.analysis.sessions import Session, attempts, conn_state, of_attempt, of_connection
from gateway.analysis.tcp import unacked
from gateway.analysis.udp import U_BYTES, U_LAST, U_LAST_FRAME, U_PACKETS, U_PAYLOAD, UdpFlow
from gateway.analysis.words import Side

if TYPE_CHECKING:
    from gateway.analysis.report import DirectionRow, FlowRow, Flows, HandshakeRow
    from gateway.analysis.state import State

# The row of a direction of which nothing was recorded. Most have no trouble either: theirs are copies with a few fields
# filled in, which takes a third of the time that making them anew does.
_UNEVENTFUL: Final[DirectionRow] = {
    "segments": 0,
    "retrans": 0,
    "fast": 0,
    "spurious": 0,
    "out_of_order": 0,
    "retransmission": 0,
    "hole_fills": 0,
    "reordered": 0,
    "seen_again": 0,
    "rto": 0,
    "tail_probes": 0,
    "duplicate_acks": 0,
    "lost_segments": 0,
    "missing_bytes": 0,
    "zero_windows": 0,
    "zero_window_s": 0.0,
    "window_full": 0,
    "keepalives": 0,
    "min_window": None,
    "max_window": None,
    "window_scale": None,
    "mss": None,
    "sack": None,
    "timestamps": None,
    "sack_blocks": 0,
    "dsack": 0,
    "reneged": 0,
    "max_in_flight": 0,
    "bps": None,
    "peak_bps": None,
    "unique_bytes": 0,
    "active_s": 0.0,
    "unacked_bytes": 0,
    "limited_by": None,
}


def active_ns(d: Direction) -> int:
    """Time between the first and last packet of a direction less its silences of over a second."""
    span: int = d.last - d.first - d.idle
    return span if span > 0 else 0


def limited_by(conn: Connection, d: Direction, share: float) -> str | None:
    """What held a sender back, judged over the whole transfer; None where nothing can be said."""
    trouble = d.trouble
    segments = d.segments
    if segments < 10:
        return None
    other = conn.resp if d is conn.orig else conn.orig
    if other is not None and other.trouble is not None and other.trouble.zero_time > share * max(1, active_ns(d)):
        return "receiver application"
    if other is not None and other.known and d.tight > share * segments:
        return "receiver window"
    if trouble is not None and trouble.retransmitted > max(2, 0.005 * segments):
        return "network"
    if d.idle > share * max(1, d.last - d.first):
        return "sender application"  # none of the others made it wait
    return None


def direction_row(conn: Connection, d: Direction | None, share: float) -> DirectionRow:
    """One direction of a connection for the report."""
    row = _UNEVENTFUL.copy()
    if d is None:
        return row
    options = conn.options if d is conn.orig else conn.resp_options
    if options is not None:
        row["mss"], _, row["sack"], row["timestamps"] = options
    shift = 0
    if d.known:
        row["window_scale"] = shift = d.shift
    if d.wmax:
        row["min_window"] = d.wmin << shift
        row["max_window"] = d.wmax << shift
    active_s = active_ns(d) / SECOND
    unique = d.payload
    segments = d.segments
    trouble: Trouble | None = d.trouble
    if trouble is not None:
        unique -= trouble.retransmitted_bytes
        _put_trouble(row, trouble)
    if unique < 0:
        unique = 0
    row["segments"] = segments
    row["max_in_flight"] = d.max_flight
    row["unique_bytes"] = unique
    row["active_s"] = active_s
    row["unacked_bytes"] = unacked(d)
    if segments >= 10:
        if active_s >= 0.5:
            row["bps"] = unique * 8 / active_s
            row["peak_bps"] = d.peak * 8.0
        row["limited_by"] = limited_by(conn, d, share)
    return row


def _put_trouble(row: DirectionRow, trouble: Trouble) -> None:
    """Fill in the rare events of a direction."""
    cause = trouble.cause
    row["retrans"] = trouble.retransmitted
    row["fast"] = trouble.fast
    row["spurious"] = trouble.spurious
    row["out_of_order"] = trouble.out_of_order
    row["retransmission"] = trouble.labelled
    row["hole_fills"] = trouble.hole_fills
    row["reordered"] = trouble.reordered
    row["seen_again"] = trouble.seen_again
    row["rto"] = cause.get("rto", 0) + cause.get("rto-backoff", 0)
    row["tail_probes"] = cause.get("tail-probe", 0)
    row["duplicate_acks"] = trouble.duplicate_acks
    row["lost_segments"] = trouble.lost
    row["missing_bytes"] = trouble.missing_bytes
    row["zero_windows"] = trouble.zero_count
    row["zero_window_s"] = trouble.zero_time / SECOND
    row["window_full"] = trouble.full
    row["keepalives"] = trouble.keepalives
    row["sack_blocks"] = trouble.sack_blocks
    row["dsack"] = trouble.dsack
    row["reneged"] = trouble.reneged


def handshake_state(conn: Connection, idle_s: float, unanswered_s: float) -> Any:
    """How far the handshake came."""
    if conn.syn_frame is None:
        return "not-seen"
    if conn.syn_ack_time is None:
        if conn.reset is not None:
            return "refused"
        return "no-answer" if idle_s > unanswered_s else "cut-at-end"
    if conn.ack_time is not None:
        return "complete"
    return "client-silent" if idle_s > unanswered_s else "cut-at-end"


def handshake_row(st: State, conn: Connection, last: int) -> HandshakeRow:
    """The handshake of a connection with its frames and times."""
    times = conn.syn_times
    closing = conn.ack_time if conn.ack_time is not None and conn.ack_time >= 0 else None
    answer = conn.syn_ack_time
    return {
        "syn_frame": conn.syn_frame,
        "last_syn_frame": conn.syn_frames[-1] if conn.syn_frames else None,
        "syn_ack_frame": conn.syn_ack_frame,
        "ack_frame": conn.ack_frame,
        "syn_count": len(times),
        "syn_ack_count": conn.syn_ack_count,
        "syn_intervals_s": []
        if len(times) < 2
        else [(later - before) / SECOND for before, later in itertools.pairwise(times)],
        "server_ms": (answer - times[-1]) / MS if answer is not None and times and answer >= times[-1] else None,
        "client_ms": (closing - answer) / MS
        if closing is not None and answer is not None and closing >= answer
        else None,
        "irtt_ms": conn.irtt / MS if conn.irtt else None,
        "ambiguous": len(times) > 1 or conn.syn_ack_count > 1,
        "state": handshake_state(conn, (st.max_ns - last) / SECOND, st.settings.handshake.unanswered_s),
    }


def side_of(conn: Connection) -> Side:
    """Where the capture was taken, judged by the handshake of one connection."""
    closing = conn.ack_time
    if conn.syn_ack_time is None or closing is None or closing < 0 or not conn.syn_times or not conn.irtt:
        return "unknown"
    server, client = conn.syn_ack_time - conn.syn_times[-1], closing - conn.syn_ack_time
    if server < 0 or client < 0 or conn.irtt < 100_000:
        return "unknown"
    if client < 0.1 * conn.irtt:
        return "client"
    return "server" if server < 0.1 * conn.irtt else "middle"


def one_sided(conn: Connection, least: int) -> bool:
    """Whether only one direction was recorded, though the other one must have existed."""
    orig, resp = conn.orig, conn.resp
    sent = orig.packets if orig is not None else 0
    back = resp.packets if resp is not None else 0
    return (sent >= least and back == 0) or (back >= least and sent == 0)


def median_rtt(conn: Connection) -> int | None:
    """The larger side's median round trip in ns; the handshake's where there are no samples."""
    values = [median(d.rtts) for d in (conn.orig, conn.resp) if d is not None and d.rtts]
    if values:
        return sum(values) if len(values) == 2 else values[0]
    return conn.irtt


def _tcp_row(st: State, conn: Connection, trouble: float, header: int) -> FlowRow:
    session = of_connection(conn)
    source, target, sport, port = split_key(conn.key)
    orig, resp = conn.orig, conn.resp
    share = st.settings.window.limited_share
    up, down = direction_row(conn, orig, share), direction_row(conn, resp, share)
    service, confidence, why = service_of_tcp(conn, port)
    rtt = median_rtt(conn)
    reset = conn.reset
    duration, idle = session.last - conn.time, st.max_ns - session.last
    vlan = orig.vlan if orig is not None else (resp.vlan if resp is not None else 0)
    return {
        "uid": f"C{conn.frame}",
        "proto": "tcp",
        "orig_host": st.address_text(source),
        "orig_port": sport,
        "resp_host": st.address_text(target),
        "resp_port": port,
        "vlan": vlan if vlan and vlan > 0 else None,
        "service": service,
        "service_confidence": confidence,
        "service_why": why,
        "name": conn.name or st.dns.addresses.get(target),
        "start": st.seconds(conn.time),
        "duration": duration / SECOND if duration > 0 else 0.0,
        "idle_s": idle / SECOND if idle > 0 else 0.0,
        "orig_pkts": orig.packets if orig is not None else 0,
        "resp_pkts": resp.packets if resp is not None else 0,
        "orig_bytes": session.up,
        "resp_bytes": session.down,
        "orig_wire_bytes": orig.bytes if orig is not None else 0,
        "resp_wire_bytes": resp.bytes if resp is not None else 0,
        "conn_state": session.state,
        "retrans": up["retrans"] + down["retrans"],
        "ooo": up["out_of_order"] + down["out_of_order"],
        "rtt_ms": rtt / MS if rtt is not None else None,
        "irtt_ms": conn.irtt / MS if conn.irtt else None,
        "zero_window": up["zero_windows"] + down["zero_windows"],
        "sni": conn.app.tls["sni"] if conn.app is not None and conn.app.tls is not None else None,
        "first_frame": conn.frame,
        "last_frame": session.last_frame,
        "offset": conn.offset - header,
        "trouble": trouble,
        "tcp": {
            "handshake": handshake_row(st, conn, session.last),
            "rtt_client_ms": stats_ms(resp.rtts) if resp is not None else None,
            "rtt_server_ms": stats_ms(orig.rtts) if orig is not None else None,
            "dropped_by_karn": _dropped_by_karn(orig) + _dropped_by_karn(resp),
            "side": side_of(conn),
            "one_sided": one_sided(conn, st.settings.asymmetry.min_packets),
            "reset_by": None if reset is None else ("orig" if reset[0] else "resp"),
            "reset_frame": None if reset is None else reset[1],
            "reset_phase": None if reset is None else reset[3],
            "orig": up,
            "resp": down,
            "events": {}
            if conn.events is None
            else {kind: row[4][: st.frames_cap] for kind, row in sorted(conn.events.items())},
        },
    }


def _dropped_by_karn(d: Direction | None) -> int:
    """Segments still unacknowledged that were sent twice, and so would give no round trip."""
    return sum(item[1] == RESENT for item in d.out) if d is not None and d.out else 0


def _trouble(conn: Connection) -> float:
    """How much is wrong with a connection, for sorting: trouble first, then size."""
    score = 0.0
    size = 0
    for d in (conn.orig, conn.resp):
        if d is None:
            continue
        size += d.bytes
        trouble = d.trouble
        if trouble is not None:
            score += 5 * trouble.retransmitted + 3 * trouble.reordered + trouble.lost + 20 * trouble.zero_time / SECOND
            score += 3 * trouble.zero_count + 2 * trouble.full + 10 * trouble.cause.get("rto", 0)
    if conn.reset is not None:
        score += 1
    if len(conn.syn_times) > 1:
        score += 5 * (len(conn.syn_times) - 1)
    if conn.gaps:
        score += 10 * len(conn.gaps)
    return score + min(0.99, size / 1e12)


def _attempt_row(st: State, session: Session, key: bytes, half: tuple[Any, ...], header: int) -> FlowRow:
    sent, received, sent_bytes, received_bytes = attempt_traffic(half)
    _, _, sport, port = split_key(key)
    service = service_by_port("tcp", port)
    return {
        "uid": f"C{session.frame}",
        "proto": "tcp",
        "orig_host": st.address_text(session.source),
        "orig_port": sport,
        "resp_host": st.address_text(session.target),
        "resp_port": port,
        "vlan": half[7] or None,
        "service": service,
        "service_confidence": None if service is None else 0.7,
        "service_why": None if service is None else "port",
        "name": st.dns.addresses.get(session.target),
        "start": st.seconds(session.start),
        "duration": max(0.0, (session.last - session.start) / SECOND),
        "idle_s": max(0.0, (st.max_ns - session.last) / SECOND),
        "orig_pkts": sent,
        "resp_pkts": received,
        "orig_bytes": 0,
        "resp_bytes": 0,
        "orig_wire_bytes": sent_bytes,
        "resp_wire_bytes": received_bytes,
        "conn_state": "S0" if session.state == "S1H" else session.state,
        "retrans": len(half[10]),
        "ooo": 0,
        "rtt_ms": None,
        "irtt_ms": None,
        "zero_window": 0,
        "sni": None,
        "first_frame": session.frame,
        "last_frame": session.last_frame,
        "offset": half[2] - header,
        "trouble": 5.0 * len(half[10]),
    }


def _udp_row(st: State, flow: UdpFlow, header: int) -> FlowRow:
    source, target, sport, port = split_key(flow.key)
    orig, resp = flow.orig, flow.resp
    last = max(d[U_LAST] for d in (orig, resp) if d is not None)
    service, confidence, why = service_of_udp(flow, sport, port)
    return {
        "uid": f"C{flow.frame}",
        "proto": "udp",
        "orig_host": st.address_text(source),
        "orig_port": sport,
        "resp_host": st.address_text(target),
        "resp_port": port,
        "vlan": flow.vlan or None,
        "service": service,
        "service_confidence": confidence,
        "service_why": why,
        "name": flow.name or st.dns.addresses.get(target),
        "start": st.seconds(flow.time),
        "duration": max(0.0, (last - flow.time) / SECOND),
        "idle_s": max(0.0, (st.max_ns - last) / SECOND),
        "orig_pkts": orig[U_PACKETS] if orig is not None else 0,
        "resp_pkts": resp[U_PACKETS] if resp is not None else 0,
        "orig_bytes": orig[U_PAYLOAD] if orig is not None else 0,
        "resp_bytes": resp[U_PAYLOAD] if resp is not None else 0,
        "orig_wire_bytes": orig[U_BYTES] if orig is not None else 0,
        "resp_wire_bytes": resp[U_BYTES] if resp is not None else 0,
        "conn_state": "SF" if resp is not None else "S0",
        "retrans": 0,
        "ooo": 0,
        "rtt_ms": None,
        "irtt_ms": None,
        "zero_window": 0,
        "sni": flow.app.sni if flow.app is not None else None,
        "first_frame": flow.frame,
        "last_frame": max(d[U_LAST_FRAME] for d in (orig, resp) if d is not None),
        "offset": flow.offset - header,
        "trouble": 0.0,
    }


def build(st: State, wanted: set[int]) -> Flows:
    """The flows of the report; those whose first frame is in `wanted` (they have findings) come in any case."""
    cap = st.settings.tables.rows
    header = st.record_header()
    ranked: list[tuple[float, int, float, Any]] = []  # with a bonus for the wanted, frame, without, the flow
    for conn in st.connections:
        trouble, frame = _trouble(conn), conn.frame
        ranked.append((trouble + 1e6 if frame in wanted else trouble, -frame, trouble, conn))
    for flow in st.udp_flows:
        size = 0
        for d in (flow.orig, flow.resp):
            if d is not None:
                size += d[U_BYTES]
        trouble, frame = min(0.99, size / 1e12), flow.frame
        ranked.append((trouble + 1e6 if frame in wanted else trouble, -frame, trouble, flow))
    ranked.sort(key=itemgetter(0, 1), reverse=True)
    rows: list[FlowRow] = []
    for _, _, trouble, item in ranked[:cap]:
        if isinstance(item, Connection):
            rows.append(_tcp_row(st, item, trouble, header))
        else:
            rows.append(_udp_row(st, item, header))
    room = max(0, cap - len(rows))
    for key, half in attempts(st):
        if not room:
            break
        rows.append(_attempt_row(st, of_attempt(key, half), key, half, header))
        room -= 1
    rows.sort(key=lambda row: (-row["trouble"], row["first_frame"]))
    total = len(ranked) + len(st.half) + len(st.old_half) + st.folded
    return {"total": total, "folded": st.folded, "rows": rows}


__all__ = ["build", "conn_state", "median_rtt", "one_sided", "side_of"]
