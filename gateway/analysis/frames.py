"""Frames of a capture file by number or by offset: the reading side of the second look.

The engine streams the whole file once; this module goes back to a few places in it. It begins at an anchor (a frame
whose offset the report knows) and hops from header to header, so that nothing before the anchor is read again. A
compressed file has no places to go back to: it is unpacked up to the wanted place, or once into a scratch file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from gateway.analysis.refusals import AnalysisRefused

PCAP_MAGICS: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1000, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1000, 24),
    b"\xa1\xb2\xcd\x34": (">", 1000, 24),
}
SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
PACKETS: Final = frozenset({OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET})
CUSTOM: Final = frozenset({0x0BAD, 0x40000BAD})  # no packets, and yet numbered like them by Wireshark and the engine
LONGEST_RECORD: Final = 4 << 20
_SHORTER: Final = 16  # so much shorter is the head of a simple packet block, of which an anchor does not know
CHUNK: Final = 1 << 20
GZIP: Final = 31  # zlib's number for a gzip envelope with the largest window


class Interface(NamedTuple):
    """One interface of a capture file: what its frames begin with, and its clock."""

    linktype: int
    snap_bytes: int
    units_per_s: int  # resolution of time stamps
    offset_s: int


class Anchor(NamedTuple):
    """A frame and the offset of its record in the unpacked file."""

    frame: int
    offset: int


class Record(NamedTuple):  # not a dataclass: a walk makes one for each frame, and this is three times faster
    """One frame: when, what, and where its record lies in the unpacked file."""

    frame: int
    offset: int
    t_ns: int
    linktype: int
    wire_bytes: int
    data: bytes
    raw: bytes  # the record or block as it stands in the file


class CaptureFile:
    """An open capture; use as a context manager."""

    def __init__(self, stream: BinaryIO | _Unpacked) -> None:
        self._stream = stream
        self._buffer = b""
        self._base = 0  # offset of the buffer's first byte
        self._order = "<"
        self._scale = 1000
        self._record_header = 16
        self._first = 0  # offset of the first packet's record
        self.is_pcapng = False
        self.preamble = b""  # file header, or the blocks before the first packet
        self.interfaces: list[Interface] = []
        self.described: list[tuple[int, bytes]] = []  # section and interface blocks met behind the preamble
        self._read_preamble()

    @classmethod
    def open(cls, path: Path) -> CaptureFile:
        """Open a capture, compressed or not; raises AnalysisRefused if it is none and OSError if it cannot be read."""
        file = path.open("rb")
        try:
            return cls.of(file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def of(cls, file: BinaryIO) -> CaptureFile:
        """A capture in an open file that can seek, compressed or not; raises AnalysisRefused if it is none."""
        file.seek(0)
        return cls(_Unpacked(file) if file.read(2) == b"\x1f\x8b" else file)

    def __enter__(self) -> CaptureFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def walk(self, anchor: Anchor | None = None, *, first: int = 1, last: int | None = None) -> Iterator[Record]:
        """Records from frame `first` to `last`, hopping from `anchor`. Ends silently where the file is broken."""
        frame, offset = (anchor.frame, anchor.offset) if anchor is not None else (1, self._first)
        if self.is_pcapng:
            yield from self._walk_blocks(frame, offset, first, last)
        else:
            yield from self._walk_records(frame, offset, first, last)

    def _read_preamble(self) -> None:
        head = self._at(0, 24)
        known = PCAP_MAGICS.get(head[:4])
        if known is not None and len(head) == 24:
            self._order, self._scale, self._record_header = known
            snap, linktype = struct.unpack_from(self._order + "II", head, 16)
            self.interfaces = [Interface(linktype & 0xFFFF, snap, 10**9 // self._scale, 0)]
            self.preamble, self._first = head, 24
        elif head[:4] == b"\x0a\x0d\x0d\x0a" and len(head) == 24:
            self.is_pcapng = True
            offset = 0
            while (block := self._block(offset)) is not None and block[0] not in PACKETS | CUSTOM:
                self._learn(*block)
                offset += len(block[1])
                if offset <= CHUNK:
                    self.preamble += block[1]
            self._first = offset
        else:
            raise AnalysisRefused("not-a-capture", "This is not a capture file.", hint="pcap and pcapng can be read.")

    def _walk_records(self, frame: int, offset: int, first: int, last: int | None) -> Iterator[Record]:
        header = struct.Struct(self._order + "IIII")
        size, scale, linktype = self._record_header, self._scale, self.interfaces[0].linktype
        while last is None or frame <= last:
            raw = self._at(offset, size)
            if len(raw) < size:
                return
            seconds, fraction, captured, wire = header.unpack_from(raw)
            if captured > LONGEST_RECORD:
                return
            if frame >= first:
                raw = self._at(offset, size + captured)
                if len(raw) < size + captured:
                    return
                yield Record(frame, offset, seconds * 10**9 + fraction * scale, linktype, wire, raw[size:], raw)
            offset += size + captured
            frame += 1

    def _walk_blocks(self, frame: int, offset: int, first: int, last: int | None) -> Iterator[Record]:
        t_ns = 0
        if not self._is_packet(offset) and self._is_packet(offset + _SHORTER):
            offset += _SHORTER
        while last is None or frame <= last:
            block = self._block(offset)
            if block is None:
                return
            kind, raw = block
            if kind in PACKETS:
                packet = self._packet(kind, raw, t_ns)
                if packet is None:
                    return
                t_ns, linktype, wire, data = packet
                if frame >= first:
                    yield Record(frame, offset, t_ns, linktype, wire, data, raw)
                frame += 1
            elif kind in CUSTOM and len(raw) >= 16:
                frame += 1
            elif offset >= self._first:
                self._learn(kind, raw)
                if kind in {SECTION, INTERFACE} and (not self.described or self.described[-1][0] < offset):
                    self.described.append((offset, raw))
            offset += len(raw)

    def _is_packet(self, offset: int) -> bool:
        """Whether a packet block lies at an offset, judged by its kind and its two lengths."""
        block = self._block(offset)
        return block is not None and block[0] in PACKETS and block[1][4:8] == block[1][-4:]

    def _packet(self, kind: int, raw: bytes, last_t_ns: int) -> tuple[int, int, int, bytes] | None:
        """(time, link type, length on the wire, bytes) of a packet block; None if the block is damaged."""
        if kind == SIMPLE_PACKET:
            if not self.interfaces or len(raw) < 16:
                return None
            (wire,) = struct.unpack_from(self._order + "I", raw, 8)
            snap = self.interfaces[0].snap_bytes or wire
            return last_t_ns, self.interfaces[0].linktype, wire, raw[12 : 12 + min(wire, snap, len(raw) - 16)]
        if len(raw) < 32:
            return None
        number, high, low, captured, wire = struct.unpack_from(self._order + "IIIII", raw, 8)
        if kind == OLD_PACKET:
            (number,) = struct.unpack_from(self._order + "H", raw, 8)
        if number >= len(self.interfaces) or captured > len(raw) - 32:
            return None
        interface = self.interfaces[number]
        t_ns = (high << 32 | low) * 10**9 // interface.units_per_s + interface.offset_s * 10**9
        return t_ns, interface.linktype, wire, raw[28 : 28 + captured]

    def _block(self, offset: int) -> tuple[int, bytes] | None:
        head = self._at(offset, 12)
        if len(head) < 12:
            return None
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            self._order = "<" if head[8:12] == b"\x4d\x3c\x2b\x1a" else ">"
        kind, length = struct.unpack_from(self._order + "II", head)
        if length < 12 or length > LONGEST_RECORD:
            return None
        length = (length + 3) & ~3
        raw = self._at(offset, length)
        return (kind, raw) if len(raw) == length else None

    def _learn(self, kind: int, raw: bytes) -> None:
        """Take notice of a block that says how to read later ones."""
        if kind == SECTION:
            self.interfaces = []
        elif kind == INTERFACE and len(raw) >= 20:
            linktype, _, snap = struct.unpack_from(self._order + "HHI", raw, 8)
            units, offset_s, at = 10**6, 0, 16
            while at + 4 <= len(raw) - 4:
                code, size = struct.unpack_from(self._order + "HH", raw, at)
                value = raw[at + 4 : at + 4 + size]
                if code == 0:
                    break
                if code == 9 and size == 1:
                    units = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** min(value[0], 18)
                elif code == 14 and len(value) == size == 8:
                    (offset_s,) = struct.unpack(self._order + "q", value)
                at += 4 + (size + 3 & ~3)
            self.interfaces.append(Interface(linktype, snap, units, offset_s))

    def _at(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, fewer at the end of the file."""
        begin = offset - self._base
        if begin < 0 or begin + size > len(self._buffer):
            self._stream.seek(offset)
            self._buffer = self._stream.read(max(size, CHUNK))
            self._base, begin = offset, 0
        return self._buffer[begin : begin + size]


