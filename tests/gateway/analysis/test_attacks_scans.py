"""Scans: every kind once clearly, once just under its threshold, and next to those who only look like scanners."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from tests.gateway.analysis.attack_traffic import (
    ATTACKER,
    LAN,
    OUTSIDE,
    QUIET_S,
    VICTIM,
    alarms,
    asked,
    dialogue,
    half_open,
    household,
    only,
    refused,
    security,
    unanswered,
)
from tests.gateway.analysis.packets import ACK, FIN, PSH, RST, SYN, Trace, dns_answer, dns_query, tcp, udp

# Both addresses given: else scapy asks the network for them.
FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FLAGS = {"null": "", "fin": "F", "xmas": "FPU", "maimon": "FA", "ack": "A"}


def vertical(trace: Trace, ports: int, step_s: float = 0.05, target: str = VICTIM) -> None:
    """Refused tries of a row of ports of one host."""
    for number in range(ports):
        refused(trace, QUIET_S + number * step_s, ATTACKER, 41_000 + number, target, 1 + number)


def test_two_hundred_ports_of_a_neighbour_are_one_finding() -> None:
    """A SYN scan between two hosts of the LAN, as a raw socket sends it, is found once, with both its ends."""
    trace = Trace()
    household(trace)
    for number in range(200):
        t, port = QUIET_S + number * 0.01, 1 + number
        probe = IP(src=ATTACKER, dst=VICTIM, id=number + 1, ttl=51) / TCP(
            sport=55_555, dport=port, flags="S", seq=1_000_003, window=1024, options=[("MSS", 1460)]
        )
        trace.add(t, bytes(FRAME / probe))
        if port == 80:
            answer = TCP(sport=port, dport=55_555, flags="SA", seq=9, ack=1_000_004, options=[("MSS", 1460)])
            trace.add(t + 0.001, bytes(FRAME / IP(src=VICTIM, dst=ATTACKER, id=4000 + number) / answer))
            end = TCP(sport=55_555, dport=port, flags="R", seq=1_000_004, window=0)
            trace.add(t + 0.0012, bytes(FRAME / IP(src=ATTACKER, dst=VICTIM, id=9000) / end))
        else:
            answer = TCP(sport=port, dport=55_555, flags="RA", seq=0, ack=1_000_004, window=0)
            trace.add(t + 0.001, bytes(FRAME / IP(src=VICTIM, dst=ATTACKER, id=4000 + number) / answer))
    report = trace.report()
    found = only(report, "security.scan.vertical")
    assert (found["severity"], found["evidence"]["ports"], found["evidence"]["open"]) == ("high", 200, [80])
    assert found["hosts"] == {"source": ATTACKER, "target": VICTIM}
    assert found["count"] == 200
    assert len(found["frames"]) == 100
    assert found["filter"].startswith(f"ip.addr == {ATTACKER} && ip.addr == {VICTIM} && frame.time_relative >= ")
    assert found["threshold"]["ports"] == 15
    assert report["verdict"][0]["about"] == "security"


@pytest.mark.parametrize(("ports", "severity"), [(15, "medium"), (100, "high"), (1000, "critical")])
def test_a_vertical_scan_weighs_by_its_ports(ports: int, severity: str) -> None:
    """Fifteen, a hundred and a thousand ports within a minute are medium, high and critical."""
    trace = Trace()
    vertical(trace, ports)
    assert only(trace.report(), "security.scan.vertical")["severity"] == severity


def test_fourteen_ports_are_silent() -> None:
    """One port under the threshold is nothing."""
    trace = Trace()
    vertical(trace, 14)
    assert alarms(trace, "low") == []


def test_the_minute_slides() -> None:
    """Fifteen ports across the turn of a minute are found; with the fifteenth beyond sixty seconds they are not."""
    for last_s, wanted in ((59.0, ["security.scan.vertical"]), (61.0, [])):
        trace = Trace()
        for number in range(14):
            refused(trace, 30 + number * 4.0, ATTACKER, 41_000 + number, VICTIM, 1 + number)
        refused(trace, 30 + last_s, ATTACKER, 41_020, VICTIM, 30)
        assert alarms(trace) == wanted


def test_a_scan_over_ipv6_is_found() -> None:
    """Addresses of either family count alike."""
    trace = Trace()
    for number in range(40):
        refused(trace, QUIET_S + number * 0.1, "fd00:7::66", 41_000 + number, "fd00:7::10", 20 + number)
    found = only(trace.report(), "security.scan.vertical")
    assert found["hosts"] == {"source": "fd00:7::66", "target": "fd00:7::10"}
    assert found["filter"] == "frame.number in {" + ",".join(map(str, range(1, 81, 2))) + "}"


def test_a_connect_scan_of_open_ports_is_found() -> None:
    """Connections that are made and closed at once without a byte are tries like refused ones."""
    trace = Trace()
    for number in range(25):
        trace.session(QUIET_S + number * 0.2, ATTACKER, 41_000 + number, VICTIM, 8000 + number, rtt=0.001)
    assert only(trace.report(), "security.scan.vertical")["evidence"]["ports"] == 25


def test_a_half_open_scan_of_open_ports_is_found() -> None:
    """An answered SYN that the scanner resets is a try."""
    trace = Trace()
    for number in range(25):
        half_open(trace, QUIET_S + number * 0.2, ATTACKER, 41_000 + number, VICTIM, 8000 + number)
    assert only(trace.report(), "security.scan.vertical")["evidence"]["ports"] == 25


def test_an_open_port_that_is_used_afterwards_raises_a_scan() -> None:
    """A scan that found something and went back to it weighs one step more."""
    trace = Trace()
    vertical(trace, 40)
    trace.session(60.0, ATTACKER, 42_000, VICTIM, 8080, up=bytes(500), down=bytes(5000))
    found = only(trace.report(), "security.scan.vertical")
    assert (found["severity"], found["evidence"]["open"]) == ("high", [8080])


def test_repeats_of_few_tries_are_no_scan() -> None:
    """A device whose server is gone tries the same two ports for an hour: NAT'd things keep doing that."""
    trace = Trace()
    for number in range(200):
        unanswered(trace, number * 18.0, LAN + "50", 40_000 + number, OUTSIDE, 8883 if number % 2 else 443)
    assert alarms(trace) == []


