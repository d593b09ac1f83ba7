"""RTP streams found by their shape, their loss and their jitter (RFC 3550 sections 5.1, 6.4.1 and appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.analysis.flows import UdpDirection

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000
_RTP_SLOT: Final = 10  # U_RTP of `udp`, which imports this module

# Payload type -> (codec, clock in Hz); RFC 3551 tables 4 and 5. G.722 says 8000 by an old mistake that must be kept.
STATIC: Final = {
    0: ("PCMU", 8000),
    3: ("GSM", 8000),
    4: ("G723", 8000),
    5: ("DVI4", 8000),
    6: ("DVI4", 16000),
    7: ("LPC", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    10: ("L16 stereo", 44100),
    11: ("L16", 44100),
    12: ("QCELP", 8000),
    13: ("CN", 8000),
    14: ("MPA", 90000),
    15: ("G728", 8000),
    16: ("DVI4", 11025),
    17: ("DVI4", 22050),
    18: ("G729", 8000),
    25: ("CelB", 90000),
    26: ("JPEG", 90000),
    28: ("nv", 90000),
    31: ("H261", 90000),
    32: ("MPV", 90000),
    33: ("MP2T", 90000),
    34: ("H263", 90000),
}
_LIKELY_CLOCKS: Final = (8000, 16000, 32000, 44100, 48000, 90000)
_PROBE: Final = 10
_MAX_STREAMS: Final = 1_024
_MAX_PER_FLOW: Final = 8


class RtpStream:
    """One synchronisation source in one direction of a flow."""

    __slots__ = (
        "arrival",
        "base",
        "clock",
        "cycles",
        "duplicates",
        "first_frame",
        "first_ns",
        "first_stamp",
        "flow_number",
        "highest",
        "jitter",
        "jitter_max",
        "jitter_n",
        "jitter_sum",
        "key",
        "last_frame",
        "last_lost",
        "max_burst",
        "packets",
        "pending",
        "recent",
        "reordered",
        "ssrc",
        "stamp",
        "steps",
        "type",
    )

    def __init__(self, key: bytes, number: int, ssrc: int, kind: int, sequence: int, stamp: int, t: int, frame: int):
        self.key = key
        self.flow_number = number
        self.ssrc = ssrc
        self.type = kind
        self.base = self.highest = sequence
        self.cycles = 0
        self.stamp = self.first_stamp = stamp
        self.arrival = self.first_ns = t
        self.first_frame = self.last_frame = frame
        self.packets = 1
        self.steps = 0
        self.reordered = self.duplicates = self.max_burst = 0
        self.last_lost = 0
        self.jitter = self.jitter_max = self.jitter_sum = 0.0
        self.jitter_n = 0
        self.clock = STATIC[kind][1] if kind in STATIC else 0
        self.recent = {sequence}
        self.pending: list[tuple[int, int]] = []  # (time, stamp) before the clock is known

    @property
    def expected(self) -> int:
        """Packets that should have come, by the first and the highest sequence number."""
        return self.cycles + self.highest - self.base + 1

    @property
    def lost(self) -> int:
        """Packets that never came; copies do not hide losses."""
        return max(0, self.expected - (self.packets - self.duplicates))


def looks_like(buf: bytes, at: int) -> bool:
    """Version 2 and a payload type that is not RTCP's."""
    return buf[at] >> 6 == 2 and not 72 <= buf[at + 1] & 0x7F <= 76


def packet(
    st: State, d: UdpDirection, key: bytes, buf: bytes, at: int, end: int, payload: int, t: int, frame: int
) -> bool:
    """Take one datagram of a flow that may be RTP; returns True once the flow is believed to be RTP."""
    if not looks_like(buf, at):
        return False
    kind = buf[at + 1] & 0x7F
    sequence = buf[at + 2] << 8 | buf[at + 3]
    stamp = int.from_bytes(buf[at + 4 : at + 8], "big")
    ssrc = int.from_bytes(buf[at + 8 : at + 12], "big")
    streams: dict[int, RtpStream] | None = d[_RTP_SLOT]
    if streams is None:
        streams = d[_RTP_SLOT] = {}
    stream = streams.get(ssrc)
    if stream is None:
        if len(streams) >= _MAX_PER_FLOW:
            return False
        streams[ssrc] = RtpStream(key, d[1].number, ssrc, kind, sequence, stamp, t, frame)
        return False
    _take(stream, sequence, stamp, t, frame)
    if stream.packets <= _PROBE and stream.steps < 6:
        return False
    if stream.steps >= 6 and stream.steps >= 0:
        if stream not in st.rtp_known:
            if len(st.rtp) >= _MAX_STREAMS:
                return False
            st.rtp_known.add(stream)
            st.rtp.append(stream)
        return True
    return False


def _take(stream: RtpStream, sequence: int, stamp: int, t: int, frame: int) -> None:
    stream.packets += 1
    stream.last_frame = frame
    step = sequence - stream.highest & 0xFFFF
    if step == 1 and stream.packets <= _PROBE + 1:
        stream.steps += 1
    if step == 0 or (step >= 0x8000 and sequence in stream.recent):
        stream.duplicates += 1
        return
    if step < 0x8000:
        if sequence < stream.highest:
            stream.cycles += 0x10000
        stream.highest = sequence
        if step > 1:
            stream.max_burst = max(stream.max_burst, step - 1)
    else:
        stream.reordered += 1
    stream.recent.add(sequence)
    if len(stream.recent) > 512:
        stream.recent = {item for item in stream.recent if (stream.highest - item & 0xFFFF) < 256}
    if not stream.clock:
        stream.pending.append((t, stamp))
        if len(stream.pending) >= 40:
            settle_clock(stream)
        return
    _jitter(stream, stamp, t)


def _jitter(stream: RtpStream, stamp: int, t: int) -> None:
    ticks = (stamp - stream.stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
    difference = (t - stream.arrival) * stream.clock / SECOND - ticks
    stream.jitter += (abs(difference) - stream.jitter) / 16
    stream.jitter_max = max(stream.jitter_max, stream.jitter)
    stream.jitter_sum += stream.jitter
    stream.jitter_n += 1
    stream.stamp = stamp
    stream.arrival = t


def settle_clock(stream: RtpStream) -> None:
    """Infer the clock of a dynamic payload type from how fast its timestamps run, then replay what waited for it."""
    if stream.clock:
        return
    if not stream.pending:
        stream.clock = 8000
        return
    last_ns, last_stamp = stream.pending[-1]
    ticks = (last_stamp - stream.first_stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
    elapsed = last_ns - stream.first_ns
    rate = ticks * SECOND / elapsed if elapsed > 0 and ticks > 0 else 8000.0
    stream.clock = min(_LIKELY_CLOCKS, key=lambda clock: abs(clock - rate))
    waiting, stream.pending = stream.pending, []
    for t, stamp in waiting:
        _jitter(stream, stamp, t)
