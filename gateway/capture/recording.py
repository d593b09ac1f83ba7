"""The record of a recording and its directory: what was asked, where it stands, which files it has.

    captures/<id>/record.json   this record, replaced by rename, written by the recorder while it runs
    captures/<id>/stop          its presence asks the recorder to end
    captures/<id>/capture-0001.pcap, capture-0002.pcap ...   one file, or the newest of a ring

The listing of the directory is the list of recordings; nothing else remembers them. A recording may also be made in the
directory of an analysis job, whose id it then has: when it ends its file becomes the capture of that job.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import field
from pathlib import Path
from typing import Final, Literal

from gateway.values import value_class

RECORD, STOP = "record.json", "stop"
_ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9_.@-]{1,40}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Status = Literal["recording", "finished", "failed"]


@value_class
class Bounds:
    """Where a recording ends by itself; a ring goes on, and its oldest file goes first."""

    max_bytes: int = 50 << 20  # of all files together
    max_packets: int = 1_000_000
    max_seconds: float = 600.0
    snap_bytes: int = 262_144  # of each packet
    ring_files: int = 1  # 1: stop when full; more: go on, keep the newest

    def problems(self) -> list[str]:
        """What is wrong with these bounds, as sentences; empty if nothing is."""
        found = []
        if not 64 << 10 <= self.max_bytes <= 64 << 30:
            found.append(f"bytes: {self.max_bytes} is out of range, accepted is 64 kB to 64 GB")
        if not 1 <= self.max_packets <= 10**10:
            found.append(f"packets: {self.max_packets} is out of range, accepted is 1 to 10,000,000,000")
        if not 1 <= self.max_seconds <= 30 * 86400:
            found.append(f"seconds: {self.max_seconds:g} is out of range, accepted is 1 second to 30 days")
        if not 64 <= self.snap_bytes <= 262_144:
            found.append(f"snap: {self.snap_bytes} is out of range, accepted is 64 to 262144 bytes of each packet")
        if not 1 <= self.ring_files <= 1000:
            found.append(f"ring: {self.ring_files} is out of range, accepted is 1 to 1000 files")
        return found


@value_class
class Recording:
    """One recording's row."""

    id: str
    interface: str
    filter: str
    linktype: int
    bounds: Bounds
    status: Status = "recording"
    started_unix: float = 0.0
    finished_unix: float | None = None
    pid: int = 0
    pid_started: int = 0  # clock ticks since boot, so that a reused pid is not taken for the recorder
    packets: int = 0
    bytes: int = 0
    dropped: int = 0  # by the kernel, because the recorder was too slow
    files: tuple[str, ...] = ()
    ended_by: str = ""  # bytes, packets, time, stop, or an error in words
    sandbox: tuple[str, ...] = field(default=())


def is_recording_id(text: str) -> bool:
    """Whether the text has the form of a recording's id; asked before any path is made from it."""
    return _ID.fullmatch(text) is not None


def new_id(interface: str, stamp: str) -> str:
    """An id that sorts by time and can be typed: `20260131-142501-br-guest`. `stamp` is YYYYMMDD-HHMMSS."""
    return f"{stamp}-{re.sub('[^a-z0-9_.@-]', '-', interface.lower())[:32]}"


def save(directory: Path, recording: Recording) -> None:
    """Replace the record."""
    part = directory / (RECORD + ".part")
    part.write_text(json.dumps(dataclasses.asdict(recording), indent=1, sort_keys=True))
    part.replace(directory / RECORD)


def load(directory: Path) -> Recording | None:
    """The record of a directory; `None` if there is none or it is damaged."""
    try:
        fields = json.loads((directory / RECORD).read_text())
        fields["bounds"] = Bounds(**fields["bounds"])
        fields["files"] = tuple(fields["files"])
        fields["sandbox"] = tuple(fields["sandbox"])
        return Recording(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def listing(captures: Path) -> list[Recording]:
    """All recordings, newest first; one whose recorder has vanished is shown as failed."""
    found: list[Recording] = []
    if not captures.is_dir():
        return found
    for entry in os.scandir(captures):
        if is_recording_id(entry.name):
            recording = load(Path(entry.path))
            if recording is not None and recording.id == entry.name:
                found.append(as_it_stands(recording))
    return sorted(found, key=lambda recording: recording.id, reverse=True)


def as_it_stands(recording: Recording) -> Recording:
    """The record corrected by what the process table says: a recorder that is gone has failed."""
    if recording.status == "recording" and process_started(recording.pid) != recording.pid_started:
        return dataclasses.replace(recording, status="failed", ended_by="the recorder was killed")
    return recording


def request_stop(directory: Path) -> None:
    """Ask a recorder to end; it looks several times a second."""
    (directory / STOP).touch()


def delete(captures: Path, recording: Recording) -> None:
    """Remove a recording that has ended, with its files."""
    import shutil  # here, because it stays in memory for good

    shutil.rmtree(captures / recording.id)


def process_started(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 if there is none (or it is a zombie)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if after_name[0] == "Z" else int(after_name[19])
