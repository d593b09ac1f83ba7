"""What it costs on this machine that an idle processor halts: the time that waking it takes, and a way to do without.

A login is some fourteen messages between processes, and on an idle machine each wakes a processor that has halted. On
bare metal that takes a few microseconds. In a virtual machine halting leaves the guest, and waking comes through the
host: with few clients at once the processors are idle half of the time and nothing of ours makes logins faster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

_ROUNDS: Final = 400
_REST_S: Final = 0.001  # between two messages, as long as it takes a processor to halt


def wake_s() -> float:
    """The median time from writing to a process that sleeps on another processor until it has answered, halved."""
    processors = sorted(os.sched_getaffinity(0))
    asking, asked = os.pipe()
    answering, answered = os.pipe()

    def answer() -> None:
        os.sched_setaffinity(0, {processors[-1]})
        os.close(asked)
        while os.read(asking, 1):
            os.write(answered, b"a")

    child = _fork(answer)
    os.close(asking)
    times = []
    try:
        os.sched_setaffinity(0, {processors[0]})
        for _ in range(_ROUNDS):
            time.sleep(_REST_S)
            began = time.perf_counter()
            os.write(asked, b"q")
            os.read(answering, 1)
            times.append(time.perf_counter() - began)
    finally:
        os.sched_setaffinity(0, processors)
        for descriptor in (asked, answering, answered):
            os.close(descriptor)
        os.waitpid(child, 0)
    return statistics.median(times) / 2


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Let no processor halt: one loop on each, which gives way at once to whoever has something to do (SCHED_IDLE)."""
    children = [_fork(partial(_spin, processor)) for processor in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _spin(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    os.setsid()  # a group of its own for the scheduler, or ours would seem to have used what this one uses
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    while os.getppid() == parent:  # not for ever, should the benchmark be killed
        for _ in range(100_000):
            pass


def _fork(work: Callable[[], None]) -> int:
    """Run `work` in a child of ours, which does nothing else; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)
