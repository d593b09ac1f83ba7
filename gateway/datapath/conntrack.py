"""Connection-tracking entries of clients that have left: found and deleted by mark, many numbers in one walk.

A logged-out client's number must not be given to another while an entry still carries it: answers from the Internet on
that entry would pass in the newcomer's name. The kernel deletes by `mark & mask == value` in a walk over its whole
table (a tenth of a second with 200,000 entries), so neighbouring numbers are put together into aligned blocks: `cover`
finds them, and a handful of walks serves hundreds of numbers. A block holds retired numbers only; any other may be
given out while the kernel walks. Where retired numbers lie too scattered for that, at most sixteen walks list what
carries any client's number, without the unmarked rest, and single entries are deleted.

Blocks while the kernel walks: for a thread, never for the event loop.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from gateway.datapath.nfnetlink import (
    ACK,
    DUMP,
    SUBSYSTEM_CONNTRACK,
    Channel,
    KernelRefused,
    Reply,
    attribute,
    attributes,
    message,
)
from gateway.datapath.ruleset import LAST_CLIENT_NUMBER

GET: Final = 1
DELETE: Final = 2
_CTA_TUPLE: Final = 1
_CTA_MARK: Final = 8
_CTA_ID: Final = 12
_CTA_ZONE: Final = 18
_CTA_MARK_MASK: Final = 21
_MANY_WALKS: Final = 16
_NAMES: Final = (_CTA_TUPLE, _CTA_ID, _CTA_ZONE)  # what tells an entry from every other


def sweep(retired: Collection[int]) -> int:
    """Delete every entry marked with a retired number; returns the number of walks. Raises OSError."""
    blocks = list(cover(retired))
    if len(blocks) > _MANY_WALKS:
        numbers = frozenset(retired)
        return _delete_listed(spans(retired), numbers.__contains__)
    channel = Channel()
    try:
        for value, mask in blocks:
            channel.ask(message(SUBSYSTEM_CONNTRACK, DELETE, ACK, 1, _marked(value, mask), family=0), 1)
    finally:
        channel.close()
    return len(blocks)


def sweep_unknown(is_known: Callable[[int], bool]) -> int:
    """Delete entries of client numbers that nobody knows, asked anew for each entry; returns the number of walks.

    After a start: what was retired before it is on nobody's list. Numbers may be given out while this runs.
    """
    return _delete_listed(spans(range(1, LAST_CLIENT_NUMBER + 1)), lambda number: not is_known(number))


def cover(retired: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Aligned blocks (value, mask) that hold every retired number and nothing else; numbers have 16 bits."""
    left = sorted(set(retired))
    at = 0
    while at < len(left):
        number = left[at]
        size = 1
        # Twice the size fits if it is aligned and all of it is retired; numbers are sorted, so its end tells.
        while number % (2 * size) == 0 and left[at + 2 * size - 1 : at + 2 * size] == [number + 2 * size - 1]:
            size *= 2
        yield number, 0xFFFFFFFF & ~(size - 1)
        at += size


def spans(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Blocks that hold all these numbers and many others, but never mark 0: one per length in bits, sixteen at most."""
    for bits in sorted({number.bit_length() for number in numbers}):
        first = 1 << bits - 1
        yield first, 0xFFFFFFFF & ~(first - 1)


def _marked(value: int, mask: int) -> bytes:
    return attribute(_CTA_MARK, value.to_bytes(4, "big")) + attribute(_CTA_MARK_MASK, mask.to_bytes(4, "big"))


def _delete_listed(blocks: Iterable[tuple[int, int]], is_doomed: Callable[[int], bool]) -> int:
    """List the entries of each block and delete the doomed ones one by one; returns the number of walks.

    Each is deleted when it is seen, by a second channel: entries of guests who are online are many, and not kept. What
    goes while the kernel lists makes it list others twice, and passes none over.
    """
    walks = 0
    listing = Channel()
    try:
        deleting = Channel()
        try:
            for value, mask in blocks:
                walks += 1
                request = message(SUBSYSTEM_CONNTRACK, GET, DUMP, 1, _marked(value, mask), family=0)
                for replies in listing.dump(request):
                    for number, family, identity in map(_identity, replies):
                        if is_doomed(number):
                            _delete(deleting, family, identity)
        finally:
            deleting.close()
    finally:
        listing.close()
    return walks


def _delete(channel: Channel, family: int, identity: bytes) -> None:
    try:
        channel.ask(message(SUBSYSTEM_CONNTRACK, DELETE, ACK, 1, identity, family=family), 1)
    except KernelRefused as refused:
        if refused.errno != errno.ENOENT:  # it ended by itself meanwhile
            raise


def _identity(reply: Reply) -> tuple[int, int, bytes]:
    """Mark and family of an entry, and the attributes that tell it from every other."""
    data = reply.data
    mark = 0
    names: list[bytes] = []
    for kind, start, end in attributes(data, reply.start, reply.end):
        if kind == _CTA_MARK:
            mark = int.from_bytes(data[start:end], "big")
        elif kind in _NAMES:
            names.append(data[start - 4 : end + (-end + start & 3)])  # with its header and padding
    return mark, data[reply.start - 4], b"".join(names)  # the family stands in front of the attributes
