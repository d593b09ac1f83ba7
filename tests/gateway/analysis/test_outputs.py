"""Every output of every shared capture: valid, within its size, fit for a terminal."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.analysis import html, html_flows, schema, tables, text
from gateway.analysis.advice import advice_for
from gateway.analysis.anonymize import Anonymizer, anonymise_report
from gateway.analysis.engine import AnalysisRefused, Settings, analyze
from gateway.analysis.frames import Anchor, CaptureFile
from gateway.analysis.second_look import anchor_for
from tests.conftest import CAPTURES

REFUSED = "big-endian-us.pcap"  # netlink only
NAMES = sorted({path.name for path in CAPTURES.glob("*.pcap*")} - {REFUSED}) if CAPTURES.is_dir() else []


@cache
def _report(name: str) -> Any:
    with (CAPTURES / name).open("rb") as source:
        return json.loads(json.dumps(analyze(source, name=name, settings=Settings()), sort_keys=True))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """A capture that can be analysed."""
    return str(request.param)


def test_the_report_fits_the_schema(name: str) -> None:
    """With unknown fields forbidden, and in a size that a browser can take."""
    report = _report(name)
    jsonschema.validate(report, schema.build(closed=True))
    assert len(json.dumps(report)) <= 2_000_000


def test_the_page_is_small_and_complete(name: str) -> None:
    """At most 500 kB with the worst flows drawn, and every finding that is linked to is on it."""
    report = _report(name)
    with CaptureFile.open(CAPTURES / name) as capture:
        page = html.render(report, html_flows.worst_flows(capture, report))
    assert len(page.encode()) <= html.LIMIT_BYTES
    for finding in report["findings"][:50]:
        assert f'id="{finding["id"]}"' in page


def test_the_summary_fits_a_terminal(name: str) -> None:
    """No line is wider than eighty columns, no character steers the terminal."""
    for line in text.summary(_report(name), text.Style(width=80)).splitlines():
        assert len(line) <= 80
        assert not any(unicodedata.category(char) in {"Cc", "Cf"} for char in line)


def test_the_tables_hold_every_row(name: str) -> None:
    """As many lines as the report has rows, all of one width."""
    report = _report(name)
    for table in tables.TABLES:
        head, *rows = csv.reader(io.StringIO(tables.table(report, table), newline=""))
        assert {len(row) for row in rows} <= {len(head)}
    assert len(list(csv.reader(io.StringIO(tables.table(report, "flows"))))) == len(report["flows"]["rows"]) + 1


def test_every_finding_is_explained(name: str) -> None:
    """Its advice has words."""
    for finding in _report(name)["findings"]:
        assert advice_for(finding["advice"]), finding["advice"]


def test_an_anonymised_report_names_nobody(name: str) -> None:
    """It keeps the schema, and no public address or name of the original is left in it."""
    report = _report(name)
    shared = anonymise_report(report, Anonymizer(b"k" * 32))
    jsonschema.validate(shared, schema.build(closed=True))
    text_of = json.dumps(shared)
    for row in report["flows"]["rows"][:50]:
        for host in (row["name"], row["sni"]):
            if host and "." in host and not host.replace(".", "").isdigit():
                assert f'"{host}"' not in text_of


def test_every_flow_is_at_its_offset(name: str) -> None:
    """The record at a flow's offset is its first frame, wherever a look may begin there."""
    report = _report(name)
    with CaptureFile.open(CAPTURES / name) as capture:
        if capture.is_pcapng and len(capture.interfaces) != len(report["capture"]["interfaces"]):
            # Interfaces are described between packets, so the look begins at the start of the file.
            assert anchor_for(capture, report, report["capture"]["packets"]) is None
            return
        by_frame = {record.frame: record.offset for record in capture.walk()}
        assert len(by_frame) == report["capture"]["packets"]
        for row in report["flows"]["rows"][:20]:
            assert by_frame[row["first_frame"]] == row["offset"]
            at_once = next(capture.walk(Anchor(row["first_frame"], row["offset"]), first=row["first_frame"]))
            assert at_once.frame == row["first_frame"]


def test_there_are_captures_to_look_at() -> None:
    """The parameter lists above are not empty because a folder is missing."""
    assert len(NAMES) > 50, f"the shared captures are not at {Path(CAPTURES)}"


def test_a_capture_without_a_readable_interface_has_no_outputs() -> None:
    """It is refused by name, and nothing is made of it."""
    with pytest.raises(AnalysisRefused) as refused:
        _report(REFUSED)
    assert refused.value.error == "unsupported-linktype"
