"""Building blocks of the HTML report: tables, tiles, sections. Everything is escaped unless it is `Safe`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from gateway.analysis.escape import markup
from gateway.analysis.plots import bytes_text, milliseconds_text, rate_text, seconds_text

_NAMED_BY_NUMBER: Final = frozenset({"port", "frame", "type", "code", "mtu"})
_UNITS: Final = {"s": seconds_text, "ms": milliseconds_text, "bytes": bytes_text, "bps": rate_text}


class Safe(str):
    """Text that is markup already, made by this package from escaped pieces."""

    __slots__ = ()


class Number(NamedTuple):
    """A table cell that sorts by its value and shows its text."""

    value: float | int | None
    text: str


Cell = str | int | float | bool | Number | Safe | None


def inline(value: Cell) -> Safe:
    """One value as markup."""
    if value is None:
        return Safe('<span class="quiet">–</span>')
    if isinstance(value, Safe):
        return value
    if isinstance(value, bool):
        return Safe("yes" if value else "no")
    if isinstance(value, Number):
        return Safe(markup(value.text)) if value.value is not None else inline(None)
    if isinstance(value, float):
        return Safe(f"{value:.6g}")
    if isinstance(value, int):
        return Safe(f"{value:,}")
    return Safe(markup(value))


def section(anchor: str, title: str, body: Iterable[str]) -> Safe:
    """A titled card, or nothing if its body is empty."""
    inside = "".join(body)
    return Safe(f'<section id="{anchor}"><h2>{markup(title)}</h2>{inside}</section>') if inside else Safe("")


def tiles(pairs: Iterable[tuple[str, Cell]]) -> Safe:
    """Small labelled numbers; a pair whose value is None is left out."""
    body = "".join(
        f"<div><dt>{markup(label)}</dt><dd>{inline(value)}</dd></div>" for label, value in pairs if value is not None
    )
    return Safe(f'<dl class="tiles">{body}</dl>') if body else Safe("")


def pairs_list(pairs: Iterable[tuple[str, Cell]]) -> Safe:
    """A list of names and values, one to a line."""
    body = "".join(f"<dt>{markup(name)}</dt><dd>{inline(value)}</dd>" for name, value in pairs)
    return Safe(f'<dl class="kv">{body}</dl>') if body else Safe("")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, total: int, sortable: bool = False) -> Safe:
    """A table that scrolls sideways on a phone; says how many rows there are where not all are shown.

    A column title that begins with `#` holds numbers (right-aligned), one with `~` long text (may wrap).
    """
    if not rows:
        return Safe("")
    classes = [{"#": ' class="n"', "~": ' class="w"'}.get(title[:1], "") for title in columns]
    head = "".join(
        f'<th scope="col"{kind.replace("w", "")}>{markup(title.lstrip("#~"))}</th>'
        if kind == ' class="n"'
        else f'<th scope="col">{markup(title.lstrip("#~"))}</th>'
        for title, kind in zip(columns, classes, strict=True)
    )
    body = []
    for row in rows:
        cells = []
        for value, kind in zip(row, classes, strict=True):
            sort = (
                f' data-v="{"" if value.value is None else f"{value.value:.6g}"}"' if isinstance(value, Number) else ""
            )
            if sort == "" and type(value) is int and abs(value) >= 1_000:
                sort = f' data-v="{value}"'
            cells.append(f"<td{kind}{sort}>{inline(value)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    more = ""
    if total > len(rows):
        more = f'<p class="quiet">{len(rows)} of {total:,} shown; the JSON report and the CSV tables hold more.</p>'
    mark = " data-sort" if sortable else ""
    return Safe(
        f'<div class="scroll" tabindex="0"><table{mark}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f"{more}"
    )


def frame_list(frames: Sequence[int], count: int, most: int = 24) -> Safe:
    """Frame numbers as text that can be copied."""
    shown = ", ".join(str(frame) for frame in frames[:most])
    rest = count - min(len(frames), most)
    return Safe(f"<code>{shown}</code>" + (f" and {rest:,} more" if rest > 0 else ""))


def values(mapping: dict[str, Any]) -> str:  # Any: numbers and short strings of a report
    """A small mapping in one line: `max delay 4.36 s, rate 0.021, segments 1,952`; units are those of the names."""
    return ", ".join(_named(name, value) for name, value in mapping.items())


def _named(name: str, value: Any) -> str:  # Any: see `values`
    words = name.replace("_", " ")
    if name.rpartition("_")[2] in _NAMED_BY_NUMBER and isinstance(value, int):
        return f"{words} {value}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{words} {value_text(value)}"
    for unit, text in _UNITS.items():
        if name.endswith(f"_{unit}"):
            return f"{words.removesuffix(f' {unit}')} {text(value)}"
    return f"throughput {rate_text(value)}" if name == "bps" else f"{words} {value_text(value)}"


def value_text(value: Any) -> str:  # Any: see `values`
    """A number or short string of a report for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        listed = (str(item) if type(item) is int else value_text(item) for item in value[:12])  # ports, not counts
        return " ".join(listed) + (" …" if len(value) > 12 else "")
    if isinstance(value, dict):
        return values(value)
    return "none" if value is None else str(value)


def plain_cell(value: int | None) -> Number:
    """A number that is a name, such as a port or a frame: without separators, to be typed in elsewhere."""
    return Number(value, "" if value is None else str(value))


def bytes_cell(value: float | None) -> Number:
    """A number of bytes that sorts by value."""
    return Number(value, "" if value is None else bytes_text(value))


def seconds_cell(value: float | None) -> Number:
    """Seconds that sort by value."""
    return Number(value, "" if value is None else seconds_text(value))


def ms_cell(value: float | None) -> Number:
    """Milliseconds that sort by value."""
    return Number(value, "" if value is None else milliseconds_text(value))


def share_cell(value: float | None) -> Number:
    """A share of one, shown in per cent."""
    return Number(value, "" if value is None else f"{value * 100:.3g} %")
