"""Capture files: from a stream of bytes to blocks of packet records (pcap, modified pcap, pcapng, gzip of these).

The format is told by magic number, never by file name. The file is read in blocks of 64 KiB with the unfinished tail
carried over; nothing is mapped or kept, so memory does not depend on the size of the file. A damaged record ends the
walk with a note in `notes`; only a file of which nothing can be said is refused.

A record is `(start, end, wire_length, t_ns)`: positions in the block's buffer, nanoseconds since 1970. What
can be said of records without looking into their packets is in `timeline`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from gateway.analysis.linknames import linktype_name
from gateway.analysis.native import new_records
from gateway.analysis.pcapng import SECTION_MAGIC, walk_pcapng
from gateway.analysis.records import MAX_RECORD, MOST_BYTES, Block, Interface, Notes, Walk
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Reader as ReaderSettings
from gateway.analysis.timeline import SECOND, Timeline
from gateway.analysis.unpack import GZIP_MAGIC, Unpacker

# Small enough for a processor cache, and for the allocator to use the same memory again: from 128 KiB on it maps and
# unmaps each block, and the page faults cost more than everything else in reading.
BLOCK_BYTES: Final = 1 << 16

_LONGEST: Final = 262_144  # what libpcap writes at most
# magic (as read little-endian) -> (byte order, nanoseconds per unit of the fraction, record header length)
_PCAP: Final = {
    0xA1B2C3D4: ("<", 1000, 16),
    0xD4C3B2A1: (">", 1000, 16),
    0xA1B23C4D: ("<", 1, 16),
    0x4D3CB2A1: (">", 1, 16),
    0xA1B2CD34: ("<", 1000, 24),  # Kuznetzov's patched libpcap: 8 more bytes in each record header
    0x34CDB2A1: (">", 1000, 24),
}

_LOOKS_LIKE: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"PK\x03\x04", "a zip archive; unpack it and give the capture inside"),
    (b"%PDF", "a PDF document"),
    (b"snoop\0\0\0", "a Solaris snoop capture; convert it with: editcap -F pcap FILE OUT"),
    (b"XCP\0", "a Sniffer capture; convert it with: editcap -F pcap FILE OUT"),
    (b"GMBU", "a Network Monitor capture; convert it with: editcap -F pcap FILE OUT"),
    (b"RTSS", "a Network Monitor 1 capture; convert it with: editcap -F pcap FILE OUT"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it and give the capture inside"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"{", "JSON text"),
)


class Reader:
    """One capture being read: iterate over `blocks()`, then look at the other fields."""

    def __init__(self, source: BinaryIO, settings: ReaderSettings, pause_ns: int) -> None:
        self.source = source
        self.settings = settings
        self.pause_ns = pause_ns
        self.block_bytes = BLOCK_BYTES
        self.format = ""
        self.stored_bytes = 0
        self.unpacked_bytes = 0
        self.sha256 = ""
        self.interfaces: list[Interface] | None = None
        self.notes: Notes | None = None
        self.timeline: Timeline | None = None

    def blocks(self) -> Iterator[Block]:
        """Read the file to its end; yields blocks of whole records. Raises AnalysisRefused."""
        digest = hashlib.sha256()
        notes = self.notes = Notes()
        timeline = self.timeline = Timeline(notes, self.pause_ns)
        stream = _Stream(self, digest, notes)
        head = stream.take(24)
        walk = self._recognise(head, stream.gzip, notes, timeline)
        self.interfaces = walk.interfaces
        buffer = walk.rest_of(head)
        base = len(head) - len(buffer)
        while True:
            piece = stream.read(min(self.block_bytes, MOST_BYTES))
            buffer = buffer + piece if buffer else piece
            blocks, used = walk.step(buffer, base, not piece)
            yield from blocks
            if walk.stopped or not piece:
                break
            base += used
            buffer = buffer[used:]
        if walk.stopped and piece:  # damage: what lies behind it was unpacked only as far as the block went
            self.unpacked_bytes = base + used
        stream.drain()
        self.sha256 = digest.hexdigest()
        if not timeline.frames:
            where = f"{self.unpacked_bytes} bytes, no packet record"
            if notes.counts:
                where += "; " + "; ".join(notes.sentences.values())
            raise AnalysisRefused(
                "empty",
                "The file has the header of a capture and no packet.",
                where,
                base,
                "Record again: the recording may have been stopped before the first packet, or its filter fitted none.",
            )

    def _recognise(self, head: bytes, gzip: bool, notes: Notes, timeline: Timeline) -> Walk:
        if len(head) >= 4:
            magic = int.from_bytes(head[:4], "little")
            kind = _PCAP.get(magic)
            if kind is not None and len(head) >= 24:
                self.format = "pcap" + ("+gzip" if gzip else "")
                return _PcapWalk(head, *kind, notes, timeline)
            if head[:4] == SECTION_MAGIC and len(head) >= 12:
                self.format = "pcapng" + ("+gzip" if gzip else "")
                return walk_pcapng(notes, timeline)
            if kind is not None or head[:4] == SECTION_MAGIC:
                raise AnalysisRefused(
                    "empty", "The file ends inside its header.", f"{len(head)} bytes", len(head), "Copy the file again."
                )
        raise not_a_capture(head)


def pcap_link_type(head: bytes) -> int | None:
    """The link type in the first 24 bytes of a pcap file; None for pcapng, which has them further on.

    Raises AnalysisRefused for what is neither.
    """
    kind = _PCAP.get(int.from_bytes(head[:4], "little"))
    if kind is not None and len(head) >= 24:
        (number,) = struct.unpack_from(kind[0] + "I", head, 20)
        return int(number) & 0xFFFF
    if head[:4] == SECTION_MAGIC:
        return None
    raise not_a_capture(head)


def not_a_capture(head: bytes) -> AnalysisRefused:
    """The refusal of a file that begins like this, with what it looks like."""
    looks = "nothing known"
    text = head.lstrip().lower()
    if not head:
        looks = "an empty file"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<svg")):
        looks = "an HTML or XML page; a download may have saved an error page instead of the capture"
    elif len(head) >= 16 and head[8] & 0x7F in range(1, 49) and not head[9] & 0x80 and _erf_plausible(head):
        looks = "an ERF capture; convert it with: editcap -F pcap FILE OUT"
    else:
        for magic, what in _LOOKS_LIKE:
            if head.startswith(magic):
                looks = what
                break
        else:
            if all(32 <= byte < 127 or byte in (9, 10, 13) for byte in head):
                looks = "text; tcpdump's printed lines are not a capture, record with: tcpdump -w FILE"
    return AnalysisRefused(
        "not-a-capture",
        f"This is not a capture file; it looks like {looks}.",
        f"first bytes {head[:8].hex(' ')}",
        0,
        "Give a file in pcap or pcapng format, plain or compressed with gzip.",
    )


def _erf_plausible(head: bytes) -> bool:
    """ERF has no magic: record length covers the header, wire length fits, the second is between 2000 and 2100."""
    record, wire = struct.unpack_from(">H2xH", head, 10)
    seconds = int.from_bytes(head[4:8], "little")
    return 16 < record <= wire + 64 and 946_684_800 < seconds < 4_102_444_800


class _Stream:
    """The bytes of the file, unpacked if need be, counted and hashed on the way."""

    def __init__(self, reader: Reader, digest: hashlib._Hash, notes: Notes) -> None:
        self._reader = reader
        self._digest = digest
        first = self._stored(2)
        self.gzip = first == GZIP_MAGIC
        self._unpacker: Unpacker | None = None
        self._kept = first
        if self.gzip:
            self._kept = b""
            self._unpacker = Unpacker(first, self._stored_some, reader.settings, notes)

    def _stored(self, wanted: int) -> bytes:
        """`wanted` bytes of the stored file, fewer only at its end, however small the reads of the source are."""
        pieces: list[bytes] = []
        while wanted:
            piece = self._stored_some(wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _stored_some(self, wanted: int) -> bytes:
        reader = self._reader
        piece = reader.source.read(wanted)
        reader.stored_bytes += len(piece)
        self._digest.update(piece)
        if reader.stored_bytes > reader.settings.max_bytes:
            raise AnalysisRefused(
                "too-large",
                f"The file is larger than the limit of {reader.settings.max_bytes} bytes.",
                f"{reader.stored_bytes} bytes read",
                reader.stored_bytes,
                "Cut it (editcap -c, or a capture filter) or raise reader.max_bytes.",
            )
        return piece

    def take(self, wanted: int) -> bytes:
        """Exactly `wanted` unpacked bytes, fewer only at the end."""
        pieces: list[bytes] = []
        while wanted:
            piece = self.read(wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def read(self, wanted: int) -> bytes:
        """The next unpacked bytes, at most `wanted`; empty at the end."""
        if self._unpacker is not None:
            piece = self._unpacker.read(wanted)
        else:
            kept, self._kept = self._kept[:wanted], self._kept[wanted:]
            piece = kept + self._stored(wanted - len(kept)) if len(kept) < wanted else kept
        self._reader.unpacked_bytes += len(piece)
        return piece

    def drain(self) -> None:
        """Read the stored file to its end, so that its hash and size are those of the whole file."""
        while self._stored_some(BLOCK_BYTES):
            pass


class _PcapWalk(Walk):
    """Records of a classic pcap file."""

    def __init__(self, head: bytes, order: str, unit_ns: int, header: int, notes: Notes, timeline: Timeline) -> None:
        super().__init__(notes, timeline)
        _major, _minor, _zone, _sigfigs, snaplen, link = struct.unpack_from(order + "HHiIII", head, 4)
        self._fields = struct.Struct(order + "IIII").unpack_from
        self._unit_ns = unit_ns
        self._big = order == ">"
        self._header = header
        self._limit = min(max(_LONGEST, snaplen + 4096), MAX_RECORD)
        resolution = "ns" if unit_ns == 1 else "us"
        linktype = link & 0xFFFF  # the upper half holds the length of the frame check sequence
        self.interfaces.append(Interface("", linktype, linktype_name(linktype), resolution, snaplen, header))

    def rest_of(self, head: bytes) -> bytes:
        return b""

    def step(self, buffer: bytes, base: int, last: bool) -> tuple[list[Block], int]:
        records = new_records()
        append = records.append
        fields, unit, header = self._fields, self._unit_ns, self._header
        fraction_limit = SECOND // unit
        timeline = self.timeline
        frame, previous, until = timeline.frames + 1, timeline.last_ns, timeline.until
        # Bytes on the wire before a record: what is in the file, and what was cut.
        cut = before = timeline.wire_bytes
        second, second_ns = -1, 0  # of the record before: most are of the same second
        position, size = 0, len(buffer)
        stop = size - header
        while position <= stop:
            if not isinstance(records, list):
                position = records.walk(buffer, position, header, unit, self._big, previous, until)
                if records:
                    previous = records[-1][3]
                if position > stop:
                    break
            seconds, fraction, captured, wire = fields(buffer, position)
            start = position + header
            end = start + captured
            if end > size:
                if captured > self._limit:
                    self.notes.add(
                        "bad-record-length",
                        f"a record says it is {captured} bytes long; reading stopped there",
                        base + position,
                    )
                    self.stopped = True
                break
            if fraction >= fraction_limit:
                self.notes.add(
                    "fraction-out-of-range", "the fraction of a second is more than one second", base + position
                )
            if seconds != second:
                second, second_ns = seconds, seconds * SECOND
            t = second_ns + fraction * unit
            if not previous <= t < until:
                number = len(records)
                until = timeline.turn(t, previous, frame + number, position - number * header + cut)
            previous = t
            if captured != wire:
                timeline.cut_record(captured, wire, frame + len(records), t)
                cut += wire - captured
            append((start, end, wire, t))
            position = end
        number = len(records)
        timeline.frames += number
        timeline.last_ns = previous
        timeline.wire_bytes = position - number * header + cut
        if last and position < size and not self.stopped:
            self.notes.add("truncated", "the file ends inside a record", base + position)
            self.stopped = True
        interface = self.interfaces[0]
        interface.packets += number
        wire_bytes = timeline.wire_bytes - before
        return [Block(buffer, base, interface, records, wire_bytes)] if records else [], position
