"""Cutting a capture: chosen records as a capture file of their own, or rewritten for sharing.

`cut` copies records as they stand, behind the header and interface descriptions of the file they come from, so that
link types, clocks and lengths stay what they were. `cut_anonymised` writes a new pcapng file whose packets went through
`anonymize`. Both stop at a size limit and say whether they did.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, Final, NamedTuple

from gateway.analysis.anonymize import Anonymizer
from gateway.analysis.frames import CaptureFile, Record

MOST_BYTES: Final = 100 << 20


class Cut(NamedTuple):
    """What was written."""

    packets: int
    bytes: int
    left_out: int  # frames that cannot be anonymised (no IP inside an unusual link layer)
    full: bool  # the size limit ended it


def cut(capture: CaptureFile, records: Iterable[Record], out: BinaryIO, *, limit_bytes: int = MOST_BYTES) -> Cut:
    """Write records of `capture` to `out` in file order, byte for byte."""
    out.write(capture.preamble)
    written, packets, described = len(capture.preamble), 0, 0
    for record in records:
        blocks = b""
        while described < len(capture.described) and capture.described[described][0] < record.offset:
            blocks += capture.described[described][1]
            described += 1
        if written + len(blocks) + len(record.raw) > limit_bytes:
            return Cut(packets, written, 0, True)
        out.write(blocks + record.raw)
        written += len(blocks) + len(record.raw)
        packets += 1
    return Cut(packets, written, 0, False)


def cut_anonymised(
    records: Iterable[Record], out: BinaryIO, anonymizer: Anonymizer, *, limit_bytes: int = MOST_BYTES
) -> Cut:
    """Write records to `out` as pcapng with nanoseconds, addresses mapped and payload gone."""
    head = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    out.write(head)
    written, packets, left_out = len(head), 0, 0
    interfaces: dict[int, int] = {}
    for record in records:
        rewritten = anonymizer.packet(record.linktype, record.data, record.wire_bytes)
        if rewritten is None:
            left_out += 1
            continue
        linktype, data, wire_bytes = rewritten
        blocks = b""
        if linktype not in interfaces:
            interfaces[linktype] = len(interfaces)
            nanoseconds = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)
            blocks = _block(1, struct.pack("<HHI", linktype, 0, 0) + nanoseconds)
        time = (record.t_ns >> 32 & 0xFFFFFFFF, record.t_ns & 0xFFFFFFFF)
        fields = struct.pack("<IIIII", interfaces[linktype], *time, len(data), max(wire_bytes, len(data)))
        blocks += _block(6, fields + data + bytes(-len(data) % 4))
        if written + len(blocks) > limit_bytes:
            return Cut(packets, written, left_out, True)
        out.write(blocks)
        written += len(blocks)
        packets += 1
    return Cut(packets, written, left_out, False)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
