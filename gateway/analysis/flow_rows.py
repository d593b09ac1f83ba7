"""Flows for the report: the thousand that matter most, the troubled ones first."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

from gateway.analysis.flows import RESENT, Connection, Direction, Trouble
from gateway.analysis.fold import attempt_traffic, split_key
from gateway.analysis.measures import MS, SECOND, rank, stats_ms
from gateway.analysis.services import service_of, shape_of_tcp, shape_of_udp
from gateway.analysis.sessions import Session, attempts, conn_state, of_attempt, of_connection
from gateway.analysis.tcp import unacked
from gateway.analysis.udp import U_BYTES, U_LAST, U_LAST_FRAME, U_PACKETS, U_PAYLOAD, UdpFlow
from gateway.analysis.words import Side

if TYPE_CHECKING:
    from gateway.analysis.report import DirectionRow, FlowRow, Flows, HandshakeRow
    from gateway.analysis.state import State

_NO_TROUBLE = Trouble()
_ABSENT = Direction(None, 0, 0, 0, 0)  # in place of a direction of which nothing was recorded


def active_ns(d: Direction) -> int:
    """Time between the first and last packet of a direction less its silences of over a second."""
    return max(0, int(d.last - d.first - d.idle))


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
    return None


def direction_row(conn: Connection, d: Direction | None, share: float) -> DirectionRow:
    """One direction of a connection for the report."""
    if d is None:
        d = _ABSENT
        missing = True
    else:
        missing = False
    trouble: Trouble = d.trouble or _NO_TROUBLE
    options = conn.options if d is conn.orig else conn.resp_options
    active = active_ns(d) / SECOND
    known = bool(d.known)
    scale = d.shift if known else None
    cause = trouble.cause
    unique = max(0, d.payload - trouble.retransmitted_bytes)
    return {
        "segments": d.segments,
        "retrans": trouble.retransmitted,
        "fast": trouble.fast,
        "spurious": trouble.spurious,
        "out_of_order": trouble.out_of_order,
        "retransmission": trouble.labelled,
        "hole_fills": trouble.hole_fills,
        "reordered": trouble.reordered,
        "seen_again": trouble.seen_again,
        "rto": cause.get("rto", 0) + cause.get("rto-backoff", 0),
        "tail_probes": cause.get("tail-probe", 0),
        "duplicate_acks": trouble.duplicate_acks,
        "lost_segments": trouble.lost,
        "missing_bytes": trouble.missing_bytes,
        "zero_windows": trouble.zero_count,
        "zero_window_s": trouble.zero_time / SECOND,
        "window_full": trouble.full,
        "keepalives": trouble.keepalives,
        "min_window": None if missing or not d.wmax else d.wmin << (scale or 0),
        "max_window": None if missing or not d.wmax else d.wmax << (scale or 0),
        "window_scale": scale,
        "mss": options[0] if options is not None else None,
        "sack": options[2] if options is not None else None,
        "timestamps": options[3] if options is not None else None,
        "sack_blocks": trouble.sack_blocks,
        "dsack": trouble.dsack,
        "reneged": trouble.reneged,
        "max_in_flight": d.max_flight,
        "bps": unique * 8 / active if active >= 0.5 and d.segments >= 10 else None,
        "peak_bps": d.peak * 8.0 if active >= 0.5 and d.segments >= 10 else None,
        "unique_bytes": unique,
        "active_s": active,
        "unacked_bytes": 0 if missing else unacked(d),
        "limited_by": None if missing else limited_by(conn, d, share),
    }


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
        "syn_intervals_s": [(later - before) / SECOND for before, later in itertools.pairwise(times)],
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
    values = [rank(d.rtts, 0.5) for d in (conn.orig, conn.resp) if d is not None and d.rtts]
    if values:
        return sum(values) if len(values) == 2 else values[0]
    return conn.irtt


def _tcp_row(st: State, session: Session) -> FlowRow:
    conn = session.connection
    assert conn is not None
    _, _, sport, port = split_key(conn.key)
    orig, resp = conn.orig, conn.resp
    share = st.settings.window.limited_share
    up, down = direction_row(conn, orig, share), direction_row(conn, resp, share)
    shape = shape_of_tcp(conn.orig, conn.resp)
    service, confidence, why = service_of(st, conn.service, conn.name, "tcp", port, shape=shape)
    rtt = median_rtt(conn)
    reset = conn.reset
    vlan = orig.vlan if orig is not None else (resp.vlan if resp is not None else 0)
    return {
        "uid": f"C{conn.frame}",
        "proto": "tcp",
        "orig_host": st.address_text(session.source),
        "orig_port": sport,
        "resp_host": st.address_text(session.target),
        "resp_port": port,
        "vlan": vlan if vlan and vlan > 0 else None,
        "service": service,
        "service_confidence": confidence,
        "service_why": why,
        "name": conn.name or st.dns.addresses.get(session.target),
        "start": st.seconds(conn.time),
        "duration": max(0.0, (session.last - conn.time) / SECOND),
        "idle_s": max(0.0, (st.max_ns - session.last) / SECOND),
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
        "offset": st.record_offset(conn.offset),
        "trouble": _trouble(st, conn),
        "tcp": {
            "handshake": handshake_row(st, conn, session.last),
            "rtt_client_ms": stats_ms(resp.rtts) if resp is not None else None,
            "rtt_server_ms": stats_ms(orig.rtts) if orig is not None else None,
            "dropped_by_karn": sum(1 for d in (orig, resp) if d is not None for item in d.out if item[1] == RESENT),
            "side": side_of(conn),
            "one_sided": one_sided(conn, st.settings.asymmetry.min_packets),
            "reset_by": None if reset is None else ("orig" if reset[0] else "resp"),
            "reset_frame": None if reset is None else reset[1],
            "reset_phase": None if reset is None else reset[3],
            "orig": up,
            "resp": down,
            "events": {kind: row[4][: st.frames_cap] for kind, row in sorted((conn.events or {}).items())},
        },
    }


def _trouble(st: State, conn: Connection) -> float:
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
    score += 5 * max(0, len(conn.syn_times) - 1)
    if conn.gaps:
        score += 10 * len(conn.gaps)
    return score + min(0.99, size / 1e12)


def _attempt_row(st: State, session: Session, key: bytes, half: tuple[Any, ...]) -> FlowRow:
    sent, received, sent_bytes, received_bytes = attempt_traffic(half)
    _, _, sport, port = split_key(key)
    service, confidence, why = service_of(st, None, None, "tcp", port)
    return {
        "uid": f"C{session.frame}",
        "proto": "tcp",
        "orig_host": st.address_text(session.source),
        "orig_port": sport,
        "resp_host": st.address_text(session.target),
        "resp_port": port,
        "vlan": half[7] or None,
        "service": service,
        "service_confidence": confidence,
        "service_why": why,
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
        "offset": st.record_offset(half[2]),
        "trouble": 5.0 * len(half[10]),
    }


def _udp_row(st: State, flow: UdpFlow) -> FlowRow:
    source, target, sport, port = split_key(flow.key)
    orig, resp = flow.orig, flow.resp
    last = max(d[U_LAST] for d in (orig, resp) if d is not None)
    shape = shape_of_udp(flow.orig, flow.resp)
    service, confidence, why = service_of(st, flow.service, flow.name, "udp", port, sport, shape)
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
        "offset": st.record_offset(flow.offset),
        "trouble": 0.0,
    }


def build(st: State, wanted: set[int]) -> Flows:
    """The flows of the report; those whose first frame is in `wanted` (they have findings) come in any case."""
    cap = st.settings.tables.rows
    ranked: list[tuple[float, int, Any]] = [
        (_trouble(st, conn) + (1e6 if conn.frame in wanted else 0), -conn.frame, conn) for conn in st.connections
    ]
    ranked += [
        (
            min(0.99, sum(d[U_BYTES] for d in (flow.orig, flow.resp) if d is not None) / 1e12)
            + (1e6 if flow.frame in wanted else 0),
            -flow.frame,
            flow,
        )
        for flow in st.udp_flows
    ]
    rows: list[FlowRow] = []
    for _, _, item in heapq.nlargest(cap, ranked, key=lambda entry: entry[:2]):
        if isinstance(item, Connection):
            rows.append(_tcp_row(st, of_connection(item)))
        else:
            rows.append(_udp_row(st, item))
    room = max(0, cap - len(rows))
    for key, half in attempts(st):
        if not room:
            break
        rows.append(_attempt_row(st, of_attempt(key, half), key, half))
        room -= 1
    rows.sort(key=lambda row: (-row["trouble"], row["first_frame"]))
    total = len(ranked) + len(st.half) + len(st.old_half) + st.folded
    return {"total": total, "folded": st.folded, "rows": rows}


__all__ = ["build", "conn_state", "median_rtt", "one_sided", "side_of"]
