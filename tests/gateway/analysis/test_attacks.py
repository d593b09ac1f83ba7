"""Each security detector with a clear case, a near miss under its threshold and a look-alike that must stay silent."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.gateway.analysis.packets import (
    ACK,
    FIN,
    PSH,
    RST,
    SECOND,
    START_NS,
    SYN,
    URG,
    Trace,
    dns_answer,
    dns_query,
    ipv4,
    kinds,
    one,
    tcp,
    udp,
)

LAN = "192.168.7."
ATTACKER, VICTIM, OUTSIDE = "192.168.7.66", "192.168.7.10", "203.0.113.9"


def refused_try(trace: Trace, t: float, source: str, sport: int, target: str, port: int) -> None:
    trace.add(t, tcp(source, sport, target, port, SYN, sport * 7, options=b"\x02\x04\x05\xb4"))
    trace.add(t + 0.001, tcp(target, port, source, sport, RST | ACK, 0, sport * 7 + 1, win=0))


def alarms(trace: Trace, **overrides: str) -> list[str]:
    """Security kinds of medium severity and above."""
    report = trace.report(**overrides)
    return sorted(
        row["kind"]
        for row in report["findings"]
        if row["class"] == "security" and row["severity"] not in ("info", "low")
    )


def test_a_vertical_scan_inside_the_lan_is_found() -> None:
    """200 ports of one neighbour in 20 seconds are one scan, high, with the frames of its tries."""
    trace = Trace()
    for port in range(1, 201):
        refused_try(trace, port * 0.1, ATTACKER, 40_000 + port, VICTIM, port)
    report = trace.report()
    found = one(report, "security.scan.vertical")
    assert (found["severity"], found["evidence"]["ports"], found["frames"][:3]) == ("high", 200, [1, 3, 5])
    assert found["hosts"] == {"source": ATTACKER, "target": VICTIM}
    assert [row["kind"] for row in report["findings"] if row["class"] == "security"] == ["security.scan.vertical"]


def test_fourteen_ports_are_no_scan() -> None:
    """One port less than the threshold stays silent."""
    trace = Trace()
    for port in range(1, 15):
        refused_try(trace, port * 0.1, ATTACKER, 40_000 + port, VICTIM, port)
    assert alarms(trace) == []


def test_slow_tries_are_outside_the_window() -> None:
    """20 ports over 20 minutes are never 15 within a minute."""
    trace = Trace()
    for port in range(1, 21):
        refused_try(trace, port * 60.0, ATTACKER, 40_000 + port, VICTIM, port)
    assert "security.scan.vertical" not in alarms(trace)


def test_passive_ftp_is_no_scan() -> None:
    """Many high ports of one server, all with data, are file transfers."""
    trace = Trace()
    for number in range(30):
        trace.session(number * 0.5, LAN + "20", 50_000 + number, OUTSIDE, 30_000 + number, down=bytes(900))
    assert alarms(trace) == []


def test_a_retransmitted_syn_is_one_try() -> None:
    """Ten ports tried three times each are ten tries."""
    trace = Trace()
    for port in range(1, 11):
        for repeat in range(3):
            trace.add(
                port * 0.1 + repeat * 1.0, tcp(ATTACKER, 40_000 + port, VICTIM, port, SYN, 99, ip_id=trace.next_id())
            )
    assert not any(kind.startswith("security.scan") for kind in alarms(trace))


def test_a_horizontal_scan_is_found() -> None:
    """One port on 60 hosts without answer is a high horizontal scan."""
    trace = Trace()
    for host in range(1, 61):
        trace.add(host * 0.2, tcp(ATTACKER, 41_000 + host, f"10.9.0.{host}", 445, SYN, host))
    found = one(trace.report(), "security.scan.horizontal")
    assert (found["severity"], found["evidence"]["targets"], found["evidence"]["port"]) == ("high", 60, 445)


def test_a_browser_burst_and_monitoring_are_no_scan() -> None:
    """40 servers reached on port 443, or 40 hosts checked by a monitor, answer and so are no scan."""
    trace = Trace()
    for host in range(1, 41):
        trace.session(
            host * 0.05, LAN + "20", 52_000 + host, f"198.51.100.{host}", 443, up=bytes(300), down=bytes(2000)
        )
        trace.session(30 + host * 0.1, LAN + "3", 53_000 + host, f"10.9.0.{host}", 22, down=b"SSH-2.0-x\r\n")
    assert alarms(trace) == []


def test_a_block_scan_is_one_finding() -> None:
    """Twelve ports on twelve hosts are one block scan, not two dozen others."""
    trace = Trace()
    for host in range(1, 13):
        for port in range(20, 32):
            refused_try(trace, host + port * 0.01, ATTACKER, 30_000 + host * 100 + port, f"10.9.0.{host}", port)
    assert alarms(trace) == ["security.scan.block"]


@pytest.mark.parametrize(("flags", "kind"), [(0, "null"), (FIN, "fin"), (FIN | PSH | URG, "xmas")])
def test_flag_scans_are_found(flags: int, kind: str) -> None:
    """NULL, FIN and XMAS packets to 200 ports are named for what they are, whether answered or not."""
    trace = Trace()
    for port in range(1, 201):
        trace.add(port * 0.01, tcp(ATTACKER, 45_000, VICTIM, port, flags, 1))
        if port % 2:
            trace.add(port * 0.01 + 0.001, tcp(VICTIM, port, ATTACKER, 45_000, RST | ACK, 0, 1, win=0))
    found = one(trace.report(), f"security.scan.{kind}")
    assert (found["severity"], found["evidence"]["ports"]) == ("high", 200)


def test_four_flag_packets_are_no_scan_and_late_fins_neither() -> None:
    """Under five targets nothing is said; FINs of connections older than the capture are normal."""
    trace = Trace()
    for port in range(1, 5):
        trace.add(port * 0.01, tcp(ATTACKER, 45_000, VICTIM, port, FIN | PSH | URG, 1))
    for number in range(12):
        trace.add(2 + number, tcp(LAN + "20", 50_000 + number, OUTSIDE, 443, FIN | ACK, 5, 9))
        trace.add(2.02 + number, tcp(OUTSIDE, 443, LAN + "20", 50_000 + number, FIN | ACK, 9, 6))
        trace.add(2.03 + number, tcp(LAN + "20", 50_000 + number, OUTSIDE, 443, ACK, 6, 10))
    assert alarms(trace) == []


def test_a_udp_scan_is_found_and_traceroute_is_not() -> None:
    """Silent UDP ports are a scan; the ports of traceroute are not."""
    trace = Trace()
    for port in range(100, 120):
        trace.add(port * 0.1, udp(ATTACKER, 44_000, VICTIM, port, b"x"))
    assert alarms(trace) == ["security.scan.udp"]
    trace = Trace()
    for port in range(33_434, 33_464):
        trace.add(port * 0.01, udp(ATTACKER, 44_000, OUTSIDE, port, b"x"))
    assert alarms(trace) == []


def flood(trace: Trace, per_s: int, seconds: int, sources: int, begin: float = 10.0) -> None:
    generator = random.Random(7)
    for number in range(per_s * seconds):
        source = f"198.18.{generator.randrange(sources) // 250}.{generator.randrange(250) + 1}"
        trace.add(
            begin + number / per_s, tcp(source, 1024 + number % 60_000, VICTIM, 80, SYN, generator.getrandbits(32))
        )


@pytest.mark.parametrize("earlier", [False, True])
def test_a_syn_flood_is_exactly_one_critical_finding(earlier: bool) -> None:
    """2,000 SYNs a second from many sources are one finding, with and without an earlier connection of the victim."""
    trace = Trace()
    if earlier:
        trace.session(0.0, LAN + "20", 50_000, VICTIM, 80, up=b"x" * 50, down=b"y" * 500)
    flood(trace, 2000, 4, 1000)
    report = trace.report()
    found = one(report, "security.flood.syn")
    assert found["severity"] == "critical"
    assert found["evidence"]["spoofed"] is True
    assert [row["kind"] for row in report["findings"] if row["class"] == "security"] == ["security.flood.syn"]


def test_a_short_burst_of_syns_and_a_busy_server_are_no_flood() -> None:
    """Two seconds are too short, and a server that completes its handshakes is merely busy."""
    trace = Trace()
    flood(trace, 400, 2, 1000)
    assert "security.flood.syn" not in alarms(trace)
    trace = Trace()
    for number in range(1200):
        trace.session(
            number / 250,
            f"10.1.{number // 200}.{number % 200 + 1}",
            40_000 + number,
            VICTIM,
            80,
            up=b"x",
            down=b"y" * 20,
            rtt=0.001,
        )
    assert alarms(trace) == []


def test_a_udp_flood_is_found_and_a_call_is_not() -> None:
    """1,500 unanswered datagrams a second for four seconds are a flood; two-way traffic at that rate is not."""
    trace = Trace()
    for number in range(6000):
        trace.add(5 + number / 1500, udp("198.18.0.1", 1000 + number % 50_000, VICTIM, 9000, b"z" * 30))
    assert "security.flood.udp" in alarms(trace)
    trace = Trace()
    for number in range(6000):
        trace.add(5 + number / 1500, udp(OUTSIDE, 443, VICTIM, 50_000, b"\x40" + b"z" * 30))
        trace.add(5 + number / 1500 + 0.0001, udp(VICTIM, 50_000, OUTSIDE, 443, b"\x40" + b"z" * 30))
    assert alarms(trace) == []


def test_amplification_is_found_and_ordinary_dns_is_not() -> None:
    """Answers nobody asked for are amplification; large answers to questions in the usual ratio are not."""
    trace = Trace()
    for number in range(400):
        trace.add(
            number * 0.01,
            udp(
                f"198.51.100.{number % 50 + 1}",
                53,
                VICTIM,
                7777,
                dns_answer(number, "big.example", 16, b"\xc8" + b"a" * 200) + bytes(900),
            ),
        )
    assert "security.amplification" in alarms(trace)
    trace = Trace()
    for number in range(400):
        trace.add(number * 0.01, udp(VICTIM, 7777, "9.9.9.9", 53, dns_query(number, f"n{number}.example")))
        trace.add(
            number * 0.01 + 0.005,
            udp("9.9.9.9", 53, VICTIM, 7777, dns_answer(number, f"n{number}.example", 48, bytes(200))),
        )
    assert alarms(trace) == []


def test_password_guessing_is_found() -> None:
    """Thirty short alike SSH sessions in two minutes are guessing, high."""
    trace = Trace()
    for number in range(30):
        trace.session(
            number * 4.0,
            ATTACKER,
            50_000 + number,
            VICTIM,
            22,
            up=b"SSH-2.0-a\r\n" + bytes(900),
            down=b"SSH-2.0-b\r\n" + bytes(1500),
            lasts=2.0,
        )
    found = one(trace.report(), "security.brute_force")
    assert (found["severity"], found["evidence"]["tries"]) == ("high", 30)
    assert found["evidence"]["possible_success"] is False


def test_a_long_session_after_guessing_may_be_success() -> None:
    """A session unlike the tries that follows them raises the severity."""
    trace = Trace()
    for number in range(12):
        trace.session(
            number * 4.0,
            ATTACKER,
            50_000 + number,
            VICTIM,
            22,
            up=b"SSH-2.0-a\r\n" + bytes(900),
            down=b"SSH-2.0-b\r\n" + bytes(1500),
            lasts=2.0,
        )
    trace.session(
        60.0,
        ATTACKER,
        50_100,
        VICTIM,
        22,
        up=b"SSH-2.0-a\r\n" + bytes(9000),
        down=b"SSH-2.0-b\r\n" + bytes(90_000),
        lasts=60.0,
    )
    found = one(trace.report(), "security.brute_force")
    assert (found["severity"], found["evidence"]["possible_success"]) == ("high", True)


def test_few_logins_health_checks_backups_and_floods_are_no_guessing() -> None:
    """Nine sessions, checks that close before the banner, sessions of very different size and bare SYNs are not
    guesses.
    """
    trace = Trace()
    for number in range(9):
        trace.session(
            number * 4.0,
            ATTACKER,
            50_000 + number,
            VICTIM,
            22,
            up=bytes(900),
            down=b"SSH-2.0-b\r\n" + bytes(1500),
            lasts=2.0,
        )
    for number in range(60):
        trace.session(100 + number * 5.0, LAN + "3", 51_000 + number, VICTIM, 25)
    for number in range(14):
        trace.session(
            100 + number * 9.0,
            LAN + "4",
            52_000 + number,
            VICTIM,
            22,
            up=bytes(300 * 2 ** min(number, 9)),
            down=bytes(1500 * (number % 5 + 1)),
            lasts=20.0,
        )
    for number in range(60):
        trace.add(number * 0.5, tcp(LAN + "5", 53_000 + number, VICTIM, 22, SYN, number))
    assert "security.brute_force" not in kinds(trace.report())


def test_http_refusals_are_guessing() -> None:
    """Fifteen 401 answers in a minute are guesses at a web login; three are a typing error."""
    for count, wanted in ((15, ["security.brute_force"]), (3, [])):
        trace = Trace()
        for number in range(count):
            trace.session(
                number * 2.0,
                ATTACKER,
                50_000 + number,
                VICTIM,
                80,
                up=b"GET /admin HTTP/1.1\r\nHost: box\r\n\r\n",
                down=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            )
        assert alarms(trace) == wanted


def beacon(trace: Trace, period: float, noise: float, count: int, target: str = "198.51.100.77") -> None:
    generator = random.Random(3)
    for number in range(count):
        t = number * period + generator.uniform(-noise, noise) * period
        trace.session(5 + max(0.0, t), LAN + "30", 40_000 + number, target, 443, up=bytes(400), down=bytes(800))


def test_a_beacon_of_37_seconds_is_found() -> None:
    """Forty sessions every 37 s to a host without a name are a beacon, high."""
    trace = Trace()
    beacon(trace, 37.0, 0.0, 40)
    found = one(trace.report(), "security.beacon")
    assert found["severity"] in ("high", "critical")
    assert found["evidence"]["period_s"] == pytest.approx(37.0, rel=0.01)


def test_a_beacon_of_60_seconds_with_noise_is_found() -> None:
    """A whole minute is not exempt, and 20 % of noise does not hide it."""
    trace = Trace()
    beacon(trace, 60.0, 0.2, 40)
    found = one(trace.report(), "security.beacon")
    assert found["severity"] != "info"
    assert found["evidence"]["period_s"] == pytest.approx(60.0, rel=0.1)


def test_too_few_irregular_and_known_starts_are_no_beacon() -> None:
    """Seven starts, a person's browsing, packets inside one session, and NTP (as information only) raise no alarm."""
    trace = Trace()
    beacon(trace, 37.0, 0.0, 7)
    generator = random.Random(5)
    t = 0.0
    for number in range(30):
        t += generator.expovariate(1 / 40)
        trace.session(
            t,
            LAN + "31",
            41_000 + number,
            "198.51.100.78",
            443,
            up=bytes(generator.randrange(100, 4000)),
            down=bytes(generator.randrange(100, 9000)),
        )
    for number in range(60):
        trace.add(number * 30.0, udp(LAN + "32", 50_000, "198.51.100.123", 123, bytes(48)))
        trace.add(number * 30.0 + 0.02, udp("198.51.100.123", 123, LAN + "32", 50_000, bytes(48)))
        trace.add(number * 20.0, udp(LAN + "33", 51_000, "198.51.100.80", 51_820, bytes(32)))
    report = trace.report()
    assert [
        row["kind"]
        for row in report["findings"]
        if row["kind"] == "security.beacon" and row["severity"] != "info" and row["hosts"]["source"] != LAN + "33"
    ] == []


