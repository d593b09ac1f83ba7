"""The door to the helper in machine code (`_usual.c`): it takes the usual packets, the rest stays Python.

The helper is optional. With it an analysis takes a fraction of the time and gives the same report: it fills the same
tables by the same rules, and leaves every packet alone that is not usual. It is used when it was built for this Python
and fits these tables; `POSTERN_PURE_PYTHON=1` in the environment keeps it out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.analysis import _usual
    from gateway.analysis.records import Block, Record
    from gateway.analysis.state import State


def _load() -> Any:  # Any: a module that most installations do not have
    if os.environ.get("POSTERN_PURE_PYTHON") == "1":
        return None
    try:
        from gateway.analysis import _usual
    except ImportError:  # not built here, or for another Python
        return None
    return _usual


_helper: ModuleType | None = _load()
_bound = False


def bind(
    direction: type, opening_syn: Callable[..., bool], roll: Callable[..., None], feed: Callable[..., None]
) -> None:
    """Tell the helper what a direction of a flow looks like, and what to call; one that does not fit is not used."""
    global _bound
    if _helper is None:
        return
    try:
        _helper.bind(direction, opening_syn, roll, feed)
    except (AttributeError, TypeError):  # built for other tables than these
        return
    _bound = True


def active() -> bool:
    """Whether the usual packets are taken in machine code."""
    return _bound


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
    if isinstance(records, list) or _helper is None or not _bound:
        return enumerate(records, st.frame + 1)
    rest: Iterator[tuple[int, Record]] = _helper.Unusual(records, block.buffer, st.frame + 1, ethertype_at, st.tcp, st)
    return rest
