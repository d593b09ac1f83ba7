"""The addresses of a zone that may be given out: which are taken, and which is next.

Knows bits, not leases. One octet per address, searched with `bytearray.find`: 64 KB and a microsecond for a whole /16,
where a list of free addresses would cost megabytes. The search goes round, so that a returned address rests for as long
as possible before a stranger gets it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.addresses import Ipv4Range
from gateway.config import Reservation, Zone

_FREE: Final = 0
_TAKEN: Final = 1
_WITHHELD: Final = 2


class AddressPool:
    """A range of addresses (as integers), some of them withheld for good."""

    def __init__(self, addresses: Ipv4Range, withheld: Iterable[int] = ()) -> None:
        self._first = int(addresses.first)
        self._marks = bytearray(len(addresses))
        for address in withheld:
            if 0 <= address - self._first < len(self._marks):
                self._marks[address - self._first] = _WITHHELD
        self._cursor = 0
        self.free = self.size = self._marks.count(_FREE)  # what may be given out: now, and when nothing is taken

    def __contains__(self, address: int) -> bool:
        """Whether the address may be given to any client: in the range and not withheld."""
        index = address - self._first
        return 0 <= index < len(self._marks) and self._marks[index] != _WITHHELD

    def is_free(self, address: int) -> bool:
        """Whether the address may be taken now."""
        index = address - self._first
        return 0 <= index < len(self._marks) and self._marks[index] == _FREE

    def take(self, address: int) -> None:
        """Mark an address as in use; one outside the pool or withheld (a reservation) is nothing to the pool."""
        if address in self:
            index = address - self._first
            assert self._marks[index] == _FREE, "an address was taken twice"
            self._marks[index] = _TAKEN
            self.free -= 1

    def give_back(self, address: int) -> None:
        """Mark an address as free again; the counterpart of `take`."""
        if address in self:
            index = address - self._first
            assert self._marks[index] == _TAKEN, "an address was given back twice"
            self._marks[index] = _FREE
            self.free += 1

    def next_free(self) -> int | None:
        """The free address that follows the one found last, going round; None when all are taken."""
        if self.free == 0:
            return None
        index = self._marks.find(_FREE, self._cursor)
        if index < 0:
            index = self._marks.find(_FREE)
        self._cursor = index + 1
        return self._first + index


def zone_range(zone: Zone) -> Ipv4Range:
    """The range a zone gives out: its `pool`, else the prefix after the gateway's address (or before, if that is last).

    Raises ValueError if the prefix has no room for a client.
    """
    if zone.pool is not None:
        return zone.pool
    network = zone.address.network
    gateway = zone.address.ip
    if network.num_addresses < 4:
        raise ValueError(f"zone {zone.name}: the prefix {network} has no room for clients; make it a /30 or larger")
    last = network.broadcast_address - 1
    if gateway < last:
        return Ipv4Range(gateway + 1, last)
    return Ipv4Range(network.network_address + 1, gateway - 1)


def withheld_addresses(zone: Zone, reservations: Iterable[Reservation]) -> frozenset[int]:
    """Addresses that no client gets from the pool: ours, those of servers and relays, reserved ones, both ends."""
    network = zone.address.network
    ends = (network.network_address, network.broadcast_address)
    reserved = (reservation.address for reservation in reservations)
    return frozenset(map(int, (zone.address.ip, *ends, *zone.dns_servers, *zone.ntp_servers, *zone.relays, *reserved)))


def build_pool(zone: Zone, reservations: Iterable[Reservation]) -> AddressPool:
    """The pool of a zone; addresses of its range that lie outside the zone's prefix are left out."""
    addresses = zone_range(zone)
    network = zone.address.network
    first = max(addresses.first, network.network_address)
    last = min(addresses.last, network.broadcast_address)
    if last < first:
        raise ValueError(f"zone {zone.name}: the pool {addresses} lies outside the prefix {network}")
    return AddressPool(Ipv4Range(first, last), withheld_addresses(zone, reservations))
