"""What the commands print: tables that fit the terminal, human units, and JSON.

A table on a terminal is cut to its width: columns that can be narrower get narrower, then the least important ones are
left out. In a pipe nothing is cut, so that `grep` and `awk` see whole values. Names chosen by guests go through `show`:
what a terminal would act upon is printed as an escape.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TextIO

from gateway.analysis.escape import show
from gateway.control.protocol import JsonValue

Row = Mapping[str, JsonValue]

GAP: Final = "  "
LONGEST_CELL: Final = 120  # characters; a guest's host name must not push everything else off the screen
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"
_RED: Final = "\x1b[31m"
_COLOURS: Final = {
    "online": _GREEN,
    "closed": _GREEN,  # a circuit breaker that lets requests through
    "bound": _GREEN,
    "opening": _YELLOW,
    "closing": _YELLOW,
    "authenticating": _YELLOW,
    "offered": _YELLOW,
    "quarantined": _RED,
    "open": _RED,  # a circuit breaker
    "half-open": _YELLOW,
}


class Column(NamedTuple):
    """One column: its heading, the field it shows, how, and what happens to it where space is short."""

    title: str
    field: str
    form: Callable[[JsonValue], str] | None = None  # None: the value as text
    right: bool = False
    least: int = 0  # characters it may be cut to; 0: never cut
    rank: int = 0  # columns of the highest rank are left out first; 0: never


class Output:
    """Where a command prints to."""

    def __init__(self, stream: TextIO | None = None, *, width: int | None = None, colour: bool | None = None) -> None:
        """By default standard output, as wide as its terminal; `width` None means without bound."""
        self.stream = sys.stdout if stream is None else stream
        terminal = self.stream.isatty()
        self.width = _terminal_width(self.stream) if width is None and terminal else width
        self.colour = (terminal and not os.environ.get("NO_COLOR")) if colour is None else colour

    def line(self, text: str = "") -> None:
        """One line, as it is."""
        self.stream.write(text + "\n")

    def heading(self, text: str) -> None:
        """A line that stands out."""
        self.line(f"{_BOLD}{text}{_PLAIN}" if self.colour else text)

    def json(self, value: JsonValue, *, compact: bool = False) -> None:
        """A JSON document; `compact` for streams, where a line is an item."""
        if compact:
            self.line(json.dumps(value, separators=(",", ":")))
        else:
            self.line(json.dumps(value, indent=2))

    def flush(self) -> None:
        """Let a reader at the other end of a pipe see it now."""
        self.stream.flush()

    def table(self, rows: Sequence[Row], columns: Sequence[Column]) -> None:
        """Rows under headings."""
        cells = [[_cell(row.get(column.field), column) for column in columns] for row in rows]
        shown = fit([[column.title for column in columns], *cells], columns, self.width)
        titles = GAP.join(_padded(columns[i].title, width, columns[i].right) for i, width in shown).rstrip()
        self.heading(titles)
        for row in cells:
            parts = []
            for index, width in shown:
                text = _cut(row[index], width)
                padded = _padded(text, width, columns[index].right)
                colour = _COLOURS.get(text) if self.colour else None
                parts.append(f"{colour}{padded}{_PLAIN}" if colour else padded)
            self.line(GAP.join(parts).rstrip())

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values below each other."""
        longest = max((display_width(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.line(f"{_padded(name, longest, right=False)}{GAP}{value}")


def fit(cells: Sequence[Sequence[str]], columns: Sequence[Column], width: int | None) -> list[tuple[int, int]]:
    """Which columns are shown, each with its width: (index, characters)."""
    natural = [max(display_width(row[index]) for row in cells) for index in range(len(columns))]
    shown = list(range(len(columns)))
    if width is None:
        return [(index, natural[index]) for index in shown]
    while _least_width(shown, natural, columns) > width:
        dispensable = [index for index in shown if columns[index].rank]
        if not dispensable:
            break
        shown.remove(max(dispensable, key=lambda index: columns[index].rank))
    widths = {index: natural[index] for index in shown}
    excess = sum(widths.values()) + len(GAP) * (len(shown) - 1) - width
    while excess > 0:  # take from the widest of those that may be cut
        cuttable = [i for i in shown if columns[i].least and widths[i] > max(columns[i].least, len(columns[i].title))]
        if not cuttable:
            break
        widths[max(cuttable, key=lambda index: widths[index])] -= 1
        excess -= 1
    return [(index, widths[index]) for index in shown]


def text(value: JsonValue) -> str:
    """Any value in one line, safe for a terminal; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return show(value, LONGEST_CELL)
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return show(", ".join(text(item) for item in value), LONGEST_CELL)
    return show(", ".join(f"{name}={text(item)}" for name, item in value.items()), LONGEST_CELL)


def octets(value: JsonValue) -> str:
    """`0 B`, `1.2 kB`, `34 MB`, with powers of 1000 as operators' contracts have them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 99.95 else f"{amount:.1f} {unit}"


def duration(value: JsonValue) -> str:
    """Seconds as `45s`, `3m 20s`, `2h 05m`, `4d 03h`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    seconds = round(abs(value))
    sign = "-" if value < 0 and seconds else ""
    if seconds < 60:
        return f"{sign}{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{sign}{minutes}m {seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{sign}{hours}h {minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{sign}{days}d {hours:02}h"


def latency(value: JsonValue) -> str:
    """Seconds as `0.8 ms`, `25 ms`, `1.2 s`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if value >= 1:
        return f"{value:.1f} s"
    return f"{value * 1000:.1f} ms" if value < 0.01 else f"{value * 1000:.0f} ms"


def rate(value: JsonValue) -> str:
    """`512 kbit/s`, `2.0 Mbit/s`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    return octets(value).removesuffix("B") + "bit/s"


def moment(value: JsonValue) -> str:
    """Unix time in the box's own time zone."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    except (OverflowError, ValueError, OSError):  # a clock far outside of what calendars hold
        return text(value)


def counted(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rows_of(value: JsonValue, name: str = "rows") -> list[Row]:
    """The list of objects under a name in an answer; what is not one is left out."""
    found = value.get(name) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def object_of(value: JsonValue, name: str | None = None) -> Row:
    """The object under a name in an answer (or the answer itself); empty when there is none."""
    found = value if name is None else (value.get(name) if isinstance(value, dict) else None)
    return found if isinstance(found, dict) else {}


def generic_columns(rows: Sequence[Row], first: Sequence[str] = ()) -> list[Column]:
    """Columns for rows whose fields this program need not know: units are taken from the fields' names."""
    names = [name for name in first if any(name in row for row in rows)]
    for row in rows:
        names += [name for name in row if name not in names]
    return [_generic_column(name, position) for position, name in enumerate(names)]


def generic_pairs(values: Row) -> list[tuple[str, str]]:
    """Names and values of an object, likewise."""
    pairs = []
    for name, value in values.items():
        column = _generic_column(name, 0)
        pairs.append((column.title.lower(), _cell(value, column)))
    return pairs


def display_width(string: str) -> int:
    """Cells that a string takes on a terminal: East Asian wide characters take two, combining marks none."""
    if string.isascii():
        return len(string)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in string
    )


def _generic_column(name: str, position: int) -> Column:
    if name == "seconds_left":
        return Column("LEFT", name, duration, right=True, rank=position)
    for suffix, form in (("_bytes", octets), ("_bps", rate), ("_unix", moment), ("_s", duration)):
        if name.endswith(suffix):
            title = show(name.removesuffix(suffix).replace("_", " "), LONGEST_CELL).upper()
            return Column(title, name, form, right=True, rank=position)
    return Column(show(name.replace("_", " "), LONGEST_CELL).upper(), name, least=8, rank=position)


def _cell(value: JsonValue, column: Column) -> str:
    if value is None:
        return "-"
    shown = text(value) if column.form is None else column.form(value)
    return shown or "-"


def _least_width(shown: Sequence[int], natural: Sequence[int], columns: Sequence[Column]) -> int:
    total = len(GAP) * (len(shown) - 1)
    for index in shown:
        least = columns[index].least
        total += min(natural[index], max(least, len(columns[index].title))) if least else natural[index]
    return total


def _cut(string: str, width: int) -> str:
    if display_width(string) <= width:
        return string
    kept = ""
    taken = 1  # for the mark
    for character in string:
        taken += display_width(character)
        if taken > width:
            break
        kept += character
    return kept + "…"


def _padded(string: str, width: int, right: bool) -> str:
    padding = " " * (width - display_width(string))
    return padding + string if right else string + padding


def _terminal_width(stream: TextIO) -> int | None:
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # a terminal that does not tell, such as a serial console
        return None
