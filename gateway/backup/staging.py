"""Putting a backup back, whole or not at all, whenever the power goes.

    restore/upload              what is being handed over
    restore/staged/…            everything that will be put in place, written and synced
    restore/commit/…            the same after one rename: from here on the backup holds, and every start goes on

What is in `commit` is put in place at the next start of posternd, before anything is opened; each file leaves `commit`
when it is in its place, so that a start that is killed in the middle goes on where it was. The certificate and the
configuration, which may take postern-system, come first: while they cannot be written, nothing else is touched.
Everything here blocks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from gateway.accounts.guests import KEY_FILE
from gateway.backup.contents import (
    ACCOUNTS,
    ADMINISTRATORS,
    CERTIFICATE,
    CERTIFICATE_KEY,
    OPERATORS_CERTIFICATE,
    OPERATORS_KEY,
    THEMES,
)

LOG: Final = logging.getLogger(__name__)
CONFIG: Final = "config"
_FOLDER: Final = "restore"


class Outside(Protocol):
    """What is written outside the state directory; raises ControlError or OSError."""

    def write_config(self, text: str) -> None:
        """Replace the configuration."""

    def write_certificate(self, certificate: str, key: str, *, operator: bool = False) -> None:
        """Replace the certificate that the administration's pages have made, or their copy of the operator's."""


def folder(state_dir: Path) -> Path:
    """Where all of it happens, made for us alone."""
    place = state_dir / _FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    place.chmod(0o700)
    return place


def upload(state_dir: Path) -> Path:
    """Where a backup is put together that comes in pieces."""
    return folder(state_dir) / "upload"


def begin(state_dir: Path) -> Path:
    """An empty directory to stage in."""
    import shutil  # here, because it stays in memory for good

    staged = folder(state_dir) / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    return staged


def stage(staged: Path, name: str, content: bytes) -> None:
    """Write one part; names are those of `contents`, which was asked about them."""
    path = staged / name
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644 if name.startswith(f"{THEMES}/") else 0o600)


def commit(state_dir: Path, staged: Path) -> None:
    """From now on the staged state is the one that holds."""
    for path in (*staged.rglob("*"), staged):
        _sync(path)
    staged.rename(folder(state_dir) / "commit")
    _sync(folder(state_dir))


def pending(state_dir: Path) -> bool:
    """Whether a backup waits to be put in place."""
    return (state_dir / _FOLDER / "commit").is_dir()


def finish(state_dir: Path, database: str, outside: Outside, step: Callable[[str], None] = lambda what: None) -> bool:
    """Put in place what was committed, and clear away what was not; whether something was put in place.

    `database` is the accounts' file of the configuration. Raises ControlError or OSError while it cannot be done: then
    it is done at a later start. `step` is told each act before it is done.
    """
    import shutil  # here, because it stays in memory for good

    place = state_dir / _FOLDER
    if not place.is_dir():
        return False
    ready = place / "commit"
    for left in [path for path in place.iterdir() if path != ready]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if not ready.is_dir():
        return False
    for name, key, operator in (
        (CERTIFICATE, CERTIFICATE_KEY, False),
        (OPERATORS_CERTIFICATE, OPERATORS_KEY, True),
    ):
        if (ready / name).exists() and (ready / key).exists():
            step(name)
            texts = (ready / name).read_text("ascii"), (ready / key).read_text("ascii")
            outside.write_certificate(*texts, operator=operator)
            (ready / name).unlink()
        (ready / key).unlink(missing_ok=True)
    if (ready / CONFIG).exists():
        step(CONFIG)
        outside.write_config((ready / CONFIG).read_text("utf-8"))
        (ready / CONFIG).unlink()
    for name, goal in ((KEY_FILE, KEY_FILE), (ACCOUNTS, database), (ADMINISTRATORS, ADMINISTRATORS)):
        if (ready / name).exists():
            step(name)
            # What is left of a transaction of the old file would be played into the new one.
            (state_dir / f"{goal}-journal").unlink(missing_ok=True)
            (ready / name).replace(state_dir / goal)
    if (ready / THEMES).exists():
        step(THEMES)
        if (state_dir / THEMES).exists():
            (state_dir / THEMES).rename(place / "old-themes")
        step("themes are out")
        (ready / THEMES).rename(state_dir / THEMES)
    _sync(state_dir)
    step("done")
    shutil.rmtree(place / "old-themes", ignore_errors=True)
    shutil.rmtree(ready)
    LOG.info("a backup was put in place")
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems do not sync directories
            raise
    finally:
        os.close(descriptor)
