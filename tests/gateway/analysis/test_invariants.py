"""What must not matter: where sequence numbers and clocks begin, who the hosts are, in how many files the packets lie.

The same is asked of made traffic in `test_properties`; here real captures are rewritten.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis.report import Report
from tests.gateway.analysis.packets import analyse, comparable

# Little-endian Ethernet captures in microseconds, without tunnels: the rewriting below knows no other.
CAPTURES = (
    "home-lan.pcap",
    "tcp-ooo-tls-20-sni.pcap",
    "tcp-loss-http-range.pcap",
    "scan-and-ftp.pcap",
    "bruteforce-ftp.pcap",
    "tcp-window-full-smtp.pcap",
)
Rewrite = Callable[
    [bytearray, int, int], None
]  # packet, where its IPv4 header begins, where its TCP header begins or 0


def packets_of(path: Path) -> tuple[bytes, list[tuple[int, int, int, bytes]]]:
    """File header, and `(seconds, microseconds, wire length, packet)` of each record."""
    raw = path.read_bytes()
    data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    assert data[:4] == b"\xd4\xc3\xb2\xa1"
    at, found = 24, []
    while at + 16 <= len(data):
        seconds, fraction, size, wire = struct.unpack_from("<IIII", data, at)
        found.append((seconds, fraction, wire, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return data[:24], found


def joined(header: bytes, packets: list[tuple[int, int, int, bytes]]) -> bytes:
    """The file again."""
    return header + b"".join(
        struct.pack("<IIII", seconds, fraction, len(packet), wire) + packet
        for seconds, fraction, wire, packet in packets
    )


def rewritten(path: Path, change: Rewrite) -> bytes:
    """The capture with each IPv4 packet changed."""
    header, packets = packets_of(path)
    changed = []
    for seconds, fraction, wire, packet in packets:
        copy = bytearray(packet)
        if len(copy) >= 34 and copy[12:14] == b"\x08\x00" and copy[14] >> 4 == 4:
            tcp = 14 + (copy[14] & 15) * 4
            whole = copy[23] == 6 and len(copy) >= tcp + 20 and not (copy[20] & 0x1F or copy[21])
            change(copy, 14, tcp if whole else 0)
        changed.append((seconds, fraction, wire, bytes(copy)))
    return joined(header, changed)


def stripped(report: Report, *names: str) -> Any:
    """A report without the named sections."""
    kept = comparable(report)
    for name in names:
        del kept[name]
    return kept


def counts(report: Report) -> dict[str, Any]:
    """What is left of a report when nobody is called by address: counts, kinds, frames."""
    return {
        "findings": sorted((row["kind"], row["severity"], row["count"], row["frames"]) for row in report["findings"]),
        "tcp": report["tcp"],
        "statuses": report["dns"]["statuses"],
        "http": [(row["frame"], row["status"], row["ttfb_ms"]) for row in report["http"]["rows"]],
        "tls": [(row["frame"], row["sni"], row["hello_ms"]) for row in report["tls"]["rows"]],
        "flows": sorted(
            (row["uid"], row["conn_state"], row["orig_bytes"], row["retrans"]) for row in report["flows"]["rows"]
        ),
        "health": report["health"]["score"],
        "protocols": report["protocols"],
        "series": (report["series"]["packets"], report["series"]["bytes"]),
    }


@pytest.mark.parametrize("offset", [1, 0x7FFF_FFFF, 0xFFFF_FC00])
@pytest.mark.parametrize("name", CAPTURES)
def test_where_sequence_numbers_begin_is_of_no_matter(name: str, offset: int, captures: Path) -> None:
    """A constant added to each sequence, acknowledgement and SACK number, past the wrap, changes nothing."""

    def shift(packet: bytearray, ip: int, tcp: int) -> None:
        if not tcp:
            return
        for at in (tcp + 4, tcp + 8):
            if at == tcp + 4 or packet[tcp + 13] & 0x10:
                value = struct.unpack_from(">I", packet, at)[0] + offset & 0xFFFFFFFF
                struct.pack_into(">I", packet, at, value)
        at, end = tcp + 20, min(len(packet), tcp + (packet[tcp + 12] >> 4) * 4)
        while at < end and packet[at]:
            if packet[at] == 1:
                at += 1
                continue
            size = packet[at + 1] if at + 1 < end else 0
            if size < 2 or at + size > end:
                break
            if packet[at] == 5:
                for edge in range(at + 2, at + size - 3, 4):
                    struct.pack_into(
                        ">I", packet, edge, struct.unpack_from(">I", packet, edge)[0] + offset & 0xFFFFFFFF
                    )
            at += size

    plain = analyse((captures / name).read_bytes())
    moved = analyse(rewritten(captures / name, shift))
    assert stripped(moved) == stripped(plain)


@pytest.mark.parametrize("seconds", [86_400, 1_000_000_000])
@pytest.mark.parametrize("name", CAPTURES)
def test_when_a_capture_was_made_is_of_no_matter(name: str, seconds: int, captures: Path) -> None:
    """The same packets on another day, or in another decade, have the same report."""
    header, packets = packets_of(captures / name)
    later = joined(header, [(t + seconds & 0xFFFFFFFF, *rest) for t, *rest in packets])  # type: ignore[misc]
    assert stripped(analyse(later)) == stripped(analyse((captures / name).read_bytes()))


@pytest.mark.parametrize("name", CAPTURES)
def test_who_the_hosts_are_is_of_no_matter(name: str, captures: Path) -> None:
    """Addresses renamed one to one, private ones staying private and groups groups, change no count and no frame."""
    names: dict[bytes, bytes] = {}

    def renamed(address: bytes) -> bytes:
        text = ip_address(address)
        if text.is_multicast or address[3] == 255 or text.is_unspecified or text.is_loopback or text.is_link_local:
            return address
        if address not in names:
            first = b"\x0a\x7b" if text.is_private else b"\x2d\x2d"
            names[address] = first + (len(names) + 77).to_bytes(2, "big")
        return names[address]

    def rename(packet: bytearray, ip: int, tcp: int) -> None:
        for at in (ip + 12, ip + 16):
            packet[at : at + 4] = renamed(bytes(packet[at : at + 4]))

    plain = analyse((captures / name).read_bytes())
    changed = analyse(rewritten(captures / name, rename))
    # Quoted packets in ICMP errors and addresses in answers keep their old names: what joins them is left out.
    for report in (plain, changed):
        report["findings"] = [
            row for row in report["findings"] if not row["kind"].startswith(("icmp", "security.beacon"))
        ]
    assert counts(changed) == counts(plain)


@pytest.mark.parametrize(
    ("first", "second"), [("home-lan.pcap", "bruteforce-ftp.pcap"), ("tcp-window-full-smtp.pcap", "scan-and-ftp.pcap")]
)
def test_two_captures_in_one_file_are_their_sum(first: str, second: str, captures: Path) -> None:
    """Two captures of different networks, one after the other, have the counts of both and the labels of each."""
    header, before = packets_of(captures / first)
    _, after = packets_of(captures / second)
    gap = before[-1][0] - after[0][0] + 1000
    merged = joined(header, before + [(t + gap, *rest) for t, *rest in after])  # type: ignore[misc]
    one, two, both = (
        analyse((captures / first).read_bytes()),
        analyse((captures / second).read_bytes()),
        analyse(merged),
    )
    for section, name in (
        ("capture", "packets"),
        ("capture", "wire_bytes"),
        ("tcp", "streams"),
        ("tcp", "packets"),
        ("tcp", "data_segments"),
        ("tcp", "syn"),
        ("tcp", "fin"),
        ("tcp", "rst"),
        ("tcp", "retransmissions"),
        ("tcp", "reordered"),
        ("dns", "queries"),
        ("dns", "responses"),
        ("http", "requests"),
        ("http", "responses"),
        ("tls", "total"),
        ("icmp", "total"),
        ("dhcp", "total"),
        ("flows", "total"),
    ):
        found, wanted = (report[section][name] for report in (both, one)), two[section][name]  # type: ignore[literal-required]
        assert next(found) - next(found) == wanted, (section, name)
    count = len(before)
    for label, frames in both["tcp"]["label_frames"].items():
        left, right = one["tcp"]["label_frames"].get(label, []), two["tcp"]["label_frames"].get(label, [])
        assert frames == [*left, *(frame + count for frame in right)][:200], label
