"""Many checks at once: one that fails or hangs becomes a row and spoils no other."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Sequence

import pytest

from gateway.control.protocol import INTERNAL, ControlError
from gateway.datapath.elements import ElementsRefused
from gateway.doctor.examination import Ask, Look, examine, examine_in_threads
from gateway.doctor.rows import Row, State, ok

GOOD = Look("good", lambda: [ok("good", "Fine.")])


def raising(error: BaseException) -> Look:
    def look() -> Sequence[Row]:
        raise error

    return Look("bad", look)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (PermissionError(1, "Operation not permitted"), "may not be looked at"),
        (ValueError("this is no X.509 certificate"), "no X.509 certificate"),
        (EOFError(), "EOFError"),
        (subprocess.TimeoutExpired("nft", 3), "nft"),
        (ControlError(INTERNAL, "the other end broke"), "the other end broke"),
        (ElementsRefused("no table", lost=True), "no table"),
    ],
)
def test_trouble_of_one_check_is_its_row(error: Exception, words: str) -> None:
    """The others are told as ever, in their order; with a loop and without."""
    checks = [GOOD, raising(error), GOOD]
    for rows in (asyncio.run(examine(checks)), examine_in_threads(checks)):
        assert [row.check for row in rows] == ["good", "bad", "good"]
        assert rows[1].state is State.SKIPPED
        assert words in rows[1].text


def test_a_check_that_hangs_is_told_and_waited_for_no_longer() -> None:
    """Its row says that it took too long."""
    over = threading.Event()

    def hangs() -> Sequence[Row]:
        over.wait(20)
        return []

    async def never() -> Sequence[Row]:
        await asyncio.Event().wait()
        return []

    try:
        rows = asyncio.run(examine([Look("thread", hangs), GOOD, Ask("loop", never)], limit_s=0.2))
        assert [row.state for row in rows] == [State.SKIPPED, State.OK, State.SKIPPED]
        assert "within 0.2 s" in rows[0].text
        assert [row.state for row in examine_in_threads([Look("thread", hangs), GOOD], limit_s=0.2)] == [
            State.SKIPPED,
            State.OK,
        ]
    finally:
        over.set()


def test_a_fault_of_ours_is_loud() -> None:
    """What no system and no peer can cause is not made a row."""
    with pytest.raises(KeyError):
        examine_in_threads([raising(KeyError("x"))])
