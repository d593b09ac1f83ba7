"""Conversations with the DHCPv4 server as they happen on the wire, addresses unprobed (see test_v4_probes)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Dhcp, Reservation
from gateway.dhcp.leases import LeaseRecord
from gateway.dhcp.v4_codec import BROADCAST_FLAG, MessageType, Op, Option
from gateway.dhcp.v4_events import DhcpAction, PacketUnreadable, ReportRefusal, SendReply, ToClient, ToEveryone, ToRelay
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound, LeaseEnded
from gateway.session.model import ClientKey
from tests.gateway.dhcp.conversation import GATEWAY, NO_PROBE, ZONE, Phone, ip, only_reply, phone, replies

TEN = IPv4Address("10.41.0.10")
RELAY = IPv4Address("10.41.0.5")
TELEVISION = MacAddress.parse("02:00:5e:77:00:01")
RESERVED = Reservation("tv", "guest", TELEVISION, IPv4Address("10.41.0.15"), "television")


def server(settings: Dhcp = NO_PROBE, *reservations: Reservation, **zone_fields: object) -> DhcpServer:
    """A server of the zone with ten addresses."""
    return DhcpServer(replace(ZONE, **zone_fields), settings, reservations)  # type: ignore[arg-type]


def ended(actions: list[DhcpAction]) -> list[tuple[MacAddress, str, str]]:
    """Who lost which address, and why."""
    return [
        (action.key.mac, str(action.address), action.reason) for action in actions if isinstance(action, LeaseEnded)
    ]


def refusals(core: DhcpServer) -> dict[str, int]:
    """What was refused so far."""
    return {str(reason): count for reason, count in core.counts().refusals.items()}


def test_discover_offer_request_ack() -> None:
    """The way to a lease; the hub hears of it before the acknowledgement may leave."""
    core = server()
    client = Phone(core, extra={Option.HOST_NAME: b"Ann's phone"})
    (offered,) = client.discover(0.0)
    assert isinstance(offered, SendReply)
    assert offered.message.kind is MessageType.OFFER
    assert offered.message.yiaddr == int(TEN)
    assert offered.destination == ToClient(bytes(client.mac), int(TEN))
    assert core.lease_of_address(TEN) is None
    fact, acknowledged = client.select(int(TEN), 1.0)
    assert fact == LeaseBound(ClientKey("guest", client.mac), TEN, 3601.0, "Annsphone", renewed=False)
    assert isinstance(acknowledged, SendReply)
    assert acknowledged.message.kind is MessageType.ACK
    lease = core.lease_of_address(TEN)
    assert lease is not None
    assert lease.key.mac == client.mac
    assert list(core.leases()) == [lease]


def test_a_repeated_discover_gets_the_same_offer() -> None:
    """A client that missed the offer does not use up a second address."""
    core = server()
    client = Phone(core)
    assert [only_reply(client.discover(now)).yiaddr for now in (0.0, 2.0, 6.0)] == [int(TEN)] * 3
    assert core.counts().offered == 1


def test_a_repeated_request_is_acknowledged_again() -> None:
    """A client that missed the acknowledgement gets another, told to the hub as a renewal."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    fact, _ = client.select(address, 0.5)
    assert isinstance(fact, LeaseBound)
    assert fact.renewed


def test_renewal_extends_the_lease_and_goes_to_the_address_in_use() -> None:
    """RENEWING: ciaddr set, no option 50, no server identifier."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    fact, reply = client.renew(address, 1800.0)
    assert fact == LeaseBound(ClientKey("guest", client.mac), TEN, 5400.0, "", renewed=True)
    assert isinstance(reply, SendReply)
    assert reply.destination == ToClient(bytes(client.mac), address)
    assert reply.message.ciaddr == reply.message.yiaddr == address
    assert ended(core.tick(3600.0)) == []
    assert ended(core.tick(5400.0)) == [(client.mac, "10.41.0.10", "expired")]


def test_a_rebooted_client_keeps_its_address() -> None:
    """INIT-REBOOT with the right address is acknowledged, with another one refused, to everyone on the link."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    assert replies(client.reboot(address, 10.0))[0].kind is MessageType.ACK
    (refused,) = client.reboot(address + 1, 11.0)
    assert isinstance(refused, SendReply)
    assert refused.message.kind is MessageType.NAK
    assert refused.destination == ToEveryone()


