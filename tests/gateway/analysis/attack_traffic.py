"""Traffic of attackers, and of those who look like them: conversations built on the packet builder."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

from gateway.analysis.report import Finding, Report
from tests.gateway.analysis.packets import ACK, FIN, PSH, RST, SYN, Trace, tcp, udp

LAN = "192.168.7."
ATTACKER, VICTIM, OUTSIDE = "192.168.7.66", "192.168.7.10", "203.0.113.9"
QUIET_S = 5.0  # a capture that begins some seconds before what it is about


def security(report: Report, least: str = "low") -> list[Finding]:
    """The security findings that are at least this severe."""
    order = ["info", "low", "medium", "high", "critical"]
    return [
        row
        for row in report["findings"]
        if row["class"] == "security" and order.index(row["severity"]) >= order.index(least)
    ]


def alarms(trace: Trace, least: str = "medium", **overrides: str) -> list[str]:
    """Kinds of the security findings of a trace."""
    return sorted(row["kind"] for row in security(trace.report(**overrides), least))


def only(report: Report, kind: str) -> Finding:
    """The finding of an attack that is to be the only one of its class, hints below medium included."""
    found = security(report)
    assert [row["kind"] for row in found] == [kind]
    return found[0]


def household(trace: Trace, begin: float = 0.0) -> None:
    """A page and two names of an ordinary household, so that no capture is about the attack alone."""
    trace.session(begin, LAN + "20", 49_000, "198.51.100.20", 443, up=bytes(400), down=bytes(9000))
    trace.session(begin + 0.4, LAN + "21", 49_001, "198.51.100.21", 443, up=bytes(700), down=bytes(4000))


def refused(trace: Trace, t: float, source: str, sport: int, target: str, port: int) -> None:
    """A SYN that a closed port answers with a reset."""
    trace.add(t, tcp(source, sport, target, port, SYN, sport * 7, options=b"\x02\x04\x05\xb4", ip_id=trace.next_id()))
    trace.add(t + 0.001, tcp(target, port, source, sport, RST | ACK, 0, sport * 7 + 1, win=0, ip_id=trace.next_id()))


def unanswered(trace: Trace, t: float, source: str, sport: int, target: str, port: int) -> None:
    """A SYN into silence."""
    trace.add(t, tcp(source, sport, target, port, SYN, sport * 7, options=b"\x02\x04\x05\xb4", ip_id=trace.next_id()))


def half_open(trace: Trace, t: float, source: str, sport: int, target: str, port: int) -> None:
    """What a SYN scanner does with an open port: SYN, SYN-ACK, RST."""
    seq = sport * 7
    trace.add(t, tcp(source, sport, target, port, SYN, seq, options=b"\x02\x04\x05\xb4", ip_id=trace.next_id()))
    trace.add(t + 0.001, tcp(target, port, source, sport, SYN | ACK, 77, seq + 1, options=b"\x02\x04\x05\xb4"))
    trace.add(t + 0.0012, tcp(source, sport, target, port, RST, seq + 1, 0, win=0, ip_id=trace.next_id()))


def dialogue(
    trace: Trace,
    t: float,
    client: str,
    sport: int,
    server: str,
    port: int,
    lines: Iterable[tuple[bool, bytes]],
    *,
    pause: float = 0.05,
    rtt: float = 0.004,
    isn: int = 5000,
) -> float:
    """A connection whose sides speak in turns, `(from the client, what)`; returns when it ended."""
    a, b = isn, isn * 3 + 17

    def send(up: bool, flags: int, data: bytes = b"") -> None:
        nonlocal a, b
        if up:
            packet = tcp(client, sport, server, port, flags, a, b if flags & ACK else 0, data, ip_id=trace.next_id())
            a += len(data) + bool(flags & (SYN | FIN))
        else:
            packet = tcp(server, port, client, sport, flags, b, a, data, ip_id=trace.next_id())
            b += len(data) + bool(flags & (SYN | FIN))
        trace.add(t, packet)

    send(True, SYN)
    t += rtt
    send(False, SYN | ACK)
    t += 0.0001
    send(True, ACK)
    for up, data in lines:
        t += pause
        send(up, PSH | ACK, data)
        t += rtt if up else 0.0001
        send(not up, ACK)
    t += pause
    send(True, FIN | ACK)
    t += rtt
    send(False, FIN | ACK)
    t += 0.0001
    send(True, ACK)
    return t


def ftp_login(trace: Trace, t: float, client: str, sport: int, server: str, tries: int, word: str = "guess") -> float:
    """One FTP connection with some failed logins."""
    lines = [(False, b"220 files ready\r\n")]
    for number in range(tries):
        lines += [
            (True, b"USER admin\r\n"),
            (False, b"331 Password required for admin\r\n"),
            (True, f"PASS {word}{number}\r\n".encode()),
            (False, b"530 Login incorrect.\r\n"),
        ]
    return dialogue(trace, t, client, sport, server, 21, lines)


def ssh_guess(trace: Trace, t: float, client: str, sport: int, server: str, *, words: int = 3) -> float:
    """One SSH connection that ends after some failed passwords: banner, key exchange, a few encrypted packets."""
    lines = [
        (True, b"SSH-2.0-libssh2_1.10.0\r\n"),
        (False, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
        (True, bytes(640)),
        (False, bytes(1080)),
        (True, bytes(48)),
        (False, bytes(452)),
        (True, bytes(68)),
        (False, bytes(52)),
    ]
    for _ in range(words):
        lines += [(True, bytes(148)), (False, bytes(52))]
    return dialogue(trace, t, client, sport, server, 22, lines, pause=0.2)


def syn_flood(
    trace: Trace, target: str, port: int, *, per_s: int, seconds: float, sources: int, begin: float = QUIET_S
) -> int:
    """SYNs from forged sources; returns how many."""
    generator = random.Random(11)
    addresses = [f"198.18.{generator.randrange(256)}.{generator.randrange(1, 255)}" for _ in range(sources)]
    count = round(per_s * seconds)
    for number in range(count):
        packet = tcp(
            generator.choice(addresses),
            generator.randrange(1024, 65_536),
            target,
            port,
            SYN,
            generator.getrandbits(32),
            ip_id=generator.getrandbits(16),
            ttl=generator.randrange(40, 250),
        )
        trace.add(begin + number / per_s, packet)
    return count


def rtp(
    sequence: int, stamp: int, kind: int = 0, ssrc: int = 0x5EED, payload: bytes = bytes(160), marker: bool = False
) -> bytes:
    """An RTP packet (RFC 3550 section 5.1)."""
    return struct.pack(">BBHII", 0x80, kind | marker << 7, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + payload


def asked(
    trace: Trace,
    t: float,
    client: str,
    sport: int,
    server: str,
    port: int,
    question: bytes,
    answer: bytes,
    rtt: float = 0.01,
) -> None:
    """A datagram and its answer."""
    trace.add(t, udp(client, sport, server, port, question, ip_id=trace.next_id()))
    trace.add(t + rtt, udp(server, port, client, sport, answer, ip_id=trace.next_id()))
