"""Tables and units: what fits, what is cut, what is left out."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.render import Column, Output, display_width, duration, latency, moment, octets, rate, text
from gateway.control.protocol import JsonValue

COLUMNS = (
    Column("NAME", "name", least=6),
    Column("NUMBER", "number", right=True),
    Column("EXTRA", "extra", least=5, rank=1),
    Column("MORE", "more", rank=2),
)


def table(rows: list[dict[str, JsonValue]], width: int | None, *, colour: bool = False) -> list[str]:
    """The lines of a table."""
    stream = io.StringIO()
    Output(stream, width=width, colour=colour).table(rows, COLUMNS)
    return stream.getvalue().splitlines()


ROW: dict[str, JsonValue] = {"name": "alexandria", "number": 5, "extra": "something long", "more": "the rest"}


def test_a_pipe_gets_everything() -> None:
    """Without a width nothing is cut or left out."""
    assert table([ROW], None) == [
        "NAME        NUMBER  EXTRA           MORE",
        "alexandria       5  something long  the rest",
    ]


def test_a_narrow_terminal_gets_less() -> None:
    """Columns that may be cut are cut, the widest first; where that is not enough the least important ones go."""
    assert table([ROW], 40) == ["NAME        NUMBER  EXTRA       MORE", "alexandria       5  something…  the rest"]
    assert table([ROW], 36) == ["NAME      NUMBER  EXTRA     MORE", "alexand…       5  somethi…  the rest"]
    assert table([ROW], 30) == ["NAME        NUMBER  EXTRA", "alexandria       5  something…"]
    assert table([ROW], 20) == ["NAME        NUMBER", "alexandria       5"]
    assert table([ROW], 16) == ["NAME      NUMBER", "alexand…       5"]
    assert table([ROW], 3) == ["NAME    NUMBER", "alexa…       5"]  # what cannot be given up stays


@given(
    st.lists(
        st.fixed_dictionaries(
            {name: st.none() | st.text(max_size=40) | st.integers() for name in ("name", "number", "extra", "more")}
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(60, 200),
)
def test_any_row_is_one_printable_line(rows: list[dict[str, JsonValue]], width: int) -> None:
    """Whatever the values, a row is one line without control characters, and columns stay aligned."""
    lines = table(rows, width)
    assert len(lines) == len(rows) + 1
    assert all(character.isprintable() for line in lines for character in line)


def test_wide_characters_are_counted_as_two() -> None:
    """East Asian names do not push their neighbours out of line."""
    lines = table([{"name": "東京", "number": 1}, {"name": "abcd", "number": 22}], None)
    assert len({display_width(line.rsplit("-", 2)[0]) for line in lines[1:]}) == 1
    assert display_width("e\u0301") == 1


def test_colours_are_for_terminals() -> None:
    """Colour marks a state where asked for, and does not change the alignment."""
    plain = table([{"name": "online", "number": 1}], None)
    coloured = table([{"name": "online", "number": 1}], None, colour=True)
    assert "\x1b[32monline\x1b[0m" in coloured[1]
    assert coloured[1].replace("\x1b[32m", "").replace("\x1b[0m", "") == plain[1]
    assert not Output(io.StringIO()).colour


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (999_950, "1.0 MB"), (10**15, "1000 TB")],
)
def test_octets_have_three_digits(value: int, shown: str) -> None:
    """Amounts are short enough for a column and never `1000.0 kB`."""
    assert octets(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3599, "59m 59s"), (7500, "2h 05m"), (356_400, "4d 03h"), (-5, "-5s")],
)
def test_durations_have_two_units(value: float, shown: str) -> None:
    """Times are told in the two units that matter."""
    assert duration(value) == shown


def test_other_forms() -> None:
    """Rates, moments, and values of shapes that nobody expected."""
    assert rate(2_000_000) == "2.0 Mbit/s"
    assert rate(800) == "800 bit/s"
    assert len(moment(1_700_000_000)) == len("2023-11-14 22:13:20")
    assert text({"a": [1, True, None, "x\x1b"]}) == "a=1, yes, , x\\x1b"
    assert (latency(0.0008), latency(0.025), latency(1.25)) == ("0.8 ms", "25 ms", "1.2 s")
    for form in (octets, duration, rate, moment, latency):
        assert form(None) == ""
        assert form("odd") == "odd"
        assert form(True) == "yes"