def test_a_dns_tunnel_is_found() -> None:
    """Hundreds of long random names with TXT answers under one parent are a tunnel, critical."""
    trace = Trace()
    for number in range(200):
        name = hashlib.sha256(str(number).encode()).hexdigest()[:52] + ".t.evil.example"
        trace.add(number * 0.5, udp(LAN + "9", 40_000, "9.9.9.9", 53, dns_query(number, name, 16)))
        trace.add(
            number * 0.5 + 0.05,
            udp("9.9.9.9", 53, LAN + "9", 40_000, dns_answer(number, name, 16, b"\xc8" + b"q" * 200)),
        )
    found = one(trace.report(), "security.dns_tunnel")
    assert (found["severity"], found["evidence"]["parent"]) == ("critical", "evil.example")


def test_content_networks_block_lists_and_few_names_are_no_tunnel() -> None:
    """Names of content networks are passed over with the reason; twenty long names are too few; ordinary names are
    short.
    """
    trace = Trace()
    for number in range(100):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        for offset, (name, kind) in enumerate(
            ((digest[:50] + ".cloudfront.net", 16), (f"www{number}.shop{number % 5}.example.com", 1))
        ):
            answer = dns_answer(number, name, kind, b"\xc8" + b"q" * 200 if kind == 16 else b"\xc6\x33\x64\x07")
            trace.add(
                number * 0.3 + offset * 0.01,
                udp(LAN + "9", 40_000 + offset, "9.9.9.9", 53, dns_query(number, name, kind)),
            )
            trace.add(number * 0.3 + 0.05, udp("9.9.9.9", 53, LAN + "9", 40_000 + offset, answer))
        if number < 20:
            trace.add(
                number * 0.3,
                udp(LAN + "8", 40_000, "9.9.9.9", 53, dns_query(number, digest[:50] + ".evil.example", 16)),
            )
    report = trace.report()
    assert "security.dns_tunnel" not in kinds(report)
    assert any(item.startswith("cloudfront.net") for item in report["dns"]["exempt"])


