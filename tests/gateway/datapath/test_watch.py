"""Decoding of the routing socket's events, and what is made of them."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.datapath.nfnetlink import attribute
from gateway.datapath.watch import FilterGone, LinkSeen, NeighbourSeen, PortSeen, decode

MAC = MacAddress.parse("02:00:5e:10:00:2a")


def message(kind: int, body: bytes) -> bytes:
    """One routing message with its header."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def neighbour(kind: int, family: int, state: int, *parts: bytes) -> bytes:
    """A neighbour message of interface 5."""
    return message(kind, struct.pack("=BxxxiHBB", family, 5, state, 0, 0) + b"".join(parts))


def test_mac_learned_on_a_port_names_bridge_and_port() -> None:
    """A bridge's learning is told with the port's index and its bridge."""
    data = neighbour(28, 7, 2, attribute(2, MAC), attribute(9, struct.pack("=I", 3)))
    assert list(decode(data)) == [PortSeen(bridge=3, port=5, mac=MAC, gone=False)]


def test_ipv6_neighbour_is_told_when_its_mac_is_known() -> None:
    """Reachable and stale entries count, incomplete and failed ones do not."""
    address = IPv6Address("2001:db8::5")
    parts = (attribute(1, address.packed), attribute(2, MAC))
    assert list(decode(neighbour(28, 10, 0x02, *parts))) == [NeighbourSeen(5, address, MAC)]
    assert list(decode(neighbour(28, 10, 0x04, *parts))) == [NeighbourSeen(5, address, MAC)]
    assert list(decode(neighbour(28, 10, 0x20, *parts))) == []
    assert list(decode(neighbour(29, 10, 0x02, *parts))) == []
    assert list(decode(neighbour(28, 10, 0x01, parts[0]))) == []


def test_links_are_told_with_name_and_bridge() -> None:
    """A port that joins a bridge, and one whose interface is removed."""
    body = struct.pack("=BxHiII", 0, 1, 4, 1, 0) + attribute(3, b"port1\0") + attribute(10, struct.pack("=I", 3))
    assert list(decode(message(16, body))) == [LinkSeen(4, "port1", 3, True, False)]
    assert list(decode(message(17, body))) == [LinkSeen(4, "port1", 3, True, True)]


def test_port_that_leaves_its_bridge_is_no_removed_interface() -> None:
    """The bridge's own removal message means that the interface has no master any more."""
    body = struct.pack("=BxHiII", 7, 1, 4, 1, 0) + attribute(3, b"port1\0") + attribute(10, struct.pack("=I", 3))
    assert list(decode(message(17, body))) == [LinkSeen(4, "port1", 0, True, False)]


def test_removed_filters_and_hooks_are_told_with_their_interface() -> None:
    """What is added is no event: it is ours, or nobody's concern."""
    body = struct.pack("=BxxxiIII", 0, 5, 1, 0xFFFFFFF1, 0)
    assert list(decode(message(45, body))) == [FilterGone(5)]
    assert list(decode(message(37, body))) == [FilterGone(5)]
    assert list(decode(message(44, body))) == list(decode(message(36, body))) == []
    assert list(decode(message(45, body[:-1]))) == []


@given(st.binary(max_size=200))
def test_no_octets_upset_the_decoder(data: bytes) -> None:
    """Whatever arrives, decoding ends and raises nothing."""
    list(decode(data))
    list(decode(struct.pack("=IHHII", 16 + len(data), 28, 0, 0, 0) + data))
    list(decode(struct.pack("=IHHII", 16 + len(data), 16, 0, 0, 0) + data))
    list(decode(struct.pack("=IHHII", 16 + len(data), 45, 0, 0, 0) + data))
