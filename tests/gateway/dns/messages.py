"""Small DNS messages for the tests, written without the code under test."""

from __future__ import annotations

import struct


def wire_name(text: str) -> bytes:
    """A name in wire form, case kept."""
    labels = [label.encode() for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def opt(payload_bytes: int = 1232, *, dnssec_ok: bool = False, options: bytes = b"") -> bytes:
    """An OPT record."""
    flags = 0x8000 if dnssec_ok else 0
    return b"\0" + struct.pack("!HHIH", 41, payload_bytes, flags, len(options)) + options


def query(
    name: str,
    type_: int = 1,
    *,
    id_: int = 0x1234,
    class_: int = 1,
    flags: int = 0x0100,
    additional: tuple[bytes, ...] = (),
) -> bytes:
    """A query with recursion desired."""
    header = struct.pack("!HHHHHH", id_, flags, 1, 0, 0, len(additional))
    return header + wire_name(name) + struct.pack("!HH", type_, class_) + b"".join(additional)


def response(query_: bytes, *, rcode: int = 0, address: str = "192.0.2.7", truncated: bool = False) -> bytes:
    """An answer to `query_`, which must not have additional records: one A record, or none with an error code."""
    flags = 0x8180 | rcode | (0x0200 if truncated else 0)
    answers = 0 if rcode or truncated else 1
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(map(int, address.split(".")))
    return query_[:2] + struct.pack("!HHHHH", flags, 1, answers, 0, 0) + query_[12:] + record * answers


def rcode_of(message: bytes) -> int:
    """The response code of a message."""
    return message[3] & 0x0F


def counts_of(message: bytes) -> tuple[int, ...]:
    """The four section counts of a message."""
    return struct.unpack("!HHHH", message[4:12])
