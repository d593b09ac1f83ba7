"""A part of a table as a page asks for it: searched, sorted, cut. Pure; the rows are made by whoever has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.control import params as read
from gateway.control.protocol import JsonValue, Params

NAMES: Final = ("search", "sort", "descending", "offset", "limit")
MAX_ROWS: Final = 1000

Row = dict[str, JsonValue]


def part_of(rows: Iterable[Row], params: Params, searched: Sequence[str], sorts: Sequence[str]) -> JsonValue:
    """`total` and `rows` of a listing; all rows in their own order when nothing else is asked for.

    `searched` are the fields in which `search` may occur, `sorts` those by which may be sorted; what is not known of a
    row comes last. Raises ControlError for parameters that make no sense.
    """
    search = read.text(params, "search", "").casefold()
    sort = read.choice(params, "sort", list(sorts), None)
    descending = read.flag(params, "descending")
    offset = read.integer(params, "offset", 0)
    limit = read.integer(params, "limit", None, low=1, high=MAX_ROWS)
    found = [
        row for row in rows if not search or any(search in str(row.get(name) or "").casefold() for name in searched)
    ]
    if sort is not None:
        known = [row for row in found if row.get(sort) is not None]
        known.sort(key=lambda row: _order(row[sort]), reverse=descending)
        found = known + [row for row in found if row.get(sort) is None]
    shown: list[JsonValue] = list(found[offset : None if limit is None else offset + limit])
    return {"total": len(found), "rows": shown}


def _order(value: JsonValue) -> tuple[float, str]:
    """Numbers by their size, texts without case."""
    return (float(value), "") if isinstance(value, bool | int | float) else (0.0, str(value).casefold())
