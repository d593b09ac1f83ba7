"""What hides: tunnels in DNS, data that leave, programs that call home; next to content networks and backups."""

from __future__ import annotations

import base64
import hashlib
import random
import struct

import pytest

from tests.gateway.analysis.attack_traffic import (
    LAN,
    OUTSIDE,
    QUIET_S,
    VICTIM,
    alarms,
    asked,
    household,
    only,
    security,
)
from tests.gateway.analysis.packets import ACK, PSH, SYN, Trace, dns_answer, dns_query, kinds, one, tcp, udp

RESOLVER = "9.9.9.9"


def digest(number: int, length: int) -> str:
    """A label that looks like data."""
    return base64.b32encode(hashlib.sha512(str(number).encode()).digest()).decode().lower()[:length]


def ask(
    trace: Trace,
    t: float,
    number: int,
    name: str,
    kind: int = 1,
    size: int = 4,
    rcode: int = 0,
    client: str = LAN + "9",
) -> None:
    """One question with its answer of `size` bytes."""
    answer = dns_answer(number & 0xFFFF, name, kind, bytes(size), rcode)
    asked(trace, t, client, 20_000 + number % 40_000, RESOLVER, 53, dns_query(number & 0xFFFF, name, kind), answer)


def test_a_tunnel_by_text_records_is_critical() -> None:
    """Two hundred long ever new names with long text answers carry data both ways."""
    trace = Trace()
    household(trace)
    for number in range(200):
        ask(trace, QUIET_S + number * 0.4, number, f"{digest(number, 50)}.t.evil.example", 16, 200)
    found = only(trace.report(), "security.dns_tunnel")
    assert (found["severity"], found["evidence"]["parent"], found["count"]) == ("critical", "evil.example", 200)
    assert {"distinct-names", "long-names", "random-names", "odd-types", "answers"} <= set(found["signals"])
    assert found["hosts"] == {"source": LAN + "9"}


def test_a_tunnel_by_addresses_and_missing_names_is_found() -> None:
    """A tunnel that only speaks upwards, in names that do not exist, is as much a tunnel; in IPv6 too."""
    trace = Trace()
    for number in range(60):
        name = f"{digest(number, 40)}.{digest(-number, 20)}.evil.example"
        question, answer = dns_query(number, name), dns_answer(number, name, rcode=3)
        asked(trace, number * 3.0, "fd00:7::9", 30_000 + number, "fd00:7::1", 53, question, answer)
    found = only(trace.report(), "security.dns_tunnel")
    assert found["severity"] in ("high", "critical")
    assert found["hosts"] == {"source": "fd00:7::9"}


def test_a_tunnel_over_tcp_is_found() -> None:
    """The same names over DNS on TCP."""
    trace = Trace()
    for number in range(60):
        name = f"{digest(number, 50)}.evil.example"
        question, answer = dns_query(number, name, 16), dns_answer(number, name, 16, bytes(180))
        up, down = struct.pack(">H", len(question)) + question, struct.pack(">H", len(answer)) + answer
        trace.session(number * 3.0, LAN + "9", 30_000 + number, RESOLVER, 53, up=up, down=down, rtt=0.01)
    assert "security.dns_tunnel" in alarms(trace)


def test_twenty_nine_questions_are_no_tunnel() -> None:
    """One question under the threshold is silence."""
    trace = Trace()
    for number in range(29):
        ask(trace, number * 0.4, number, f"{digest(number, 50)}.t.evil.example", 16, 200)
    assert alarms(trace, "low") == []


def test_two_signals_are_no_tunnel() -> None:
    """Names that are long and random but few in number, asked again and again, say little."""
    trace = Trace()
    for number in range(200):
        ask(trace, number * 3.0, number, f"{digest(number % 20, 50)}.app.example")
    assert alarms(trace, "low") == []


