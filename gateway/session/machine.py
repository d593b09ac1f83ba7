"""The session machine: events in, actions out; the one place that decides who is let through.

A client's session moves through the states of `SessionState`:

    HELD ── login ──► AUTHENTICATING ── accepted ──► OPENING ── kernel open ──► ONLINE
      ▲                    │ refused                    │ kernel refused          │ logout, limit, lease gone, kick
      ├────────────────────┴────────────────────────────┘                         ▼
      └──────────────────────────────── kernel closed ◄───────────────────────── CLOSING

`TABLE` maps (state, event type) to what happens. A pair that can only be the echo of something already decided (an
answer to a login that was given up) is in the table as `_stale`; a pair that is absent is an error of ours and raises.

What must survive is said before what is seen: the actions of one event that save (`SaveSession`, `QueueAccounting`) are
performed by the hub as one journal record before the client is told that it is online.

Limits are looked at when they could be reached: each session has one time at which it must be looked at again (a heap,
entries of old times are passed over), and counters are read then, not all of them all the time. Only the idle time
needs to know when a client last sent: `ReadActivity` asks that for all clients together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

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
from gateway.session.events import (
    AccessAccepted,
    AccessFailed,
    AccessRejected,
    AuthorizeRequested,
    ChangeRequested,
    ClientEvent,
    ClientsActive,
    ClockSet,
    ClonedClientSeen,
    CountersRead,
    DeviceReturned,
    Event,
    Ipv6AddressSeen,
    LeaseBound,
    LeaseEnded,
    LoginRequested,
    LogoutRequested,
    NumberSwept,
    TrafficAllowed,
    TrafficDenied,
    TrafficRefused,
    UsageCharged,
)
from gateway.session.model import (
    NOTHING,
    AccountingRecord,
    AccountingStatus,
    ClientKey,
    Counters,
    Grant,
    LoginMethod,
    LoginResult,
    PapCredentials,
    SessionState,
    TerminateCause,
    Usage,
    VoucherCode,
)
from gateway.session.numbers import ClientNumbers
from gateway.session.policy import Policy, changed_grant, changed_limits, click_grant, comes_back, offers
from gateway.session.shares import SharedAccounts
from gateway.session.store import SavedSession, restore_into
from gateway.session.table import Attempt, Ending, Session, SessionTable
from gateway.session.usage import ends_at, idle_ends_at, kernel_lifetime_s, not_less, quota_used_up
from gateway.session.watch import Watch
from gateway.session.words import after_colon, duration, enough_devices, limits_in_words, usage_in_words

# As the timeline calls who decided.
SOURCE_NAMES: Final = {
    "radius": "RADIUS",
    "local": "local accounts",
    "voucher": "vouchers",
    "device": "remembered devices",
}
MAX_IPV6_ADDRESSES: Final = 16  # per client; privacy addresses come and go, the oldest is forgotten
IDENTITY_BITS: Final = 32
RATE_SPAN_S: Final = 1.0  # between the two readings that a rate is made of, at least


class UnplannedEvent(AssertionError):
    """An event came in a state for which the table has no entry."""


class SessionMachine:
    """Holds all sessions; `receive` and `tick` return what is to be done.

    `epoch` is a number that rises with every start of the gateway; session ids and record ids begin with it, which
    makes them unique over restarts. `spread` returns a random fraction for the jitter of interim records.
    """

    def __init__(self, policy: Policy, epoch: int, spread: Callable[[], float]) -> None:
        self.sessions = SessionTable()
        self.numbers = ClientNumbers()
        self.shared = SharedAccounts()
        self.remembered: dict[ClientKey, float] = {}  # devices that come back without a login, and until when (Unix)
        self.ended: Counter[TerminateCause] = Counter()  # sessions that ended, for metrics
        self.upload_bytes = self.download_bytes = 0  # of all sessions since the start, as far as they were read
        self._policy = policy
        self._epoch = epoch & ((1 << IDENTITY_BITS) - 1)
        self._spread = spread
        self._unix_offset_s: float | None = None
        self._last_login_id = 0
        self._last_session_id = 0
        self._last_record_id = self._epoch << IDENTITY_BITS
        self._watch = Watch(self.sessions, policy)
        self._activity_known_at = 0.0  # when it was last known who had sent until then
        self._out: list[Action] = []

    # -- the verbs that every core has ------------------------------------------------------------------------------

    def receive(self, event: Event, now: float) -> list[Action]:
        """Take an event; returns what is to be done, in order. Raises UnplannedEvent for a pair not in the table."""
        if isinstance(event, CountersRead):
            for key, counters in event.readings:
                session = self.sessions.get(key)
                if session is not None and session.online:
                    self._counters_read(session, counters, now)
        elif isinstance(event, ClientsActive):
            self._activity_known_at = now
            for key in event.keys:
                session = self.sessions.get(key)
                if session is not None and session.online:
                    session.active_at = now
        elif isinstance(event, NumberSwept):
            self.numbers.swept(event.client_number)
        elif isinstance(event, ClockSet):
            self._clock_set(event, now)
        elif isinstance(event, UsageCharged):
            self.shared.charged(event.acct_session_ids)
        else:
            self._client_event(event, now)
        return self._take()

    def tick(self, now: float) -> list[Action]:
        """Do what has become due."""
        look: list[Session] = []
        for session in self._watch.take_due(now):
            if self._due(session, now):
                look.append(session)
            elif session.online:
                self._watch.schedule(session, now)
        if look:
            if any((idle := idle_ends_at(session)) is not None and now >= idle for session in look):
                self._out.append(ReadActivity())  # one packet in the last second would have begun the idle time anew
            self._out.append(ReadCounters(tuple(session.key for session in look)))
        self._out.extend(self._watch.rounds(now))
        return self._take()

    def deadline(self) -> float | None:
        """When `tick` is to be called next."""
        return self._watch.deadline()

    def snapshot(self) -> Iterator[Session]:
        """The sessions that must survive a restart."""
        return (session for session in self.sessions if session.state in (SessionState.ONLINE, SessionState.CLOSING))

    # -- around the verbs -------------------------------------------------------------------------------------------

    def reconfigure(self, policy: Policy, now: float) -> list[Action]:
        """Use a new configuration; sessions that it does not allow any more are ended."""
        self._policy = self._watch.policy = policy
        for session in list(self.sessions):
            zone = policy.zones.get(session.key.zone)
            if zone is None:
                reason = "the zone was removed from the configuration"
            elif session.key.mac in zone.block_macs:
                reason = "the device was blocked"
            else:
                continue
            if session.state is SessionState.AUTHENTICATING:
                self._cancel(session)
                self._give_up(session, LoginResult.FORBIDDEN, reason)
            elif session.state in (SessionState.OPENING, SessionState.ONLINE):
                self._end(session, TerminateCause.ADMIN_RESET, reason, now)
        return self._take()

    def restore(self, saved: SavedSession, now: float, *, kept: Counters | None) -> list[Action]:
        """Take a saved session back as online; its client must hold its lease (LeaseBound came first).

        `kept` is what its kernel elements counted, when they outlived us; None when they were made anew, and then what
        was saved is the base that they count on from. No second Start is sent. The client number must be claimed
        already (`claim`), because the kernel was told of it.
        """
        session = self.sessions.get(saved.key)
        assert session is not None
        restore_into(session, saved, now)
        session.base = session.counters if kept is None else session.base
        session.counters = session.counters if kept is None else not_less(session.counters, session.base + kept)
        session.read_at = session.active_at = now
        session.state = SessionState.ONLINE
        self.shared.rejoin(session, saved.grant, now)
        session.ends_at = ends_at(session, self._unix_offset_s)
        if session.interim_interval_s:
            session.interim_due_at = now + session.interim_interval_s * (0.5 + 0.5 * self._spread())
        self.sessions.mark_online(session)
        self._watch.begin(session, now)
        self._share([session, *self.shared.fellows(session)], now)
        self._note(session, "resumed", f"goes on after a restart as {saved.grant.username}")
        self._out.append(SaveSession(session.key))
        return self._take()

    def claim(self, number: int) -> int | None:
        """The same client number again for a saved session, or another when that is taken; None when there is none."""
        return number if self.numbers.claim(number) else self.numbers.take()

    def lost(
        self, saved: SavedSession, cause: TerminateCause, reason: str, now: float, *, kept: Counters | None = None
    ) -> list[Action]:
        """End a saved session that cannot go on: its Stop says what was saved, and what the kernel has `kept` of it."""
        session = Session(saved.key)
        restore_into(session, saved, now)
        if kept is not None:
            session.counters = not_less(session.counters, session.base + kept)
        session.ending = Ending(cause, reason, saved.address)
        self._note(session, "gate_closed", reason)
        self._account(session, AccountingStatus.STOP, now, cause)
        self._charge(session, cause, now)
        self._out.append(ForgetSession(session.key))
        return self._take()

    def lifetime_s(self, session: Session, now: float) -> int | None:
        """How long the kernel may let this session through without hearing from us."""
        return kernel_lifetime_s(session.ends_at, now)

    def saved_lifetime_s(self, saved: SavedSession, now: float) -> int | None:
        """The same for a session that is about to be restored."""
        session = Session(saved.key)
        restore_into(session, saved, now)
        session.ends_at = ends_at(session, self._unix_offset_s)
        return kernel_lifetime_s(session.ends_at, now)

    def gateway_record(self, status: AccountingStatus, now: float) -> QueueAccounting:
        """An Accounting-On or Accounting-Off for the gateway as a whole."""
        record = AccountingRecord(self._record_id(), status, self._session_id(), self._unix(now))
        return QueueAccounting(record)

    def end_all(self, cause: TerminateCause, reason: str, now: float) -> list[Action]:
        """End every session that is online."""
        for session in list(self.sessions.online()):
            self._end(session, cause, reason, now)
        return self._take()

    # -- events of one client ---------------------------------------------------------------------------------------

    def _client_event(self, event: ClientEvent, now: float) -> None:
        session = self.sessions.get(event.key)
        if session is None:
            self._of_stranger(event)
            if not isinstance(event, LeaseBound):
                return
            session = self.sessions.create(event.key)
        handler = TABLE.get((session.state, type(event)))
        if handler is None:
            raise UnplannedEvent(f"{type(event).__name__} in state {session.state.value}")
        handler(self, session, event, now)

    def _of_stranger(self, event: ClientEvent) -> None:
        """Answer what is asked about a client that has no lease."""
        if isinstance(event, LoginRequested | AuthorizeRequested):
            text = "this device has no address from this gateway"
            self._out.append(ReplyLogin(event.request_id, event.key, LoginResult.NO_LEASE, text))
        elif isinstance(event, LogoutRequested | ChangeRequested) and event.request_id is not None:
            self._out.append(ReplyRequest(event.request_id, False, "no such session"))

    def _stale(self, session: Session, event: ClientEvent, now: float) -> None:
        """The echo of something that was decided otherwise meanwhile."""

    def _lease_bound(self, session: Session, event: LeaseBound, now: float) -> None:
        session.lease_expires_at = event.expires_at
        if event.hostname:
            session.hostname = event.hostname
        if session.address == event.address:
            return  # renewed; a device that sleeps does that too, so it is no sign that somebody came back
        previous = session.address
        if session.state in (SessionState.ONLINE, SessionState.OPENING):
            # The kernel's elements name the old address; its traffic ends here, whatever the client does next.
            self._end(session, TerminateCause.LOST_CARRIER, f"the client moved to {event.address}", now)
        if previous is not None:
            self._out.append(UnbindAddress(session.key, previous))
        self.sessions.move(session, event.address)
        self._out.append(BindAddress(session.key, event.address))
        self._note(session, "lease", f"got {event.address}" + (f" as {event.hostname}" if event.hostname else ""))
        if session.state is SessionState.HELD:
            self._recall(session, now)

    def _returned(self, session: Session, event: DeviceReturned, now: float) -> None:
        self._recall(session, now)

    def _recall(self, session: Session, now: float) -> None:
        """Let a remembered device go on with what is left, if its zone does that and the time for it is not over."""
        until_unix, zone = self.remembered.get(session.key), self._policy.zones.get(session.key.zone)
        unix = self._unix(now)
        if until_unix is None or zone is None or not zone.remember or session.key.mac in zone.block_macs:
            return
        if unix is None or unix >= until_unix:
            self.remembered.pop(session.key)
            return
        if not self._take_number(session):
            return
        session.acct_session_id = self._session_id()
        session.attempt = Attempt(self._login_id(), LoginMethod.CLICK, None, [], [], asked="device")
        session.state = SessionState.AUTHENTICATING
        self._out.append(RecallDevice(session.key, session.attempt.login_id))

    def _lease_ended(self, session: Session, event: LeaseEnded, now: float) -> None:
        if session.address != event.address:
            return
        self._note(session, "lease_ended", f"{event.address} {event.reason}")
        if session.state is SessionState.AUTHENTICATING:
            self._cancel(session)
            self._give_up(session, LoginResult.NO_LEASE, "the device gave its address back")
        elif session.state in (SessionState.ONLINE, SessionState.OPENING):
            self._end(session, TerminateCause.LOST_CARRIER, f"the address was {event.reason}", now)
        self._out.append(UnbindAddress(session.key, event.address))
        self.sessions.move(session, None)
        if session.state is SessionState.HELD:
            self.sessions.remove(session)

    def _ipv6_seen(self, session: Session, event: Ipv6AddressSeen, now: float) -> None:
        if event.address not in session.ipv6_addresses:
            session.ipv6_addresses = (*session.ipv6_addresses, event.address)[-MAX_IPV6_ADDRESSES:]
            self._note(session, "ipv6", f"uses {event.address}")

    def _cloned(self, session: Session, event: ClonedClientSeen, now: float) -> None:
        self._note(session, "clone", f"seen in two places, a copied address or a roaming device: {event.detail}")

    # -- logging in -------------------------------------------------------------------------------------------------

    def _login(self, session: Session, event: LoginRequested, now: float) -> None:
        zone = self._policy.zones.get(session.key.zone)
        if zone is None or not offers(zone, event.method) or session.key.mac in zone.block_macs:
            self._refuse(event.request_id, session, LoginResult.FORBIDDEN, "this way to log in is not offered here")
            return
        if not self._take_number(session):
            self._refuse(event.request_id, session, LoginResult.LIMIT, "the gateway is full; try again later")
            return
        session.acct_session_id = self._session_id()
        credentials = event.credentials
        attempt = Attempt(self._login_id(), event.method, credentials, [], [event.request_id])
        session.attempt = attempt
        session.state = SessionState.AUTHENTICATING
        if event.method is LoginMethod.CLICK:
            self._note(session, "login", "accepted the terms")
            self._accepted(session, click_grant(session.key), now)
            return
        if isinstance(credentials, VoucherCode):
            self._note(session, "login", "asks to be let in with a voucher")
            attempt.sources = ["voucher"]
            self._ask_next(session)
            return
        if credentials is None or not (sources := self._policy.sources(zone, credentials)):
            self._give_up(session, LoginResult.FORBIDDEN, "nobody here can check this kind of login")
            return
        attempt.sources = sources
        self._note(session, "login", f"asks to be let in as {credentials.username}")
        self._ask_next(session)

    def _ask_next(self, session: Session) -> None:
        """Ask the next authentication source of the attempt."""
        attempt, address = session.attempt, session.address
        assert attempt is not None
        assert attempt.credentials is not None
        assert address is not None
        source = attempt.asked = attempt.sources.pop(0)
        if isinstance(attempt.credentials, VoucherCode):
            self._out.append(VerifyVoucher(session.key, attempt.login_id, attempt.credentials))
        elif source == "radius":
            self._out.append(
                SendAccessRequest(
                    session.key,
                    attempt.login_id,
                    attempt.credentials,
                    address,
                    session.number,
                    session.acct_session_id,
                )
            )
        else:
            assert isinstance(attempt.credentials, PapCredentials)
            self._out.append(VerifyLocalUser(session.key, attempt.login_id, attempt.credentials))

    def _join_login(self, session: Session, event: LoginRequested, now: float) -> None:
        """A phone that asks the same again (a sheet closed and reopened) gets the answer of the first question."""
        attempt = session.attempt
        if attempt is not None and attempt.credentials == event.credentials and attempt.method is event.method:
            attempt.waiters.append(event.request_id)
            return
        self._refuse(event.request_id, session, LoginResult.BUSY, "another login of this device is being decided")

    def _already_online(self, session: Session, event: LoginRequested | AuthorizeRequested, now: float) -> None:
        url = session.grant.redirection_url if session.grant else ""
        self._out.append(ReplyLogin(event.request_id, session.key, LoginResult.ALREADY, "", url))

    def _busy(self, session: Session, event: LoginRequested | AuthorizeRequested, now: float) -> None:
        self._refuse(event.request_id, session, LoginResult.BUSY, "the last session of this device is being closed")

    def _authorize(self, session: Session, event: AuthorizeRequested, now: float) -> None:
        waiters = [event.request_id]
        if session.attempt is not None:
            self._cancel(session)
            waiters += session.attempt.waiters
        elif not self._take_number(session):
            self._refuse(event.request_id, session, LoginResult.LIMIT, "the gateway is full")
            return
        session.acct_session_id = self._session_id()
        session.attempt = Attempt(self._login_id(), LoginMethod.PASSWORD, None, [], waiters, by=event.by)
        self._accepted(session, event.grant, now)

    def _access_accepted(self, session: Session, event: AccessAccepted, now: float) -> None:
        attempt = session.attempt
        if attempt is not None and attempt.login_id == event.login_id:
            attempt.method = event.method or attempt.method
            self._accepted(session, event.grant, now)

    def _access_rejected(self, session: Session, event: AccessRejected, now: float) -> None:
        attempt = session.attempt
        if attempt is None or attempt.login_id != event.login_id:
            return
        if event.unknown_user and attempt.sources:
            self._ask_next(session)
            return
        if attempt.asked == "device":
            self.remembered.pop(session.key, None)
        result = LoginResult.THROTTLED if event.reason == "throttled" else LoginResult.REJECT
        why = f"{SOURCE_NAMES[attempt.asked]} refused{after_colon(event.message)}"
        self._give_up(session, result, event.message, why=why, reason=event.reason, wait_s=event.wait_s)

    def _access_failed(self, session: Session, event: AccessFailed, now: float) -> None:
        attempt = session.attempt
        if attempt is None or attempt.login_id != event.login_id:
            return
        if attempt.sources:
            self._note(session, "auth_failed", event.reason)
            self._ask_next(session)
            return
        self._give_up(session, LoginResult.TIMEOUT, "", why=event.reason)

    def _accepted(self, session: Session, grant: Grant, now: float) -> None:
        """Somebody vouches for the client: open the kernel, unless the user has enough devices or time has run out."""
        attempt, address = session.attempt, session.address
        assert attempt is not None
        assert address is not None
        zone = self._policy.zones.get(session.key.zone)
        if zone is None:
            self._give_up(session, LoginResult.FORBIDDEN, "this network is not served any more")
            return
        devices = self._policy.devices(zone, grant)
        if devices is not None and not attempt.by and self.sessions.devices_of(grant.username) >= devices:
            self._give_up(session, LoginResult.LIMIT, enough_devices(devices))
            return
        attempt.grant = session.grant = grant
        session.method = attempt.method
        session.limits = self._policy.limits(zone, grant.limits)
        session.started_at = now
        session.started_unix = self._unix(now)
        self.shared.join(session, grant, now)
        session.ends_at = ends_at(session, self._unix_offset_s)
        if session.ends_at is not None and session.ends_at <= now:
            self._give_up(session, LoginResult.REJECT, "the time of this account has run out", reason="used_up")
            return
        if used_up := quota_used_up(session):
            text = f"the {used_up} quota of this account is used up"
            self._give_up(session, LoginResult.REJECT, text, reason="used_up")
            return
        session.state = SessionState.OPENING
        self.sessions.mark_opening(session)
        lifetime_s = self.lifetime_s(session, now)
        self._out.append(AllowTraffic(session.key, address, session.number, lifetime_s))

    def _traffic_allowed(self, session: Session, event: TrafficAllowed, now: float) -> None:
        attempt, grant = session.attempt, session.grant
        assert attempt is not None
        assert grant is not None
        session.state = SessionState.ONLINE
        session.attempt = None
        session.base = session.counters = NOTHING
        session.read_at = session.active_at = session.earlier_at = now
        session.earlier = NOTHING
        session.interim_interval_s = self._policy.interim(grant)
        if session.interim_interval_s:
            # The first one is spread widely, or ten thousand phones that came with one train report in one second.
            session.interim_due_at = now + session.interim_interval_s * (0.5 + 0.5 * self._spread())
        self.sessions.mark_online(session)
        self._watch.begin(session, now)
        if grant.account:
            self._share([session, *self.shared.fellows(session)], now)
        self._out.append(SaveSession(session.key))
        self._remember(session, attempt, now)
        self._account(session, AccountingStatus.START, now)
        by = f"by {attempt.by}" if attempt.by else f"as {grant.username}"
        self._note(session, "gate_opened", f"let through {by}, {limits_in_words(session, now)}")
        for request_id in attempt.waiters:
            self._out.append(
                ReplyLogin(request_id, session.key, LoginResult.SUCCESS, grant.reply_message, grant.redirection_url)
            )

    def _traffic_refused(self, session: Session, event: TrafficRefused, now: float) -> None:
        self._give_up(
            session, LoginResult.ERROR, "the gateway could not open the way; tell its operator", why=event.reason
        )

    def _refuse(self, request_id: int, session: Session, result: LoginResult, message: str) -> None:
        self._note(session, "login_refused", message)
        self._out.append(ReplyLogin(request_id, session.key, result, message))

    def _remember(self, session: Session, attempt: Attempt, now: float) -> None:
        """Note a device that logged in by itself, if its zone remembers devices."""
        zone, grant = self._policy.zones.get(session.key.zone), session.grant
        assert grant is not None
        if zone is None or attempt.by or attempt.asked == "device":
            return
        until_unix = self._policy.remembered_until(zone, self._unix(now))
        if until_unix is not None:
            self.remembered[session.key] = until_unix
            at_most = self._policy.devices(zone, grant)
            self._out.append(RememberDevice(session.key, attempt.method, grant, until_unix, at_most))

    def _give_up(
        self,
        session: Session,
        result: LoginResult,
        message: str,
        why: str = "",
        *,
        reason: str = "",
        wait_s: float = 0.0,
    ) -> None:
        """The login failed: answer all who wait and hold the client again."""
        attempt = session.attempt
        assert attempt is not None
        self._note(session, "login_failed", why or message or result.value)
        for request_id in attempt.waiters:
            self._out.append(ReplyLogin(request_id, session.key, result, message, reason=reason, wait_s=wait_s))
        self.numbers.give_back(session.number)
        self.sessions.mark_offline(session)
        self._hold(session)

    def _cancel(self, session: Session) -> None:
        """Tell who was asked that the answer is not awaited any more."""
        if session.attempt is not None:
            self._out.append(CancelLogin(session.attempt.login_id))

    def _hold(self, session: Session) -> None:
        """Back to the state of a client that has an address and nothing else."""
        if session.grant is not None:
            self.shared.leave(session, session.grant)
        session.state = SessionState.HELD
        session.number = 0
        session.acct_session_id = ""
        session.attempt = session.ending = session.grant = session.method = None
        session.ends_at = session.interim_due_at = session.wake_at = None
        session.base = session.counters = NOTHING

    # -- the end ----------------------------------------------------------------------------------------------------

    def _logout_held(self, session: Session, event: LogoutRequested, now: float) -> None:
        if event.request_id is not None:
            self._out.append(ReplyRequest(event.request_id, False, "this client is not online"))

    def _logout_pending(self, session: Session, event: LogoutRequested, now: float) -> None:
        self._cancel(session)
        self._give_up(session, LoginResult.ERROR, f"the login was ended by {event.by}")
        if event.request_id is not None:
            self._out.append(ReplyRequest(event.request_id, True))

    def _logout(self, session: Session, event: LogoutRequested, now: float) -> None:
        waiters = [event.request_id] if event.request_id is not None else []
        self._end(session, event.cause, f"ended by {event.by}", now, waiters)

    def _join_logout(self, session: Session, event: LogoutRequested, now: float) -> None:
        if event.request_id is not None and session.ending is not None:
            session.ending.waiters.append(event.request_id)

    def _end(
        self, session: Session, cause: TerminateCause, reason: str, now: float, waiters: Iterable[int] = ()
    ) -> None:
        """Close the kernel; the rest follows when it has said what it counted last."""
        assert session.address is not None
        if session.attempt is not None:
            for request_id in session.attempt.waiters:
                self._out.append(ReplyLogin(request_id, session.key, LoginResult.ERROR, reason))
            session.attempt = None
        started = session.state is SessionState.ONLINE
        session.state = SessionState.CLOSING
        session.ending = Ending(cause, reason, session.address, list(waiters))
        if started:
            # Saved with its cause: killed between here and the kernel's answer, we finish this end and not the session.
            self._out.append(SaveSession(session.key))
        self._out.append(DenyTraffic(session.key, session.address, session.number))

    def _traffic_denied(self, session: Session, event: TrafficDenied, now: float) -> None:
        ending = session.ending
        assert ending is not None
        self._count(session, event.counters)
        if self.sessions.with_id(session.acct_session_id) is session:  # else it never was online: no Start, no Stop
            self.ended[ending.cause] += 1
            self._account(session, AccountingStatus.STOP, now, ending.cause)
            self._charge(session, ending.cause, now)
            self._out.append(ForgetSession(session.key))
        self._note(session, "gate_closed", f"{ending.reason}; {usage_in_words(session, now)}")
        for request_id in ending.waiters:
            self._out.append(ReplyRequest(request_id, True))
        fellows = self.shared.fellows(session)
        self.sessions.mark_offline(session)
        self.numbers.retire(session.number)
        self._hold(session)
        self._share(fellows, now)
        # In the record of this end: what a fellow saved of the account has it, or has not and finds it in the journal.
        self._out.extend(SaveSession(fellow.key) for fellow in fellows)
        if session.address is None:
            self.sessions.remove(session)

    # -- changes of a live session ----------------------------------------------------------------------------------

    def _change_refused(self, session: Session, event: ChangeRequested, now: float) -> None:
        if event.request_id is not None:
            self._out.append(ReplyRequest(event.request_id, False, "this client is not online"))

    def _change(self, session: Session, event: ChangeRequested, now: float) -> None:
        if event.change.log_off:
            self._logout(
                session, LogoutRequested(event.key, event.request_id, TerminateCause.ADMIN_RESET, event.by), now
            )
            return
        address, grant = session.address, session.grant
        assert address is not None
        assert grant is not None
        session.limits = changed_limits(session.limits, event.change)
        session.grant = changed_grant(grant, event.change)
        if event.change.interim_interval_s is not None:
            session.interim_interval_s = (
                max(60, event.change.interim_interval_s) if event.change.interim_interval_s else 0
            )
            session.interim_due_at = now + session.interim_interval_s if session.interim_interval_s else None
        session.ends_at = ends_at(session, self._unix_offset_s)
        lifetime_s = self.lifetime_s(session, now)
        self._out.append(ApplyLimits(session.key, address, session.number, lifetime_s, session.limits))
        self._out.append(SaveSession(session.key))
        self._note(session, "changed", f"by {event.by}: {limits_in_words(session, now)}")
        if event.request_id is not None:
            self._out.append(ReplyRequest(event.request_id, True))
        if session.interim_interval_s:
            session.interim_due_at = now  # RFC 5176 practice: the server sees the change in a record of its own
        self._watch.begin(session, now)

    # -- time and counters ------------------------------------------------------------------------------------------

    def _clock_set(self, event: ClockSet, now: float) -> None:
        self._unix_offset_s = event.unix_offset_s
        for session in self.sessions.online():
            if session.limits.terminate_unix is not None:
                session.ends_at = ends_at(session, self._unix_offset_s)
                self._watch.schedule(session, now)

    def _due(self, session: Session, now: float) -> bool:
        """Look at a session whose time has come; True when its counters must be read before more can be said."""
        if session.ends_at is not None and now >= session.ends_at:
            self._end(session, TerminateCause.SESSION_TIMEOUT, "the session time is over", now)
            return False
        times = (idle_ends_at(session), session.interim_due_at, self._watch.quota_look_at(session))
        return any(due is not None and now >= due for due in times)

    def _count(self, session: Session, kernel: Counters) -> None:
        """Take what the kernel counted for a session since it was opened there."""
        before, after = session.counters, not_less(session.counters, session.base + kernel)
        session.counters = after
        self.upload_bytes += after.upload_bytes - before.upload_bytes
        self.download_bytes += after.download_bytes - before.download_bytes

    def _counters_read(self, session: Session, kernel: Counters, now: float) -> None:
        if now - session.read_at >= RATE_SPAN_S:
            session.earlier, session.earlier_at = session.counters, session.read_at
        self._count(session, kernel)
        session.read_at = now
        if session.grant is not None and session.grant.account and (fellows := self.shared.fellows(session)):
            self.shared.share_octets([session, *fellows], session.grant.account)
            for fellow in fellows:
                self._watch.schedule(fellow, now)
        if used_up := quota_used_up(session):
            self._end(session, TerminateCause(self._policy.quota_cause), f"the {used_up} quota is used up", now)
            return
        idle_end = idle_ends_at(session)
        if idle_end is not None and self._activity_known_at >= idle_end:
            self._end(
                session, TerminateCause.IDLE_TIMEOUT, f"nothing sent for {duration(now - session.active_at)}", now
            )
            return
        if session.interim_due_at is not None and now >= session.interim_due_at:
            self._account(session, AccountingStatus.INTERIM, now)
            interval = session.interim_interval_s
            # From the time it was due, so that the rhythm holds; never into the past after a long sleep.
            jittered = session.interim_due_at + interval * (0.9 + 0.2 * self._spread())
            session.interim_due_at = max(jittered, now + interval / 2)
        self._watch.schedule(session, now)

    def _share(self, sessions: list[Session], now: float) -> None:
        """Let all devices of an account see what is left, after one came or went."""
        account = sessions[0].grant.account if sessions and sessions[0].grant is not None else ""
        if not account:
            return
        self.shared.share_octets(sessions, account)
        self.shared.share_time(sessions, account, now)
        for session in sessions:
            ends_before, session.ends_at = session.ends_at, ends_at(session, self._unix_offset_s)
            if session.ends_at != ends_before:
                assert session.address is not None
                lifetime_s = self.lifetime_s(session, now)
                self._out.append(ApplyLimits(session.key, session.address, session.number, lifetime_s, session.limits))
            self._watch.schedule(session, now)

    def _charge(self, session: Session, cause: TerminateCause, now: float) -> None:
        """Have what an ended session used written to its voucher, and to its device if that may come back."""
        grant = session.grant
        assert grant is not None
        known = session.key in self.remembered
        if not grant.account and not known:
            return
        back = known and comes_back(cause)
        if known and not back:
            del self.remembered[session.key]
        seconds = max(0, round(now - session.started_at))
        usage = Usage(session.acct_session_id, session.key, grant.account, seconds, session.counters, back)
        self.shared.ended(usage)
        self._out.append(ChargeUsage(usage))

    # -- small things -----------------------------------------------------------------------------------------------

    def _take(self) -> list[Action]:
        out, self._out = self._out, []
        return out

    def _take_number(self, session: Session) -> bool:
        if self.numbers.in_use >= self._policy.max_sessions:
            return False
        number = self.numbers.take()
        session.number = number or 0
        return number is not None

    def _login_id(self) -> int:
        self._last_login_id += 1
        return self._last_login_id

    def _session_id(self) -> str:
        self._last_session_id += 1
        return f"{self._epoch:08x}-{self._last_session_id:08x}"

    def _record_id(self) -> int:
        self._last_record_id += 1
        return self._last_record_id

    def _unix(self, now: float) -> float | None:
        return None if self._unix_offset_s is None else now + self._unix_offset_s

    def _note(self, session: Session, kind: str, text: str) -> None:
        self._out.append(Note(session.key, kind, text))

    def _account(
        self, session: Session, status: AccountingStatus, now: float, cause: TerminateCause | None = None
    ) -> None:
        if not self._policy.accounts:
            return
        grant = session.grant
        assert grant is not None
        self._out.append(
            QueueAccounting(
                AccountingRecord(
                    record_id=self._record_id(),
                    status=status,
                    acct_session_id=session.acct_session_id,
                    event_unix=self._unix(now),
                    zone=session.key.zone,
                    mac=session.key.mac,
                    address=session.ending.address if session.ending is not None else session.address,
                    ipv6_addresses=session.ipv6_addresses,
                    client_number=session.number,
                    username=grant.username,
                    authenticated_by=grant.authenticated_by,
                    class_values=grant.class_values,
                    chargeable_user_identity=grant.chargeable_user_identity,
                    session_time_s=int(now - session.started_at),
                    counters=session.counters,
                    terminate_cause=cause,
                )
            )
        )


# The handlers take the event type of their column; the table is read with that very type, which mypy cannot follow.
Handler = Callable[[SessionMachine, Session, "ClientEvent", float], None]


def _table() -> Mapping[tuple[SessionState, type[ClientEvent]], Handler]:
    machine, held, authenticating = SessionMachine, SessionState.HELD, SessionState.AUTHENTICATING
    opening, online, closing = SessionState.OPENING, SessionState.ONLINE, SessionState.CLOSING
    columns: dict[type[ClientEvent], dict[SessionState, Callable[..., None]]] = {
        LeaseBound: dict.fromkeys(SessionState, machine._lease_bound),
        LeaseEnded: dict.fromkeys(SessionState, machine._lease_ended),
        Ipv6AddressSeen: dict.fromkeys(SessionState, machine._ipv6_seen),
        ClonedClientSeen: dict.fromkeys(SessionState, machine._cloned),
        DeviceReturned: dict.fromkeys(SessionState, machine._stale) | {held: machine._returned},
        LoginRequested: {
            held: machine._login,
            authenticating: machine._join_login,
            opening: machine._join_login,
            online: machine._already_online,
            closing: machine._busy,
        },
        AuthorizeRequested: {
            held: machine._authorize,
            authenticating: machine._authorize,
            opening: machine._busy,
            online: machine._already_online,
            closing: machine._busy,
        },
        AccessAccepted: dict.fromkeys(SessionState, machine._stale) | {authenticating: machine._access_accepted},
        AccessRejected: dict.fromkeys(SessionState, machine._stale) | {authenticating: machine._access_rejected},
        AccessFailed: dict.fromkeys(SessionState, machine._stale) | {authenticating: machine._access_failed},
        # Only an opening is answered by the one, only a closing by the other: elsewhere they are errors of ours.
        TrafficAllowed: {opening: machine._traffic_allowed, closing: machine._stale},
        TrafficRefused: {opening: machine._traffic_refused, closing: machine._stale, online: machine._stale},
        TrafficDenied: {closing: machine._traffic_denied},
        LogoutRequested: {
            held: machine._logout_held,
            authenticating: machine._logout_pending,
            opening: machine._logout,
            online: machine._logout,
            closing: machine._join_logout,
        },
        ChangeRequested: dict.fromkeys(SessionState, machine._change_refused) | {online: machine._change},
    }
    return {(state, event): handler for event, column in columns.items() for state, handler in column.items()}


TABLE: Final = _table()
