"""Decisions about capture jobs: who may upload now, who waits where, what history shows, how the queue is doing.

Pure: states of jobs, sizes and times in, answers out. Where the jobs lie is `backend`'s, how an upload comes in is
`uploads`'. A refusal has a name for programs, a sentence for people and an HTTP status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.analysis.job import FINISHED, WAITING, Failure, Progress, Retention, State
from gateway.analysis.refusals import AnalysisRefused
from gateway.values import value_class

MOST_HISTORY: Final = 100  # rows of one page
_RETRY_LOW_S, _RETRY_HIGH_S = 5, 300
_MEAN_OF: Final = 20  # finished jobs from which the usual time is told
_BEAT_LATE_S: Final = 30.0
# The status of a named refusal of a capture; other names are the server's own.
STATUS_OF: Final = {
    "not-a-capture": 415,
    "unsupported-linktype": 422,
    "empty": 422,
    "gzip-bomb": 422,
    "gzip-corrupt": 422,
    "too-large": 413,
}


@value_class
class Limits:
    """Bounds of uploads and of the queue."""

    waiting: int = 5  # jobs that wait, beside the one that runs; an upload that comes in has its place already
    uploads: int = 2  # bodies read at once
    upload_bytes: int = 500 << 20
    uploads_per_minute: float = 20.0  # of one user
    keep_free_share: float = 0.1  # of the file system; a full disk harms more than a refused capture
    idle_s: float = 60.0  # without an octet, an upload is given up
    slowest_bytes_per_s: float = 2048.0  # on the average of an upload after its first `idle_s`


@value_class
class Room:
    """Space, in bytes."""

    disk_bytes: int = 0  # of the file system that the spool is on
    free_bytes: int = 0
    used_bytes: int = 0  # by all captures and reports
    removable_bytes: int = 0  # of these, by finished jobs: the oldest make room for new ones


class Refusal(Exception):
    """An upload that is not taken; `status` is HTTP's."""

    def __init__(self, status: int, failure: Failure, retry_after_s: int = 0) -> None:
        super().__init__(failure.message)
        self.status = status
        self.failure = failure
        self.retry_after_s = retry_after_s


def admit(
    limits: Limits,
    retention: Retention,
    states: Sequence[State],
    uploading: int,
    room: Room,
    declared_bytes: int | None,
) -> int:
    """The most bytes that an upload may have; raises Refusal. `declared_bytes` is None when the client does not say."""
    waiting = sum(state.status == "pending" for state in states)
    if waiting + uploading >= limits.waiting or uploading >= limits.uploads:
        raise Refusal(
            503,
            Failure(
                "queue-full",
                f"{waiting} captures wait and {uploading} are being uploaded; no more are taken now.",
                hint="Try again when one of them is done, or cancel one.",
            ),
            retry_after_s(states, uploading),
        )
    if declared_bytes is not None and declared_bytes > limits.upload_bytes:
        raise too_large(limits.upload_bytes)
    wanted = declared_bytes or 0
    quota_left = retention.quota_bytes - (room.used_bytes - room.removable_bytes)
    disk_left = room.free_bytes + room.removable_bytes - int(room.disk_bytes * limits.keep_free_share)
    left = min(quota_left, disk_left)
    if left <= 0 or wanted > left:
        raise disk_full(max(0, left))
    return min(limits.upload_bytes, left)


def too_large(limit_bytes: int) -> Refusal:
    """The refusal of a file over the limit."""
    return Refusal(
        413,
        Failure(
            "too-large",
            f"The file is larger than {limit_bytes / 1e6:,.0f} MB.",
            hint="Cut it into smaller files (editcap -c), or compress it with gzip.",
        ),
    )


def disk_full(left_bytes: int) -> Refusal:
    """The refusal of a file that there is no room for."""
    return Refusal(
        507,
        Failure(
            "disk-full",
            f"There is room for {left_bytes / 1e6:,.0f} MB of captures.",
            hint="Delete captures and reports that are not needed any more.",
        ),
    )


def refused(refusal: AnalysisRefused) -> Refusal:
    """The refusal of a file that cannot be analysed."""
    failure = Failure(refusal.error, str(refusal), refusal.detail, refusal.offset, refusal.hint)
    return Refusal(STATUS_OF.get(refusal.error, 422), failure)


def bad_upload(message: str, hint: str = "") -> Refusal:
    """The refusal of a request that holds no file."""
    return Refusal(400, Failure("bad-upload", message, hint=hint))


def is_too_slow(limits: Limits, received_bytes: int, since_s: float) -> bool:
    """Whether an upload holds its place without using it."""
    return since_s > limits.idle_s and received_bytes < (since_s - limits.idle_s) * limits.slowest_bytes_per_s


def mean_seconds(states: Iterable[State]) -> float | None:
    """The usual time of an analysis, from the latest that were completed; None before the first."""
    ended = sorted(
        (state.finished_unix, state.finished_unix - state.started_unix)
        for state in states
        if state.status == "completed" and state.finished_unix is not None and state.started_unix is not None
    )
    latest = [max(0.0, seconds) for _, seconds in ended[-_MEAN_OF:]]
    return sum(latest) / len(latest) if latest else None


def retry_after_s(states: Sequence[State], uploading: int = 0) -> int:
    """When to come back: about the time until all who wait have had their turn."""
    waiting = sum(state.status in WAITING for state in states) + uploading
    usual = mean_seconds(states)
    return round(min(_RETRY_HIGH_S, max(_RETRY_LOW_S, (usual if usual is not None else 10.0) * waiting)))


