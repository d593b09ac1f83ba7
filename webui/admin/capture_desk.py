"""Captures as pages and REST share them: jobs and their files, uploads, live progress, second looks, reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from gateway.analysis import job
from gateway.analysis.job import Progress, Retention, State
from gateway.values import value_class
from webui import jobs
from webui.admin.daemon import ControlError
from webui.admin.site import Caller
from webui.backend import Backend
from webui.jobs import Limits, Room
from webui.looks import Looks
from webui.progress import Watcher
from webui.reports import Report, Reports
from webui.uploads import Uploads

NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"
_RECENT_S: Final = 1.5  # for live pages, of which there may be many, and for health, which anybody may ask for
_END_WAIT_S: Final = 5.0  # for a running analysis to stop before it is removed


@value_class
class CutOut:
    """A capture file on its way: its first octets, and the rest."""

    first: bytes
    rest: AsyncGenerator[bytes, None]

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All of it; must be read or closed."""
        async with aclosing(self.rest):
            yield self.first
            async for piece in self.rest:
                yield piece


@value_class
class Overview:
    """Everything that the list of captures shows of the queue."""

    states: list[State]
    retention: Retention
    room: Room
    beat_age_s: float | None


class CaptureDesk:
    """What the administration knows and does about captures. Its methods raise ControlError for people."""

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        group: asyncio.TaskGroup,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic seconds, `wall` the time of day; tasks run in `group`."""
        self.backend = backend
        self.limits = limits
        self.uploads = Uploads(backend, limits, clock)
        self.watcher = Watcher(backend, group, clock)
        self._looks = Looks()
        self._reports = Reports(clock)
        self._wall = wall
        self._clock = clock
        self._recent: tuple[float, Overview] | None = None
        self._looking = asyncio.Lock()

    def close(self) -> None:
        """End the tasks."""
        self.watcher.close()

    async def overview(self) -> Overview:
        """The queue as it is."""

        def look() -> Overview:
            beat = self.backend.beat_unix()
            age = None if beat is None else max(0.0, self._wall() - beat)
            return Overview(self.backend.states(), self.backend.retention(), self.backend.room(), age)

        return await asyncio.to_thread(look)

    async def recent(self) -> Overview:
        """The queue as it was a moment ago: one look for all who ask together."""
        async with self._looking:
            if self._recent is None or self._clock() - self._recent[0] > _RECENT_S:
                found = await self.overview()
                self._recent = (self._clock(), found)
            return self._recent[1]

    async def health(self) -> dict[str, Any] | None:  # Any: JSON
        """How captures are doing; None where the spool was taken away."""
        found = await self.recent()
        if not found.room.disk_bytes:
            return None
        return jobs.health_row(
            self.limits,
            found.retention,
            found.states,
            self.uploads.active,
            found.room,
            beat_age_s=found.beat_age_s,
        )

    async def visible(self, caller: Caller) -> list[State]:
        """The jobs that the caller may see."""
        states = await asyncio.to_thread(self.backend.states)
        return [state for state in states if self._may_see(state, caller)]

    async def job(self, job_id: str, caller: Caller) -> State:
        """One job; raises ControlError for one that is not there, or not the caller's."""
        state = await asyncio.to_thread(self.backend.state, job_id) if job.is_job_id(job_id) else None
        if state is None or not self._may_see(state, caller):
            raise ControlError(NOT_FOUND, "There is no such capture. It may have been deleted.")
        return state

    async def details(self, state: State) -> tuple[Progress, int | None, Retention]:
        """How far a job is, its place in the queue, and how long it will be kept."""

        def look() -> tuple[Progress, int | None, Retention]:
            position = jobs.positions(self.backend.states()).get(state.id) if state.status == "pending" else None
            return self.backend.progress(state.id), position, self.backend.retention()

        return await asyncio.to_thread(look)

    async def cancel(self, state: State) -> None:
        """Ask that a job stop; nothing if it has ended."""
        if state.status in job.WAITING:
            await asyncio.to_thread(self.backend.cancel, state.id)

    async def delete(self, state: State) -> None:
        """Remove a job; one that runs is stopped first."""
        await self.cancel(state)
        deadline = self._wall() + _END_WAIT_S
        while state.status == "processing" and self._wall() < deadline:
            await asyncio.sleep(0.1)
            found = await asyncio.to_thread(self.backend.state, state.id)
            if found is None:
                return
            state = found
        await asyncio.to_thread(self.backend.delete, state.id)

    def file(self, state: State, name: str) -> Path:
        """A finished file of a job; raises ControlError while there is none."""
        path = self.backend.file(state.id, name) if jobs.has_report(state) else None
        if path is None:
            raise no_report(state)
        return path

    async def report(self, state: State) -> Report:
        """The report of a job; raises ControlError while there is none."""
        path = await asyncio.to_thread(self.file, state, job.REPORT)
        try:
            return await self._reports.load(path)
        except (OSError, ValueError):
            raise ControlError(NOT_FOUND, "The report is gone or damaged; upload the capture again.") from None

    async def files(self, state: State) -> tuple[Path, Path]:
        """Report and capture, for a look; raises ControlError when one of them is gone."""
        report = await asyncio.to_thread(self.file, state, job.REPORT)
        capture = await asyncio.to_thread(self.backend.capture, state.id)
        if capture is None:
            raise ControlError(
                NOT_FOUND, "The capture itself was removed to make room; its report is all that is left of it."
            )
        return report, capture

    async def look(self, state: State, order: dict[str, Any]) -> Any:  # Any: JSON, see gateway.analysis.look
        """Go back into the capture; raises LookFailed, and ControlError when it is gone."""
        report, capture = await self.files(state)
        return await self._looks.ask(order, report, capture)

    async def cut(self, state: State, order: dict[str, Any]) -> CutOut:
        """A cut-out of the capture, begun; raises LookFailed, and ControlError when it is gone."""
        report, capture = await self.files(state)
        pieces = self._looks.pieces(order, report, capture)
        first = await anext(pieces, b"")
        return CutOut(first, pieces)

    def _may_see(self, state: State, caller: Caller) -> bool:
        return jobs.may_see(state, caller.name, administrator=caller.may("administrator"))


def no_report(state: State) -> ControlError:
    """Why there is no report to show."""
    match state.status:
        case "pending" | "processing":
            return ControlError(CONFLICT, "The analysis is not finished yet.")
        case "expired":
            return ControlError(NOT_FOUND, "The report was removed after its time; upload the capture again.")
        case _:
            reason = state.error.message if state.error is not None else "The analysis gave no report."
            return ControlError(CONFLICT, reason)
