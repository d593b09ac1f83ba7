"""Where the shared captures lie, what tshark says about them, and the analysis with and without its helper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis import native
from tests.gateway.analysis.outcomes import InPython

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures"


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of shared captures, which lies beside the project and is never part of it."""
    if not CAPTURES.is_dir():
        pytest.fail(f"the shared captures are missing: expected the folder {CAPTURES} beside the project")
    return CAPTURES


@pytest.fixture(scope="session")
def truth(captures: Path) -> dict[str, Any]:
    """Counts that tshark makes of each capture, by file name."""
    loaded: dict[str, Any] = json.loads((captures / "truth.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def native_helper() -> None:
    """The helper in machine code, which must be built for tests about it."""
    if not native.active():
        pytest.fail("the helper of the analysis is not built for this Python: ./build.sh native")


@pytest.fixture(scope="module")
def plain() -> Iterator[InPython]:
    """The analysis in Python alone."""
    other = InPython()
    yield other
    other.close()
