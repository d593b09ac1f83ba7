"""What happens to the DHCPv4 server and what it orders: events in, actions out, within this room.

What concerns the rest of the gateway, a lease bound or ended, is a fact of `gateway.session.events` among the actions:
the shell posts it to the hub, in order, before it performs what follows.
"""

from __future__ import annotations

from typing import Literal

from gateway.addresses import MacAddress
from gateway.dhcp.v4_codec import Message
from gateway.session.events import LeaseBound, LeaseEnded
from gateway.values import value_class

RefusalReason = Literal[
    "malformed",  # not a DHCP message, or one without what its type needs
    "not_a_request",  # a server's message on the server's port
    "hardware",  # not an Ethernet client
    "foreign_mac",  # asks for another MAC than it sends from
    "unknown_relay",  # giaddr is not one of the zone's relays
    "blocked",  # on the zone's block list
    "client_rate",  # one client asks too often
    "new_client_rate",  # too many new clients in this zone
    "pool_exhausted",
    "not_its_lease",  # releases or declines what it does not hold
    "address_in_use",  # each address tried for this client answered the probe
]


@value_class
class PacketReceived:
    """A message arrived on the zone's interface, in a frame from this MAC."""

    message: Message
    source_mac: bytes


@value_class
class PacketUnreadable:
    """Something that is not a DHCP message arrived on the server's port; `detail` says what is wrong with it."""

    source_mac: bytes
    detail: str


@value_class
class AddressSeen:
    """A host used or claimed an address by ARP: the answer to a probe, or a probe of its own (RFC 5227 §2.1.1)."""

    address: int
    mac: bytes


@value_class
class ToRelay:
    """Send to the server port of a relay."""

    address: int


@value_class
class ToClient:
    """Send in a frame to this MAC, for a client that may not answer ARP yet."""

    mac: bytes
    address: int


@value_class
class ToEveryone:
    """Send to the limited broadcast address."""


Destination = ToRelay | ToClient | ToEveryone


@value_class
class SendReply:
    """Send this message."""

    message: Message
    destination: Destination


@value_class
class SendProbe:
    """Ask by ARP whether somebody uses the address."""

    address: int


@value_class
class ReportRefusal:
    """Log that a packet was refused; at most once per source and minute."""

    mac: MacAddress
    reason: RefusalReason
    detail: str


DhcpEvent = PacketReceived | PacketUnreadable | AddressSeen
DhcpAction = LeaseBound | LeaseEnded | SendReply | SendProbe | ReportRefusal
