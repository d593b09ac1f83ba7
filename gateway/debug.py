"""Looking into the running daemon, on the control socket only: profile, heap, tasks, rate limiters.

Nothing here costs anything until it is asked for. The profile is made by sampling the loop's thread from another one,
so that a busy gateway is slowed by a few per cent for its duration, not halved as a tracing profiler would.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from gateway.control import params as read
from gateway.control.protocol import BUSY, CONFLICT, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method

MAX_SECONDS: Final = 60.0
SAMPLE_INTERVAL_S: Final = 0.005
ROWS: Final = 40  # lines of a listing
MAX_TASKS: Final = 500
_PAGE_BYTES: Final = 4096
_DEPTH: Final = 200  # frames of one sample that are looked at

RateLimiters = Mapping[str, Callable[[], Mapping[str, JsonValue]]]


class Debugger:
    """The four methods. `rate_limiters` names each limiter of the gateway with a function that tells its state."""

    def __init__(self, rate_limiters: RateLimiters) -> None:
        self._rate_limiters = dict(rate_limiters)
        self._profiling = False

    def methods(self) -> dict[str, Method]:
        """What the daemon adds to its control methods."""
        return {
            "debug.profile": Method(self.profile, Access.WRITE),
            "debug.heap": Method(self.heap, Access.WRITE),
            "debug.tasks": Method(self.tasks, Access.WRITE),
            "debug.rate_limiters": Method(self.limiters, Access.READ),
        }

    async def profile(self, caller: Caller, params: Params) -> JsonValue:
        """{"seconds": 0.1 to 60} -> {"text", "samples", "rows"}: where the loop's thread spent its time."""
        read.only(params, "seconds")
        seconds = read.number(params, "seconds", 5.0, low=0.1, high=MAX_SECONDS)
        if self._profiling:
            raise ControlError(BUSY, "a profile is being taken already; one at a time")
        self._profiling = True
        stop = threading.Event()
        sampler = _Sampler(threading.get_ident(), stop)
        thread = threading.Thread(target=sampler.run, name="profile", daemon=True)
        thread.start()
        try:
            await asyncio.sleep(seconds)
        finally:
            stop.set()
            thread.join()  # at most one sampling interval
            self._profiling = False
        return {"text": sampler.text(seconds), "samples": sampler.samples, "rows": sampler.rows()}

    def heap(self, caller: Caller, params: Params) -> JsonValue:
        """{"trace"?: start|stop} -> memory of the process, objects by type and, while tracing, lines that allocate.

        Counting walks every container object: about 50 ms per million of them, in which nothing else runs.
        """
        import tracemalloc  # here, because it is half a megabyte that hardly anybody asks for

        read.only(params, "trace")
        order = read.choice(params, "trace", ("start", "stop"), None)
        if order == "start":
            if tracemalloc.is_tracing():
                raise ControlError(CONFLICT, "allocations are being traced already")
            tracemalloc.start(1)
        answer: dict[str, JsonValue] = {
            "memory_rss_bytes": resident_bytes(),
            "tracing": tracemalloc.is_tracing(),
            "gc_counts": list(gc.get_count()),
            "frozen": gc.get_freeze_count(),  # objects made before gc.freeze(); Python does not list them any more
            "types": _types(),
            "lines": _allocating_lines() if tracemalloc.is_tracing() else [],
        }
        if order == "stop":
            tracemalloc.stop()
            answer["tracing"] = False
        return answer

    def tasks(self, caller: Caller, params: Params) -> JsonValue:
        """{} -> {"total", "rows": [{name, where, stack}]}: every task of the loop and what it waits for."""
        read.only(params)
        tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
        return {"total": len(tasks), "rows": [_describe(task) for task in tasks[:MAX_TASKS]]}

    def limiters(self, caller: Caller, params: Params) -> JsonValue:
        """{} -> {"rows": [{name, ...}]}: the state of every rate limiter, as its owner tells it."""
        read.only(params)
        rows: list[JsonValue] = [{"name": name, **state()} for name, state in sorted(self._rate_limiters.items())]
        return {"rows": rows}


class _Sampler:
    """Looks at one thread's stack every few milliseconds and counts the functions on it."""

    def __init__(self, thread_id: int, stop: threading.Event) -> None:
        self._thread_id = thread_id
        self._stop = stop
        self._own: Counter[CodeType] = Counter()  # samples in which the function was the one running
        self._total: Counter[CodeType] = Counter()  # samples in which it was anywhere on the stack
        self.samples = 0

    def run(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            frame = sys._current_frames().get(self._thread_id)
            if frame is not None:
                self._count(frame)

    def _count(self, frame: FrameType) -> None:
        self.samples += 1
        self._own[frame.f_code] += 1
        seen: set[CodeType] = set()
        walk: FrameType | None = frame
        while walk is not None and len(seen) < _DEPTH:
            seen.add(walk.f_code)
            walk = walk.f_back
        self._total.update(seen)

    def rows(self) -> list[JsonValue]:
        """The functions most often running, then those most often on the stack."""
        samples = max(1, self.samples)
        busiest = sorted(self._total, key=lambda code: (-self._own[code], -self._total[code], _where(code)))
        return [
            {
                "function": code.co_qualname,
                "where": _where(code),
                "own_percent": round(100 * self._own[code] / samples, 1),
                "total_percent": round(100 * self._total[code] / samples, 1),
            }
            for code in busiest[:ROWS]
        ]

    def text(self, seconds: float) -> str:
        """The same for reading."""
        lines = [
            f"{self.samples} samples in {seconds:g} s; a loop that waits shows as Runner.run or select",
            "  own%  total%  function",
        ]
        for row in self.rows():
            assert isinstance(row, dict)
            lines.append(f"{row['own_percent']:6}  {row['total_percent']:6}  {row['function']} ({row['where']})")
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_BYTES


def _types() -> list[JsonValue]:
    counts: Counter[type] = Counter(type(thing) for thing in gc.get_objects())
    return [
        {"type": f"{kind.__module__}.{kind.__qualname__}", "count": count} for kind, count in counts.most_common(ROWS)
    ]


def _allocating_lines() -> list[JsonValue]:
    import tracemalloc

    lines: list[JsonValue] = []
    for statistic in tracemalloc.take_snapshot().statistics("lineno")[:ROWS]:
        frame = statistic.traceback[0]
        lines.append(
            {"where": f"{_short(frame.filename)}:{frame.lineno}", "bytes": statistic.size, "count": statistic.count}
        )
    return lines


def _describe(task: asyncio.Task[object]) -> dict[str, JsonValue]:
    stack = [
        f"{frame.f_code.co_qualname} ({_short(frame.f_code.co_filename)}:{frame.f_lineno})"
        for frame in task.get_stack(limit=8)
    ]
    return {"name": task.get_name(), "where": stack[-1] if stack else "", "stack": list(stack)}


def _where(code: CodeType) -> str:
    return f"{_short(code.co_filename)}:{code.co_firstlineno}"


def _short(filename: str) -> str:
    """The last three parts of a path: enough to find the file."""
    return "/".join(Path(filename).parts[-3:])