class _Unpacked:
    """A gzip file read as if it were unpacked: forward in one go, backward by starting again.

    Several members follow one another; a file that ends or breaks in the middle gives what came before.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._waiting: bytes = b""  # packed bytes not looked at yet
        self._ready: bytes = b""
        self._at: int = 0
        self._ended: bool = False
        self._restart()

    def seek(self, offset: int) -> None:
        """Go to an offset of the unpacked file."""
        if offset < self._at:
            self._restart()
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._ready) < size and not self._ended:
            self._fill(size - len(self._ready))
        out, self._ready = self._ready[:size], self._ready[size:]
        self._at += len(out)
        return out

    def close(self) -> None:
        """Close the file below."""
        self._packed.close()

    def _restart(self) -> None:
        self._packed.seek(0)
        self._engine = zlib.decompressobj(GZIP)
        self._waiting = self._ready = b""
        self._at = 0
        self._ended = False

    def _fill(self, size: int) -> None:
        if self._engine.eof:
            self._waiting = self._waiting.lstrip(b"\0")  # padding between members and at the end is allowed
            self._engine = zlib.decompressobj(GZIP)
        self._waiting = self._waiting or self._packed.read(CHUNK)
        if not self._waiting:
            self._ended = True
            return
        try:
            self._ready += self._engine.decompress(self._waiting, size)
        except zlib.error:
            self._ended = True
            return
        self._waiting = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail


def unpack(path: Path, scratch: Path, *, limit_bytes: int) -> bool:
    """Unpack a compressed capture for many looks; `False` (and no file) if it is not compressed or too large."""
    import shutil  # with three libraries for archives, which a page made of a report need not wait for

    with path.open("rb") as packed:
        if packed.read(2) != b"\x1f\x8b":
            return False
        stream = _Unpacked(packed)
        part = scratch.with_name(scratch.name + ".part")
        written = 0
        with part.open("wb") as out:
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                if written > limit_bytes or shutil.disk_usage(part.parent).free < CHUNK * 64:
                    part.unlink()
                    return False
                out.write(chunk)
    part.replace(scratch)
    return True
