"""The address pool: bits that are taken, given back, and searched going round."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Reservation, Zone
from gateway.dhcp.pool import AddressPool, build_pool, zone_range

FIRST = int(IPv4Address("10.41.0.10"))
RANGE = Ipv4Range(IPv4Address("10.41.0.10"), IPv4Address("10.41.0.19"))


def test_addresses_come_in_turn_and_return_last() -> None:
    """A returned address rests until the others have had their turn."""
    pool = AddressPool(RANGE)
    found = []
    for _ in range(3):
        number = pool.next_free()
        assert number is not None
        pool.take(number)
        found.append(number)
    assert found == [FIRST, FIRST + 1, FIRST + 2]
    pool.give_back(FIRST)
    assert pool.next_free() == FIRST + 3


def test_a_full_pool_says_so_and_finds_what_comes_back() -> None:
    """With every address taken there is none; the one given back is found again, wherever it lies."""
    pool = AddressPool(RANGE)
    for number in range(FIRST, FIRST + 10):
        pool.take(number)
    assert pool.next_free() is None
    pool.give_back(FIRST + 4)
    assert pool.next_free() == FIRST + 4


def test_withheld_addresses_never_appear() -> None:
    """Withheld addresses are neither free nor taken, whatever is done to them."""
    pool = AddressPool(RANGE, withheld=(FIRST, FIRST + 9, FIRST + 100))
    pool.take(FIRST)
    pool.give_back(FIRST)
    assert pool.size == pool.free == 8
    assert FIRST not in pool
    assert pool.next_free() == FIRST + 1


@given(st.lists(st.integers(FIRST - 2, FIRST + 12)))
def test_the_free_count_is_the_number_of_free_addresses(touched: list[int]) -> None:
    """Taking and giving back in any order keeps count and bits in agreement."""
    pool = AddressPool(RANGE, withheld=(FIRST + 3,))
    taken: set[int] = set()
    for number in touched:
        if number in taken:
            pool.give_back(number)
            taken.discard(number)
        elif pool.is_free(number):
            pool.take(number)
            taken.add(number)
    assert pool.free == pool.size - len(taken)
    assert {number for number in range(FIRST, FIRST + 10) if not pool.is_free(number)} == taken | {FIRST + 3}


def test_without_a_pool_the_prefix_after_the_gateway_is_used() -> None:
    """All addresses behind the gateway's, but not the broadcast address."""
    zone = Zone(name="guest", address=IPv4Interface("10.41.0.1/24"))
    assert str(zone_range(zone)) == "10.41.0.2-10.41.0.254"


def test_a_gateway_at_the_end_leaves_the_addresses_before_it() -> None:
    """With the gateway on the last address the pool is what lies before."""
    zone = Zone(name="guest", address=IPv4Interface("10.41.0.254/24"))
    assert str(zone_range(zone)) == "10.41.0.1-10.41.0.253"


def test_gateway_servers_reservations_and_ends_are_withheld() -> None:
    """A pool over the whole prefix still gives none of them to a stranger."""
    zone = Zone(
        name="guest",
        address=IPv4Interface("10.41.0.3/28"),
        pool=Ipv4Range.parse("10.41.0.0-10.41.0.255"),
        dns_servers=(IPv4Address("10.41.0.4"), IPv4Address("9.9.9.9")),
    )
    reservation = Reservation("tv", "guest", MacAddress(b"\x02" * 6), IPv4Address("10.41.0.5"))
    pool = build_pool(zone, (reservation,))
    base = int(IPv4Address("10.41.0.0"))
    assert [offset for offset in range(256) if pool.is_free(base + offset)] == [1, 2, *range(6, 15)]


@pytest.mark.parametrize(
    ("zone", "sentence"),
    [
        (Zone(name="guest", address=IPv4Interface("10.41.0.1/31")), "no room for clients"),
        (Zone(name="guest", pool=Ipv4Range.parse("10.9.0.1-10.9.0.9")), "outside the prefix"),
    ],
)
def test_a_prefix_without_room_is_refused_in_words(zone: Zone, sentence: str) -> None:
    """The operator reads which zone it is and what to do."""
    with pytest.raises(ValueError, match=sentence):
        build_pool(zone, ())