def test_a_monitor_that_checks_many_ports_is_no_scan() -> None:
    """Thirty services of one host, each asked and answering, are a monitor's round."""
    trace = Trace()
    for round_s in (0.0, 60.0):
        for number in range(30):
            t = round_s + number * 0.1
            trace.session(t, LAN + "3", 50_000 + number, VICTIM, 9000 + number, up=b"ping\n", down=b"pong\n", rtt=0.001)
    assert alarms(trace, "low") == []


def test_passive_ftp_and_port_reuse_are_no_scan() -> None:
    """File transfers on ever new high ports, and ports that are used anew, carry data and so are no tries."""
    trace = Trace()
    for number in range(60):
        trace.session(number * 0.3, LAN + "20", 50_000, OUTSIDE, 30_000 + number, down=bytes(1200), isn=9000 + number)
        trace.session(
            number * 0.3 + 0.1, LAN + "21", 50_000, OUTSIDE, 443, up=bytes(99), down=bytes(99), isn=number * 99_999
        )
    assert alarms(trace, "low") == []


def test_connections_seen_in_one_direction_are_no_scan() -> None:
    """Where the tap shows only what clients send, connections that carry data were answered, seen or not."""
    trace = Trace()
    for number in range(40):
        client, server = (LAN + "20", 50_000 + number), (f"198.51.100.{number + 1}", 443)
        t = QUIET_S + number * 0.1
        trace.add(t, tcp(*client, *server, SYN, 100))
        trace.add(t + 0.03, tcp(*client, *server, ACK, 101, 501))
        for part in range(4):
            trace.add(
                t + 0.04 + part * 0.05, tcp(*client, *server, PSH | ACK, 101 + 300 * part, 501 + 900 * part, bytes(300))
            )
    assert alarms(trace) == []


@pytest.mark.parametrize(("targets", "severity"), [(15, "medium"), (50, "high"), (254, "high")])
def test_a_horizontal_scan_weighs_by_its_targets(targets: int, severity: str) -> None:
    """One port on many hosts is one finding that names the port and, unlike a vertical one, no single target."""
    trace = Trace()
    household(trace)
    for number in range(targets):
        unanswered(trace, QUIET_S + number * 0.1, ATTACKER, 41_000 + number, f"10.9.0.{number + 1}", 445)
    found = only(trace.report(), "security.scan.horizontal")
    assert (found["severity"], found["evidence"]["targets"], found["evidence"]["port"]) == (severity, targets, 445)
    assert found["hosts"] == {"source": ATTACKER}


def test_fourteen_hosts_are_silent() -> None:
    """One host under the threshold is nothing."""
    trace = Trace()
    for number in range(14):
        unanswered(trace, QUIET_S + number, ATTACKER, 41_000 + number, f"10.9.0.{number + 1}", 445)
    assert alarms(trace, "low") == []


