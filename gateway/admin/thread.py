"""The thread of the administration: its file, and the hashes of its passwords, away from the event loop.

Apart from the thread of guests' passwords, so that neither keeps the other waiting.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.accounts.passwords import SALT_BYTES, Cost, choose_cost, hash_password, verify_password
from gateway.accounts.worker import Worker, result_of
from gateway.admin.store import AdminStore
from gateway.control.protocol import BUSY, UNAVAILABLE, ControlError
from gateway.sqlite_file import StoreError

LOGINS_WAITING: Final = 8  # more are told to come back: hashing them would take seconds
UNWRITTEN: Final = 1000
_COST_FACT: Final = "hash_cost"

LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")


class AdminThread:
    """What blocks. Methods that wait raise ControlError; `later` never does."""

    def __init__(self, path: Path, hash_time_s: float) -> None:
        self.store = AdminStore(path)
        self.trouble = ""  # why the file could not be used the last time
        self._hash_time_s = hash_time_s
        self._worker = Worker("administration", LOGINS_WAITING)
        self._cost: Cost | None = None
        self._decoy = ""
        self._asked = False  # whether the thread will look at the next
        self._unwritten: deque[Callable[[], None]] = deque(maxlen=UNWRITTEN)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def close(self) -> None:
        """Write what waits, close the file and end the thread."""

        def end() -> None:
            self._write()
            self.store.close()

        self._worker.stop(end)

    async def ask(self, work: Callable[[], T]) -> T:
        """What `work` returns, done before any password is checked, and after what was to be written before it."""

        def in_turn() -> T:
            self._write()
            return work()

        try:
            result = await result_of(self._worker, in_turn, urgent=True)
        except asyncio.QueueFull:
            raise ControlError(BUSY, "Too much is being asked at once; try again in a moment.") from None
        except StoreError as err:
            self.trouble = str(err)
            raise ControlError(UNAVAILABLE, str(err)) from err
        self.trouble = ""
        return result

    def later(self, work: Callable[[], None]) -> None:
        """Have something written without waiting, in the order of these calls.

        What cannot be written is kept and tried again with the next write, or by `again`: a login that was ended must
        not come back with the next start because the disk was full for a moment. `work` may therefore be done twice.
        """
        self._unwritten.append(work)
        self.again()

    def again(self) -> None:
        """Write what could not be written before."""
        if self._unwritten and not self._asked:
            self._asked = self._worker.submit(self._answer, urgent=True)

    def _answer(self) -> None:
        self._asked = False
        self._write()

    def _write(self) -> None:
        """In the thread: what waits, until something cannot be written."""
        while self._unwritten:
            work = self._unwritten[0]
            try:
                work()
            except StoreError as err:
                self.trouble = str(err)
                LOG.warning("%s", err)
                if err.temporary:
                    return
            if self._unwritten and self._unwritten[0] is work:  # else it was pushed out meanwhile
                self._unwritten.popleft()

    async def hashed(self, password: str) -> str:
        """A password's hash."""

        def make() -> str:
            return hash_password(password, self._fitting(), secrets.token_bytes(SALT_BYTES))

        return await self.ask(make)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether a password is right. Without a hash (no such account) it takes as long, and is not."""

        def compare() -> bool:
            if stored is None:
                self._decoy = self._decoy or hash_password("", self._fitting(), secrets.token_bytes(SALT_BYTES))
            return verify_password(password, self._decoy if stored is None else stored) and stored is not None

        try:
            return await result_of(self._worker, compare)
        except asyncio.QueueFull:
            raise ControlError(BUSY, "Several logins are being checked already; try again in a moment.") from None
        except StoreError as err:
            raise ControlError(UNAVAILABLE, str(err)) from err
        except ValueError as err:
            raise ControlError(UNAVAILABLE, f"This account is damaged: {err}; set its password anew.") from err

    def prepare(self) -> None:
        """Choose the cost of hashes ahead of the first login, which need not wait for it then."""
        self.later(partial(_ignore, self._fitting))

    def _fitting(self) -> Cost:
        """The cost that was measured at the first start: a busy moment later must not weaken a hash."""
        if self._cost is None:
            known = self.store.fact(_COST_FACT)
            try:
                self._cost = Cost.parse(known or "")
            except ValueError:  # none yet, or damaged
                self._cost = choose_cost(self._hash_time_s, _measure)
                self.store.keep_fact(_COST_FACT, str(self._cost))
        return self._cost


def _ignore(function: Callable[[], object]) -> None:
    function()


def _measure(cost: Cost) -> float:
    """Seconds of processor time that one hash takes, the best of three."""

    def once() -> float:
        started = time.thread_time()
        hash_password("measure", cost, bytes(SALT_BYTES))
        return time.thread_time() - started

    return min(once() for _ in range(3))
