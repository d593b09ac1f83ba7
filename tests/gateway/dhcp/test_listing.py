"""The list of addresses that are given out or spoken for."""

from __future__ import annotations

from ipaddress import IPv4Address

from gateway.addresses import MacAddress
from gateway.config import Reservation
from gateway.dhcp.listing import AddressRow
from gateway.dhcp.v4_codec import Option
from gateway.dhcp.v4_server import DhcpServer
from tests.gateway.dhcp.conversation import NO_PROBE, ZONE, Phone, ip, phone

TELEVISION = MacAddress.parse("02:00:5e:77:00:01")
RESERVED = Reservation("tv", "guest", TELEVISION, IPv4Address("10.41.0.5"), "television")


def test_every_address_that_is_spoken_for_is_listed_with_its_state() -> None:
    """Leases, offers, quarantine, and a reservation whose client is not here; a former lease is anybody's."""
    core = DhcpServer(ZONE, NO_PROBE, (RESERVED,))
    bound, unlucky, offered, gone = (phone(core, number) for number in range(4))
    bound.client_id, bound.extra = b"\x01abc", {Option.HOST_NAME: b"phone"}
    bound.join(0.0)
    unlucky.decline(unlucky.join(0.0), 1.0)
    offered.discover(2.0)
    gone.release(gone.join(3.0), 4.0)
    default_id = b"\x01" + offered.mac
    assert core.listing() == [
        AddressRow(IPv4Address("10.41.0.5"), TELEVISION, "reserved", None, "television"),
        AddressRow(IPv4Address("10.41.0.10"), bound.mac, "bound", 3600.0, "phone", b"\x01abc"),
        AddressRow(IPv4Address("10.41.0.11"), None, "quarantined", 601.0),
        AddressRow(IPv4Address("10.41.0.12"), offered.mac, "offered", 7.0, "", default_id),
    ]


def test_a_reservation_in_use_or_set_aside_is_listed_once() -> None:
    """As what it is now; after its client has left it is reserved again."""
    core = DhcpServer(ZONE, NO_PROBE, (RESERVED,))
    television = Phone(core, TELEVISION)
    television.join(0.0)
    assert [(row.state, row.mac) for row in core.listing()] == [("bound", TELEVISION)]
    television.release(ip("10.41.0.5"), 1.0)
    assert [(row.state, row.mac) for row in core.listing()] == [("reserved", TELEVISION)]
    television.join(2.0)
    television.decline(ip("10.41.0.5"), 3.0)
    assert [(row.state, row.mac) for row in core.listing()] == [("quarantined", None)]
