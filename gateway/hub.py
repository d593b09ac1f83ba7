"""The hub: every event of every shell comes here, is put to the session core, and what the core orders is done.

Shells report with `post`; the core answers with actions, performed in order: first what must survive, as one journal
record, then the rest. A shell may report while an action of its is being performed (the kernel answers at once); such
events wait their turn. No rule lives here: what an event means is decided in `session.machine`, how a thing is done in
the shell that does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar, assert_never

from gateway.journal import Change, Journal
from gateway.resume import stamped
from gateway.session.actions import (
    Action,
    AllowTraffic,
    ApplyLimits,
    BindAddress,
    CancelLogin,
    ChargeUsage,
    DenyTraffic,
    ForgetSession,
    Note,
    QueueAccounting,
    ReadActivity,
    ReadCounters,
    RecallDevice,
    RememberDevice,
    ReplyLogin,
    ReplyRequest,
    SaveSession,
    SendAccessRequest,
    UnbindAddress,
    VerifyLocalUser,
    VerifyVoucher,
)
from gateway.session.events import ClockSet, Event, LeaseBound, LeaseEnded, UsageCharged
from gateway.session.machine import SessionMachine
from gateway.session.model import AccountingRecord, ClientKey, LoginResult, Usage
from gateway.session.store import Record, save_accounting, save_session, save_usage
from gateway.timeline import Timeline

LOG: Final = logging.getLogger(__name__)

# Kinds of journal keys.
SESSION: Final = "session"
LEASE: Final = "lease"
ACCOUNTING: Final = "acct"
META: Final = "meta"
USAGE: Final = "usage"

_SURVIVING: Final = frozenset({SaveSession, ForgetSession, QueueAccounting, ChargeUsage})  # what the journal keeps

READ_AT_ONCE: Final = 100  # clients whose counters the datapath answers before `perform` returns

# What the log tells an operator of a client's life. The rest is for `postern events`, and for the log at debug: a line
# costs as much as a tenth of a login.
_LEVELS: Final = dict.fromkeys(
    ("gate_opened", "gate_closed", "login_failed", "login_refused", "changed", "clone"), logging.INFO
)

Answer = TypeVar("Answer", ReplyLogin, ReplyRequest)
KernelAction = BindAddress | UnbindAddress | AllowTraffic | DenyTraffic | ApplyLimits | ReadCounters | ReadActivity


class KernelPort(Protocol):
    """What the hub needs of the datapath."""

    def perform(self, action: KernelAction) -> None:
        """Do it; results come back as events."""


class RadiusPort(Protocol):
    """What the hub needs of the RADIUS client."""

    def send_access_request(self, action: SendAccessRequest) -> None:
        """Ask; the answer comes back as an event."""

    def cancel(self, login_id: int) -> None:
        """Nobody waits for this login any more."""

    def queue_accounting(self, record: AccountingRecord) -> None:
        """Send it until somebody has answered for it."""


class AccountsPort(Protocol):
    """What the hub needs of the local accounts."""

    def verify(self, action: VerifyLocalUser) -> None:
        """Check it; the answer comes back as an event."""


class GuestsPort(Protocol):
    """What the hub needs of vouchers and remembered devices."""

    def verify(self, action: VerifyVoucher) -> None:
        """Check it; the answer comes back as an event."""

    def recall(self, action: RecallDevice) -> None:
        """Look what is left for a device; the answer comes back as an event."""

    def remember(self, action: RememberDevice) -> None:
        """Keep a device that logged in."""

    def charge(self, usage: Usage) -> None:
        """Write what was used to its account; `Hub.usage_charged` is called when that is done."""

    def uncharged(self) -> list[Usage]:
        """What waits to be written."""


class LeasePort(Protocol):
    """What the hub needs of the DHCP servers."""

    def lease_record(self, key: ClientKey) -> dict[str, str | bytes | float] | None:
        """What is to be saved of a client's lease; None when it has none."""


@dataclass(slots=True)
class Ports:
    """The shells that actions go to."""

    kernel: KernelPort
    radius: RadiusPort
    accounts: AccountsPort
    guests: GuestsPort
    leases: LeasePort


