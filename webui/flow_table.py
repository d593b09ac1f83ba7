"""The flows of a report as a table: filtered, sorted and cut into pages here, so that a phone gets fifty rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Row = Mapping[str, Any]  # Any: a FlowRow of gateway.analysis.report, read back from JSON

# Name of an order -> the fields that are added up for it.
ORDERS: Final[dict[str, tuple[str, ...]]] = {
    "trouble": ("trouble",),
    "start": ("start",),
    "duration": ("duration",),
    "bytes": ("orig_bytes", "resp_bytes"),
    "packets": ("orig_pkts", "resp_pkts"),
    "retrans": ("retrans",),
    "ooo": ("ooo",),
    "rtt": ("rtt_ms",),
    "zero_window": ("zero_window",),
    "service": ("service",),
    "name": ("name",),
    "orig": ("orig_host",),
    "resp": ("resp_host",),
    "state": ("conn_state",),
}


def select(
    rows: Sequence[Row],
    *,
    sort: str = "trouble",
    descending: bool = True,
    search: str = "",
    proto: str = "",
    span: tuple[float | None, float | None] = (None, None),
) -> list[Row]:
    """Rows in which every word of `search` occurs, active within `span` (seconds), in order of `sort` (see ORDERS).

    What has no value of that kind comes last either way.
    """
    words = search.casefold().split()
    low, high = span
    found = [
        row
        for row in rows
        if (not proto or row["proto"] == proto)
        and (low is None or row["start"] + row["duration"] >= low)
        and (high is None or row["start"] <= high)
        and (not words or _fits(row, words))
    ]
    names = ORDERS[sort]
    known = [row for row in found if all(row[name] is not None for name in names)]
    unknown = [row for row in found if any(row[name] is None for name in names)]
    text = isinstance(known[0][names[0]], str) if known else False

    def key(row: Row) -> Any:  # Any: a text or a number, one kind for all rows
        return row[names[0]].casefold() if text else sum(row[name] for name in names)

    return sorted(known, key=key, reverse=descending) + unknown


def _fits(row: Row, words: Sequence[str]) -> bool:
    text = " ".join(
        str(part)
        for part in (
            *(row["uid"], row["proto"], row["orig_host"], f":{row['orig_port']}", row["resp_host"]),
            *(f":{row['resp_port']}", row["service"] or "", row["name"] or "", row["sni"] or "", row["conn_state"]),
        )
    ).casefold()
    return all(word in text for word in words)
