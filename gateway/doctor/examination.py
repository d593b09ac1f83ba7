"""Runs many checks at once: each bounded, none able to spoil or hold up another.

A check looks and judges in one call, in a thread (`Look`) or on the daemon's event loop (`Ask`). What goes wrong within
a check becomes its row; what is not ready when the time is over becomes one, too. Threads that are still busy then end
by their own bounds, a second or two later.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from gateway.control.protocol import ControlError
from gateway.datapath.elements import ElementsRefused
from gateway.doctor.rows import Row, skipped
from gateway.values import value_class

LIMIT_S: Final = 5.0
THREADS: Final = 8
# What a check may fail with when the system or a peer is not as it should be; anything else is a fault of ours.
TROUBLE: Final = (OSError, ValueError, EOFError, subprocess.SubprocessError, ControlError, ElementsRefused)


@value_class
class Look:
    """A check that blocks; it runs in a thread."""

    name: str
    rows: Callable[[], Sequence[Row]]


@value_class
class Ask:
    """A check that asks rooms of the daemon; it runs on the daemon's loop."""

    name: str
    rows: Callable[[], Awaitable[Sequence[Row]]]


async def examine(checks: Sequence[Look | Ask], limit_s: float = LIMIT_S) -> list[Row]:
    """The rows of all checks, in the checks' order, within about `limit_s` seconds."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="doctor")
    try:
        async with asyncio.TaskGroup() as tasks:
            running = []
            for check in checks:
                work = loop.run_in_executor(pool, check.rows) if isinstance(check, Look) else check.rows()
                running.append(tasks.create_task(_guarded(check.name, work, limit_s), name=f"doctor {check.name}"))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [row for task in running for row in task.result()]


async def _guarded(name: str, work: Awaitable[Sequence[Row]], limit_s: float) -> Sequence[Row]:
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError:
        return [_late(name, limit_s)]
    except TROUBLE as trouble:
        return [_failed(name, trouble)]


def examine_in_threads(checks: Sequence[Look], limit_s: float = LIMIT_S) -> list[Row]:
    """As `examine`, without an event loop: for the command when no daemon runs."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="doctor")
    try:
        running: list[Future[Sequence[Row]]] = [pool.submit(check.rows) for check in checks]
        wait(running, limit_s)
        rows: list[Row] = []
        for check, future in zip(checks, running, strict=True):
            if not future.done():
                rows.append(_late(check.name, limit_s))
                continue
            try:
                rows += future.result()
            except TROUBLE as trouble:
                rows.append(_failed(check.name, trouble))
        return rows
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _late(name: str, limit_s: float) -> Row:
    return skipped(
        name,
        f"This could not be found out within {limit_s:g} s.",
        "Run the checks again when the box has less to do.",
    )


def _failed(name: str, trouble: BaseException) -> Row:
    if isinstance(trouble, PermissionError):
        return skipped(name, f"This may not be looked at: {trouble}.", "Run postern doctor as root.")
    words = trouble.strerror if isinstance(trouble, OSError) and trouble.strerror else str(trouble)
    return skipped(name, f"This could not be looked at: {words or type(trouble).__name__}.")
