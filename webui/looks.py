"""Second looks for pages: a confined process (`gateway.analysis.look`) goes back into a capture, we pass on its answer.

No octet of a capture is ever parsed in the web process. Few looks run together, each within a deadline; who asks while
all are taken waits its turn. Downloads have turns of their own: a slow line must not keep pages waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

DEADLINE_S: Final = 60.0
_AT_ONCE: Final = 2
_DOWNLOADS_AT_ONCE: Final = 2
_MAX_ANSWER_BYTES: Final = 32 << 20
_PIECE_BYTES: Final = 1 << 16
_ROOT: Final = Path(__file__).parent.parent


class LookFailed(Exception):
    """There is no answer; `error` is a name (`not-found`, `timeout` …), the text is for people."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class Looks:
    """Starts the processes."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._downloads = asyncio.Semaphore(_DOWNLOADS_AT_ONCE)

    async def ask(self, order: dict[str, Any], report: Path, capture: Path) -> Any:  # Any: JSON both ways
        """The answer to one order; raises LookFailed, and OSError for files that are gone."""
        async with self._turns, self._process(order, report, capture) as process:
            assert process.stdout is not None
            answer = bytearray()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    while piece := await process.stdout.read(1 << 18):
                        answer += piece
                        if len(answer) > _MAX_ANSWER_BYTES:
                            raise LookFailed("too-large", "The answer is too large to be shown.")
                    await self._ended(process)
            except TimeoutError:
                raise LookFailed("timeout", "Looking into the capture took too long.") from None
            return json.loads(answer)

    async def pieces(self, order: dict[str, Any], report: Path, capture: Path) -> AsyncGenerator[bytes, None]:
        """The octets of a cut-out as they are made. The first `anext` raises LookFailed when there is nothing."""
        async with self._downloads, self._process(order, report, capture) as process:
            assert process.stdout is not None
            while True:
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        piece = await process.stdout.read(_PIECE_BYTES)
                except TimeoutError:
                    raise LookFailed("timeout", "Looking into the capture took too long.") from None
                if not piece:
                    break
                yield piece
            await self._ended(process)

    @asynccontextmanager
    async def _process(
        self, order: dict[str, Any], report: Path, capture: Path
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        with capture.open("rb") as capture_file, report.open("rb") as report_file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.analysis.look",
                json.dumps(order),
                str(report_file.fileno()),
                stdin=capture_file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(report_file.fileno(),),
                env={"PATH": os.defpath, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        """The process has closed its output: wait for its end, and raise what it said if it failed."""
        assert process.stderr is not None
        said = await process.stderr.read(4096)
        if await process.wait() == 0:
            return
        lines = said.decode("utf-8", "replace").strip().splitlines()
        try:
            reason = json.loads(lines[-1])
            failed = LookFailed(str(reason["error"]), str(reason["message"]))
        except (IndexError, ValueError, KeyError, TypeError):
            how = lines[-1] if lines else f"exit status {process.returncode}"
            failed = LookFailed("failed", f"Looking into the capture failed: {how}")
        if failed.error != "not-found":
            log.warning("a look failed error=%s reason=%s", failed.error, failed)
        raise failed
