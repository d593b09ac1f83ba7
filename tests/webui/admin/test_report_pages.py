"""Report pages of a report in which every string means harm: nothing of it becomes markup, a formula or a header."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.analysis import job
from gateway.analysis.tables import TABLES
from tests.gateway.analysis.sample_report import HOSTILE, many_rows, sample
from tests.webui.admin.capture_admin import Web, running_web

NAME = job.display_name(HOSTILE.replace("/", ""))  # as an upload would have it


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, str]]:
    """The administration, and a finished job whose report is hostile throughout."""
    spool: Path = tmp_path_factory.mktemp("spool")
    directory = job.create(spool, "a.pcap", owner="ada", now_unix=time.time())
    (directory / job.CAPTURE).write_bytes(b"no capture at all")
    state = dataclasses.replace(job.submit(directory), status="completed", name=NAME, finished_unix=time.time())
    job.save(directory, state)
    report = many_rows(sample(HOSTILE), 60)
    for number, row in enumerate(report["flows"]["rows"]):
        report["flows"]["rows"][number] = {**row, "uid": f"C{number + 1}", "name": HOSTILE, "service": HOSTILE}
    report["capture"]["packets"] = 100
    (directory / job.REPORT).write_text(json.dumps(report))
    (directory / job.REPORT_HTML).write_text("made by the analysis")
    with running_web(spool) as web:
        yield web, directory.name


def harmless(text: str) -> None:
    """No markup of theirs, no control or bidi character."""
    for part in ("<script>alert", 'onload="x', "\x1b", "\u202e"):
        assert part not in text


@pytest.mark.parametrize(
    "path",
    [
        *("", "?q=script&severity=high&class=performance", "?from=0.5&to=2.5", "?from=x&to=y", "/flows", "/flows/C1"),
        *("/flows?q=%3Cscript%3E", "/flows?sort=bytes&down=1&page=2&size=25", "/flows?from=nan&to=inf", "/exports"),
        *("/tcp", "/dns", "/tls", "/http", "/media", "/control", "/hosts", "/protocols", "/settings"),
    ],
)
def test_no_page_lets_markup_through(place: tuple[Web, str], path: str) -> None:
    """Escaped on every page, and each page is whole."""
    web, task = place
    status, fields, text = web.page("GET", f"/captures/{task}{path}")
    assert status == 200
    assert "unsafe-inline" not in fields["content-security-policy"]
    harmless(text)
    assert text.rstrip().endswith("</html>")


def test_a_capture_that_is_none_any_more_is_said(place: tuple[Web, str]) -> None:
    """The flow page keeps its numbers, the packet page says why there is nothing."""
    web, task = place
    assert "not a capture" in web.page("GET", f"/captures/{task}/flows/C1")[2]
    assert web.page("GET", f"/captures/{task}/packets/1")[0] == 404
    assert web.ask("GET", f"/reports/{task}/capture?flow=C1")[0] in (404, 500)


def test_the_list_shows_the_name_as_text(place: tuple[Web, str]) -> None:
    """Also where it is asked whether to delete it."""
    web, _ = place
    text = web.page("GET", "/captures")[2]
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_downloads_hold_no_formula_and_no_header_of_theirs(place: tuple[Web, str]) -> None:
    """CSV cells that a spreadsheet would run begin with an apostrophe; the file name is ours."""
    web, task = place
    for name in TABLES:
        status, fields, body = web.ask("GET", f"/reports/{task}/csv/{name}")
        assert status == 200
        assert fields["content-disposition"].count('"') == 2
        for row in csv.reader(io.StringIO(body.decode())):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r")), (name, cell)
    assert web.ask("GET", f"/reports/{task}/csv/nothing")[0] == 400
    status, _, body = web.ask("GET", f"/reports/{task}/flows?sort=bytes&limit=10&offset=55&q=script")
    found = json.loads(body)
    assert (status, found["total"], len(found["rows"])) == (200, 60, 5)
    assert web.ask("GET", f"/reports/{task}/flows?limit=0")[0] == 400
