"""DHCPv4 server core of one zone: a message and the time in, replies and facts about leases out (RFC 2131 §4.3).

Sans-IO. Encoding lives in `v4_codec`, replies in `v4_replies`, the table in `leases`, sockets in `sockets`.

Three decisions that a reader of the RFC may miss:

- The gateway is the only server of its link and knows every lease, so it speaks with authority: a client that asks for
  an address we have no record of (INIT-REBOOT, renewing after lost state) gets it if it is free, else a DHCPNAK. RFC
  2131 §4.3.2 demands silence there for the sake of other servers; silence would cost a phone that comes from another
  gateway with the same prefix many seconds before it starts anew.
- Who asks is the MAC that the frame came from, or the client that a relay names (`v4_admission`). What a relay brings
  is not proven, and cannot end or move a lease that was made on our own link.
- Before an address is offered for the first time it is asked for by ARP, twice within the probe time (RFC 5227 in
  haste: a client waits for its offer). An answer from the very client that asks is no conflict: it still uses what it
  had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final, assert_never

from gateway.addresses import MacAddress
from gateway.config import Dhcp, Reservation, Zone
from gateway.dhcp.leases import Lease, LeaseRecord, LeaseState, LeaseTable
from gateway.dhcp.listing import AddressRow, address_rows
from gateway.dhcp.pool import build_pool
from gateway.dhcp.v4_admission import Admission, Refusals
from gateway.dhcp.v4_codec import Message, MessageType, Option, read_host_name, read_word
from gateway.dhcp.v4_events import (
    AddressSeen,
    DhcpAction,
    DhcpEvent,
    PacketReceived,
    PacketUnreadable,
    RefusalReason,
    SendProbe,
    SendReply,
)
from gateway.dhcp.v4_probes import Probe, ProbeQueue
from gateway.dhcp.v4_replies import (
    acknowledgement,
    destination,
    information,
    lease_seconds,
    offer,
    refusal,
    zone_answers,
)
from gateway.dhcp.waiting import TurnedAway
from gateway.session.events import LeaseBound, LeaseEnded
from gateway.session.model import ClientKey
from gateway.values import value_class

ADDRESSES_TRIED: Final = 3
"""Addresses probed in a row for one DISCOVER before the client is left to ask again."""

QUARANTINE_SHARE: Final = 4
"""At most a quarter of the pool is set aside at once, or four addresses: a client that declines everything must not
empty the pool. An address that comes back early is probed again before it is offered."""

_CLIENT_ID_OCTETS: Final = range(2, 256)
"""RFC 2132 §9.14: a type and at least one octet, with one octet for the length. Shorter ones are ignored, and longer
ones, which repeated options could make (RFC 3396): a stranger's 1,400 octets would be kept with its lease."""


@value_class
class DhcpCounts:
    """What a zone's server has and has done, for metrics; totals since start."""

    pool_size: int
    free: int
    offered: int
    bound: int
    former: int
    quarantined: int
    probing: int
    requests: Mapping[str, int]  # by message type in small letters: "discover", "request" …
    replies: Mapping[str, int]
    refusals: Mapping[RefusalReason, int]


