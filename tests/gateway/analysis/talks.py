"""TCP conversations made of steps: whatever two sides and a network between them may do, in any order.

For comparing analyses with each other: what is right is not known here.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from hypothesis import strategies as st

from tests.gateway.analysis.packets import ACK, FIN, PSH, RST, SYN, Trace, tcp

Step = tuple[int, bool, str, int, float, int, int]

ACTIONS: Final = (
    *("data", "data", "data", "data", "ack", "ack", "ack", "half ack", "open", "lost", "resend", "again", "copy"),
    *("fin", "data fin", "rst", "syn", "syn ack", "keepalive", "beyond", "far", "stray", "sack", "short", "urgent"),
)
SIZES: Final = (1, 5, 100, 1400, 1400, 1400, 9000)
GAPS: Final = (0.0, 0.00001, 0.0005, 0.001, 0.02, 0.3, 1.5, 40.0)
WINDOWS: Final = (60_000, 60_000, 60_000, 60_000, 50_000, 3000, 1400, 1, 0)
_FLOWS: Final = (
    ("10.0.0.2", 50_000, "198.51.100.9", 80),
    ("10.0.0.3", 50_001, "198.51.100.9", 443),
    ("2001:db8::2", 50_002, "2001:db8::9", 80),
    ("10.0.0.4", 50_003, "198.51.100.9", 21),  # in a VLAN, its answers sometimes not
)
_HEADS: Final = (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x17\x03\x03\x00\x05hello")

steps: Final = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from(ACTIONS),
        st.sampled_from(SIZES),
        st.sampled_from(GAPS),
        st.sampled_from(WINDOWS),
        st.integers(0, 3),
    ),
    max_size=80,
)


def random_steps(generator: random.Random, count: int) -> list[Step]:
    """The same without hypothesis, for long ones: mostly data and acknowledgements."""
    made: list[Step] = []
    for _ in range(count):
        often = generator.random() < 0.8
        made.append(
            (
                generator.randrange(4),
                generator.random() < 0.5,
                generator.choice(("data", "ack") if often else ACTIONS),
                generator.choice(SIZES),
                generator.choice(GAPS[:5] if often else GAPS),
                60_000 if often else generator.choice(WINDOWS),
                generator.randrange(4),
            )
        )
    return made


def talk(script: list[Step], isn: int, stamps: bool) -> bytes:
    """A capture of the steps: (flow, whether the client sends, action, size, gap before, window, variant)."""
    trace = Trace()
    sent = [{True: isn, False: isn * 7 + 13} for _ in _FLOWS]  # next sequence number of each side
    last: dict[int, bytes] = {}
    t = 0.0
    for flow, up, action, size, gap, win, variant in script:
        t += gap
        numbers = sent[flow]
        seq, ack = numbers[up], numbers[not up]
        flags, data, options = ACK, b"", b""
        if stamps and variant != 3:
            options = b"\x01\x01\x08\x0a" + struct.pack(">II", int(t * 1000) & 0xFFFFFFFF, 7)
        match action:
            case "data" | "data fin" | "urgent":
                data = (_HEADS[variant] + bytes(size))[:size]
                flags |= (PSH if variant else 0) | (FIN if action == "data fin" else 0) | (32 if size == 5 else 0)
            case "half ack":
                ack -= size
            case "open":
                back = (*_FLOWS[flow][2:], *_FLOWS[flow][:2])
                scale = bytes.fromhex("01030302")
                handshake = (
                    tcp(*_FLOWS[flow], SYN, seq - 1, 0, options=scale, win=win),
                    tcp(*back, SYN | ACK, ack - 1, seq, options=scale),
                )
                for packet in handshake[: 1 + (variant > 0)]:
                    trace.add(t, packet)
                seq, ack, up = numbers[True], numbers[False], True
            case "lost":
                numbers[up] += size
                continue
            case "resend":
                seq -= size
                data = bytes(size)
            case "again":
                seq -= 2 * size
                data = bytes(size + variant)
            case "copy":
                if flow in last:
                    trace.add(t, last[flow])
                continue
            case "fin":
                flags |= FIN
            case "rst":
                flags = RST | (ACK if variant else 0)
            case "syn":
                flags, options, seq = SYN, bytes.fromhex("020405b4"), seq - (variant > 1)
            case "syn ack":
                flags, options = SYN | ACK, bytes.fromhex("01030307")
            case "keepalive":
                seq -= 1
                data = bytes(variant & 1)
            case "beyond":
                ack += size
            case "far":
                seq += size << 18
                data = bytes(10)
            case "stray":
                seq += 0x50000000 * variant
                ack -= 0x30000000
            case "sack":
                block = struct.pack(">II", (ack + size) & 0xFFFFFFFF, (ack + 3 * size) & 0xFFFFFFFF)
                options += b"\x01\x01\x05\x0a" + block
        ways = _FLOWS[flow] if up else (*_FLOWS[flow][2:], *_FLOWS[flow][:2])
        packet = tcp(*ways, flags, seq, ack, data, win=win, options=options, ip_id=trace.next_id() * (variant != 2))
        if action == "short":
            packet = packet[: -min(len(packet) - 20, size)] if variant else packet + bytes(6)
        if flow == 3 and variant < 3:
            packet = packet[:12] + b"\x81\x00\x00\x05" + packet[12:]
        trace.add(t, packet)
        last[flow] = packet
        if action in ("data", "data fin", "urgent", "fin"):
            numbers[up] = seq + len(data) + bool(flags & FIN)
    if not trace.packets:
        trace.add(0.0, tcp(*_FLOWS[0], ACK))
    return trace.pcap()
