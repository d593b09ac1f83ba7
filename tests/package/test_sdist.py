"""The source archive: it is whole, and what pip makes of it runs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from rootfs.build import source_epoch
from rootfs.payload import committed, version
from rootfs.sdist import write_sdist


def test_a_fresh_environment_runs_it(tmp_path: Path) -> None:
    """Installed from the archive, with its dependencies, `postern --version` answers."""
    source = write_sdist(tmp_path, source_epoch())
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(committed()) <= names
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    said = subprocess.run([str(venv / "bin/postern"), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"postern {version()}"
    for program in ("posternd", "postern-web", "postern-worker", "postern-system"):
        assert subprocess.run([str(venv / "bin" / program), "--help"], capture_output=True, check=False).returncode == 0
