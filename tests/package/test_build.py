"""`./build.sh` says how it is called before it installs or makes anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rootfs import build
from rootfs.build import TARGETS, usage_problem
from rootfs.payload import PROJECT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deb"], "usage: ./build.sh deb amd64|arm64|armhf\n"),
        (["deb", "amd64", "arm64"], "usage: ./build.sh deb amd64|arm64|armhf\n"),
        (["openwrt", "mips"], f"usage: ./build.sh openwrt {'|'.join(TARGETS['openwrt'])}\n"),
        (["image", "x86-64"], "usage: ./build.sh image x86_64|rpi-arm64\n"),
        (["sdist", "amd64"], "usage: ./build.sh sdist\n"),
        (["boot", "x86_64", "--tests"], "usage: ./build.sh boot x86_64|rpi-arm64 [--test]\n"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_made_is_answered_with_what_can(words: list[str], said: str) -> None:
    """Exit code 2, by the system's Python, before packages or an environment are asked for."""
    done = subprocess.run([str(PROJECT / "build.sh"), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_every_target_is_known() -> None:
    """All that the usage text promises."""
    for task, choices in TARGETS.items():
        for words in [[task, choice] for choice in choices] or [[task]]:
            assert usage_problem(words) == ""
    assert usage_problem([]).startswith("usage: ")


def test_a_missing_tool_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "DIST", tmp_path / "dist")
    assert build.main(["deb", "amd64"]) == 3
    assert capsys.readouterr().err == "dpkg-deb is missing: apt-get install dpkg\n"
