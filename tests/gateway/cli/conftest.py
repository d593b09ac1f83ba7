"""The fake daemon and a way to run the command against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.gateway.cli.fake_daemon import FakeDaemon, running

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A fake daemon at a socket of its own."""
    with running(tmp_path / "control.sock") as fake:
        yield fake


@pytest.fixture
def postern(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Run:
    """`postern(*words)` -> (exit status, standard output, standard error)."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = main(["--socket", str(daemon.path), *words])
        except SystemExit as leaving:
            status = int(str(leaving.code))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
