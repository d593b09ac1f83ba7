"""Floods, amplification, and attacks on DHCP and ARP, next to busy servers, resolvers and a house that reboots."""

from __future__ import annotations

import random

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

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
    syn_flood,
)
from tests.gateway.analysis.packets import ACK, SYN, Trace, dns_answer, dns_query, one, tcp, udp

GATEWAY = "192.168.7.1"
FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


@pytest.mark.parametrize("earlier", [False, True], ids=["alone", "after-a-connection"])
def test_a_syn_flood_is_one_critical_finding(earlier: bool) -> None:
    """2,000 SYNs a second from a thousand forged sources are one finding, whatever the victim did before."""
    trace = Trace()
    household(trace)
    if earlier:
        trace.session(1.0, LAN + "20", 50_000, VICTIM, 80, up=b"x" * 50, down=b"y" * 500)
    count = syn_flood(trace, VICTIM, 80, per_s=2000, seconds=4, sources=1000)
    report = trace.report()
    found = only(report, "security.flood.syn")
    assert (found["severity"], found["count"] - earlier, found["evidence"]["spoofed"]) == ("critical", count, True)
    assert found["hosts"] == {"target": VICTIM}
    assert found["evidence"]["peak_per_s"] == 2000
    assert not [row for row in report["findings"] if row["kind"].startswith("tcp.connect")]
    assert (report["verdict"][0]["about"], report["verdict"][0]["findings"]) == ("security", [found["id"]])


def test_the_finding_of_a_flood_is_the_same_with_an_earlier_connection() -> None:
    """Severity, rate and length of a flood do not depend on what the victim did a minute before."""
    found = []
    for earlier in (False, True):
        trace = Trace()
        if earlier:
            trace.session(0.0, LAN + "20", 50_000, VICTIM, 80, up=b"x" * 50, down=b"y" * 500)
        syn_flood(trace, VICTIM, 80, per_s=500, seconds=6, sources=300, begin=60.0)
        row = only(trace.report(), "security.flood.syn")
        found.append(
            (row["severity"], row["evidence"]["peak_per_s"], row["evidence"]["seconds"], row["evidence"]["spoofed"])
        )
    assert found[0] == found[1] == ("high", 500, 6, True)


def test_an_answered_flood_is_a_flood() -> None:
    """A victim that still answers each SYN does not complete a handshake either."""
    trace = Trace()
    generator = random.Random(5)
    for number in range(2400):
        t = QUIET_S + number / 600
        source, sport, seq = (
            f"198.18.{generator.randrange(9)}.{generator.randrange(1, 250)}",
            1024 + number,
            number * 99,
        )
        trace.add(t, tcp(source, sport, VICTIM, 443, SYN, seq, ip_id=trace.next_id()))
        trace.add(t + 0.0005, tcp(VICTIM, 443, source, sport, SYN | ACK, 7, seq + 1, ip_id=trace.next_id()))
    assert only(trace.report(), "security.flood.syn")["severity"] == "high"


def test_a_flood_of_one_source_is_a_flood_and_no_scan() -> None:
    """One source that sends SYNs from ever new ports to one service floods it; it is not said to be forged."""
    trace = Trace()
    household(trace)
    for number in range(2000):
        trace.add(QUIET_S + number / 500, tcp("203.0.113.66", 1024 + number, VICTIM, 80, SYN, number * 77))
    assert only(trace.report(), "security.flood.syn")["evidence"]["spoofed"] is False


def test_what_is_too_slow_or_too_short_is_no_flood() -> None:
    """150 SYNs a second, or 2,000 for two seconds, are below the thresholds."""
    for per_s, seconds in ((150, 10.0), (2000, 1.9)):
        trace = Trace()
        household(trace)
        syn_flood(trace, VICTIM, 80, per_s=per_s, seconds=seconds, sources=300)
        assert "security.flood.syn" not in alarms(trace)


