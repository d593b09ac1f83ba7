"""The table of clients: one mutable `Session` per MAC and zone, found by key, address, id or user.

Only `machine` changes a session. What others may show of it they read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from gateway.session.model import (
    NO_LIMITS,
    NOTHING,
    UNUSED,
    ClientKey,
    Counters,
    Credentials,
    Grant,
    Limits,
    LoginMethod,
    SessionState,
    TerminateCause,
    UsedBefore,
    VoucherCode,
)


@dataclass(slots=True)
class Attempt:
    """A login that is being decided."""

    login_id: int
    method: LoginMethod
    credentials: Credentials | VoucherCode | None
    sources: list[str]  # authentication sources that are still to be asked, in order
    waiters: list[int]  # requests that get the answer
    asked: str = ""  # the source that is deciding, or decided last
    grant: Grant | None = None  # set when a source accepted
    by: str = ""  # who authorised without asking, for the timeline


@dataclass(slots=True)
class Ending:
    """Why a session is being closed, and who waits for it."""

    cause: TerminateCause
    reason: str
    address: IPv4Address  # what it had when it was online; the lease may be gone before the last record is written
    waiters: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """All that is known of one client. Times are on the monotonic clock."""

    key: ClientKey
    state: SessionState = SessionState.HELD
    address: IPv4Address | None = None  # None once the lease is gone
    lease_expires_at: float = 0.0
    hostname: str = ""
    ipv6_addresses: tuple[IPv6Address, ...] = ()
    number: int = 0
    acct_session_id: str = ""
    attempt: Attempt | None = None
    ending: Ending | None = None
    grant: Grant | None = None
    method: LoginMethod | None = None
    limits: Limits = NO_LIMITS
    interim_interval_s: int = 0
    started_at: float = 0.0
    started_unix: float | None = None
    base: Counters = NOTHING  # what earlier kernel elements of this session counted
    counters: Counters = NOTHING  # base and the last reading
    read_at: float = 0.0
    earlier: Counters = NOTHING  # the reading before, at least a second older, for rates
    earlier_at: float = 0.0
    used: UsedBefore = UNUSED  # of the limits, by sessions that have ended
    beside: Counters = NOTHING  # what of the limits others use: those, and devices that are online on the same account
    beside_s: float = 0.0
    active_at: float = 0.0  # when the client was last known to send
    ends_at: float | None = None  # session time or terminate time, whichever is earlier
    interim_due_at: float | None = None
    wake_at: float | None = None  # the machine's next look at this session

    @property
    def online(self) -> bool:
        """Whether the kernel lets this client through."""
        return self.state is SessionState.ONLINE


class SessionTable:
    """All sessions, with their indexes."""

    def __init__(self) -> None:
        self._by_key: dict[ClientKey, Session] = {}
        self._by_address: dict[IPv4Address, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._online_users: dict[str, set[ClientKey]] = {}
        self._opening: dict[ClientKey, str] = {}  # who is being let in, under which name
        self._online: dict[ClientKey, Session] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_key.values())

    def get(self, key: ClientKey) -> Session | None:
        """The session of a client, if it has one."""
        return self._by_key.get(key)

    def at_address(self, address: IPv4Address) -> Session | None:
        """The session that holds an address; prefixes of zones do not overlap."""
        return self._by_address.get(address)

    def with_id(self, acct_session_id: str) -> Session | None:
        """The online or closing session of an Acct-Session-Id."""
        return self._by_id.get(acct_session_id)

    def of_user(self, username: str) -> frozenset[ClientKey]:
        """The clients that are online under a name, without regard to case."""
        return frozenset(self._online_users.get(username.casefold(), ()))

    def devices_of(self, username: str) -> int:
        """How many clients are online or being let in under a name: the kernel may take a second to answer."""
        name = username.casefold()
        return len(self._online_users.get(name, ())) + sum(other == name for other in self._opening.values())

    def online(self) -> Iterator[Session]:
        """The sessions that are online."""
        return iter(self._online.values())

    @property
    def online_count(self) -> int:
        """How many sessions are online."""
        return len(self._online)

    def create(self, key: ClientKey) -> Session:
        """Begin a session in the held state."""
        session = Session(key)
        self._by_key[key] = session
        return session

    def remove(self, session: Session) -> None:
        """Forget a client wholly."""
        self.mark_offline(session)
        self.move(session, None)
        self._by_key.pop(session.key, None)

    def move(self, session: Session, address: IPv4Address | None) -> None:
        """Change a session's address and its index."""
        if session.address is not None and self._by_address.get(session.address) is session:
            del self._by_address[session.address]
        session.address = address
        if address is not None:
            self._by_address[address] = session

    def mark_opening(self, session: Session) -> None:
        """Count a session under its user while the kernel is being told."""
        assert session.grant is not None
        self._opening[session.key] = session.grant.username.casefold()

    def mark_online(self, session: Session) -> None:
        """Count a session as online under its user."""
        self._opening.pop(session.key, None)
        self._online[session.key] = session
        self._by_id[session.acct_session_id] = session
        if session.grant is not None:
            self._online_users.setdefault(session.grant.username.casefold(), set()).add(session.key)

    def mark_offline(self, session: Session) -> None:
        """Undo `mark_online`; harmless when the session was not online."""
        self._opening.pop(session.key, None)
        self._online.pop(session.key, None)
        self._by_id.pop(session.acct_session_id, None)
        if session.grant is not None:
            name = session.grant.username.casefold()
            keys = self._online_users.get(name)
            if keys is not None:
                keys.discard(session.key)
                if not keys:
                    del self._online_users[name]
