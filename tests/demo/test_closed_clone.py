"""The first command of the README, in a clone that only root can read: whoever is root clones to their home."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rootfs.payload import PROJECT

pytestmark = pytest.mark.root

_PARTS = ("gateway", "webui", "rootfs", "tests")


def test_the_demonstration_runs_in_a_folder_closed_to_other_users(tmp_path: Path) -> None:
    """Folder above closed, files closed, strict umask: every step of the demonstration holds, and no mount stays."""
    closed = tmp_path / "home"
    clone = closed / "postern"
    for part in _PARTS:
        shutil.copytree(PROJECT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "build.sh", clone)
    (clone / ".venv").symlink_to((PROJECT / ".venv").resolve())
    closed.chmod(0o700)
    for path in [clone, *clone.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    with (tmp_path / "said").open("w+", encoding="utf-8") as said:
        done = subprocess.run(
            [str(clone / "build.sh"), "demo", "--once"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "POSTERN_SECOND_VIEW"},
            umask=0o077,
            timeout=300,
            check=False,
        )
        said.seek(0)
        text = said.read()
    assert done.returncode == 0, text
    assert "a folder above" in text
    assert "all steps held" in text
    assert str(clone) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
