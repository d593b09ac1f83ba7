"""The lease table and the record of a lease."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.addresses import Ipv4Range, MacAddress
from gateway.dhcp.leases import Lease, LeaseRecord, LeaseState, LeaseTable
from gateway.dhcp.pool import AddressPool
from gateway.session.model import ClientKey

FIRST = int(IPv4Address("10.41.0.10"))


def table(size: int = 4) -> LeaseTable:
    """A table over a pool of so many addresses."""
    return LeaseTable(AddressPool(Ipv4Range(IPv4Address(FIRST), IPv4Address(FIRST + size - 1))))


def key(number: int) -> ClientKey:
    """Client number so and so."""
    return ClientKey("guest", MacAddress(b"\x02\x00" + number.to_bytes(4, "big")))


def offer(leases: LeaseTable, client: int, now: float = 0.0) -> Lease | None:
    """Offer whatever address the table finds, for five seconds."""
    number = leases.find_address(now)
    return None if number is None else leases.offer(key(client), number, b"id%d" % client, 0, now + 5, now)


def bound(leases: LeaseTable, client: int, until: float, now: float = 0.0) -> Lease:
    """A live lease on whatever address the table finds."""
    lease = offer(leases, client, now)
    assert lease is not None
    leases.bind(lease, lease.client_id, 0, "", until, now)
    return lease


def test_an_offer_that_nobody_takes_is_gone_after_its_time() -> None:
    """The address is free again and the client unknown."""
    leases = table()
    lease = offer(leases, 1)
    assert lease is not None
    assert leases.next_due() == 5
    assert leases.expire(5) == []
    assert leases.of_mac(key(1).mac) is None
    assert leases.pool.free == 4


def test_a_lease_ends_at_its_time_and_is_remembered() -> None:
    """It becomes a former one: its client finds its address again, nobody else gets it while others are free."""
    leases = table()
    lease = bound(leases, 1, until=100)
    assert leases.expire(99.9) == []
    assert leases.expire(100) == [lease]
    assert lease.state is LeaseState.FORMER
    assert leases.of_mac(key(1).mac) is lease
    assert leases.former_of_client(b"id1") is lease


def test_a_renewed_lease_does_not_end_at_its_old_time() -> None:
    """Extending needs no search in the time order and holds."""
    leases = table()
    lease = bound(leases, 1, until=100)
    for now in range(50, 1000, 50):
        leases.bind(lease, b"id1", 0, "", now + 100, now)
        assert leases.expire(now) == []
    assert leases.expire(1050) == [lease]


def test_a_shortened_lease_ends_at_its_new_time() -> None:
    """A client that asks for less time the second time gets less."""
    leases = table()
    lease = bound(leases, 1, until=1000)
    leases.bind(lease, b"id1", 0, "", 120, 0)
    assert leases.expire(120) == [lease]


def test_a_full_table_takes_back_old_offers_then_the_longest_ended_but_no_lease() -> None:
    """Who needs an address least gives it up first; a bound lease never does."""
    leases = table(4)
    held = bound(leases, 1, until=1000)
    early, late = bound(leases, 2, until=10), bound(leases, 3, until=20)
    assert leases.expire(20) == [early, late]
    ignored = offer(leases, 4, now=20)
    assert ignored is not None
    assert leases.find_address(20.5) == early.number  # the offer is still young
    taken = leases.offer(key(5), early.number, b"id5", 0, 1000, 20.5)
    assert leases.find_address(21.5) == ignored.number
    leases.bind(leases.offer(key(6), ignored.number, b"id6", 0, 1000, 21.5), b"id6", 0, "", 1000, 21.5)
    leases.bind(taken, b"id5", 0, "", 1000, 21.5)
    assert leases.find_address(22) == late.number
    leases.bind(leases.offer(key(7), late.number, b"id7", 0, 1000, 22), b"id7", 0, "", 1000, 22)
    assert leases.find_address(500, asked_before=True) is None
    assert leases.of_mac(key(1).mac) is held


def test_an_offer_is_taken_back_neither_young_nor_while_it_is_probed_nor_for_a_first_question() -> None:
    """With nothing but offers left, a client gets the oldest of them the second time it asks."""
    leases = table(1)
    young = offer(leases, 1, now=0)
    assert young is not None
    assert leases.find_address(0.9, asked_before=True) is None
    assert leases.find_address(1.0) is None
    assert leases.find_address(1.0, asked_before=True, probed={young.number}) is None
    leases.renew_offer(young, b"id1", 0, 6, now=1.0)
    assert leases.find_address(1.0, asked_before=True) == young.number  # asking again makes it no younger
    sent = leases.offer(key(2), young.number, b"id2", 0, 6, now=1.0)
    leases.send_offer(sent, 7, now=1.5)
    assert leases.find_address(2.4, asked_before=True) is None
    assert leases.find_address(2.5, asked_before=True) == sent.number


def test_reserved_addresses_are_never_taken_back_for_others() -> None:
    """A lease outside the pool, a reservation's, is of no use to a stranger however full the pool is."""
    leases = table(1)
    reserved = leases.offer(key(1), FIRST + 50, b"id1", 0, 5, 0)
    bound(leases, 2, until=1000)
    assert leases.find_address(3, asked_before=True) is None
    leases.bind(reserved, b"id1", 0, "", 10, 3)
    leases.expire(10)
    assert leases.find_address(11) is None


