"""The fuzzer itself: every target's story holds, and a failure is told with the seed that brings it back."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.__main__ import GATE, main, run


@pytest.mark.parametrize("name", GATE)
def test_a_few_stories_of_each_target_hold(name: str) -> None:
    """What the long run does for minutes, with three seeds of its own."""
    for seed in range(3):
        assert GATE[name](random.Random(seed)) > 0


def test_a_failure_is_told_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """The same target with the printed seed fails at once; others are fuzzed all the same; the exit code says it."""
    told: list[int] = []

    def brittle(rng: random.Random) -> int:
        told.append(rng.getrandbits(8))
        assert told[-1] > 10, "a small number"
        return 1

    assert run({"brittle": brittle, "mac-addresses": GATE["mac-addresses"]}, 2.0, seed=0) == 1
    out = capsys.readouterr().out
    seed = int(out.split("--seed ")[1].split()[0])
    assert random.Random(seed).getrandbits(8) <= 10
    assert "a small number" in out
    assert "mac-addresses" in out.splitlines()[-1]
    assert out.splitlines()[-1].endswith("ok")


def test_one_target_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """A line with inputs and their rate, exit code 0."""
    assert main(["0", "--target", "mac-addresses", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "seed 7" in out
    assert out.splitlines()[-1].split()[:3] == ["mac-addresses", "300", "inputs"]
