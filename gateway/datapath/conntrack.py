"""Connection-tracking entries of clients that have left: found and deleted by mark, many numbers in one walk.

A logged-out client's number must not be given to another while an entry still carries it: answers from the Internet on
that entry would pass in the newcomer's name. The kernel deletes by `mark & mask == value` in a walk over its table that
takes milliseconds, so numbers are put together into aligned blocks that contain no online client: `cover` finds them.
Usually a handful of walks serves hundreds of numbers; where online and retired numbers lie too mixed for that, one dump
tells which marks are there at all. Runs on the worker thread (`netlink`), never on the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from gateway.datapath.nfnetlink import ACK, DUMP, SUBSYSTEM_CONNTRACK, Channel, attribute, attributes, message

GET: Final = 1
DELETE: Final = 2
_CTA_MARK: Final = 8
_CTA_MARK_MASK: Final = 21
_NUMBER_BITS: Final = 16
_HIGH_MASK: Final = 0xFFFF0000
_MANY_WALKS: Final = 64


def sweep(retired: Collection[int], online: Collection[int]) -> int:
    """Delete every entry marked with a retired number; returns the number of walks. Raises OSError."""
    channel = Channel()
    try:
        kept = {0, *online}  # mark 0 is everybody else's
        blocks = list(cover(retired, kept))
        if len(blocks) > _MANY_WALKS:
            present = _marks(channel)
            blocks = list(cover(present.intersection(retired), kept))
        for value, mask in blocks:
            channel.ask(_delete(value, mask), 1)
        return len(blocks)
    finally:
        channel.close()


def cover(retired: Iterable[int], kept: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Blocks (value, mask) that contain every retired number and none that is kept; numbers have 16 bits."""
    left = sorted(set(retired))
    kept_sorted = sorted(kept)
    at = 0
    while at < len(left):
        number = left[at]
        bits = 0
        # Grow the aligned block around the number until it would reach a kept one or hold nothing more.
        while bits < _NUMBER_BITS and not _any_in(kept_sorted, number, bits + 1):
            bits += 1
        last = number | (1 << bits) - 1
        yield number & ~((1 << bits) - 1), 0xFFFFFFFF & ~((1 << bits) - 1)
        while at < len(left) and left[at] <= last:
            at += 1


def _any_in(numbers: list[int], number: int, bits: int) -> bool:
    first = number & ~((1 << bits) - 1)
    place = bisect_left(numbers, first)
    return place < len(numbers) and numbers[place] < first + (1 << bits)


def _delete(value: int, mask: int) -> bytes:
    body = attribute(_CTA_MARK, value.to_bytes(4, "big")) + attribute(_CTA_MARK_MASK, mask.to_bytes(4, "big"))
    return message(SUBSYSTEM_CONNTRACK, DELETE, ACK, 1, body, family=0)


def _marks(channel: Channel) -> set[int]:
    """Every client number that some entry carries."""
    found: set[int] = set()
    # Only entries whose mark has no high bit: numbers, and the unmarked.
    body = attribute(_CTA_MARK, bytes(4)) + attribute(_CTA_MARK_MASK, _HIGH_MASK.to_bytes(4, "big"))
    for replies in channel.dump(message(SUBSYSTEM_CONNTRACK, GET, DUMP, 1, body, family=0)):
        for reply in replies:
            for kind, start, end in attributes(reply.data, reply.start, reply.end):
                if kind == _CTA_MARK:
                    found.add(int.from_bytes(reply.data[start:end], "big"))
    return found
