"""DHCPv4 messages: octets to `Message` and back (RFC 2131 §2, RFC 2132, RFC 3396).

Pure functions; what a message means is the server's business (`v4_server`). A decoded message is canonical: repeated
options are concatenated (RFC 3396), options that overflowed into `file` and `sname` (option 52) are back among the
options, unknown options stay raw octets. Encoding is deterministic: options sorted by code, relay agent information
(82) last (RFC 3046 §2.1), padded to the 300 octets that BOOTP relays and old clients expect (RFC 1542 §2.1).

The four addresses of the fixed header are kept as 32-bit integers, as on the wire: they are compared and looked up for
every packet, and an IPv4Address hashes through a string. Outside this package's packets addresses are IPv4Address.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

HEADER_OCTETS: Final = 240  # fixed fields and the magic cookie
MINIMUM_OCTETS: Final = 300
BROADCAST_FLAG: Final = 0x8000
ETHERNET: Final = 1  # htype

_HEADER: Final = struct.Struct("!BBBBIHHIIII16s64s128s4s")
_COOKIE: Final = bytes((99, 130, 83, 99))
_NO_SNAME: Final = bytes(64)
_NO_FILE: Final = bytes(128)
_PAD: Final = 0
_END: Final = 255
_WORD: Final = struct.Struct("!I")


class DecodeError(ValueError):
    """The octets are not what they should be; the peer is wrong, the packet is dropped."""


class Op(IntEnum):
    """Direction of a message (RFC 2131 §2)."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Option 53 (RFC 2132 §9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The option codes that we read or write (RFC 2132; 82: RFC 3046)."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS_SERVERS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    BROADCAST_ADDRESS = 28
    NTP_SERVERS = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    MESSAGE = 56
    MAXIMUM_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_ID = 61
    RELAY_AGENT = 82


_TYPES: Final = {int(kind): kind for kind in MessageType}
_OCTETS: Final = tuple(bytes((number,)) for number in range(256))
_RANK: Final = tuple(256 if code == Option.RELAY_AGENT else code for code in range(256))


@dataclass(slots=True)
class Message:
    """One DHCPv4 message. Not frozen: a reply is built in place, and a frozen one costs twice the decoding."""

    op: int
    kind: MessageType
    xid: int
    chaddr: bytes  # 16 octets, of which hlen count
    htype: int = ETHERNET
    hlen: int = 6
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: int = 0
    yiaddr: int = 0
    siaddr: int = 0
    giaddr: int = 0
    sname: bytes = _NO_SNAME
    file: bytes = _NO_FILE
    options: dict[int, bytes] = field(default_factory=dict)  # without option 53, which is `kind`


def decode(octets: bytes) -> Message:
    """Read one UDP payload; raises DecodeError for anything that is not a DHCP message.

    A missing End option is accepted, as some clients fill the packet to its last octet.
    """
    if len(octets) < HEADER_OCTETS:
        raise DecodeError(f"{len(octets)} octets are too few for a DHCP message")
    (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie) = (
        _HEADER.unpack_from(octets)
    )
    if cookie != _COOKIE:
        raise DecodeError("the magic cookie is missing (plain BOOTP)")
    if hlen > 16:
        raise DecodeError(f"hardware address length {hlen} exceeds the 16 octets of chaddr")
    options: dict[int, bytes] = {}
    _read_options(octets, HEADER_OCTETS, options)
    overload = options.pop(Option.OVERLOAD, None)
    if overload is not None:
        if overload not in (b"\x01", b"\x02", b"\x03"):
            raise DecodeError("option 52 (overload) is not 1, 2 or 3")
        if overload[0] & 1:
            _read_options(file, 0, options)
            file = _NO_FILE
        if overload[0] & 2:
            _read_options(sname, 0, options)
            sname = _NO_SNAME
        if Option.OVERLOAD in options:
            raise DecodeError("option 52 (overload) inside an overloaded field")
    raw_kind = options.pop(Option.MESSAGE_TYPE, b"")
    kind = _TYPES.get(raw_kind[0]) if len(raw_kind) == 1 else None
    if kind is None:
        raise DecodeError("option 53 (message type) is missing or unknown")
    return Message(
        op, kind, xid, chaddr, htype, hlen, hops, secs, flags, ciaddr, yiaddr, siaddr, giaddr, sname, file, options
    )


def _read_options(area: bytes, position: int, options: dict[int, bytes]) -> None:
    end = len(area)
    while position < end:
        code = area[position]
        if code == _PAD:
            position += 1
            continue
        if code == _END:
            return
        if position + 1 == end:
            raise DecodeError(f"option {code} ends before its length")
        start = position + 2
        position = start + area[position + 1]
        if position > end:
            raise DecodeError(f"option {code} is longer than the message")
        value = area[start:position]
        options[code] = options[code] + value if code in options else value


def encode(message: Message) -> bytes:
    """Write a message; values over 255 octets are split into repeated options (RFC 3396 §5)."""
    parts = [
        _HEADER.pack(
            message.op,
            message.htype,
            message.hlen,
            message.hops,
            message.xid,
            message.secs,
            message.flags,
            message.ciaddr,
            message.yiaddr,
            message.siaddr,
            message.giaddr,
            message.chaddr,
            message.sname,
            message.file,
            _COOKIE,
        )
    ]
    options = message.options
    # The type stands first: a receiver that looks no further than the first octets finds it there.
    parts.append(bytes((Option.MESSAGE_TYPE, 1, message.kind)))
    for code in sorted(options, key=_RANK.__getitem__):
        value = options[code]
        length = len(value)
        if length <= 255:
            parts += (_OCTETS[code], _OCTETS[length], value)
        else:
            for start in range(0, length, 255):
                piece = value[start : start + 255]
                parts += (_OCTETS[code], _OCTETS[len(piece)], piece)
    parts.append(b"\xff")
    octets = b"".join(parts)
    return octets if len(octets) >= MINIMUM_OCTETS else octets.ljust(MINIMUM_OCTETS, b"\0")


def options_octets(options: dict[int, bytes]) -> int:
    """How many octets these options take in a message, code and length octets included."""
    octets = 2 * len(options)
    for value in options.values():
        octets += len(value)
        if len(value) > 255:
            octets += 2 * ((len(value) - 1) // 255)
    return octets


def read_word(value: bytes) -> int | None:
    """A 32-bit number or one address as integer (RFC 2132 §9.1, §9.2); None if it is not four octets."""
    return int.from_bytes(value, "big") if len(value) == 4 else None


def write_word(number: int) -> bytes:
    """Write a 32-bit number or one address."""
    return _WORD.pack(number)


def write_addresses(addresses: Iterable[IPv4Address]) -> bytes:
    """Write a list of addresses, as of routers or DNS servers (RFC 2132 §3.5)."""
    return b"".join(address.packed for address in addresses)


def read_host_name(value: bytes) -> str:
    """The name a client gives itself (RFC 2132 §3.14), cut to what a label may hold; "" if nothing is left.

    Clients send NULs, spaces, emoji and anything else here, and the name ends in logs, tables and pages: only letters,
    digits, hyphen, underscore and dot survive.
    """
    text = value.decode("ascii", "ignore")
    return "".join(letter for letter in text if letter.isalnum() or letter in "-_.")[:63]


def write_host_name(name: str) -> bytes:
    """Write a host or domain name without dots at its ends or a NUL; letters beyond ASCII are dropped."""
    return name.strip(".").encode("ascii", "ignore")
