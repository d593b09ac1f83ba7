"""Administration as a service of the daemon: who may administer, logged in how, and what they changed.

What is asked at every click (who has this session?) is answered from memory, on the event loop. The file and the hashes
of passwords are in a thread of their own, so that no guest's login waits for an administrator's and no flood of guests
keeps an administrator out. A file that cannot be written stops nobody who is logged in; one that cannot be read lets
nobody in, and is tried again every half minute.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from gateway.accounts.users import name_key
from gateway.admin import codes
from gateway.admin.administrators import Administrator
from gateway.admin.audit import Entry
from gateway.admin.audit_log import AuditLog
from gateway.admin.credentials import (
    TOKEN_MARK,
    TOKENS_PER_OWNER,
    VALUE_BYTES,
    Session,
    Sessions,
    Token,
    csrf_of,
    digest_of,
    session_value,
    token_value,
)
from gateway.admin.factors import SecondFactors
from gateway.admin.roles import Acting, Role, read_scopes
from gateway.admin.roster import Roster
from gateway.admin.thread import AdminThread
from gateway.admin.throttle import Throttle, place_of
from gateway.config import Admin
from gateway.control.protocol import (
    BAD_PARAMS,
    CONFLICT,
    DENIED,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    ControlError,
)
from gateway.values import value_class

DATABASE: Final = "admin.db"
SWEEP_S: Final = 10.0
RETRY_S: Final = 30.0
SAVED_PER_IDLE: Final = 8  # how often a session's latest request is written in one idle time: flash wears
_SETUP: Final = "setup_code"
_AGENT_CHARACTERS: Final = 200

LOG: Final = logging.getLogger(__name__)


@value_class
class Holder:
    """Whoever has a session or token."""

    acting: Acting
    csrf: str  # empty for a token, which no browser sends by itself
    expires_s: float | None  # None for a token that does not expire


@value_class
class Opened:
    """A new login; `value` is told to the browser and nobody else."""

    value: str
    holder: Holder


@value_class
class Refused:
    """A login that did not succeed: `totp` (the second factor is missing), `reject`, or `wait`."""

    result: str
    message: str
    retry_after_s: float = 0.0


class AdminService:
    """Administrators, sessions, tokens and audit: `start()`, `run()`, and `close()` at the end."""

    def __init__(
        self,
        settings: Admin,
        hash_time_s: float,
        state_dir: Path,
        clock: Callable[[], float],
        boot_id: str,
        *,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives monotonic seconds; `boot_id` names the boot that they belong to."""
        self._settings = settings
        self._clock = clock
        self._unix = unix_clock
        self._boot_id = boot_id
        self.thread = AdminThread(state_dir / DATABASE, hash_time_s)
        self._store = self.thread.store
        self.audit = AuditLog(self.thread, lambda: self._settings.audit_entries, clock)
        self._loaded = False
        self._setup_code = ""
        self._roster = Roster(self.thread, unix_clock)
        self._tokens: dict[bytes, Token] = {}
        self._sessions = Sessions(settings.session_idle, settings.session_lifetime)
        self._saved_at: dict[bytes, float] = {}  # when a session was last written
        self._places: set[tuple[str, str]] = set()
        self._throttle = Throttle(settings.login_attempts, settings.login_backoff)
        self.factors = SecondFactors(self._roster, clock, unix_clock)
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the file; where there is no administrator yet, say the set-up code."""
        self.thread.start()
        await self._load()

    async def run(self) -> None:
        """Sweep until cancelled: sessions that are over, and a file that could not be read."""
        since_retry = 0.0
        while True:
            await asyncio.sleep(SWEEP_S)
            self._end(self._sessions.over(self._clock()))
            since_retry += SWEEP_S
            if since_retry >= RETRY_S:
                since_retry = 0.0
                if not self._loaded:
                    await self._load()
                self.thread.again()

    def close(self) -> None:
        """End the thread and close the file."""
        self.thread.close()

    def reconfigure(self, settings: Admin) -> None:
        """Go over to other settings."""
        self._settings = settings
        self._sessions.configure(settings.session_idle, settings.session_lifetime)
        self._throttle.configure(settings.login_attempts, settings.login_backoff)

    def warnings(self) -> Iterator[str]:
        """What an operator should know, in sentences."""
        yield from tuple(self._store.notes)
        if self.thread.trouble:
            yield self.thread.trouble

    # -- the first administrator ------------------------------------------------------------------------------------

    @property
    def setup_needed(self) -> bool:
        """Whether there is no administrator yet."""
        return self._loaded and not len(self._roster)

    def setup_code(self) -> str:
        """The code that the first administrator needs; raises ControlError when it is not needed any more."""
        self._require()
        if not self.setup_needed:
            raise ControlError(CONFLICT, "The gateway is set up already; add administrators with: postern admins add")
        return self._setup_code

    def check_setup_code(self, code: str, address: str) -> Refused | None:
        """Whether a code is the one that the first administrator needs; a wrong one is refused more and more slowly."""
        expected = self.setup_code()
        now, place = self._clock(), place_of(address)
        # The code is long enough to be asked for by anybody; only its own place is slowed down by a wrong one.
        wait = self._throttle.admit(_SETUP, place, now, known=True)
        if wait:
            return Refused("wait", f"Too many wrong codes; wait {_words(wait)}.", wait)
        if not codes.same_code(expected, code):
            self._note(self._place_entry("(setup)", address, "admin.setup", "", "reject"), failure=True)
            return Refused("reject", "This is not the set-up code; `postern setup-code` on the gateway prints it.")
        self._throttle.succeeded(_SETUP, place, now)
        return None

    async def set_up(self, code: str, name: str, password: str, address: str, agent: str) -> Opened | Refused:
        """Make the first administrator and log in."""
        refused = self.check_setup_code(code, address)
        if refused is not None:
            return refused
        one = await self._roster.add(name, password, Role.ADMINISTRATOR, first=True)
        self._forget_setup_code()
        self._note(self._place_entry(one.name, address, "admin.setup", f"name={one.name}", "done"))
        return self._open(one, address, agent)

    # -- logging in and out -----------------------------------------------------------------------------------------

    async def log_in(self, name: str, password: str, second: str, address: str, agent: str) -> Opened | Refused:
        """Check a login. What is wrong is not said: names cannot be found by asking."""
        self._require()
        account, place, now = name_key(name[:64]), place_of(address), self._clock()
        known = (account, place) in self._places
        wait = self._throttle.admit(account, place, now, known=known)
        if wait:
            return Refused("wait", f"Too many wrong attempts; wait {_words(wait)}.", wait)
        one = self._roster.get(account)
        stored = None if one is None or one.disabled else one.password
        try:
            right = await self.thread.verify(password, stored)
        except ControlError:
            self._throttle.not_judged(account, place, now)
            raise
        one = self._roster.get(account)  # as it is now: much may have happened while the password was checked
        if one is None or one.disabled or not right or one.password != stored:
            self._note(self._place_entry(name[:64], address, "admin.login", "", "reject"), failure=True)
            return Refused("reject", "The name or the password is wrong.")
        if one.totp_secret is not None:
            if not second:
                self._throttle.not_judged(account, place, now)
                return Refused("totp", "Give the six digits of the second factor, or a recovery code.")
            if not self.factors.use(one, one.totp_secret, second):
                self._note(self._place_entry(one.name, address, "admin.login", "second factor", "reject"), failure=True)
                return Refused("reject", self.factors.wrong())
        self._throttle.succeeded(account, place, now)
        if not known:
            self._places.add((account, place))
            self.thread.later(partial(self._store.add_place, account, place, self._unix()))
        self._note(self._place_entry(one.name, address, "admin.login", "", "done"))
        return self._open(one, address, agent)

    async def log_out(self, credential: str) -> bool:
        """End a session; False when there is none."""
        session = self._sessions.find(digest_of(credential), self._clock())
        return session is not None and await self._end_for_good([session]) == 1

    def who(self, credential: str, address: str, *, touch: bool = True) -> Holder:
        """Who has this session or token; raises ControlError(unauthenticated). `touch`: it counts as a request."""
        self._require()
        digest = digest_of(credential)
        if credential.startswith(TOKEN_MARK):
            return self._token_holder(digest, address)
        now = self._clock()
        session = self._sessions.find(digest, now)
        one = self._roster.get(session.owner) if session is not None else None
        if session is None or one is None or one.disabled:
            raise ControlError(UNAUTHENTICATED, "This login is over or was never made; log in again.")
        if touch:
            session.seen_at, session.address = now, address
            if now - self._saved_at.get(digest, -1e9) >= self._settings.session_idle / SAVED_PER_IDLE:
                self._save(session)
        acting = Acting(one.name, one.role, "session", session.id, address)
        return Holder(acting, csrf_of(credential), self._sessions.rest_s(session, now))

    def ended(self, acting: Acting) -> asyncio.Future[None]:
        """A future that is done when this session or token is over; hand it back with `unwatch`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(acting.id, set()).add(future)
        return future

    def unwatch(self, acting: Acting, future: asyncio.Future[None]) -> None:
        """Nobody waits for that future any more."""
        watchers = self._watchers.get(acting.id, set())
        watchers.discard(future)
        if not watchers:
            self._watchers.pop(acting.id, None)
        future.cancel()

    # -- administrators ---------------------------------------------------------------------------------------------

    def administrators(self) -> list[tuple[Administrator, int]]:
        """All of them by name, with the number of their sessions."""
        self._require()
        counts = Counter(session.owner for session in self._sessions)
        return [(one, counts[one.key]) for one in self._roster]

    def administrator(self, name: str) -> Administrator:
        """One of them; raises ControlError(not_found)."""
        self._require()
        return self._roster.find(name)

    async def add(self, name: str, password: str, role: Role) -> Administrator:
        """Make an administrator."""
        self._require()
        one = await self._roster.add(name, password, role)
        self._forget_setup_code()
        return one

    async def change(self, name: str, *, role: Role | None, disabled: bool | None) -> Administrator:
        """Change a role, or switch an account off or on; that ends its sessions."""
        one = self.administrator(name)
        if await self._roster.change(one, role, disabled):
            await self._end_for_good(session for session in self._sessions if session.owner == one.key)
        return self.administrator(name)

    async def remove(self, name: str) -> None:
        """Remove an administrator with sessions and tokens."""
        one = self.administrator(name)
        await self._roster.remove(one)
        self._places = {(owner, place) for owner, place in self._places if owner != one.key}
        self._end(session for session in self._sessions if session.owner == one.key)
        for token in [token for token in self._tokens.values() if token.owner == one.key]:
            self._forget_token(token)

    async def set_password(self, name: str, password: str, *, but: str = "") -> None:
        """Set a password; it ends the account's sessions except the one with the id `but`."""
        one = self.administrator(name)
        await self._roster.set_password(one, password)
        await self._end_for_good(
            session for session in self._sessions if session.owner == one.key and session.id != but
        )

    async def confirm_password(self, name: str, password: str, address: str) -> None:
        """Raises ControlError(denied) unless this is the password of somebody who is logged in already."""
        one, place, now = self.administrator(name), place_of(address), self._clock()
        wait = self._throttle.admit(one.key, place, now, known=True)
        if wait:
            raise ControlError(DENIED, f"Too many wrong attempts; wait {_words(wait)}.")
        try:
            right = await self.thread.verify(password, one.password)
        except ControlError:
            self._throttle.not_judged(one.key, place, now)
            raise
        if not right:
            raise ControlError(DENIED, "The current password is wrong.")
        self._throttle.succeeded(one.key, place, now)

    # -- sessions and tokens ----------------------------------------------------------------------------------------

    def sessions(self, owner: str | None) -> list[tuple[Session, str, float]]:
        """Sessions of one account (None: of all) with the owner's name and how long they may still live."""
        key = None if owner is None else name_key(owner)
        now = self._clock()
        self._end(self._sessions.over(now))
        found = [session for session in self._sessions if key in (None, session.owner)]
        found.sort(key=lambda session: -session.seen_at)
        return [(one, self._roster.name_of(one.owner), self._sessions.left_s(one, now)) for one in found]

    async def revoke(self, session_ids: Iterable[str]) -> int:
        """End sessions; returns how many there were."""
        wanted = set(session_ids)
        return await self._end_for_good(session for session in self._sessions if session.id in wanted)

    async def add_token(
        self, owner: str, name: str, scopes: Iterable[str], expires_unix: float | None
    ) -> tuple[Token, str]:
        """A new token, and its value, which is told this once."""
        one = self.administrator(owner)
        if sum(token.owner == one.key for token in self._tokens.values()) >= TOKENS_PER_OWNER:
            raise ControlError(CONFLICT, f"{one.name} has {TOKENS_PER_OWNER} tokens already; revoke one first")
        if expires_unix is not None and expires_unix <= self._unix():
            raise ControlError(BAD_PARAMS, "expires_unix is in the past")
        try:
            granted = read_scopes(scopes, one.role)
        except ValueError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        value = token_value(secrets.token_bytes(VALUE_BYTES))
        token = Token(secrets.token_hex(4), digest_of(value), one.key, name, granted, self._unix(), expires_unix)
        await self.thread.ask(partial(self._store.add_token, token))
        self._tokens[token.digest] = token
        return token, value

    def tokens(self, owner: str | None) -> list[tuple[Token, str]]:
        """Tokens of one account (None: of all), with the owner's name."""
        self._require()
        key = None if owner is None else name_key(owner)
        return [
            (token, self._roster.name_of(token.owner)) for token in self._tokens.values() if key in (None, token.owner)
        ]

    async def remove_token(self, token_id: str) -> None:
        """Revoke a token."""
        token = next((token for token in self._tokens.values() if token.id == token_id), None)
        if token is None:
            raise ControlError(NOT_FOUND, f"there is no token {token_id[:32]!r}")
        self._forget_token(token)  # it opens nothing from now on, whatever the file says
        await self.thread.ask(partial(self._store.remove_token, token.id))

    def _forget_token(self, token: Token) -> None:
        self._tokens.pop(token.digest, None)
        self._tell(token.id)

    def _token_holder(self, digest: bytes, address: str) -> Holder:
        token = self._tokens.get(digest)
        one = self._roster.get(token.owner) if token is not None else None
        if token is None or one is None or one.disabled:
            raise ControlError(UNAUTHENTICATED, "This token is not one of ours, or was revoked.")
        left = None if token.expires_unix is None else token.expires_unix - self._unix()
        if left is not None and left <= 0:
            raise ControlError(UNAUTHENTICATED, "This token has expired; make another one.")
        acting = Acting(one.name, one.role, "token", token.id, address, token.scopes)
        return Holder(acting, "", left)

    # -- audit ------------------------------------------------------------------------------------------------------

    def record(self, who: str, via: str, address: str, method: str, summary: str, outcome: str) -> None:
        """Write down who changed what."""
        self._note(Entry(self._unix(), who, via, address, method, summary, outcome))

    def _place_entry(self, who: str, address: str, method: str, summary: str, outcome: str) -> Entry:
        return Entry(self._unix(), who, "web", address, method, summary, outcome)

    def _note(self, entry: Entry, *, failure: bool = False) -> None:
        self.audit.add(entry, failure=failure)

    def _prepare(self) -> tuple[list[Administrator], list[Session], list[Token], list[tuple[str, str]], str]:
        """Read everything, in the thread."""
        self._store.open()
        people = self._store.administrators()
        code = self._store.fact(_SETUP) or ""
        if not people and not code:
            code = codes.make_code(secrets.token_bytes(codes.SETUP_CHARACTERS))
            self._store.keep_fact(_SETUP, code)
        return people, self._store.sessions(self._boot_id), self._store.tokens(), self._store.places(), code

    # -- on the loop ------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        try:
            people, sessions, tokens, places, code = await self.thread.ask(self._prepare)
        except ControlError as err:
            LOG.error("%s", err)
            return
        self._roster.load(people)
        self._tokens = {token.digest: token for token in tokens}
        self._places = set(places)
        for session in sessions:
            if self._roster.get(session.owner) is not None:
                self._sessions.add(session)
                self._saved_at[session.digest] = session.seen_at
        self._setup_code = "" if people else code
        self._loaded = True
        self.thread.prepare()
        for sentence in self._store.notes:
            LOG.error("%s", sentence)
        if self._setup_code:
            # On the console and nowhere else but in the file: whoever reads the console has the box in hand.
            LOG.warning("the gateway has no administrator yet; open its administration page, set-up code: %s", code)

    def _require(self) -> None:
        if not self._loaded:
            raise ControlError(UNAVAILABLE, self.thread.trouble or "The administrators are being read; try again.")

    def _forget_setup_code(self) -> None:
        if self._setup_code:
            self._setup_code = ""
            self.thread.later(lambda: self._store.keep_fact(_SETUP, None))

    def _open(self, one: Administrator, address: str, agent: str) -> Opened:
        value = session_value(secrets.token_bytes(VALUE_BYTES))
        now = self._clock()
        session = Session(
            id=secrets.token_hex(4),
            digest=digest_of(value),
            owner=one.key,
            started_at=now,
            seen_at=now,
            address=address,
            agent=agent[:_AGENT_CHARACTERS],
            started_unix=self._unix(),
        )
        self._forgotten(self._sessions.add(session))
        self._save(session)
        return Opened(value, self.who(value, address))

    def _save(self, session: Session) -> None:
        self._saved_at[session.digest] = self._clock()
        self.thread.later(partial(self._store.put_session, replace(session), self._boot_id))

    def _end(self, leaving: Iterable[Session]) -> int:
        gone = self._sessions.remove(leaving)
        self._forgotten(gone)
        return len(gone)

    async def _end_for_good(self, leaving: Iterable[Session]) -> int:
        """End sessions, and return when that is written: whoever is told so must not find them alive after a crash."""
        count = self._end(leaving)
        try:
            await self.thread.ask(_nothing)
        except ControlError:
            pass  # they are over here; the file is written as soon as it can be
        return count

    def _forgotten(self, gone: list[Session]) -> None:
        """What follows from the end of sessions."""
        if not gone:
            return
        for session in gone:
            self._saved_at.pop(session.digest, None)
            self._tell(session.id)
        self.thread.later(partial(self._store.remove_sessions, [session.digest for session in gone]))

    def _tell(self, acting_id: str) -> None:
        for future in self._watchers.pop(acting_id, set()):
            if not future.done():
                future.set_result(None)


def _nothing() -> None:
    """What is asked of the thread when what was to be written before it is all that matters."""


def _words(seconds: float) -> str:
    """A wait in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} minutes"
