"""Clock, disk, memory and bounds of the kernel, judged from numbers."""

from __future__ import annotations

import pytest

from gateway.config import Config
from gateway.doctor import box
from gateway.doctor.box import Clock, Disk, Tables, Worker
from gateway.doctor.rows import Row, State

NOW = 1_800_000_000.0
MB = 1_000_000


@pytest.mark.parametrize(
    ("row", "state", "words"),
    [
        (box.judge_clock(Clock(NOW, NOW - 5, True)), State.OK, "is set"),
        (box.judge_clock(Clock(NOW, None, None)), State.OK, "is set"),
        (box.judge_clock(Clock(1000.0, None, True)), State.FAIL, "never set"),
        (box.judge_clock(Clock(5e9, None, True)), State.FAIL, "never set"),
        (box.judge_clock(Clock(NOW, NOW + 7200, True)), State.FAIL, "2.0 hours behind"),
        (box.judge_clock(Clock(NOW, None, False)), State.WARN, "nothing keeps it right"),
        (box.judge_disk(Disk("/state", 900 * MB, 600 * MB)), State.OK, "600 of 900 MB"),
        (box.judge_disk(Disk("/state", 900 * MB, 30 * MB)), State.WARN, "nearly full"),
        (box.judge_disk(Disk("/state", 900 * MB, 1 * MB)), State.FAIL, "is full"),
        (box.judge_disk(Disk("/state", 900 * MB, 600 * MB, "Read-only file system")), State.FAIL, "Read-only"),
        (box.judge_memory(512 * MB, 200 * MB), State.OK, "200 of 512"),
        (box.judge_memory(128 * MB, 20 * MB), State.WARN, "short"),
        (box.judge_memory(128 * MB, 5 * MB), State.FAIL, "used up"),
        (box.judge_memory(0, 0), State.SKIPPED, "does not say"),
        (box.judge_connections(Tables(10, 1000, None)), State.OK, "10 of 1000"),
        (box.judge_connections(Tables(850, 1000, None)), State.WARN, "nearly full"),
        (box.judge_connections(Tables(990, 1000, None)), State.FAIL, "dropped"),
        (box.judge_connections(Tables(None, None, None)), State.SKIPPED, "does not say"),
        (box.judge_neighbours(Config(), Tables(1, 1, 1024), [250]), State.OK, "enough for 250"),
        (box.judge_neighbours(Config(), Tables(1, 1, 1024), [4000]), State.WARN, "4000 guests may come"),
        (box.judge_neighbours(Config(), Tables(1, 1, 1024), []), State.WARN, "10000 guests may come"),
        (box.judge_neighbours(Config(), Tables(1, 1, None), [250]), State.SKIPPED, "not visible"),
        (box.judge_worker(Worker(has_spool=False)), State.SKIPPED, "no spool"),
        (box.judge_worker(Worker(has_spool=True)), State.WARN, "never run"),
        (box.judge_worker(Worker(True, 3.0)), State.OK, "alive"),
        (box.judge_worker(Worker(True, 90.0)), State.WARN, "90 s ago"),
        (box.judge_worker(Worker(True, trouble="Permission denied")), State.SKIPPED, "Permission denied"),
        (box.judge_system(True, ""), State.OK, "answers"),
        (box.judge_system(False, "No such file"), State.SKIPPED, "by itself"),
        (box.judge_system(True, "No such file"), State.WARN, "cannot be changed"),
    ],
)
def test_each_measure(row: Row, state: State, words: str) -> None:
    """Within bounds it is well, near them it warns, beyond them it fails; what nobody tells is skipped."""
    assert row.state is state
    assert words in row.text
    assert bool(row.remedy) is (state in (State.WARN, State.FAIL))
