"""One TCP flow, packet by packet: the numbers behind its time-sequence, round-trip, window and ladder pictures.

Made for chosen flows by the second look, from records of the capture. Sequence and acknowledgement numbers are relative
to the first one seen and do not wrap; windows are scaled where both SYNs said how. The rules are the engine's
(reference: RFC 9293, RFC 7323, Karn's algorithm of RFC 6298 §3), applied to one flow with all its packets in memory,
which is why the number of packets is bounded.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from gateway.analysis.frames import Record
from gateway.analysis.headers import TCP, Packet, locate

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
FLAG_NAMES: Final = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG"))
MOST_SEGMENTS: Final = 60_000
PORTS_WITHIN: Final = 400  # bytes from the start of a frame, behind every stack of headers that occurs
SEEN_AGAIN, HOLE_FILL, BEHIND_HOLE = "seen again", "fills a hole", "after a hole"


class FlowKey(NamedTuple):
    """Which packets belong to a flow: both ends, protocol and VLAN."""

    orig: bytes
    orig_port: int
    resp: bytes
    resp_port: int
    protocol: int
    vlan: int | None

    @classmethod
    def of_row(cls, row: Any) -> FlowKey:  # Any: a FlowRow, fresh or read back from JSON
        """The key of a flow row of a report."""
        return cls(
            ip_address(row["orig_host"]).packed,
            row["orig_port"],
            ip_address(row["resp_host"]).packed,
            row["resp_port"],
            TCP if row["proto"] == "tcp" else 17,
            row["vlan"],
        )

    def direction(self, packet: Packet, data: bytes) -> bool | None:
        """True for a packet of the originator, False for one of the responder, None for a packet of another flow."""
        if packet.protocol != self.protocol or (self.vlan is not None and packet.vlan != self.vlan):
            return None
        source_port, target_port = packet.ports(data)
        if (packet.source, source_port, packet.target, target_port) == (
            self.orig,
            self.orig_port,
            self.resp,
            self.resp_port,
        ):
            return True
        if (packet.source, source_port, packet.target, target_port) == (
            self.resp,
            self.resp_port,
            self.orig,
            self.orig_port,
        ):
            return False
        return None


class Wanted(NamedTuple):
    """A flow and the frames between which it lies; the same ports before and behind are another connection."""

    key: FlowKey
    first: int = 1
    last: int = sys.maxsize


class Segment(NamedTuple):
    """One packet of the flow. `t_s` counts from the first packet of the flow; `window_bytes` is scaled if possible."""

    frame: int
    t_s: float
    from_orig: bool
    seq: int
    ack: int | None
    length: int
    flags: int
    window_bytes: int
    evidence: str
    sack: tuple[tuple[int, int], ...]

    def flag_text(self) -> str:
        """The flags as words, such as `SYN, ACK`."""
        return ", ".join(name for bit, name in FLAG_NAMES if self.flags & bit)


class Trace:
    """All of a flow that could be kept."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.complete = True  # False when MOST_SEGMENTS was reached
        self.scaled = False
        self.start_ns = 0
        self.rtt: list[tuple[float, float, bool]] = []  # (t_s, seconds, of the originator's data)
        self.in_flight: list[tuple[float, int, bool]] = []  # (t_s, bytes, of the originator's data)


