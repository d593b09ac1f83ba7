"""Taking a gate out of the kernel waits for the one that runs, and does nothing while it goes on running."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from gateway.config import Config, General
from gateway.withdraw import StillRuns, withdraw


def test_a_gate_that_runs_is_left_alone(tmp_path: Path) -> None:
    """Its posternd holds the lock of its state directory, and would put everything back at once."""
    config = Config(general=General(state_dir=str(tmp_path)))
    with (tmp_path / "posternd.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StillRuns, match="stop it first"):
            withdraw(config, wait_s=0)
