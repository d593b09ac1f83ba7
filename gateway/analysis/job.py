"""The job directory: one analysis asked for, running or done, as files that are replaced by rename.

    spool/<id>/state.json    who asked, where it stands, why it failed; written by whoever moves the job on
    spool/<id>/capture       the capture as it was uploaded (`capture.part` while it is being written)
    spool/<id>/unpacked      the same without compression, once somebody has looked into it
    spool/<id>/progress      phase, bytes, packets, rate and findings so far; written by the worker only
    spool/<id>/cancel        its presence asks the worker to stop
    spool/<id>/report.json   the report, and report.html with the plots of the worst flows
    spool/wake               a pipe to the worker: whoever adds a job writes into it, so that nothing has to wait

Web process, recorder and worker are different users in the spool's group. Modes are therefore set explicitly, whatever
umask a process came with.

The listing of the spool is the queue: there is no database beside it that could disagree. Readers never lock; they see
the old file or the new one. Sweeping is planned by a pure function (`plan_sweep`) and done by another (`sweep`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from gateway.analysis.frames import unpack

Status = Literal["pending", "processing", "completed", "failed", "cancelled", "expired"]
WAITING: Final = frozenset({"pending", "processing"})
FINISHED: Final = frozenset({"completed", "failed", "cancelled"})

STATE, CAPTURE, PROGRESS, CANCEL = "state.json", "capture", "progress", "cancel"
WAKE: Final = "wake"
BEAT: Final = "worker.json"  # of the spool, not of a job: that the worker lives, and how long it keeps what
DIRECTORY_MODE, FILE_MODE = 0o2770, 0o660
UNPACKED: Final = "unpacked"  # the capture without compression, made when somebody looks into it
REPORT, REPORT_HTML = "report.json", "report.html"
NAME_LIMIT: Final = 255
ABANDONED_S: Final = 300  # an upload that has written nothing for so long is over (its socket gives up after 60)

_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no report: a name for programs, a sentence for people, where in the file, and what to do."""

    error: str
    message: str
    detail: str = ""
    offset: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """One job's row."""

    id: str
    name: str  # the client's file name, for display only
    status: Status = "pending"
    owner: str = ""
    size_bytes: int = 0
    created_unix: float = 0.0
    started_unix: float | None = None
    finished_unix: float | None = None
    attempts: int = 0
    packets: int = 0
    health_score: float | None = None
    findings: int = 0
    partial: bool = False
    error: Failure | None = None
    settings: dict[str, str] = field(default_factory=dict)
    sandbox: tuple[str, ...] = ()  # a line for each layer of confinement, active or not


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is, as the progress file says it."""

    id: int = 0  # rises by one with each write
    phase: str = "waiting"
    bytes_processed: int = 0
    bytes_total: int = 0
    packets_processed: int = 0
    packets_per_s: float = 0.0
    findings: int = 0
    percent: float = 0.0
    written_unix: float = 0.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept, in seconds and bytes."""

    report_s: float = 24 * 3600
    stub_s: float = 7 * 24 * 3600
    quota_bytes: int = 500 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A job as the sweeper sees it."""

    state: State
    capture_bytes: int
    report_bytes: int


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing to remove: the `capture` of a job, or its files (`expire`, leaving the row), or `all` of it."""

    id: str
    what: Literal["capture", "expire", "all"]


def is_job_id(text: str) -> bool:
    """Whether the text has the form of a job id (UUID 4); asked before any path is made from it."""
    return _ID.fullmatch(text) is not None


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def no_room(directory: Path) -> Failure:
    """The failure of a job whose results could not be written."""
    return Failure(
        "disk-full",
        "There is no room left to write the report.",
        detail=str(directory),
        hint="Remove old captures and reports, or give the spool a larger place.",
    )


