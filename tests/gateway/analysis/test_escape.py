"""Names from packets on a terminal, a page and a spreadsheet."""

from __future__ import annotations

import csv
import html
import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis import escape


def test_a_plain_name_stays_as_it_is() -> None:
    """Honest names are not touched, in any script."""
    assert escape.show("www.example.org") == "www.example.org"
    assert escape.show("büro.пример.例え") == "büro.пример.例え"


def test_terminal_escapes_are_shown_not_obeyed() -> None:
    """An escape sequence in a name appears as text."""
    assert escape.show("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert escape.show("bell\x07") == "bell\\x07"


def test_bidi_and_invisible_characters_are_shown() -> None:
    """Marks that reorder or hide text appear as escapes."""
    assert escape.show("cod\u202egpj.exe") == "cod\\u202egpj.exe"
    assert escape.show("pay\u200bpal") == "pay\\u200bpal"


def test_stacked_marks_are_cut_down() -> None:
    """A letter carries at most two combining marks, the others are written out."""
    shown = escape.show("a" + "\u0301" * 5)
    assert shown.count("\u0301") == 2
    assert shown.count("\\u0301") == 3


def test_a_long_name_is_cut_with_a_sign() -> None:
    """What is cut ends in an ellipsis."""
    assert escape.show("x" * 300) == "x" * 253 + "…"


def test_bytes_that_are_no_text_are_shown_as_hexadecimal() -> None:
    """Invalid UTF-8 does not become a replacement character."""
    assert escape.show_bytes(b"ab\xff\xfe") == "ab\\xff\\xfe"


def test_formulas_do_not_survive_in_a_cell() -> None:
    """A cell that a spreadsheet would calculate begins with an apostrophe."""
    for start in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        assert escape.cell(start).startswith("'")
    assert escape.cell("example.org") == "example.org"


@given(st.text())
def test_no_control_or_format_character_is_left(text: str) -> None:
    """Whatever the text, what is shown holds only printable characters."""
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in escape.show(text))


@given(st.text(max_size=60))
def test_markup_is_text_again_after_the_browser(text: str) -> None:
    """Unescaping the markup gives exactly what a terminal would show."""
    marked = escape.markup(text)
    assert not set("<>\"'") & set(marked)
    assert html.unescape(marked) == escape.show(text)


@given(st.text(max_size=60))
def test_a_cell_survives_csv(text: str) -> None:
    """A cell read back by a CSV reader is one cell with one line."""
    out = io.StringIO(newline="")
    csv.writer(out).writerow([escape.cell(text)])
    out.seek(0)
    assert list(csv.reader(out)) == [[escape.cell(text)]]