@pytest.mark.parametrize("wish", ["192.168.1.7", "10.41.0.1", "10.41.0.200", "10.41.0.0", "10.41.0.255", "10.42.0.10"])
def test_addresses_that_are_not_ours_to_give_are_refused(wish: str) -> None:
    """Another network's, the gateway's, one outside the pool: NAK, so that the client starts anew at once."""
    for ask in (Phone.reboot, Phone.renew):
        core = server()
        assert only_reply(ask(Phone(core), ip(wish), 0.0)).kind is MessageType.NAK
        assert core.counts().bound == 0


def test_a_client_we_do_not_remember_keeps_a_free_address() -> None:
    """After lost state a renewing client goes on with its address, as nobody else has it."""
    core = server()
    client = Phone(core)
    fact, reply = client.renew(ip("10.41.0.13"), 0.0)
    assert isinstance(fact, LeaseBound)
    assert not fact.renewed
    assert isinstance(reply, SendReply)
    assert reply.message.kind is MessageType.ACK


def test_nobody_gets_an_address_that_is_bound_to_another() -> None:
    """By wish, by request, by reboot, by renewal or with the other's client identifier: never."""
    core = server()
    owner = Phone(core, client_id=b"\x01owner")
    address = owner.join(0.0)
    thief = phone(core, 66)
    thief.client_id = owner.client_id
    assert only_reply(thief.discover(1.0, requested_address=address)).yiaddr != address
    for ask in (thief.select, thief.reboot, thief.renew):
        assert only_reply(ask(address, 2.0)).kind is MessageType.NAK
    lease = core.lease_of_address(IPv4Address(address))
    assert lease is not None
    assert lease.key.mac == owner.mac


def test_nobody_speaks_for_another_mac() -> None:
    """chaddr must be the MAC that the frame came from; the owner's lease stays as it is."""
    core = server()
    owner = Phone(core)
    address = owner.join(0.0)
    thief = MacAddress.parse("02:66:66:66:66:66")
    for kind in (MessageType.RELEASE, MessageType.REQUEST, MessageType.DISCOVER, MessageType.INFORM):
        assert replies(owner.send(owner.message(kind, ciaddr=address), 1.0, source_mac=thief)) == []
    declined = owner.message(MessageType.DECLINE, requested_address=address)
    assert ended(owner.send(declined, 1.0, source_mac=thief)) == []
    assert refusals(core) == {"foreign_mac": 5}
    assert core.lease_of_address(IPv4Address(address)) is not None


def test_one_mac_with_many_identifiers_holds_one_address() -> None:
    """Identifiers are cheap; the pool is not emptied with them."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    for number in range(20):
        client.client_id = b"\x00%d" % number
        assert client.join(float(10 * number + 10)) == address
    assert core.counts().bound == 1


@pytest.mark.parametrize("octets", [0, 1, 256, 1400])
def test_an_identifier_too_short_or_too_long_is_ignored(octets: int) -> None:
    """What one option cannot hold is not kept with the lease; the client is known by its MAC then."""
    core = server()
    client = Phone(core, client_id=b"\xff" * octets)
    address = client.join(0.0)
    lease = core.lease_of_mac(client.mac)
    assert lease is not None
    assert lease.client_id == b"\x01" + client.mac
    client.client_id = b"\xff" * 255
    assert client.join(1.0) == address
    assert lease.client_id == client.client_id


def test_a_client_with_a_new_mac_finds_its_old_address_by_its_identifier() -> None:
    """A phone that changes its MAC gets the address of its ended lease back; while the lease lives it does not."""
    core = server()
    client = phone(core, 1)
    client.client_id = b"\xffstable"
    phone(core, 9).join(0.0)
    address = client.join(0.0)
    changed = phone(core, 2)
    changed.client_id = client.client_id
    assert only_reply(changed.discover(1.0)).yiaddr != address
    core.tick(10.0)
    client.release(address, 10.0)
    assert only_reply(changed.discover(11.0)).yiaddr == address


def test_a_client_that_takes_another_servers_offer_frees_ours() -> None:
    """A request with a foreign server identifier is the end of our offer (RFC 2131 §3.1)."""
    core = server()
    client = Phone(core)
    offered = only_reply(client.discover(0.0)).yiaddr
    assert client.select(offered, 1.0, server_id=ip("10.41.0.250")) == []
    assert core.counts().offered == 0
    assert core.counts().free == 10


def test_release_ends_the_lease_and_the_client_gets_the_address_again() -> None:
    """The hub hears of it at once; a later visit finds the same address."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    assert ended(client.release(address, 5.0)) == [(client.mac, "10.41.0.10", "released")]
    assert core.lease_of_address(TEN) is None
    phone(core, 2).join(6.0)
    assert client.join(7.0) == address


