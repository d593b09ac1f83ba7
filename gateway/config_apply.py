"""Applying a changed configuration, and taking it back unless the administrator says that they still reach the box.

A change is written down before the file is touched, so that it is taken back also when posternd is restarted meanwhile,
and at once when the box was rebooted: somebody who cannot reach it any more pulls the plug.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from gateway.admin.thread import AdminThread
from gateway.config import Admin
from gateway.config_change import ChangeError, cuts_off, difference, sentences, unmasked
from gateway.config_history import APPLIED, CONFIRMED, FAILED, PENDING, REVERTED, PastChange
from gateway.config_loader import ConfigError, Loaded, Problem, check_interfaces, interfaces, load
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, UNAVAILABLE, ControlError
from gateway.uci import UciSyntaxError
from gateway.values import value_class

LOG: Final = logging.getLogger(__name__)
SHOWN_PROBLEMS: Final = 5


@value_class
class Preview:
    """What a text would change."""

    text: str  # with its secrets
    diff: str
    problems: tuple[str, ...]
    sentences: tuple[str, ...]
    cuts_off: bool


class ConfigChanges:
    """The file of the configuration, its changes, and the one that waits to be confirmed."""

    def __init__(
        self,
        path: Path,
        thread: AdminThread,
        *,
        running: Callable[[], Loaded],
        reload: Callable[[], Awaitable[tuple[list[str], list[Problem]]]],
        not_changeable: Callable[[Loaded], list[Problem]],
        write: Callable[[str], Awaitable[None]],
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        boot_id: str,
    ) -> None:
        """`write` replaces the file and raises ControlError; `reload` applies it and says what is wrong with it."""
        self._path = path
        self._thread = thread
        self._changes = thread.store.changes
        self._running = running
        self._reload = reload
        self._not_changeable = not_changeable
        self._write = write
        self._clock = clock
        self._unix = unix_clock
        self._boot_id = boot_id
        self._lock = asyncio.Lock()
        self._pending: PastChange | None = None
        self._pending_changed = asyncio.Event()

    @property
    def _settings(self) -> Admin:
        return self._running().config.admin

    @property
    def pending(self) -> PastChange | None:
        """The change that waits to be confirmed."""
        return self._pending

    def left_s(self) -> float:
        """How long the change that waits may still be confirmed."""
        if self._pending is None or self._pending.confirm_until is None:
            return 0.0
        return max(0.0, self._pending.confirm_until - self._clock())

    async def run(self) -> None:
        """Take back what was not confirmed, until cancelled."""
        await self._resume()
        while True:
            self._pending_changed.clear()
            if self._pending is None:
                await self._pending_changed.wait()
                continue
            try:
                async with asyncio.timeout(self.left_s()):
                    await self._pending_changed.wait()
            except TimeoutError:
                await self._take_back("was not confirmed in time")

    # -- looking ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The file as it is; raises ControlError."""
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"{self._path} cannot be read: {err.strerror}") from err
        except UnicodeDecodeError as err:
            raise ControlError(UNAVAILABLE, f"{self._path} is not UTF-8 text (octet {err.start})") from err

    def version(self, text: str) -> str:
        """What tells one text from another."""
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    async def preview(self, text: str) -> Preview:
        """What a text (whose secrets may be marks) would change; what is wrong with it is in `problems`.

        In a thread: a text of half a megabyte takes a second to read, and guests are not to wait for it.
        """
        return await asyncio.to_thread(self._preview, text)

    def _preview(self, text: str) -> Preview:
        current = self.text()
        try:
            whole = unmasked(text, current)
            loaded = load(whole, str(self._path))
            problems = [
                *check_interfaces(loaded, interfaces(), str(self._path)),
                *self._not_changeable(loaded),
            ]
        except (UciSyntaxError, ChangeError) as err:
            return Preview(text, "", (str(err),), (), cuts_off=False)
        except ConfigError as err:
            listed = tuple(str(problem) for problem in err.problems)
            return Preview(whole, difference(current, whole), listed, (), cuts_off=False)
        running = self._running().config
        return Preview(
            whole,
            difference(current, whole),
            tuple(str(problem) for problem in problems),
            tuple(sentences(running, loaded.config)),
            cuts_off(running, loaded.config),
        )

    async def past(self) -> list[PastChange]:
        """All changes, the newest first."""
        return await self._thread.ask(self._changes.newest)

    async def one(self, number: int) -> PastChange:
        """One change; raises ControlError(not_found)."""
        change = await self._thread.ask(partial(self._changes.find, number))
        if change is None:
            raise ControlError(NOT_FOUND, f"there is no change {number}; config.history lists them")
        return change

    # -- changing ---------------------------------------------------------------------------------------------------

    async def apply(
        self, text: str, version: str, *, who: str, address: str, confirm_s: int | None
    ) -> tuple[int, int | None]:
        """Make a text the configuration: the change's number, and how long it waits for `confirm` (None: it does not).

        `version` is that of the text which was changed. `confirm_s`: None asks for confirmation where the change could
        cut the administrator off, 0 never, more always. Raises ControlError; then everything is as before.
        """
        async with self._lock:
            if self._pending is not None:
                text = f"change {self._pending.number} waits to be confirmed or taken back; do that first"
                raise ControlError(CONFLICT, text)
            current = self.text()
            if self.version(current) != version:
                raise ControlError(CONFLICT, "the configuration was changed meanwhile; look at it again")
            preview = await self.preview(text)
            if preview.problems:
                raise ControlError(BAD_PARAMS, _listed(preview.problems))
            if preview.text == current:
                raise ControlError(BAD_PARAMS, "nothing is different")
            wait_s: int | None = (
                (self._settings.confirm_time if preview.cuts_off else None) if confirm_s is None else confirm_s or None
            )
            change = PastChange(
                number=0,
                at_unix=self._unix(),
                who=who,
                address=address,
                sentences=preview.sentences,
                state=APPLIED if wait_s is None else PENDING,
                before=current,
                after=preview.text,
                boot_id=self._boot_id,
                confirm_until=None if wait_s is None else self._clock() + wait_s,
            )
            number = await self._thread.ask(partial(self._changes.add, change, self._settings.config_history))
            await self._put(number, preview.text, current)
            if wait_s is not None:
                self._set_pending(await self.one(number))
            return number, wait_s

    async def confirm(self, number: int) -> None:
        """The administrator still reaches the box: the change stays."""
        async with self._lock:
            self._expect_pending(number)
            await self._thread.ask(partial(self._changes.set_state, number, CONFIRMED))
            self._set_pending(None)

    async def revert(self, number: int, *, who: str, address: str) -> tuple[int, int | None]:
        """Go back to the text before a change. One that waits is taken back at once; else it is a change of its own."""
        if self._pending is not None and self._pending.number == number:
            await self._take_back(f"was taken back by {who}")
            return number, None
        change = await self.one(number)
        return await self.apply(change.before, self.version(self.text()), who=who, address=address, confirm_s=None)

    async def _put(self, number: int, text: str, before: str) -> None:
        """Write and reload; what cannot be applied is undone."""
        problems: Iterable[object] = ()
        try:
            await self._write(text)
            _, problems = await self._reload()
        except BaseException:
            await self._undo(number, before)
            raise
        if problems:
            await self._undo(number, before)
            raise ControlError(BAD_PARAMS, _listed([str(problem) for problem in problems]))

    async def _undo(self, number: int, before: str) -> None:
        if self.text() != before:
            await self._write(before)
            await self._reload()
        await self._thread.ask(partial(self._changes.set_state, number, FAILED))

    async def _take_back(self, why: str) -> None:
        async with self._lock:
            change = self._pending
            if change is None:
                return  # confirmed while this waited for its turn
            self._set_pending(None)
            LOG.warning("configuration change taken back change=%d reason=%s", change.number, why)
            try:
                if self.text() == change.after:
                    await self._write(change.before)
                else:
                    LOG.warning("the file was changed since by somebody else and stays path=%s", self._path)
                _, problems = await self._reload()
                for problem in problems:
                    LOG.error("configuration not applied: %s", problem)
                await self._thread.ask(partial(self._changes.set_state, change.number, REVERTED))
            except ControlError as err:
                LOG.error("the configuration could not be taken back: %s", err)

    async def _resume(self) -> None:
        """Changes that waited when posternd was stopped."""
        try:
            waiting = await self._thread.ask(self._changes.pending)
        except ControlError:
            return  # the file cannot be read; the administration says so
        for change in waiting[:1]:
            self._set_pending(change)
            if change.boot_id != self._boot_id:
                await self._take_back("waited to be confirmed when the box was restarted")

    def _expect_pending(self, number: int) -> None:
        if self._pending is None or self._pending.number != number:
            raise ControlError(CONFLICT, f"change {number} does not wait to be confirmed (it may have been taken back)")

    def _set_pending(self, change: PastChange | None) -> None:
        self._pending = change
        self._pending_changed.set()


def _listed(problems: Iterable[str]) -> str:
    found = list(problems)
    more = f"\n… and {len(found) - SHOWN_PROBLEMS} more" if len(found) > SHOWN_PROBLEMS else ""
    return "\n".join(found[:SHOWN_PROBLEMS]) + more
