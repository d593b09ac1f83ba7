"""DHCPv4 lease table: which client holds which address, and until when (RFC 2131 §4.3).

Pure state; time arrives as an argument, what a message does to the table is decided in `v4_server`. Every operation is
O(1), or O(log n) where the time order is concerned, so that a /16 behaves like a /28.

A lease belongs to a MAC in a zone: that is whom sessions, gate and accounting know. RFC 2131 §2 names the client
identifier as the key; taken literally it would hand one guest's live address to whoever sends that guest's identifier,
and let one MAC with many identifiers empty the pool. So a MAC holds one lease whatever identifiers it sends, and an
identifier only brings a client that changed its MAC (a phone with random addresses) back to an address it used before,
once that one is free.

An entry is in one of three states: offered (short-lived), bound, or former (ended, kept so that the client gets the
same address again; taken back, oldest first, when the pool has nothing else).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Address
from typing import Final, Self

from gateway.addresses import MacAddress
from gateway.dhcp.pool import AddressPool
from gateway.session.model import ClientKey
from gateway.values import value_class

OFFER_PATIENCE_S: Final = 1.0
"""A client answers an offer in milliseconds; one this old may be taken back when the pool is otherwise empty, a younger
one never: taking back what is on its way to a client serves nobody."""

_HEAP_SLACK: Final = 64  # skipped entries in the time order that are not worth a rebuild


class LeaseState(Enum):
    """Where an entry stands."""

    OFFERED = "offered"
    BOUND = "bound"
    FORMER = "former"


@dataclass(slots=True, eq=False)
class Lease:
    """An address and its client. Changed in place by `LeaseTable` only; others read."""

    key: ClientKey
    address: IPv4Address
    number: int  # the address as integer
    client_id: bytes  # option 61, else htype and chaddr (RFC 2131 §4.2)
    state: LeaseState
    expires_at: float  # seconds on the monotonic clock: end of the lease, of the offer, or when it became former
    relay: int = 0  # giaddr it was obtained through, 0 for a client on our link
    hostname: str = ""
    changed_at: float = 0.0  # when it was offered or last bound


@value_class
class LeaseRecord:
    """A bound lease as it is kept over restarts."""

    zone: str
    mac: MacAddress
    client_id: bytes
    address: IPv4Address
    remaining_s: float  # from the moment the record was made
    hostname: str = ""
    relay: IPv4Address | None = None

    def to_record(self) -> dict[str, str | bytes | float]:
        """The record as plain values for the journal."""
        return {
            "zone": self.zone,
            "mac": bytes(self.mac),
            "client_id": self.client_id,
            "address": self.address.packed,
            "remaining_s": self.remaining_s,
            "hostname": self.hostname,
            "relay": self.relay.packed if self.relay else b"",
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """Read what `to_record` made; raises ValueError for anything else."""
        match record:
            case {
                "zone": str(zone),
                "mac": bytes(mac),
                "client_id": bytes(client_id),
                "address": bytes(address),
                "remaining_s": float() | int() as remaining_s,
                "hostname": str(hostname),
                "relay": bytes(relay),
            }:
                return cls(
                    zone,
                    MacAddress(mac),
                    client_id,
                    IPv4Address(address),
                    float(remaining_s),
                    hostname,
                    IPv4Address(relay) if relay else None,
                )
            case _:
                raise ValueError(f"not a lease record: fields {sorted(map(str, record))}")


class LeaseTable:
    """All entries of one zone, with the pool they draw from."""

    def __init__(self, pool: AddressPool) -> None:
        self.pool = pool
        self._by_number: dict[int, Lease] = {}
        self._by_mac: dict[bytes, Lease] = {}
        # Oldest first. Not dicts: finding a dict's first key walks over all that were removed before it.
        self._offers: OrderedDict[int, Lease] = OrderedDict()
        self._former: OrderedDict[int, Lease] = OrderedDict()
        self._former_by_client: dict[bytes, Lease] = {}
        self._quarantine: OrderedDict[int, float] = OrderedDict()  # address -> end
        # One valid heap entry per address: `_scheduled` says which; the others are skipped when they come up.
        self._heap: list[tuple[float, int]] = []
        self._scheduled: dict[int, float] = {}

    def __iter__(self) -> Iterator[Lease]:
        """All entries, whatever their state."""
        return iter(self._by_number.values())

    def of_mac(self, mac: bytes) -> Lease | None:
        """The one entry of a MAC (its six octets will do), whatever its state."""
        return self._by_mac.get(mac)

    def of_number(self, number: int) -> Lease | None:
        """The one entry of an address, whatever its state."""
        return self._by_number.get(number)

    def former_of_client(self, client_id: bytes) -> Lease | None:
        """The most recent former entry with this client identifier."""
        return self._former_by_client.get(client_id)

    def is_quarantined(self, number: int) -> bool:
        """Whether the address is set aside after a conflict."""
        return number in self._quarantine

    @property
    def quarantined(self) -> int:
        """How many addresses are set aside."""
        return len(self._quarantine)

    @property
    def offered(self) -> int:
        """How many offers are open."""
        return len(self._offers)

    @property
    def former(self) -> int:
        """How many ended leases are remembered."""
        return len(self._former)

    @property
    def bound(self) -> int:
        """How many leases are live."""
        return len(self._by_number) - len(self._offers) - len(self._former)

    def find_address(self, now: float, *, asked_before: bool = False, probed: Container[int] = ()) -> int | None:
        """An address for a new client, or None: never used or rested, else taken back from who needs it least.

        That is an offer nobody answered, then the lease that ended longest ago; never a bound lease, a young offer or
        an address that is `probed` still. When nothing but offers could be taken back, only a client that
        `asked_before` gets one: a flood of new MACs would otherwise win every one of them.
        """
        number = self.pool.next_free()
        if number is not None:
            return number
        # Entries outside the pool are reserved addresses: of no use to anybody else.
        offer = next((entry for entry in self._offers.values() if entry.number in self.pool), None)
        if offer is not None and (now - offer.changed_at < OFFER_PATIENCE_S or offer.number in probed):
            offer = None
        former = next((entry for entry in self._former.values() if entry.number in self.pool), None)
        victim = former if offer is None or (former is None and not asked_before) else offer
        if victim is None:
            return None
        self.forget(victim)
        return victim.number

    def offer(self, key: ClientKey, number: int, client_id: bytes, relay: int, until: float, now: float) -> Lease:
        """Hold a free or reserved address for a client that has no entry yet."""
        assert key.mac not in self._by_mac, "a MAC holds one address"
        assert number not in self._by_number, "an address has one holder"
        lease = Lease(key, IPv4Address(number), number, client_id, LeaseState.OFFERED, until, relay, "", now)
        self.pool.take(number)
        self._by_number[number] = lease
        self._by_mac[key.mac] = lease
        self._offers[number] = lease
        self._schedule(number, until)
        return lease

    def renew_offer(self, lease: Lease, client_id: bytes, relay: int, until: float, now: float) -> None:
        """Offer again: a former lease to the client that had it, or an open offer, which stays as old as it is.

        Else a client that never takes its offer could hold the address by asking on.
        """
        if lease.state is not LeaseState.OFFERED:
            self._leave_state(lease)
            lease.state = LeaseState.OFFERED
            lease.changed_at = now
            self._offers[lease.number] = lease
        lease.client_id = client_id
        lease.relay = relay
        lease.expires_at = until
        self._schedule(lease.number, until)

    def send_offer(self, lease: Lease, until: float, now: float) -> None:
        """The offer leaves only now, after its probe: from here on the client has time to answer."""
        self._offers.move_to_end(lease.number)
        lease.changed_at = now
        lease.expires_at = until
        self._schedule(lease.number, until)

    def bind(self, lease: Lease, client_id: bytes, relay: int, hostname: str, until: float, now: float) -> None:
        """Make an entry a live lease until then, or extend it."""
        if lease.state is not LeaseState.BOUND:
            self._leave_state(lease)
            lease.state = LeaseState.BOUND
            lease.relay = relay
        elif not relay:
            # A relayed message is not proven to come from the client, so it cannot move a lease off our link.
            lease.relay = 0
        lease.client_id = client_id
        lease.hostname = hostname
        lease.expires_at = until
        lease.changed_at = now
        self._schedule(lease.number, until)

    def end(self, lease: Lease, now: float) -> None:
        """Turn an offer or a live lease into a former one."""
        self._leave_state(lease)
        lease.state = LeaseState.FORMER
        lease.expires_at = now
        self._former[lease.number] = lease
        self._former_by_client[lease.client_id] = lease

    def forget(self, lease: Lease) -> None:
        """Remove an entry; its address is free again."""
        self._leave_state(lease)
        del self._by_number[lease.number]
        del self._by_mac[lease.key.mac]
        self.pool.give_back(lease.number)

    def quarantine(self, number: int, until: float, most: int) -> None:
        """Set a free address aside; with more than `most`, those set aside longest ago come back."""
        self.pool.take(number)
        self._quarantine[number] = until
        self._schedule(number, until)
        while len(self._quarantine) > most:
            oldest, _ = self._quarantine.popitem(last=False)
            self.pool.give_back(oldest)

    def quarantines(self) -> Iterable[tuple[int, float]]:
        """Addresses set aside, and until when."""
        return tuple(self._quarantine.items())

    def next_due(self) -> float | None:
        """When `expire` may next have something to do."""
        return self._heap[0][0] if self._heap else None

    def expire(self, now: float) -> list[Lease]:
        """End what is over at `now`; returns the live leases that ended. Offers and quarantines end silently."""
        ended: list[Lease] = []
        while self._heap and self._heap[0][0] <= now:
            due, number = heappop(self._heap)
            if self._scheduled.get(number) != due:
                continue
            del self._scheduled[number]
            until = self._quarantine.get(number)
            lease = self._by_number.get(number)
            if until is not None:
                if until > now:
                    self._schedule(number, until)
                else:
                    del self._quarantine[number]
                    self.pool.give_back(number)
            elif lease is None or lease.state is LeaseState.FORMER:
                continue
            elif lease.expires_at > now:
                self._schedule(number, lease.expires_at)
            elif lease.state is LeaseState.OFFERED:
                self.forget(lease)
            else:
                self.end(lease, lease.expires_at)
                ended.append(lease)
        return ended

    def _leave_state(self, lease: Lease) -> None:
        if lease.state is LeaseState.OFFERED:
            del self._offers[lease.number]
        elif lease.state is LeaseState.FORMER:
            del self._former[lease.number]
            if self._former_by_client.get(lease.client_id) is lease:
                del self._former_by_client[lease.client_id]

    def _schedule(self, number: int, due: float) -> None:
        # A later date needs no new heap entry: the earlier one is pushed on when it comes up.
        planned = self._scheduled.get(number)
        if planned is None or due < planned:
            self._scheduled[number] = due
            heappush(self._heap, (due, number))
            if len(self._heap) > 2 * len(self._scheduled) + _HEAP_SLACK:
                # Each join and release of a client leaves a skipped entry for the whole of its former lease time.
                self._heap = [(planned_due, address) for address, planned_due in self._scheduled.items()]
                heapify(self._heap)
