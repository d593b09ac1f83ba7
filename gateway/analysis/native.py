"""The door to the helper in machine code (`_usual.c`): it takes the usual packets, the rest stays Python.

The helper is optional. With it an analysis takes a fraction of the time and gives the same report: directions of flows
and their table are then its own types, which look to Python like those of `flows`, and it calls the rules in Python for
every segment that is not usual. It is used when it was built for this Python and for these tables;
`POSTERN_PURE_PYTHON=1` in the environment keeps it out.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.analysis import _usual
    from gateway.analysis.flows import Direction
    from gateway.analysis.records import Block, Record
    from gateway.analysis.state import State

_INTERFACE = 5  # which tables and calls these are: see `INTERFACE` in `_usual.c`


def _load() -> Any:  # Any: a module that most installations do not have
    if os.environ.get("POSTERN_PURE_PYTHON") == "1":
        return None
    try:
        from gateway.analysis import _usual
    except ImportError:  # not built here, or for another Python
        return None
    return suitable(_usual)


def suitable(helper: Any) -> Any:  # Any: as above, and perhaps an older one
    """The helper, or None when it was built for other tables than these."""
    return helper if getattr(helper, "INTERFACE", None) == _INTERFACE else None


_helper: ModuleType | None = _load()

# What `isinstance` takes for round trips that know how to describe themselves.
TRIPS: Any = () if _helper is None else _helper.Trips


def active() -> bool:
    """Whether the usual packets are taken in machine code."""
    return _helper is not None


def bind(*calls: object) -> None:
    """Tell the helper what to call, in its order, with what it looks up."""
    if _helper is not None:
        _helper.bind(*calls)


def direction_type(plain: type[Direction]) -> type[Direction]:
    """What the helper has for a direction of a flow; `plain` where there is no helper."""
    return plain if _helper is None else _helper.Direction


def new_table() -> dict[bytes, Direction] | _usual.Table:
    """An empty table of flows."""
    if _helper is None:
        return {}
    table: _usual.Table = _helper.Table()
    return table


def new_trips() -> array[int] | _usual.Trips:
    """An empty array of round trips in nanoseconds."""
    if _helper is None:
        return array("Q")
    trips: _usual.Trips = _helper.Trips()
    return trips


def new_registers(st: State) -> _usual.Registers | None:
    """What the helper knows of the tables of `st` in which it writes; they are the same until its end."""
    return None if _helper is None else _helper.Registers(st)


def sorted_trips(trips: Any) -> Any:  # Any: an array, or what the helper has for one
    """Round trips in order, in as little room as they take; `trips` is not to be used any more."""
    if not isinstance(trips, TRIPS):
        return array("Q", sorted(trips))
    trips.sort()
    return trips


def new_records() -> list[Record] | _usual.Records:
    """An empty list of records, or what the helper has for one."""
    if _helper is None:
        return []
    records: _usual.Records = _helper.Records()
    return records


def round_floats() -> Callable[[object], None] | None:
    """The helper's walk over a report, that brings its numbers to six digits; None where there is no helper."""
    return None if _helper is None else _helper.round_floats


def unusual(block: Block, ethertype_at: int, st: State) -> Iterator[tuple[int, Record]]:
    """(frame, record) of the packets of a block that the batch loop has to look at; the others are in the tables then.

    `ethertype_at` is where the type of an Ethernet frame is in this link type, -1 where there is none.
    """
    records = block.records
    if isinstance(records, list) or _helper is None:
        return enumerate(records, st.frame + 1)
    rest: Iterator[tuple[int, Record]] = _helper.Unusual(
        records, block.buffer, st.frame + 1, ethertype_at, st.tcp, st, st.registers
    )
    return rest


def taken(rest: Iterator[tuple[int, Record]]) -> tuple[int, int, int, int]:
    """What the helper has taken on the way through `unusual` that is not TCP over IPv4: packets of TCP over IPv6 and
    their bytes on the wire, datagrams over IPv4 and theirs.
    """
    if _helper is None or not isinstance(rest, _helper.Unusual):
        return 0, 0, 0, 0
    return rest.packets6, rest.bytes6, rest.datagrams, rest.datagram_bytes