class Hub:
    """Ties the session core to the shells. `now` and `wall` are the two clocks."""

    def __init__(
        self,
        machine: SessionMachine,
        journal: Journal,
        timeline: Timeline,
        *,
        boot_id: str,
        now: Callable[[], float],
        persist: bool,
    ) -> None:
        self.machine = machine
        self.journal = journal
        self.timeline = timeline
        self.watchers: list[
            Callable[[ClientKey], None]
        ] = []  # told of every client whose session was saved or forgotten
        self._boot_id = boot_id
        self._now = now
        self._persist = persist
        self._ports: Ports | None = None
        self._events: deque[Event] = deque()
        self._busy = False
        self._unix_offset_s: float | None = None
        self._next_request = 0
        self._logins: dict[int, Callable[[ReplyLogin], None]] = {}
        self.login_results: Counter[LoginResult] = Counter()  # since the start
        self._requests: dict[int, asyncio.Future[ReplyRequest]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    def connect(self, ports: Ports) -> None:
        """Give the hub its shells; before this nothing may be posted."""
        self._ports = ports

    # -- what shells call -------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Take an event; when this returns, it and all that followed at once from it has been done."""
        self._events.append(event)
        if not self._busy:
            self._work(())

    def accounting_done(self, record_ids: list[int]) -> None:
        """Records that a server answered for, or that were given up, leave the journal."""
        self.append([(ACCOUNTING, record_id, None) for record_id in record_ids])

    def usage_charged(self, acct_session_ids: tuple[str, ...]) -> None:
        """Usage that was written to its accounts leaves the journal, and the core learns of it."""
        self.append([(USAGE, acct_session_id, None) for acct_session_id in acct_session_ids])
        self.post(UsageCharged(acct_session_ids))

    # -- what control methods call ----------------------------------------------------------------------------------

    def login_request(self) -> tuple[int, asyncio.Future[ReplyLogin]]:
        """An id for a LoginRequested or AuthorizeRequested, and the future of its answer."""
        future: asyncio.Future[ReplyLogin] = asyncio.get_running_loop().create_future()
        return self.answer_login(partial(_answer, future)), future

    def answer_login(self, answer: Callable[[ReplyLogin], None]) -> int:
        """An id for a LoginRequested; `answer` is called with what comes of it, in the midst of the hub's work."""
        self._next_request += 1
        self._logins[self._next_request] = answer
        return self._next_request

    def request(self) -> tuple[int, asyncio.Future[ReplyRequest]]:
        """An id for a LogoutRequested or ChangeRequested, and the future of its answer."""
        self._next_request += 1
        future: asyncio.Future[ReplyRequest] = asyncio.get_running_loop().create_future()
        self._requests[self._next_request] = future
        return self._next_request, future

    @property
    def logins_waiting(self) -> int:
        """Logins that are being decided."""
        return len(self._logins)

    @property
    def unix_offset_s(self) -> float | None:
        """Unix time less the monotonic clock; None while the wall clock was never set."""
        return self._unix_offset_s

    # -- performing -------------------------------------------------------------------------------------------------

    def perform(self, actions: Sequence[Action]) -> None:
        """Do what the core ordered, and all that follows at once from it."""
        assert not self._busy  # nobody but the hub itself may order while it works
        self._work(actions)

    def _work(self, actions: Sequence[Action]) -> None:
        """Perform, then handle what was posted meanwhile, one after the other."""
        self._busy = True
        try:
            self._perform(actions)
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._busy = False
        self._arm()

    def _perform(self, actions: Sequence[Action], changes: Iterable[Change] = ()) -> None:
        """Do actions in order; what must survive goes first, as one record with `changes`."""
        saved = [*changes, *self._changes(actions)]
        if saved:
            self.append(saved)
        for action in actions:
            self._do(action)

    def append(self, changes: list[Change]) -> None:
        """Write changes to the journal, when sessions are to be kept at all."""
        if self._persist and changes:
            self.journal.append(changes)

    def state(self) -> Iterator[Change]:
        """Every session, lease and usage that must survive, for compaction; they come and go while this is read."""
        assert self._ports is not None
        for usage in self._ports.guests.uncharged():
            yield (USAGE, usage.acct_session_id, save_usage(usage))
        for session in list(self.machine.snapshot()):
            record = self._session_record(session.key)
            if record is not None:
                yield (SESSION, journal_key(session.key), record)
        for key in [session.key for session in self.machine.sessions]:
            lease = self._lease_record(key)
            if lease is not None:
                yield (LEASE, journal_key(key), lease)

    def save_all(self) -> None:
        """Read and save every online session, for a stop: counters of few clients at a time are read at once."""
        keys = [session.key for session in self.machine.sessions.online()]
        for first in range(0, len(keys), READ_AT_ONCE):
            some = tuple(keys[first : first + READ_AT_ONCE])
            self.perform([ReadCounters(some)])
            self.perform([SaveSession(key) for key in some])

    def tick(self) -> None:
        """Let the core do what has become due."""
        self._timer = self._timer_at = None
        self.perform(self.machine.tick(self._now()))

    def _handle(self, event: Event) -> None:
        changes: list[Change] = []
        if isinstance(event, LeaseBound | LeaseEnded):
            changes.append((LEASE, journal_key(event.key), self._lease_record(event.key)))
        elif isinstance(event, ClockSet):
            self._unix_offset_s = event.unix_offset_s
        self._perform(self.machine.receive(event, self._now()), changes)

    def _changes(self, actions: Sequence[Action]) -> Iterator[Change]:
        for action in actions:
            if type(action) not in _SURVIVING:
                continue
            if isinstance(action, SaveSession):
                record = self._session_record(action.key)
                if record is not None:
                    yield (SESSION, journal_key(action.key), record)
            elif isinstance(action, ForgetSession):
                yield (SESSION, journal_key(action.key), None)
            elif isinstance(action, QueueAccounting):
                yield (ACCOUNTING, action.record.record_id, save_accounting(action.record))
            elif isinstance(action, ChargeUsage):
                yield (USAGE, action.usage.acct_session_id, save_usage(action.usage))

    def _lease_record(self, key: ClientKey) -> Record | None:
        assert self._ports is not None
        record = self._ports.leases.lease_record(key)
        return None if record is None else stamped(record, self._now(), self._unix(), self._boot_id)

    def _unix(self) -> float | None:
        return None if self._unix_offset_s is None else self._now() + self._unix_offset_s

    def _session_record(self, key: ClientKey) -> Record | None:
        session = self.machine.sessions.get(key)
        if session is None or session.grant is None:
            return None
        return save_session(session, self._now(), self._unix(), self._boot_id)

    def _do(self, action: Action) -> None:
        assert self._ports is not None
        match action:  # what each login orders stands first: cases are tried one after the other
            case Note(key, kind, text):
                self.timeline.add(self._now(), key, kind, text)
                if LOG.isEnabledFor(level := _LEVELS.get(kind, logging.DEBUG)):
                    LOG.log(level, "client zone=%s mac=%s kind=%s text=%s", key.zone, key.mac, kind, text)
            case SaveSession(key) | ForgetSession(key):
                for watcher in self.watchers:
                    watcher(key)
            case ReplyLogin(request_id):
                self.login_results[action.result] += 1
                answer = self._logins.pop(request_id, None)
                if answer is not None:
                    answer(action)
            case SendAccessRequest():
                self._ports.radius.send_access_request(action)
            case QueueAccounting(record):
                self._ports.radius.queue_accounting(record)
            case (
                AllowTraffic()
                | DenyTraffic()
                | ReadCounters()
                | ReadActivity()
                | BindAddress()
                | UnbindAddress()
                | ApplyLimits()
            ):
                self._ports.kernel.perform(action)
            case CancelLogin(login_id):
                self._ports.radius.cancel(login_id)
            case VerifyLocalUser():
                self._ports.accounts.verify(action)
            case VerifyVoucher():
                self._ports.guests.verify(action)
            case RecallDevice():
                self._ports.guests.recall(action)
            case RememberDevice():
                self._ports.guests.remember(action)
            case ChargeUsage(usage):
                self._ports.guests.charge(usage)
            case ReplyRequest(request_id):
                request = self._requests.pop(request_id, None)
                if request is not None:
                    _answer(request, action)
            case _:
                assert_never(action)

    # -- time -------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have `tick` called when the core wants it."""
        due = self.machine.deadline()
        if due == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = due
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._now()), self.tick)


def journal_key(key: ClientKey) -> tuple[str, bytes]:
    """A client's key in the journal, for its session and for its lease."""
    return (key.zone, bytes(key.mac))


def _answer(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
