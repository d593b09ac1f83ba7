"""Where the headers of a packet are."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis.headers import locate
from tests.gateway.analysis.made_packets import CLIENT, MACS, SERVER, ethernet, ip_packet, udp

PACKET = udp((CLIENT, 1234), (SERVER, 53), b"payload")[14:]
LLC = bytes.fromhex("aaaa030000000800")
WIFI_QOS = bytes.fromhex("8801 0000") + bytes(22)


@pytest.mark.parametrize(
    ("linktype", "frame"),
    [
        (1, ethernet(PACKET)),
        (1, ethernet(PACKET, tags=(5,))),
        (1, ethernet(PACKET, tags=(5, 6))),
        (1, MACS + bytes.fromhex("8864 1100 0001 0000 0021") + PACKET),
        (1, MACS + bytes.fromhex("8847 00001040 00002140") + PACKET),
        (1, MACS + bytes.fromhex("0040 aaaa03000000 0800") + PACKET),
        (0, bytes.fromhex("02000000") + PACKET),
        (0, bytes.fromhex("00000002") + PACKET),
        (101, PACKET),
        (228, PACKET),
        (113, bytes(14) + bytes.fromhex("0800") + PACKET),
        (276, bytes.fromhex("0800") + bytes(18) + PACKET),
        (9, bytes.fromhex("ff030021") + PACKET),
        (104, bytes.fromhex("0f000800") + PACKET),
        (
            239,
            bytes.fromhex("02000000 0800 0a00 00000001") + (4 + len(PACKET)).to_bytes(2, "little") + b"\x09\0" + PACKET,
        ),
        (105, bytes.fromhex("0802 0000") + bytes(20) + bytes.fromhex("aaaa030000000800") + PACKET),
        (127, bytes.fromhex("0000 0800 00000000 0802 0000") + bytes(20) + bytes.fromhex("aaaa030000000800") + PACKET),
        # A QoS header of 26 bytes, filled up to 28 as the radiotap flags say; a time stamp stands before the flags
        (127, bytes.fromhex("0000 1100 03000000") + bytes(8) + b"\x20" + WIFI_QOS + bytes(2) + LLC + PACKET),
        (127, bytes.fromhex("0000 0900 02000000 00") + WIFI_QOS + LLC + PACKET),
        (119, bytes.fromhex("44000000 90000000") + bytes(136) + WIFI_QOS + LLC + PACKET),
        (119, bytes.fromhex("80211001 00000040") + bytes(56) + WIFI_QOS + LLC + PACKET),
        (163, bytes.fromhex("80211001 00000040") + bytes(56) + WIFI_QOS + LLC + PACKET),
        (192, bytes.fromhex("0000 0800 69000000") + WIFI_QOS + LLC + PACKET),
        (14, PACKET),
        (51, bytes.fromhex("1100 0001 002d 0021") + PACKET),
        (204, b"\1" + bytes.fromhex("ff030021") + PACKET),
        (109, bytes.fromhex("02000000 01000000 00000000") + PACKET),
        (117, bytes.fromhex("3d020000") + bytes(60) + PACKET),
        (100, LLC + PACKET),
        (10, b"\x50" + MACS + LLC + PACKET),
        (6, b"\x10\x40" + MACS[:6] + b"\x82" + MACS[7:] + bytes.fromhex("0410 0010") + LLC + PACKET),
        (107, bytes.fromhex("1841 03cc") + PACKET),
    ],
)
def test_every_link_layer_leads_to_the_same_packet(linktype: int, frame: bytes) -> None:
    """Addresses, ports and payload length are found behind each of them."""
    packet = locate(linktype, frame, len(frame))
    assert packet is not None
    assert packet.source == ip_address(CLIENT).packed
    assert packet.target == ip_address(SERVER).packed
    assert packet.ports(frame) == (1234, 53)
    assert packet.payload_bytes == 15


def test_the_outer_vlan_or_the_inner_is_the_last_one() -> None:
    """Of two tags the one next to the packet names the VLAN."""
    packet = locate(1, ethernet(PACKET, tags=(5, 6)), 200)
    assert packet is not None
    assert packet.vlan == 6


def test_ipv6_extension_headers_are_stepped_over() -> None:
    """Hop-by-hop options and an atomic fragment header do not hide the ports."""
    inner = bytes.fromhex("2c00 000000000000 1100 0000 00000007") + PACKET[20:]
    frame = ethernet(ip_packet("2001:db8::1", "2001:db8::2", 0, inner))
    packet = locate(1, frame, len(frame))
    assert packet is not None
    assert (packet.protocol, packet.fragment, packet.ports(frame)) == (17, False, (1234, 53))
    assert packet.payload_bytes == 15


def test_a_later_fragment_has_no_ports() -> None:
    """Only the first fragment knows the ports."""
    frame = bytearray(ethernet(PACKET))
    frame[14 + 6 : 14 + 8] = (0x2000 | 100).to_bytes(2, "big")
    packet = locate(1, bytes(frame), len(frame))
    assert packet is not None
    assert packet.fragment
    assert packet.transport == -1
    assert packet.ports(bytes(frame)) == (0, 0)


def test_a_length_of_zero_is_taken_from_the_wire() -> None:
    """Offloaded packets say 0 in the IP header."""
    frame = bytearray(ethernet(PACKET))
    frame[16:18] = b"\0\0"
    packet = locate(1, bytes(frame), 5014)
    assert packet is not None
    assert packet.payload_bytes == 5014 - 14 - 20


@given(
    st.sampled_from([0, 1, 9, 12, 50, 101, 104, 105, 108, 113, 127, 228, 229, 239, 276, 999]), st.binary(max_size=120)
)
def test_no_bytes_break_it(linktype: int, data: bytes) -> None:
    """Any bytes give a packet within them or nothing."""
    packet = locate(linktype, data, len(data))
    if packet is not None:
        assert packet.transport < len(data)
        assert 0 <= packet.network < len(data)
        packet.ports(data)
