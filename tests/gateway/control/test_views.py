"""Rows of plain values for the control socket."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.addresses import MacAddress
from gateway.control.views import SORTS, lease_row, matches, session_row
from gateway.dhcp.listing import AddressRow
from gateway.session.model import Counters
from tests.gateway.session.life import ALICE, BOB, Life, grant

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


@pytest.mark.parametrize("sort", list(SORTS))
def test_clients_are_ordered_by_everything_whether_online_or_not(sort: str) -> None:
    """One that is online, one that is held; no order raises, and the page has both."""
    life = Life()
    life.online(ALICE)
    life.lease(BOB)
    for reverse in (False, True):
        found = sorted(life.machine.sessions, key=SORTS[sort], reverse=reverse)
        assert {session.key for session in found} == {ALICE, BOB}


def test_names_come_before_those_who_have_none() -> None:
    """Held clients have no user, and stand last."""
    life = Life()
    life.lease(BOB)
    life.online(ALICE)
    assert [session.key for session in sorted(life.machine.sessions, key=SORTS["username"])] == [ALICE, BOB]


@pytest.mark.parametrize("search", ["alice", "ALI", "10.41.0.1", ".41.", "5e:10:00:01", "005e10", "02-00-5E", ""])
def test_a_client_is_found_by_part_of_what_is_shown_of_it(search: str) -> None:
    """Name, address, MAC in any spelling."""
    life = Life()
    life.online(ALICE)
    (session,) = life.machine.sessions
    assert matches(session, search)
    assert not matches(session, "bob")
    assert not matches(session, "10.42.")
    assert not matches(session, "zz:zz")


def test_a_row_has_the_rate_between_the_last_two_readings() -> None:
    """And none before there were two."""
    life = Life()
    life.online(ALICE, grant())
    (session,) = life.machine.sessions
    assert session_row(session, life.now)["rate_down_bps"] == 0
    session.earlier_at, session.read_at, session.counters = life.now, life.now + 2, Counters(1_000, 1, 50_000, 50)
    row = session_row(session, life.now + 2)
    assert (row["rate_up_bps"], row["rate_down_bps"]) == (4_000, 200_000)
