"""What the kernel should hold: clients that are let through, their numbers, and who was given which address.

Pure state. From it come the changes of one client, and the difference to what a dump of the kernel shows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Config
from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Drop,
    ElementSet,
    Kind,
    Put,
    Stored,
    Tally,
    key_of_client,
    key_of_number,
)
from gateway.datapath.ruleset import LAST_CLIENT_NUMBER, RESERVED_MARKS
from gateway.session.actions import AllowTraffic
from gateway.session.model import ClientKey, Counters
from gateway.values import value_class

ZERO: Final = Counters()
_RESERVED: Final = frozenset(key_of_number(mark) for mark in RESERVED_MARKS)

Present = Mapping[ElementSet, Mapping[bytes, Stored]]  # what the kernel holds


@dataclass(slots=True)
class Client:
    """A client that is let through."""

    key: ClientKey
    address: IPv4Address
    number: int
    expires_at: float | None
    kernel: Counters = ZERO  # the elements' counters as last read
    before: Counters = ZERO  # what was counted before somebody set the elements' counters back
    confirmed: bool = False  # the hub has been told that the gate is open

    def total(self) -> Counters:
        """What was counted since the client was let through."""
        return self.kernel if self.before is ZERO else self.before + self.kernel

    def note(self, up: Tally, down: Tally) -> Counters:
        """Take over a reading; totals never go back, whichever of the two counters somebody set back."""
        last = self.kernel
        if up.bytes < last.upload_bytes or up.packets < last.upload_packets:
            self.before += Counters(upload_bytes=last.upload_bytes, upload_packets=last.upload_packets)
        if down.bytes < last.download_bytes or down.packets < last.download_packets:
            self.before += Counters(download_bytes=last.download_bytes, download_packets=last.download_packets)
        self.kernel = Counters(up.bytes, up.packets, down.bytes, down.packets)
        return self.total()


@value_class
class ZoneSets:
    """A zone's sets, and whom it never lets in."""

    auth4: ElementSet
    auth6: ElementSet | None
    bind4: ElementSet
    blocked: frozenset[MacAddress]


