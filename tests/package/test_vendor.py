"""What packages carry is what the project depends on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from rootfs.vendor import locked

PROJECT = Path(__file__).resolve().parents[2]
# Compiled: packages take them from the distribution.
COMPILED = {"msgpack", "uvloop", "httptools"}


def test_each_pure_dependency_is_carried_in_an_accepted_version() -> None:
    """A library that the code needs and packages lack is found here, and not on a router."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=;\s]", line, maxsplit=1)[0] for line in project["dependencies"]}
    assert {name for name, _, _ in locked()} == wanted - COMPILED


def test_tests_run_with_the_version_that_is_carried() -> None:
    """The lock of the tests and the lock of the packages name the same versions."""
    lines = (PROJECT / "tests" / "requirements.lock").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    assert {name: version for name, version, _ in locked()} == {name: tested[name] for name, _, _ in locked()}
