"""`postern-worker`: takes jobs from the spool, one after the other; or one job by itself, started by hand.

    python -m gateway.analysis.worker JOBDIR          run the job in that directory, then end
    postern-worker --spool /var/lib/postern/spool     the service: oldest job first, one at a time

The service needs no network and writes nowhere but in the spool. It keeps the retention (`job.plan_sweep`), puts right
what a crash left, and says in `worker.json` that it is alive and how long it keeps what.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from gateway.analysis import job
from gateway.analysis.job import Retention, State
from gateway.analysis.supervise import Bounds, run_job

SPOOL: Final = Path("/var/lib/postern/spool")
BEAT: Final = job.BEAT
BEAT_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 2.0  # for what could not wake us
CANCELLED_EVERY_S: Final = 1.0  # how often waiting jobs are looked at while another runs
SWEEP_EVERY_S: Final = 3600.0
EXIT_STATUS: Final = {"completed": 0, "failed": 1, "cancelled": 130}

log = logging.getLogger("postern.worker")


class Service:
    """The loop over the spool. `stop` may be called from a signal handler."""

    def __init__(self, spool: Path, bounds: Bounds, retention: Retention) -> None:
        self._spool = spool
        self._bounds = bounds
        self._retention = retention
        self._wake_read, self._wake_write = os.pipe()
        self._woken = job.open_wake(spool)
        self._stopping = False
        self._beaten = float("-inf")
        self._swept = float("-inf")
        self._looked = float("-inf")
        self._settled = False  # whether every state on the disk is as it should be
        self._was_full = False
        self._running: str | None = None

    def stop(self) -> None:
        """End soon; a running job goes back to the queue."""
        self._stopping = True
        os.write(self._wake_write, b".")

    def run(self) -> None:
        """Work until stopped; on a full disk wait until there is room again."""
        while not self._stopping:
            try:
                self._turn()
                self._was_full = False
            except OSError as err:
                if not job.is_full(err):
                    raise
                self._wait_for_room(err)
        with contextlib.suppress(OSError):  # the last beat is a courtesy
            self._beat(force=True)

    def _turn(self) -> None:
        """One job, or a wait for one."""
        self._beat()
        if not self._settled:
            for lost in job.restart(self._spool, now_unix=time.time()):
                log.warning("job put right after a crash job=%s status=%s", lost.id, lost.status)
            self._settled = True
        if time.monotonic() - self._swept > SWEEP_EVERY_S:
            self._sweep()
        state = self._next()
        if state is None:
            ready, _, _ = select.select([self._wake_read, self._woken], [], [], LOOK_EVERY_S)
            if self._woken in ready:
                os.read(self._woken, 4096)
            return
        self._work(state)
        self._sweep()

    def _wait_for_room(self, err: OSError) -> None:
        """Remove what may go, and look again in a moment; what could not be written is put right then."""
        if not self._was_full:
            log.error("the disk is full, analyses wait spool=%s reason=%s", self._spool, err.strerror)
        self._was_full, self._settled = True, False
        with contextlib.suppress(OSError):
            self._sweep()
        select.select([self._wake_read], [], [], LOOK_EVERY_S)

    def close(self) -> None:
        """Give back the descriptors."""
        for descriptor in (self._wake_read, self._wake_write, self._woken):
            os.close(descriptor)

    def _next(self) -> State | None:
        """The oldest pending job; those that were cancelled while they waited are closed on the way."""
        job.close_cancelled(self._spool, now_unix=time.time())
        return next((state for state in job.listing(self._spool) if state.status == "pending"), None)

    def _while_running(self) -> None:
        """Called several times a second by a running job, which a full disk need not stop."""
        try:
            self._beat()
            now = time.monotonic()
            if now - self._looked >= CANCELLED_EVERY_S:
                self._looked = now
                job.close_cancelled(self._spool, now_unix=time.time())
        except OSError as err:
            if not job.is_full(err):
                raise

    def _work(self, state: State) -> None:
        directory = self._spool / state.id
        self._running = state.id
        log.info("job started job=%s bytes=%d attempt=%d", state.id, state.size_bytes, state.attempts + 1)
        try:
            ended = run_job(directory, self._bounds, stopping=lambda: self._stopping, beat=self._while_running)
        except OSError as err:  # the directory was removed under us, its capture is not readable, or the disk is full
            log.warning("job could not be run job=%s error=%s", state.id, err)
            if directory.is_dir():
                failure = job.Failure("worker-lost", f"The capture could not be read: {err.strerror}.", str(err))
                if job.is_full(err):
                    failure = job.no_room(directory)
                lost = dataclasses.replace(state, status="failed", finished_unix=time.time(), error=failure)
                with contextlib.suppress(FileNotFoundError):  # removed in this moment
                    job.save(directory, lost)
            return
        finally:
            self._running = None
        error = ended.error.error if ended.error is not None else "none"
        log.info("job ended job=%s status=%s packets=%d error=%s", ended.id, ended.status, ended.packets, error)

    def _sweep(self) -> None:
        self._swept = time.monotonic()
        for removal in job.sweep(self._spool, self._retention, now_unix=time.time()):
            log.info("removed job=%s what=%s", removal.id, removal.what)

    def _beat(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._beaten < BEAT_EVERY_S and not force:
            return
        self._beaten = now
        alive = {
            "pid": os.getpid(),
            "beat_unix": time.time(),
            "job": self._running,
            "stopping": self._stopping,
            "retention": dataclasses.asdict(self._retention),
        }
        part = self._spool / (BEAT + ".part")
        part.write_text(json.dumps(alive))
        part.chmod(job.FILE_MODE)
        part.replace(self._spool / BEAT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `postern-worker`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="postern-worker", description="Analyse captures from the spool.")
    parser.add_argument("job", nargs="?", type=Path, help="run only the job in this directory")
    parser.add_argument("--spool", type=Path, default=SPOOL, help=f"directory of jobs (default {SPOOL})")
    parser.add_argument("--memory-mb", type=int, default=256, help="address space of one analysis (default 256)")
    parser.add_argument("--cpu-s", type=int, default=1800, help="processor seconds of one analysis (default 1800)")
    parser.add_argument("--wall-s", type=float, default=1800.0, help="seconds of one analysis (default 1800)")
    parser.add_argument("--keep-hours", type=float, default=24.0, help="how long reports are kept (default 24)")
    parser.add_argument("--quota-mb", type=int, default=500, help="space of all captures and reports (default 500)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    os.umask(0o007)
    bounds = Bounds(memory_bytes=chosen.memory_mb << 20, cpu_s=chosen.cpu_s, wall_s=chosen.wall_s)
    if chosen.job is not None:
        return _one(chosen.job, bounds)
    if not chosen.spool.is_dir():
        print(
            f"postern-worker: the spool {chosen.spool} is not there; make it or name another with --spool",
            file=sys.stderr,
        )
        return 1
    retention = Retention(report_s=chosen.keep_hours * 3600, quota_bytes=chosen.quota_mb << 20)
    service = Service(chosen.spool, bounds, retention)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        service.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        service.run()
    finally:
        service.close()
    return 0


def _one(directory: Path, bounds: Bounds) -> int:
    """Run one job; SIGTERM or SIGINT cancels it."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        job.request_cancel(directory)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        state = run_job(directory, bounds)
    except OSError as err:
        print(f"postern-worker: {err}", file=sys.stderr)
        return 1
    for line in state.sandbox:
        log.info("sandbox %s", line)
    if state.error is not None:
        print(
            f"postern-worker: {state.error.error}: {state.error.message} {state.error.hint}".rstrip(), file=sys.stderr
        )
        if state.error.error in _REFUSALS:
            return 65
    return EXIT_STATUS.get(state.status, 1)


_REFUSALS: Final = frozenset(
    {"not-a-capture", "unsupported-linktype", "empty", "too-large", "gzip-bomb", "gzip-corrupt"}
)


if __name__ == "__main__":
    sys.exit(main())