def test_a_release_of_something_else_changes_nothing() -> None:
    """A wrong address, another server's identifier, or a second time: counted, nothing ends."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    client.release(address + 1, 1.0)
    client.send(client.message(MessageType.RELEASE, ciaddr=address, server_id=ip("10.41.0.9")), 1.0)
    assert core.counts().bound == 1
    client.release(address, 2.0)
    client.release(address, 3.0)
    assert refusals(core) == {"not_its_lease": 3}


def test_a_declined_address_is_set_aside() -> None:
    """The hub hears that the lease is over, the address rests for the quarantine, the client gets another."""
    core = server()
    client = Phone(core)
    address = client.join(0.0)
    assert ended(client.decline(address, 1.0)) == [(client.mac, "10.41.0.10", "declined")]
    assert core.counts().quarantined == 1
    others = {phone(core, number).join(2.0) for number in range(2, 11)}
    assert address not in others
    assert len(others) == 9
    assert replies(client.discover(3.0)) == []
    core.tick(601.0)
    assert only_reply(client.discover(602.0)).yiaddr == address


def test_declining_everything_does_not_empty_the_pool() -> None:
    """At most four of ten addresses are set aside at once, whoever declines."""
    core = server()
    for number in range(50):
        client = phone(core, number)
        client.decline(client.join(number / 10), number / 10)
    assert core.counts().quarantined == 4
    assert core.counts().free == 6


def test_only_the_holder_can_decline() -> None:
    """An address of somebody else, or of nobody, is not set aside."""
    core = server()
    owner = phone(core, 1)
    address = owner.join(0.0)
    thief = phone(core, 2)
    thief.decline(address, 1.0)
    thief.decline(ip("10.41.0.19"), 1.0)
    assert core.counts().quarantined == 0
    assert refusals(core) == {"not_its_lease": 2}


def test_inform_is_answered_without_touching_leases() -> None:
    """A client with a static address gets parameters by unicast; no lease begins, none is changed."""
    core = server()
    client = Phone(core)
    (answer,) = client.inform(ip("10.41.0.99"), 0.0)
    assert isinstance(answer, SendReply)
    assert answer.destination == ToClient(bytes(client.mac), ip("10.41.0.99"))
    assert answer.message.yiaddr == 0
    assert Option.LEASE_TIME not in answer.message.options
    assert core.counts().bound == core.counts().offered == 0


def test_a_client_that_asks_for_broadcast_gets_broadcast() -> None:
    """Some clients cannot take unicast before they have an address."""
    client = Phone(server(), flags=BROADCAST_FLAG)
    (offered,) = client.discover(0.0)
    assert isinstance(offered, SendReply)
    assert offered.destination == ToEveryone()


def test_a_wish_is_granted_if_it_is_free() -> None:
    """Option 50 in DISCOVER is a hint; what cannot be granted is passed over in silence."""
    core = server()
    assert only_reply(phone(core, 1).discover(0.0, requested_address=ip("10.41.0.17"))).yiaddr == ip("10.41.0.17")
    for number, wish in enumerate(("10.41.0.17", "10.41.0.1", "192.0.2.1"), start=2):
        offered = only_reply(phone(core, number).discover(0.0, requested_address=ip(wish))).yiaddr
        assert offered != ip(wish)
        assert IPv4Address(offered) in Ipv4Range.parse("10.41.0.10-10.41.0.19")


# Reservations


def test_a_reserved_address_goes_to_its_mac_and_to_nobody_else() -> None:
    """Whatever the client wishes for, and however empty or full the pool is."""
    core = server(NO_PROBE, RESERVED)
    taken = {phone(core, number).join(0.0) for number in range(9)}
    assert int(RESERVED.address) not in taken
    assert len(taken) == 9
    assert replies(phone(core, 10).discover(1.0)) == []
    television = Phone(core, TELEVISION, extra={Option.PARAMETER_LIST: bytes((12, 3))})
    offered = only_reply(television.discover(2.0, requested_address=ip("10.41.0.12")))
    assert offered.yiaddr == int(RESERVED.address)
    assert offered.options[Option.HOST_NAME] == b"television"


def test_a_reservation_may_lie_outside_the_pool() -> None:
    """An operator keeps servers below the pool."""
    core = server(NO_PROBE, replace(RESERVED, address=IPv4Address("10.41.0.5")))
    assert Phone(core, TELEVISION).join(0.0) == ip("10.41.0.5")
    assert only_reply(phone(core, 1).reboot(ip("10.41.0.5"), 1.0)).kind is MessageType.NAK


def test_a_reservation_in_another_zone_does_not_concern_us() -> None:
    """Reservations hold in their zone only."""
    core = server(NO_PROBE, replace(RESERVED, zone="staff"))
    assert Phone(core, TELEVISION).join(0.0) == int(TEN)


def test_a_declined_reservation_falls_back_to_the_pool() -> None:
    """A client whose reserved address is in use elsewhere gets another rather than nothing."""
    core = server(NO_PROBE, RESERVED)
    television = Phone(core, TELEVISION)
    television.decline(television.join(0.0), 0.0)
    address = television.join(1.0)
    assert address == int(TEN)
    assert replies(television.renew(address, 100.0))[0].kind is MessageType.ACK
    core.tick(700.0)
    assert only_reply(television.renew(address, 701.0)).kind is MessageType.NAK
    assert ended(television.discover(702.0)) == [(TELEVISION, "10.41.0.10", "replaced")]


def test_an_expired_reservation_is_no_prey() -> None:
    """A full pool does not feed on the reserved addresses of clients that are away."""
    core = server(NO_PROBE, RESERVED)
    Phone(core, TELEVISION).join(0.0)
    core.tick(3600.0)
    given = [replies(phone(core, number).discover(3600.0)) for number in range(12)]
    assert int(RESERVED.address) not in {reply[0].yiaddr for reply in given if reply}


# Attacks


def test_starvation_takes_nothing_from_bound_clients() -> None:
    """Ten thousand rotating MACs fill the pool; who is bound renews, reboots and keeps its address throughout."""
    core = server(replace(NO_PROBE, new_client_rate=5.0, new_client_burst=5))
    owners = {number: phone(core, number).join(number * 1.0) for number in range(5)}
    for attempt in range(10_000):
        now = 10 + attempt / 1000
        attacker = phone(core, 1000 + attempt)
        offers = replies(attacker.discover(now))
        if offers:
            attacker.select(offers[0].yiaddr, now)
    for number, address in owners.items():
        owner = phone(core, number)
        assert replies(owner.renew(address, 30.0))[0].kind is MessageType.ACK
        assert replies(owner.reboot(address, 31.0))[0].kind is MessageType.ACK
        assert only_reply(owner.discover(32.0)).yiaddr == address
    assert core.counts().refusals["new_client_rate"] > 9000


def test_a_flood_of_discovers_alone_leaves_room_for_who_asks_again() -> None:
    """Offers that nobody takes go to who repeats itself: an honest client gets an address in the middle of it."""
    core = server()
    honest = phone(core, 1)
    for attempt in range(500):
        phone(core, 1000 + attempt).discover(attempt / 100)
        if attempt == 200:
            assert replies(honest.discover(2.0)) == []
    address = only_reply(honest.discover(5.0)).yiaddr
    assert isinstance(honest.select(address, 5.01)[0], LeaseBound)


def test_one_client_cannot_keep_the_server_busy() -> None:
    """Beyond its burst a client's messages are dropped; another is served."""
    core = server()
    client = phone(core, 1)
    assert sum(bool(replies(client.discover(0.0))) for _ in range(100)) == 12
    assert refusals(core) == {"client_rate": 88}
    assert replies(phone(core, 2).discover(0.0)) != []
    assert replies(client.discover(1.0)) != []


