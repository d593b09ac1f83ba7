"""A report as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from gateway.analysis import tables
from tests.gateway.analysis.sample_report import HOSTILE, many_rows, sample


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_row_is_as_wide_as_its_heading(name: str) -> None:
    """A table read back has a heading, one row for each of the report, and no ragged line."""
    text = tables.table(many_rows(sample(), 3), name)
    head, *rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) >= 1
    assert {len(row) for row in rows} == {len(head)}
    assert text.count("\r\n") == len(rows) + 1


@pytest.mark.parametrize("name", tables.TABLES)
def test_no_cell_is_a_formula_or_an_escape(name: str) -> None:
    """Text from packets neither calculates nor steers a terminal."""
    report = sample("=HYPERLINK(1)\x1b[2J")
    for row in csv.reader(io.StringIO(tables.table(report, name), newline="")):
        assert not any(value.startswith(("=", "+", "@")) for value in row)
        assert not any("\x1b" in value for value in row)


def test_a_udp_flow_leaves_the_tcp_columns_empty() -> None:
    """What was not measured is empty, not zero."""
    report = sample()
    row = report["flows"]["rows"][0]
    del row["tcp"]
    row["proto"] = "udp"
    line = next(csv.DictReader(io.StringIO(tables.table(report, "flows"), newline="")))
    assert line["orig_retrans"] == ""
    assert line["handshake_state"] == ""


def test_all_tables_are_written_to_a_directory(tmp_path: Path) -> None:
    """The directory is made, and each table is a file of its own."""
    written = tables.write_all(sample(HOSTILE), tmp_path / "new" / "csv")
    assert [path.stem for path in written] == list(tables.TABLES)
    assert all(path.read_bytes().endswith(b"\r\n") for path in written)
