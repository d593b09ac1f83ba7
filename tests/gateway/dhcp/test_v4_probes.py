"""Probing by ARP before an address is offered for the first time (RFC 5227)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from gateway.addresses import Ipv4Range
from gateway.config import Dhcp
from gateway.dhcp.v4_codec import MessageType
from gateway.dhcp.v4_events import AddressSeen, DhcpAction, SendProbe
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound
from tests.gateway.dhcp.conversation import ZONE, Phone, ip, only_reply, phone, replies

SETTINGS = Dhcp(probe=True, probe_timeout=0.3)
SQUATTER = b"\x02\x99\x99\x99\x99\x99"
TEN = ip("10.41.0.10")


def server() -> DhcpServer:
    """A server that probes."""
    return DhcpServer(ZONE, SETTINGS)


def settle(core: DhcpServer, now: float) -> list[DhcpAction]:
    """Let the time pass up to `now`, the way a shell's timer does; what was ordered meanwhile."""
    actions: list[DhcpAction] = []
    while (due := core.deadline()) is not None and due <= now:
        actions += core.tick(due)
    return actions


def test_a_new_address_is_asked_for_twice_and_then_offered() -> None:
    """Two questions within the probe time; silence means free."""
    core = server()
    client = Phone(core)
    assert client.discover(10.0) == [SendProbe(TEN)]
    assert core.is_probing(TEN)
    assert core.deadline() == 10.15
    assert core.tick(10.15) == [SendProbe(TEN)]
    offered = only_reply(core.tick(10.31))
    assert (offered.kind, offered.yiaddr, offered.xid) == (MessageType.OFFER, TEN, client.xid)
    assert core.probing == 0
    assert isinstance(client.select(TEN, 10.4)[0], LeaseBound)


def test_a_repeated_discover_waits_for_the_same_probe() -> None:
    """No second question; the offer answers the later message."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    assert client.discover(0.1) == []
    core.tick(0.15)
    assert only_reply(core.tick(0.31)).xid == client.xid


def test_a_used_address_is_set_aside_and_the_next_one_tried() -> None:
    """The answer of a squatter costs the client one more probe, not its address."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    assert core.receive(AddressSeen(TEN, SQUATTER), 0.05) == [SendProbe(TEN + 1)]
    assert core.counts().quarantined == 1
    core.tick(0.2)
    assert only_reply(core.tick(0.5)).yiaddr == TEN + 1


def test_after_three_used_addresses_the_client_is_left_to_ask_again() -> None:
    """A host that answers for everything does not make us walk the whole pool for one message."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    for number in (TEN, TEN + 1, TEN + 2):
        actions = core.receive(AddressSeen(number, SQUATTER), 0.1)
    assert replies(actions) == []
    assert core.probing == 0
    assert core.counts().refusals == {"address_in_use": 1}
    assert client.discover(4.0) == [SendProbe(TEN + 3)]


def test_an_answer_from_the_client_itself_is_no_conflict() -> None:
    """It still uses the address it had before we lost our state."""
    core = server()
    client = Phone(core)
    assert client.reboot(TEN, 0.0) == [SendProbe(TEN)]
    assert core.receive(AddressSeen(TEN, bytes(client.mac)), 0.1) == []
    core.tick(0.15)
    fact, _ = core.tick(0.31)
    assert isinstance(fact, LeaseBound)


def test_a_remembered_address_in_use_by_another_is_refused() -> None:
    """INIT-REBOOT without a record, and somebody else has the address: NAK."""
    core = server()
    client = Phone(core)
    client.reboot(TEN, 0.0)
    assert only_reply(core.receive(AddressSeen(TEN, SQUATTER), 0.1)).kind is MessageType.NAK
    assert core.counts().quarantined == 1


def test_known_clients_do_not_wait() -> None:
    """Who is bound, or was, gets its address offered at once."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    settle(core, 1.0)
    client.select(TEN, 1.0)
    assert only_reply(client.discover(100.0)).yiaddr == TEN
    settle(core, 5000.0)
    assert core.counts().former == 1
    assert only_reply(client.discover(5000.0)).yiaddr == TEN


def test_an_address_found_free_lately_is_not_asked_for_again() -> None:
    """An offer that nobody took leaves a known free address for five minutes; after a lease it is asked for again."""
    core = server()
    phone(core, 1).discover(0.0)
    settle(core, 20.0)
    second = phone(core, 2)
    assert only_reply(second.discover(21.0, requested_address=TEN)).yiaddr == TEN
    settle(core, 40.0)
    third = phone(core, 3)
    assert third.discover(400.0, requested_address=TEN) == [SendProbe(TEN)]
    settle(core, 401.0)
    third.select(TEN, 401.0)
    third.decline(TEN, 402.0)
    settle(core, 1100.0)
    assert phone(core, 4).discover(1100.0, requested_address=TEN) == [SendProbe(TEN)]


