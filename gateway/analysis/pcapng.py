"""Blocks of pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, enhanced, simple and old packet blocks.

Byte order is per section; link type, resolution and clock offset per interface, and interfaces start anew in each
section.
Name resolution, statistics, secrets, custom and unknown blocks are stepped over by their length.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway.analysis.linknames import linktype_name
from gateway.analysis.native import new_records
from gateway.analysis.records import CUSTOM_BLOCK, MAX_RECORD, Block, Interface, Notes, Walk
from gateway.analysis.timeline import Timeline

SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_CUSTOM: Final = (0x0BAD, 0x40000BAD)
_MAX_BLOCK: Final = MAX_RECORD + (1 << 16)
_MAX_INTERFACES: Final = 4096
_MAX_NS: Final = 1 << 62  # the year 2116; a damaged clock goes no further
_OPTION_NAME, _OPTION_RESOLUTION, _OPTION_OFFSET = 2, 9, 14


def walk_pcapng(notes: Notes, timeline: Timeline) -> Walk:
    """A walk over the blocks of a pcapng file."""
    return _PcapngWalk(notes, timeline)


class _PcapngWalk(Walk):
    def __init__(self, notes: Notes, timeline: Timeline) -> None:
        super().__init__(notes, timeline)
        self._order = "<"
        self._section: list[int] = []  # number of the interface in this section -> index in self.interfaces
        self._twins: dict[int, int] = {}
        self._custom_index: int | None = None
        self._blocks: list[Block] = []
        self._buffer = b""
        self._base = 0

    def rest_of(self, head: bytes) -> bytes:
        return head

    def step(self, buffer: bytes, base: int, last: bool) -> tuple[list[Block], int]:
        self._blocks, self._buffer, self._base = [], buffer, base
        append = self._append
        size = len(buffer)
        position = 0
        enhanced = struct.Struct(self._order + "IIIIIII").unpack_from
        head = struct.Struct(self._order + "II").unpack_from
        interfaces = self.interfaces
        while position + 12 <= size:
            kind, length = head(buffer, position)
            if kind == _SECTION:
                if buffer[position + 8 : position + 12] == b"\x1a\x2b\x3c\x4d":
                    self._order = ">"
                elif buffer[position + 8 : position + 12] == b"\x4d\x3c\x2b\x1a":
                    self._order = "<"
                else:
                    self._damaged("bad-block-length", "a section has an unknown byte order", base + position)
                    break
                enhanced = struct.Struct(self._order + "IIIIIII").unpack_from
                head = struct.Struct(self._order + "II").unpack_from
                kind, length = head(buffer, position)
                self._section = []
                self._twins = {}
            if length < 12 or length & 3 or length > _MAX_BLOCK:
                self._damaged("bad-block-length", f"a block says it is {length} bytes long", base + position)
                break
            end = position + length
            if end > size:
                break
            if kind == _ENHANCED and length >= 32:
                _, _, number, high, low, captured, wire = enhanced(buffer, position)
                if number >= len(self._section) or captured > length - 32:
                    if not self._repair(number, captured, length - 32, base + position):
                        break
                    captured = min(captured, length - 32)
                index = self._section[number]
                interface = interfaces[index]
                ticks = high << 32 | low
                if interface.divide == 1:
                    t = ticks * interface.multiply + interface.offset_ns
                else:
                    t = ticks * interface.multiply // interface.divide + interface.offset_ns
                append(position + 28, captured, wire, t, index)
            elif kind == _INTERFACE and length >= 20:
                self._add_interface(buffer, position, end)
            elif kind == _SIMPLE and length >= 16:
                self._simple(buffer, position, length, base)
            elif kind == _OLD_PACKET and length >= 32:
                self._old(buffer, position, length, base)
            elif kind in _CUSTOM and length >= 16:
                # Wireshark lists custom blocks as frames; ours are counted alike so that frame numbers agree.
                append(position + 12, length - 16, length - 16, self.timeline.last_ns, self._custom())
            if self.stopped:
                break
            position = end
        if last and position < size and not self.stopped:
            self.notes.add("truncated", "the file ends inside a block", base + position)
            self.stopped = True
        return self._blocks, position

    def _append(self, start: int, captured: int, wire: int, t: int, index: int) -> None:
        """Put a record behind the others, of interface `index`."""
        if not 0 <= t < _MAX_NS:
            t = min(max(t, 0), _MAX_NS)
        timeline = self.timeline
        timeline.frames += 1
        if not timeline.last_ns <= t < timeline.until:
            timeline.turn(t, timeline.last_ns, timeline.frames, timeline.wire_bytes)
        timeline.last_ns = t
        timeline.wire_bytes += wire
        if captured != wire:
            timeline.cut_record(captured, wire, timeline.frames, t)
        interface = self.interfaces[index]
        interface.packets += 1
        blocks = self._blocks
        if not blocks or interface.linktype != blocks[-1].interface.linktype:
            blocks.append(Block(self._buffer, self._base, interface, new_records()))
        block = blocks[-1]
        block.wire_bytes += wire
        block.records.append((start, start + captured, wire, t))

    def _damaged(self, name: str, sentence: str, offset: int) -> None:
        self.notes.add(name, sentence + "; reading stopped there", offset)
        self.stopped = True

    def _repair(self, number: int, captured: int, room: int, offset: int) -> bool:
        """A packet longer than its block is cut to it; one of an interface never described ends the walk."""
        if number >= len(self._section):
            self._damaged("bad-record-length", f"a packet of interface {number}, which was not described", offset)
            return False
        self.notes.add("bad-record-length", f"a packet of {captured} bytes in a block with room for {room}", offset)
        return True

    def _add_interface(self, buffer: bytes, position: int, end: int) -> None:
        linktype, _reserved, snaplen = struct.unpack_from(self._order + "HHI", buffer, position + 8)
        interface = Interface("", linktype, linktype_name(linktype), "us", snaplen, 28)
        option = position + 16
        while option + 4 <= end - 4:
            code, length = struct.unpack_from(self._order + "HH", buffer, option)
            value = buffer[option + 4 : option + 4 + length]
            if code == 0 or option + 4 + length > end - 4:
                break
            if code == _OPTION_NAME:
                interface.name = value[:64].split(b"\0")[0].decode("utf-8", "replace")
            elif code == _OPTION_RESOLUTION and length == 1:
                _set_resolution(interface, value[0])
            elif code == _OPTION_OFFSET and length == 8:
                interface.offset_ns = int(struct.unpack(self._order + "q", value)[0]) * 1_000_000_000
            option += 4 + length + (-length & 3)
        if len(self.interfaces) >= _MAX_INTERFACES:
            self._damaged("bad-block-length", f"more than {_MAX_INTERFACES} interfaces", position)
            return
        self._section.append(len(self.interfaces))
        self.interfaces.append(interface)

    def _simple(self, buffer: bytes, position: int, length: int, base: int) -> None:
        if not self._section:
            self._damaged("bad-record-length", "a packet of interface 0, which was not described", base + position)
            return
        wire = struct.unpack_from(self._order + "I", buffer, position + 8)[0]
        index = self._section[0]
        interface = self.interfaces[index]
        captured = min(wire, length - 16, interface.snaplen or length)
        twin = self._twin(index, 12)
        self.notes.add("no-timestamp", "simple packet blocks have no time; the time before is used", base + position)
        self._append(position + 12, captured, wire, self.timeline.last_ns, twin)

    def _old(self, buffer: bytes, position: int, length: int, base: int) -> None:
        number, _drops, high, low, captured, wire = struct.unpack_from(self._order + "HHIIII", buffer, position + 8)
        if number >= len(self._section) or captured > length - 32:
            if not self._repair(number, captured, length - 32, base + position):
                return
            captured = min(captured, length - 32)
        index = self._section[number]
        interface = self.interfaces[index]
        ticks = high << 32 | low
        t = ticks * interface.multiply // interface.divide + interface.offset_ns
        self._append(position + 28, captured, wire, t, index)

    def _custom(self) -> int:
        if self._custom_index is None:
            self._custom_index = len(self.interfaces)
            self.interfaces.append(Interface("custom blocks", CUSTOM_BLOCK, "pcapng custom block", "us", 0, 12))
        return self._custom_index

    def _twin(self, index: int, header: int) -> int:
        if index not in self._twins:
            origin = self.interfaces[index]
            twin = Interface(
                origin.name, origin.linktype, origin.linktype_name, origin.resolution, origin.snaplen, header
            )
            twin.twin_of = index
            self._twins[index] = len(self.interfaces)
            self.interfaces.append(twin)
        return self._twins[index]


def _set_resolution(interface: Interface, value: int) -> None:
    """if_tsresol: a negative power of ten, or of two when the top bit is set."""
    exponent = value & 0x7F
    if value & 0x80:
        interface.resolution = f"2^-{exponent}"
        interface.multiply, interface.divide = 1_000_000_000, 1 << exponent
    else:
        interface.resolution = {6: "us", 9: "ns", 3: "ms"}.get(exponent, f"10^-{exponent}")
        if exponent <= 9:
            interface.multiply, interface.divide = 10 ** (9 - exponent), 1
        else:
            interface.multiply, interface.divide = 1, 10 ** (exponent - 9)