def test_a_refusal_is_reported_once_a_minute_and_always_counted() -> None:
    """One line per source and minute, whatever its reasons."""
    core = server()
    client = Phone(core)
    wrong = client.message(MessageType.RELEASE, ciaddr=5)
    reports = [client.send(wrong, now) for now in (0.0, 20.0, 40.0, 61.0)]
    assert [[type(action) for action in actions] for actions in reports] == [[ReportRefusal], [], [], [ReportRefusal]]
    assert refusals(core) == {"not_its_lease": 4}


def test_what_cannot_be_read_is_counted_and_reported() -> None:
    """The shell's decoder failed; the core decides whether that deserves a line."""
    core = server()
    (report,) = core.receive(PacketUnreadable(b"\x02\0\0\0\0\x01", "no cookie"), 0.0)
    assert report == ReportRefusal(MacAddress(b"\x02\0\0\0\0\x01"), "malformed", "no cookie")
    assert core.receive(PacketUnreadable(b"\x02\0\0\0\0\x01", "no cookie"), 1.0) == []
    assert refusals(core) == {"malformed": 2}


def test_blocked_clients_get_nothing() -> None:
    """A MAC on the zone's block list is not answered."""
    client = MacAddress.parse("02:00:5e:10:00:01")
    core = server(block_macs=(client,))
    assert replies(Phone(core, client).discover(0.0)) == []
    assert refusals(core) == {"blocked": 1}