@dataclass(slots=True)
class Ledger:
    """The wanted state."""

    zones: dict[str, ZoneSets]
    clients: dict[ClientKey, Client] = field(default_factory=dict)
    numbers: dict[int, ClientKey] = field(default_factory=dict)
    bound: dict[ClientKey, tuple[IPv4Address, ...]] = field(default_factory=dict)

    def sets(self) -> list[ElementSet]:
        """Every set that is ours to fill."""
        found = [UP, DOWN]
        for zone in self.zones.values():
            found += [zone.auth4, zone.bind4]
            if zone.auth6 is not None:
                found.append(zone.auth6)
        return found

    def objection(self, action: AllowTraffic) -> str:
        """Why this client cannot be let through; empty when it can."""
        zone = self.zones.get(action.key.zone)
        if zone is None:
            return f"there is no zone {action.key.zone}"
        if action.key.mac in zone.blocked:
            return "the client's MAC is blocked in this zone"
        if not 1 <= action.client_number <= LAST_CLIENT_NUMBER:
            return f"the client number {action.client_number} is not within 1 to {LAST_CLIENT_NUMBER}"
        if self.numbers.get(action.client_number, action.key) != action.key:
            return f"the client number {action.client_number} belongs to another client"
        return ""

    def remember(self, client: Client) -> None:
        """Let the client through from now on."""
        self.clients[client.key] = client
        self.numbers[client.number] = client.key

    def forget(self, client: Client) -> None:
        """Let the client through no longer."""
        self.clients.pop(client.key, None)
        self.numbers.pop(client.number, None)

    def bind(self, key: ClientKey, address: IPv4Address) -> None:
        """The MAC may use the address."""
        held = self.bound.get(key, ())
        if address not in held:
            self.bound[key] = (*held, address)

    def unbind(self, key: ClientKey, address: IPv4Address) -> None:
        """The MAC may use the address no longer."""
        left = tuple(other for other in self.bound.pop(key, ()) if other != address)
        if left:
            self.bound[key] = left

    def permissions(self, client: Client, now: float) -> list[Change]:
        """The elements that let a client through, with the lifetime it has left; none when its zone refuses it."""
        zone = self.zones.get(client.key.zone)
        mac = client.key.mac
        if zone is None or mac in zone.blocked:
            return []
        lifetime_s = None if client.expires_at is None else max(1, math.ceil(client.expires_at - now))
        auth4 = Put(zone.auth4, key_of_client(mac, client.address), client.number, lifetime_s)
        return [auth4] if zone.auth6 is None else [auth4, Put(zone.auth6, mac, client.number, lifetime_s)]

    def surplus(self, present: Present) -> list[Drop]:
        """What the kernel holds and should not."""
        return [
            Drop(element_set, element)
            for element_set, elements in present.items()
            for element, stored in elements.items()
            if not self.is_wanted(element_set, element, stored)
        ]

    def is_wanted(self, element_set: ElementSet, element: bytes, stored: Stored) -> bool:
        """Whether an element that the kernel holds belongs there, as things stand now."""
        kind = element_set.kind
        if kind is Kind.NUMBERS:
            key = self.numbers.get(int.from_bytes(element, sys.byteorder))
            return element in _RESERVED or (key is not None and self._zone_takes(key))
        if kind is Kind.BIND4:
            mac, address = MacAddress(element[:6]), IPv4Address(element[8:12])
            return any(
                zone.bind4 == element_set and address in self.bound.get(ClientKey(name, mac), ())
                for name, zone in self.zones.items()
            )
        key = self.numbers.get(stored.mark)
        if key is None or not self._zone_takes(key):
            return False
        zone = self.zones[key.zone]
        if kind is Kind.AUTH6:
            return zone.auth6 == element_set and element == key.mac
        return zone.auth4 == element_set and element == key_of_client(key.mac, self.clients[key].address)

    def missing(self, client: Client, present: Present, now: float) -> Iterator[Change]:
        """What brings a client's elements to what they should be; counters go on where they were last seen."""
        if not self._zone_takes(client.key):
            return
        yield from self.permissions(client, now)  # also where they are there: the lifetime is renewed
        number = key_of_number(client.number)
        if number not in present[UP]:
            yield Put(UP, number, tally=Tally(client.kernel.upload_bytes, client.kernel.upload_packets))
        if number not in present[DOWN]:
            yield Put(DOWN, number, tally=Tally(client.kernel.download_bytes, client.kernel.download_packets))

    def missing_bindings(self, key: ClientKey, present: Present) -> Iterator[Change]:
        """What brings a client's bindings to what they should be."""
        zone = self.zones.get(key.zone)
        if zone is not None:
            for address in self.bound.get(key, ()):
                element = key_of_client(key.mac, address)
                if element not in present[zone.bind4]:
                    yield Put(zone.bind4, element)

    def holders(self, present: Present) -> dict[int, ClientKey]:
        """Which client the kernel lets through under which number."""
        found: dict[int, ClientKey] = {}
        for name, zone in self.zones.items():
            for element, stored in present[zone.auth4].items():
                found[stored.mark] = ClientKey(name, MacAddress(element[:6]))
        return found

    def differences(self, present: Present, now: float) -> list[str]:
        """Every difference between the kernel and the wanted state, in sentences."""
        found = [
            f"{drop.set.name} holds an element that nobody ordered: {drop.key.hex()}" for drop in self.surplus(present)
        ]
        for client in self.clients.values():
            for change in self.missing(client, present, now):
                if change.key not in present[change.set]:
                    found.append(f"{change.set.name} lacks {client.key.mac}, client number {client.number}")
        for key in self.bound:
            found += [f"{change.set.name} lacks {key.mac}" for change in self.missing_bindings(key, present)]
        return found

    def _zone_takes(self, key: ClientKey) -> bool:
        zone = self.zones.get(key.zone)
        return zone is not None and key.mac not in zone.blocked


def zone_sets(config: Config) -> dict[str, ZoneSets]:
    """The sets of each zone, named as the ruleset names them."""
    return {
        zone.name: ZoneSets(
            ElementSet(f"auth4_{zone.name}", Kind.AUTH4),
            ElementSet(f"auth6_{zone.name}", Kind.AUTH6) if zone.ipv6 else None,
            ElementSet(f"bind4_{zone.name}", Kind.BIND4),
            frozenset(zone.block_macs),
        )
        for zone in config.zones
    }
