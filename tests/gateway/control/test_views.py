"""Rows of plain values for the control socket."""

from __future__ import annotations

from ipaddress import IPv4Address

from gateway.addresses import MacAddress
from gateway.control.views import lease_row
from gateway.dhcp.listing import AddressRow

MAC = MacAddress.parse("02:00:5e:10:00:2a")


def test_an_address_row_tells_the_time_left_in_whole_seconds() -> None:
    """Never below zero, though the timer may be late."""
    row = AddressRow(IPv4Address("10.41.0.20"), MAC, "bound", 100.0, "phone", b"\x01ab")
    assert lease_row(row, "guest", 40.5) == {
        "zone": "guest",
        "ip": "10.41.0.20",
        "mac": "02:00:5e:10:00:2a",
        "hostname": "phone",
        "client_id": "01:61:62",
        "expires_in_s": 59,
        "state": "bound",
    }
    assert lease_row(row, "guest", 101.0)["expires_in_s"] == 0


def test_what_an_address_does_not_have_is_null() -> None:
    """One in quarantine is nobody's, one that is only reserved has no end."""
    aside = lease_row(AddressRow(IPv4Address("10.41.0.20"), None, "quarantined", 9.0), "guest", 0.0)
    reserved = lease_row(AddressRow(IPv4Address("10.41.0.20"), MAC, "reserved", None), "guest", 0.0)
    assert (aside["mac"], aside["expires_in_s"]) == (None, 9)
    assert (reserved["mac"], reserved["expires_in_s"]) == (str(MAC), None)
