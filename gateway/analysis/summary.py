"""The sections of the report that are sums: capture, capture health, TCP, protocols, series."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gateway.analysis.flow_rows import handshake_state, one_sided, side_of
from gateway.analysis.link import DECODED
from gateway.analysis.measures import SECOND, median, stats_ms
from gateway.analysis.sessions import Session, attempts, conn_state, of_attempt
from gateway.analysis.words import Side

if TYPE_CHECKING:
    from gateway.analysis.flows import Connection
    from gateway.analysis.reader import Reader
    from gateway.analysis.report import (
        Capture,
        CaptureHealth,
        Count,
        Finding,
        Mark,
        Note,
        Protocols,
        Series,
        TcpSummary,
    )
    from gateway.analysis.report_protocols import FragmentSummary
    from gateway.analysis.state import State

_SAMPLES = 4096
_MAX_BINS = 2000


class TcpTotals:
    """Sums over all connections that several parts of the report need; made once."""

    def __init__(self, st: State) -> None:
        self.segments = self.retransmitted = self.lost = self.reordered = self.acks = 0
        self.sack_blocks = self.dsack = self.reneged = 0
        self.zero_ns = self.active_ns = 0
        self.causes: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self.sides: Counter[str] = Counter()
        self.rtts: list[tuple[int, int]] = []  # median of the larger side of a flow, its samples
        self.irtts: list[int] = []
        self.one_sided = self.large = 0
        self.one_way: list[Connection] = []  # the first of those
        self.towards_client = self.towards_server = 0  # segments lost on either side of the capture point
        least = st.settings.asymmetry.min_packets
        for conn in st.connections:
            self._connection(st, conn, least)
        late = st.max_ns - st.settings.handshake.unanswered_s * SECOND
        silent: list[Any] = [  # Any: times in ns
            half[0] for _, half in attempts(st) if half[12] is half[11] is None and not half[10]
        ]
        if silent:  # the bare SYNs of a flood
            self.states["S0"] += len(silent)
            self.handshakes.update("cut-at-end" if time >= late else "no-answer" for time in silent)
        for key, half in attempts(st):
            if half[12] is half[11] is None and not half[10]:
                continue
            session: Session = of_attempt(key, half)
            self.states["S0" if session.state == "S1H" else session.state] += 1
            idle = (st.max_ns - session.last) / SECOND
            if session.state == "REJ":
                self.handshakes["refused"] += 1
            elif idle <= st.settings.handshake.unanswered_s:
                self.handshakes["cut-at-end"] += 1
            else:
                self.handshakes["client-silent" if session.answered else "no-answer"] += 1

    def _connection(self, st: State, conn: Connection, least: int) -> None:
        self.states[conn_state(conn)] += 1
        last = max(d.last for d in (conn.orig, conn.resp) if d is not None)
        self.handshakes[handshake_state(conn, (st.max_ns - last) / SECOND, st.settings.handshake.unanswered_s)] += 1
        self.sides[side_of(conn)] += 1
        if one_sided(conn, least):
            self.one_sided += 1
            if len(self.one_way) < st.frames_cap:
                self.one_way.append(conn)
        if conn.irtt and len(self.irtts) < _SAMPLES:
            self.irtts.append(conn.irtt)
        self.active_ns += max(0, last - conn.time)
        path = samples = 0
        for d in (conn.orig, conn.resp):
            if d is None:
                continue
            self.segments += d.segments
            self.acks += d.packets
            if d.rtts:
                middle = median(d.rtts)
                if middle > path:
                    path, samples = middle, len(d.rtts)
            trouble = d.trouble
            if trouble is None:
                continue
            self.retransmitted += trouble.retransmitted
            self.reordered += trouble.reordered
            self.lost += trouble.retransmitted - trouble.needless
            self.sack_blocks += trouble.sack_blocks
            self.dsack += trouble.dsack
            self.reneged += trouble.reneged
            self.zero_ns += trouble.zero_time
            self.causes.update(trouble.cause)
            upwards = d is conn.orig
            self.towards_server += trouble.lost_behind if upwards else trouble.lost_before
            self.towards_client += trouble.lost_before if upwards else trouble.lost_behind
        if samples:
            self.rtts.append((path, samples))

    @property
    def path_rtt(self) -> int | None:
        """The round trip that half of all samples do not exceed, each flow counted by its larger side."""
        left = sum(count for _, count in self.rtts) / 2
        for path, count in sorted(self.rtts):
            left -= count
            if left <= 0:
                return path
        return None

    @property
    def side(self) -> Side:
        """Where the capture was taken, by the majority of the handshakes that can tell."""
        votes = {name: count for name, count in self.sides.items() if name != "unknown"}
        if not votes:
            return "unknown"
        ordered = sorted(votes.items(), key=lambda item: -item[1])
        if len(ordered) > 1 and ordered[0][1] == ordered[1][1]:
            return "unknown"
        winner = ordered[0][0]
        return winner if winner in ("client", "server", "middle") else "unknown"  # type: ignore[return-value]


def capture(st: State, reader: Reader, name: str) -> Capture:
    """What the file is."""
    notes: list[Note] = []
    found = st.notes
    for key, count in found.counts.items():
        notes.append(
            {
                "name": key,
                "count": count,
                "sentence": found.sentences[key],
                "frame": found.frames[key],
                "offset": found.offsets[key],
            }
        )
    interfaces = [item for item in st.interfaces if item.twin_of is None]
    for item in st.interfaces:
        if item.twin_of is not None:
            st.interfaces[item.twin_of].packets += item.packets
    return {
        "name": name,
        "sha256": reader.sha256,
        "bytes": reader.stored_bytes,
        "unpacked_bytes": reader.unpacked_bytes,
        "format": reader.format,
        "interfaces": [
            {
                "name": item.name,
                "linktype": item.linktype,
                "linktype_name": item.linktype_name,
                "resolution": item.resolution,
                "snaplen": item.snaplen,
                "packets": item.packets,
                "decoded": item.linktype in DECODED,
            }
            for item in interfaces[:100]
        ],
        "packets": st.frame,
        "first_unix_ns": st.first_ns,
        "duration_s": max(0, st.max_ns - (st.first_ns or 0)) / SECOND,
        "wire_bytes": st.wire_bytes,
        "captured_bytes": st.captured_bytes,
        "notes": notes,
    }


def copies(st: State) -> int:
    """How often each packet was recorded, 1 without a pattern."""
    share = st.duplicates / max(1, st.frame)
    if share <= st.settings.loss.duplicate_share:
        return 1
    return max(2, round(1 / max(0.01, 1 - share)))


def capture_health(st: State, totals: TcpTotals) -> CaptureHealth:
    """What the recording did to the traffic before anybody could look at it."""
    return {
        "cut": st.cut,
        "duplicates": st.duplicates,
        "copies": copies(st),
        "offload": st.offload,
        "backwards": st.backwards,
        "one_sided": totals.one_sided,
        "side": totals.side,
        "side_votes": dict(sorted(totals.sides.items())),
        "drops_proved": st.drops,
        "missing_bytes": st.missing_bytes,
        "unknown_linktype": st.undecoded,
        "malformed": sum(count for count, _ in st.malformed.values()),
        "pauses": [
            {"from_frame": before, "to_frame": after, "gap_s": gap / SECOND} for gap, before, after, _ in st.pauses[:20]
        ],
    }


def tcp(st: State, totals: TcpTotals) -> TcpSummary:
    """TCP over the whole file."""
    row = st.transport.get("TCP", [0, 0])
    return {
        "streams": st.streams,
        "packets": row[0],
        "data_segments": totals.segments,
        "syn": st.syn,
        "syn_ack": st.syn_ack,
        "fin": st.fin,
        "rst": st.rst,
        "attempts": sum(totals.handshakes.values()) - totals.handshakes["not-seen"] + st.folded_half,
        "labels": dict(sorted(st.labels.items())),
        "label_frames": dict(sorted(st.label_frames.items())),
        "evidence": dict(st.evidence),
        "cause": dict(sorted(totals.causes.items())),
        "retransmissions": totals.retransmitted,
        "reordered": totals.reordered,
        "loss_rate": totals.lost / totals.segments if totals.segments else None,
        "handshakes": dict(sorted(totals.handshakes.items())),
        "conn_states": dict(sorted(totals.states.items())),
        "rtt_ms": stats_ms([path for path, _ in totals.rtts]),
        "irtt_ms": stats_ms(totals.irtts),
        "sack": {"blocks": totals.sack_blocks, "dsack": totals.dsack, "reneged": totals.reneged},
        "unit": "of segments" if st.offload else "of packets",
        "reused_ports": st.reused,
    }


def fragments(st: State) -> FragmentSummary:
    """IP fragments over the whole file."""
    table = st.fragments
    return {
        "packets": table.packets,
        "groups": table.total,
        "complete": table.complete,
        "incomplete": table.incomplete,
        "overlapping": table.overlapping,
        "tiny_first": table.tiny,
        "oversize": table.oversize,
    }


def protocols(st: State) -> Protocols:
    """Packets and bytes on the wire by layer."""
    total = max(1, st.wire_bytes)

    def counts(table: dict[Any, list[int]]) -> dict[str, Count]:
        ordered = sorted(table.items(), key=lambda item: (-item[1][1], str(item[0])))[:200]
        return {str(name): {"packets": row[0], "bytes": row[1], "share": row[1] / total} for name, row in ordered}

    link: dict[str, list[int]] = {}
    for item in st.interfaces:
        row = link.setdefault(item.linktype_name, [0, 0])
        row[0] += item.packets
    if len(link) == 1:
        next(iter(link.values()))[1] = st.wire_bytes
    return {
        "link": counts(link),
        "network": counts(st.network),
        "transport": counts(st.transport),
        "vlans": counts(st.vlans),
        "tunnels": counts(st.tunnels),
    }


def series(st: State, findings: list[Finding]) -> Series:
    """Packets and bytes over time, at most 2,000 bins, with the findings as marks."""
    first = st.first_ns or 0
    width = st.bin_ns
    span = max(st.max_ns - first, 1)
    while span / width > _MAX_BINS or (width < SECOND and span >= 20 * SECOND):
        width *= 10 if width == SECOND // 10 else 2
    size = int(span // width) + 1
    packets, octets = [0] * size, [0] * size
    for number, (count, amount, _) in st.bins.items():
        # Bins count from the epoch: one that begins before the first packet belongs to the first bin.
        index = min(size - 1, max(0, (number * st.bin_ns - first) // width))
        packets[index] += count
        octets[index] += amount
    marks: list[Mark] = [
        {"t": row["first"]["t"], "finding": row["id"], "severity": row["severity"]}
        for row in findings
        if row["severity"] != "info" and row["muted"] is None
    ]
    return {"bin_s": width / SECOND, "packets": packets, "bytes": octets, "marks": marks[:200]}
