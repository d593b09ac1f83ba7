"""Packets and capture files made by hand, for tests that must know every byte."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from ipaddress import ip_address

CLIENT, SERVER = "192.168.7.10", "198.51.100.20"
MACS = bytes.fromhex("020000000001020000000002")
SYN, SYN_ACK, ACK, PUSH, FIN, RST = 0x02, 0x12, 0x10, 0x18, 0x11, 0x04


def checksum(data: bytes) -> int:
    """The Internet checksum, written plainly as a second opinion on ours."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ip_packet(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 or IPv6 packet."""
    a, b = ip_address(source), ip_address(target)
    if a.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + a.packed + b.packed + payload
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + a.packed + b.packed
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def tcp(
    source: tuple[str, int],
    target: tuple[str, int],
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    *,
    window: int = 1000,
    options: bytes = b"",
) -> bytes:
    """An Ethernet frame with a TCP segment."""
    options += b"\0" * (-len(options) % 4)
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack(
        ">HHIIBBHHH", source[1], target[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, flags, window, 0, 0
    )
    return ethernet(ip_packet(source[0], target[0], 6, segment + options + payload))


def udp(source: tuple[str, int], target: tuple[str, int], payload: bytes = b"") -> bytes:
    """An Ethernet frame with a UDP datagram."""
    datagram = struct.pack(">HHHH", source[1], target[1], 8 + len(payload), 0) + payload
    return ethernet(ip_packet(source[0], target[0], 17, datagram))


def ethernet(packet: bytes, *, tags: Sequence[int] = ()) -> bytes:
    """A frame around an IP packet, with VLAN tags if asked."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    between = b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags)
    return MACS + between + struct.pack(">H", kind) + packet


def pcap(frames: Sequence[bytes | tuple[float, bytes]], *, linktype: int = 1, order: str = "<") -> bytes:
    """A pcap file; frames without a time are a millisecond apart."""
    parts = [struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, linktype)]
    for index, frame in enumerate(frames):
        t, data = frame if isinstance(frame, tuple) else (index / 1000, frame)
        micros = round(t * 1_000_000) + 1_700_000_000_000_000
        parts += [struct.pack(order + "IIII", micros // 1_000_000, micros % 1_000_000, len(data), len(data)), data]
    return b"".join(parts)


def pcapng(frames: Sequence[bytes], *, order: str = "<") -> bytes:
    """A pcapng file with one Ethernet interface, whose second packet is preceded by the description of another."""

    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(order + "I", 12 + len(body))
        return struct.pack(order + "I", kind) + size + body + size

    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack(order + "HHI", 1, 0, 65535))
    for index, data in enumerate(frames):
        if index == 1:
            out += block(1, struct.pack(order + "HHIHHB3xI", 101, 0, 65535, 9, 1, 9, 0))
        micros = 1_700_000_000_000_000 + index * 1000
        fields = struct.pack(order + "IIIII", 0, micros >> 32, micros & 0xFFFFFFFF, len(data), len(data))
        out += block(6, fields + data + b"\0" * (-len(data) % 4))
    return out


def conversation(*, lost: bool = False) -> list[tuple[float, bytes]]:
    """A download of ten segments over 20 ms; with `lost`, the fourth is missing at first and sent again at the end."""
    c, s = (CLIENT, 40000), (SERVER, 80)
    scale = b"\x03\x03\x02"
    frames = [
        (0.000, tcp(c, s, 1000, 0, SYN, options=scale)),
        (0.020, tcp(s, c, 5000, 1001, SYN_ACK, options=scale)),
        (0.021, tcp(c, s, 1001, 5001, ACK)),
        (0.022, tcp(c, s, 1001, 5001, PUSH, b"GET / HTTP/1.1\r\n\r\n")),
    ]
    for index in range(10):
        if lost and index == 3:
            continue
        data = tcp(s, c, 5001 + index * 100, 1019, ACK, bytes([65 + index]) * 100)
        frames.append((0.050 + index / 100, data))
        acked = 5001 + (300 if lost and index > 3 else (index + 1) * 100)
        frames.append((0.051 + index / 100, tcp(c, s, 1019, acked, ACK)))
    if lost:
        frames.append((0.300, tcp(s, c, 5301, 1019, ACK, b"D" * 100)))
        frames.append((0.301, tcp(c, s, 1019, 6001, ACK)))
        frames.append((0.400, tcp(s, c, 5901, 1019, ACK, b"J" * 100)))
    return frames


def compressed(data: bytes) -> bytes:
    """A gzip file of two members, cut in the middle of the data."""
    middle = len(data) // 2
    return gzip.compress(data[:middle], mtime=0) + gzip.compress(data[middle:], mtime=0)
