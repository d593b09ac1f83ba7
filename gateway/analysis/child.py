"""The process that looks at a capture: gives everything up, then analyses what is on its standard input.

Started by `supervise`, never by people. The capture comes as an open file on standard input, results go as messages to
standard output: a JSON line that names the message and its length, then so many bytes. SIGUSR1 and the processor-time
limit make it end the reading and report what it has; SIGTERM ends it at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import Any, BinaryIO

from gateway.analysis import html, html_flows, sandbox
from gateway.analysis.engine import AnalysisRefused, Progress, Settings, analyze
from gateway.analysis.frames import CaptureFile
from gateway.analysis.settings import SettingsError

NOBODY = 65534


class _Stoppable:
    """The capture as a stream that ends early when time is up, so that what was read still becomes a report."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = False
        self.stopped = False

    def read(self, size: int = -1) -> bytes:
        if self.stopped and self._begun:  # the first block is always read, so that there is something to say
            return b""
        self._begun = True
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:  # Any: whatever else a file can do
        return getattr(self._file, name)


def run(order: dict[str, Any]) -> int:  # Any: a JSON object, see `supervise`
    """Carry out one order: name, settings, limits. Returns the exit status."""
    source = _Stoppable(os.fdopen(os.dup(0), "rb", buffering=0))

    def stop(_number: int, _frame: FrameType | None) -> None:
        source.stopped = True

    signal.signal(signal.SIGUSR1, stop)
    signal.signal(signal.SIGXCPU, stop)
    layers = sandbox.confine(sandbox.Limits(**order["limits"]), user=(NOBODY, NOBODY) if os.getuid() == 0 else None)
    _send("sandbox", json.dumps([layer._asdict() for layer in layers]).encode())
    try:
        settings = Settings().with_overrides(order["settings"])
        report: Any = analyze(source, name=order["name"], settings=settings, progress=_send_progress)  # type: ignore[arg-type]
        if source.stopped:
            report["capture"]["notes"].insert(0, _partial_note(report))
        _send("report", json.dumps(report, sort_keys=True).encode())
        figures = {
            "packets": report["capture"]["packets"],
            "health_score": report["health"]["score"],
            "findings": len(report["findings"]),
        }
        _send("figures", json.dumps(figures).encode())
        if not source.stopped:
            _send_progress(
                Progress("drawing", order["size_bytes"], order["size_bytes"], report["capture"]["packets"], 0)
            )
            with CaptureFile.of(os.fdopen(os.dup(0), "rb")) as capture:
                pictures = html_flows.worst_flows(capture, report)
        else:
            pictures = []
        _send("html", html.render(report, pictures).encode())
        _send("done", json.dumps({"partial": source.stopped}).encode())
    except AnalysisRefused as refused:
        if source.stopped:
            _send("done", json.dumps({"partial": True}).encode())
        else:
            _send("refused", json.dumps(refused.as_dict()).encode())
    except SettingsError as err:
        _send("refused", json.dumps({"error": "settings", "message": str(err)}).encode())
    except MemoryError:
        report = None  # what is left of it is needed for the message
        _send("memory", b"")
    return 0


def _partial_note(report: Any) -> dict[str, Any]:  # Any: a Report about to become JSON
    return {
        "name": "partial",
        "count": 1,
        "sentence": f"The time limit ended the reading after {report['capture']['packets']:,} packets; "
        "what this report says holds for these only.",
        "frame": None,
        "offset": None,
    }


def _send_progress(progress: Progress) -> None:
    _send("progress", json.dumps(progress._asdict()).encode())


def _send(kind: str, body: bytes) -> None:
    view = memoryview(json.dumps({"kind": kind, "bytes": len(body)}).encode() + b"\n" + body)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    # Everything was sent; to take the tables apart object by object costs more than a small capture.
    os._exit(run(json.loads(sys.argv[1])))
