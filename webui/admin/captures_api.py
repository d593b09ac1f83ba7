"""REST: captures, their analysis and its reports; upload, progress, status, report, history, queue."""

from __future__ import annotations

import asyncio
import io
import re
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.analysis import html, job, tables
from gateway.analysis.job import State
from webui import flow_table, jobs
from webui.admin.capture_desk import CaptureDesk
from webui.admin.captures import while_logged_in
from webui.admin.rest import ApiCall, ApiRoute, Problem, asks, json_response, problem_response
from webui.admin.schema import Schema, anything, array, boolean, choice, integer, nullable, number, record, text
from webui.jobs import Refusal
from webui.looks import LookFailed
from webui.messages import Response
from webui.uploads import BODY_LIMIT, DRAIN_BYTES

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

TAG: Final = "Captures"
SCOPE: Final = "captures"
_PIECE_BYTES: Final = 1 << 16
_ID: Final = text("Id of a capture.", longest=64, pattern="[0-9a-f-]{1,64}")
_TABLES: Final = tuple(tables.TABLES)
PCAP: Final = "application/vnd.tcpdump.pcap"
ATTACHMENT_POLICY: Final = "default-src 'none'; sandbox"


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    one: dict[str, Schema] = {"id": _ID}
    status = record(
        {
            "task_id": text(),
            "filename": text(),
            "status": choice("", "pending", "processing", "completed", "failed", "cancelled", "expired"),
            "queue_position": nullable(integer("1 is next, 0 is under way.")),
            "phase": text(),
            "percent": number(),
            "packets": integer(),
            "findings": integer(),
            "file_size_bytes": integer(),
            "health_score": nullable(number()),
            "partial": boolean("The report covers a part of the capture."),
            "error": {"type": ["object", "null"]},
            "report_url": nullable(text()),
            "report_json_url": nullable(text()),
        },
        required=("task_id", "filename", "status", "phase", "percent"),
        more=True,
    )
    accepted = record(
        {
            "task_id": text(),
            "filename": text(),
            "file_size_bytes": integer(),
            "status": text(),
            "progress_url": text(),
            "created_unix": number(),
        },
        required=("task_id", "filename", "file_size_bytes", "status", "progress_url", "created_unix"),
    )
    queue = record(
        {"max": integer(), "waiting": integer(), "available": integer(), "retry_after_s": integer()},
        required=("max", "waiting", "available"),
        more=True,
    )
    which = {
        "finding": text("Only the packets of this finding.", longest=100),
        "flow": text("Only the packets of this flow.", longest=20),
        "anonymise": boolean("Map addresses, cut payload."),
    }
    flows_query = {
        "sort": choice("", *flow_table.ORDERS),
        "descending": boolean(),
        "q": text("Words that must occur: address, port, name, service, state.", longest=200),
        "proto": choice("", "tcp", "udp"),
        "from": number("Seconds after the first packet."),
        "to": number(),
        "offset": integer(high=1_000_000),
        "limit": integer(low=1, high=500),
    }
    upload_body = {"type": "string", "format": "binary", "description": "pcap or pcapng, also gzip"}
    return [
        ApiRoute(
            "POST",
            "/upload",
            SCOPE,
            upload,
            "Upload a capture: the body itself with its name in X-Filename, or a form with the field `file`.",
            TAG,
            body=upload_body,
            consumes=("application/octet-stream", "multipart/form-data"),
            result=accepted,
            status=202,
            streams=True,
            body_limit=BODY_LIMIT,
        ),
        ApiRoute(
            "GET",
            "/progress/{id}",
            SCOPE,
            progress,
            "Live progress; Last-Event-ID goes on after a break.",
            TAG,
            query={"last_id": text("As Last-Event-ID, for programs that cannot set it.", longest=20)},
            path_schemas=one,
            produces="text/event-stream",
        ),
        ApiRoute("GET", "/status/{id}", SCOPE, status_, "Where a job stands.", TAG, path_schemas=one, result=status),
        ApiRoute(
            "GET",
            "/report/{id}",
            SCOPE,
            report_html,
            "The report as a page.",
            TAG,
            path_schemas=one,
            produces="text/html",
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/html",
            SCOPE,
            report_html,
            "The report as a page of its own.",
            TAG,
            path_schemas=one,
            produces="text/html",
        ),
        ApiRoute(
            "GET", "/reports/{id}/json", SCOPE, report_json, "The report.", TAG, path_schemas=one, result=anything()
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/anonymised",
            SCOPE,
            report_anonymised,
            "The report with addresses mapped and names replaced.",
            TAG,
            path_schemas=one,
            result=anything(),
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/csv",
            SCOPE,
            report_zip,
            "Every table as CSV, in a zip file.",
            TAG,
            path_schemas=one,
            produces="application/zip",
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/csv/{table}",
            SCOPE,
            report_csv,
            "One table as CSV.",
            TAG,
            path_schemas={**one, "table": choice("", *_TABLES)},
            produces="text/csv",
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/capture",
            SCOPE,
            report_capture,
            "The capture, or the packets of a flow or finding.",
            TAG,
            query=which,
            path_schemas=one,
            produces=PCAP,
        ),
        ApiRoute(
            "GET",
            "/reports/{id}/flows",
            SCOPE,
            report_flows,
            "Flows, a page at a time.",
            TAG,
            query=flows_query,
            path_schemas=one,
            result=record({"total": integer(), "rows": array(anything())}, required=("total", "rows"), more=True),
        ),
        ApiRoute("DELETE", "/reports/{id}", SCOPE, delete, "Remove a capture.", TAG, path_schemas=one, status=204),
        ApiRoute(
            "POST", "/cancel/{id}", SCOPE, cancel, "Stop a job.", TAG, path_schemas=one, result=status, status=202
        ),
        ApiRoute(
            "GET",
            "/history",
            SCOPE,
            history,
            "Captures, newest first.",
            TAG,
            query={
                "limit": integer(low=1, high=jobs.MOST_HISTORY),
                "before": text("What the last page said.", longest=80),
                "q": text("Words that must occur.", longest=200),
            },
            result=record(
                {"rows": array(status), "before": text(), "total": integer()},
                required=("rows", "before", "total"),
            ),
        ),
        ApiRoute("GET", "/queue/status", SCOPE, queue_status, "How the queue is doing.", TAG, result=queue),
        *_recording_routes(),
    ]


