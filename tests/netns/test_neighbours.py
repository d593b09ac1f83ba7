"""Reading what the kernel knows of bridge ports and IPv6 neighbours, on the real kernel."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

import pytest

from gateway.addresses import MacAddress
from gateway.datapath.watch import AF_BRIDGE, NeighbourSeen, PortSeen, neighbours
from tests.netns.harness import Lab

pytestmark = pytest.mark.root

MANY = 3000  # does not fit one datagram


def test_everything_that_a_bridge_has_learned_is_read() -> None:
    """A dump of many datagrams is read to its end, and each MAC comes with its bridge and port."""
    with Lab("neighbours") as lab:
        macs = {MacAddress(b"\x02\x5e\x20\x00" + number.to_bytes(2, "big")) for number in range(MANY)}
        lines = [f"fdb add {mac} dev {lab.guest.port} master dynamic" for mac in macs]
        lab.run(lab.gateway, ["bridge", "-batch", "-"], stdin="\n".join(lines))
        with lab.inside(lab.gateway):
            found = [event for event in neighbours(AF_BRIDGE) if isinstance(event, PortSeen)]
            indexes = {name: socket.if_nametoindex(name) for name in (lab.guest.port, lab.zones[0].bridge)}
        learned = [event for event in found if event.mac in macs]
        assert {event.mac for event in learned} == macs
        assert {(event.port, event.bridge) for event in learned} == {
            (indexes[lab.guest.port], indexes[lab.zones[0].bridge])
        }


def test_ipv6_neighbours_are_read_with_their_macs() -> None:
    """A resolved neighbour is found, and nothing of IPv4."""
    with Lab("neighbours") as lab:
        mac, address = "02:5e:20:00:00:01", "2001:db8:41::77"
        lab.run(
            lab.gateway,
            ["ip", "neighbour", "add", address, "lladdr", mac, "dev", lab.zones[0].bridge, "nud", "stale"],
        )
        with lab.inside(lab.gateway):
            found = neighbours(socket.AF_INET6)
        assert [
            (event.address, event.mac)
            for event in found
            if isinstance(event, NeighbourSeen) and event.mac == MacAddress.parse(mac)
        ] == [(IPv6Address(address), MacAddress.parse(mac))]
