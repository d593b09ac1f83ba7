"""Detectors of trouble below and beside TCP: a clear case, one under the threshold, a look-alike that stays silent."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from tests.gateway.analysis.attack_traffic import LAN, asked
from tests.gateway.analysis.packets import (
    ACK,
    PSH,
    START_NS,
    Trace,
    analyse,
    dns_answer,
    dns_query,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.gateway.analysis.wire import CLIENT, SERVER, Wire, found, kinds

ROUTER = "10.0.0.1"
HOME6, OTHER6 = "fe80::20", "fe80::66"
NODES = "ff02::1"


def icmp(source: str, target: str, kind: int, code: int, quoted: bytes = b"", word: int = 0) -> bytes:
    """An ICMP message, with the IP packet it is about."""
    return ipv4(source, target, 1, struct.pack(">BBHI", kind, code, 0, word) + quoted)


def quote(source: str, target: str, *, size: int = 60, port: int = 443) -> bytes:
    """The head of a TCP packet as an ICMP error quotes it."""
    return ipv4(source, target, 6, struct.pack(">HHI", 40_000, port, 1) + bytes(size))[14:42]


def household(trace: Trace, seconds: float = 1.0) -> None:
    """A page, so that the capture is not about the trouble alone."""
    trace.session(seconds, CLIENT, 49_000, "198.51.100.9", 443, up=bytes(300), down=bytes(3000))


@pytest.mark.parametrize(("code", "severity"), [(1, "medium"), (13, "medium"), (3, "info")])
def test_unreachable_hosts_weigh_more_than_ports(code: int, severity: str) -> None:
    """A router that has no way or forbids it is trouble; a closed port is an answer."""
    trace = Trace()
    household(trace)
    trace.add(2, icmp(ROUTER, CLIENT, 3, code, quote(CLIENT, SERVER)))
    assert kinds(found(trace.report(), "icmp.")) == [("icmp.unreachable", severity)]


def test_a_routing_loop_is_told_by_its_repeats() -> None:
    """Ten packets to one target that ran out of hops; nine, or a traceroute to many hops, are information."""
    for count, expected in ((10, [("icmp.loop", "high")]), (9, [("icmp.ttl_exceeded", "info")])):
        trace = Trace()
        household(trace)
        for number in range(count):
            trace.add(2 + number, icmp(ROUTER, CLIENT, 11, 0, quote(CLIENT, SERVER)))
        assert kinds(found(trace.report(), "icmp.")) == expected
    trace = Trace()
    for hop in range(1, 25):
        trace.add(hop, icmp(f"10.0.{hop}.1", CLIENT, 11, 0, quote(CLIENT, SERVER)))
    assert {row["severity"] for row in found(trace.report(), "icmp.")} == {"info"}


def test_a_redirect_is_told() -> None:
    """A router that points to another one is a low finding."""
    trace = Trace()
    household(trace)
    trace.add(2, icmp(ROUTER, CLIENT, 5, 1, quote(CLIENT, SERVER), word=int(ip_address("10.0.0.2"))))
    assert kinds(found(trace.report(), "icmp.")) == [("icmp.redirect", "low")]


def told_mtu(mtu: int, size: int, later_s: float) -> Wire:
    """A client that is told the path's size and goes on with segments of `size`."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=1400)
    wire.trace.add(0.040, icmp(ROUTER, CLIENT, 3, 4, quote(CLIENT, SERVER), word=mtu))
    for number in range(3):
        at = 40 + later_s * 1000 + number * 300
        wire.up(at, PSH | ACK, 1 + number * size, 1, size=size)
        wire.down(at + 20, ACK, 1, 1 + (number + 1) * size)
    return wire


def test_a_path_mtu_that_is_ignored_is_told() -> None:
    """Larger packets seconds after the message; smaller ones, or those already under way, obey it."""
    (row,) = told_mtu(1300, 1400, 3).found("ip.pmtu")
    assert (row["kind"], row["severity"], row["evidence"]) == ("ip.pmtu.ignored", "high", {"mtu": 1300, "ignored": 3})
    assert told_mtu(1300, 1200, 3).found("ip.pmtu") == []
    assert told_mtu(1300, 1400, 0.1).found("ip.pmtu") == []


