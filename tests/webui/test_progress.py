"""Progress as events: what is told, ids, resuming after a break, and that nothing piles up."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.analysis import job
from gateway.analysis.job import Failure, Progress, State
from tests.webui.wire import run
from webui import progress as module
from webui.backend import LocalBackend
from webui.progress import RING, Seen, Watcher, event_of, final_id
from webui.sse import Event

STATE = State("0b7e1f2a-52d4-4c1a-9f0e-000000000001", "a.pcap", size_bytes=1000)


def seen(status: str = "processing", number: int = 1, phase: str = "reading", position: int | None = 0) -> Seen:
    """One look."""
    state = dataclasses.replace(STATE, status=cast(Any, status))
    return Seen(state, Progress(number, phase, 100, 1000, 5, percent=9.5), position)


def told(before: Seen | None, now: Seen) -> tuple[str, str] | None:
    """Name and id of the event between two looks."""
    event = event_of(before, now)
    return None if event is None else (event.name, event.id)


def test_only_what_changed_is_told() -> None:
    """A place in the queue without an id, a phase, a number of bytes; the same again is nothing."""
    waiting = seen("pending", 0, "waiting", 2)
    assert told(None, waiting) == ("queue", "")
    assert told(waiting, waiting) is None
    assert told(waiting, dataclasses.replace(waiting, position=1)) == ("queue", "")
    assert told(waiting, seen()) == ("phase", "1")
    assert told(seen(), seen(number=2)) == ("progress", "2")
    assert told(seen(number=2), seen(number=2)) is None
    assert told(seen(number=2), seen(number=3, phase="drawing")) == ("phase", "3")


def test_the_last_event_has_one_id_however_it_is_seen() -> None:
    """Before or after the last progress was written."""
    early = Seen(dataclasses.replace(STATE, status="completed"), Progress(7, "drawing"))
    late = dataclasses.replace(early, progress=Progress(8, "completed"))
    assert final_id(early) == final_id(late) == 8
    assert told(seen(number=7), early) == told(None, late) == ("done", "8")
    failed = dataclasses.replace(STATE, status="failed", error=Failure("timeout", "Too long."))
    event = event_of(None, Seen(failed, Progress(3, "failed")))
    assert event is not None
    assert (event.name, cast(Any, event.data)["error"]["error"]) == ("failed", "timeout")


@asynccontextmanager
async def watching(spool: Path) -> AsyncIterator[Watcher]:
    """A watcher over a spool."""
    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        watcher = Watcher(LocalBackend(spool, lambda: 0.0, keep_free_share=0.0), group, loop.time)
        try:
            yield watcher
        finally:
            watcher.close()


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that is being worked on."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.005)
    directory = job.create(tmp_path, "a.pcap", now_unix=1.0)
    (directory / job.CAPTURE).write_bytes(b"x" * 1000)
    state = job.submit(directory)
    job.save(directory, dataclasses.replace(state, status="processing"))
    job.write_progress(directory, Progress(1, "reading", 100, 1000))
    return directory


async def some(events: AsyncIterator[Event], count: int) -> list[str]:
    """Ids of the next events."""
    return [(await asyncio.wait_for(anext(events), 5)).id for _ in range(count)]


def test_two_readers_of_a_job_are_fed_by_one_look(running: Path) -> None:
    """Each gets every event, and both end with the job."""

    async def story() -> None:
        async with watching(running.parent) as watcher:
            first, second = watcher.events(running.name), watcher.events(running.name)
            assert await some(first, 1) == await some(second, 1) == ["1"]
            assert watcher.watched == 1
            for number in (2, 3):
                job.write_progress(running, Progress(number, "reading", 100 * number, 1000))
                assert await some(first, 1) == await some(second, 1) == [str(number)]
            state = job.load(running)
            assert state is not None
            job.save(running, dataclasses.replace(state, status="completed"))
            assert [event.name async for event in first] == [event.name async for event in second] == ["done"]
            await asyncio.sleep(0.02)
            assert watcher.watched == 0

    run(story())


def test_a_reader_that_comes_back_gets_what_it_missed(running: Path) -> None:
    """From the ring after its last id; one whose id is not there gets the state as it is."""

    async def story() -> None:
        async with watching(running.parent) as watcher:
            reader = watcher.events(running.name)
            await some(reader, 1)
            for number in range(2, 7):
                job.write_progress(running, Progress(number, "reading", 10 * number, 1000))
                await some(reader, 1)
            await reader.aclose()
            back = watcher.events(running.name, "3")
            assert await some(back, 3) == ["4", "5", "6"]
            strange = watcher.events(running.name, "999")
            assert await some(strange, 1) == ["6"]
            await back.aclose()
            await strange.aclose()

    run(story())


def test_a_slow_reader_holds_nothing_but_the_ring(running: Path) -> None:
    """It finds the newest events, not all that there were."""

    async def story() -> None:
        async with watching(running.parent) as watcher:
            slow, quick = watcher.events(running.name), watcher.events(running.name)
            await some(slow, 1)
            await some(quick, 1)
            for number in range(2, RING + 60):
                job.write_progress(running, Progress(number, "reading", number, 1000))
                await some(quick, 1)
            found = await some(slow, RING)
            assert found[-1] == str(RING + 59)
            assert found[0] == "60"
            await slow.aclose()
            await quick.aclose()

    run(story())


def test_a_job_that_is_deleted_ends_its_readers(running: Path) -> None:
    """Without a last event: there is nothing to tell any more."""

    async def story() -> None:
        async with watching(running.parent) as watcher:
            reader = watcher.events(running.name)
            await some(reader, 1)
            job.delete(running)
            assert [event async for event in reader] == []

    run(story())


def test_a_job_is_looked_at_only_for_a_while_after_its_last_reader(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept for those who never come back."""
    monkeypatch.setattr(module, "LINGER_S", 0.05)

    async def story() -> None:
        async with watching(running.parent) as watcher:
            reader = watcher.events(running.name)
            await some(reader, 1)
            await reader.aclose()
            assert watcher.watched == 1
            await asyncio.sleep(0.2)
            assert watcher.watched == 0

    run(story())


def test_who_had_the_last_event_need_not_come_back(running: Path) -> None:
    """And who had not, must."""

    async def story() -> None:
        async with watching(running.parent) as watcher:
            state = job.load(running)
            assert state is not None
            assert not watcher.is_over(state, "1")
            done = dataclasses.replace(state, status="completed")
            assert watcher.is_over(done, "2")
            assert not watcher.is_over(done, "1")
            assert not watcher.is_over(done, "")

    run(story())