@pytest.mark.parametrize(
    "name",
    [
        "{label}.cloudfront.net",
        "{label}.r.nflxvideo.net",
        "{label}.avqs.mcafee.com",
        "{label}.zen.spamhaus.org",
        "{label}.in-addr.arpa",
        "{label}._tcp.local",
    ],
)
def test_those_who_look_like_tunnels_are_named_as_exempt(name: str) -> None:
    """Content networks, virus and block-list look-ups, reverse zones and local names are passed over with a reason."""
    trace = Trace()
    for number in range(150):
        ask(trace, number * 0.4, number, name.format(label=digest(number, 50)), 16, 200)
    report = trace.report()
    assert [row["kind"] for row in security(report)] == []
    assert len(report["dns"]["exempt"]) == 1


def test_a_large_domain_is_no_tunnel() -> None:
    """A crawler of one large domain asks ever new short names quickly and gets signed, long answers."""
    trace = Trace()
    for number in range(600):
        ask(trace, number * 0.3, number, f"shop{number}.example.com", 1, 300)
    assert alarms(trace, "low") == []


def test_search_lists_are_no_tunnel() -> None:
    """A laptop whose search list makes every name fail once produces missing names without end."""
    trace = Trace()
    for number in range(300):
        ask(trace, number * 0.5, number, f"www.site{number}.example.net.corp.example", rcode=3)
    assert alarms(trace, "low") == []


def upload(
    trace: Trace,
    source: str,
    target: str,
    port: int,
    megabytes: int,
    *,
    seconds: float = 60.0,
    begin: float = QUIET_S,
    down_share: float = 0.001,
) -> None:
    """A connection with one large upload; offload-sized records keep it small."""
    seq, back, size = 101, 501, 60_000
    count = round(megabytes * 1_000_000 / size)
    trace.add(begin, tcp(source, 50_000, target, port, SYN, 100, ip_id=trace.next_id()))
    trace.add(begin + 0.02, tcp(target, port, source, 50_000, SYN | ACK, 500, 101, ip_id=trace.next_id()))
    for number in range(count):
        t = begin + 0.03 + number * seconds / count
        trace.add(t, tcp(source, 50_000, target, port, PSH | ACK, seq, back, bytes(size), ip_id=trace.next_id()))
        seq += size
        answer = bytes(round(size * down_share))
        trace.add(t + 0.01, tcp(target, port, source, 50_000, PSH | ACK, back, seq, answer, ip_id=trace.next_id()))
        back += len(answer)


SMALL = {
    "exfiltration__low_bytes": "5000000",
    "exfiltration__medium_bytes": "20000000",
    "exfiltration__high_bytes": "100000000",
}


@pytest.mark.parametrize(("megabytes", "severity"), [(6, "low"), (25, "medium")])
def test_an_upload_weighs_by_its_size(megabytes: int, severity: str) -> None:
    """Data that leave in one direction are a finding, with small confidence; thresholds a tenth of the usual ones."""
    trace = Trace()
    household(trace)
    upload(trace, LAN + "40", OUTSIDE, 443, megabytes)
    found = only(trace.report(**SMALL), "security.exfiltration")
    assert (found["severity"], found["evidence"]["sent"]) == (severity, pytest.approx(megabytes * 1e6, rel=0.01))
    assert found["confidence"] <= 0.5
    assert found["hosts"] == {"source": LAN + "40", "target": OUTSIDE}


def test_fifty_megabytes_are_the_usual_threshold() -> None:
    """51 MB to a web port are low, 49 MB nothing."""
    for megabytes, wanted in ((51, ["security.exfiltration"]), (49, [])):
        trace = Trace()
        upload(trace, LAN + "40", OUTSIDE, 443, megabytes)
        assert alarms(trace, "low") == wanted


def test_an_upload_over_ipv6_is_found() -> None:
    """In IPv6 hosts of the network have global addresses, and data leave all the same."""
    trace = Trace()
    upload(trace, "2001:db8:7:1::40", "2001:db8:beef::9", 443, 6)
    found = only(trace.report(**SMALL), "security.exfiltration")
    assert found["hosts"] == {"source": "2001:db8:7:1::40", "target": "2001:db8:beef::9"}


