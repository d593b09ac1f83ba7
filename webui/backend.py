"""Where captures lie and are analysed: the seam `Backend`, and `LocalBackend` over the spool of `postern-worker`.

Every call may wait for a disk and is made in a thread, but for `progress`, which is small and asked for several times a
second. Another engine is another class with these methods; pages and API do not know which one it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from gateway.analysis import job
from gateway.analysis.job import Progress, Retention, State
from webui.jobs import Room

_UNPACK_LIMIT: Final = 1 << 30
Stamp = tuple[int, int]  # of a file: it changes when the file is replaced
NO_FILE: Final[Stamp] = (0, 0)


class Place(Protocol):
    """Where an upload goes while it comes in."""

    def write(self, data: bytes) -> None:
        """Append; raises OSError when the disk is full."""

    def submit(self) -> State:
        """The capture is whole: put it into the queue."""

    def abandon(self) -> None:
        """Remove what came; twice is once, and after `submit` it is nothing."""


class Backend(Protocol):
    """Jobs, from the upload to the report. Ids have been checked with `is_job_id` by whoever calls."""

    def states(self) -> list[State]:
        """Every job, oldest first."""

    def state(self, job_id: str) -> State | None:
        """One job; None when there is none."""

    def progress(self, job_id: str) -> Progress:
        """How far a job is."""

    def stamp(self, job_id: str) -> tuple[Stamp, Stamp]:
        """What changes when state or progress of a job change; cheap."""

    def room(self) -> Room:
        """Space on the disk, and who takes it."""

    def make_room(self, wanted_bytes: int) -> None:
        """Remove the oldest finished captures until so much more fits the quota and the disk, as far as possible."""

    def begin(self, name: str, owner: str, settings: dict[str, str]) -> Place:
        """A place for a new capture."""

    def cancel(self, job_id: str) -> None:
        """Ask that a job stop."""

    def delete(self, job_id: str) -> bool:
        """Remove a job with everything; False when it was gone."""

    def file(self, job_id: str, name: str) -> Path | None:
        """A finished file of a job (`report.json`, `report.html`); None when it is not there."""

    def capture(self, job_id: str) -> Path | None:
        """The capture with places to go back to; None when it was removed."""

    def beat_unix(self) -> float | None:
        """When the worker was last alive; None when it has never been."""

    def retention(self) -> Retention:
        """How long what is kept, as the worker does it."""


class LocalBackend:
    """The spool on this machine."""

    def __init__(self, spool: Path, wall: Callable[[], float], *, keep_free_share: float) -> None:
        """`wall` gives the time of day, `keep_free_share` the part of the file system that stays free."""
        self._spool = spool
        self._wall = wall
        self._keep_free_share = keep_free_share

    def states(self) -> list[State]:
        """Every job, oldest first."""
        try:
            return job.listing(self._spool)
        except FileNotFoundError:  # no worker was ever set up; `health` says so
            return []

    def state(self, job_id: str) -> State | None:
        """One job; None when there is none."""
        return job.load(self._spool / job_id)

    def progress(self, job_id: str) -> Progress:
        """How far a job is."""
        return job.read_progress(self._spool / job_id)

    def stamp(self, job_id: str) -> tuple[Stamp, Stamp]:
        """Inode and time of both files: each is replaced by rename."""
        directory = self._spool / job_id
        return _stamp(directory / job.STATE), _stamp(directory / job.PROGRESS)

    def room(self) -> Room:
        """Space on the disk, and who takes it."""
        try:
            disk = shutil.disk_usage(self._spool)
        except FileNotFoundError:
            return Room()
        used = removable = 0
        for entry in os.scandir(self._spool):
            if not job.is_job_id(entry.name):
                continue
            size = _bytes_in(Path(entry.path))
            used += size
            state = job.load(Path(entry.path))
            if state is not None and state.status in job.FINISHED:
                removable += size
        return Room(disk.total, disk.free, used, removable)

    def make_room(self, wanted_bytes: int) -> None:
        """Sweep with a quota that is smaller by what is wanted, or by what the disk lacks."""
        room, retention = self.room(), self.retention()
        missing = int(room.disk_bytes * self._keep_free_share) + wanted_bytes - room.free_bytes
        quota = min(retention.quota_bytes - wanted_bytes, room.used_bytes - missing)
        if room.used_bytes > quota:
            kept = Retention(retention.report_s, retention.stub_s, max(0, quota))
            job.sweep(self._spool, kept, now_unix=self._wall())

    def begin(self, name: str, owner: str, settings: dict[str, str]) -> Place:
        """A place for a new capture."""
        return _LocalPlace(job.create(self._spool, name, owner=owner, now_unix=self._wall(), settings=settings))

    def cancel(self, job_id: str) -> None:
        """Ask that a job stop."""
        try:
            job.request_cancel(self._spool / job_id)
        except FileNotFoundError:  # it was removed meanwhile
            return

    def delete(self, job_id: str) -> bool:
        """Remove a job with everything."""
        return job.delete(self._spool / job_id)

    def file(self, job_id: str, name: str) -> Path | None:
        """A finished file of a job."""
        path = self._spool / job_id / name
        return path if path.is_file() else None

    def capture(self, job_id: str) -> Path | None:
        """The capture, unpacked once when it is compressed."""
        directory = self._spool / job_id
        if not (directory / job.CAPTURE).is_file():
            return None
        return job.capture_to_look_into(directory, limit_bytes=_UNPACK_LIMIT)

    def beat_unix(self) -> float | None:
        """When the worker last said that it is alive."""
        beat = self._beat().get("beat_unix")
        return float(beat) if isinstance(beat, int | float) else None

    def retention(self) -> Retention:
        """What the worker said, or its defaults."""
        try:
            return Retention(**self._beat()["retention"])
        except (KeyError, TypeError):
            return Retention()

    def _beat(self) -> dict[str, Any]:  # Any: JSON
        try:
            found = json.loads((self._spool / job.BEAT).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


class _LocalPlace:
    """`capture.part` in the directory of a job that is none yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._part = directory / (job.CAPTURE + ".part")
        self._submitted = False
        # Unbuffered: pieces are large, and what was written is then the kernel's.
        self._stream: BinaryIO = self._part.open("wb", buffering=0)
        os.fchmod(self._stream.fileno(), job.FILE_MODE)

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]

    def submit(self) -> State:
        """On disk, in its place, in the queue."""
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._part.rename(self._directory / job.CAPTURE)
        state = job.submit(self._directory)
        self._submitted = True  # not before: where there is no room for the state, nothing is left
        return state

    def abandon(self) -> None:
        """Remove the directory."""
        if not self._submitted:
            self._submitted = True
            self._stream.close()
            shutil.rmtree(self._directory, ignore_errors=True)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE
    return found.st_ino, found.st_mtime_ns


def _bytes_in(directory: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:  # removed while we looked
        return 0
