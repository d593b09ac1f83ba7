"""What the readers of both formats share: interfaces, notes on damage, blocks of records.

Plain classes, here and in all that an analysis imports: the module `dataclasses` and what it needs take as long to
import as half of the analysis itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.analysis._usual import Records
    from gateway.analysis.timeline import Timeline

# No real record is longer than this (BIG TCP ends at 512 KiB); a header that promises more is damaged.
MAX_RECORD: Final = 4 << 20

# Most bytes in one step of a walk: fewer than a record may have, so that no record longer than allowed is ever whole.
MOST_BYTES: Final = 1 << 17

# Stands for a link type where a record is no packet; the registry's numbers have 16 bits.
CUSTOM_BLOCK: Final = 0x1_0000

Record = tuple[int, int, int, int]


class Block:
    """Whole records of one buffer and one link type: see `reader` for what a record is.

    `base` is the buffer's offset in the file, `interface` that of the first record.
    """

    __slots__ = ("base", "buffer", "interface", "records", "wire_bytes")

    def __init__(
        self, buffer: bytes, base: int, interface: Interface, records: list[Record] | Records, wire_bytes: int = 0
    ) -> None:
        self.buffer = buffer
        self.base = base
        self.interface = interface
        self.records = records
        self.wire_bytes = wire_bytes


class Interface:
    """One recording interface; `header` is the length of what precedes the packet in its record.

    `ticks * multiply // divide + offset_ns` are nanoseconds.
    """

    __slots__ = (
        *("divide", "header", "linktype", "linktype_name", "multiply", "name", "offset_ns", "packets", "resolution"),
        *("snaplen", "twin_of", "wire_bytes"),
    )

    def __init__(
        self,
        name: str,
        linktype: int,
        linktype_name: str,
        resolution: str,
        snaplen: int,
        header: int,
        multiply: int = 1000,
        divide: int = 1,
        offset_ns: int = 0,
        twin_of: int | None = None,
    ) -> None:
        self.name = name
        self.linktype = linktype
        self.linktype_name = linktype_name
        self.resolution = resolution
        self.snaplen = snaplen
        self.header = header
        self.multiply = multiply
        self.divide = divide
        self.offset_ns = offset_ns
        self.twin_of = twin_of  # records without time stand in a twin of their interface, with another header length
        self.packets = 0
        self.wire_bytes = 0


class Notes:
    """Damage and oddities of the file by name: how many, where first, and a sentence about the first."""

    __slots__ = ("counts", "frames", "offsets", "sentences")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.sentences: dict[str, str] = {}
        self.offsets: dict[str, int | None] = {}
        self.frames: dict[str, int | None] = {}

    def add(
        self, name: str, sentence: str, offset: int | None = None, frame: int | None = None, count: int = 1
    ) -> None:
        """Count a note; the first occurrence gives the sentence and the place."""
        if name not in self.counts:
            self.sentences[name] = sentence
            self.offsets[name] = offset
            self.frames[name] = frame
        self.counts[name] = self.counts.get(name, 0) + count


class Walk:
    """Turns buffers into records; one subclass for each format."""

    def __init__(self, notes: Notes, timeline: Timeline) -> None:
        self.notes = notes
        self.timeline = timeline
        self.interfaces: list[Interface] = []
        self.stopped = False

    def rest_of(self, head: bytes) -> bytes:
        """The part of the first bytes of the file that `step` must see again."""
        raise AssertionError("each format has its own")

    def step(self, buffer: bytes, base: int, last: bool) -> tuple[list[Block], int]:
        """Blocks of the whole records of `buffer`, and how many of its bytes they used.

        `last` says that no more bytes will come; `buffer` is what was left of the one before and
        at most `MOST_BYTES` more.
        """
        raise AssertionError("each format has its own")
