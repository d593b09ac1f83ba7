"""One thread for work that would hold the event loop: password hashes and the database.

Three queues: what operators ask goes first, so that a full queue of logins (which is bounded) does not keep the
operator from seeing why; then what is quick (vouchers: a fraction of a millisecond); then passwords, a tenth of a
second each. Work that is submitted runs to its end; work that waits when the thread is stopped is dropped.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

MAX_URGENT: Final = 64
MAX_QUICK: Final = 2048
NICENESS: Final = 5  # on a router with one core the loop goes before hashes
T = TypeVar("T")


class Worker:
    """The thread and its queues. Functions that it is given report their results themselves and do not raise."""

    def __init__(self, name: str, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._urgent: deque[Callable[[], None]] = deque()
        self._quick: deque[Callable[[], None]] = deque()
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def configure(self, max_waiting: int) -> None:
        """Change how much may wait; what waits already stays."""
        with self._changed:
            self._max_waiting = max_waiting

    def submit(self, work: Callable[[], None], *, urgent: bool = False) -> bool:
        """Have `work` done; False when its queue is full or the thread was stopped."""
        with self._changed:
            queue, bound = (self._urgent, MAX_URGENT) if urgent else (self._waiting, self._max_waiting)
            if self._stopping or len(queue) >= bound:
                return False
            queue.append(work)
            self._changed.notify()
            return True

    def submit_quick(self, work: Callable[[], None]) -> bool:
        """The same for work of less than a millisecond, which goes before passwords."""
        with self._changed:
            if self._stopping or len(self._quick) >= MAX_QUICK:
                return False
            self._quick.append(work)
            self._changed.notify()
            return True

    @property
    def waiting(self) -> int:
        """How much waits, without what is being done."""
        return len(self._urgent) + len(self._quick) + len(self._waiting)

    def stop(self, last: Callable[[], None]) -> None:
        """End the thread after what it is doing and `last`; waits for that."""
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            self._waiting.clear()
            self._quick.clear()
            self._urgent.clear()
            self._urgent.append(last)
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        # Linux: of this thread alone. Never less than it has, which only root may.
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        while True:
            with self._changed:
                while not (self._urgent or self._quick or self._waiting):
                    if self._stopping:
                        return
                    self._changed.wait()
                work = (self._urgent or self._quick or self._waiting).popleft()
            work()


async def result_of(worker: Worker, work: Callable[[], T], *, urgent: bool = False) -> T:
    """What `work` returns or raises, done in the worker's thread; raises QueueFull when there is no room for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, err: Exception | None) -> None:
        if future.done():
            return  # who asked has gone
        if err is not None:
            future.set_exception(err)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is T

    def do() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as err:  # noqa: BLE001 - handed to the one who asked
            failure = err
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            pass  # the loop was closed meanwhile: nobody is left to tell

    if not worker.submit(do, urgent=urgent):
        raise asyncio.QueueFull
    return await future