def test_messages_that_make_no_sense_are_refused() -> None:
    """Answers sent to the server, foreign hardware, group addresses, requests for nothing: counted and dropped."""
    core = server()
    client = Phone(core)
    good = client.message(MessageType.DISCOVER)
    group = b"\x01\0\0\0\0\x01"
    for message, source in (
        (replace(good, op=Op.REPLY), bytes(client.mac)),
        (replace(good, kind=MessageType.ACK), bytes(client.mac)),
        (replace(good, htype=32), bytes(client.mac)),
        (replace(good, hlen=16), bytes(client.mac)),
        (replace(good, chaddr=group + bytes(10)), group),
        (replace(good, chaddr=bytes(16)), bytes(6)),
        (client.message(MessageType.REQUEST), bytes(client.mac)),
        (client.message(MessageType.INFORM), bytes(client.mac)),
    ):
        assert replies(client.send(message, 0.0, source)) == []
    assert refusals(core) == {"not_a_request": 2, "hardware": 4, "malformed": 2}


def test_a_full_pool_is_said_and_survived() -> None:
    """With every address bound a newcomer gets no answer, and the first address that ends."""
    core = server()
    clients = [phone(core, number) for number in range(10)]
    addresses = [client.join(0.0) for client in clients]
    newcomer = phone(core, 99)
    (report,) = newcomer.discover(1.0)
    assert isinstance(report, ReportRefusal)
    assert report.reason == "pool_exhausted"
    clients[3].release(addresses[3], 2.0)
    assert newcomer.join(3.0) == addresses[3]


# Relays


def test_a_relayed_client_is_answered_through_its_relay() -> None:
    """chaddr is not the frame's MAC there; option 82 comes back; the reply goes to giaddr."""
    core = server(relays=(RELAY,))
    client = Phone(core, giaddr=int(RELAY), extra={Option.RELAY_AGENT: b"\x01\x04port"})
    relay_mac = b"\x02\0\0\0\0\x05"
    (offered,) = client.send(client.message(MessageType.DISCOVER), 0.0, relay_mac)
    assert isinstance(offered, SendReply)
    assert offered.destination == ToRelay(int(RELAY))
    assert offered.message.options[Option.RELAY_AGENT] == b"\x01\x04port"
    assert replies(client.send(client.message(MessageType.DISCOVER), 0.0, relay_mac))[0].giaddr == int(RELAY)


