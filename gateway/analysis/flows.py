"""Flow tables: one object for each direction of a connection, and one for what both share.

Sequence arithmetic is modulo 2^32.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.native import direction_type, new_trips

MASK: Final = 0xFFFFFFFF
HALF: Final = 0x80000000

NEVER: Final = 1 << 40  # more bytes than any window has
RESENT: Final = (1 << 63) - 1  # in place of the time of a segment that was sent twice: later than any clock

UdpDirection = list[Any]  # by position, see `udp`


class Direction:
    """One direction of a connection: everything the rules remember between two of its packets.

    Slots are the cheapest state there is in this interpreter: a third of the price of a list read by position. What may
    be unknown is typed Any, which keeps the batch loop free of casts. Rare things live in `Trouble`. The helper has a
    type of its own for it, with the same fields (`_usual.h`).
    """

    __slots__ = (
        *("acked", "app", "app_next", "base", "bytes", "conn", "dup", "edge", "fin", "first", "first_frame", "head"),
        *("holes", "idle", "isn", "keepalive", "known", "la", "last", "last_frame", "max_flight", "norm", "nseq"),
        *("nseq_time", "old", "out", "packets", "payload", "peak", "peak_base", "probe", "recover", "rev", "roll"),
        *("roll_from", "rtts", "scaled", "segments", "shape", "shift", "signature", "slow", "slow_from", "span"),
        *("tight", "trouble", "ttl", "vlan", "win", "wmax", "wmin", "zero_since"),
    )

    def __init__(self, connection: Any, time: int, frame: int, vlan: int, ttl: int) -> None:
        """An empty direction whose first packet is yet to be counted; `connection` is None for stand-ins only."""
        # Touched by the batch loop
        self.rev: Any = None  # the other direction, None until it is needed
        self.norm = -1  # `shape` while the short path may be taken, else -1
        self.nseq: Any = None  # next sequence number, None before the first; past 2^32 until `tcp` has seen it wrap
        self.shape = -1  # byte of the header length of the usual segment, below the VLAN; -1 while not known
        self.la: Any = None  # last acknowledgement number sent, None before the first
        self.win = -1  # window field of the last packet, unscaled; -1 when it cannot be compared
        self.scaled = 0  # scaled window: the other side must stop so many bytes behind `la`
        self.span = NEVER  # nine tenths of the scaled window, NEVER when its scale is not known
        self.shift = 14  # window scale, 14 when not known so that no limit is ever met by accident
        self.packets = 0  # without payload while the file is read, see `settle`; all of them afterwards
        self.bytes = 0  # on the wire
        self.last = time  # time of the last packet, ns
        self.last_frame = frame
        self.payload = 0  # payload bytes, repeats included; less `nseq` while the file is read, see `settle`
        self.segments = 0  # packets with payload
        self.nseq_time: Any = None  # when `nseq` was last advanced
        self.out: list[tuple[int, ...]] = []  # unacknowledged segments, see `tcp`
        self.roll = time  # time at which the throughput second is over
        self.app = 1  # what the payload is wanted for, see `applications`
        self.app_next = 0  # sequence number at which the payload becomes interesting again
        self.tight = 0  # segments that filled nine tenths of the other side's window
        self.rtts: Any = None  # array of round trips to the other side and back, ns; sorted once the file was read
        self.slow_from = 0  # a round trip longer than this is looked at, see `slow_trip`
        self.old: Any = None  # the unacknowledged segment that was acknowledged last
        self.signature: Any = None  # (IP id, checksum, time, flags, seq, ack) of the last packet without payload
        self.head: Any = None  # bytes of the IPv4 and TCP headers of the usual segment
        self.edge: Any = None  # sequence number from which a segment comes near the end of the other side's window
        self.known = False  # window scaling of this side is known (its SYN was seen)
        self.wmin = 1 << 30
        self.wmax = 0
        self.max_flight = 0
        # Touched at changes only
        self.conn: Any = connection
        self.dup = 0  # repeats of the last acknowledgement
        self.keepalive = False  # the last packet was a keep-alive
        self.probe = False  # the last packet was a zero-window probe
        self.holes: Any = None  # list of [start, end, frame, time, timestamp option, IP id], or None
        self.first = time
        self.first_frame = frame
        self.slow: Any = None  # heap of (round trip, time, frame) of the longest ones
        self.isn: Any = None  # None when no SYN was seen
        self.peak = 0  # most payload bytes in one second
        self.peak_base = 0
        self.idle = 0  # ns of silences longer than a second
        self.zero_since: Any = None  # (time, frame) of the first zero window of a period, else None
        self.ttl = ttl
        self.recover: Any = None  # end of the highest segment sent again and not yet acknowledged, else None
        self.trouble: Any = None
        self.acked: Any = None  # highest sequence number the other side acknowledged though it was never captured
        self.base: Any = None  # first sequence number seen
        self.vlan = vlan
        self.fin: Any = None  # (time, frame) of the first FIN
        self.roll_from = time  # when the throughput second began


if not TYPE_CHECKING:
    Direction = direction_type(Direction)

# Stands for the direction of a packet that belongs to none: never on the short path.
NOBODY: Final = Direction(None, 0, 0, 0, 0)
NOBODY.norm = -2


class Trouble:
    """Rare events of one direction; `lost` and the labels are counted at the sender of the segments."""

    __slots__ = (
        "ack_unseen",
        "blocks",
        "cause",
        "dsack",
        "duplicate_acks",
        "fast",
        "full",
        "hole_fills",
        "keepalives",
        "labelled",
        "lost",
        "max_delay",
        "missing_bytes",
        "needless",
        "out_of_order",
        "overlap",
        "probes",
        "reneged",
        "reordered",
        "resent",
        "retransmitted",
        "retransmitted_bytes",
        "sack_blocks",
        "sack_high",
        "seen_again",
        "spurious",
        "unknown",
        "zero_count",
        "zero_longest",
        "zero_time",
    )

    def __init__(self) -> None:
        self.ack_unseen = 0
        self.dsack = 0
        self.duplicate_acks = 0
        self.fast = 0
        self.full = 0
        self.hole_fills = 0
        self.keepalives = 0
        self.labelled = 0
        self.lost = 0
        self.max_delay = 0
        self.missing_bytes = 0
        self.needless = 0  # retransmissions of what had arrived, or was still under way
        self.out_of_order = 0
        self.overlap = 0
        self.probes = 0
        self.reneged = 0
        self.reordered = 0
        self.retransmitted = 0
        self.retransmitted_bytes = 0
        self.sack_blocks = 0
        self.seen_again = 0
        self.spurious = 0
        self.unknown = 0
        self.zero_count = 0
        self.zero_longest = 0
        self.zero_time = 0
        self.cause: dict[str, int] = {}
        self.sack_high: int | None = None
        self.blocks: list[tuple[int, int]] = []  # what the newest selective acknowledgement says has arrived
        # The newest retransmissions, see `tcp`: [begin, end, frame, time, timestamp option, IP id, needless]
        self.resent: list[list[Any]] = []

    @property
    def lost_before(self) -> int:
        """Segments that were lost before they reached the capture point."""
        return max(0, self.hole_fills - self.reordered)

    @property
    def lost_behind(self) -> int:
        """Segments that were lost behind the capture point: they had passed it and were sent again for a reason."""
        return max(0, self.retransmitted - self.needless - self.lost_before)


class Connection:
    """What both directions of a TCP connection share."""

    __slots__ = (
        "ack_frame",
        "ack_time",
        "app",
        "events",
        "first_flags",
        "frame",
        "gaps",
        "irtt",
        "key",
        "label",
        "name",
        "number",
        "offset",
        "opened_in",
        "options",
        "orig",
        "reset",
        "resp",
        "resp_options",
        "reused",
        "service",
        "session",
        "syn_ack_count",
        "syn_ack_frame",
        "syn_ack_time",
        "syn_frame",
        "syn_frames",
        "syn_times",
        "time",
    )

    def __init__(self, key: bytes, time: int, frame: int, offset: int) -> None:
        self.number = frame  # the first frame is as good a name as any, and the same in each run
        self.key = key  # address and port bytes as sent by the originator
        self.time = time
        self.frame = frame
        self.offset = offset
        self.orig: Direction | None = None
        self.resp: Direction | None = None
        self.first_flags = 0
        self.syn_frame: int | None = None
        self.syn_times: tuple[int, ...] = ()  # every transmission of the SYN
        self.syn_frames: tuple[int, ...] = ()
        self.syn_ack_time: int | None = None
        self.syn_ack_frame: int | None = None
        self.syn_ack_count = 0
        self.ack_time: int | None = None
        self.ack_frame: int | None = None
        self.irtt: int | None = None
        self.opened_in: int | None = None  # last SYN to first ACK of whichever side, for what counts as soon
        self.options: tuple[int | None, int | None, bool, bool] | None = None  # MSS, scale, SACK, timestamps
        self.resp_options: tuple[int | None, int | None, bool, bool] | None = None
        self.reset: tuple[bool, int, int, str, bool, int, int] | None = None
        self.events: dict[str, list[Any]] | None = None  # kind -> [count, first t, last frame, last t, frames]
        self.gaps: list[tuple[int, int, int, int, str]] | None = None
        self.app: Any = None  # Any: the payload state of whichever protocol it turned out to be
        self.service: tuple[str, float, str] | None = None
        self.name: str | None = None
        self.label: str | None = None  # final state, once closed
        self.reused = False
        self.session: Any = None  # Any: what `sessions` made of it once the file was read

    def event(self, kind: str, frame: int, time: int, cap: int = 100) -> None:
        """Note a rare event: count, first and last, and the first `cap` frames."""
        events = self.events
        if events is None:
            events = self.events = {}
        row = events.get(kind)
        if row is None:
            events[kind] = [1, time, frame, time, [frame]]
            return
        row[0] += 1
        row[2] = frame
        row[3] = time
        if len(row[4]) < cap:
            row[4].append(frame)


def trouble_of(direction: Direction) -> Trouble:
    """The record of rare events of a direction, made on first use."""
    trouble: Trouble | None = direction.trouble
    if trouble is None:
        trouble = direction.trouble = Trouble()
    return trouble


def round_trips(direction: Direction) -> Any:  # Any: an array, or what the helper has for one
    """The round-trip samples of a direction, made on first use."""
    samples = direction.rtts
    if samples is None:
        samples = direction.rtts = new_trips()
    return samples


def slow_trip(direction: Direction, trip: int, t: int, frame: int, least: int, most: int) -> None:
    """Keep the frames that ended the longest round trips: at most `most`, none below `least` (ns)."""
    if direction.slow is None:
        direction.slow, direction.slow_from = [], least
        if trip <= least:
            return
    heapq.heappush(direction.slow, (trip, t, frame))
    if len(direction.slow) > most:
        heapq.heappop(direction.slow)
        direction.slow_from = direction.slow[0][0]


def settle(direction: Direction) -> None:
    """Make `packets` and `payload` what they say, once the last packet was counted.

    Until then segments with payload are counted by `segments` only, and payload in order by the advance of `nseq`.
    """
    direction.packets += direction.segments
    direction.payload = payload_of(direction)


def payload_of(direction: Direction) -> int:
    """Payload bytes so far, of a direction that was not settled."""
    return int(direction.payload + (direction.nseq or 0))


def reverse_key(key: bytes) -> bytes:
    """The key of the other direction: addresses and ports swapped; a zone behind them stays."""
    if len(key) in (12, 14):
        return key[4:8] + key[:4] + key[10:12] + key[8:10] + key[12:]
    return key[16:32] + key[:16] + key[34:36] + key[32:34] + key[36:]
