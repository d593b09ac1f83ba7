"""Where the shared captures lie, and what tshark says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
