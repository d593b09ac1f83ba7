"""Set and map elements of the gate: what they are, how a change of them is said, and their nfnetlink encoding.

What is asked for is a state, not a step: a `Put` holds when the element is there with this value, a `Drop` when it is
not, whatever was there before. `kernel` sends what is encoded here, `scripted` says the same in nft's language where
the codec does not work. Pure; no sockets.

Layouts (linux/netfilter/nf_tables.h): keys are registers, so a MAC in a concatenation is padded to eight octets and
alone it is not; marks are native, lifetimes are milliseconds in network order.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Protocol

from gateway.addresses import MacAddress
from gateway.datapath.nfnetlink import (
    CREATE,
    HEADER,
    NFPROTO_INET,
    REQUEST,
    SUBSYSTEM_NFTABLES,
    Reply,
    attribute,
    attributes,
    nested,
)

NEW_SETELEM: Final = 12
GET_SETELEM: Final = 13
DEL_SETELEM: Final = 14
DESTROY_SETELEM: Final = 30  # as DEL, and no error when there is nothing to delete (kernel 6.3)


class Kind(Enum):
    """Shape of a set: the octets of its key, whether it maps to a mark, whether it has a lifetime and a counter."""

    AUTH4 = (12, True, True, False)  # MAC . IPv4 -> mark
    AUTH6 = (6, True, True, False)  # MAC -> mark
    BIND4 = (12, False, False, False)  # MAC . IPv4
    NUMBERS = (4, False, False, True)  # client number

    def __init__(self, key_octets: int, marked: bool, timed: bool, counted: bool) -> None:
        self.key_octets = key_octets
        self.marked = marked
        self.timed = timed
        self.counted = counted


class ElementSet(NamedTuple):
    """A set or map of our table."""

    name: str
    kind: Kind


UP: Final = ElementSet("up", Kind.NUMBERS)
DOWN: Final = ElementSet("down", Kind.NUMBERS)


class Tally(NamedTuple):
    """What one counter says."""

    bytes: int
    packets: int


class Put(NamedTuple):
    """The element shall be there; `lifetime_s` None means for ever, `tally` is where its counter starts."""

    set: ElementSet
    key: bytes
    mark: int = 0
    lifetime_s: int | None = None
    tally: Tally | None = None


class Drop(NamedTuple):
    """The element shall not be there."""

    set: ElementSet
    key: bytes


Change = Put | Drop
Finals = dict[tuple[str, bytes], Tally]


class Stored(NamedTuple):
    """An element as the kernel has it."""

    mark: int
    tally: Tally
    lifetime_ms: int = 0  # as it was given, not what is left; 0: for ever


class ElementsRefused(Exception):
    """The kernel did not take a change; `lost` when the table or a set of it is not there."""

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.lost = lost


Done = Callable[[ElementsRefused | None, Finals], None]
Readings = Mapping[int, tuple[Tally, Tally]]  # client number -> up, down
ReadDone = Callable[[Readings], None]


class Elements(Protocol):
    """How elements get into the kernel; the codec calls `done` before it returns, the fallback a little later."""

    mode: str

    def commit(self, changes: Sequence[Change], done: Done) -> None:
        """Make the changes in one transaction."""

    def read(self, numbers: Sequence[int], done: ReadDone) -> None:
        """Read the up and down counters of some clients; clients that are not there are not in the answer."""

    async def dump(self, element_set: ElementSet) -> dict[bytes, Stored]:
        """Read a whole set; raises ElementsRefused."""

    def close(self) -> None:
        """Let go of what is held; the kernel keeps the elements."""


def key_of_client(mac: MacAddress, address: IPv4Address) -> bytes:
    """Key of `ether_addr . ipv4_addr`: each part padded to a multiple of four octets."""
    return mac + b"\0\0" + address.packed


def key_of_number(number: int) -> bytes:
    """Key of a mark."""
    return number.to_bytes(4, sys.byteorder)


_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT = 1  # NFTA_LIST_ELEM
_KEY, _DATA, _TIMEOUT, _EXPRESSION, _EXPRESSIONS = 1, 2, 4, 7, 11  # NFTA_SET_ELEM_*
_VALUE = 1  # NFTA_DATA_VALUE
_NAME, _EXPRESSION_DATA = 1, 2  # NFTA_EXPR_*
_BYTES, _PACKETS = 1, 2  # NFTA_COUNTER_*
_NEST: Final = 0x8000
_NO_TALLY: Final = Tally(0, 0)

# One element with all its heads, per shape: a login packs four of them and has 30 µs for everything.
_NEST_HEAD: Final = struct.Struct("=HH")
_PACK_AUTH4: Final = struct.Struct("=HHHHHH12sHHHHIHH8s")
_PACK_AUTH6: Final = struct.Struct("=HHHHHH6s2xHHHHIHH8s")
_PACK_KEY: Final = {12: struct.Struct("=HHHHHH12s"), 6: struct.Struct("=HHHHHH6s2x"), 4: struct.Struct("=HHHHHH4s")}
# A counted element as the kernel writes it where 64-bit values need no padding attribute.
_READ_COUNTED: Final = struct.Struct(">12x4s16x4x4xQ4xQ")
_COUNTED_HEAD: Final = struct.pack("=HHHHHH", 60, _ELEMENT, 12, _KEY, 8, _VALUE)


class Encoder:
    """Encodes requests about elements of one table."""

    __slots__ = ("_drop", "_prefixes", "_table")

    def __init__(self, table: str, *, destroys: bool = True) -> None:
        self._drop = DESTROY_SETELEM if destroys else DEL_SETELEM
        self._table = attribute(_TABLE, table.encode() + b"\0")
        self._prefixes: dict[str, bytes] = {}

    def change(self, change: Change, place: int, flags: int) -> bytes:
        """Encode one NEWSETELEM or DESTROYSETELEM for a batch."""
        if isinstance(change, Put):
            return self._request(NEW_SETELEM, change.set, encode_put(change), place, flags | CREATE)
        return self._request(self._drop, change.set, encode_key(change.key), place, flags)

    def read(self, element_set: ElementSet, keys: Sequence[bytes], place: int, flags: int) -> bytes:
        """Encode one GETSETELEM: for these keys, or without keys a dump."""
        return self._request(GET_SETELEM, element_set, b"".join(map(encode_key, keys)), place, flags)

    def _request(self, kind: int, element_set: ElementSet, elements: bytes, place: int, flags: int) -> bytes:
        """One message, put together at once: this is the hottest place of a login."""
        prefix = self._prefixes.get(element_set.name)
        if prefix is None:
            prefix = self._table + attribute(_SET, element_set.name.encode() + b"\0")
            self._prefixes[element_set.name] = prefix
        size = len(elements)
        length = 20 + len(prefix) + (4 + size if size else 0)
        head = HEADER.pack(length, SUBSYSTEM_NFTABLES << 8 | kind, flags | REQUEST, place, 0, NFPROTO_INET, 0, 0)
        return head + prefix + _NEST_HEAD.pack(4 + size, _ELEMENTS | _NEST) + elements if size else head + prefix


def encode_key(key: bytes) -> bytes:
    """Encode an element that is only named, to be read or dropped."""
    size = len(key)
    padded = size + 3 & ~3
    return _PACK_KEY[size].pack(padded + 12, _ELEMENT | _NEST, padded + 8, _KEY | _NEST, size + 4, _VALUE, key)


def encode_put(put: Put) -> bytes:
    """Encode an element that shall be there."""
    kind = put.set.kind
    if kind.marked:
        lifetime = 0 if put.lifetime_s is None else put.lifetime_s * 1000
        pack, size = (_PACK_AUTH4, 48) if kind is Kind.AUTH4 else (_PACK_AUTH6, 44)
        return pack.pack(
            size,
            _ELEMENT | _NEST,
            size - 28,
            _KEY | _NEST,
            kind.key_octets + 4,
            _VALUE,
            put.key,
            12,
            _DATA | _NEST,
            8,
            _VALUE,
            put.mark,
            12,
            _TIMEOUT,
            lifetime.to_bytes(8, "big"),
        )
    if put.tally is None:
        return encode_key(put.key)
    counter = nested(
        _EXPRESSION_DATA,
        attribute(_BYTES, put.tally.bytes.to_bytes(8, "big")),
        attribute(_PACKETS, put.tally.packets.to_bytes(8, "big")),
    )
    expression = nested(_ELEMENT, attribute(_NAME, b"counter\0"), counter)
    return nested(_ELEMENT, encode_key(put.key)[4:], nested(_EXPRESSIONS, expression))


def decode_elements(reply: Reply) -> Iterator[tuple[str, bytes, Stored]]:
    """Walk over the elements of a reply or echo: name of the set, key, value; unreadable elements are passed over."""
    data = reply.data
    name = ""
    for kind, start, end in attributes(data, reply.start, reply.end):
        if kind == _SET:
            name = data[start : end - 1].decode("ascii", "replace")
        elif kind == _ELEMENTS:
            at = start
            while at < end:
                # The usual case in one step; headers compare without the nesting flag, which the kernel leaves out.
                if data[at : at + 12] == _COUNTED_HEAD and at + 60 <= end:
                    key, octets, packets = _READ_COUNTED.unpack_from(data, at)
                    yield name, key, Stored(0, Tally(octets, packets))
                    at += 60
                    continue
                length = int.from_bytes(data[at : at + 2], sys.byteorder)
                if length < 4 or at + length > end:
                    break
                found = _decode_element(data, at + 4, at + length)
                if found is not None:
                    yield name, *found
                at += length + 3 & ~3


def _decode_element(data: bytes, start: int, end: int) -> tuple[bytes, Stored] | None:
    key: bytes | None = None
    mark = 0
    tally = _NO_TALLY
    lifetime_ms = 0
    for kind, first, last in attributes(data, start, end):
        if kind == _KEY:
            key = _value(data, first, last)
        elif kind == _DATA:
            mark = int.from_bytes(_value(data, first, last)[:4], sys.byteorder)
        elif kind == _EXPRESSION:
            tally = _counter(data, first, last)
        elif kind == _TIMEOUT:
            lifetime_ms = int.from_bytes(data[first:last], "big")
    return None if key is None else (key, Stored(mark, tally, lifetime_ms))


def _value(data: bytes, start: int, end: int) -> bytes:
    for kind, first, last in attributes(data, start, end):
        if kind == _VALUE:
            return data[first:last]
    return b""


def _counter(data: bytes, start: int, end: int) -> Tally:
    octets = packets = 0
    counts = False
    for kind, first, last in attributes(data, start, end):
        if kind == _NAME:
            counts = data[first:last] == b"counter\0"
        elif kind == _EXPRESSION_DATA and counts:
            for field, at, stop in attributes(data, first, last):
                if field == _BYTES:
                    octets = int.from_bytes(data[at:stop], "big")
                elif field == _PACKETS:
                    packets = int.from_bytes(data[at:stop], "big")
    return Tally(octets, packets)