def display_name(name: str) -> str:
    """A client's file name as display text: base name only, no control characters, at most 255 characters."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char for char in base if char.isprintable())[:NAME_LIMIT] or "capture"


def create(spool: Path, name: str, *, owner: str = "", now_unix: float, settings: dict[str, str] | None = None) -> Path:
    """Make the directory of a new job, without a state: the caller fills `capture` and then calls `submit`."""
    directory = spool / _new_id()
    directory.mkdir(mode=0o700)
    try:
        directory.chmod(DIRECTORY_MODE)  # mkdir leaves out what the umask forbids, and the group's bit always
        state = State(directory.name, display_name(name), owner=owner, created_unix=now_unix, settings=settings or {})
        _replace(directory / (STATE + ".part"), STATE + ".draft", _encode(state))
    except OSError:  # a full disk: nothing is left of the attempt
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _new_id() -> str:
    """A UUID of version 4 (RFC 9562 §5.4).

    By hand: the library's module is no part of a router's Python, and the kernel's file is not there for a service that
    sees nothing of /proc but processes.
    """
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def submit(directory: Path) -> State:
    """Put a job whose `capture` is complete into the queue, and wake the worker."""
    draft = directory / (STATE + ".draft")
    state = dataclasses.replace(_decode(draft.read_bytes()), size_bytes=(directory / CAPTURE).stat().st_size)
    save(directory, state)
    draft.unlink()
    wake(directory.parent)
    return state


def is_draft(directory: Path) -> bool:
    """Whether the directory is that of a job whose capture is still being made."""
    return (directory / (STATE + ".draft")).exists()


def open_wake(spool: Path) -> int:
    """The worker's end of the pipe that wakes it; the descriptor never blocks and never sees an end."""
    path = spool / WAKE
    if not path.exists() or not stat.S_ISFIFO(path.lstat().st_mode):
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
    path.chmod(FILE_MODE)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def wake(spool: Path) -> None:
    """Tell the worker to look now; without one that listens it is told by its next look."""
    try:
        pipe = os.open(spool / WAKE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # no worker, or a confined recorder that may not reach the pipe
        return
    try:
        os.write(pipe, b".")
    except BlockingIOError:  # full: it has been woken often enough
        pass
    finally:
        os.close(pipe)


def load(directory: Path) -> State | None:
    """The job's state; `None` where the directory is no job (being uploaded, removed, or damaged)."""
    try:
        return _decode((directory / STATE).read_bytes())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save(directory: Path, state: State) -> None:
    """Replace the job's state; on disk when this returns."""
    _replace(directory / (STATE + ".part"), STATE, _encode(state), durable=True)


def listing(spool: Path) -> list[State]:
    """Every job in the spool, oldest first: this is the queue and the history."""
    states = []
    for entry in os.scandir(spool):
        if is_job_id(entry.name) and entry.is_dir(follow_symlinks=False):
            state = load(Path(entry.path))
            if state is not None and state.id == entry.name:
                states.append(state)
    return sorted(states, key=lambda state: (state.created_unix, state.id))


def write_progress(directory: Path, progress: Progress) -> None:
    """Replace the progress file; not forced to disk, and left as it was on a full one: a lost one costs nothing."""
    try:
        _replace(directory / (PROGRESS + ".part"), PROGRESS, json.dumps(dataclasses.asdict(progress)).encode())
    except OSError as err:
        if not is_full(err):
            raise


def read_progress(directory: Path) -> Progress:
    """How far the job is; the default value before the worker has written anything."""
    try:
        return Progress(**json.loads((directory / PROGRESS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return Progress()


def request_cancel(directory: Path) -> None:
    """Ask that the job stop, whoever runs it; nothing happens if it has finished."""
    (directory / CANCEL).touch()
    wake(directory.parent)


def cancel_requested(directory: Path) -> bool:
    """Whether somebody asked that the job stop."""
    return (directory / CANCEL).exists()


def close_cancelled(spool: Path, *, now_unix: float) -> list[State]:
    """Close the waiting jobs that somebody cancelled; returns them."""
    closed = []
    for entry in os.scandir(spool):
        directory = Path(entry.path)
        if not is_job_id(entry.name) or not cancel_requested(directory):  # asked every second: few states are read
            continue
        state = load(directory)
        if state is not None and state.status == "pending":
            failure = Failure("cancelled", "The analysis was cancelled before it began.")
            state = dataclasses.replace(state, status="cancelled", finished_unix=now_unix, error=failure)
            try:
                save(directory, state)
            except FileNotFoundError:  # whoever cancelled it has removed it meanwhile
                continue
            closed.append(state)
    return closed


def store_file(directory: Path, name: str, data: bytes | bytearray) -> None:
    """Write one result (a report) in whole: beside its place first, on disk, then renamed."""
    _replace(directory / (name + ".part"), name, data, durable=True)


def capture_to_look_into(directory: Path, *, limit_bytes: int) -> Path:
    """The job's capture as a file with places to go back to: a compressed one is unpacked once, at the first look.

    Where it does not fit (`limit_bytes`, or the disk) the compressed file itself is the answer: slower, not wrong.
    """
    capture, unpacked = directory / CAPTURE, directory / UNPACKED
    if unpacked.exists() or unpack(capture, unpacked, limit_bytes=limit_bytes):
        return unpacked
    return capture


def restart(spool: Path, *, now_unix: float) -> list[State]:
    """Put right what a crash left: a job that was running goes back to the queue once, the second time it has failed.

    Directories whose upload was abandoned are removed. Returns the jobs that were changed.
    """
    changed = []
    for state in listing(spool):
        if state.status != "processing":
            continue
        if state.attempts < 2:
            state = dataclasses.replace(state, status="pending", started_unix=None)
        else:
            lost = Failure(
                "worker-lost",
                "The analysis stopped twice without a word, most likely for want of memory.",
                hint="Cut the capture into smaller files, or raise the memory limit of the analysis.",
            )
            state = dataclasses.replace(state, status="failed", finished_unix=now_unix, error=lost)
        with contextlib.suppress(FileNotFoundError):  # deleted in this moment
            save(spool / state.id, state)
            changed.append(state)
    _remove_abandoned(spool, now_unix)
    return changed


def plan_sweep(jobs: list[Stored], retention: Retention, *, now_unix: float) -> list[Removal]:
    """What to remove now. Pure: ages first, then the quota, captures before reports and never of a waiting job."""
    removals: list[Removal] = []
    kept: list[Stored] = []
    for job in jobs:
        state = job.state
        if state.status in WAITING:
            kept.append(job)
            continue
        ended = state.finished_unix if state.finished_unix is not None else state.created_unix
        age = now_unix - ended
        if state.status == "expired":
            if age > retention.stub_s:
                removals.append(Removal(state.id, "all"))
        elif age > retention.report_s:
            removals.append(Removal(state.id, "expire"))
        elif state.status == "failed" and job.capture_bytes and not state.partial:
            removals.append(Removal(state.id, "capture"))
            kept.append(dataclasses.replace(job, capture_bytes=0))
        else:
            kept.append(job)
    used = sum(job.capture_bytes + job.report_bytes for job in kept)
    oldest_first = sorted((j for j in kept if j.state.status in FINISHED), key=lambda j: j.state.finished_unix or 0.0)
    for job in oldest_first:
        if used <= retention.quota_bytes:
            break
        if job.capture_bytes:
            removals.append(Removal(job.state.id, "capture"))
            used -= job.capture_bytes
    for job in oldest_first:
        if used <= retention.quota_bytes:
            break
        removals.append(Removal(job.state.id, "expire"))
        used -= job.report_bytes
    return removals


def sweep(spool: Path, retention: Retention, *, now_unix: float) -> list[Removal]:
    """Remove what the retention no longer keeps; returns what was removed."""
    stored = [Stored(state, *_sizes(spool / state.id)) for state in listing(spool)]
    removals = plan_sweep(stored, retention, now_unix=now_unix)
    for removal in removals:
        directory = spool / removal.id
        if removal.what == "all":
            shutil.rmtree(directory, ignore_errors=True)
            continue
        for name in (CAPTURE, UNPACKED):
            (directory / name).unlink(missing_ok=True)
        if removal.what == "expire":
            with contextlib.suppress(FileNotFoundError):  # deleted in this moment
                _expire(directory)
    _remove_abandoned(spool, now_unix)
    return removals


def _expire(directory: Path) -> None:
    state = load(directory)
    for entry in list(directory.iterdir()):
        if entry.name != STATE and entry.is_file():
            entry.unlink(missing_ok=True)
    if state is not None:
        save(directory, dataclasses.replace(state, status="expired"))


def delete(directory: Path) -> bool:
    """Remove a job with everything it holds; `False` if it was not there. A running one must be cancelled first."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return False
    return True


def _remove_abandoned(spool: Path, now_unix: float) -> None:
    for entry in os.scandir(spool):
        if not is_job_id(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        directory = Path(entry.path)
        if (directory / STATE).exists():
            continue
        try:
            newest = max((item.stat().st_mtime for item in directory.iterdir()), default=directory.stat().st_mtime)
        except FileNotFoundError:  # its upload finished or was given up in this moment
            continue
        if now_unix - newest > ABANDONED_S:
            shutil.rmtree(directory, ignore_errors=True)


def _sizes(directory: Path) -> tuple[int, int]:
    capture = reports = 0
    with contextlib.suppress(FileNotFoundError):  # deleted in this moment: it takes no more room than was counted
        for entry in os.scandir(directory):
            if entry.is_file(follow_symlinks=False):
                size = entry.stat().st_size
                if entry.name in {CAPTURE, UNPACKED}:
                    capture += size
                elif entry.name in {REPORT, REPORT_HTML}:
                    reports += size
    return capture, reports


def _encode(state: State) -> bytes:
    return json.dumps(dataclasses.asdict(state), sort_keys=True).encode()


def _decode(raw: bytes) -> State:
    fields: dict[str, Any] = json.loads(raw)
    known = {item.name for item in dataclasses.fields(State)}
    fields = {name: value for name, value in fields.items() if name in known}  # a newer version may have written more
    if fields.get("error") is not None:
        fields["error"] = Failure(**fields["error"])
    fields["sandbox"] = tuple(fields.get("sandbox", ()))
    return State(**fields)


def _replace(part: Path, name: str, data: bytes | bytearray, *, durable: bool = False) -> None:
    try:
        with part.open("wb") as stream:
            os.fchmod(stream.fileno(), FILE_MODE)
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(part.with_name(name))
    except OSError:  # on a full disk half a file is in the way of everything else
        part.unlink(missing_ok=True)
        raise