def test_a_large_upload_is_found_and_a_download_is_not() -> None:
    """Sixty megabytes out on an odd port are reported; forty in, or a few out, are not."""
    trace = Trace()
    block = bytes(60_000)
    seq = 1
    for number in range(1000):
        trace.add(number * 0.01, tcp(LAN + "40", 50_000, OUTSIDE, 4444, PSH | ACK, seq, 1, block[:60_000]))
        seq += 60_000
        trace.add(number * 0.01 + 0.005, tcp(OUTSIDE, 4444, LAN + "40", 50_000, ACK, 1, seq))
    found = one(trace.report(), "security.exfiltration")
    assert found["severity"] in ("medium", "high")
    trace = Trace()
    trace.session(0.0, LAN + "40", 50_000, OUTSIDE, 443, up=bytes(2_000_000), down=bytes(4_000_000))
    assert alarms(trace) == []


def test_lateral_movement_is_found_and_an_old_habit_is_not() -> None:
    """Sessions to four new hosts on RDP are movement; a server that had them open from the start is not."""
    trace = Trace()
    trace.session(0.0, LAN + "2", 40_000, OUTSIDE, 443, down=bytes(100))
    for number in range(4):
        trace.session(
            5 + number * 20.0,
            ATTACKER,
            50_000 + number,
            f"{LAN}{20 + number}",
            3389,
            up=bytes(500),
            down=bytes(5000),
            lasts=30,
        )
    assert alarms(trace) == ["security.lateral"]
    trace = Trace()
    for number in range(4):
        trace.session(
            number * 0.2,
            LAN + "3",
            50_000 + number,
            f"{LAN}{20 + number}",
            445,
            up=bytes(500),
            down=bytes(5000),
            lasts=30,
        )
    assert alarms(trace) == []


