"""Whether an upload can be a capture at all, told from its first bytes and its expansion while it still comes in.

Raises the same named refusals as the analysis, but before a job is made of the file: what it is by magic number, a
link type that cannot be analysed, compression that is damaged or grows beyond reason. Work and memory are bounded:
after `LOOKED_BYTES` of unpacked data the rest is left to the analysis, which goes on measuring.
"""

from __future__ import annotations

import zlib
from typing import Final

from gateway.analysis.link import DECODED
from gateway.analysis.linknames import linktype_name
from gateway.analysis.reader import not_a_capture, pcap_link_type
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Reader as ReaderSettings
from gateway.analysis.unpack import GZIP_MAGIC, check_expansion

LOOKED_BYTES: Final = 64 << 20  # unpacked; a bomb that waits longer is found by the analysis
HEAD_BYTES: Final = 24  # of a pcap file; a pcapng section is longer
_PIECE_BYTES: Final = 1 << 18


class Precheck:
    """Feed it the file in order, then call `finish`; both raise AnalysisRefused."""

    def __init__(self, settings: ReaderSettings | None = None) -> None:
        self._settings = settings or ReaderSettings()
        self._head = b""  # of the unpacked file, up to HEAD_BYTES
        self._first = b""  # fewer bytes than tell compressed from plain
        self._begun = False
        self._settled = False  # nothing more will be learnt
        self._member: zlib._Decompress | None = None
        self._packed = 0
        self._unpacked = 0

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the file as it is stored."""
        if self._settled:
            return
        if not self._begun:
            self._first += data
            if len(self._first) < len(GZIP_MAGIC):
                return
            self._begun = True
            data, self._first = self._first, b""
            if data.startswith(GZIP_MAGIC):
                self._member = zlib.decompressobj(31)
        if self._member is None:
            self._see(data)
            self._settled = len(self._head) == HEAD_BYTES and self._unpacked > HEAD_BYTES
        else:
            self._unpack(data)

    def finish(self) -> None:
        """The file is whole: a file that was too short to tell, or holds a header and nothing else, is refused."""
        if self._settled:
            return
        if len(self._head) < HEAD_BYTES:
            raise not_a_capture(self._head or self._first)
        if self._unpacked == HEAD_BYTES:
            raise AnalysisRefused(
                "empty",
                "The file has the header of a capture and no packet.",
                f"{self._unpacked} bytes",
                self._unpacked,
                "Record again: the recording may have been stopped before the first packet, or its filter fitted none.",
            )

    def _unpack(self, data: bytes) -> None:
        assert self._member is not None
        self._packed += len(data)
        while data and not self._settled:
            try:
                piece = self._member.decompress(data, _PIECE_BYTES)
            except zlib.error as err:
                if not self._unpacked:
                    raise AnalysisRefused(
                        "gzip-corrupt",
                        "The file is compressed and its compression is damaged from the start.",
                        str(err),
                        self._packed,
                        "Copy the file again in binary mode.",
                    ) from err
                self._settled = True  # the analysis reports what came before
                return
            self._see(piece)
            data = self._member.unconsumed_tail
            if self._member.eof:
                data = self._member.unused_data
                if not data.startswith(GZIP_MAGIC[: len(data)]):  # padding behind the last member
                    self._settled = True
                self._member = zlib.decompressobj(31)
            check_expansion(self._unpacked, self._packed, self._packed - len(data), self._settings)
            if self._unpacked >= LOOKED_BYTES:
                self._settled = True

    def _see(self, piece: bytes) -> None:
        """Count unpacked bytes, and judge the head once it is there."""
        self._unpacked += len(piece)
        if len(self._head) == HEAD_BYTES:
            return
        self._head += piece[: HEAD_BYTES - len(self._head)]
        if len(self._head) < HEAD_BYTES:
            return
        linktype = pcap_link_type(self._head)
        if linktype is not None and linktype not in DECODED:
            raise AnalysisRefused(
                "unsupported-linktype",
                f"The capture is of link type {linktype} ({linktype_name(linktype)}), which cannot be analysed.",
                "told by the file's header",
                20,
                "Record on an Ethernet, Wi-Fi (monitor mode), cooked, PPP or raw IP interface.",
            )