def test_an_odd_or_readable_port_weighs_more() -> None:
    """Twenty-five megabytes to a port without a service, or in clear, are one step worse."""
    for port, signal in ((4444, "unusual-port"), (21, "cleartext")):
        trace = Trace()
        upload(trace, LAN + "40", OUTSIDE, port, 25)
        found = one(trace.report(**SMALL), "security.exfiltration")
        assert found["severity"] == "high"
        assert signal in found["signals"]


def test_uploads_in_datagrams_count() -> None:
    """UDP carries data away as well."""
    trace = Trace()
    for number in range(200):
        trace.add(number * 0.1, udp(LAN + "40", 50_000, OUTSIDE, 4444, bytes(60_000), ip_id=trace.next_id()))
    found = one(trace.report(), "security.exfiltration")
    assert found["evidence"]["sent"] == 12_000_000


def test_backups_calls_and_cameras_are_no_alarm() -> None:
    """A backup inside the network, a video call, and a camera that streams all day are what they should be."""
    trace = Trace()
    upload(trace, LAN + "40", LAN + "2", 445, 60)
    assert alarms(trace, "low") == []
    trace = Trace()
    upload(trace, LAN + "40", OUTSIDE, 443, 55, down_share=0.4)
    assert alarms(trace, "low") == []
    trace = Trace()
    upload(trace, LAN + "41", OUTSIDE, 443, 60, seconds=3600)
    assert alarms(trace, "low") == []


def test_a_backup_to_a_named_cloud_is_named_and_lowered() -> None:
    """An upload to a host whose name was asked for says the name, and weighs one step less."""
    trace = Trace()
    ask(trace, 1.0, 7, "backup.cloud.example", 1, 4)
    trace.packets[-1] = (
        trace.packets[-1][0],
        udp(RESOLVER, 53, LAN + "9", 20_007, dns_answer(7, "backup.cloud.example", data=bytes((203, 0, 113, 9)))),
    )
    upload(trace, LAN + "40", OUTSIDE, 443, 25)
    found = only(trace.report(**SMALL), "security.exfiltration")
    assert (found["severity"], found["evidence"]["name"]) == ("low", "backup.cloud.example")


def calls(
    trace: Trace,
    period_s: float,
    count: int,
    *,
    noise: float = 0.0,
    target: str = "198.51.100.77",
    source: str = LAN + "30",
    port: int = 443,
    sizes: float = 0.0,
    seed: int = 3,
) -> None:
    """Sessions that begin every `period_s`, give or take `noise` of it, with sizes that vary by `sizes`."""
    generator = random.Random(seed)
    for number in range(count):
        t = 40 + (number + generator.uniform(-noise, noise)) * period_s
        up, down = (round(size * (1 + generator.uniform(-sizes, sizes))) for size in (400, 900))
        trace.session(t, source, 40_000 + number, target, port, up=bytes(up), down=bytes(down))


@pytest.mark.parametrize("period_s", [37.0, 60.0])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_beacon_is_found_by_the_starts_of_its_sessions(period_s: float, seed: int) -> None:
    """Forty sessions every 37 or 60 s, give or take a fifth, to a host without a name; a whole minute is no excuse."""
    trace = Trace()
    household(trace)
    calls(trace, period_s, 40, noise=0.2, sizes=0.1, seed=seed)
    found = only(trace.report(), "security.beacon")
    assert found["severity"] in ("medium", "high", "critical")
    assert found["evidence"]["period_s"] == pytest.approx(period_s, rel=0.1)
    assert (found["evidence"]["starts"], found["count"]) == (40, 40)
    assert found["hosts"] == {"source": LAN + "30", "target": "198.51.100.77"}


def test_an_exact_beacon_is_grave_and_its_period_exact() -> None:
    """Without noise the period is told to the millisecond, though each session has packets of its own in between."""
    trace = Trace()
    for number in range(40):
        t = 40 + number * 37.0
        trace.session(t, LAN + "30", 40_000 + number, "198.51.100.77", 443, up=bytes(400), down=bytes(9000), lasts=9.0)
    found = only(trace.report(), "security.beacon")
    assert found["severity"] in ("high", "critical")
    assert found["evidence"]["period_s"] == pytest.approx(37.0, abs=0.001)