@pytest.mark.parametrize("giaddr", ["10.41.0.6", "10.41.0.12", "10.41.0.1", "10.42.0.5", "10.41.0.255", "127.0.0.1"])
def test_a_relay_that_is_not_configured_is_refused(giaddr: str) -> None:
    """Any guest can write a giaddr, and would pass for others so."""
    core = server(relays=(RELAY,))
    assert replies(Phone(core, giaddr=ip(giaddr)).discover(0.0)) == []
    assert refusals(core) == {"unknown_relay": 1}


def test_there_is_no_relay_unless_one_is_configured() -> None:
    """A guest that forges a giaddr and invents client after client gets nothing of the pool."""
    core = server()
    guest = phone(core, 1)
    for number in range(100, 200):
        invented = Phone(core, phone(core, number).mac, giaddr=int(RELAY))
        assert replies(invented.send(invented.message(MessageType.DISCOVER), 0.0, bytes(guest.mac))) == []
    assert refusals(core) == {"unknown_relay": 100}
    assert core.counts().free == 10


def test_a_relay_within_the_pool_keeps_its_address() -> None:
    """No client is given the address that the relay has."""
    core = server(relays=(IPv4Address("10.41.0.12"),))
    assert ip("10.41.0.12") not in {phone(core, number).join(0.0) for number in range(9)}
    assert core.counts().free == 0


def test_a_forged_relay_cannot_end_a_lease_of_our_own_link() -> None:
    """Not by release or decline, not by renewing through the relay first, not by using up the client's rate."""
    core = server(relays=(RELAY,))
    owner = Phone(core)
    address = owner.join(0.0)
    forged = Phone(core, owner.mac, giaddr=int(RELAY), extra={Option.LEASE_TIME: (120).to_bytes(4, "big")})
    for _ in range(50):
        forged.renew(address, 1.0)
        forged.release(address, 1.0)
        forged.decline(address, 1.0)
    lease = core.lease_of_address(TEN)
    assert lease is not None
    assert lease.expires_at == 3600.0
    assert replies(owner.renew(address, 1.0))[0].kind is MessageType.ACK


# Restart, reload, operator


def test_leases_survive_a_restart() -> None:
    """What one run kept, the next gives back: same address, remaining time, name and identifier."""
    core = server()
    client = Phone(core, client_id=b"\x01abc", extra={Option.HOST_NAME: b"phone"})
    address = client.join(1000.0)
    kept = core.record(client.mac, 1600.0)
    assert kept == LeaseRecord("guest", client.mac, b"\x01abc", TEN, 3000.0, "phone")
    assert core.snapshot(1600.0) == (kept,)
    again = server()
    assert again.restore([LeaseRecord.from_record(kept.to_record())], 5.0) == []
    client.server = again
    assert again.deadline() is not None
    assert replies(client.renew(address, 6.0))[0].kind is MessageType.ACK
    assert only_reply(phone(again, 2).reboot(address, 6.0)).kind is MessageType.NAK


def test_records_that_no_longer_fit_are_dropped_and_said() -> None:
    """Outside the pool now, reserved for another now, run out, or double; another zone's are not ours to judge."""

    def record(number: int, address: str, remaining_s: float = 100.0, zone: str = "guest") -> LeaseRecord:
        return LeaseRecord(zone, phone(core, number).mac, b"", IPv4Address(address), remaining_s)

    core = server(NO_PROBE, RESERVED)
    records = [
        record(1, "10.41.0.99"),
        record(2, "10.41.0.15"),
        record(3, "10.41.0.11", remaining_s=-1.0),
        record(4, "10.41.0.12"),
        record(5, "10.41.0.12"),
        record(4, "10.41.0.13"),
        record(6, "10.41.0.14", zone="staff"),
        record(7, "10.41.0.1"),
    ]
    assert [(int(mac[-1]), address, reason) for mac, address, reason in ended(core.restore(records, 0.0))] == [
        (1, "10.41.0.99", "removed"),
        (2, "10.41.0.15", "removed"),
        (3, "10.41.0.11", "expired"),
        (5, "10.41.0.12", "removed"),
        (4, "10.41.0.13", "removed"),
        (7, "10.41.0.1", "removed"),
    ]
    assert [lease.address for lease in core.leases()] == [IPv4Address("10.41.0.12")]


