"""The values of a session: what may be granted, what was used, what accounting must say.

Frozen values that travel between rooms inside events and actions. Directions are seen from the client: `upload` is what
the client sent. Only `radius/accounting.py` maps them to Input and Output (RFC 2866 §5.3). Times are seconds on the
monotonic clock, wall-clock times are in fields named `*_unix`.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final, NamedTuple

from gateway.addresses import MacAddress
from gateway.values import value_class


class ClientKey(NamedTuple):
    """Who a session belongs to: one MAC in one zone."""

    zone: str
    mac: MacAddress


class TerminateCause(IntEnum):
    """Acct-Terminate-Cause values that we send (RFC 2866 §5.10, RFC 3580 §2.1)."""

    USER_REQUEST = 1
    LOST_CARRIER = 2
    IDLE_TIMEOUT = 4
    SESSION_TIMEOUT = 5
    ADMIN_RESET = 6
    ADMIN_REBOOT = 7
    NAS_ERROR = 9
    NAS_REQUEST = 10
    NAS_REBOOT = 11
    SERVICE_UNAVAILABLE = 15
    REAUTHENTICATION_FAILURE = 20


class AuthenticatedBy(IntEnum):
    """Acct-Authentic values (RFC 2866 §5.6)."""

    RADIUS = 1
    LOCAL = 2
    REMOTE = 3


class AccountingStatus(IntEnum):
    """Acct-Status-Type values (RFC 2866 §5.1)."""

    START = 1
    STOP = 2
    INTERIM = 3
    ON = 7
    OFF = 8


class LoginMethod(Enum):
    """How a guest asks to be let in."""

    CLICK = "click"
    PASSWORD = "password"
    VOUCHER = "voucher"


class LoginResult(Enum):
    """How a login ended, as the portal needs to know it."""

    SUCCESS = "success"
    ALREADY = "already"  # the client was online before it asked
    REJECT = "reject"  # the credentials were refused
    TIMEOUT = "timeout"  # no authentication server answered in time
    LIMIT = "limit"  # too many sessions of this user, or the gateway is full
    BUSY = "busy"  # another login of this client is under way
    NO_LEASE = "no_lease"  # the address is not one that we gave out
    FORBIDDEN = "forbidden"  # the method is not offered in this zone, or the client is blocked
    ERROR = "error"  # we could not open the gate
    THROTTLED = "throttled"  # too many wrong codes; not looked at


@value_class
class Limits:
    """What may be granted to a session; None means no limit. RADIUS, local accounts and CoA all produce one."""

    session_time_s: int | None = None  # from the moment the gate opened
    idle_time_s: int | None = None  # without a packet from the client
    upload_bytes: int | None = None
    download_bytes: int | None = None
    total_bytes: int | None = None
    upload_bps: int | None = None
    download_bps: int | None = None
    terminate_unix: float | None = None  # wall-clock end, whatever the session time says
    role: str | None = None


NO_LIMITS: Final = Limits()


@value_class
class Counters:
    """Octets and packets of one client, layer 3, IPv4 and IPv6 together."""

    upload_bytes: int = 0
    upload_packets: int = 0
    download_bytes: int = 0
    download_packets: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.upload_bytes + other.upload_bytes,
            self.upload_packets + other.upload_packets,
            self.download_bytes + other.download_bytes,
            self.download_packets + other.download_packets,
        )


NOTHING: Final = Counters()


@value_class
class UsedBefore:
    """What was used of a grant before: by earlier sessions of the same voucher, or of the same login."""

    seconds: int = 0
    counters: Counters = NOTHING


UNUSED: Final = UsedBefore()


@value_class
class Grant:
    """A permission as the authenticating side gave it: limits, and what must be echoed or shown."""

    username: str
    authenticated_by: AuthenticatedBy
    limits: Limits = NO_LIMITS
    interim_interval_s: int | None = None  # None: the configured default; 0: no interim records
    class_values: tuple[bytes, ...] = ()  # RFC 2865 §5.25, echoed in order
    chargeable_user_identity: bytes | None = None  # RFC 4372
    reply_message: str = ""
    redirection_url: str = ""
    filter_ids: tuple[str, ...] = ()
    reauthenticate_at_end: bool = False  # Termination-Action = RADIUS-Request
    devices: int | None = None  # how many of this user's devices may be online at once (Port-Limit)
    account: str = ""  # whose time and octets these are, on all devices together: a voucher's name
    used: UsedBefore = UNUSED  # what the limits were already used of


@value_class
class GrantChange:
    """What a CoA-Request or an operator changes on a live session: the fields of `limits` named in `changed`."""

    limits: Limits
    changed: frozenset[str]  # names of Limits fields that are present in the request
    interim_interval_s: int | None = None
    filter_ids: tuple[str, ...] | None = None
    redirection_url: str | None = None
    log_off: bool = False  # Session-State 2 (ChilliSpot 14559:15)


@value_class
class PapCredentials:
    """A name and a clear password; never logged and never saved."""

    hidden_in_logs: ClassVar[bool] = True

    username: str
    password: str

    def __repr__(self) -> str:
        return f"PapCredentials(username={self.username!r}, password=…)"


@value_class
class ChapCredentials:
    """A name and a CHAP response (RFC 2865 §5.3): identifier, 16-octet response, challenge."""

    hidden_in_logs: ClassVar[bool] = True

    username: str
    ident: int
    response: bytes
    challenge: bytes

    def __repr__(self) -> str:
        return f"ChapCredentials(username={self.username!r}, …)"


Credentials = PapCredentials | ChapCredentials


@value_class
class VoucherCode:
    """A voucher's code as the guest typed it; never logged and never saved."""

    hidden_in_logs: ClassVar[bool] = True

    code: str

    def __repr__(self) -> str:
        return "VoucherCode(…)"


@value_class
class Usage:
    """What an ended session used, for the voucher that it is charged to and the device that may come back."""

    acct_session_id: str
    key: ClientKey
    account: str  # of its grant
    seconds: int
    counters: Counters
    comes_back: bool  # the device may go on with what is left without a login


@value_class
class AccountingRecord:
    """One accounting message, fixed when its event happened: sent again, it is sent with the same values.

    `record_id` rises by one per record for the life of the state directory; the queue keeps the record under it.
    """

    record_id: int
    status: AccountingStatus
    acct_session_id: str
    event_unix: float | None  # None while the wall clock has never been set
    zone: str = ""  # empty for ON and OFF, which speak for the whole gateway
    mac: MacAddress | None = None
    address: IPv4Address | None = None
    ipv6_addresses: tuple[IPv6Address, ...] = ()
    client_number: int = 0  # NAS-Port
    username: str = ""
    authenticated_by: AuthenticatedBy = AuthenticatedBy.RADIUS
    class_values: tuple[bytes, ...] = ()
    chargeable_user_identity: bytes | None = None
    session_time_s: int = 0
    counters: Counters = NOTHING
    terminate_cause: TerminateCause | None = None


class SessionState(Enum):
    """Where a client's session stands; the rows of the table in `machine`."""

    HELD = "held"  # has a lease, may reach the portal only
    AUTHENTICATING = "authenticating"  # a login is being decided
    OPENING = "opening"  # accepted; the kernel is being told
    ONLINE = "online"
    CLOSING = "closing"  # the end is decided; the kernel is being told
