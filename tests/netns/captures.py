"""The analysis of captures in a laboratory: the spool as packages make it, `postern-worker` as a user of its own."""

from __future__ import annotations

import shutil
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

    def __init__(self, hotspot: Hotspot) -> None:
        self._hotspot = hotspot
        self.spool = hotspot.directory / "state" / "spool"
        self._log = hotspot.directory / "postern-worker.log"
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Captures:
        self.spool.parent.chmod(0o711)  # the way to the spool, and no more
        self.spool.mkdir()
        shutil.chown(self.spool, self._hotspot.user or "root", WEB_GROUP)
        self.spool.chmod(job.DIRECTORY_MODE)
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [
                    *("setpriv", f"--reuid={WORKER_USER}", f"--regid={WEB_GROUP}", "--clear-groups", "--no-new-privs"),
                    *("--inh-caps=-all", "--bounding-set=-all"),
                    *(sys.executable, "-m", "gateway.analysis.worker", "--spool", str(self.spool)),
                ],
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not (self.spool / job.WAKE).exists():
            assert self._worker.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, "the worker does not start"
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        self._worker.terminate()
        try:
            self._worker.wait(15)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()

    def analysed(self, timeout_s: float = 60.0) -> State:
        """The newest job, once it has ended; raises AssertionError with the worker's log when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            states = job.listing(self.spool)
            if states and states[-1].status in job.FINISHED:
                return states[-1]
            assert time.monotonic() < deadline, f"{states}\n{self._log.read_text(errors='replace')}"
            time.sleep(0.1)
