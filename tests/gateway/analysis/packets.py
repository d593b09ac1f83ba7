"""A small packet and conversation builder for tests: Ethernet, IPv4, IPv6, TCP, UDP, pcap and pcapng files.

Checksums are a hash of the header fields rather than real ones: the engine only compares them.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from gateway.analysis.engine import analyze
from gateway.analysis.report import Finding, Report
from gateway.analysis.settings import Settings

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


def ipv4(
    source: str, target: str, protocol: int, payload: bytes, ip_id: int = 1, ttl: int = 64, fragment: int = 0
) -> bytes:
    """An Ethernet frame with an IPv4 packet."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ip_id & 0xFFFF, fragment, ttl, protocol, 0)
    return (
        b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0"
        + head
        + ip_address(source).packed
        + ip_address(target).packed
        + payload
    )


def ipv6(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An Ethernet frame with an IPv6 packet."""
    head = struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64)
    return (
        b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x86\xdd"
        + head
        + ip_address(source).packed
        + ip_address(target).packed
        + payload
    )


def ip(source: str, target: str, protocol: int, payload: bytes, ip_id: int = 1, ttl: int = 64) -> bytes:
    """IPv4 or IPv6 by the look of the addresses."""
    if ":" in source:
        return ipv6(source, target, protocol, payload)
    return ipv4(source, target, protocol, payload, ip_id, ttl)


def tcp(
    source: str,
    sport: int,
    target: str,
    port: int,
    flags: int,
    seq: int = 0,
    ack: int = 0,
    data: bytes = b"",
    *,
    win: int = 60_000,
    options: bytes = b"",
    ip_id: int = 1,
    ttl: int = 64,
) -> bytes:
    """A TCP segment in its frame."""
    options += b"\1" * (-len(options) % 4)
    offset = (5 + len(options) // 4) << 12 | flags
    head = struct.pack(">HHIIHH", sport, port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, win)
    checksum = zlib.crc32(head + options + data) & 0xFFFF
    return ip(source, target, 6, head + struct.pack(">HH", checksum, 0) + options + data, ip_id, ttl)


def udp(source: str, sport: int, target: str, port: int, data: bytes, ip_id: int = 1) -> bytes:
    """A UDP datagram in its frame."""
    return ip(source, target, 17, struct.pack(">HHHH", sport, port, 8 + len(data), 0) + data, ip_id)


def dns_name(name: str) -> bytes:
    """A name as it goes over the wire."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def dns_query(ident: int, name: str, kind: int = 1) -> bytes:
    """A DNS question."""
    return struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0) + dns_name(name) + struct.pack(">HH", kind, 1)


def dns_answer(ident: int, name: str, kind: int = 1, data: bytes = b"\xc6\x33\x64\x07", rcode: int = 0) -> bytes:
    """A DNS response with one answer, or none with an error."""
    head = struct.pack(">HHHHHH", ident, 0x8180 | rcode, 1, 0 if rcode else 1, 0, 0)
    body = dns_name(name) + struct.pack(">HH", kind, 1)
    if not rcode:
        body += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    return head + body