class DhcpServer:
    """The DHCPv4 server of one zone."""

    def __init__(self, zone: Zone, settings: Dhcp, reservations: tuple[Reservation, ...] = ()) -> None:
        """Start with no lease; raises ValueError if the zone's prefix has no room for a pool."""
        self._requests = dict.fromkeys(MessageType, 0)
        self._replies = dict.fromkeys(MessageType, 0)
        self._refusals = Refusals()
        self._turned_away = TurnedAway()
        self._configure(zone, settings, reservations)
        self._table = LeaseTable(build_pool(zone, self._own_reservations))

    def _configure(self, zone: Zone, settings: Dhcp, reservations: tuple[Reservation, ...]) -> None:
        self.zone = zone
        self.settings = settings
        self._own_reservations = tuple(item for item in reservations if item.zone == zone.name)
        self._reserved = {item.mac: int(item.address) for item in self._own_reservations}
        self._admission = Admission(zone, settings)
        self._probes = ProbeQueue(settings.probe_timeout)
        self._answers = zone_answers(zone, self._own_reservations)
        self._server_id = int(zone.address.ip)

    # The four verbs of a core.

    def receive(self, event: DhcpEvent, now: float) -> list[DhcpAction]:
        """What follows from one event."""
        due = self.deadline()
        actions = [] if due is None or due > now else self.tick(now)
        match event:
            case PacketReceived(message, source_mac):
                actions += self._receive_message(message, source_mac, now)
            case PacketUnreadable(source_mac, detail):
                actions += self._refusals.add(source_mac, ("malformed", detail), now)
            case AddressSeen(address, mac):
                actions += self._address_seen(address, mac, now)
            case _:
                assert_never(event)
        return actions

    def tick(self, now: float) -> list[DhcpAction]:
        """What follows from the time alone: probes that nobody answered, leases and offers that end."""
        actions: list[DhcpAction] = []
        for probe, unanswered in self._probes.take_due(now):
            number = probe.lease.number
            if self._table.of_number(number) is not probe.lease:
                self._probes.stop(number)  # the address was taken back meanwhile
            elif unanswered:
                actions += self._answer(probe, now)
            else:
                actions.append(SendProbe(number))
        for lease in self._table.expire(now):
            actions.append(LeaseEnded(lease.key, lease.address, "expired"))
        return actions

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        lease_due, probe_due = self._table.next_due(), self._probes.next_due()
        if lease_due is None or probe_due is None:
            return probe_due if lease_due is None else lease_due
        return min(lease_due, probe_due)

    def snapshot(self, now: float) -> tuple[LeaseRecord, ...]:
        """The live leases, as they should survive a restart."""
        return tuple(self._record(lease, now) for lease in self._table if lease.state is LeaseState.BOUND)

    # What the gateway asks.

    def restore(self, records: Iterable[LeaseRecord], now: float) -> list[DhcpAction]:
        """Take back the leases of a former run; LeaseEnded for those that are over or no longer fit."""
        actions: list[DhcpAction] = []
        for record in records:
            if record.zone != self.zone.name:
                continue
            key = ClientKey(record.zone, record.mac)
            number = int(record.address)
            if not self._rightful(record.mac, number) or not self._unheld(number) or self._table.of_mac(record.mac):
                actions.append(LeaseEnded(key, record.address, "removed"))
                continue
            relay = int(record.relay) if record.relay else 0
            lease = self._table.offer(key, number, record.client_id, relay, now, now)
            if record.remaining_s > 0:
                self._table.bind(lease, record.client_id, relay, record.hostname, now + record.remaining_s, now)
            else:
                self._table.end(lease, now)
                actions.append(LeaseEnded(key, record.address, "expired"))
        return actions

    def reconfigure(
        self, zone: Zone, settings: Dhcp, reservations: tuple[Reservation, ...], now: float
    ) -> list[DhcpAction]:
        """Go on with another configuration of the same zone; LeaseEnded for leases that it has no place for.

        Offers and probes under way are dropped: their clients ask again. Raises ValueError as the constructor does, and
        then changes nothing.
        """
        table = LeaseTable(build_pool(zone, tuple(item for item in reservations if item.zone == zone.name)))
        former_table, self._table = self._table, table
        self._configure(zone, settings, reservations)
        actions: list[DhcpAction] = []
        for number, until in former_table.quarantines():
            table.quarantine(number, until, self._quarantine_most())
        for old in sorted(former_table, key=lambda lease: lease.expires_at):
            if old.state is LeaseState.OFFERED:
                continue
            if not self._rightful(old.key.mac, old.number) or not self._unheld(old.number):
                if old.state is LeaseState.BOUND:
                    actions.append(LeaseEnded(old.key, old.address, "removed"))
                continue
            lease = table.offer(old.key, old.number, old.client_id, old.relay, now, now)
            if old.state is LeaseState.BOUND:
                table.bind(lease, old.client_id, old.relay, old.hostname, old.expires_at, old.changed_at)
            else:
                table.end(lease, old.expires_at)
        return actions

    def release(self, mac: MacAddress, now: float) -> list[DhcpAction]:
        """End a client's lease on an operator's word; nothing if it has none."""
        lease = self._table.of_mac(mac)
        if lease is None or lease.state is not LeaseState.BOUND:
            return []
        self._table.end(lease, now)
        return [LeaseEnded(lease.key, lease.address, "removed")]

    def leases(self) -> Iterable[Lease]:
        """The live leases, in no particular order."""
        return (lease for lease in self._table if lease.state is LeaseState.BOUND)

    def listing(self) -> list[AddressRow]:
        """Everything that is leased, offered, reserved or set aside, ordered by address."""
        return address_rows(self._table, self._own_reservations)

    def lease_of_address(self, address: IPv4Address) -> Lease | None:
        """The live lease of an address."""
        lease = self._table.of_number(int(address))
        return lease if lease is not None and lease.state is LeaseState.BOUND else None

    def lease_of_mac(self, mac: MacAddress) -> Lease | None:
        """The live lease of a client."""
        lease = self._table.of_mac(mac)
        return lease if lease is not None and lease.state is LeaseState.BOUND else None

    def record(self, mac: MacAddress, now: float) -> LeaseRecord | None:
        """What to keep of a client's live lease."""
        lease = self.lease_of_mac(mac)
        return None if lease is None else self._record(lease, now)

    def counts(self) -> DhcpCounts:
        """State and totals for metrics."""
        table = self._table
        return DhcpCounts(
            pool_size=table.pool.size,
            free=table.pool.free,
            offered=table.offered,
            bound=table.bound,
            former=table.former,
            quarantined=table.quarantined,
            probing=len(self._probes),
            requests={kind.name.lower(): count for kind, count in self._requests.items()},
            replies={kind.name.lower(): count for kind, count in self._replies.items()},
            refusals=dict(self._refusals.counts),
        )

    def is_probing(self, address: int) -> bool:
        """Whether the server waits for ARP about this address."""
        return address in self._probes

    @property
    def probing(self) -> int:
        """How many addresses the server waits for ARP about."""
        return len(self._probes)

    # Messages.

    def _receive_message(self, message: Message, source_mac: bytes, now: float) -> list[DhcpAction]:
        self._requests[message.kind] += 1
        objection = self._admission.object_to(message, source_mac, now)
        if objection is not None:
            return self._refusals.add(source_mac, objection, now)
        client = message.chaddr[:6]
        lease = self._table.of_mac(client)
        mac = MacAddress(client) if lease is None else lease.key.mac
        match message.kind:
            case MessageType.DISCOVER:
                return self._discover(message, mac, lease, now)
            case MessageType.REQUEST:
                return self._request(message, mac, lease, now)
            case MessageType.DECLINE:
                return self._decline(message, mac, lease, now)
            case MessageType.RELEASE:
                return self._release(message, mac, lease, now)
            case _:  # INFORM: admission lets no other kind through
                return self._inform(message, mac, now)

    def _discover(self, message: Message, mac: MacAddress, lease: Lease | None, now: float) -> list[DhcpAction]:
        actions: list[DhcpAction] = []
        if lease is not None and not self._rightful(mac, lease.number):
            if lease.state is LeaseState.BOUND:
                actions.append(LeaseEnded(lease.key, lease.address, "replaced"))
            self._forget(lease)
            lease = None
        elif lease is None and (objection := self._admission.object_to_newcomer(now)):
            return self._refusals.add(mac, objection, now)
        if lease is not None:
            return self._offer_again(lease, message, now)
        return actions + self._offer_new(message, mac, tried=0, now=now)

    def _offer_again(self, lease: Lease, message: Message, now: float) -> list[DhcpAction]:
        """To a client that has an entry: a live lease stays as it is, anything else becomes an open offer."""
        if lease.state is not LeaseState.BOUND:
            until = self._offer_until(now)
            self._table.renew_offer(lease, _client_id(message), message.giaddr, until, now)
            probe = self._probe_for(lease)
            if probe is not None:
                probe.request = message
                return []
        return [self._reply(message, offer(message, lease.number, self._answers))]

    def _offer_new(self, message: Message, mac: MacAddress, tried: int, now: float) -> list[DhcpAction]:
        number = self._choose(message, mac, now)
        if number is None:
            self._turned_away.add(mac, now)
            table = self._table
            detail = f"{table.bound} of {table.pool.size} addresses are leased, {table.offered} offered"
            return self._refusals.add(mac, ("pool_exhausted", detail), now)
        lease = self._hold(message, mac, number, now)
        return self._ask_or_answer(Probe(lease, message, tried + 1), now)

    def _choose(self, message: Message, mac: MacAddress, now: float) -> int | None:
        """An address for a client without an entry (RFC 2131 §4.3.1): its reserved, its former, its wish, any."""
        reserved = self._reserved.get(mac)
        if reserved is not None and self._unheld(reserved):
            return reserved
        former = self._table.former_of_client(_client_id(message))
        if former is not None and self._rightful(mac, former.number):
            self._forget(former)
            return former.number
        wish = read_word(message.options.get(Option.REQUESTED_ADDRESS, b""))
        if wish is not None and self._table.pool.is_free(wish):
            return wish
        asked_before = self._turned_away.has_waited(mac, now)
        return self._table.find_address(now, asked_before=asked_before, probed=self._probes)

    def _hold(self, message: Message, mac: MacAddress, number: int, now: float) -> Lease:
        key = ClientKey(self.zone.name, mac)
        return self._table.offer(key, number, _client_id(message), message.giaddr, self._offer_until(now), now)

    def _request(self, message: Message, mac: MacAddress, lease: Lease | None, now: float) -> list[DhcpAction]:
        """DHCPREQUEST in all its states (RFC 2131 §4.3.2): what is wished for is in option 50, else in ciaddr."""
        chosen = message.options.get(Option.SERVER_ID)
        if chosen is not None and read_word(chosen) != self._server_id:
            if lease is not None and lease.state is LeaseState.OFFERED:
                self._forget(lease)  # the client took another server's offer
            return []
        wish = read_word(message.options.get(Option.REQUESTED_ADDRESS, b"")) or message.ciaddr
        if not wish:
            return self._refusals.add(mac, ("malformed", "a DHCPREQUEST without an address"), now)
        if lease is not None:
            if lease.number == wish and self._rightful(mac, wish):
                probe = self._probe_for(lease)
                if probe is not None:
                    probe.request = message
                    return []
                return self._bind(lease, message, now)
            return [self._reply(message, refusal(message, "not your address here", self._answers))]
        if objection := self._admission.object_to_newcomer(now):
            return self._refusals.add(mac, objection, now)
        if not self._rightful(mac, wish) or not self._unheld(wish):
            return [self._reply(message, refusal(message, "address not available", self._answers))]
        return self._ask_or_answer(Probe(self._hold(message, mac, wish, now), message, ADDRESSES_TRIED), now)

    def _bind(self, lease: Lease, message: Message, now: float) -> list[DhcpAction]:
        renewed = lease.state is LeaseState.BOUND
        until = now + lease_seconds(message, self._answers)
        if message.giaddr and renewed and not lease.relay:
            until = max(until, lease.expires_at)  # a forged relay must not shorten the lease of a client on our link
        name = message.options.get(Option.HOST_NAME)
        hostname = lease.hostname if name is None else read_host_name(name)
        self._table.bind(lease, _client_id(message), message.giaddr, hostname, until, now)
        self._probes.forget(lease.number)
        return [
            LeaseBound(lease.key, lease.address, until, hostname, renewed),
            self._reply(message, acknowledgement(message, lease.number, self._answers)),
        ]

    def _decline(self, message: Message, mac: MacAddress, lease: Lease | None, now: float) -> list[DhcpAction]:
        """The client found its new address in use (RFC 2131 §4.3.3)."""
        declined = read_word(message.options.get(Option.REQUESTED_ADDRESS, b""))
        if lease is None or not self._may_end(message, lease, declined):
            return self._refusals.add(mac, ("not_its_lease", "a DHCPDECLINE of what it does not hold"), now)
        was_bound = lease.state is LeaseState.BOUND
        self._set_aside(lease, now)
        return [LeaseEnded(lease.key, lease.address, "declined")] if was_bound else []

    def _release(self, message: Message, mac: MacAddress, lease: Lease | None, now: float) -> list[DhcpAction]:
        """The client gives its address back; it will get the same one again if it can (RFC 2131 §4.3.4)."""
        if lease is None or lease.state is LeaseState.OFFERED or not self._may_end(message, lease, message.ciaddr):
            return self._refusals.add(mac, ("not_its_lease", "a DHCPRELEASE of what it does not hold"), now)
        self._table.end(lease, now)
        return [LeaseEnded(lease.key, lease.address, "released")]

    def _inform(self, message: Message, mac: MacAddress, now: float) -> list[DhcpAction]:
        """Parameters for a client that has its address from elsewhere; no lease is touched (RFC 2131 §4.3.5)."""
        if not message.ciaddr:
            return self._refusals.add(mac, ("malformed", "a DHCPINFORM without ciaddr"), now)
        return [self._reply(message, information(message, self._answers))]

    def _may_end(self, message: Message, lease: Lease, address: int | None) -> bool:
        """Whether a DECLINE or RELEASE ends its sender's entry: it must be told to us, and the way it was obtained."""
        server_id = message.options.get(Option.SERVER_ID)
        return (
            lease.number == address
            and lease.state is not LeaseState.FORMER
            and message.giaddr == lease.relay
            and (server_id is None or read_word(server_id) == self._server_id)
        )

    # Probing.

    def _ask_or_answer(self, probe: Probe, now: float) -> list[DhcpAction]:
        """Answer at once if the address is known to be free or cannot be asked for, else probe first."""
        number = probe.lease.number
        if not self.settings.probe or probe.request.giaddr or self._probes.is_fresh(number, now):
            return self._answer(probe, now)
        self._probes.start(probe, now)
        return [SendProbe(number)]

    def _probe_for(self, lease: Lease) -> Probe | None:
        """The probe that a client's offer waits for."""
        probe = self._probes.of_number(lease.number)
        return probe if probe is not None and probe.lease is lease else None

    def _answer(self, probe: Probe, now: float) -> list[DhcpAction]:
        lease, message = probe.lease, probe.request
        if message.kind is MessageType.REQUEST:
            return self._bind(lease, message, now)
        self._table.send_offer(lease, self._offer_until(now), now)
        return [self._reply(message, offer(message, lease.number, self._answers))]

    def _address_seen(self, address: int, mac: bytes, now: float) -> list[DhcpAction]:
        probe = self._probes.of_number(address)
        if probe is None or mac == probe.lease.key.mac or self._table.of_number(address) is not probe.lease:
            return []
        self._set_aside(probe.lease, now)
        message, client = probe.request, probe.lease.key.mac
        if message.kind is MessageType.REQUEST:
            return [self._reply(message, refusal(message, "address in use", self._answers))]
        if probe.tried >= ADDRESSES_TRIED:
            return self._refusals.add(
                client, ("address_in_use", f"{probe.tried} addresses in a row answered by ARP"), now
            )
        return self._offer_new(message, client, probe.tried, now)

    def _set_aside(self, lease: Lease, now: float) -> None:
        self._forget(lease)
        self._probes.forget(lease.number)
        until = now + self.settings.decline_quarantine
        self._table.quarantine(lease.number, until, self._quarantine_most())

    # Rules.

    def _rightful(self, mac: MacAddress, number: int) -> bool:
        """Whether this client may have this address at all, whoever holds it now."""
        reserved = self._reserved.get(mac)
        if number == reserved:
            return True
        if number not in self._table.pool:
            return False
        return reserved is None or not self._unheld(reserved)

    def _unheld(self, number: int) -> bool:
        """Whether nobody has a claim to the address: no entry of any client, not set aside."""
        return self._table.of_number(number) is None and not self._table.is_quarantined(number)

    def _quarantine_most(self) -> int:
        return max(QUARANTINE_SHARE, self._table.pool.size // QUARANTINE_SHARE)

    def _offer_until(self, now: float) -> float:
        """An offer lives for the configured time, and not before its probe is over."""
        return now + self.settings.read_timeout + (self.settings.probe_timeout if self.settings.probe else 0)

    # Small things.

    def _forget(self, lease: Lease) -> None:
        self._table.forget(lease)
        self._probes.stop(lease.number)

    def _reply(self, request: Message, reply: Message) -> SendReply:
        self._replies[reply.kind] += 1
        return SendReply(reply, destination(request, reply))

    def _record(self, lease: Lease, now: float) -> LeaseRecord:
        relay = IPv4Address(lease.relay) if lease.relay else None
        return LeaseRecord(
            lease.key.zone,
            lease.key.mac,
            lease.client_id,
            lease.address,
            lease.expires_at - now,
            lease.hostname,
            relay,
        )


def _client_id(message: Message) -> bytes:
    """The client's identifier, else its hardware type and address (RFC 2131 §4.2)."""
    sent = message.options.get(Option.CLIENT_ID, b"")
    return sent if len(sent) in _CLIENT_ID_OCTETS else bytes((message.htype,)) + message.chaddr[:6]
