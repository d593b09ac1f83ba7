"""The wanted state: totals, lifetimes, objections, and what differs from the kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.config import Config, Network, Zone
from gateway.datapath.elements import DOWN, UP, Drop, ElementSet, Put, Stored, Tally, key_of_client, key_of_number
from gateway.datapath.ledger import Client, Ledger, zone_sets
from gateway.datapath.ruleset import RESERVED_MARKS
from gateway.session.actions import AllowTraffic
from gateway.session.model import ClientKey, Counters

MAC = MacAddress.parse("02:00:5e:10:00:2a")
KEY = ClientKey("guest", MAC)
ADDRESS = IPv4Address("10.41.0.7")
ZONE = Zone(name="guest", interface="br-guest")
CONFIG = Config(network=Network(uplinks=("eth0",)), zones=(ZONE, Zone(name="staff", interface="br-staff", ipv6=False)))
NOTHING = Tally(0, 0)


def empty(ledger: Ledger) -> dict[ElementSet, dict[bytes, Stored]]:
    """A kernel that has just loaded the ruleset."""
    present: dict[ElementSet, dict[bytes, Stored]] = {element_set: {} for element_set in ledger.sets()}
    for element_set in (UP, DOWN):
        present[element_set] = {key_of_number(mark): Stored(0, NOTHING) for mark in RESERVED_MARKS}
    return present


def online(number: int = 5, expires_at: float | None = 160.0) -> tuple[Ledger, Client]:
    """A ledger with one client."""
    ledger = Ledger(zone_sets(CONFIG))
    client = Client(KEY, ADDRESS, number, expires_at)
    ledger.remember(client)
    ledger.bind(KEY, ADDRESS)
    return ledger, client


def load(ledger: Ledger, present: dict[ElementSet, dict[bytes, Stored]], now: float) -> None:
    """Do to the kernel what the ledger asks for."""
    for drop in ledger.surplus(present):
        del present[drop.set][drop.key]
    changes = [change for client in ledger.clients.values() for change in ledger.missing(client, present, now)]
    changes += [change for key in ledger.bound for change in ledger.missing_bindings(key, present)]
    for change in changes:
        assert isinstance(change, Put)
        present[change.set][change.key] = Stored(change.mark, change.tally or NOTHING)


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**12), st.integers(0, 10**9)))
)
def test_totals_never_go_back(readings: list[tuple[int, int, int, int]]) -> None:
    """Whatever the kernel's counters say next, no part of the total falls."""
    _ledger, client = online()
    before = Counters()
    for up, up_packets, down, down_packets in readings:
        total = client.note(Tally(up, up_packets), Tally(down, down_packets))
        assert total.upload_bytes >= before.upload_bytes
        assert total.upload_packets >= before.upload_packets
        assert total.download_bytes >= before.download_bytes
        assert total.download_packets >= before.download_packets
        before = total


def test_what_the_ledger_asks_for_leaves_no_difference() -> None:
    """Once the kernel holds what is missing, nothing is missing and nothing is too much."""
    ledger, _client = online()
    present = empty(ledger)
    assert len(ledger.differences(present, 100.0)) == 5
    load(ledger, present, 100.0)
    assert ledger.surplus(present) == []
    assert ledger.differences(present, 100.0) == []


def test_restored_counters_go_on_where_they_were_last_seen() -> None:
    """A client whose elements were lost gets them back with its counts."""
    ledger, client = online()
    client.note(Tally(1000, 10), Tally(2000, 20))
    changes = list(ledger.missing(client, empty(ledger), 100.0))
    assert Put(UP, key_of_number(5), tally=Tally(1000, 10)) in changes
    assert Put(DOWN, key_of_number(5), tally=Tally(2000, 20)) in changes


def test_lifetime_is_what_is_left() -> None:
    """Elements live for the rest of the client's time, rounded up, never for less than a second, or for ever."""
    for expires_at, lifetime_s in ((160.0, 60), (100.2, 1), (50.0, 1), (None, None)):
        ledger, client = online(expires_at=expires_at)
        assert {change.lifetime_s for change in ledger.permissions(client, 100.0) if isinstance(change, Put)} == {
            lifetime_s
        }


def test_strangers_in_the_kernel_are_surplus() -> None:
    """Elements of nobody, of another MAC under a known number, and of bindings that ended have to go."""
    ledger, _client = online()
    present = empty(ledger)
    load(ledger, present, 100.0)
    guest, staff = ledger.zones["guest"], ledger.zones["staff"]
    other = MacAddress.parse("02:00:5e:10:00:99")
    strange = [
        Drop(UP, key_of_number(77)),
        Drop(guest.auth4, key_of_client(other, ADDRESS)),
        Drop(staff.auth4, key_of_client(MAC, ADDRESS)),
        Drop(guest.bind4, key_of_client(MAC, IPv4Address("10.41.0.8"))),
        Drop(staff.bind4, key_of_client(MAC, ADDRESS)),
    ]
    for drop in strange:
        present[drop.set][drop.key] = Stored(5 if drop.set.kind.marked else 0, NOTHING)
    assert set(ledger.surplus(present)) == set(strange)


def test_objections_are_sentences() -> None:
    """What cannot be let through is refused with a reason."""
    ledger, _client = online(number=5)
    good = AllowTraffic(ClientKey("guest", MacAddress.parse("02:00:5e:10:00:01")), ADDRESS, 6, 60)
    assert ledger.objection(good) == ""
    assert "no zone" in ledger.objection(replace(good, key=ClientKey("nowhere", MAC)))
    assert "another client" in ledger.objection(replace(good, client_number=5))
    for number in (0, 65535, 0x10000, -1):
        assert "not within" in ledger.objection(replace(good, client_number=number))
    ledger.zones = zone_sets(replace(CONFIG, zones=(replace(ZONE, block_macs=(good.key.mac,)),)))
    assert "blocked" in ledger.objection(good)


def test_client_whose_zone_is_gone_has_no_elements() -> None:
    """After a reload without its zone nothing of a client stays in the kernel."""
    ledger, client = online()
    ledger.zones = {"staff": ledger.zones["staff"]}
    present = empty(ledger)
    present[UP][key_of_number(5)] = Stored(0, NOTHING)
    assert list(ledger.missing(client, present, 100.0)) == []
    assert ledger.surplus(present) == [Drop(UP, key_of_number(5))]
