"""Who may ask the DHCPv4 server at all: checks that need no lease table, and the account of what was refused.

Who asks is the MAC that the frame came from. A message whose chaddr is another is refused, unless a relay sent it. A
relay is known by its giaddr, which any guest can write: it would pass for ever new clients so, and empty the pool past
the limit of one lease per MAC. So there are no relays but those that the configuration names.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.buckets import TokenBuckets
from gateway.config import Dhcp, Zone
from gateway.dhcp.v4_codec import ETHERNET, Message, MessageType, Op
from gateway.dhcp.v4_events import DhcpAction, RefusalReason, ReportRefusal
from gateway.reports import ReportLimit

_FROM_CLIENTS: Final = frozenset(
    (MessageType.DISCOVER, MessageType.REQUEST, MessageType.DECLINE, MessageType.RELEASE, MessageType.INFORM)
)
_NO_MAC: Final = bytes(6)
_NEWCOMERS: Final = "newcomers"  # one bucket for all clients of the zone that have no lease

Objection = tuple[RefusalReason, str]
"""Why a message is refused, and the particulars for the log."""


class Admission:
    """The checks of one zone, in force from one configuration to the next."""

    def __init__(self, zone: Zone, settings: Dhcp) -> None:
        self._relays = frozenset(map(int, zone.relays))
        self._blocked = frozenset(zone.block_macs)
        self._client_rate = settings.client_rate
        self._new_client_rate = settings.new_client_rate
        self._clients = TokenBuckets(settings.client_rate, settings.client_burst)
        self._new_clients = TokenBuckets(settings.new_client_rate, settings.new_client_burst)

    def object_to(self, message: Message, source_mac: bytes, now: float) -> Objection | None:
        """What speaks against answering this message; None, and a token of its client used, if nothing does."""
        client = message.chaddr[:6]
        if message.op != Op.REQUEST or message.kind not in _FROM_CLIENTS:
            return "not_a_request", f"op {message.op}, {message.kind.name}"
        if message.htype != ETHERNET or message.hlen != 6 or client[0] & 1 or client == _NO_MAC:
            return "hardware", f"htype {message.htype}, hlen {message.hlen}"
        bucket = client
        if message.giaddr:
            if message.giaddr not in self._relays:
                return "unknown_relay", f"giaddr {IPv4Address(message.giaddr)} is not in the zone's option relay"
            # Not the client's own bucket: a forged relay must not use up the messages of a client on our link.
            bucket += message.giaddr.to_bytes(4, "big")
        elif client != source_mac:
            return "foreign_mac", f"asks for {client.hex(':')}"
        if client in self._blocked:
            return "blocked", "on the zone's block list"
        if not self._clients.take(bucket, now):
            return "client_rate", f"more than {self._client_rate:g} messages a second"
        return None

    def object_to_newcomer(self, now: float) -> Objection | None:
        """What speaks against a client that has no lease; None, and a token of the zone used, if nothing does."""
        if self._new_clients.take(_NEWCOMERS, now):
            return None
        return "new_client_rate", f"more than {self._new_client_rate:g} new clients a second"


class Refusals:
    """What was refused, and which of it is said."""

    def __init__(self) -> None:
        self.counts: dict[RefusalReason, int] = {}
        self._reports = ReportLimit()

    def add(self, mac: bytes, objection: Objection, now: float) -> list[DhcpAction]:
        """Count, and order a report if this source has not been reported within the minute."""
        reason, detail = objection
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self._reports.admit(bytes(mac), now) is None:
            return []
        return [ReportRefusal(MacAddress(mac), reason, detail)]