def test_a_beacon_in_datagrams_is_found() -> None:
    """A program that asks by UDP from a new port each time, and is answered, calls home too."""
    trace = Trace()
    household(trace)
    for number in range(40):
        asked(trace, 40 + number * 60.0, LAN + "30", 40_000 + number, "198.51.100.77", 7000, bytes(80), bytes(120))
    assert only(trace.report(), "security.beacon")["evidence"]["starts"] == 40


def test_seven_calls_and_irregular_ones_are_no_beacon() -> None:
    """Seven starts are too few; a person who reads comes at any time."""
    trace = Trace()
    calls(trace, 60.0, 7)
    generator, t = random.Random(6), 0.0
    for number in range(60):
        t += generator.expovariate(1 / 50)
        up, down = generator.randrange(200, 4000), generator.randrange(500, 30_000)
        trace.session(t, LAN + "31", 41_000 + number, "198.51.100.78", 443, up=bytes(up), down=bytes(down))
    assert alarms(trace, "low") == []


def test_clocks_resolvers_and_probes_are_expected() -> None:
    """NTP every 64 s, DNS every 30 s and a system's connectivity probe are named as regular, and as information."""
    trace = Trace()
    for number in range(40):
        asked(trace, number * 64.0, LAN + "32", 123, "198.51.100.123", 123, bytes(48), bytes(48))
        ask(trace, number * 30.0, number, "status.example.com", client=LAN + "33")
        request = b"GET /generate_204 HTTP/1.1\r\nHost: connectivitycheck.gstatic.com\r\n\r\n"
        answer = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
        trace.session(number * 60.0 + 7, LAN + "34", 42_000 + number, "198.51.100.204", 80, up=request, down=answer)
    report = trace.report()
    assert [row["kind"] for row in security(report)] == []
    periods = {row["service"]: row["period_s"] for row in report["temporal"]["periodic"]}
    assert periods["ntp"] == pytest.approx(64, abs=0.1)


def test_keep_alives_inside_a_session_are_no_beacon() -> None:
    """A thing behind NAT holds its UDP port, its tunnel and its MQTT connection open: no session begins by that."""
    trace = Trace()
    client, server = (LAN + "50", 50_000), (OUTSIDE, 8883)
    trace.session(0.0, *client, *server, up=bytes(200), down=bytes(200), close=False)
    seq, back = 1201, 1000 * 7 + 14 + 200
    for number in range(120):
        t = 5 + number * 25.0
        asked(trace, t, LAN + "51", 51_820, OUTSIDE, 51_820, bytes(32), bytes(32))
        asked(trace, t + 1, LAN + "52", 4500, OUTSIDE, 4500, b"\xff", b"\xff")
        trace.add(t + 2, udp(LAN + "53", 40_000, OUTSIDE, 32_100, b"hi"))
        trace.add(t + 3, tcp(*client, *server, PSH | ACK, seq, back, b"\xc0\x00", ip_id=trace.next_id()))
        seq += 2
        trace.add(t + 3.02, tcp(*server, *client, PSH | ACK, back, seq, b"\xd0\x00", ip_id=trace.next_id()))
        back += 2
    assert alarms(trace, "low") == []


def test_a_monitor_of_this_network_is_no_alarm() -> None:
    """Checks of the own servers every half minute keep time like a beacon, and stay at home."""
    trace = Trace()
    for number in range(60):
        trace.session(number * 30.0, LAN + "3", 40_000 + number, VICTIM, 443, up=bytes(300), down=bytes(3000))
        trace.session(number * 30.0 + 2, LAN + "3", 42_000 + number, VICTIM, 25, down=b"220 ready\r\n")
    assert alarms(trace) == []


def test_a_scan_at_regular_times_is_a_scan() -> None:
    """Tries that nobody answers begin no session: a scanner's clockwork is no beacon."""
    trace = Trace()
    for number in range(200):
        trace.add(number * 3.0, tcp(LAN + "66", 40_000 + number, f"10.9.0.{number % 50 + 1}", 445, SYN, number))
    assert "security.beacon" not in kinds(trace.report())
