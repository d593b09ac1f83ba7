"""Addresses, names and payload made fit for strangers."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis import schema
from gateway.analysis.anonymize import Anonymizer, anonymise_report
from gateway.analysis.headers import locate
from tests.gateway.analysis.made_packets import ACK, checksum, ethernet, ip_packet, tcp, udp
from tests.gateway.analysis.sample_report import sample

KEY = bytes(range(32))


def _common_bits(a: bytes, b: bytes) -> int:
    different = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
    return len(a) * 8 - different.bit_length()


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_ipv4_prefixes_in_common_stay_in_common(a: IPv4Address, b: IPv4Address) -> None:
    """Two addresses share exactly as many leading bits after as before."""
    anonymizer = Anonymizer(KEY)
    if any(x in ip_network(kept) for x in (a, b) for kept in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")):
        return
    assert _common_bits(anonymizer.address(a.packed), anonymizer.address(b.packed)) == _common_bits(a.packed, b.packed)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_ipv6_prefixes_in_common_stay_in_common(a: IPv6Address, b: IPv6Address) -> None:
    """The same for IPv6."""
    anonymizer = Anonymizer(KEY)
    if a.is_multicast or b.is_multicast:
        return
    assert _common_bits(anonymizer.address(a.packed), anonymizer.address(b.packed)) == _common_bits(a.packed, b.packed)


@given(st.ip_addresses(v=4))
def test_private_stays_private_and_public_stays_public(address: IPv4Address) -> None:
    """What kind of network an address is in survives."""
    mapped = ip_address(Anonymizer(KEY).address(address.packed))
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "224.0.0.0/3"):
        assert (address in ip_network(network)) == (mapped in ip_network(network))


def test_group_and_loopback_addresses_stay() -> None:
    """Multicast, broadcast and loopback name no host."""
    anonymizer = Anonymizer(KEY)
    for text in ("224.0.0.251", "255.255.255.255", "127.0.0.1", "0.0.0.0", "ff02::fb", "::1", "::"):
        packed = ip_address(text).packed
        assert anonymizer.address(packed) == packed


def test_a_kept_address_stays_and_another_key_maps_otherwise() -> None:
    """The gateway can be left as it is; two exports cannot be joined."""
    gateway = ip_address("192.168.7.1")
    assert Anonymizer(KEY, keep=[gateway]).address(gateway.packed) == gateway.packed
    assert Anonymizer(KEY).address(gateway.packed) != gateway.packed
    host = ip_address("198.51.100.20").packed
    assert Anonymizer(KEY).address(host) != Anonymizer(KEY[::-1]).address(host)


def test_mac_addresses_lose_their_vendor_and_groups_stay() -> None:
    """A mapped address is locally administered; broadcast remains broadcast."""
    anonymizer = Anonymizer(KEY)
    mapped = anonymizer.mac(bytes.fromhex("001122334455"))
    assert mapped[0] & 3 == 2
    assert mapped == anonymizer.mac(bytes.fromhex("001122334455"))
    assert anonymizer.mac(b"\xff" * 6) == b"\xff" * 6


@pytest.mark.parametrize(("source", "target"), [("192.168.7.10", "198.51.100.20"), ("2001:db8::1", "2001:db8:1::2")])
def test_a_tcp_packet_keeps_its_header_and_loses_its_payload(source: str, target: str) -> None:
    """Ports, numbers, flags and lengths stay, the secret does not, and the checksums are right for zeros."""
    secret = b"password=hunter2!"
    frame = tcp((source, 40000), (target, 80), 1234, 99, ACK, secret)
    rewritten = Anonymizer(KEY).packet(1, frame, len(frame))
    assert rewritten is not None
    linktype, data, wire_bytes = rewritten
    assert (linktype, wire_bytes) == (1, len(frame))
    assert secret not in data
    before, after = locate(1, frame, len(frame)), locate(1, data, wire_bytes)
    assert before is not None
    assert after is not None
    assert after.ports(data) == (40000, 80)
    assert after.payload_bytes == before.payload_bytes
    assert after.source not in {before.source, before.target}
    header = data[after.transport :]
    assert len(header) == 20
    assert header[:16] == frame[before.transport : before.transport + 16]
    pseudo = after.source + after.target + after.payload_bytes.to_bytes(4, "big") + bytes((0, 6))
    assert checksum(pseudo + header + bytes(len(secret))) == 0
    if after.version == 4:
        assert checksum(data[14:34]) == 0


def test_link_layers_other_than_ethernet_become_raw_ip() -> None:
    """Nothing of an unknown header can leak when it is left out."""
    packet = ip_packet("192.168.7.10", "198.51.100.20", 17, b"\x04\xd2\x00\x35\x00\x10\x00\x00" + b"secret!!")
    frame = b"\x00\x00\x00\x01\x00\x06\x00\x11\x22\x33\x44\x55\x00\x00\x08\x00" + packet
    rewritten = Anonymizer(KEY).packet(113, frame, len(frame))
    assert rewritten is not None
    assert rewritten[0] == 101
    assert rewritten[2] == len(packet)
    assert b"secret" not in rewritten[1]
    assert bytes.fromhex("001122334455") not in rewritten[1]


def test_arp_is_mapped_like_the_traffic() -> None:
    """The addresses inside ARP match those of the packets."""
    anonymizer = Anonymizer(KEY)
    macs = bytes.fromhex("ffffffffffff 001122334455")
    body = bytes.fromhex("0001 0800 06 04 0001 001122334455 c0a8070a 000000000000 c0a80701")
    rewritten = anonymizer.packet(1, macs + b"\x08\x06" + body + b"padding", 60)
    assert rewritten is not None
    data = rewritten[1]
    assert data[:6] == b"\xff" * 6
    assert data[6:12] == data[22:28] == anonymizer.mac(bytes.fromhex("001122334455"))
    assert data[28:32] == anonymizer.address(bytes.fromhex("c0a8070a"))
    assert not data.endswith(b"padding")


def test_options_that_hold_addresses_are_blanked() -> None:
    """A recorded route in IPv4 options becomes no-operations."""
    packet = bytearray(ip_packet("192.168.7.10", "198.51.100.20", 17, b"\0" * 16))
    packet[0] = 0x47
    packet[20:28] = bytes.fromhex("07 07 04 c0a80701 00")
    frame = ethernet(bytes(packet))
    rewritten = Anonymizer(KEY).packet(1, frame, len(frame))
    assert rewritten is not None
    assert bytes.fromhex("c0a80701") not in rewritten[1]


@given(st.sampled_from([1, 0, 101, 113, 276, 105]), st.binary(max_size=200))
def test_no_bytes_break_it(linktype: int, data: bytes) -> None:
    """Any frame is rewritten or left out."""
    Anonymizer(KEY).packet(linktype, data, len(data))


def test_a_report_keeps_its_shape_and_loses_its_names() -> None:
    """Addresses and names are gone from every field and sentence, and the schema still holds."""
    report = sample("plain")
    secret, host = "intranet.example.com", "192.168.7.10"
    report["tls"]["rows"][0]["sni"] = report["flows"]["rows"][0]["sni"] = secret
    report["tls"]["names"] = {secret: 3}
    report["http"]["rows"][0]["path"] = "/private/plan.pdf"
    report["hosts"][0].update(host=host, names=[secret], mac="00:11:22:33:44:55")
    report["findings"][0].update(title=f"Loss towards {host}:443", sentence=f"{secret} ({host}, 00:11:22:33:44:55)")
    report["findings"][0]["filter"] = f"ip.addr == {host} && ipv6.addr == 2001:db8::77"
    report["findings"][0]["evidence"] = {"domain": "tunnel.evil.example", "rate": 0.5}
    report["verdict"][0]["sentence"] = f"the server {secret} is slow"
    anonymizer = Anonymizer(KEY)
    shared = anonymise_report(report, anonymizer)
    text = json.dumps(shared)
    for gone in (secret, host, "00:11:22:33:44:55", "2001:db8::77", "/private", "tunnel.evil.example"):
        assert gone not in text
    assert anonymizer.token(secret) in shared["verdict"][0]["sentence"]
    assert shared["verdict"][0]["about"] == report["verdict"][0]["about"]
    assert shared["findings"][0]["kind"] == report["findings"][0]["kind"]
    assert shared["settings"] == report["settings"]
    jsonschema.validate(shared, schema.build(closed=True))
    assert report["hosts"][0]["host"] == host, "the original must stay as it is"


def test_one_name_is_one_token_everywhere() -> None:
    """Rows about the same name can still be joined."""
    report = sample()
    report["tls"]["rows"][0]["sni"] = "WWW.Example.org"
    report["dns"]["rows"][0]["name"] = "www.example.org"
    shared = anonymise_report(report, Anonymizer(KEY))
    assert shared["tls"]["rows"][0]["sni"] == shared["dns"]["rows"][0]["name"]


def test_udp_in_a_fragment_keeps_its_checksum_field() -> None:
    """The checksum of a first fragment covers what is not there, so it is not recomputed."""
    frame = bytearray(udp(("192.168.7.10", 1), ("198.51.100.20", 2), b"x" * 32))
    frame[14 + 6] = 0x20
    frame[34 + 6 : 34 + 8] = b"\xab\xcd"
    rewritten = Anonymizer(KEY).packet(1, bytes(frame), len(frame))
    assert rewritten is not None
    assert rewritten[1][40:42] == b"\xab\xcd"
