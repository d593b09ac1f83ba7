"""What holds whatever clients, squatters and operators do, in any order (Hypothesis) and for long (seeded)."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Dhcp, Reservation
from gateway.dhcp.leases import LeaseState
from gateway.dhcp.v4_codec import MessageType, decode, encode
from gateway.dhcp.v4_events import AddressSeen, DhcpAction, PacketReceived, PacketUnreadable, SendReply
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound, LeaseEnded
from tests.gateway.dhcp.conversation import ZONE, Phone, ip, phone

SMALL = replace(ZONE, pool=Ipv4Range.parse("10.41.0.10-10.41.0.13"))
RESERVATION = Reservation("tv", "guest", MacAddress(b"\x02\0\0\0\0\x01"), IPv4Address("10.41.0.11"))
SETTINGS = Dhcp(client_rate=1000, client_burst=1000)

clients = st.integers(0, 7)
# The pool, the addresses around it, the gateway's, and both ends of the prefix.
addresses = st.sampled_from([ip("10.41.0.9") + offset for offset in range(6)] + [ip("10.41.0.1"), ip("10.41.0.255")])


class AnyOrder(RuleBasedStateMachine):
    """Random conversations with a server of four addresses, one of them reserved, checked after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.core = DhcpServer(SMALL, SETTINGS, (RESERVATION,))
        self.now = 0.0
        self.held: dict[IPv4Address, MacAddress] = {}  # as the hub knows it, from the facts alone

    def hear(self, actions: list[DhcpAction]) -> None:
        """Follow the facts as the hub does, and hold every reply against them."""
        for action in actions:
            match action:
                case LeaseBound(key, address, _, _, renewed):
                    assert self.held.get(address, key.mac) == key.mac, "bound to two clients"
                    assert renewed == (address in self.held)
                    self.held[address] = key.mac
                case LeaseEnded(key, address):
                    assert self.held.pop(address) == key.mac
                case SendReply(message):
                    assert decode(encode(message)) == message
                    client = MacAddress(message.chaddr[:6])
                    if message.kind is MessageType.ACK and message.yiaddr:
                        assert self.held[IPv4Address(message.yiaddr)] == client, "acknowledged before it was told"
                    if message.kind is MessageType.OFFER:
                        assert self.held.get(IPv4Address(message.yiaddr), client) == client, "offered another's"
                        assert ip("10.41.0.10") <= message.yiaddr <= ip("10.41.0.13")
                        assert (message.yiaddr == int(RESERVATION.address)) <= (client == RESERVATION.mac)

    def client(self, number: int) -> Phone:
        """One of the eight; two of them share an identifier."""
        made = phone(self.core, number)
        made.client_id = b"\xffshared" if number in (5, 6) else None
        return made

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.5, 6.0, 400.0, 4000.0]), ticked=st.booleans())
    def time_passes(self, seconds: float, ticked: bool) -> None:
        """Sometimes the timer fires, sometimes the next message comes first."""
        self.now += seconds
        if ticked:
            self.hear(self.core.tick(self.now))

    @rule(number=clients, wish=addresses)
    def discover(self, number: int, wish: int) -> None:
        """A client looks for a server."""
        self.hear(self.client(number).discover(self.now, requested_address=wish))

    @rule(number=clients, address=addresses, ours=st.booleans())
    def select(self, number: int, address: int, ours: bool) -> None:
        """A client takes an offer, perhaps one that was never made, perhaps another server's."""
        self.hear(self.client(number).select(address, self.now, ip("10.41.0.1") if ours else 7))

    @rule(number=clients)
    def accept(self, number: int) -> None:
        """A client takes what is held for it."""
        entry = self.core._table.of_mac(self.client(number).mac)
        if entry is not None:
            self.hear(self.client(number).select(entry.number, self.now))

    @rule(number=clients, address=addresses, rebooted=st.booleans())
    def ask_again(self, number: int, address: int, rebooted: bool) -> None:
        """A client renews, rebinds or remembers."""
        made = self.client(number)
        self.hear(made.reboot(address, self.now) if rebooted else made.renew(address, self.now))

    @rule(number=clients, address=addresses, declined=st.booleans())
    def give_back(self, number: int, address: int, declined: bool) -> None:
        """A client releases or declines."""
        made = self.client(number)
        self.hear(made.decline(address, self.now) if declined else made.release(address, self.now))

    @rule(number=clients, address=addresses)
    def squat(self, number: int, address: int) -> None:
        """Somebody uses an address by ARP."""
        self.hear(self.core.receive(AddressSeen(address, bytes(self.client(number).mac)), self.now))

    @rule(number=clients)
    def kick(self, number: int) -> None:
        """The operator ends a lease."""
        self.hear(self.core.release(self.client(number).mac, self.now))

    @rule(last=st.integers(10, 14), reserved=st.booleans())
    def reload(self, last: int, reserved: bool) -> None:
        """The operator changes pool and reservation; the reserved one goes back to what the checks expect."""
        narrow = replace(SMALL, pool=Ipv4Range.parse(f"10.41.0.10-10.41.0.{min(last, 13)}"))
        self.hear(self.core.reconfigure(narrow, SETTINGS, (RESERVATION,) if reserved else (), self.now))
        self.hear(self.core.reconfigure(SMALL, SETTINGS, (RESERVATION,), self.now))

    @rule()
    def restart(self) -> None:
        """The daemon starts again from its records."""
        self.hear(self.core.tick(self.now))
        records = self.core.snapshot(self.now)
        self.core = DhcpServer(SMALL, SETTINGS, (RESERVATION,))
        self.hear(self.core.restore(records, self.now))

    @invariant()
    def table_and_facts_agree(self) -> None:
        """The hub's picture is the table's; no address has two holders, no client two addresses; the pool agrees."""
        table = self.core._table
        live = {lease.address: lease.key.mac for lease in self.core.leases()}
        assert live == self.held
        entries = list(table)
        assert len({entry.number for entry in entries}) == len({entry.key.mac for entry in entries}) == len(entries)
        in_pool = sum(entry.number in table.pool for entry in entries)
        set_aside = sum(number in table.pool for number, _ in table.quarantines())
        assert table.pool.size - table.pool.free == in_pool + set_aside
        states = [entry.state for entry in entries]
        assert states.count(LeaseState.BOUND) == table.bound
        assert states.count(LeaseState.OFFERED) == table.offered
        assert states.count(LeaseState.FORMER) == table.former


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_hostile_octets_leave_the_server_in_order() -> None:
    """Thirty thousand seeded mutations of real messages: no exception, no lease outside the pool."""
    source = random.Random(82)
    core = DhcpServer(SMALL, replace(SETTINGS, probe=False), (RESERVATION,))
    octets = [
        encode(phone(core, number).message(kind, ciaddr=ciaddr, requested_address=ip("10.41.0.12"), server_id=server))
        for number in range(6)
        for kind in MessageType
        for ciaddr in (0, ip("10.41.0.10"))
        for server in (ip("10.41.0.1"), 0)
    ]
    now = 0.0
    for _ in range(30_000):
        now += source.random()
        mutated = bytearray(source.choice(octets))
        for _ in range(source.randrange(4)):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        cut = bytes(mutated[: source.choice((len(mutated), source.randrange(len(mutated) + 1)))])
        mac = cut[28:34].ljust(6, b"\0") if source.random() < 0.9 else source.randbytes(6)
        try:
            core.receive(PacketReceived(decode(cut), mac), now)
        except ValueError as error:
            core.receive(PacketUnreadable(mac, str(error)), now)
    allowed = range(ip("10.41.0.10"), ip("10.41.0.13") + 1)
    assert all(lease.number in allowed for lease in core.leases())
    assert sum(core.counts().refusals.values()) > 1000