def _recording_routes() -> list[ApiRoute]:
    listed = record({"rows": array(anything())}, required=("rows",), more=True)
    wanted = record(
        {
            "interface": text("Where to record.", longest=15),
            "client": text("Or whom: MAC, address or session id.", longest=64),
            "seconds": integer("At most so long.", low=1, high=86400),
            "bytes": integer("At most so much.", low=64 << 10, high=500 << 20),
            "packets": integer(low=1, high=100_000_000),
            "filter": text("Such as `host 10.0.0.5 and not port 22`.", longest=1000),
        }
    )
    return [
        ApiRoute(
            "GET",
            "/recordings/interfaces",
            SCOPE,
            asks("captures.interfaces"),
            "Where can be recorded.",
            TAG,
            result=listed,
        ),
        ApiRoute("GET", "/recordings", SCOPE, asks("captures.recordings"), "Recordings.", TAG, result=listed),
        ApiRoute(
            "POST",
            "/recordings",
            SCOPE,
            asks("captures.record"),
            "Record; the capture is analysed when it ends, under the same id.",
            TAG,
            body=wanted,
            result=anything(),
            status=201,
        ),
        ApiRoute(
            "POST",
            "/recordings/{id}/stop",
            SCOPE,
            asks("captures.stop"),
            "End a recording.",
            TAG,
            path_schemas={"id": _ID},
            result=anything(),
        ),
    ]


def desk_of(app: AdminApp) -> CaptureDesk:
    """The captures of an application; raises Problem where none are served."""
    if app.captures is None:
        raise Problem(503, "captures are not served here: the web process was started without a spool")
    return app.captures


async def upload(call: ApiCall) -> object:
    """Take a capture and queue it."""
    desk = desk_of(call.app)
    try:
        state = await desk.uploads.receive(call.request, call.caller.name)
    except Refusal as refusal:
        response = problem_response(problem_of_refusal(refusal))
        response.drain_bytes = DRAIN_BYTES
        return response
    accepted = {
        "task_id": state.id,
        "filename": state.name,
        "file_size_bytes": state.size_bytes,
        "status": state.status,
        "progress_url": f"/api/v1/progress/{state.id}",
        "created_unix": state.created_unix,
    }
    response = json_response(202, accepted)
    response.headers.append(("Location", f"/api/v1/status/{state.id}"))
    return response