def test_a_busy_web_server_is_no_flood() -> None:
    """Three hundred connections a second that are all completed are success."""
    trace = Trace()
    for number in range(1500):
        client = f"10.1.{number // 200}.{number % 200 + 1}"
        trace.session(QUIET_S + number / 300, client, 40_000 + number, VICTIM, 80, up=b"x", down=b"y" * 20, rtt=0.001)
    assert alarms(trace, "low") == []


@pytest.mark.parametrize(("per_s", "severity"), [(1200, "medium"), (5200, "high")])
def test_a_udp_flood_is_one_finding(per_s: int, severity: str) -> None:
    """Unanswered datagrams to ever new ports of one host are one flood, and no scan besides."""
    trace = Trace()
    household(trace)
    for number in range(per_s * 4):
        port = 1 + number * 7919 % 65_000
        trace.add(QUIET_S + number / per_s, udp("203.0.113.66", 40_000, VICTIM, port, bytes(20), ip_id=number & 0xFFFF))
    assert only(trace.report(), "security.flood.udp")["severity"] == severity


def test_streams_calls_and_tunnels_are_no_udp_flood() -> None:
    """A tunnel at thousands of packets a second is two-way; multicast television has a group as its target."""
    trace = Trace()
    for number in range(6000):
        t = QUIET_S + number / 1500
        trace.add(t, udp(OUTSIDE, 51_820, LAN + "20", 51_820, b"\4\0\0\0" + bytes(60)))
        if number % 4 == 0:
            trace.add(t + 0.0001, udp(LAN + "20", 51_820, OUTSIDE, 51_820, b"\4\0\0\0" + bytes(20)))
        trace.add(t, udp("192.0.2.9", 5000, "239.1.1.7", 5000, bytes(60)))
    assert alarms(trace, "low") == []


def test_a_ping_flood_is_found_and_pings_are_not() -> None:
    """Four hundred unanswered echo requests a second are a flood; answered ones, or fifty a second, are not."""
    request = bytes(FRAME / IP(src="203.0.113.66", dst=VICTIM) / ICMP(id=7, seq=1))
    answer = bytes(FRAME / IP(src=VICTIM, dst="203.0.113.66") / ICMP(type=0, id=7, seq=1))
    for per_s, answering, wanted in ((400, False, ["security.flood.icmp"]), (400, True, []), (50, False, [])):
        trace = Trace()
        household(trace)
        for number in range(per_s * 4):
            t = QUIET_S + number / per_s
            trace.add(t, request)
            if answering:
                trace.add(t + 0.0001, answer)
        assert alarms(trace) == wanted


@pytest.mark.parametrize("service", [53, 123, 161, 389, 1900, 11211, 19])
def test_answers_that_nobody_asked_for_are_amplification(service: int) -> None:
    """Large datagrams from forty reflectors to a host that asked nothing are one finding, of high severity."""
    trace = Trace()
    household(trace)
    for number in range(4000):
        payload = (
            dns_answer(number, "big.example", 16, b"\xc8" + b"a" * 200) + bytes(900) if service == 53 else bytes(1100)
        )
        trace.add(QUIET_S + number / 800, udp(f"198.51.100.{number % 40 + 1}", service, VICTIM, 7777, payload))
    report = trace.report()
    found = only(report, "security.amplification")
    assert (found["severity"], found["evidence"]["reflectors"], found["count"]) == ("high", 40, 4000)
    assert found["hosts"] == {"target": VICTIM}


def test_a_fast_reflection_is_one_finding() -> None:
    """At thousands of packets a second it is still one event: amplification says more than flood."""
    trace = Trace()
    for number in range(10_000):
        source = f"198.51.100.{number % 40 + 1}"
        trace.add(QUIET_S + number / 2500, udp(source, 123, VICTIM, 7777, bytes(440), ip_id=number))
    only(trace.report(), "security.amplification")


