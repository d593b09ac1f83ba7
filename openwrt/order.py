"""The order of files in which they compress best.

Deflate looks back 32 kB, which is eight of our modules: files that have much in common stand next to each other. Each
next file is the one most of which was in what stands before it; that is the same order for the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# The header of a file and the rest of its last block are looked back upon as well.
_WINDOW_BYTES: Final = 30_000
_HEADER_BYTES: Final = 512
_PIECE_BYTES: Final = 8
_BEGINS: Final = re.compile(rb"\b\w|[^\w\s]")


def alike(files: Mapping[str, bytes]) -> list[str]:
    """The names of the files, each behind those that it is most like."""
    pieces = {name: _pieces(data) for name, data in sorted(files.items())}
    left = dict.fromkeys(pieces)
    order: list[str] = []
    while left:
        before, size = set[bytes](), 0
        for name in reversed(order):
            before |= pieces[name]
            size += len(files[name]) + _HEADER_BYTES
            if size > _WINDOW_BYTES:
                break
        if order:
            best = max(left, key=lambda name: len(pieces[name] & before) / (len(pieces[name]) + 1))
        else:
            best = max(left, key=lambda name: len(files[name]))
        order.append(best)
        del left[best]
    return order


def _pieces(data: bytes) -> frozenset[bytes]:
    return frozenset(data[found.start() : found.start() + _PIECE_BYTES] for found in _BEGINS.finditer(data))