def neighbour(kind: int, address: str, mac: bytes, source: str, *, override: bool = True) -> bytes:
    """A neighbour solicitation (135) or advertisement (136) with the hardware address as an option."""
    flags = 0x20000000 if kind == 136 and override else 0
    option = b"" if source == "::" else bytes([2 if kind == 136 else 1, 1]) + mac
    body = struct.pack(">BBHI", kind, 0, 0, flags) + ip_address(address).packed + option
    return ipv6(source, NODES, 58, body)


A, B = bytes.fromhex("020000000020"), bytes.fromhex("00112233aabb")


def test_two_owners_of_an_ipv6_address_conflict() -> None:
    """Two hardware addresses advertise one address within a minute; one after the other, or as a proxy, they do not."""
    for second_s, override, expected in ((5.0, True, ["nd.conflict"]), (90.0, True, []), (5.0, False, [])):
        trace = Trace()
        household(trace)
        trace.add(2, neighbour(136, HOME6, A, HOME6))
        trace.add(2 + second_s, neighbour(136, HOME6, B, HOME6, override=override))
        rows = found(trace.report(), "nd.")
        assert [row["kind"] for row in rows] == expected
        if rows:
            assert "02:00:00:00:00:20 (made up), 00:11:22:33:aa:bb all say" in rows[0]["sentence"]


def test_the_router_in_two_places_is_critical() -> None:
    """An address that advertises itself as a router and is claimed by a second device is where traffic is diverted."""
    trace = Trace()
    household(trace)
    trace.add(1.5, ipv6("fe80::1", NODES, 58, struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)))
    trace.add(2, neighbour(136, "fe80::1", B, "fe80::1"))
    trace.add(4, neighbour(136, "fe80::1", A, "fe80::1"))
    assert kinds(found(trace.report(), "nd.")) == [("nd.conflict", "critical")]


def test_an_address_that_is_taken_already_is_told() -> None:
    """Somebody defends the address a host is about to take; the host's own use of it a second later is its right."""
    for after_s, expected in ((0.01, [("nd.duplicate", "medium")]), (1.2, [])):
        trace = Trace()
        household(trace)
        trace.add(2, neighbour(135, HOME6, A, "::"))
        trace.add(2 + after_s, neighbour(136, HOME6, B, HOME6))
        assert kinds(found(trace.report(), "nd.")) == expected


def test_a_burst_is_told_with_its_frames() -> None:
    """200 packets in a tenth of a second of a quiet capture; 40 are too few, and a steady rate has no bursts."""

    def quiet(burst: int) -> Trace:
        trace = Trace()
        for number in range(60):
            trace.add(number, udp(CLIENT, 40_000, SERVER, 9999, b"x", ip_id=trace.next_id()))
        for number in range(burst):
            trace.add(30.01 + number / 5000, udp(CLIENT, 40_001, SERVER, 9999, b"x", ip_id=trace.next_id()))
        return trace

    (row,) = found(quiet(200).report(), "traffic.burst")
    assert (row["title"], row["first"]["frame"], row["frames"]) == ("1 burst of packets", 31, [31])
    assert row["filter"] == "frame.number >= 31 && frame.number < 232"
    (burst,) = quiet(200).report()["temporal"]["bursts"]
    assert (burst["frame"], burst["talkers"][0]["host"], burst["coinciding"]) == (31, CLIENT, [])
    assert row["severity"] == "low"
    assert found(quiet(40).report(), "traffic.burst") == []
    steady = Trace()
    for number in range(6000):
        steady.add(number / 100, udp(CLIENT, 40_000, SERVER, 9999, b"x", ip_id=steady.next_id()))
    assert found(steady.report(), "traffic.burst") == []


