"""What every test shares: where the shared captures are, and what happens to tests that need root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).resolve().parent.parent
CAPTURES = PROJECT.parent / "shared" / "captures"

# One profile everywhere: the same examples on a developer's machine and in CI, and no deadline on a busy box.
settings.register_profile("postern", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("postern")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-golden` makes golden tests write what they got instead of comparing."""
    parser.addoption("--rewrite-golden", action="store_true", help="write golden files instead of comparing with them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need root are skipped for others, and say so."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: makes network namespaces or nftables tables (sudo ./build.sh test)")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture
def rewrite_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--rewrite-golden"))


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real captures beside the project; a test that needs it fails with a sentence when it is missing."""
    if not CAPTURES.is_dir():
        pytest.fail(f"the shared captures are not at {CAPTURES}: put the shared folder beside the project's")
    return CAPTURES
