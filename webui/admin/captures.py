"""Captures: uploading, recording, the queue while it is worked off, and the history of what was analysed."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlencode

from gateway.analysis.job import WAITING, Progress, State
from gateway.values import value_class
from webui import jobs
from webui.admin.capture_desk import CaptureDesk, Overview
from webui.admin.daemon import ControlError, JsonValue
from webui.admin.fields import FieldError
from webui.admin.live import Changed
from webui.admin.site import Page, Route
from webui.jobs import Refusal
from webui.messages import Response
from webui.sse import Event
from webui.uploads import BODY_LIMIT, DRAIN_BYTES

_ROLE: Final = "operator"  # what guests send is not for viewers
_HISTORY: Final = 25
_EVERY_S: Final = 2.0
_CHECK_S: Final = 5.0  # how long a live page may outlive its login
_TIMES: Final = {"seconds": 1, "minutes": 60, "hours": 3600}
_SIZES: Final = {"kB": 1000, "MB": 1_000_000}


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/captures", show, _ROLE),
        Route("GET", "/captures/live", show_live, _ROLE),
        Route("POST", "/captures/upload", upload, _ROLE, BODY_LIMIT, streams=True, token_in_form=True),
        Route("POST", "/captures/record", record, _ROLE),
        Route("POST", "/captures/recordings/{id}/stop", stop, _ROLE),
        Route("GET", "/captures/{id}/live", job_live, _ROLE),
        Route("POST", "/captures/{id}/cancel", cancel, _ROLE),
        Route("POST", "/captures/{id}/delete", delete, _ROLE),
    ]


def desk_of(page: Page) -> CaptureDesk:
    """The captures of an application; raises ControlError where none are served."""
    if page.app.captures is None:
        raise ControlError("unavailable", "Captures are not served here: the web process was started without a spool.")
    return page.app.captures


# -- the list ---------------------------------------------------------------------------------------------------------


@value_class
class _Queue:
    """What is under way, for the part of the page that is live."""

    running: list[tuple[State, Progress]]
    waiting: list[tuple[int, State]]
    recordings: list[dict[str, Any]]  # Any: rows of `captures.recordings`
    reasons: list[str]


async def show(page: Page) -> Response:
    """GET /captures."""
    desk = desk_of(page)
    found = await desk.overview()
    interfaces, trouble = await _rows(page, "captures.interfaces")
    history = _history(page, found)
    search = page.query.text("q", longest=200)
    older = urlencode({"q": search, "before": history.before}) if history.before else ""
    return page.render(
        "captures",
        title="Captures",
        scripts=("captures.js",),
        styles=("report.css",),
        queue=await _queue(page, desk, found),
        history=history,
        search=search,
        older=older,
        newest=not page.query.text("before"),
        here_query=page.request.query,
        interfaces=interfaces,
        trouble=trouble,
        client=page.query.text("client", longest=64),
        retention=found.retention,
        room=found.room,
        limit_bytes=desk.limits.upload_bytes,
    )


def _history(page: Page, found: Overview) -> jobs.HistoryPage:
    ended = [state for state in found.states if state.status not in WAITING and _visible(page, state)]
    search, before = page.query.text("q", longest=200), page.query.text("before", longest=80)
    return jobs.history(ended, limit=_HISTORY, before=before, search=search)


def _visible(page: Page, state: State) -> bool:
    return jobs.may_see(state, page.caller.name, administrator=page.caller.may("administrator"))


async def _rows(page: Page, method: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of a method of the daemon, or why there are none: uploads go on without it."""
    try:
        return (await page.call(method))["rows"], ""
    except ControlError as err:
        if err.code == "unauthenticated":
            raise
        return [], err.message


async def _queue(page: Page, desk: CaptureDesk, found: Overview) -> _Queue:
    places = jobs.positions(found.states)
    mine = [state for state in found.states if _visible(page, state)]
    running = [
        (state, await asyncio.to_thread(desk.backend.progress, state.id))
        for state in mine
        if state.status == "processing"
    ]
    waiting = sorted((places[state.id], state) for state in mine if state.status == "pending")
    recordings, _ = await _rows(page, "captures.recordings")
    health = jobs.health_row(
        desk.limits, found.retention, found.states, desk.uploads.active, found.room, beat_age_s=found.beat_age_s
    )
    return _Queue(running, waiting, [row for row in recordings if row["status"] == "recording"], health["reasons"])


async def show_live(page: Page) -> Response:
    """GET /captures/live: what is under way and what has ended, whenever it changes."""
    desk = desk_of(page)

    async def events() -> AsyncGenerator[Event, None]:
        changed = Changed()
        while True:
            try:
                found = await desk.recent()
                queue = page.fragment("capture_queue", queue=await _queue(page, desk, found))
            except ControlError:  # the login is over, or the daemon away: the page says so when it is loaded anew
                yield Event({}, "over")
                return
            search = page.query.text("q", longest=200)
            history = page.fragment("capture_history", history=_history(page, found), search=search)
            fresh = changed.of({"queue": queue, "history": history})
            if fresh:
                yield Event(fresh, "parts")
            await asyncio.sleep(_EVERY_S)

    return page.live(events())


