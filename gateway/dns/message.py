"""DNS wire format, as much of it as a forwarder needs (RFC 1035 §4, RFC 6891 for EDNS).

A forwarder passes messages on as they are, so this module reads headers, the one question and the OPT record, and
writes the small answers that we give ourselves. It does not interpret other records: unknown types, DNSSEC and
HTTPS/SVCB records pass because nobody here looks at them. Every reader checks lengths first and raises `DecodeError`
and nothing else, whatever the octets are.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from gateway.values import value_class

HEADER_BYTES: Final = 12
MAX_NAME_BYTES: Final = 255  # RFC 1035 §3.1, length octets and the root included
MAX_LABEL_BYTES: Final = 63
CLASS_IN: Final = 1
CLASS_ANY: Final = 255
OUR_PAYLOAD_BYTES: Final = 1232  # what we say we take by UDP: fits the smallest IPv6 MTU (DNS flag day 2020)

_RESPONSE: Final = 0x80
_AUTHORITATIVE: Final = 0x04
_RECURSION_DESIRED: Final = 0x01
_RECURSION_AVAILABLE: Final = 0x80
_CHECKING_DISABLED: Final = 0x10
_POINTER: Final = 0xC0
_ONE: Final = b"\x00\x01"

Name = tuple[bytes, ...]  # labels without the root, case as received


class DecodeError(ValueError):
    """The octets are not a DNS message that we can read; the text says what is wrong with them."""


class RecordType(IntEnum):
    """The record and question types that we know by name; every other number passes as it is."""

    A = 1
    SOA = 6
    PTR = 12
    AAAA = 28
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    """Response codes that we give or look at (RFC 1035 §4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class Question(NamedTuple):
    """The question of a message: its name in wire form and lower case, its type and class, and where it ends."""

    name: bytes
    type: int
    class_: int
    end: int


@value_class
class Edns:
    """What the OPT record of a message says (RFC 6891 §6.1)."""

    payload_bytes: int
    dnssec_ok: bool


@value_class
class Record:
    """A resource record of class IN that we answer with; `name` and `rdata` in wire form."""

    name: bytes
    type: int
    ttl_s: int
    rdata: bytes


def parse_name(text: str) -> Name:
    """Read a name as people write it (`login.postern.lan`, with or without the last dot); raises DecodeError.

    Names beyond ASCII become A-labels (IDNA 2003, what the standard library has).
    """
    if text in ("", "."):
        return ()
    try:
        labels = tuple(text.removesuffix(".").encode("idna").split(b"."))
    except UnicodeError as err:
        raise DecodeError(f"{text!r} is not a domain name: {err}") from err
    if not all(labels):
        raise DecodeError(f"{text!r} is not a domain name: it has an empty label")
    encode_name(labels)
    return labels


def encode_name(name: Name) -> bytes:
    """Write a name without compression (RFC 1035 §3.1); raises DecodeError when a label or the whole is too long."""
    parts = bytearray()
    for label in name:
        if not 1 <= len(label) <= MAX_LABEL_BYTES:
            raise DecodeError(f"a label has 1 to {MAX_LABEL_BYTES} octets, not {len(label)}")
        parts.append(len(label))
        parts += label
    parts.append(0)
    if len(parts) > MAX_NAME_BYTES:
        raise DecodeError(f"a name has at most {MAX_NAME_BYTES} octets, not {len(parts)}")
    return bytes(parts)


def decode_name(message: bytes, offset: int) -> tuple[Name, int]:
    """Read the possibly compressed name at `offset`; returns it and the offset behind it (RFC 1035 §4.1.4).

    A pointer must lead to before the place where the current run of labels began, so that no chain can turn in a
    circle. Raises DecodeError.
    """
    labels: list[bytes] = []
    octets = 1
    behind: int | None = None
    run_start = offset
    size = len(message)
    while True:
        if offset >= size:
            raise DecodeError("a name runs past the end of the message")
        length = message[offset]
        if length == 0:
            return tuple(labels), offset + 1 if behind is None else behind
        if length & _POINTER == _POINTER:
            if offset + 2 > size:
                raise DecodeError("a compression pointer is cut off")
            target = (length & 0x3F) << 8 | message[offset + 1]
            if target >= run_start:
                raise DecodeError("a compression pointer does not lead backwards")
            behind = offset + 2 if behind is None else behind
            run_start = offset = target
            continue
        if length > MAX_LABEL_BYTES:
            raise DecodeError(f"label type {length >> 6} is not one we know")
        octets += length + 1
        if octets > MAX_NAME_BYTES:
            raise DecodeError(f"a name has more than {MAX_NAME_BYTES} octets")
        if offset + 1 + length > size:
            raise DecodeError("a label runs past the end of the message")
        labels.append(message[offset + 1 : offset + 1 + length])
        offset += 1 + length


def read_question(message: bytes) -> Question:
    """Read the one question of a message; raises DecodeError when there is not exactly one.

    The name of a first question has nothing before it to point to, so compression is refused here. Length octets are
    below `A`, which is why lower() over the whole wire form changes letters only.
    """
    size = len(message)
    if size < HEADER_BYTES:
        raise DecodeError(f"a message has at least {HEADER_BYTES} octets, not {size}")
    if message[4:6] != _ONE:
        raise DecodeError(f"a message has one question, not {message[4] << 8 | message[5]}")
    offset = HEADER_BYTES
    while True:
        if offset >= size:
            raise DecodeError("the question's name runs past the end of the message")
        length = message[offset]
        offset += 1
        if length == 0:
            break
        if length > MAX_LABEL_BYTES:
            raise DecodeError("the question's name is compressed")
        offset += length
    if offset - HEADER_BYTES > MAX_NAME_BYTES:
        raise DecodeError(f"the question's name has more than {MAX_NAME_BYTES} octets")
    end = offset + 4
    if end > size:
        raise DecodeError("the question is cut off")
    return Question(
        message[HEADER_BYTES:offset].lower(),
        message[offset] << 8 | message[offset + 1],
        message[offset + 2] << 8 | message[offset + 3],
        end,
    )


def read_edns(message: bytes, offset: int) -> Edns | None:
    """Find the OPT record among the records from `offset` (behind the question); None when there is none.

    Raises DecodeError when the records cannot be walked or there are two OPT records (RFC 6891 §6.1.1).
    """
    if len(message) < HEADER_BYTES:
        raise DecodeError(f"a message has at least {HEADER_BYTES} octets, not {len(message)}")
    found: Edns | None = None
    records = sum(message[at] << 8 | message[at + 1] for at in (6, 8, 10))
    for _ in range(records):
        _, offset = decode_name(message, offset)
        if offset + 10 > len(message):
            raise DecodeError("a record is cut off")
        record_type, record_class = message[offset : offset + 2], message[offset + 2 : offset + 4]
        flags = message[offset + 6]
        offset += 10 + (message[offset + 8] << 8 | message[offset + 9])
        if offset > len(message):
            raise DecodeError("a record's data runs past the end of the message")
        if int.from_bytes(record_type) == RecordType.OPT:
            if found is not None:
                raise DecodeError("a message has two OPT records")
            found = Edns(int.from_bytes(record_class), bool(flags & 0x80))
    return found


def is_response(message: bytes) -> bool:
    """Whether the QR bit is set; the message must have a header."""
    return message[2] & _RESPONSE != 0


def opcode(message: bytes) -> int:
    """The kind of request: 0 for a query; the message must have a header."""
    return message[2] >> 3 & 0x0F


def rcode(message: bytes) -> int:
    """The response code without EDNS's upper bits; the message must have a header."""
    return message[3] & 0x0F


def encode_response(
    query: bytes,
    question: Question | None,
    code: Rcode,
    *,
    answers: tuple[Record, ...] = (),
    authority: tuple[Record, ...] = (),
    authoritative: bool = False,
) -> bytes:
    """Write our own answer to `query`; `question` None answers a message whose question could not be read.

    The question is echoed octet for octet, so a client that mixes case (0x20) finds what it sent. An OPT record is
    answered by one (RFC 6891 §6.1.1), the DO bit copied (RFC 3225 §3).
    """
    edns: Edns | None = None
    if question is not None:
        try:
            edns = read_edns(query, question.end)
        except DecodeError:
            edns = None  # the question was readable, which is enough to say no to it
    flags = _RESPONSE | query[2] & (0x78 | _RECURSION_DESIRED) | (_AUTHORITATIVE if authoritative else 0)
    more_flags = _RECURSION_AVAILABLE | query[3] & _CHECKING_DISABLED | code
    response = bytearray(query[0:2])
    response += bytes((flags, more_flags, 0, question is not None))
    for count in (len(answers), len(authority), edns is not None):
        response += count.to_bytes(2)
    if question is not None:
        response += query[HEADER_BYTES : question.end]
    for record in answers + authority:
        response += record.name + record.type.to_bytes(2) + CLASS_IN.to_bytes(2) + record.ttl_s.to_bytes(4)
        response += len(record.rdata).to_bytes(2) + record.rdata
    if edns is not None:
        response += b"\x00" + RecordType.OPT.to_bytes(2) + OUR_PAYLOAD_BYTES.to_bytes(2)
        response += bytes((0, 0, 0x80 if edns.dnssec_ok else 0, 0, 0, 0))
    return bytes(response)
