"""Replacing a file: whole, with its owner and mode, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.system.files import may_replace, replace_file


def test_mode_and_owner_stay(tmp_path: Path) -> None:
    """The group that could read the file still can."""
    path = tmp_path / "postern"
    path.write_text("old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, 12345)
    before = path.stat()
    replace_file(path, b"new")
    after = path.stat()
    assert path.read_bytes() == b"new"
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert [item.name for item in tmp_path.iterdir()] == ["postern"]


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    """It may hold secrets."""
    replace_file(tmp_path / "postern", b"new")
    assert stat.S_IMODE((tmp_path / "postern").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A configuration that is kept elsewhere is changed there."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/postern").write_text("old")
    (tmp_path / "postern").symlink_to(tmp_path / "kept/postern")
    replace_file(tmp_path / "postern", b"new")
    assert (tmp_path / "postern").is_symlink()
    assert (tmp_path / "kept/postern").read_bytes() == b"new"


def test_what_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is as it was, and no piece of the new one lies about."""
    path = tmp_path / "postern"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["postern"]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "missing" / "postern", b"new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may replace every file")
def test_a_directory_that_is_not_ours_is_known_beforehand() -> None:
    """Then postern-system is asked."""
    assert not may_replace(Path("/etc/passwd"))


def test_our_own_directory_is_ours(tmp_path: Path) -> None:
    """A file that is not there yet counts."""
    assert may_replace(tmp_path / "postern")