# -- upload and recording ---------------------------------------------------------------------------------------------


async def upload(page: Page) -> Response:
    """POST /captures/upload: the plain form, for browsers without scripts."""
    desk = desk_of(page)
    own = page.caller.csrf

    def token_fits(token: str) -> bool:
        return bool(own) and hmac.compare_digest(token.encode("utf-8", "replace"), own.encode())

    try:
        state = await desk.uploads.receive(page.request, page.caller.name, token_fits=token_fits)
    except Refusal as refusal:
        failure = refusal.failure
        text = " ".join(
            part for part in (failure.message, failure.detail and f"({failure.detail})", failure.hint) if part
        )
        response = page.app.error(refusal.status, "The capture was not taken", text, page=page)
        response.drain_bytes = DRAIN_BYTES
        if refusal.retry_after_s:
            response.headers.append(("Retry-After", str(refusal.retry_after_s)))
        return response
    return page.redirect(f"/captures/{state.id}")


async def record(page: Page) -> Response:
    """POST /captures/record: begin a recording."""
    form = page.form
    client, interface = form.text("client", longest=64), form.text("interface", longest=15)
    if not client and not interface:
        raise FieldError("interface", "Choose an interface, or name a client.")
    seconds = form.scaled("time", _TIMES, "seconds", high=86400)
    size = form.scaled("size", _SIZES, "MB", high=500 << 20)
    params: dict[str, JsonValue] = {"filter": form.text("filter", longest=1000)}
    if seconds:
        params["seconds"] = seconds
    if size:
        params["bytes"] = max(64 << 10, size)
    params["client" if client else "interface"] = client or interface
    try:
        row = await page.call("captures.record", params)
    except ControlError as err:
        if err.code == "unauthenticated":
            raise
        return page.redirect("/captures", err.message, "bad")
    return page.redirect("/captures", f"Recording on {row['interface']}; it is analysed when it ends.")


async def stop(page: Page) -> Response:
    """POST /captures/recordings/{id}/stop: end a recording."""
    await page.call("captures.stop", {"id": page.params["id"]})
    return page.redirect("/captures", "The recording ends; its analysis follows.")


# -- one job ----------------------------------------------------------------------------------------------------------


async def show_job(page: Page, state: State) -> Response:
    """A capture without a report: how far it is, or why there is none."""
    progress, position, retention = await desk_of(page).details(state)
    return page.render(
        "capture_job",
        title=state.name,
        styles=("report.css",),
        state=state,
        progress=progress,
        position=position,
        phase=jobs.phase_of(state, progress),
        retention=retention,
    )


async def job_live(page: Page) -> Response:
    """GET /captures/{id}/live: the progress of a job, as html; the page is loaded anew at its end."""
    desk = desk_of(page)
    state = await desk.job(page.params["id"], page.caller)

    async def events() -> AsyncGenerator[Event, None]:
        async with aclosing(while_logged_in(desk.watcher.events(state.id), page.check)) as found:
            async for event in found:
                now = await asyncio.to_thread(desk.backend.state, state.id)
                if event.name in ("done", "failed") or now is None:
                    break
                progress, position, _ = await desk.details(now)
                phase = jobs.phase_of(now, progress)
                html = page.fragment("capture_progress", state=now, progress=progress, position=position, phase=phase)
                yield Event({"progress": html}, "parts")
        yield Event({}, "over")

    return page.live(events())


async def while_logged_in(
    events: AsyncGenerator[Event, None], check: Callable[[], Awaitable[None]]
) -> AsyncGenerator[Event, None]:
    """The events as long as `check` raises no ControlError; it is asked every few seconds, before something is told."""
    clock = asyncio.get_running_loop().time
    checked = clock()
    async with aclosing(events):
        async for event in events:
            if clock() - checked > _CHECK_S:
                try:
                    await check()
                except ControlError:
                    return
                checked = clock()
            yield event


async def cancel(page: Page) -> Response:
    """POST /captures/{id}/cancel."""
    desk = desk_of(page)
    state = await desk.job(page.params["id"], page.caller)
    await desk.cancel(state)
    return page.redirect("/captures", f"{state.name}: the analysis is being cancelled.")


async def delete(page: Page) -> Response:
    """POST /captures/{id}/delete."""
    desk = desk_of(page)
    state = await desk.job(page.params["id"], page.caller)
    await desk.delete(state)
    return page.redirect("/captures", f"{state.name} was deleted with its report.")
