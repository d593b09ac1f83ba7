"""Tables as CSV that a spreadsheet opens without being told what to do (OWASP: CSV injection)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

from webui.messages import Response

# A cell that begins so is taken for a formula by one spreadsheet or another; an apostrophe makes it a text again.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def cell(value: object) -> str:
    """One cell; numbers stay numbers, texts never become formulas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\0", "")
    return f"'{text}" if text.startswith(_FORMULA) else text


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A whole table (RFC 4180), with the mark by which spreadsheets know UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)
    return "\ufeff" + out.getvalue()


def attachment(content: str | bytes, name: str, kind: str) -> Response:
    """A file to be saved, never shown: its name holds nothing that a header could stumble over."""
    safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in name)[:100]
    body = content.encode("utf-8", "replace") if isinstance(content, str) else content
    headers = [("Content-Disposition", f'attachment; filename="{safe}"'), ("Cache-Control", "no-store")]
    return Response(200, body, kind, headers)


def csv_response(header: Iterable[str], rows: Iterable[Iterable[object]], name: str) -> Response:
    """A table as a file to be saved."""
    return attachment(table(header, rows), name, "text/csv; charset=utf-8")
