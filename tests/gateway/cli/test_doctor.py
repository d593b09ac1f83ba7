"""`postern doctor`: rows as text and JSON, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.control.protocol import JsonValue
from tests.gateway.cli.conftest import Run
from tests.gateway.cli.fake_daemon import FakeDaemon

OK: JsonValue = {"check": "clock", "state": "ok", "text": "The clock is set.", "remedy": ""}
WARN: JsonValue = {"check": "disk", "state": "warn", "text": "Nearly full.", "remedy": "Delete \x1b[2Jlogs."}
FAIL: JsonValue = {"check": "zone guest: portal", "state": "fail", "text": "Silent.", "remedy": "Start it."}


def test_warnings_are_shown_and_do_not_fail(daemon: FakeDaemon, postern: Run) -> None:
    """A line per check, the remedy below it, control characters taken out, and a sum."""
    daemon.answers["doctor.run"] = {"rows": [OK, WARN]}
    status, out, _ = postern("doctor")
    assert status == 0
    assert "ok    clock: The clock is set." in out
    assert "WARN  disk: Nearly full.\n      -> Delete" in out
    assert "\x1b" not in out
    assert "0 faults, 1 warning, 1 in order, 0 not checked" in out


def test_a_failure_is_the_exit_status(daemon: FakeDaemon, postern: Run) -> None:
    """Also with JSON, which has the rows as they came."""
    daemon.answers["doctor.run"] = {"rows": [OK, FAIL]}
    status, out, _ = postern("doctor", "--json")
    assert status == 1
    assert json.loads(out) == {"rows": [OK, FAIL]}


def test_without_a_daemon_the_box_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first row says that posternd does not run, the exit status that something failed."""
    words = ["--socket", str(tmp_path / "none.sock"), "doctor", "--config", str(tmp_path / "none")]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL  posternd: Posternd is not running")
    assert "cannot be read" in out
