"""Connection-tracking entries of clients that have left: found and deleted by mark, many numbers in one walk.

A logged-out client's number must not be given to another while an entry still carries it: answers from the Internet on
that entry would pass in the newcomer's name. The kernel deletes by `mark & mask == value` in a walk over its whole
table (a tenth of a second with 200,000 entries), so numbers are put together into aligned blocks that contain no online
client: `cover` finds them, and a handful of walks serves hundreds of numbers. Where online and retired numbers lie too
mixed for that, at most sixteen walks list what carries any client's number, without the unmarked rest, and single
entries are deleted. Runs on the worker thread (`netlink`), never on the event loop.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from gateway.datapath.nfnetlink import (
    ACK,
    DUMP,
    SUBSYSTEM_CONNTRACK,
    Channel,
    KernelRefused,
    attribute,
    attributes,
    message,
)

GET: Final = 1
DELETE: Final = 2
_CTA_TUPLE: Final = 1
_CTA_MARK: Final = 8
_CTA_ID: Final = 12
_CTA_ZONE: Final = 18
_CTA_MARK_MASK: Final = 21
_NUMBER_BITS: Final = 16
_MANY_WALKS: Final = 16
_NAMES: Final = (_CTA_TUPLE, _CTA_ID, _CTA_ZONE)  # what tells an entry from every other


def sweep(retired: Collection[int], online: Collection[int]) -> int:
    """Delete every entry marked with a retired number; returns the number of walks. Raises OSError."""
    channel = Channel()
    try:
        # Mark 0 is everybody else's.
        blocks = list(cover(retired, {0, *online}))
        if len(blocks) > _MANY_WALKS:
            blocks = list(cover(retired, {0}))
            for value, mask in blocks:
                _delete_listed(channel, value, mask, frozenset(retired))
        else:
            for value, mask in blocks:
                channel.ask(message(SUBSYSTEM_CONNTRACK, DELETE, ACK, 1, _marked(value, mask), family=0), 1)
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


def _marked(value: int, mask: int) -> bytes:
    return attribute(_CTA_MARK, value.to_bytes(4, "big")) + attribute(_CTA_MARK_MASK, mask.to_bytes(4, "big"))


def _delete_listed(channel: Channel, value: int, mask: int, retired: frozenset[int]) -> None:
    """List the entries of a block and delete those of retired numbers one by one."""
    doomed: list[tuple[int, bytes]] = []
    for replies in channel.dump(message(SUBSYSTEM_CONNTRACK, GET, DUMP, 1, _marked(value, mask), family=0)):
        for reply in replies:
            mark = 0
            names: list[bytes] = []
            for kind, start, end in attributes(reply.data, reply.start, reply.end):
                if kind == _CTA_MARK:
                    mark = int.from_bytes(reply.data[start:end], "big")
                elif kind in _NAMES:
                    names.append(reply.data[start - 4 : end + (-end + start & 3)])  # with its header and padding
            if mark in retired:
                doomed.append((reply.data[reply.start - 4], b"".join(names)))  # the family stands before attributes
    for family, body in doomed:
        try:
            channel.ask(message(SUBSYSTEM_CONNTRACK, DELETE, ACK, 1, body, family=family), 1)
        except KernelRefused as refused:
            if refused.errno != errno.ENOENT:  # it ended by itself meanwhile
                raise
