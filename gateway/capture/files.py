"""Capture files of a bounded size, one after the other: pcap with nanoseconds, readable by every tool."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

MAGIC_NANOSECONDS: Final = 0xA1B23C4D
HEADER_BYTES: Final = 24


class RingFiles:
    """Writes records into `capture-NNNN.pcap`, at most `ring` files of `file_bytes` each.

    A ring of one never starts a second file: `write` then says that it is full. A larger ring drops its oldest file.
    """

    def __init__(self, directory: Path, *, linktype: int, snap_bytes: int, file_bytes: int, ring: int) -> None:
        self._directory = directory
        self._header = struct.pack("=IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, snap_bytes, linktype)
        self._file_bytes = file_bytes
        self._ring = ring
        self._number = 0
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._stream: BinaryIO | None = None
        self._start_file()

    @property
    def names(self) -> tuple[str, ...]:
        """The files there are, oldest first."""
        return tuple(self._names)

    @property
    def total_bytes(self) -> int:
        """Bytes in all files there are."""
        return sum(self._sizes)

    def write(self, record: bytes) -> bool:
        """Append one record, in a new file if this one would grow too large; `False` if there is no room for it."""
        if self._sizes[-1] + len(record) > self._file_bytes and self._sizes[-1] > HEADER_BYTES:
            if self._ring == 1:
                return False
            self._start_file()
        assert self._stream is not None
        self._stream.write(record)
        self._sizes[-1] += len(record)
        return True

    def flush(self) -> None:
        """Hand buffered records to the kernel, so that a reader sees whole records up to now."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> None:
        """Finish the last file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _start_file(self) -> None:
        self.close()
        if len(self._names) == self._ring:
            (self._directory / self._names.pop(0)).unlink(missing_ok=True)
            self._sizes.pop(0)
        self._number += 1
        name = f"capture-{self._number:04d}.pcap"
        self._stream = (self._directory / name).open("wb", buffering=1 << 18)
        os.fchmod(self._stream.fileno(), 0o660)  # the analysis reads it as another user of the same group
        self._stream.write(self._header)
        self._names.append(name)
        self._sizes.append(HEADER_BYTES)