@pytest.mark.parametrize(("lossy", "severity"), [(True, "medium"), (False, "low")])
def test_a_burst_in_which_segments_are_lost_weighs_more(lossy: bool, severity: str) -> None:
    """A hundred segments at once, of which four are sent again there and then; afterwards it is another matter."""
    wire = Wire()
    for number in range(200):
        wire.trace.add(number / 5, udp(CLIENT, 40_000, SERVER, 9999, b"x", ip_id=wire.trace.next_id()))
    wire.open(20)
    for number in range(100):
        wire.up(20_001 + number * 0.5, ACK, 1 + number * 1000, 1, 1000)
    for number in range(4):
        wire.up((20_052 if lossy else 30_052) + number, ACK, 1 + (90 + number) * 1000, 1, 1000)
    report = wire.trace.report()
    (loss,) = found(report, "tcp.retransmission")
    (burst,) = report["temporal"]["bursts"]
    assert burst["coinciding"] == ([loss["id"]] if lossy else [])
    assert kinds(found(report, "traffic.burst")) == [("traffic.burst", severity)]


def test_a_pause_of_the_recording_is_told() -> None:
    """Twelve seconds without any packet; nine are nothing."""
    for gap_s, expected in ((12.0, [("capture.pause", "info")]), (9.0, [])):
        trace = Trace()
        for number in range(100):
            trace.add(number / 10 + (gap_s if number >= 50 else 0), udp(CLIENT, 4, SERVER, 9, b"x"))
        assert kinds(found(trace.report(), "capture.pause")) == expected


def test_a_packet_cut_within_its_headers_is_cut_and_not_malformed() -> None:
    """A snap length of 68 bytes ends within TCP over IPv6; that is the recorder's doing and no fault of the sender."""
    trace = Trace()
    trace.session(0.0, "2001:db8::2", 40_000, "2001:db8::9", 80, b"x", b"y")
    report = analyse(trace.pcap(snap=68))
    assert [note["name"] for note in report["capture"]["notes"]] == ["cut-packets"]
    assert (report["capture_health"]["cut"], report["capture_health"]["malformed"]) == (len(trace.packets), 0)


def test_malformed_packets_are_told_by_layer_with_their_first_frame() -> None:
    """An IP header of four bytes and a TCP header of eight are two different faults."""
    trace = Trace()
    trace.add(0.0, udp(CLIENT, 4, SERVER, 9, b"x"))
    trace.add(0.1, ipv4(CLIENT, SERVER, 6, bytes(8)))
    broken = ipv4(CLIENT, SERVER, 17, bytes(40))
    for number in range(2):
        trace.add(0.2 + number, broken[:14] + b"\x41" + broken[15:])
    report = trace.report()
    notes = {note["name"]: (note["count"], note["frame"]) for note in report["capture"]["notes"]}
    assert notes == {"malformed-ip": (2, 3), "malformed-l4": (1, 2)}
    assert report["capture_health"]["malformed"] == 3