def test_crawlers_peers_and_browsers_reach_whom_they_call() -> None:
    """A crawler, a browser's burst and a peer-to-peer client with a third of dead peers succeed mostly."""
    generator = random.Random(2)
    trace = Trace()
    for number in range(60):
        server = f"198.51.100.{number + 1}"
        trace.session(number * 0.02, LAN + "20", 52_000 + number, server, 443, up=bytes(500), down=bytes(3000))
        trace.session(
            10 + number * 0.5, LAN + "4", 53_000 + number, f"203.0.113.{number + 1}", 80, up=bytes(90), down=bytes(900)
        )
        peer, port = f"192.0.2.{number + 1}", generator.randrange(10_000, 60_000)
        if number % 3:
            trace.session(20 + number * 0.4, LAN + "22", 54_000 + number, peer, port, up=bytes(68), down=bytes(68))
        else:
            unanswered(trace, 20 + number * 0.4, LAN + "22", 54_000 + number, peer, port)
    assert alarms(trace, "low") == []


def test_a_block_scan_is_one_finding() -> None:
    """Ten ports on each of twelve hosts are one block, not twelve vertical and ten horizontal scans."""
    trace = Trace()
    for host in range(12):
        for port in range(10):
            t = QUIET_S + host * 0.5 + port * 0.02
            refused(trace, t, ATTACKER, 41_000 + host * 10 + port, f"10.9.0.{host + 1}", 20 + port)
    found = only(trace.report(), "security.scan.block")
    assert (found["severity"], found["evidence"]["targets"], found["evidence"]["ports"]) == ("high", 12, 10)


def test_a_slow_scan_is_low_and_called_slow() -> None:
    """Sixty ports, one every ninety seconds, are below every window, and yet nearly all fail."""
    trace = Trace()
    for number in range(60):
        refused(trace, number * 90.0, ATTACKER, 41_000 + number, VICTIM, 1 + number)
    assert only(trace.report(), "security.scan.slow")["severity"] == "low"


def test_odd_failures_of_a_long_day_are_no_slow_scan() -> None:
    """Thirty-nine tries are too few, and sixty of which every fifth succeeds are ordinary misfortune."""
    trace = Trace()
    for number in range(39):
        refused(trace, number * 90.0, ATTACKER, 41_000 + number, VICTIM, 1 + number)
    assert alarms(trace, "low") == []
    trace = Trace()
    for number in range(60):
        target = f"198.51.100.{number + 1}"
        if number % 5:
            refused(trace, number * 90.0, LAN + "20", 41_000 + number, target, 1000 + number)
        else:
            trace.session(number * 90.0, LAN + "20", 41_000 + number, target, 443, up=bytes(99), down=bytes(999))
    assert alarms(trace, "low") == []


@pytest.mark.parametrize("answered", [False, True], ids=["silent", "reset"])
@pytest.mark.parametrize("name", FLAGS)
def test_packets_that_no_connection_sends_are_scans(name: str, answered: bool) -> None:
    """NULL, FIN, XMAS, Maimon and ACK probes of 120 ports are one finding by that name, answered or not."""
    trace = Trace()
    household(trace)
    for number in range(120):
        t = QUIET_S + number * 0.02
        probe = TCP(sport=55_555, dport=1 + number, flags=FLAGS[name], seq=7, ack=9, window=1024)
        trace.add(t, bytes(FRAME / IP(src=ATTACKER, dst=VICTIM, id=number + 1) / probe))
        if answered:
            answer = TCP(
                sport=1 + number, dport=55_555, flags="R" if "A" in FLAGS[name] else "RA", seq=9, ack=7, window=0
            )
            trace.add(t + 0.001, bytes(FRAME / IP(src=VICTIM, dst=ATTACKER, id=700 + number) / answer))
    found = only(trace.report(), f"security.scan.{name}")
    assert (found["severity"], found["evidence"]["ports"]) == ("high", 120)
    assert found["hosts"] == {"source": ATTACKER, "target": VICTIM}


def test_a_flag_scan_over_ipv6_is_found() -> None:
    """XMAS packets in IPv6 are XMAS packets."""
    trace = Trace()
    for number in range(40):
        probe = IPv6(src="fd00:7::66", dst="fd00:7::10") / TCP(sport=55_555, dport=1 + number, flags="FPU", seq=7)
        trace.add(QUIET_S + number * 0.02, bytes(FRAME / probe))
    assert only(trace.report(), "security.scan.xmas")["evidence"]["ports"] == 40


def test_four_odd_packets_are_no_flag_scan() -> None:
    """Under five ports the odd packet is an odd packet."""
    trace = Trace()
    for number in range(4):
        trace.add(QUIET_S + number, tcp(ATTACKER, 55_555, VICTIM, 1 + number, 0, 7))
    assert alarms(trace, "low") == []


def test_connections_older_than_the_capture_are_no_flag_scan() -> None:
    """A laptop that wakes closes or probes thirty connections from before; servers reset what they have forgotten."""
    for flags in (FIN | ACK, ACK):
        trace = Trace()
        household(trace)
        for number in range(30):
            client, server = (LAN + "20", 50_000 + number * 3), (f"198.51.100.{number + 1}", 443)
            t = QUIET_S + number * 0.01
            trace.add(t, tcp(*client, *server, flags, 4_000_000 + number * 777, 9_000 + number, ip_id=trace.next_id()))
            if number % 2:
                trace.add(t + 0.02, tcp(*server, *client, RST, 9_000 + number, 0, win=0, ip_id=trace.next_id()))
        assert alarms(trace, "low") == []


