"""The accounts as a service of the daemon: checks logins of local users, and lets operators manage them.

Everything slow happens in one thread (`worker`), whose queue of logins is bounded: a login that finds it full fails at
once with a sentence, and one that waited longer than anybody listens is not hashed any more. A name that does not exist
costs the same hash as a wrong password, and gets the same message, so that names cannot be guessed by asking.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.accounts.passwords import (
    SALT_BYTES,
    Cost,
    check_password,
    choose_cost,
    cost_of,
    hash_password,
    verify_password,
)
from gateway.accounts.store import AccountStore
from gateway.accounts.users import NO_LIMITS, AccountError, NameTaken, User
from gateway.accounts.worker import Worker
from gateway.config import Accounts
from gateway.control.protocol import BAD_PARAMS, BUSY, CONFLICT, UNAVAILABLE, ControlError
from gateway.session.actions import VerifyLocalUser
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import AuthenticatedBy, Grant, Limits
from gateway.sqlite_file import StoreError
from gateway.values import value_class

WRONG: Final = ""  # the portal says it itself, in the language of the guest
DISABLED: Final = "This account is switched off."
EXPIRED: Final = "This account has expired."
_REASONS: Final = {DISABLED: "disabled", EXPIRED: "expired"}
LONGEST_WAIT_S: Final = 15.0  # the portal gives up on a login after 20 s
COST_FACT: Final = "hash_cost"
TOO_FAST, TOO_SLOW = 1 / 3, 2.0  # of the time a hash may take; within, a known cost is kept, so that hashes stay
MEASUREMENTS: Final = 3  # the best counts: a busy moment must not weaken every hash
EARLIEST_UNIX: Final = 1_735_689_600  # 2025; a clock before that was never set, and cannot say what has expired

log = logging.getLogger(__name__)
Answer = AccessAccepted | AccessRejected | AccessFailed
T = TypeVar("T")


@value_class
class AccountCounts:
    """Totals since the start, and how many logins wait."""

    accepted: int
    rejected: int
    failed: int
    waiting: int


class AccountService:
    """The local accounts: `start()`, `run()`, and `close()` at the end."""

    def __init__(
        self,
        settings: Accounts,
        state_dir: Path | str,
        post: Callable[[Answer], None],
        clock: Callable[[], float],
        *,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """`post` takes the answers to `verify`, on the event loop; `clock` gives monotonic seconds."""
        self._settings = settings
        self._store = AccountStore(Path(state_dir) / settings.database)
        self._post = post
        self._clock = clock
        self._unix_clock = unix_clock
        self._worker = Worker("accounts", settings.hash_queue)
        self._cost = Cost(10, 1)  # until it was measured
        self._decoy = ""  # made when the cost was measured
        self._trouble = ""  # why the store could not be used the last time
        self._counts: Counter[type[Answer]] = Counter()

    async def start(self) -> None:
        """Open the store. One that cannot be opened is a warning."""
        self._loop = asyncio.get_running_loop()
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._worker.start()
        await self._in_thread(self._open)
        for sentence in self.warnings():
            log.error("%s", sentence)

    async def run(self) -> None:
        """Serve until cancelled; raises what went wrong in the thread by our own fault.

        The cost of hashes is fitted to this box first, and not in `start`: it takes most of a second, and until
        the sessions of before are there nobody asks.
        """
        self._worker.submit(partial(self._guarded, self._fit))
        await self._broken

    def close(self) -> None:
        """End the thread and close the store; logins that wait are not answered."""
        self._worker.stop(self._store.close)

    def reconfigure(self, settings: Accounts) -> None:
        """Go over to other settings; the file stays. Another `hash_time` holds for the hashes made from then on."""
        refit = settings.hash_time != self._settings.hash_time
        self._settings = settings
        self._worker.configure(settings.hash_queue)
        if refit:
            self._worker.submit(self._refit, urgent=True)

    def verify(self, action: VerifyLocalUser) -> None:
        """Check a login; the answer is posted later, never from within this call."""
        if not self._worker.submit(partial(self._login, action, self._clock())):
            reason = (
                f"{self._settings.hash_queue} passwords are waiting to be checked already; the guest may try again "
                "(hash_queue in config accounts)"
            )
            self._loop.call_soon(self._answer, AccessFailed(action.key, action.login_id, reason))

    async def add_user(
        self,
        username: str,
        password: str,
        *,
        limits: Limits = NO_LIMITS,
        devices: int | None = None,
        valid_until_unix: float | None = None,
        note: str = "",
        disabled: bool = False,
    ) -> User:
        """Make a user. Raises ControlError, as all methods for operators do: its text says what to do."""
        user = User(username, limits, devices, valid_until_unix, disabled, note, self._unix_clock())
        await self.for_operator(lambda: self._store.add(user, self._hash(password)))
        return user

    async def list_users(self) -> tuple[User, ...]:
        """All users by name."""
        return await self.for_operator(self._store.users)

    async def user(self, username: str) -> User | None:
        """One user; None when there is none of that name."""
        found = await self.for_operator(lambda: self._store.find(username))
        return None if found is None else found[0]

    async def change_user(self, user: User) -> bool:
        """Set everything but name and password; False when there is no such user. Sessions online go on."""
        return await self.for_operator(lambda: self._store.change(user))

    async def set_password(self, username: str, password: str) -> bool:
        """Set a password; False when there is no such user."""
        return await self.for_operator(lambda: self._store.set_password(username, self._hash(password)))

    async def remove_user(self, username: str) -> bool:
        """Remove a user; False when there is none. Sessions online go on."""
        return await self.for_operator(lambda: self._store.remove(username))

    def counts(self) -> AccountCounts:
        """Totals for the metrics."""
        accepted, rejected, failed = (self._counts[kind] for kind in (AccessAccepted, AccessRejected, AccessFailed))
        return AccountCounts(accepted, rejected, failed, self._worker.waiting)

    def warnings(self) -> Iterator[str]:
        """What an operator should know, in sentences."""
        yield from tuple(self._store.notes)
        if self._trouble:
            yield self._trouble

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._store.open()
            self._trouble = ""
        except StoreError as err:
            self._trouble = str(err)

    def _fit(self) -> None:
        """Fit the cost of hashes to this box, once; whatever needs it calls this before."""
        if self._decoy:
            return
        try:
            self._cost = self._fitting_cost()
        except StoreError as err:
            self._trouble = str(err)
            self._cost = choose_cost(self._settings.hash_time, _measure)
        self._decoy = hash_password(secrets.token_hex(), self._cost, secrets.token_bytes(SALT_BYTES))

    def _refit(self) -> None:
        try:
            self._cost = self._fitting_cost()
        except StoreError as err:
            log.warning("%s", err)

    def _fitting_cost(self) -> Cost:
        """The cost of the last start if it still fits this box and the configuration, else a new one."""
        target = self._settings.hash_time
        known = self._store.fact(COST_FACT)
        if known is not None:
            try:
                cost = Cost.parse(known)
            except ValueError:
                cost = None
            if cost is not None and TOO_FAST * target <= _measure(cost) <= TOO_SLOW * target:
                return cost
        cost = choose_cost(target, _measure)
        self._store.keep_fact(COST_FACT, str(cost))
        return cost

    def _hash(self, password: str) -> str:
        check_password(password)
        self._fit()
        return hash_password(password, self._cost, secrets.token_bytes(SALT_BYTES))

    def _login(self, action: VerifyLocalUser, asked_at: float) -> None:
        try:
            if self._clock() - asked_at > LONGEST_WAIT_S:
                reason = f"the password waited longer than {LONGEST_WAIT_S:.0f} s for its turn (hash_time, hash_queue)"
                self._report(AccessFailed(action.key, action.login_id, reason))
                return
            self._fit()
            answer, outdated = self._decide(action)
            self._report(answer)
            if outdated is not None:  # after the answer: the guest need not wait for it
                self._store.set_password(
                    action.credentials.username, self._hash(action.credentials.password), instead_of=outdated
                )
        except StoreError as err:
            log.warning("%s", err)
        except Exception as err:  # noqa: BLE001 - our own fault: it ends run(), and with it the daemon, loudly
            self.call(self._break, err)

    def _decide(self, action: VerifyLocalUser) -> tuple[Answer, str | None]:
        """The answer, and the stored hash if it should be made anew."""
        key, login_id = action.key, action.login_id
        password = action.credentials.password
        try:
            found = self._store.find(action.credentials.username)
            self._trouble = ""
        except StoreError as err:
            self._trouble = str(err)
            return AccessFailed(key, login_id, str(err)), None
        if found is None:
            verify_password(password, self._decoy)
            return AccessRejected(key, login_id, WRONG, unknown_user=True), None
        user, stored = found
        try:
            right = verify_password(password, stored)
        except ValueError as err:
            return AccessFailed(
                key, login_id, f"the account {user.name!r} is damaged: {err}; set its password anew"
            ), None
        if not right:
            return AccessRejected(key, login_id, WRONG), None
        if closed := self._closed(user):
            return AccessRejected(key, login_id, closed, reason=_REASONS[closed]), None
        grant = Grant(user.name, AuthenticatedBy.LOCAL, user.granted(), devices=user.devices)
        return AccessAccepted(key, login_id, grant), stored if cost_of(stored) != self._cost else None

    def _report(self, answer: Answer) -> None:
        self.call(self._answer, answer)

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the loop, from the thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop was closed meanwhile: nobody is left to tell

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> None:
        self._counts[type(answer)] += 1
        self._post(answer)

    def _break(self, err: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(err)

    @property
    def store(self) -> AccountStore:
        """The database, for the thread alone."""
        return self._store

    def open_account(self, name: str) -> User | None:
        """A local user that is neither switched off nor expired; in the thread only."""
        found = self._store.find(name)
        return None if found is None or self._closed(found[0]) else found[0]

    def _closed(self, user: User) -> str:
        """Why a user with the right password is not let in; empty when it is."""
        if user.disabled:
            return DISABLED
        ends = user.granted().terminate_unix
        return EXPIRED if ends is not None and EARLIEST_UNIX <= self._unix_clock() >= ends else ""

    def submit(self, work: Callable[[], None]) -> bool:
        """Have something quick done in the thread, before passwords; False when too much waits."""
        return self._worker.submit_quick(partial(self._guarded, work))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as err:  # noqa: BLE001 - our own fault: it ends run(), and with it the daemon, loudly
            self.call(self._break, err)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, done before any login that waits; raises ControlError when there is no room."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, err: Exception | None) -> None:
            if future.done():
                return  # who asked has gone
            if err is not None:
                future.set_exception(err)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # without an error it is T

        def do() -> None:
            try:
                result = work()
            except Exception as err:  # noqa: BLE001 - handed to the one who asked
                self.call(settle, None, err)
            else:
                self.call(settle, result, None)

        if not self._worker.submit(do, urgent=True):
            raise ControlError(BUSY, "Too much is being asked of the accounts at once; try again in a moment.")
        return await future

    async def for_operator(self, work: Callable[[], T]) -> T:
        """The result of `work`, done in the thread; every failure of it is a ControlError with what to do."""
        try:
            return await self._in_thread(work)
        except StoreError as err:
            self._trouble = str(err)
            raise ControlError(UNAVAILABLE, str(err)) from err
        except AccountError as err:
            raise ControlError(CONFLICT if isinstance(err, NameTaken) else BAD_PARAMS, str(err)) from err
        except ValueError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err


def _measure(cost: Cost) -> float:
    """Seconds that one hash takes, the best of some."""

    def once() -> float:
        started = time.thread_time()
        hash_password("measure", cost, bytes(SALT_BYTES))
        return time.thread_time() - started

    return min(once() for _ in range(MEASUREMENTS))
