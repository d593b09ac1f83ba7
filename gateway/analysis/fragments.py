"""IP fragments: which datagrams were complete, which overlapped, which look like an attack (RFC 791, RFC 5722, RFC
1858).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000
_MAX_PIECES: Final = 64
_MAX_HELD: Final = 4 << 20  # bytes of all unfinished datagrams together
G_TIME, G_FRAME, G_PIECES, G_TOTAL, G_LAST_FRAME, G_OVERLAP, G_DATA = range(7)
Key = tuple[bytes, bytes, int, int]


class FragmentTable:
    """Groups of fragments in work, and counts of those that are done."""

    def __init__(self) -> None:
        self.groups: dict[Key, list[Any]] = {}
        self.packets = self.total = self.complete = self.incomplete = self.overlapping = self.tiny = self.oversize = 0
        self.frames: dict[str, list[int]] = {}
        self.hosts: dict[str, tuple[bytes, bytes]] = {}
        self.times: dict[str, tuple[int, int]] = {}  # of the first and the last
        self.teardrop = 0
        self.held = 0

    def mark(self, what: str, frame: int, t: int, key: Key) -> None:
        """Keep the first frames, the hosts and the times of something odd."""
        first, last = self.times.get(what, (t, t))
        self.times[what] = (min(first, t), max(last, t))
        frames = self.frames.setdefault(what, [])
        if len(frames) < 100:
            frames.append(frame)
        self.hosts.setdefault(what, (key[0], key[1]))


def packet(
    st: State, key: Key, offset: int, length: int, more: bool, t: int, frame: int, data: bytes | None = None
) -> bytes | None:
    """Take one fragment: `offset` and `length` in bytes of the datagram's payload.

    Returns the whole payload with its last piece, where `data` was given for each, all of it was captured, nothing
    overlaps (RFC 5722) and there was room to keep it.
    """
    table = st.fragments
    table.packets += 1
    if offset + length > 65_535:
        table.oversize += 1
        table.mark("oversize", frame, t, key)
    if offset == 0 and more and length < st.settings.fragments.tiny_bytes - 20:
        table.tiny += 1
        table.mark("tiny", frame, t, key)
    group = table.groups.get(key)
    if group is not None and t - group[G_TIME] > st.settings.fragments.timeout_s * SECOND:
        _give_up(table, key)
        group = None
    if group is None:
        table.total += 1
        group = table.groups[key] = [t, frame, [], None, frame, False, {}]
        if len(table.groups) > st.settings.tables.fragment_groups:
            _give_up(table, next(iter(table.groups)))
    group[G_LAST_FRAME] = frame
    end = offset + length
    pieces: list[tuple[int, int]] = group[G_PIECES]
    for start, stop in pieces:
        if start < end and offset < stop and (start, stop) != (offset, end):
            if not group[G_OVERLAP]:
                group[G_OVERLAP] = True
                table.overlapping += 1
                table.mark("overlap", frame, t, key)
            if offset >= start and end <= stop:
                # A piece wholly inside another one is the shape of the teardrop family.
                table.teardrop += 1
                table.mark("teardrop", frame, t, key)
    if (offset, end) not in pieces and len(pieces) < _MAX_PIECES:
        pieces.append((offset, end))
        if data is not None and len(data) == length and table.held + length <= _MAX_HELD:
            group[G_DATA][offset] = data
            table.held += length
    if not more:
        group[G_TOTAL] = end
    if group[G_TOTAL] is not None and _covered(pieces, group[G_TOTAL]):
        table.complete += 1
        _forget(table, key)
        if not group[G_OVERLAP] and len(group[G_DATA]) == len(pieces):
            return b"".join(group[G_DATA][start] for start, _ in sorted(pieces))
    return None


def _forget(table: FragmentTable, key: Key) -> list[Any]:
    group = table.groups.pop(key)
    table.held -= sum(map(len, group[G_DATA].values()))
    return group


def _covered(pieces: list[tuple[int, int]], total: int) -> bool:
    reached = 0
    for start, stop in sorted(pieces):
        if start > reached:
            return False
        reached = max(reached, stop)
    return reached >= total


def _give_up(table: FragmentTable, key: Key) -> None:
    group = _forget(table, key)
    if len(group[G_PIECES]) >= _MAX_PIECES:  # too many pieces to tell
        return
    table.incomplete += 1
    table.mark("incomplete", group[G_FRAME], group[G_TIME], key)


def at_end(st: State) -> None:
    """Close the groups that never became complete."""
    for key in list(st.fragments.groups):
        _give_up(st.fragments, key)