def positions(states: Iterable[State]) -> dict[str, int]:
    """The place of each waiting job: 1 is next, 0 is under way."""
    waiting = (state for state in states if state.status == "pending")
    ordered = sorted(waiting, key=lambda state: (state.created_unix, state.id))
    found = {state.id: number for number, state in enumerate(ordered, 1)}
    return found | {state.id: 0 for state in states if state.status == "processing"}


def may_see(state: State, name: str, *, administrator: bool) -> bool:
    """Administrators see every job, others their own and those that nobody owns."""
    return administrator or state.owner in ("", name)


@value_class
class HistoryPage:
    """A page of jobs, newest first; `before` asks for the next page, empty at the end."""

    rows: list[State]
    before: str
    total: int


def history(states: Iterable[State], *, limit: int = 25, before: str = "", search: str = "") -> HistoryPage:
    """Jobs newest first. `before` is what the last page said; every word of `search` must occur in a job's words."""
    words = search.casefold().split()
    found = [state for state in states if all(word in _words(state) for word in words)]
    found.sort(key=_cursor, reverse=True)
    total = len(found)
    if before:
        found = [state for state in found if _cursor(state) < before]
    rows = found[: max(1, min(limit, MOST_HISTORY))]
    return HistoryPage(rows, _cursor(rows[-1]) if len(rows) < len(found) else "", total)


def _cursor(state: State) -> str:
    return f"{state.created_unix:017.6f}_{state.id}"


def _words(state: State) -> str:
    error = f"{state.error.error} {state.error.message}" if state.error is not None else ""
    partial = "partial" if state.partial else ""
    return f"{state.name} {state.owner} {state.status} {partial} {state.id} {error}".casefold()


def expires_unix(state: State, retention: Retention) -> float | None:
    """When the report goes; None while there is no end."""
    if state.status not in FINISHED or state.finished_unix is None:
        return None
    return state.finished_unix + retention.report_s


def has_report(state: State) -> bool:
    """Whether there is a report to show: a whole one, or one of the part that was read."""
    return state.status == "completed" or (state.status == "failed" and state.partial)


# Any in the rows below, because they are JSON.


def status_row(state: State, progress: Progress, position: int | None, retention: Retention) -> dict[str, Any]:
    """A job as the REST API shows it."""
    row: dict[str, Any] = {
        "task_id": state.id,
        "filename": state.name,
        "owner": state.owner,
        "status": state.status,
        "queue_position": position,
        "file_size_bytes": state.size_bytes,
        "created_unix": state.created_unix,
        "started_unix": state.started_unix,
        "finished_unix": state.finished_unix,
        "expires_unix": expires_unix(state, retention),
        "packets": state.packets or progress.packets_processed,
        "findings": state.findings or progress.findings,
        "health_score": state.health_score,
        "partial": state.partial,
        "phase": phase_of(state, progress),
        "percent": 100.0 if state.status == "completed" else progress.percent,
        "error": failure_row(state.error),
        "report_url": None,
        "report_json_url": None,
        "progress_url": f"/api/v1/progress/{state.id}",
    }
    if has_report(state):
        row["report_url"] = f"/api/v1/reports/{state.id}/html"
        row["report_json_url"] = f"/api/v1/reports/{state.id}/json"
    return row


def failure_row(failure: Failure | None) -> dict[str, Any] | None:
    """A failure in JSON."""
    if failure is None:
        return None
    return {
        "error": failure.error,
        "message": failure.message,
        "detail": failure.detail,
        "offset": failure.offset,
        "hint": failure.hint,
    }


def phase_of(state: State, progress: Progress) -> str:
    """What happens to a job now, in one word."""
    if state.status == "pending":
        return "waiting"
    return progress.phase if state.status == "processing" else state.status


def queue_row(limits: Limits, states: Sequence[State], uploading: int) -> dict[str, Any]:
    """How the queue is doing."""
    waiting = sum(state.status == "pending" for state in states)
    running = next((state.id for state in states if state.status == "processing"), None)
    mean = mean_seconds(states)
    return {
        "max": limits.waiting,
        "waiting": waiting,
        "uploading": uploading,
        "running": running,
        "available": max(0, min(limits.waiting - waiting - uploading, limits.uploads - uploading)),
        "mean_job_s": None if mean is None else round(mean, 3),
        "retry_after_s": retry_after_s(states, uploading),
        "totals": dict(sorted(Counter(state.status for state in states).items())),
    }


def health_row(
    limits: Limits,
    retention: Retention,
    states: Sequence[State],
    uploading: int,
    room: Room,
    *,
    beat_age_s: float | None,
) -> dict[str, Any]:
    """Whether captures can be analysed now; `status` is ok, degraded or failing, `reasons` say why. No file names."""
    failing, degraded = [], []
    if beat_age_s is None:
        failing.append("The analysis worker has never run.")
    elif beat_age_s > _BEAT_LATE_S:
        failing.append(f"The analysis worker has not been heard of for {beat_age_s:.0f} s.")
    if room.free_bytes < room.disk_bytes * limits.keep_free_share / 2:
        failing.append(f"The disk is full: {room.free_bytes / 1e6:,.0f} MB are free.")
    elif room.free_bytes < room.disk_bytes * limits.keep_free_share:
        degraded.append(f"The disk is nearly full: {room.free_bytes / 1e6:,.0f} MB are free.")
    queue = queue_row(limits, states, uploading)
    if not queue["available"]:
        degraded.append("The queue is full.")
    return {
        "status": "failing" if failing else "degraded" if degraded else "ok",
        "reasons": failing + degraded,
        "queue": {name: queue[name] for name in ("max", "waiting", "uploading", "available")},
        "disk_free_bytes": room.free_bytes,
        "quota_bytes": retention.quota_bytes,
        "used_bytes": room.used_bytes,
        "worker_beat_age_s": None if beat_age_s is None else round(beat_age_s, 1),
        "totals": queue["totals"],
    }
