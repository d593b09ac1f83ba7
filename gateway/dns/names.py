"""Names that we answer ourselves: the portal's, the canaries, and those that must not leave the box.

Pure function of the configuration. What is here and why:
- the portal's names, with the address of the zone that asks; never an IPv6 address, so that the login page is reached
  over the family in which the client has a lease;
- canaries that switch off encrypted DNS and private relay, which would bypass the portal's names and never show a
  login page: NXDOMAIN is the answer that their makers documented;
- special-use names (RFC 6761 §6.3, §6.4, RFC 6762 §22.1, RFC 7686 §2) and reverse names of private addresses
  (RFC 6303, RFC 7793), which no public resolver can know and the operator's own should not tell guests.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.dns.message import (
    CLASS_ANY,
    CLASS_IN,
    Question,
    Rcode,
    Record,
    RecordType,
    encode_name,
    parse_name,
)
from gateway.values import value_class

CANARIES: Final = ("use-application-dns.net", "mask.icloud.com", "mask-h2.icloud.com")
NONEXISTENT: Final = ("invalid", "onion", "local")
PRIVATE_REVERSE: Final = (
    "0.in-addr.arpa",
    "10.in-addr.arpa",
    *(f"{octet}.100.in-addr.arpa" for octet in range(64, 128)),
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    *(f"{octet}.172.in-addr.arpa" for octet in range(16, 32)),
    "2.0.192.in-addr.arpa",
    "168.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    IPv6Address("::").reverse_pointer,
    IPv6Address("::1").reverse_pointer,
    "c.f.ip6.arpa",
    "d.f.ip6.arpa",
    *(f"{digit}.e.f.ip6.arpa" for digit in "89ab"),
    "8.b.d.0.1.0.0.2.ip6.arpa",
)


class LocalKind(Enum):
    """Why a name is answered by us; also a label of the metrics."""

    PORTAL = "portal"
    CANARY = "canary"
    SPECIAL = "special"


@value_class
class LocalAnswer:
    """Our answer to a question."""

    kind: LocalKind
    rcode: Rcode
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


@value_class
class _Entry:
    """A name and what holds for it and everything below it."""

    kind: LocalKind
    exists: bool = False
    loopback: bool = False


class LocalNames:
    """The table of our names, for all zones."""

    def __init__(self, portal_names: tuple[str, ...], zones: Mapping[str, IPv4Address], ttl_s: int) -> None:
        """Build the table; `zones` maps a zone's name to the gateway's address in it. Raises DecodeError."""
        self._zones = dict(zones)
        self._ttl_s = ttl_s
        self._table: dict[bytes, _Entry] = {}
        for text in (*NONEXISTENT, *PRIVATE_REVERSE):
            self._table[_wire(text)] = _Entry(LocalKind.SPECIAL)
        for text in CANARIES:
            self._table[_wire(text)] = _Entry(LocalKind.CANARY)
        self._table[_wire("localhost")] = _Entry(LocalKind.SPECIAL, exists=True, loopback=True)
        for text in portal_names:
            self._table[_wire(text)] = _Entry(LocalKind.PORTAL, exists=True)
        self._pointers = {_wire(address.reverse_pointer): zone for zone, address in self._zones.items()}
        self._portal = _wire(portal_names[0])

    def answer(self, zone: str, question: Question) -> LocalAnswer | None:
        """Our answer to a question from `zone`, or None when it is to be forwarded."""
        if question.class_ not in (CLASS_IN, CLASS_ANY):
            return None
        name = question.name
        if self._pointers.get(name) == zone:
            answers = self._only(question.type, Record(name, RecordType.PTR, self._ttl_s, self._portal))
            return LocalAnswer(LocalKind.PORTAL, Rcode.NOERROR, answers, () if answers else self._soa(name))
        at = 0
        while name[at]:
            entry = self._table.get(name[at:] if at else name)
            if entry is not None:
                return self._decide(entry, zone, question, name[at:], below=at > 0)
            at += name[at] + 1
        return None

    def _decide(self, entry: _Entry, zone: str, question: Question, apex: bytes, *, below: bool) -> LocalAnswer:
        name, wanted = question.name, question.type
        if not entry.exists or (below and not entry.loopback):
            return LocalAnswer(entry.kind, Rcode.NXDOMAIN, (), self._soa(apex))
        if entry.loopback:
            answers = self._only(
                wanted,
                Record(name, RecordType.A, self._ttl_s, IPv4Address("127.0.0.1").packed),
                Record(name, RecordType.AAAA, self._ttl_s, IPv6Address("::1").packed),
            )
        else:
            address = self._zones.get(zone)  # None: the zone was removed, a connection of it is still open
            records = () if address is None else (Record(name, RecordType.A, self._ttl_s, address.packed),)
            answers = self._only(wanted, *records)
        return LocalAnswer(entry.kind, Rcode.NOERROR, answers, () if answers else self._soa(apex))

    def _only(self, wanted: int, *records: Record) -> tuple[Record, ...]:
        return tuple(record for record in records if wanted in (record.type, RecordType.ANY))

    def _soa(self, apex: bytes) -> tuple[Record, ...]:
        """The SOA without which a client does not remember a negative answer (RFC 2308 §3)."""
        timers = b"".join(seconds.to_bytes(4) for seconds in (1, 3600, 600, 86400, self._ttl_s))
        rdata = self._portal + encode_name((b"nobody", b"invalid")) + timers
        return (Record(apex, RecordType.SOA, self._ttl_s, rdata),)


def _wire(text: str) -> bytes:
    return encode_name(parse_name(text)).lower()
