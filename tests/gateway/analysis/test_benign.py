"""No security alarm on shared captures in which nobody attacks anybody; each with the reason to think so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.analysis.engine import analyze
from gateway.analysis.settings import Settings
from tests.gateway.analysis.attack_traffic import security

# By the descriptions of the captures' manifest. A capture is benign when its traffic is, however broken the file.
BENIGN = {
    "attacks-synthetic.pcap": "whatever its name: one conversation of each of many protocols, spread over years",
    "big-endian-ns.pcap": "one HTTP connection",
    "bigtcp-ipv4.pcap": "one segment of a bulk transfer",
    "broken-cut-header.pcap": "one DNS answer",
    "broken-length.pcap": "one packet, then garbage in the file",
    "dhcp.pcap": "two clients get an address",
    "dns-corrupt.pcap": "one damaged DNS message",
    "dns-mdns.pcap": "devices announce themselves",
    "home-lan.pcap": "a household's browsing",
    "http-1000-requests-one-gap.pcap.gz": "1,000 requests to one web server, pipelined",
    "icmp-time-exceeded.pcap": "one ICMP error",
    "ip4-fragments.pcap": "one large ping in fragments",
    "ip6-fragments.pcap": "large datagrams in fragments",
    "ipv6-atomic-fragments.pcap": "HTTP with fragment headers that split nothing",
    "linktype-nflog.pcap": "one HTTP connection",
    "linktype-null-http.pcap": "41 HTTP range requests over loopback",
    "linktype-raw.pcap": "a page of the web",
    "linktype-sll.pcap": "a page of the web",
    "linktype-sll2.pcap": "one HTTP connection",
    "many-tcp-connections.pcap.gz": "741 echo connections of a load test",
    "mixed-services.pcap": "one of each common service",
    "modified-magic.pcap": "one packet",
    "nanosecond-sll.pcap": "one handshake",
    "pcapng-advanced-le.pcapng": "four packets",
    "pcapng-difficult-be.pcapng": "eleven packets",
    "pcapng-err.pcapng": "one TLS session",
    "pcapng-many-interfaces.pcapng": "a laptop's browsing over several interfaces",
    "pppoe-qinq.pcap": "one TLS download over a DSL line",
    "quic-v2.pcap": "one QUIC handshake",
    "scan-and-ftp.pcap": "whatever its name: a laptop and its router exchange UPnP, and one file is fetched",
    "smb2-one-packet-missing.pcap": "a file share with one packet removed by hand",
    "ssh-many-logins.pcap": "24 sessions of several people within three years",
    "tcp-every-packet-x4.pcap": "one connection recorded four times",
    "tcp-fast-retransmit.pcap": "one lossy transfer",
    "tcp-loss-http-range.pcap": "two lossy downloads",
    "tcp-ooo-tls-20-sni.pcap": "a browser's session with twenty names",
    "tcp-reassembly-gaps.pcap": "one lossy transfer",
    "tcp-window-full-smtp.pcap": "mail is handed over",
    "tcp-window-full-snap.pcap.gz": "a cut download",
    "timestamp-invalid.pcap": "one handshake",
    "tls-split-client-hello.pcap": "one TLS session",
    "tls12-sni.pcap": "one TLS session",
    "tls13-ech.pcap": "three TLS sessions",
    "tso-zero-ip-length.pcapng": "Kerberos and SMB log-ins of one user",
    "tunnel-gre-udp.pcap": "a page of the web in GRE",
    "tunnel-teredo.pcap": "a page of the web in Teredo",
    "tunnel-vxlan-http.pcap": "a page of the web in VXLAN",
    "vlan-mpls.pcap": "a page of the web in VLAN and MPLS",
    "web-browse-small.pcap": "a browser's session",
}
OTHERS = {
    "big-endian-us.pcap": "netlink: refused",
    "bruteforce-ftp.pcap": "password guessing",
    "flood-dhcp.pcap": "a DHCP flood",
    "malformed-telnet.pcap": "a fuzzed frame made to break a parser",
    "scan-nmap-version.pcap": "a service scan of seven open ports: below every threshold, which is no matter here",
    "tcp-rst-inject.pcap": "injected resets",
}


def test_every_capture_is_judged(captures: Path) -> None:
    """Each shared capture is either benign with a reason, or not with a reason."""
    names = {path.name for path in captures.glob("*.pcap*")}
    assert names == set(BENIGN) | set(OTHERS)
    assert not set(BENIGN) & set(OTHERS)


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_traffic_raises_no_alarm(name: str, captures: Path) -> None:
    """Nothing of medium severity or above is said about the security of harmless traffic."""
    with (captures / name).open("rb") as source:
        report = analyze(source, name=name, settings=Settings())
    assert [(row["kind"], row["sentence"]) for row in security(report, "medium")] == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bruteforce-ftp.pcap", "security.brute_force"),
        ("flood-dhcp.pcap", "security.flood.dhcp"),
    ],
)
def test_attacks_are_told(name: str, kind: str, captures: Path) -> None:
    """The attack a capture was made of is found in it, at medium severity or above."""
    with (captures / name).open("rb") as source:
        report = analyze(source, name=name, settings=Settings())
    assert kind in [row["kind"] for row in security(report, "medium")]
