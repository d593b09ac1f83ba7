"""The examination without a daemon, as far as the configuration goes; the rest needs a network of its own."""

from __future__ import annotations

from pathlib import Path

from gateway.doctor.outside import examine_box
from gateway.doctor.rows import State


def test_a_missing_or_broken_file_is_told_and_nothing_else_is_looked_at(tmp_path: Path) -> None:
    """The daemon's row, the file's row, and one for all that could not be checked."""
    for content in (None, b"config zone 'a\n", b"\xff\xfe"):
        path = tmp_path / "postern"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        rows = examine_box(path, "posternd is not running")
        assert [row.check for row in rows] == ["posternd", "configuration", "everything else"]
        assert [row.state for row in rows] == [State.FAIL, State.FAIL, State.SKIPPED]
        assert rows[0].text == "Posternd is not running."


def test_a_gateway_that_is_switched_off_is_no_fault(tmp_path: Path) -> None:
    """As a package leaves it: nothing fails that is only so because nobody has set it up yet."""
    path = tmp_path / "postern"
    path.write_text(
        f"config postern\n\toption enabled '0'\n\toption state_dir '{tmp_path}'\n\toption run_dir '{tmp_path}'\n"
    )
    rows = examine_box(path, "posternd is not running")
    assert "switched off" in rows[0].text
    assert rows[0].state is State.SKIPPED
    assert not any(row.check.startswith(("zone", "uplink", "login page")) for row in rows)
    assert {row.check for row in rows} >= {"configuration", "clock", "disk", "memory"}