def test_our_own_server_as_reflector_is_critical() -> None:
    """A server of this network that answers forged questions with forty times as much is abused, and ours to stop."""
    trace = Trace()
    for number in range(1500):
        question = dns_query(number & 0xFFFF, "any.example", 255)
        answer = dns_answer(number & 0xFFFF, "any.example", 16, b"\xc8" + b"a" * 200) + bytes(900)
        asked(trace, QUIET_S + number / 150, "203.0.113.77", 4444, VICTIM, 53, question, answer, 0.001)
    found = one(trace.report(), "security.amplification")
    assert (found["severity"], found["hosts"]["target"]) == ("critical", "203.0.113.77")


def test_a_resolver_with_dnssec_is_no_amplifier() -> None:
    """Two thousand signed answers of eight times the question's size are how secured names look."""
    trace = Trace()
    for number in range(2000):
        name = f"host{number}.example.org"
        question = dns_query(number, name)
        answer = dns_answer(number, name) + bytes(7 * len(question))
        asked(trace, number * 0.05, LAN + "20", 20_000 + number, "9.9.9.9", 53, question, answer)
    assert alarms(trace, "low") == []


def test_stray_answers_are_no_amplification() -> None:
    """A capture that begins between question and answer shows some answers without questions."""
    trace = Trace()
    for number in range(15):
        trace.add(number * 0.01, udp("9.9.9.9", 53, LAN + "20", 20_000 + number, dns_answer(number, "a.example")))
    household(trace, 1.0)
    assert alarms(trace, "low") == []


def discover(number: int, mac: bytes) -> bytes:
    """A DHCPDISCOVER as scapy makes it."""
    packet = (
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255", id=number & 0xFFFF)
        / UDP(sport=68, dport=67)
        / BOOTP(op=1, chaddr=mac + bytes(10), xid=0x1000 + number, flags=0x8000)
        / DHCP(options=[("message-type", "discover"), "end"])
    )
    return bytes(packet)


def offer(number: int, mac: bytes, server: str, kind: str) -> bytes:
    """A DHCPOFFER or DHCPACK."""
    packet = (
        Ether(src="02:00:00:00:00:fe", dst="ff:ff:ff:ff:ff:ff")
        / IP(src=server, dst="255.255.255.255", id=number & 0xFFFF)
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, chaddr=mac + bytes(10), xid=0x1000 + number, yiaddr=f"192.168.7.{100 + number % 100}")
        / DHCP(options=[("message-type", kind), ("server_id", server), ("lease_time", 600), "end"])
    )
    return bytes(packet)


def test_dhcp_starvation_is_critical() -> None:
    """Sixty discovers a second from ever new addresses for five seconds empty the pool."""
    generator = random.Random(8)
    trace = Trace()
    household(trace)
    for number in range(300):
        mac = bytes([2]) + generator.randbytes(5)
        trace.add(QUIET_S + number / 60, discover(number, mac))
    found = only(trace.report(), "security.dhcp.starvation")
    assert (found["severity"], found["evidence"]["clients"], found["evidence"]["per_s"]) == ("critical", 300, 60)


def test_one_device_that_repeats_itself_is_a_dhcp_flood() -> None:
    """One address that asks sixty times a second starves nobody, and is in everybody's way."""
    trace = Trace()
    household(trace)
    for number in range(300):
        trace.add(QUIET_S + number / 60, discover(number, b"\2\0\0\0\0\7"))
    assert only(trace.report(), "security.flood.dhcp")["severity"] == "high"


def test_a_house_that_comes_back_is_no_starvation() -> None:
    """After a power cut fifty devices ask within two seconds; a hotel's sixty an hour are nothing either."""
    trace = Trace()
    for number in range(50):
        t, mac = 10 + number * 0.04, bytes((2, 0, 0, 0, 1, number))
        trace.add(t, discover(number, mac))
        trace.add(t + 0.004, offer(number, mac, GATEWAY, "offer"))
        request = discover(number, mac).replace(b"\x35\x01\x01", b"\x35\x01\x03")
        trace.add(t + 0.01, request)
        trace.add(t + 0.014, offer(number, mac, GATEWAY, "ack"))
    for number in range(60):
        mac = bytes((2, 0, 0, 0, 2, number))
        trace.add(60 + number * 60, discover(100 + number, mac))
        trace.add(60 + number * 60 + 0.01, offer(100 + number, mac, GATEWAY, "offer"))
    assert alarms(trace, "low") == []