def test_a_clock_that_steps_back_weakens_only_when_it_matters() -> None:
    """Half a second back costs findings about time their confidence; ten microseconds between processors do not."""
    for back_s, severity, limits in ((0.5, "low", ["clock-backwards"]), (0.00001, "info", [])):
        wire = Wire()
        wire.open(500)
        at = START_NS + 2_000_000_000
        wire.trace.packets.append((at, udp(CLIENT, 4, SERVER, 9, b"x")))
        wire.trace.packets.append((at - int(back_s * 1e9), udp(CLIENT, 4, SERVER, 9, b"y")))
        ordered = wire.trace.packets
        head = wire.trace.pcap()[:24]
        records = b"".join(
            struct.pack("<IIII", t // 10**9, t % 10**9 // 1000, len(data), len(data)) + data for t, data in ordered
        )
        report = analyse(head + records)
        (clock,) = found(report, "capture.clock")
        assert (clock["severity"], clock["filter"]) == (severity, "frame.number in {5}")
        (slow,) = found(report, "tcp.handshake.slow")
        assert slow["limits"] == limits


def test_a_resolver_that_fails_is_told() -> None:
    """Two of ten questions without a good answer are high; one is low; names that do not exist are an answer."""
    for failed, rcode, expected in (
        (2, 2, [("dns.failure", "high")]),
        (1, 2, [("dns.failure", "low")]),
        (5, 3, []),
    ):
        trace = Trace()
        for number in range(10):
            name = f"host{number}.example"
            answer = dns_answer(number, name, rcode=rcode if number < failed else 0)
            asked(trace, number * 1.0, CLIENT, 50_000 + number, LAN + "1", 53, dns_query(number, name), answer)
        assert kinds(found(trace.report(), "dns.failure")) == expected


def test_a_slow_resolver_is_told() -> None:
    """Answers after 1.5 s and after 0.3 s; after 0.15 s nothing is said."""
    for rtt, expected in ((1.5, [("dns.slow", "medium")]), (0.3, [("dns.slow", "low")]), (0.15, [])):
        trace = Trace()
        asked(trace, 1.0, CLIENT, 50_000, LAN + "1", 53, dns_query(7, "a.example"), dns_answer(7, "a.example"), rtt)
        household(trace, 5.0)
        assert kinds(found(trace.report(), "dns.slow")) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_questions_over_tcp_are_read_in_any_pieces(size: int) -> None:
    """A question that comes byte by byte is one question, over IPv6 as over IPv4."""
    question = dns_query(7, "pieces.example")
    stream = struct.pack(">H", len(question)) + question
    for client, server in ((CLIENT, SERVER), ("2001:db8::2", "2001:db8::53")):
        trace = Trace()
        for at in range(0, len(stream), size):
            trace.add(at / 1000, tcp(client, 40_000, server, 53, PSH | ACK, 1 + at, 1, stream[at : at + size]))
        dns = trace.report()["dns"]
        assert (dns["queries"], [row["name"] for row in dns["rows"]]) == (1, ["pieces.example"])


def test_answers_over_tcp_are_read_in_any_order() -> None:
    """Two questions on one connection whose segments overtake each other are two questions."""
    wire = Wire(port=53)
    wire.open()
    first, second = (
        struct.pack(">H", len(query)) + query for query in (dns_query(1, "one.example"), dns_query(2, "two.example"))
    )
    data = first + second
    third = len(data) // 3
    for ms, begin, end in ((40, third, 2 * third), (41, 2 * third, len(data)), (42, 0, third)):
        wire.up(ms, PSH | ACK, 1 + begin, 1)
        at, packet = wire.trace.packets.pop()
        head = bytearray(packet)
        head[16:18] = struct.pack(">H", len(packet) - 14 + end - begin)
        wire.trace.packets.append((at, bytes(head) + data[begin:end]))
    report = wire.trace.report()
    assert report["dns"]["queries"] == 2
    assert {row["name"] for row in report["dns"]["rows"]} == {"one.example", "two.example"}


def page(status: bytes, think_s: float, number: int, trace: Trace) -> None:
    """One request over HTTP and its answer."""
    down = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok"
    request = b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"
    trace.session(number * 5.0, CLIENT, 41_000 + number, SERVER, 80, up=request, down=down, think=think_s)


def test_server_errors_weigh_by_their_share() -> None:
    """Three of twelve are high, one of twelve medium; answers of 404 are the client's mistake."""
    for status, count, expected in (
        (b"503 Busy", 3, [("http.error", "high")]),
        (b"500 Oops", 1, [("http.error", "medium")]),
        (b"404 Gone", 6, []),
    ):
        trace = Trace()
        for number in range(12):
            page(status if number < count else b"200 OK", 0.01, number, trace)
        assert kinds(found(trace.report(), "http.error")) == expected


def test_a_slow_web_server_is_told() -> None:
    """1.5 s beyond the round trip is the server's time; 0.8 s is not worth a finding."""
    for think_s, expected in ((1.5, [("http.slow", "medium")]), (0.8, [])):
        trace = Trace()
        page(b"200 OK", think_s, 0, trace)
        assert kinds(found(trace.report(), "http.slow")) == expected


def test_a_device_that_announces_without_pause_is_told() -> None:
    """Eighty announcements a second for two seconds; forty, and a room of forty devices, are ordinary."""
    for per_s, sources, expected in ((80, 1, [("mdns.flood", "low")]), (40, 1, []), (80, 40, [])):
        trace = Trace()
        household(trace, 0.0)
        for number in range(per_s * 2):
            source = f"192.168.7.{20 + number % sources}"
            trace.add(100 + number / per_s, udp(source, 5353, "224.0.0.251", 5353, dns_answer(0, "tv.local")))
        household(trace, 3000.0)
        rows = found(trace.report(), "mdns.")
        assert kinds(rows) == expected
        if rows:
            assert rows[0]["first"]["frame"] > 1


def stream(held_ms: float) -> Trace:
    """A datagram each 20 ms; every sixteenth is held up, and those behind it come with it."""
    trace = Trace()
    for number in range(200):
        late = max(0.0, held_ms - 20 * (number % 16 - 11)) if number % 16 >= 11 else 0.0
        trace.add(number * 0.02 + late / 1000, udp(CLIENT, 40_000, SERVER, 9999, b"game" * 20, ip_id=trace.next_id()))
    return trace


def test_an_uneven_stream_is_told() -> None:
    """One in sixteen of a steady stream held up for 70 ms is medium, for 20 ms nothing; TCP has no pace to keep."""
    assert kinds(found(stream(70).report(), "udp.jitter")) == [("udp.jitter", "medium")]
    assert found(stream(20).report(), "udp.jitter") == []
    wire = Wire()
    wire.open()
    for number in range(200):
        wire.up(30 + number * 20 + (15 if number % 10 == 5 else 0), PSH | ACK, 1 + number * 100, 1, size=100)
    assert wire.found("udp.jitter") == []


def quic_first(kind: int) -> bytes:
    """A datagram with a long header of QUIC version 1 (RFC 9000 section 17.2): 0 is an Initial, 3 a Retry."""
    return bytes([0xC0 | kind << 4]) + b"\0\0\0\1" + b"\x08" + bytes(8) + b"\0" + b"\0" + b"\x44\x00" + bytes(1024)


def attempt_by_quic(
    *, initials: int, tcp_at: float | None, retry: bool = False, answered: bool = False, other: str = ""
) -> list[str]:
    """The kinds found where a client's QUIC gets these answers and TCP to port 443 begins at a time (QUIC at 2 s)."""
    trace = Trace()
    household(trace)
    for number in range(initials):
        trace.add(2 + number * 0.3, udp(CLIENT, 50_123, SERVER, 443, quic_first(0)))
        if retry and number == 0:
            trace.add(2.1, udp(SERVER, 443, CLIENT, 50_123, quic_first(3)))
    if answered:
        trace.add(2.95, udp(SERVER, 443, CLIENT, 50_123, quic_first(0)))
    if tcp_at is not None:
        trace.session(tcp_at, CLIENT, 49_100, other or SERVER, 443, up=bytes(300), down=bytes(3000))
    return [row["kind"] for row in found(trace.report(), "quic.")]


def test_quic_that_falls_back_to_tcp_is_blocked() -> None:
    """Three first packets without an answer, then TCP to the same server; the path lets no QUIC through."""
    assert attempt_by_quic(initials=3, tcp_at=3.5) == ["quic.blocked"]


@pytest.mark.parametrize(
    ("initials", "tcp_at", "other"), [(2, 3.5, ""), (3, None, ""), (3, 3.5, "198.51.100.77")], ids=str
)
def test_a_little_less_is_no_blocked_quic(initials: int, tcp_at: float | None, other: str) -> None:
    """Two first packets may be lost; without TCP to this server nobody knows whether it is there at all."""
    assert attempt_by_quic(initials=initials, tcp_at=tcp_at, other=other) == []


def test_what_looks_like_blocked_quic_is_silent() -> None:
    """A server that answers late or asks for a retry, and a TCP connection that was there before QUIC was tried."""
    assert attempt_by_quic(initials=3, tcp_at=3.5, answered=True) == []
    assert attempt_by_quic(initials=3, tcp_at=3.5, retry=True) == []
    assert attempt_by_quic(initials=3, tcp_at=1.5) == []
