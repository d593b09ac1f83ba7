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
