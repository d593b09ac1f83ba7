"""Live progress of jobs as server-sent events: one look at the files feeds every reader of a job.

Ids are those of the progress file, which the worker makes rise by one with each write, so they survive a restart of
this process. A reader that comes back says the last id it saw and gets what it missed from a ring, or the state as it
is now. Readers pull: whoever is slow finds the ring further on, and nothing is kept for those who never come back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.analysis.job import FINISHED, Progress, State
from gateway.values import value_class
from webui import jobs
from webui.backend import Backend
from webui.sse import Event

LOOK_EVERY_S: Final = 0.05
POSITION_EVERY_S: Final = 1.0
LINGER_S: Final = 30.0  # a job is looked at so long after its last reader, who may come back for what it missed
RING: Final = 100


@value_class
class Seen:
    """What one look at a job found; `position` is its place in the queue while it waits."""

    state: State
    progress: Progress
    position: int | None = None


def event_of(before: Seen | None, now: Seen) -> Event | None:
    """The event that tells the difference between two looks; None when there is nothing to tell. Pure."""
    state, progress = now.state, now.progress
    if state.status in FINISHED or state.status == "expired":
        return Event(_data(now), "done" if state.status == "completed" else "failed", str(final_id(now)))
    if before is not None and before.state.status == state.status:
        if state.status == "pending":
            return None if before.position == now.position else Event(_data(now), "queue")
        if before.progress.id == progress.id:
            return None
    if state.status == "pending":
        return Event(_data(now), "queue")  # without an id: there is nothing yet to go on from
    same_phase = before is not None and before.progress.phase == progress.phase
    return Event(_data(now), "progress" if same_phase else "phase", str(progress.id))


def final_id(seen: Seen) -> int:
    """The id of the last event of a job; the same whether or not its last progress was already written."""
    written = seen.progress.phase == seen.state.status
    return seen.progress.id if written else seen.progress.id + 1


def _data(seen: Seen) -> dict[str, Any]:  # Any: JSON
    state, progress = seen.state, seen.progress
    estimated = None
    if progress.bytes_processed and progress.bytes_total:
        estimated = round(progress.packets_processed * progress.bytes_total / progress.bytes_processed)
    row: dict[str, Any] = {
        "task_id": state.id,
        "status": state.status,
        "phase": jobs.phase_of(state, progress),
        "percent": 100.0 if state.status == "completed" else progress.percent,
        "packets_processed": state.packets or progress.packets_processed,
        "packets_estimated": estimated,
        "packets_per_s": progress.packets_per_s,
        "bytes_processed": progress.bytes_processed,
        "bytes_total": progress.bytes_total or state.size_bytes,
        "findings": state.findings or progress.findings,
        "queue_position": seen.position,
        "t": progress.written_unix or state.created_unix,
    }
    if state.status in FINISHED:
        row["health_score"] = state.health_score
        row["error"] = jobs.failure_row(state.error)
        row["report_url"] = f"/api/v1/reports/{state.id}/html" if jobs.has_report(state) else None
    return row


@dataclass(slots=True)
class _Watch:
    """One job that is being looked at."""

    ring: deque[tuple[int, Event]] = field(default_factory=lambda: deque(maxlen=RING))  # a count of our own, the event
    told: int = 0
    seen: Seen | None = None
    stamp: object = None  # of the files when they were read
    placed_at: float = float("-inf")  # when the place in the queue was looked up
    over: bool = False  # the job has ended, or is gone
    readers: int = 0
    left_at: float = 0.0  # when the last reader went
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Looks at the jobs that somebody reads, and at no others."""

    def __init__(self, backend: Backend, group: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        """One task of `group` per watched job; `clock` gives monotonic seconds."""
        self._backend = backend
        self._group = group
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def watched(self) -> int:
        """How many jobs are looked at now."""
        return len(self._watches)

    def close(self) -> None:
        """Look no more; readers end."""
        for task in tuple(self._tasks):
            task.cancel()

    def is_over(self, state: State, last_id: str) -> bool:
        """Whether a reader has had the last event of a job already, so that it need not come back."""
        if state.status not in FINISHED or not last_id:
            return False
        return last_id == str(final_id(Seen(state, self._backend.progress(state.id))))

    async def events(self, job_id: str, last_id: str = "") -> AsyncGenerator[Event, None]:
        """The events of a job after `last_id`, until its last."""
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = _Watch()
            task = self._group.create_task(self._watch(job_id, watch), name="job watch")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        watch.readers += 1
        try:
            # Where in the ring to go on; a reader whose place is not in it gets the state as it is now.
            at = next((number for number, event in watch.ring if event.id and event.id == last_id), None)
            if at is None:
                at = watch.told
                if watch.seen is not None and (event := event_of(None, watch.seen)) is not None:
                    yield event
            while True:
                changed = watch.changed
                # What fell out of the ring meanwhile was superseded by what is in it.
                for number, event in [entry for entry in watch.ring if entry[0] > at]:
                    at = number
                    yield event
                if at < watch.told:
                    continue
                if watch.over:
                    return
                await changed.wait()
        finally:
            watch.readers -= 1
            watch.left_at = self._clock()

    async def _watch(self, job_id: str, watch: _Watch) -> None:
        """Look again and again while anybody reads."""
        try:
            while not watch.over:
                if not watch.readers and self._clock() - watch.left_at > LINGER_S:
                    return
                now = await self._look(job_id, watch)
                if now is None:  # deleted
                    return
                event = event_of(watch.seen, now)
                watch.seen = now
                if event is not None:
                    watch.told += 1
                    watch.ring.append((watch.told, event))
                    watch.over = event.name in ("done", "failed")
                    self._wake(watch)
                if not watch.over:
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            watch.over = True
            self._wake(watch)
            del self._watches[job_id]

    def _wake(self, watch: _Watch) -> None:
        """Let every reader that waits go on; those that come later wait for the next time."""
        changed, watch.changed = watch.changed, asyncio.Event()
        changed.set()

    async def _look(self, job_id: str, watch: _Watch) -> Seen | None:
        """The job as it is now; its files are read only when they were replaced."""
        stamp = self._backend.stamp(job_id)
        waits = watch.seen is not None and watch.seen.state.status == "pending"
        place_is_old = waits and self._clock() - watch.placed_at >= POSITION_EVERY_S
        if watch.seen is not None and stamp == watch.stamp and not place_is_old:
            return watch.seen
        watch.stamp, watch.placed_at = stamp, self._clock()
        return await asyncio.to_thread(self._read, job_id)

    def _read(self, job_id: str) -> Seen | None:
        state = self._backend.state(job_id)
        if state is None:
            return None
        position = None
        if state.status in ("pending", "processing"):
            position = jobs.positions(self._backend.states()).get(job_id)
        return Seen(state, self._backend.progress(job_id), position)
