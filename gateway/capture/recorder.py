"""Recording: start a child that holds a ready packet socket and nothing else, and the child itself.

The starter opens the socket (`tap`), gives it to `python -m gateway.capture.recorder`, and goes away. The child gives
up its user, its network and its privileges, writes files until a bound is met or it is asked to stop, and keeps the
record. In the directory of an analysis job it then puts that job into the queue.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

from gateway.analysis import job, sandbox
from gateway.capture import expression, recording
from gateway.capture.files import HEADER_BYTES, RingFiles
from gateway.capture.recording import Bounds, Recording
from gateway.capture.tap import Ring, TapError, open_tap

KEEP_FREE_SHARE: Final = 0.1  # of the file system; a full disk harms more than a short capture
RECORD_EVERY_S: Final = 1.0
WAIT_S: Final = 0.2
START_WAIT_S: Final = 15.0  # a small box that is busy takes its time
NOBODY: Final = 65534
LOG: Final = "recorder.log"  # what the recorder says when it breaks; removed when it has nothing to say


def start(
    captures: Path,
    interface: str,
    filter_text: str,
    bounds: Bounds,
    *,
    promiscuous: bool = False,
    owner: str = "postern",
    job_name: str = "",
    job_owner: str = "",
) -> Recording:
    """Begin a recording and return its record once the recorder runs; raises TapError, FilterError or OSError.

    `owner` is the user the files shall belong to and the recorder runs as, where this process may choose. With a
    `job_name`, `captures` is the spool of the analysis and the recording becomes a job of that name, of `job_owner`.
    """
    tree = expression.parse(filter_text)
    room = shutil.disk_usage(_existing(captures))
    if room.free - bounds.max_bytes < room.total * KEEP_FREE_SHARE:
        raise TapError(
            f"{captures} has {room.free >> 20} MB free and a tenth of it is kept: ask for less than "
            f"{max(0, int(room.free - room.total * KEEP_FREE_SHARE)) >> 20} MB, or remove old recordings"
        )
    tap = open_tap(interface, tree, snap_bytes=bounds.snap_bytes, promiscuous=promiscuous)
    with tap.sock:
        user = _user(owner)
        if not captures.exists():
            captures.mkdir(mode=0o750, parents=True)
            if user is not None:
                os.chown(captures, *user)
        started = time.time()
        if job_name:
            directory = job.create(captures, job_name, owner=job_owner, now_unix=started)
            if user is not None:
                for path in (directory, *directory.iterdir()):
                    os.chown(path, user[0], -1)  # the group is the spool's
        else:
            directory = _make_directory(captures, interface, started)
            if user is not None:
                os.chown(directory, *user)
        record = Recording(directory.name, interface, filter_text, tap.linktype, bounds, started_unix=started)
        recording.save(directory, record)
        with (directory / LOG).open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "gateway.capture.recorder", str(directory), str(tap.sock.fileno())]
                + [str(part) for part in user or ()],
                pass_fds=(tap.sock.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
            )
    deadline = time.monotonic() + START_WAIT_S
    while time.monotonic() < deadline:
        current = recording.load(directory)
        if current is not None and (current.pid or current.status != "recording"):
            # Whoever lives longer than the recorder has to take its exit status, or it stays as a zombie.
            threading.Thread(target=child.wait, name="recorder", daemon=True).start()
            return current
        if child.poll() is not None:
            break
        time.sleep(0.02)
    said = (directory / LOG).read_text(errors="replace").strip().splitlines()[-1:]
    if job_name:
        shutil.rmtree(directory, ignore_errors=True)
    raise TapError(f"the recorder in {directory} did not start: {said[0] if said else 'it said nothing'}")


def stop(captures: Path, recording_id: str, *, wait_s: float = 5.0) -> Recording:
    """End a recording and return its final record; raises LookupError for an unknown id, TimeoutError if it goes on."""
    directory = captures / recording_id
    if not recording.is_recording_id(recording_id) or recording.load(directory) is None:
        raise LookupError(f"there is no recording {recording_id!r} in {captures}; `postern capture list` shows them")
    recording.request_stop(directory)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        current = recording.load(directory)
        if current is not None and recording.as_it_stands(current).status != "recording":
            return recording.as_it_stands(current)
        time.sleep(0.05)
    raise TimeoutError(f"the recorder of {recording_id} has not stopped after {wait_s:g} seconds")


def record(directory: Path, sock: socket.socket, user: tuple[int, int] | None) -> int:
    """The child: record until a bound is met, the stop file appears or a signal comes; returns the exit status."""
    current = recording.load(directory)
    if current is None:
        return 2
    bounds = current.bounds
    stopping: list[str] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stopping.append(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    started = recording.process_started(os.getpid())  # before the process table is out of reach
    ring = Ring(sock)
    limits = sandbox.Limits(
        memory_bytes=256 << 20, cpu_s=int(bounds.max_seconds) + 60, file_bytes=bounds.max_bytes + (1 << 20)
    )
    layers = sandbox.confine(limits, readable=[directory], writable=[directory], user=user)
    current = dataclasses.replace(
        current,
        pid=os.getpid(),
        pid_started=started,
        sandbox=tuple(f"{layer.name}: {'on' if layer.active else 'off'} {layer.detail}".rstrip() for layer in layers),
    )
    files = RingFiles(
        directory,
        linktype=current.linktype,
        snap_bytes=bounds.snap_bytes,
        file_bytes=max(bounds.max_bytes // bounds.ring_files, HEADER_BYTES + 1),
        ring=bounds.ring_files,
    )
    try:
        current = _until_full(directory, sock, ring, files, current, stopping)
    except OSError as err:
        current = dataclasses.replace(current, status="failed", ended_by=err.strerror or str(err))
    finally:
        files.close()
        ring.close()
    ended = dataclasses.replace(
        current, finished_unix=time.time(), files=files.names, bytes=files.total_bytes, pid=0, pid_started=0
    )
    if job.is_draft(directory):
        (directory / ended.files[-1]).rename(directory / job.CAPTURE)
        ended = dataclasses.replace(ended, files=(job.CAPTURE,))
        job.submit(directory)
    recording.save(directory, ended)
    if (directory / LOG).stat().st_size == 0:
        (directory / LOG).unlink()
    return 0 if ended.status == "finished" else 1


def _until_full(
    directory: Path, sock: socket.socket, ring: Ring, files: RingFiles, current: Recording, stopping: list[str]
) -> Recording:
    bounds = current.bounds
    began = time.monotonic()
    saved_at = began - RECORD_EVERY_S
    packets = 0
    ended_by = ""
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLERR)
    while not ended_by:
        now = time.monotonic()
        if now - saved_at >= RECORD_EVERY_S:
            files.flush()
            current = dataclasses.replace(
                current, packets=packets, bytes=files.total_bytes, dropped=ring.dropped(), files=files.names
            )
            recording.save(directory, current)
            saved_at = now
        last_round = ""
        if now - began >= bounds.max_seconds:
            last_round = "time"
        elif stopping or (directory / recording.STOP).exists():
            last_round = "stop"
        elif any(event & select.POLLERR for _, event in poller.poll(WAIT_S * 1000)):
            raise OSError(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the interface went down or was removed")
        for block in ring.blocks(current.linktype):
            for packet in block:
                if not files.write(packet):
                    ended_by = "bytes"
                    break
                packets += 1
                if packets >= bounds.max_packets:
                    ended_by = "packets"
                    break
            if ended_by:
                break
        ended_by = ended_by or last_round
    return dataclasses.replace(current, packets=packets, dropped=ring.dropped(), status="finished", ended_by=ended_by)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _make_directory(captures: Path, interface: str, started: float) -> Path:
    for later in range(100):  # two recordings of one interface in the same second
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started + later))
        directory = captures / recording.new_id(interface, stamp)
        try:
            directory.mkdir(mode=0o750)
        except FileExistsError:
            continue
        return directory
    raise TapError(f"too many recordings were started at once in {captures}")


def _user(name: str) -> tuple[int, int] | None:
    if os.getuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:  # not installed as a service: anybody but root
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def main(arguments: list[str]) -> int:
    """`python -m gateway.capture.recorder DIRECTORY DESCRIPTOR [UID GID]`; started by `start`, not by people."""
    directory, descriptor, *ids = arguments
    user = (int(ids[0]), int(ids[1])) if ids else None
    with socket.socket(fileno=int(descriptor)) as sock:
        return record(Path(directory), sock, user)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
