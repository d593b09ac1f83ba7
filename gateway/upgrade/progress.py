"""How far an upgrade is at this moment: a small file that postern-system replaces while it works, and posternd reads.

It is in the run directory, in memory: nothing of it must survive a start, and flash is not written for a bar.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from gateway.values import value_class

NAME: Final = "upgrade.json"
_EVERY_S: Final = 0.5
_LONGEST: Final = 4096

Report = Callable[[str, int, int], None]  # phase, octets done, octets in all


@value_class
class Progress:
    """What is being done, and how much of it is done."""

    phase: str  # verifying, writing, proving
    done_bytes: int
    total_bytes: int


def silent(phase: str, done_bytes: int, total_bytes: int) -> None:
    """A report that nobody reads."""


def reporter(run_dir: Path) -> Report:
    """Reports into a file of the run directory, at most twice a second within a phase."""
    import tempfile  # here, because it stays in memory for good

    said: dict[str, float] = {}

    def report(phase: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if done_bytes < total_bytes and now - said.get(phase, now - _EVERY_S) < _EVERY_S:
            return
        said[phase] = now
        # A fresh name and a rename: the directory is posternd's, which may have put a link in the way.
        descriptor, name = tempfile.mkstemp(prefix=f".{NAME}.", dir=run_dir)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(asdict(Progress(phase, done_bytes, total_bytes)), file)
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(run_dir / NAME)

    return report


def told(run_dir: Path) -> Progress | None:
    """What was reported last; None for nothing, or nothing that can be read."""
    try:
        with (run_dir / NAME).open(encoding="ascii") as file:
            found = json.loads(file.read(_LONGEST))
        return Progress(str(found["phase"]), int(found["done_bytes"]), int(found["total_bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(run_dir: Path) -> None:
    """Nothing is under way any more; twice is once."""
    (run_dir / NAME).unlink(missing_ok=True)