def test_many_addresses_are_asked_for_at_once() -> None:
    """Ten clients that arrive together wait together, not one after the other."""
    core = server()
    clients = [phone(core, number) for number in range(10)]
    for client in clients:
        client.discover(0.0)
    assert core.counts().probing == 10
    core.tick(0.15)
    assert {reply.yiaddr for reply in replies(core.tick(0.31))} == set(range(TEN, TEN + 10))


def test_relayed_clients_are_not_probed_for() -> None:
    """ARP does not reach beyond a relay."""
    core = DhcpServer(replace(ZONE, relays=(IPv4Address("10.41.0.5"),)), SETTINGS)
    client = Phone(core, giaddr=ip("10.41.0.5"))
    assert only_reply(client.discover(0.0)).kind is MessageType.OFFER


def test_a_full_pool_takes_no_address_from_a_client_that_waits_for_its_probe() -> None:
    """Whoever comes late is refused; all that came first hear their offer. Late is served when it asks again."""
    core = server()
    clients = [phone(core, number) for number in range(10)]
    for client in clients:
        client.discover(0.0)
    late = phone(core, 99)
    assert replies(late.discover(0.1)) == []
    assert core.counts().refusals == {"pool_exhausted": 1}
    assert core.probing == 10
    core.tick(0.15)
    assert len(replies(core.tick(0.31))) == 10
    assert replies(late.discover(1.2)) == []
    assert only_reply(late.discover(1.4)).kind is MessageType.OFFER


def test_a_flood_below_the_limit_starves_neither_the_bound_nor_a_newcomer_that_repeats_itself() -> None:
    """200 DISCOVERs a second from ever new MACs, a pool of fifty, a minute: a client that retries gets its address."""
    core = DhcpServer(replace(ZONE, pool=Ipv4Range.parse("10.41.0.10-10.41.0.59")), SETTINGS)
    owner = phone(core, 1)
    owner.discover(0.0)
    address = only_reply(settle(core, 1.0)).yiaddr
    owner.select(address, 1.0)
    honest = phone(core, 2)
    retries = [10.0, 13.5, 20.0, 31.0, 45.0]  # as dhclient repeats itself
    offers, joined_at = 0, None
    for attempt in range(12_000):
        now = 2.0 + attempt / 200
        actions = [*settle(core, now), *phone(core, 1000 + attempt).discover(now)]
        if joined_at is None and retries and now >= retries[0]:
            retries.pop(0)
            actions += honest.discover(now)
        for reply in replies(actions):
            offers += 1
            if reply.chaddr[:6] == honest.mac:
                assert isinstance(honest.select(reply.yiaddr, now)[0], LeaseBound)
                joined_at = now
        if attempt % 2000 == 0:
            assert replies(owner.renew(address, now))[0].kind is MessageType.ACK
    assert offers > 300
    assert joined_at is not None
    assert joined_at <= 20.0  # the third question at the latest


def test_a_probe_whose_offer_was_given_up_is_forgotten() -> None:
    """A client that takes another server's offer meanwhile ends ours, and no answer to its probe is heard."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    client.select(TEN, 0.1, server_id=ip("10.41.0.250"))
    assert core.receive(AddressSeen(TEN, SQUATTER), 0.12) == []
    assert settle(core, 1.0) == []
    assert core.counts().free == 10


def test_a_stalled_shell_does_not_confuse_the_server() -> None:
    """Ticked only after offers and probes are long over, it neither fails nor offers a dead offer's address twice."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    late = settle(core, 100.0)
    assert core.probing == 0
    core.tick(200.0)
    assert core.counts().free + core.counts().offered == 10
    assert all(isinstance(action, SendProbe) or replies([action]) for action in late)
    stalled = server()
    Phone(stalled).discover(0.0)
    stalled.tick(100.0)
    stalled.tick(200.0)
    assert stalled.counts().free == 10
    assert stalled.probing == 0


def test_a_reload_drops_probes_and_their_clients_ask_again() -> None:
    """Nothing of the former configuration is offered later."""
    core = server()
    client = Phone(core)
    client.discover(0.0)
    core.reconfigure(replace(ZONE, lease_time=600), SETTINGS, (), 0.1)
    assert core.tick(1.0) == []
    assert client.discover(1.0) == [SendProbe(ip("10.41.0.10"))]
    assert core.lease_of_address(IPv4Address(TEN)) is None