def test_reload_keeps_what_fits() -> None:
    """A smaller pool and a new reservation end the leases in their way, and no others."""
    core = server()
    clients = {number: phone(core, number) for number in range(10)}
    addresses = {number: client.join(0.0) for number, client in clients.items()}
    smaller = replace(ZONE, pool=Ipv4Range.parse("10.41.0.10-10.41.0.17"), lease_time=7200)
    actions = core.reconfigure(smaller, NO_PROBE, (RESERVED,), 10.0)
    assert sorted(address for _, address, reason in ended(actions) if reason == "removed") == [
        "10.41.0.15",
        "10.41.0.18",
        "10.41.0.19",
    ]
    for number in (0, 4, 6, 7):
        fact = clients[number].renew(addresses[number], 20.0)[0]
        assert isinstance(fact, LeaseBound)
        assert fact.renewed
        assert fact.expires_at == 7220.0
    assert only_reply(clients[8].renew(addresses[8], 20.0)).kind is MessageType.NAK


def test_reload_keeps_quarantine_and_memory() -> None:
    """Addresses set aside stay so; a client that left finds its old address."""
    core = server()
    away, unlucky = phone(core, 1), phone(core, 2)
    address = away.join(0.0)
    away.release(address, 1.0)
    unlucky.decline(unlucky.join(1.0), 1.0)
    core.reconfigure(ZONE, NO_PROBE, (), 2.0)
    assert core.counts().quarantined == 1
    assert core.counts().former == 1
    assert away.join(3.0) == address


def test_a_reload_that_cannot_be_leaves_everything_as_it_was() -> None:
    """A prefix without room raises, and the server serves on."""
    core = server()
    address = Phone(core).join(0.0)
    with pytest.raises(ValueError, match="no room"):
        core.reconfigure(replace(ZONE, pool=None, address=IPv4Interface("10.41.0.1/32")), NO_PROBE, (), 1.0)
    assert replies(Phone(core).renew(address, 2.0))[0].kind is MessageType.ACK


def test_an_operator_ends_a_lease() -> None:
    """The hub hears of it; a client without a lease is nothing to end."""
    core = server()
    client = Phone(core)
    client.join(0.0)
    assert ended(core.release(client.mac, 1.0)) == [(client.mac, "10.41.0.10", "removed")]
    assert core.release(client.mac, 1.0) == []


def test_a_late_tick_does_not_let_a_dead_lease_live() -> None:
    """A message that arrives after the end, before the timer fired, meets the table as of its own time."""
    core = server()
    owner = phone(core, 1)
    address = owner.join(0.0)
    actions = phone(core, 2).discover(4000.0)
    assert ended(actions) == [(owner.mac, str(IPv4Address(address)), "expired")]


def test_messages_are_counted_by_type() -> None:
    """What the predecessor's metric tells."""
    core = server()
    client = Phone(core)
    client.renew(client.join(0.0), 1.0)
    counts = core.counts()
    assert (counts.requests["discover"], counts.requests["request"], counts.requests["release"]) == (1, 2, 0)
    assert (counts.replies["offer"], counts.replies["ack"]) == (1, 2)
    assert (counts.pool_size, counts.free, counts.bound) == (10, 9, 1)


def test_the_gateway_is_named_as_server() -> None:
    """Option 54 is the zone's own address in every reply."""
    client = Phone(server())
    assert only_reply(client.discover(0.0)).options[Option.SERVER_ID] == GATEWAY.packed
