"""The addresses of a zone that are given out or spoken for, for people to look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Literal

from gateway.addresses import MacAddress
from gateway.config import Reservation
from gateway.dhcp.leases import LeaseState, LeaseTable
from gateway.values import value_class

AddressState = Literal["bound", "offered", "quarantined", "reserved"]


@value_class
class AddressRow:
    """One address that a stranger would not get now."""

    address: IPv4Address
    mac: MacAddress | None  # None: nobody's, set aside after a conflict
    state: AddressState
    until: float | None  # seconds on the monotonic clock; None: reserved, which has no end
    hostname: str = ""
    client_id: bytes = b""


def address_rows(table: LeaseTable, reservations: Iterable[Reservation]) -> list[AddressRow]:
    """Leases, open offers, addresses in quarantine, and reservations whose client is not here, by address.

    Former leases are left out: any client may get their addresses.
    """
    rows = {
        lease.address: AddressRow(
            lease.address,
            lease.key.mac,
            "bound" if lease.state is LeaseState.BOUND else "offered",
            lease.expires_at,
            lease.hostname,
            lease.client_id,
        )
        for lease in table
        if lease.state is not LeaseState.FORMER
    }
    for number, until in table.quarantines():
        address = IPv4Address(number)
        rows[address] = AddressRow(address, None, "quarantined", until)
    for item in reservations:
        rows.setdefault(item.address, AddressRow(item.address, item.mac, "reserved", None, item.hostname))
    return [rows[address] for address in sorted(rows)]
