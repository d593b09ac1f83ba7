"""TCP in IP fragments: read whole, told at the last piece, bounded."""

from __future__ import annotations

import struct

import pytest

from tests.gateway.analysis.packets import ACK, PSH, SYN, Trace, kinds, tcp

CLIENT, SERVER = "192.168.7.10", "198.51.100.20"
REQUEST = b"GET /a/rather/long/path HTTP/1.1\r\nHost: pieces.example\r\n\r\n"


def pieces(packet: bytes, size: int) -> list[bytes]:
    """An IPv4 or IPv6 frame cut into fragments of `size` bytes, a multiple of eight."""
    if packet[14] >> 4 == 4:
        head, body = packet[14:34], packet[34:]
    else:
        head, body = packet[14:54], packet[54:]
    found = []
    for at in range(0, len(body), size):
        part, more = body[at : at + size], at + size < len(body)
        if packet[14] >> 4 == 4:
            ip = head[:2] + struct.pack(">H", 20 + len(part)) + head[4:6]
            ip += struct.pack(">H", 0x2000 * more | at // 8) + head[8:]
        else:
            ip = head[:4] + struct.pack(">HB", 8 + len(part), 44) + head[7:]
            ip += struct.pack(">BBHI", 6, 0, at | more, 77)
        found.append(packet[:14] + ip + part)
    return found


def conversation(client: str, server: str, *, reverse: bool = False, drop: int | None = None) -> Trace:
    """A request in fragments of 24 bytes within an ordinary connection."""
    trace = Trace()
    trace.add(0.00, tcp(client, 40_000, server, 80, SYN, 0, ip_id=1))
    trace.add(0.02, tcp(server, 80, client, 40_000, SYN | ACK, 0, 1, ip_id=2))
    trace.add(0.03, tcp(client, 40_000, server, 80, ACK, 1, 1, ip_id=3))
    parts = pieces(tcp(client, 40_000, server, 80, PSH | ACK, 1, 1, REQUEST, ip_id=4), 24)
    for number, part in enumerate(reversed(parts) if reverse else parts):
        if number != drop:
            trace.add(0.04 + number / 10_000, part)
    trace.add(0.06, tcp(server, 80, client, 40_000, ACK, 1, 1 + len(REQUEST), ip_id=5))
    trace.add(0.08, tcp(client, 40_000, server, 80, ACK, 1 + len(REQUEST), 1, b"x" * 100, ip_id=6))
    return trace


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ends", [(CLIENT, SERVER), ("2001:db8::1", "2001:db8::2")], ids=["IPv4", "IPv6"])
def test_a_segment_in_pieces_is_one_segment(ends: tuple[str, str], reverse: bool) -> None:
    """Its length is that of the whole, so nothing seems to be missing behind it, and its request is read."""
    report = conversation(*ends, reverse=reverse).report()
    assert report["tcp"]["labels"] == {}
    assert report["tcp"]["data_segments"] == 2
    assert [row["host"] for row in report["http"]["rows"]] == ["pieces.example"]
    assert report["fragments"]["complete"] == 1


def test_a_segment_that_lacks_a_piece_is_not_made_up() -> None:
    """Without one of its fragments it never was; the next segment shows the gap."""
    report = conversation(CLIENT, SERVER, drop=1).report()
    assert report["tcp"]["labels"] == {"lost_segment": 1}
    assert report["fragments"]["incomplete"] == 1


def test_flags_that_hide_in_fragments_are_seen() -> None:
    """A scan whose packets come in pieces of eight bytes is the scan it is."""
    trace = Trace()
    trace.session(0.0, CLIENT, 49_000, SERVER, 443, up=bytes(300), down=bytes(3000))
    for port in range(1, 121):
        for part in pieces(tcp("192.168.7.66", 40_001, CLIENT, port, 0, 7, ip_id=1000 + port), 8):
            trace.add(5 + port / 50, part)
    assert "security.scan.null" in kinds(trace.report(), "medium")


def test_what_is_kept_of_pieces_is_bounded() -> None:
    """Beginnings without ends fill a table of fixed size and no more than four megabytes."""
    trace = Trace()
    for number in range(6000):
        packet = tcp(CLIENT, 40_000, SERVER, 80, ACK, number, 1, bytes(1400), ip_id=number)
        trace.add(number / 1000, pieces(packet, 1400)[0])
    report = trace.report(tables__fragment_groups="100000")
    assert report["fragments"]["incomplete"] == 6000
    assert report["tcp"]["streams"] == 0