def test_a_udp_scan_is_found_by_refusals_and_by_silence() -> None:
    """Twenty UDP ports, answered by ICMP or not at all, are a scan; fourteen are not."""
    for ports, wanted in ((20, ["security.scan.udp"]), (14, [])):
        for refusing in (True, False):
            trace = Trace()
            household(trace)
            for number in range(ports):
                probe = (
                    IP(src=ATTACKER, dst=VICTIM, id=number + 1) / UDP(sport=55_555, dport=500 + number) / b"\0\0\0\0"
                )
                trace.add(QUIET_S + number * 0.4, bytes(FRAME / probe))
                if refusing:
                    refusal = IP(src=VICTIM, dst=ATTACKER, id=900 + number) / ICMP(type=3, code=3) / probe
                    trace.add(QUIET_S + number * 0.4 + 0.001, bytes(FRAME / refusal))
            assert alarms(trace, "low") == wanted


def test_traceroute_and_peers_are_no_udp_scan() -> None:
    """Rising ports of a traceroute, and a peer-to-peer node that calls many hosts, are no scan."""
    trace = Trace()
    for number in range(90):
        probe = IP(src=LAN + "20", dst=OUTSIDE, id=number + 1, ttl=1 + number // 3) / UDP(
            sport=50_000, dport=33_434 + number
        )
        trace.add(number * 0.05, bytes(FRAME / probe / bytes(32)))
        trace.add(number * 0.05, udp(LAN + "22", 6881, f"192.0.2.{number + 1}", 10_000 + number * 17, bytes(90)))
    assert alarms(trace, "low") == []


def test_answers_without_their_questions_are_no_udp_scan() -> None:
    """A resolver's answers to ever new ports, where the tap does not show the questions, are answers."""
    trace = Trace()
    for number in range(40):
        answer = dns_answer(number, f"n{number}.example.net")
        trace.add(QUIET_S + number * 0.5, udp("192.168.7.1", 53, LAN + "20", 30_000 + number * 37, answer))
    assert alarms(trace, "low") == []


def test_questions_from_ever_new_ports_are_no_udp_scan() -> None:
    """A client that asks with a new source port each time, and a resolver that answers them, scan nobody."""
    trace = Trace()
    for number in range(60):
        name = f"n{number}.example.net"
        asked(
            trace,
            number * 0.5,
            LAN + "20",
            30_000 + number,
            "192.168.7.1",
            53,
            dns_query(number, name),
            dns_answer(number, name),
        )
    assert alarms(trace, "low") == []


def test_a_ping_sweep_is_found_and_a_monitor_that_pings_is_not() -> None:
    """Forty silent addresses are a sweep; forty hosts that answer are looked after."""
    for answering, wanted in ((0, ["security.scan.ping"]), (1, [])):
        trace = Trace()
        household(trace)
        for number in range(40):
            t, target = QUIET_S + number * 0.1, f"10.9.0.{number + 1}"
            trace.add(t, bytes(FRAME / IP(src=ATTACKER, dst=target, id=number + 1) / ICMP(id=7, seq=number)))
            if answering:
                trace.add(t + 0.001, bytes(FRAME / IP(src=target, dst=ATTACKER) / ICMP(type=0, id=7, seq=number)))
        assert alarms(trace, "low") == wanted


def test_an_arp_sweep_is_low_and_a_router_that_asks_is_not() -> None:
    """Two hundred addresses asked for in two seconds are a sweep; in a quarter of an hour they are a router's day."""
    for step_s, wanted in ((0.01, ["arp.sweep"]), (5.0, [])):
        trace = Trace()
        household(trace)
        for number in range(200):
            who = ARP(op=1, hwsrc="02:00:00:00:00:66", psrc=ATTACKER, pdst=f"192.168.7.{number + 30}")
            trace.add(QUIET_S + number * step_s, bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:66") / who))
        assert alarms(trace, "low") == wanted


def test_guessing_after_a_scan_does_not_hide_it() -> None:
    """A scan that goes on to talk to what it found remains a scan, and its refused tries are counted once."""
    trace = Trace()
    vertical(trace, 60)
    dialogue(trace, 30.0, ATTACKER, 42_000, VICTIM, 8080, [(True, b"hello\n"), (False, b"hello\n")])
    report = trace.report()
    assert [row["kind"] for row in security(report)] == ["security.scan.vertical"]
    assert not [
        row for row in report["findings"] if row["kind"].startswith("tcp.connect") and row["severity"] != "info"
    ]
