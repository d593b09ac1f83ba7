"""gzip as a stream with an expansion limit (RFC 1952): several members, a cut tail, and bombs that must not go off."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from gateway.analysis.records import Notes
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Reader as ReaderSettings

GZIP_MAGIC: Final = b"\x1f\x8b"
_INPUT_BYTES: Final = 1 << 18
_RATIO_FROM_BYTES: Final = 10 << 20  # a short run of zeros is no bomb


class Unpacker:
    """Unpacked bytes of a gzip stream on demand; never holds more than one piece."""

    def __init__(self, first: bytes, more: Callable[[int], bytes], settings: ReaderSettings, notes: Notes) -> None:
        self._more = more
        self._settings = settings
        self._notes = notes
        self._pending = first
        self._packed = len(first)
        self._unpacked = 0
        self._member = zlib.decompressobj(31)
        self._ended = False

    def read(self, wanted: int) -> bytes:
        """Up to `wanted` unpacked bytes, empty only at the end; raises AnalysisRefused for bombs and garbage."""
        pieces: list[bytes] = []
        missing = wanted
        while missing and not self._ended:
            piece = self._piece(missing)
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self, wanted: int) -> bytes:
        if self._member.eof and not self._next_member():
            return b""
        at_end = False
        if not self._pending:
            self._pending = self._more(_INPUT_BYTES)
            self._packed += len(self._pending)
            at_end = not self._pending
        try:
            piece = self._member.decompress(self._pending, wanted)
        except zlib.error as err:
            self._ended = True
            if not self._unpacked:
                raise AnalysisRefused(
                    "gzip-corrupt",
                    "The file is compressed and its compression is damaged from the start.",
                    str(err),
                    self._packed,
                    "Copy the file again in binary mode.",
                ) from err
            self._notes.add("truncated", f"the compressed data are damaged: {err}", self._unpacked)
            return b""
        self._pending = self._member.unconsumed_tail
        if at_end and not piece and not self._member.eof:
            self._ended = True
            self._notes.add("truncated", "the compressed data end early", self._unpacked)
        self._unpacked += len(piece)
        check_expansion(self._unpacked, self._packed, self._packed - len(self._pending), self._settings)
        return piece

    def _next_member(self) -> bool:
        rest = self._member.unused_data
        while len(rest) < 2:
            more = self._more(_INPUT_BYTES)
            if not more:
                break
            self._packed += len(more)
            rest += more
        if rest[:2] != GZIP_MAGIC:  # the end, or padding behind the last member
            self._ended = True
            return False
        self._member = zlib.decompressobj(31)
        self._pending = rest
        return True


def check_expansion(unpacked: int, packed: int, used: int, settings: ReaderSettings) -> None:
    """Raise AnalysisRefused where `unpacked` bytes out of `used` of `packed` are more than a capture grows."""
    ratio = unpacked / max(1, used)
    if unpacked > settings.max_unpacked or (unpacked > _RATIO_FROM_BYTES and ratio > settings.max_ratio):
        raise AnalysisRefused(
            "gzip-bomb",
            "The compressed file grows beyond what a capture does; unpacking stopped.",
            f"{unpacked} bytes out of {packed}, ratio {ratio:.0f}",
            unpacked,
            "If the file is genuine, unpack it yourself or raise reader.max_unpacked and reader.max_ratio.",
        )
