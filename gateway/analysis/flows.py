"""Flow tables: one list of numbers for each direction of a connection, and one object for what both share.

The batch loop touches three to eight of these slots for each packet, so a direction is a plain list with the constant
positions below; anything rare lives in `Trouble`, made when the first rare thing happens. Sequence arithmetic is modulo
2^32.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

MASK: Final = 0xFFFFFFFF
HALF: Final = 0x80000000

# A direction mixes integers, lists and objects by position; Any keeps the batch loop free of casts.
Direction = list[Any]

# Touched by the batch loop
REV: Final = 0  # the other direction, None until it is needed
NORM: Final = 1  # SHAPE while the short path may be taken, else -1
NSEQ: Final = 2  # next expected sequence number, None before the first packet; past 2^32 until `tcp` has seen it wrap
SHAPE: Final = 3  # byte of the header length of the usual segment, below the VLAN; -1 while not known
LA: Final = 4  # last acknowledgement number sent, None before the first
WIN: Final = 5  # window field of the last packet, unscaled; -1 when it cannot be compared
SCALED: Final = 6  # scaled window: the other side must stop so many bytes behind LA
SPAN: Final = 7  # nine tenths of the scaled window, NEVER when its scale is not known
SHIFT: Final = 8  # window scale, 14 when not known so that no limit is ever met by accident
PACKETS: Final = 9  # without payload while the file is read, see `settle`; all of them afterwards
BYTES: Final = 10  # on the wire
LAST: Final = 11  # time of the last packet, ns
LAST_FRAME: Final = 12
PAYLOAD: Final = 13  # payload bytes, repeats included; less NSEQ while the file is read, see `settle`
SEGMENTS: Final = 14  # packets with payload
NSEQ_TIME: Final = 15  # when NSEQ was last advanced
OUT: Final = 16  # unacknowledged segments, see `tcp`
ROLL: Final = 17  # time at which the throughput second is over
APP: Final = 18  # what the payload is wanted for, see `applications`
APP_NEXT: Final = 19  # sequence number at which the payload becomes interesting again
TIGHT: Final = 20  # segments that filled nine tenths of the other side's window
RTTS: Final = 21  # array of round trips to the other side and back, ns
OLD: Final = 22  # the unacknowledged segment that was acknowledged last
SIGNATURE: Final = 23  # (IP id, checksum, time, flags, seq, ack) of the last packet without payload
# Touched at changes only
CONN: Final = 24
DUP: Final = 25  # repeats of the last acknowledgement
KEEPALIVE: Final = 26  # the last packet was a keep-alive
PROBE: Final = 27  # the last packet was a zero-window probe
HOLES: Final = 28  # list of [start, end, frame, time, timestamp option, IP id], or None
FIRST: Final = 29
FIRST_FRAME: Final = 30
ISN: Final = 31  # None when no SYN was seen
PEAK: Final = 32  # most payload bytes in one second
PEAK_BASE: Final = 33
IDLE: Final = 34  # ns of silences longer than a second
ZERO_SINCE: Final = 35  # (time, frame) of the first zero window of a period, else None
TTL: Final = 36
RECOVER: Final = 37  # end of the highest segment sent again and not yet acknowledged, else None
TROUBLE: Final = 38
ACKED: Final = 39  # highest sequence number the other side acknowledged though it was never captured
KNOWN: Final = 40  # window scaling of this side is known (its SYN was seen)
WMIN: Final = 41
WMAX: Final = 42
BASE: Final = 43  # first sequence number seen
VLAN: Final = 44
FIN: Final = 45  # (time, frame) of the first FIN
MAX_FLIGHT: Final = 46
ROLL_FROM: Final = 47  # when the throughput second began
GAP_FROM: Final = 48  # the payload count at which the throughput second began
HEAD: Final = 49  # bytes of the IPv4 and TCP headers of the usual segment
EDGE: Final = 50  # sequence number from which a segment comes near the end of the other side's window
SLOTS: Final = 51

NEVER: Final = 1 << 40  # more bytes than any window has

_EMPTY: Final[Direction] = [None] * SLOTS
for _slot in (PACKETS, BYTES, PAYLOAD, SEGMENTS, TIGHT, DUP, PEAK, PEAK_BASE, IDLE, MAX_FLIGHT, APP_NEXT, GAP_FROM):
    _EMPTY[_slot] = 0
_EMPTY[NORM] = _EMPTY[SHAPE] = -1
_EMPTY[APP] = 1
_EMPTY[WIN] = -1
_EMPTY[SHIFT] = 14
_EMPTY[SCALED] = 0
_EMPTY[SPAN] = NEVER
_EMPTY[WMAX] = 0
_EMPTY[WMIN] = 1 << 30


# Stands for the direction of a packet that belongs to none: never on the short path.
NOBODY: Final[Direction] = _EMPTY.copy()
NOBODY[NORM] = -2


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


def new_direction(connection: Connection, time: int, frame: int, vlan: int, ttl: int) -> Direction:
    """An empty direction whose first packet is yet to be counted."""
    direction = _EMPTY.copy()
    direction[CONN] = connection
    direction[FIRST] = direction[LAST] = time
    direction[FIRST_FRAME] = direction[LAST_FRAME] = frame
    direction[VLAN] = vlan
    direction[TTL] = ttl
    direction[ROLL] = time
    direction[ROLL_FROM] = time
    direction[OUT] = []
    return direction


def trouble_of(direction: Direction) -> Trouble:
    """The record of rare events of a direction, made on first use."""
    trouble: Trouble | None = direction[TROUBLE]
    if trouble is None:
        trouble = direction[TROUBLE] = Trouble()
    return trouble


def round_trips(direction: Direction) -> array[int]:
    """The round-trip samples of a direction, made on first use."""
    samples: array[int] | None = direction[RTTS]
    if samples is None:
        samples = direction[RTTS] = array("Q")
    return samples


def settle(direction: Direction) -> None:
    """Make PACKETS and PAYLOAD what they say, once the last packet was counted.

    Until then segments with payload are counted by SEGMENTS only, and payload in order by the advance of NSEQ.
    """
    direction[PACKETS] += direction[SEGMENTS]
    direction[PAYLOAD] = payload_of(direction)


def payload_of(direction: Direction) -> int:
    """Payload bytes so far, of a direction that was not settled."""
    return int(direction[PAYLOAD] + (direction[NSEQ] or 0))


def reverse_key(key: bytes) -> bytes:
    """The key of the other direction: addresses and ports swapped; a zone behind them stays."""
    if len(key) in (12, 14):
        return key[4:8] + key[:4] + key[10:12] + key[8:10] + key[12:]
    return key[16:32] + key[:16] + key[34:36] + key[32:34] + key[36:]