@dataclass
class Trace:
    """Packets with their times, in the making."""

    packets: list[tuple[int, bytes]] = field(default_factory=list)
    ident: int = 0

    def add(self, t: float, packet: bytes) -> None:
        """Put a packet at `t` seconds."""
        self.packets.append((START_NS + round(t * SECOND), packet))

    def next_id(self) -> int:
        """IP ids that rise, as most senders use them."""
        self.ident = self.ident % 65_535 + 1
        return self.ident

    def ordered(self) -> list[tuple[int, bytes]]:
        """The packets by time; equal times keep their order."""
        return sorted(self.packets, key=lambda item: item[0])

    def session(
        self,
        t: float,
        client: str,
        sport: int,
        server: str,
        port: int,
        up: bytes = b"",
        down: bytes = b"",
        *,
        rtt: float = 0.02,
        think: float = 0.001,
        lasts: float = 0.0,
        close: bool = True,
        isn: int = 1000,
    ) -> float:
        """A whole connection with one request and one response, seen near the client; returns when it ended."""
        a, b = isn, isn * 7 + 13
        syn_options = bytes.fromhex("020405b40402080a0000000000000000" + "01030307")

        def send(at: float, up_way: bool, flags: int, data: bytes = b"", options: bytes = b"") -> None:
            nonlocal a, b
            if up_way:
                packet = tcp(
                    client,
                    sport,
                    server,
                    port,
                    flags,
                    a,
                    b if flags & ACK else 0,
                    data,
                    options=options,
                    ip_id=self.next_id(),
                )
                a += len(data) + bool(flags & (SYN | FIN))
            else:
                packet = tcp(server, port, client, sport, flags, b, a, data, options=options, ip_id=self.next_id())
                b += len(data) + bool(flags & (SYN | FIN))
            self.add(at, packet)

        send(t, True, SYN, options=syn_options)
        t += rtt
        send(t, False, SYN | ACK, options=syn_options)
        t += 0.0001
        send(t, True, ACK)
        for at in range(0, len(up), 1400):
            t += 0.0002
            send(t, True, PSH | ACK, up[at : at + 1400])
        if up:
            t += rtt
            send(t, False, ACK)
        t += think
        for at in range(0, len(down), 1400):
            t += 0.0002
            send(t, False, PSH | ACK, down[at : at + 1400])
            if at // 1400 % 2 or at + 1400 >= len(down):
                send(t + 0.00005, True, ACK)
        t += lasts
        if close:
            t += 0.001
            send(t, True, FIN | ACK)
            t += rtt
            send(t, False, FIN | ACK)
            t += 0.0001
            send(t, True, ACK)
        return t

    def pcap(self, order: str = "<", nanoseconds: bool = False, snap: int = 262_144) -> bytes:
        """The packets as a classic pcap file."""
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, 1)]
        unit = 1 if nanoseconds else 1000
        for t, packet in self.ordered():
            kept = packet[:snap]
            out.append(struct.pack(order + "IIII", t // SECOND, t % SECOND // unit, len(kept), len(packet)) + kept)
        return b"".join(out)

    def pcapng(self, order: str = "<") -> bytes:
        """The packets as a pcapng file with one interface that counts microseconds."""
        out = [
            struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28),
            struct.pack(order + "IIHHII", 1, 20, 1, 0, 262_144, 20),
        ]
        for t, packet in self.ordered():
            ticks = t // 1000
            body = packet + bytes(-len(packet) % 4)
            length = 32 + len(body)
            out.append(
                struct.pack(order + "IIIIIII", 6, length, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet))
                + body
                + struct.pack(order + "I", length)
            )
        return b"".join(out)

    def report(self, **overrides: str) -> Report:
        """Analyse the trace."""
        return analyse(self.pcap(), None, **overrides)


def analyse(data: bytes, block_bytes: int | None = None, **overrides: str) -> Report:
    """Analyse the bytes of a file; overrides are written with two underscores for the dot."""
    settings = Settings().with_overrides({key.replace("__", "."): value for key, value in overrides.items()})
    return analyze(io.BytesIO(data), name="test", settings=settings, block_bytes=block_bytes)


def kinds(report: Report, least: str = "low") -> list[str]:
    """Kinds of the findings that are at least this severe."""
    order = ["info", "low", "medium", "high", "critical"]
    return [row["kind"] for row in report["findings"] if order.index(row["severity"]) >= order.index(least)]


def one(report: Report, kind: str) -> Finding:
    """The only finding of a kind."""
    found = [row for row in report["findings"] if row["kind"] == kind]
    assert len(found) == 1, (kind, [row["kind"] for row in report["findings"]])
    return found[0]


def comparable(report: Report) -> dict[str, Any]:
    """A report without what differs between two runs or two containers of the same packets."""
    kept: dict[str, Any] = dict(report)
    for name in ("timing", "capture"):
        kept.pop(name)
    kept["flows"] = {**report["flows"], "rows": [{**row, "offset": 0} for row in report["flows"]["rows"]]}
    return kept