def test_a_second_dhcp_server_is_told() -> None:
    """Two servers that offer are one too many, unless the second is listed."""
    trace = Trace()
    for number, server in enumerate((GATEWAY, "192.168.7.77")):
        mac = bytes((2, 0, 0, 0, 3, number))
        trace.add(number, discover(number, mac))
        trace.add(number + 0.01, offer(number, mac, server, "offer"))
    found = only(trace.report(), "dhcp.rogue")
    assert (found["severity"], found["evidence"]["servers"]) == ("high", [GATEWAY, "192.168.7.77"])
    assert alarms(trace, dhcp__allowed_servers=f"{GATEWAY},192.168.7.77") == []


def test_clients_without_an_offer_are_told() -> None:
    """A device that asks three times in vain; not one that was answered, nor one that asked just before the end."""
    mac = b"\2\0\0\0\4\1"
    for asked_at, answered, expected in (
        ((5, 9, 17), False, ["dhcp.no_offer"]),
        ((5, 9), True, []),
        ((27,), False, []),
    ):
        trace = Trace()
        household(trace)
        for at in asked_at:
            trace.add(at, discover(1, mac))
        if answered:
            trace.add(9.1, offer(1, mac, GATEWAY, "offer"))
        household(trace, 27.0)
        rows = [row for row in trace.report()["findings"] if row["kind"].startswith("dhcp.")]
        assert [row["kind"] for row in rows] == expected


def test_a_refused_address_is_told() -> None:
    """A NAK is medium; an ACK is nothing to tell."""
    mac = b"\2\0\0\0\4\2"
    for kind, expected in (("nak", [("dhcp.nak", "medium")]), ("ack", [])):
        trace = Trace()
        household(trace)
        trace.add(5, discover(1, mac).replace(b"\x35\x01\x01", b"\x35\x01\x03"))
        trace.add(5.1, offer(1, mac, GATEWAY, kind))
        household(trace, 20.0)
        rows = [row for row in trace.report()["findings"] if row["kind"].startswith("dhcp.")]
        assert [(row["kind"], row["severity"]) for row in rows] == expected


def arp_reply(address: str, mac: str) -> bytes:
    """An ARP reply as scapy makes it."""
    return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=2, psrc=address, hwsrc=mac, pdst=LAN + "20"))


def test_two_owners_of_an_address_are_a_conflict() -> None:
    """Two hardware addresses for one IP address conflict within a minute; for the gateway's that is critical."""
    for address, severity in ((LAN + "30", "high"), (GATEWAY, "critical")):
        trace = Trace()
        household(trace)
        who = ARP(op=1, psrc=LAN + "20", hwsrc="02:00:00:00:00:20", pdst=address)
        trace.add(5, bytes(Ether(src="02:00:00:00:00:20", dst="ff:ff:ff:ff:ff:ff") / who))
        trace.add(5.01, arp_reply(address, "02:00:00:00:00:aa"))
        trace.add(9, arp_reply(address, "02:00:00:00:00:66"))
        found = only(trace.report(), "arp.conflict")
        assert (found["severity"], found["frames"]) == (severity, [len(trace.packets) - 1, len(trace.packets)])


def test_routers_that_share_an_address_and_a_replaced_card_are_no_conflict() -> None:
    """VRRP speaks with a hardware address of its own, and an address that moves after ten minutes has a new owner."""
    trace = Trace()
    trace.add(1, arp_reply(GATEWAY, "02:00:00:00:00:aa"))
    trace.add(2, arp_reply(GATEWAY, "00:00:5e:00:01:07"))
    trace.add(3, arp_reply(LAN + "30", "02:00:00:00:00:30"))
    trace.add(603, arp_reply(LAN + "30", "02:00:00:00:00:31"))
    assert [row["kind"] for row in security(trace.report())] == []