class _Direction:
    def __init__(self) -> None:
        self.first: int | None = None  # the wire's number that is our 0
        self.last = 0  # the last unwrapped number, so that the next is found near it
        self.end = 0  # highest byte sent
        self.acked = 0  # highest acknowledgement received for this direction
        self.scale: int | None = None
        self.seen: list[tuple[int, int]] = []
        self.waiting: dict[int, float] = {}  # segment end -> sending time, for RTT samples
        self.repeated: set[int] = set()

    def relative(self, number: int) -> int:
        if self.first is None:
            self.first = number
            return 0
        near = (self.first + self.last) & 0xFFFFFFFF
        self.last += ((number - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        return self.last


def build(records: Iterable[Record], key: FlowKey) -> Trace:
    """Follow a TCP flow through records, which may hold packets of other flows between."""
    return build_all(records, [Wanted(key)])[0]


def build_all(records: Iterable[Record], flows: Sequence[Wanted]) -> list[Trace]:
    """Follow several flows in one pass; the traces stand in the order of the flows."""
    followers = [_Follower(flow) for flow in flows]
    needles = []
    for follower, (key, _, _) in zip(followers, flows, strict=True):
        for ports in ((key.orig_port, key.resp_port), (key.resp_port, key.orig_port)):
            needles.append((struct.pack(">HH", *ports), follower))
    for record in records:
        data = record.data
        for needle, follower in needles:
            # Most packets are of other flows; looking for the two ports costs a tenth of finding the headers.
            if data.find(needle, 0, PORTS_WITHIN) >= 0:
                follower.take(record)
    return [follower.trace for follower in followers]


class _Follower:
    """Builds the trace of one flow, packet by packet."""

    def __init__(self, wanted: Wanted) -> None:
        self.trace = Trace()
        self._key, self._first, self._last = wanted
        self._ends = {True: _Direction(), False: _Direction()}
        self._both_scale = False
        self._last_frame = 0

    def take(self, record: Record) -> None:
        """Add a packet if it belongs to the flow; a packet offered twice counts once."""
        if record.frame == self._last_frame or not self._first <= record.frame <= self._last:
            return
        packet = locate(record.linktype, record.data, record.wire_bytes)
        if packet is None or packet.transport < 0:
            return
        from_orig = self._key.direction(packet, record.data)
        if from_orig is None or len(record.data) < packet.transport + 20:
            return
        trace = self.trace
        if len(trace.segments) == MOST_SEGMENTS:
            trace.complete = False
            return
        self._last_frame = record.frame
        if not trace.segments:
            trace.start_ns = record.t_ns
        t_s = (record.t_ns - trace.start_ns) / 1e9
        at, data = packet.transport, record.data
        seq_raw, ack_raw = int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        header, flags, window = (data[at + 12] >> 4) * 4, data[at + 13], data[at + 14] << 8 | data[at + 15]
        sender, receiver = self._ends[from_orig], self._ends[not from_orig]
        options = _options(data[at + 20 : at + header])
        if flags & SYN:
            sender.scale = options.scale
            self._both_scale = self._ends[True].scale is not None and self._ends[False].scale is not None
        elif self._both_scale and sender.scale is not None:
            window <<= min(sender.scale, 14)
        trace.scaled = trace.scaled or self._both_scale
        length = max(0, packet.payload_bytes - header)
        if flags & SYN and sender.first is not None and not sender.seen and sender.relative(seq_raw):
            sender.first = None  # what came before the SYN was of an older connection
            sender.last = sender.end = 0
        if flags & RST:
            seq = sender.end  # resets carry numbers of their own making; the picture needs none of them
        else:
            seq = sender.relative(seq_raw)
        ack = receiver.relative(ack_raw) if flags & ACK and not flags & RST else None
        end = seq + length + (1 if flags & (SYN | FIN) else 0)
        evidence = _evidence(sender, seq, end, t_s) if length else ""
        if not flags & RST:
            sender.end = max(sender.end, end)
        if ack is not None:
            sample = _acknowledge(receiver, ack, t_s)
            if sample is not None:
                trace.rtt.append((t_s, sample, not from_orig))
            if ack > receiver.acked:
                receiver.acked = ack
                trace.in_flight.append((t_s, max(0, receiver.end - ack), not from_orig))
        if length:
            trace.in_flight.append((t_s, max(0, sender.end - sender.acked), from_orig))
        sack = tuple((receiver.relative(left), receiver.relative(right)) for left, right in options.sack)
        if ack is not None:
            receiver.relative(ack_raw)
        trace.segments.append(Segment(record.frame, t_s, from_orig, seq, ack, length, flags, window, evidence, sack))


class _Options(NamedTuple):
    scale: int | None
    sack: tuple[tuple[int, int], ...]


def _options(raw: bytes) -> _Options:
    scale, sack, at = None, [], 0
    while at < len(raw):
        kind = raw[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = raw[at + 1] if at + 1 < len(raw) else 0
        if size < 2 or at + size > len(raw):
            break
        if kind == 3 and size == 3:
            scale = raw[at + 2]
        elif kind == 5:
            for edge in range(at + 2, at + size - 7, 8):
                left, right = raw[edge : edge + 4], raw[edge + 4 : edge + 8]
                sack.append((int.from_bytes(left, "big"), int.from_bytes(right, "big")))
        at += size
    return _Options(scale, tuple(sack))


def _evidence(sender: _Direction, seq: int, end: int, t_s: float) -> str:
    """What the bytes of a segment are, and remember them."""
    if not sender.seen:
        sender.seen.append((seq, end))
        sender.waiting[end] = t_s
        return ""
    highest = max(right for _, right in sender.seen)
    if seq >= highest:
        evidence = BEHIND_HOLE if seq > highest else ""
    elif any(left <= seq and end <= right for left, right in sender.seen):
        evidence = SEEN_AGAIN
    else:
        evidence = HOLE_FILL
    if evidence == SEEN_AGAIN:
        sender.repeated.update(edge for edge in sender.waiting if seq < edge)
    else:
        if len(sender.waiting) < 256:
            sender.waiting[end] = t_s
        _merge(sender.seen, seq, end)
    return evidence


def _merge(ranges: list[tuple[int, int]], left: int, right: int) -> None:
    if ranges and ranges[-1][0] <= left <= ranges[-1][1]:  # by far the most common: the next bytes
        ranges[-1] = (ranges[-1][0], max(ranges[-1][1], right))
        return
    kept = []
    for low, high in ranges:
        if high < left or low > right:
            kept.append((low, high))
        else:
            left, right = min(left, low), max(right, high)
    kept.append((left, right))
    kept.sort()
    ranges[:] = kept[-64:]


def _acknowledge(receiver: _Direction, ack: int, t_s: float) -> float | None:
    """The round trip that this acknowledgement measures; none for bytes that were sent twice (Karn)."""
    covered = [edge for edge in receiver.waiting if edge <= ack]
    if not covered or ack <= receiver.acked:
        return None
    newest = max(covered)
    sample = t_s - receiver.waiting[newest]
    clean = not receiver.repeated.intersection(covered)
    for edge in covered:
        del receiver.waiting[edge]
        receiver.repeated.discard(edge)
    return sample if clean and sample >= 0 else None