def test_overlapping_and_oversize_fragments_are_attacks() -> None:
    """A fragment inside another one and one beyond the largest packet are critical; a normal pair is nothing."""
    trace = Trace()
    trace.add(0, ipv4(OUTSIDE, VICTIM, 17, bytes(800), 7, fragment=0x2000))
    trace.add(0.1, ipv4(OUTSIDE, VICTIM, 17, bytes(40), 7, fragment=10))
    trace.add(0.2, ipv4(OUTSIDE, VICTIM, 1, bytes(1400), 8, fragment=0x1FFF))
    found = {row["kind"]: row["severity"] for row in trace.report()["findings"]}
    assert found["ip.fragments.teardrop"] == "critical"
    assert found["ip.fragments.oversize"] == "critical"
    trace = Trace()
    trace.add(0, ipv4(OUTSIDE, VICTIM, 17, bytes(800), 7, fragment=0x2000))
    trace.add(0.1, ipv4(OUTSIDE, VICTIM, 17, bytes(40), 7, fragment=100))
    assert kinds(trace.report()) == []


def test_a_muted_finding_stays_visible() -> None:
    """An allow-list entry marks the finding with its reason and takes it out of the verdict."""
    trace = Trace()
    for port in range(1, 201):
        refused_try(trace, port * 0.1, ATTACKER, 40_000 + port, VICTIM, port)
    report = trace.report(allow__entries=f"security.scan.vertical {ATTACKER} * * * our own scanner")
    assert one(report, "security.scan.vertical")["muted"] == "our own scanner"
    assert all(row["about"] != "security" for row in report["verdict"])


def test_a_flood_does_not_fill_memory_with_flows() -> None:
    """With small tables a flood is folded, and still it is one critical finding with exact counts."""
    trace = Trace()
    flood(trace, 3000, 4, 50_000)
    report = trace.report(tables__half_open="500", tables__hosts="200")
    assert report["limits"]["flows_folded"] > 10_000
    assert one(report, "security.flood.syn")["count"] == 12_000
    assert START_NS % SECOND == 0
