"""Looking into the daemon: each view tells the truth about a loop made for the test."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

import pytest

from gateway.control import protocol
from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.control.server import Access, Caller
from gateway.debug import Debugger, resident_bytes

CALLER = Caller(0, 0, 1, frozenset(), Access.READ | Access.WRITE, "root")


def make() -> Debugger:
    """With one rate limiter."""
    return Debugger({"dhcp clients": lambda: {"sources": 3, "limited": 1}})


def rows_of(answer: JsonValue, name: str = "rows") -> list[dict[str, JsonValue]]:
    """The objects in an answer's list."""
    assert isinstance(answer, dict)
    rows = answer[name]
    assert isinstance(rows, list)
    return [row for row in rows if isinstance(row, dict)]


def burn_cycles() -> int:
    """Something that shows in a profile."""
    end = time.perf_counter() + 0.05
    count = 0
    while time.perf_counter() < end:
        count += 1
    return count


def test_the_profile_names_what_runs() -> None:
    """The busy function is in the listing, the loop goes on during the profile, and two at once are refused."""

    async def conversation() -> None:
        debugger = make()
        profile = asyncio.ensure_future(debugger.profile(CALLER, {"seconds": 0.4}))
        await asyncio.sleep(0)
        with pytest.raises(ControlError) as refusal:
            await debugger.profile(CALLER, {"seconds": 0.1})
        assert refusal.value.code == protocol.BUSY
        while not profile.done():
            burn_cycles()
            await asyncio.sleep(0)
        answer = profile.result()
        assert isinstance(answer, dict)
        assert "burn_cycles" in str(answer["text"])
        assert any(row["function"] == "burn_cycles" for row in rows_of(answer))
        assert isinstance(answer["samples"], int)
        assert answer["samples"] > 0
        again = await debugger.profile(CALLER, {"seconds": 0.1})
        assert isinstance(again, dict)

    asyncio.run(conversation())


@pytest.mark.parametrize("params", [{"seconds": 61}, {"seconds": 0}, {"seconds": "long"}, {"minutes": 1}])
def test_a_profile_has_bounds(params: Params) -> None:
    """More than a minute, or nonsense, is refused."""
    with pytest.raises(ControlError) as refusal:
        asyncio.run(make().profile(CALLER, params))
    assert refusal.value.code == protocol.BAD_PARAMS


def test_the_heap_is_counted_by_type() -> None:
    """Objects are counted by type, memory is that of the process; without tracing nothing is traced."""
    answer = make().heap(CALLER, {})
    assert isinstance(answer, dict)
    assert isinstance(answer["memory_rss_bytes"], int)
    assert answer["memory_rss_bytes"] > 1_000_000
    assert any(row["type"] == "builtins.dict" for row in rows_of(answer, "types"))
    assert (answer["tracing"], answer["lines"]) == (False, [])
    assert answer["frozen"] == gc.get_freeze_count()


def test_tracing_is_started_and_stopped() -> None:
    """While tracing, the lines that allocate are named; stopped, nothing is left running."""
    debugger = make()
    try:
        debugger.heap(CALLER, {"trace": "start"})
        with pytest.raises(ControlError):
            debugger.heap(CALLER, {"trace": "start"})
        kept = [bytes(1000) for _ in range(1000)]
        answer = debugger.heap(CALLER, {"trace": "stop"})
        assert any("test_debug.py" in str(row["where"]) for row in rows_of(answer, "lines"))
        assert len(kept) == 1000
        assert not tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_tasks_are_named_with_what_they_wait_for() -> None:
    """Each task is there with its name and the function that it waits in."""

    async def waits_here() -> None:
        await asyncio.Event().wait()

    async def conversation() -> None:
        task = asyncio.create_task(waits_here(), name="guest")
        await asyncio.sleep(0)
        answer = make().tasks(CALLER, {})
        (row,) = (row for row in rows_of(answer) if row["name"] == "guest")
        assert "waits_here" in str(row["where"])
        task.cancel()

    asyncio.run(conversation())


def test_rate_limiters_tell_their_state() -> None:
    """What each limiter says of itself is in its row."""
    assert rows_of(make().limiters(CALLER, {})) == [{"name": "dhcp clients", "sources": 3, "limited": 1}]


def test_only_those_who_may_change_may_look_inside() -> None:
    """A profile or heap listing can show what guests typed: it needs the right to change."""
    methods = make().methods()
    assert {name for name, method in methods.items() if method.access & Access.READ} == {"debug.rate_limiters"}
    assert not any(method.access & Access.PORTAL for method in methods.values())


def test_resident_memory_is_plausible() -> None:
    """The memory of a Python process lies between one megabyte and a hundred gigabytes."""
    assert 1_000_000 < resident_bytes() < 100_000_000_000