def test_quarantine_ends_at_its_time() -> None:
    """An address set aside is not found, and comes back when its time is over."""
    leases = table(1)
    leases.quarantine(FIRST, 600, most=4)
    assert leases.find_address(0) is None
    assert leases.expire(599) == []
    assert leases.is_quarantined(FIRST)
    leases.expire(600)
    assert leases.find_address(600) == FIRST


def test_too_many_in_quarantine_bring_the_first_back() -> None:
    """The bound on addresses set aside holds."""
    leases = table(4)
    for offset in range(3):
        leases.quarantine(FIRST + offset, 600, most=2)
    assert not leases.is_quarantined(FIRST)
    assert leases.quarantined == 2
    assert leases.pool.free == 2


def test_the_time_order_does_not_grow_with_renewals() -> None:
    """A client that renews every second for a day leaves one entry, not 86,400."""
    leases = table(1)
    lease = bound(leases, 1, until=3600)
    for now in range(0, 86_400, 60):
        leases.bind(lease, b"id1", 0, "", now + 3600, now)
        leases.expire(now)
    assert len(leases._heap) == 1


def test_the_time_order_does_not_grow_with_joins_and_releases() -> None:
    """Nor does a client that comes and goes all day; every lease ends at its time all the same."""
    leases = table(2)
    lease = bound(leases, 1, until=3600)
    for now in range(0, 86_400, 10):
        leases.expire(now)
        leases.end(lease, now)
        leases.renew_offer(lease, b"id1", 0, now + 5, now)
        leases.bind(lease, b"id1", 0, "", now + 3600, now)
        leases.expire(now + 6)
    assert len(leases._heap) < 100
    other = bound(leases, 2, until=86_400 + 60, now=86_400)
    assert leases.expire(86_400 + 60) == [other]
    assert leases.expire(now + 3600) == [lease]


def test_a_record_round_trips_through_plain_values() -> None:
    """What the journal keeps is what comes back."""
    record = LeaseRecord("guest", key(1).mac, b"\x01id", IPv4Address("10.41.0.10"), 12.5, "phone")
    assert LeaseRecord.from_record(record.to_record()) == record
    relayed = LeaseRecord("guest", key(1).mac, b"", IPv4Address("10.41.0.10"), 3.0, "", IPv4Address("10.41.0.2"))
    assert LeaseRecord.from_record(relayed.to_record()) == relayed


@pytest.mark.parametrize(
    "change", [{"mac": b"\x02"}, {"address": b"123"}, {"zone": 7}, {"remaining_s": "soon"}, {"relay": b"1"}]
)
def test_a_damaged_record_is_refused(change: dict[str, object]) -> None:
    """A record of another shape raises ValueError, nothing else."""
    record: dict[str, object] = dict(LeaseRecord("guest", key(1).mac, b"", IPv4Address(FIRST), 1.0).to_record())
    with pytest.raises(ValueError):
        LeaseRecord.from_record(record | change)
    del record["zone"]
    with pytest.raises(ValueError, match="lease record"):
        LeaseRecord.from_record(record)
