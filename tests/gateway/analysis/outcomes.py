"""What an analysis gives, for comparing it with the helper in machine code and without.

    POSTERN_PURE_PYTHON=1 python -m tests.gateway.analysis.outcomes

is the other side of `InPython`: it answers each pickled (data, settings, block size) on its standard input by the
pickled outcome. The helper's types are chosen when the modules are imported, so that it takes a process of its own.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.analysis import native
from gateway.analysis.engine import analyze
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Settings
from tests.fuzz.analysis import damaged

_ROOT = Path(__file__).resolve().parents[3]


def outcome(data: bytes, settings: Settings, block_bytes: int | None = None) -> dict[str, Any]:
    """The report without its times, or the refusal."""
    try:
        report: dict[str, Any] = dict(analyze(io.BytesIO(data), name="x", settings=settings, block_bytes=block_bytes))
    except AnalysisRefused as refusal:
        return {"refused": str(refusal)}
    del report["timing"]
    return report


class InPython:
    """A process that analyses without the helper."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.analysis.outcomes"],
            cwd=_ROOT,
            env={**os.environ, "POSTERN_PURE_PYTHON": "1", "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def outcome(self, data: bytes, settings: Settings, block_bytes: int | None = None) -> dict[str, Any]:
        """The same as the function of this name, in the other process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        pickle.dump((data, settings, block_bytes), self._child.stdin)
        self._child.stdin.flush()
        answer: dict[str, Any] = pickle.load(self._child.stdout)
        return answer

    def close(self) -> None:
        """End the process."""
        self._child.communicate()


def damaged_ones_give_the_same(
    generator: random.Random, seeds: Sequence[bytes], bounds: Sequence[Settings], plain: InPython
) -> None:
    """Assert that flipped, cut out and doubled bytes change nothing about both giving the same."""
    for _ in range(150):
        data = damaged(generator, generator.choice(seeds))
        settings = generator.choice(bounds)
        assert outcome(data, settings) == plain.outcome(data, settings)


def main() -> None:
    """Answer until the input ends."""
    assert not native.active()
    while True:
        try:
            words = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(outcome(*words), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
