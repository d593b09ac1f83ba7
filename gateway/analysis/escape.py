"""Showing text that strangers wrote: names from packets, file names, host names.

A name in a packet may hold terminal escapes, right-to-left marks that turn `cod.exe` into `exe.doc`, markup, formulas
or ten thousand characters. Everything that leaves the analysis for a terminal, a page or a spreadsheet passes through
one of the functions here. What cannot be shown safely is shown as an escape (`\\x1b`, `\\u202e`), never dropped, so
that two different names stay two different names on the screen.
"""

from __future__ import annotations

import html
import unicodedata
from typing import Final

NAME_LIMIT: Final = 253  # characters: the longest DNS name, hence longer than any honest name from a packet
MARKS_IN_A_ROW: Final = 2  # combining marks allowed on one letter; more of them draw over the lines around
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of a formula

_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def show(text: str, limit: int = NAME_LIMIT) -> str:
    """Text for a terminal: control, bidi, invisible and unassigned characters as escapes, cut at `limit` characters."""
    cut = len(text) > limit
    if cut:
        text = text[:limit]
    if not (text.isascii() and text.isprintable()):
        text = _escaped(text)
        if len(text) > limit:  # each escape is longer than its character
            text, cut = text[:limit], True
    return text + "…" if cut else text


def show_bytes(raw: bytes, limit: int = NAME_LIMIT) -> str:
    """Bytes of unknown encoding for a terminal: UTF-8 where it is valid, other bytes as `\\xNN`."""
    return show(raw[: limit * 4].decode("utf-8", "backslashreplace"), limit)


def markup(text: str, limit: int = NAME_LIMIT) -> str:
    """Text for HTML or SVG, in element content and in quoted attributes alike."""
    return html.escape(show(text, limit), quote=True)


def cell(value: str, limit: int = 2048) -> str:
    """A string for a spreadsheet: as `show`, and with a leading `'` where it would be taken for a formula."""
    if value.startswith(FORMULA_STARTS):  # before `show`, which turns a leading tab into a harmless escape
        return "'" + show(value, limit)
    return show(value, limit)


def _escaped(text: str) -> str:
    out: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if (category in _UNSAFE_CATEGORIES and char != " ") or marks > MARKS_IN_A_ROW:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
        else:
            out.append(char)
    return "".join(out)