def problem_of_refusal(refusal: Refusal) -> Problem:
    """A refused upload in the words of the API."""
    failure = refusal.failure
    return Problem(
        refusal.status,
        " ".join(part for part in (failure.message, failure.hint) if part),
        code=failure.error,
        retry_after_s=refusal.retry_after_s,
        error=failure.error,
        found=failure.detail,
        offset=failure.offset,
    )


async def progress(call: ApiCall) -> object:
    """The events of a job."""
    desk, state = await _job(call)
    last_id = call.request.header("last-event-id") or call.query.get("last_id", "")
    if await asyncio.to_thread(desk.watcher.is_over, state, last_id):
        return Response(204)  # tells a browser not to come back (WHATWG HTML, 9.2.2)
    return call.live(while_logged_in(desk.watcher.events(state.id, last_id), call.check))


async def status_(call: ApiCall) -> object:
    """Where a job stands."""
    desk, state = await _job(call, expired=True)
    return jobs.status_row(state, *await desk.details(state))


async def report_html(call: ApiCall) -> object:
    """The page that the analysis made."""
    desk, state = await _job(call)
    path = await asyncio.to_thread(desk.file, state, job.REPORT_HTML)
    response = await send_file(path, "text/html; charset=utf-8", call.request.header("if-none-match"))
    response.headers.append(("Content-Security-Policy", f"{html.policy()}; frame-ancestors 'none'"))
    return response


async def report_json(call: ApiCall) -> object:
    """The document."""
    desk, state = await _job(call)
    path = await asyncio.to_thread(desk.file, state, job.REPORT)
    response = await send_file(path, "application/json", call.request.header("if-none-match"))
    return as_attachment(response, download_name(state, "json"))


async def report_anonymised(call: ApiCall) -> object:
    """The document without addresses and names."""
    desk, state = await _job(call)
    try:
        report = await desk.look(state, {"kind": "anonymised"})
    except LookFailed as err:
        raise problem_of_look(err) from None
    return as_attachment(json_response(200, report), "anonymised.json")


async def report_csv(call: ApiCall) -> object:
    """One table."""
    desk, state = await _job(call)
    name = call.params["table"]
    body = await asyncio.to_thread(tables.table, await desk.report(state), name)
    return as_attachment(Response(200, body.encode(), "text/csv; charset=utf-8"), download_name(state, f"{name}.csv"))


async def report_zip(call: ApiCall) -> object:
    """All tables."""
    desk, state = await _job(call)
    report = await desk.report(state)

    def pack() -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in _TABLES:
                archive.writestr(f"{name}.csv", tables.table(report, name))
        return out.getvalue()

    return as_attachment(
        Response(200, await asyncio.to_thread(pack), "application/zip"), download_name(state, "csv.zip")
    )


async def report_capture(call: ApiCall) -> object:
    """A capture file: all of it, or the packets of a flow or finding."""
    desk, state = await _job(call)
    if not (call.query.get("flow") or call.query.get("finding") or call.query.get("anonymise")):
        return await _whole_capture(desk, state)
    return await cut_response(
        desk,
        state,
        flow=call.query.get("flow", ""),
        finding=call.query.get("finding", ""),
        anonymise=call.query.get("anonymise", False),
    )


async def _whole_capture(desk: CaptureDesk, state: State) -> Response:
    """The file as it was uploaded or recorded."""
    path = await asyncio.to_thread(desk.backend.file, state.id, job.CAPTURE)
    if path is None:
        raise Problem(404, "The capture itself was removed to make room.", code="not_found")
    head = await asyncio.to_thread(_head_of, path)
    kind = "pcapng" if head == b"\x0a\x0d\x0d\x0a" else "gz" if head[:2] == b"\x1f\x8b" else "pcap"
    return as_attachment(await send_file(path, PCAP), download_name(state, "pcap.gz" if kind == "gz" else kind))


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


