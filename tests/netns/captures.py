"""The analysis of captures in a laboratory: the spool as packages make it, `postern-worker` as a user of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from gateway.analysis import job
from gateway.analysis.job import State
from tests.netns.hotspot import WEB_GROUP, Hotspot

WORKER_USER: Final = "backup"  # every Debian has it; the worker needs nothing but the spool
START_LIMIT_S: Final = 30.0


class Captures:
    """The spool of a hotspot and its worker; use as a context manager."""

    def __init__(self, hotspot: Hotspot, *options: str) -> None:
        """`options` are more arguments of the worker."""
        self._hotspot = hotspot
        self._options = options
        self.spool = hotspot.directory / "state" / "spool"
        self._log = hotspot.directory / "postern-worker.log"
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Captures:
        self.spool.parent.chmod(0o711)  # the way to the spool, and no more
        self.spool.mkdir()
        shutil.chown(self.spool, self._hotspot.user or "root", WEB_GROUP)
        self.spool.chmod(job.DIRECTORY_MODE)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def worker_pid(self) -> int:
        """The worker's process id."""
        assert self._worker is not None
        return self._worker.pid

    def start(self) -> None:
        """Start the worker, as lowly as its service does, and wait until it listens for jobs."""
        (self.spool / job.BEAT).unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [
                    *("nice", "-n", "10"),
                    *("setpriv", f"--reuid={WORKER_USER}", f"--regid={WEB_GROUP}", "--clear-groups", "--no-new-privs"),
                    *("--inh-caps=-all", "--bounding-set=-all"),
                    *(sys.executable, "-m", "gateway.analysis.worker", "--spool", str(self.spool), *self._options),
                ],
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not (self.spool / job.BEAT).exists():
            assert self._worker.poll() is None, self.log()
            assert time.monotonic() < deadline, "the worker does not start"
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the worker with a signal; twice is once."""
        assert self._worker is not None
        if self._worker.poll() is None:
            self._worker.send_signal(number)
        try:
            self._worker.wait(15)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()

    def log(self) -> str:
        """What the worker wrote."""
        return self._log.read_text(errors="replace")

    def analysed(self, timeout_s: float = 60.0) -> State:
        """The newest job, once it has ended; raises AssertionError with the worker's log when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            states = job.listing(self.spool)
            if states and states[-1].status in job.FINISHED:
                return states[-1]
            assert time.monotonic() < deadline, f"{states}\n{self.log()}"
            time.sleep(0.1)
