"""Clients for conversation tests: messages as phones send them, through the real octets, to a server core."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Dhcp, Zone
from gateway.dhcp.v4_codec import Message, MessageType, Op, Option, decode, encode
from gateway.dhcp.v4_events import DhcpAction, PacketReceived, SendReply
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound
from gateway.session.model import ClientKey

GATEWAY = IPv4Address("10.41.0.1")
ZONE = Zone(
    name="guest",
    interface="br-guest",
    address=IPv4Interface("10.41.0.1/24"),
    pool=Ipv4Range.parse("10.41.0.10-10.41.0.19"),
    lease_time=3600,
    domain="postern.lan",
)
NO_PROBE = Dhcp(probe=False)


def ip(text: str) -> int:
    """An address as the number that messages hold."""
    return int(IPv4Address(text))


def replies(actions: list[DhcpAction]) -> list[Message]:
    """The messages among the actions, through the octets that would be sent."""
    return [decode(encode(action.message)) for action in actions if isinstance(action, SendReply)]


def only_reply(actions: list[DhcpAction]) -> Message:
    """The one message that was to be sent."""
    (reply,) = replies(actions)
    return reply


@dataclass
class Phone:
    """One client; every method sends one message and returns what the server ordered."""

    server: DhcpServer
    mac: MacAddress = field(default_factory=lambda: MacAddress.parse("02:00:5e:10:00:01"))
    client_id: bytes | None = None
    giaddr: int = 0
    flags: int = 0
    extra: dict[int, bytes] = field(default_factory=dict)
    xid: int = 0x1234

    def message(self, kind: MessageType, ciaddr: int = 0, **options: int) -> Message:
        """A message of this client; keyword options are addresses or numbers of four octets."""
        values = {Option[name.upper()].value: value.to_bytes(4, "big") for name, value in options.items()}
        if self.client_id is not None:
            values[Option.CLIENT_ID] = self.client_id
        self.xid += 1
        return Message(
            Op.REQUEST,
            kind,
            self.xid,
            self.mac + bytes(10),
            ciaddr=ciaddr,
            giaddr=self.giaddr,
            flags=self.flags,
            options=values | self.extra,
        )

    def send(self, message: Message, now: float, source_mac: bytes | None = None) -> list[DhcpAction]:
        """Hand a message to the server as its octets would arrive."""
        frame_source = self.mac if source_mac is None else source_mac
        return self.server.receive(PacketReceived(decode(encode(message)), bytes(frame_source)), now)

    def discover(self, now: float, **options: int) -> list[DhcpAction]:
        """DHCPDISCOVER."""
        return self.send(self.message(MessageType.DISCOVER, **options), now)

    def select(self, address: int, now: float, server_id: int = int(GATEWAY)) -> list[DhcpAction]:
        """DHCPREQUEST that takes an offer."""
        message = self.message(MessageType.REQUEST, requested_address=address, server_id=server_id)
        return self.send(message, now)

    def reboot(self, address: int, now: float) -> list[DhcpAction]:
        """DHCPREQUEST of a client that remembers an address (INIT-REBOOT)."""
        return self.send(self.message(MessageType.REQUEST, requested_address=address), now)

    def renew(self, address: int, now: float) -> list[DhcpAction]:
        """DHCPREQUEST that extends a lease (RENEWING and REBINDING look the same above UDP)."""
        return self.send(self.message(MessageType.REQUEST, ciaddr=address), now)

    def release(self, address: int, now: float) -> list[DhcpAction]:
        """DHCPRELEASE."""
        return self.send(self.message(MessageType.RELEASE, ciaddr=address, server_id=int(GATEWAY)), now)

    def decline(self, address: int, now: float) -> list[DhcpAction]:
        """DHCPDECLINE."""
        message = self.message(MessageType.DECLINE, requested_address=address, server_id=int(GATEWAY))
        return self.send(message, now)

    def inform(self, address: int, now: float) -> list[DhcpAction]:
        """DHCPINFORM."""
        return self.send(self.message(MessageType.INFORM, ciaddr=address), now)

    def join(self, now: float) -> int:
        """The whole way to a lease, where nothing is probed; returns the address."""
        address = only_reply(self.discover(now)).yiaddr
        bound, _ = self.select(address, now)
        assert isinstance(bound, LeaseBound)
        assert bound.key == ClientKey(self.server.zone.name, self.mac)
        assert int(bound.address) == address
        return address


def phone(server: DhcpServer, number: int) -> Phone:
    """Client number so and so, with a MAC of its own."""
    return Phone(server, MacAddress(b"\x02\x00" + number.to_bytes(4, "big")))