async def cut_response(desk: CaptureDesk, state: State, *, flow: str, finding: str, anonymise: bool) -> Response:
    """A capture file as a download; raises Problem and ControlError."""
    if flow and finding:
        raise Problem(400, "give a flow or a finding, not both", code="bad_params")
    try:
        cut = await desk.cut(state, {"kind": "cut", "flow": flow, "finding": finding, "anonymise": anonymise})
    except LookFailed as err:
        raise problem_of_look(err) from None
    kind = "pcapng" if anonymise or cut.first[:4] == b"\x0a\x0d\x0d\x0a" else "pcap"
    part = re.sub(r"[^\w.-]", "-", flow or finding)
    words = [part] * bool(part) + ["anonymised"] * anonymise + [kind]
    name = ".".join(words) if anonymise else download_name(state, ".".join(words))
    return as_attachment(Response(200, cut.pieces(), PCAP), name)


async def report_flows(call: ApiCall) -> object:
    """Flow rows, sorted and filtered here."""
    desk, state = await _job(call)
    report = await desk.report(state)
    query = call.query
    page = flow_table.select(
        report["flows"]["rows"],
        sort=query.get("sort", "trouble"),
        descending=query.get("descending", True),
        search=query.get("q", ""),
        proto=query.get("proto", ""),
        span=(query.get("from"), query.get("to")),
    )
    offset, limit = query.get("offset", 0), query.get("limit", 50)
    return {
        "total": len(page),
        "all": report["flows"]["total"],
        "folded": report["flows"]["folded"],
        "rows": page[offset : offset + limit],
    }


async def delete(call: ApiCall) -> object:
    """Remove a job with its capture and report."""
    desk, state = await _job(call, expired=True)
    await desk.delete(state)
    return None


async def cancel(call: ApiCall) -> object:
    """Stop a job that waits or runs."""
    desk, state = await _job(call)
    await desk.cancel(state)
    return jobs.status_row(state, *await desk.details(state))


async def history(call: ApiCall) -> object:
    """What was uploaded and recorded."""
    desk = desk_of(call.app)
    page = jobs.history(
        await desk.visible(call.caller),
        limit=call.query.get("limit", 25),
        before=call.query.get("before", ""),
        search=call.query.get("q", ""),
    )
    rows = [jobs.status_row(state, *await desk.details(state)) for state in page.rows]
    return {"rows": rows, "before": page.before, "total": page.total}


async def queue_status(call: ApiCall) -> object:
    """The queue."""
    desk = desk_of(call.app)
    found = await desk.overview()
    return jobs.queue_row(desk.limits, found.states, desk.uploads.active)


async def captures_health(app: AdminApp) -> dict[str, Any] | None:
    """How captures are doing, for the health of the whole; None where they are not served."""
    return None if app.captures is None else await app.captures.health()


async def _job(call: ApiCall, *, expired: bool = False) -> tuple[CaptureDesk, State]:
    """The job that a path names; one whose time is over is 410 unless `expired` is asked for."""
    desk = desk_of(call.app)
    state = await desk.job(call.params["id"], call.caller)
    if state.status == "expired" and not expired:
        raise Problem(410, "The report was removed after its time; upload the capture again.", code="expired")
    return desk, state


def problem_of_look(failed: LookFailed) -> Problem:
    """Why a look gave nothing."""
    status = {"not-found": 404, "timeout": 504, "too-large": 413}.get(failed.error, 500)
    return Problem(status, str(failed), code=failed.error.replace("-", "_"))


# -- downloads -----------------------------------------------------------------------------------------------------


def download_name(state: State, suffix: str) -> str:
    """A file name from a display name: what is no letter, digit, dot or hyphen becomes a hyphen."""
    stem = re.sub(r"\.(pcapng|pcap|cap|gz)$", "", re.sub(r"\.gz$", "", state.name))
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem).strip('.-')[:80] or 'capture'}.{suffix}"


def as_attachment(response: Response, name: str) -> Response:
    """A download that no browser shows or runs, whatever is in it."""
    response.headers += [
        ("Content-Disposition", f"attachment; filename=\"{name}\"; filename*=UTF-8''{quote(name)}"),
        ("Content-Security-Policy", ATTACHMENT_POLICY),
    ]
    return response


async def send_file(path: Path, content_type: str, if_none_match: str = "") -> Response:
    """A file that is replaced but never changed, piece by piece, with an ETag."""
    found = await asyncio.to_thread(path.stat)
    etag = f'"{found.st_ino:x}-{found.st_mtime_ns:x}"'
    headers = [("ETag", etag), ("Cache-Control", "private, no-cache")]
    if etag in if_none_match:
        return Response(304, b"", "", headers)
    return Response(200, _pieces(path), content_type, headers)


async def _pieces(path: Path) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
