"""What is to be done: orders of the session core that the hub hands to the shells, in the imperative.

The hub performs the actions of one event in order. Those that must survive (`SaveSession`, `ForgetSession`,
`QueueAccounting`) are appended to the journal as one atomic record before any other action of that event is performed.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from gateway.session.model import (
    AccountingRecord,
    ClientKey,
    Credentials,
    Grant,
    Limits,
    LoginMethod,
    LoginResult,
    PapCredentials,
    Usage,
    VoucherCode,
)
from gateway.values import value_class


@value_class
class BindAddress:
    """Let the kernel accept this MAC with this address (anti-spoofing); not yet a permission to pass."""

    key: ClientKey
    address: IPv4Address


@value_class
class UnbindAddress:
    """Let the kernel accept this MAC with this address no longer."""

    key: ClientKey
    address: IPv4Address


@value_class
class SendAccessRequest:
    """Ask the RADIUS servers of the zone; answered by AccessAccepted, AccessRejected or AccessFailed."""

    key: ClientKey
    login_id: int
    credentials: Credentials
    address: IPv4Address
    client_number: int
    acct_session_id: str


@value_class
class VerifyLocalUser:
    """Ask the local accounts; answered by AccessAccepted or AccessRejected."""

    key: ClientKey
    login_id: int
    credentials: PapCredentials


@value_class
class VerifyVoucher:
    """Ask the vouchers; answered by AccessAccepted or AccessRejected."""

    key: ClientKey
    login_id: int
    voucher: VoucherCode


@value_class
class RecallDevice:
    """A device that is remembered has come back: ask what is left for it; answered like a login."""

    key: ClientKey
    login_id: int


@value_class
class RememberDevice:
    """The device has logged in and may come back without a login until `until_unix`.

    At most `at_most` devices of one user are kept, the latest; None stands for no bound of the user's own.
    """

    key: ClientKey
    method: LoginMethod
    grant: Grant
    until_unix: float
    at_most: int | None


@value_class
class ChargeUsage:
    """Keep what a session used until it is written to its account; answered by UsageCharged."""

    usage: Usage


@value_class
class AllowTraffic:
    """Open the kernel for a client; answered by TrafficAllowed or TrafficRefused.

    `lifetime_s` is the kernel's own limit (the remaining time plus a little), None when the session has no end.
    """

    key: ClientKey
    address: IPv4Address
    client_number: int
    lifetime_s: int | None


@value_class
class DenyTraffic:
    """Close the kernel for a client and read its last counters; answered by TrafficDenied, later by NumberSwept."""

    key: ClientKey
    address: IPv4Address
    client_number: int


@value_class
class ApplyLimits:
    """A live session's limits changed: the kernel's lifetime (and, with shaping, its rates) follow."""

    key: ClientKey
    address: IPv4Address
    client_number: int
    lifetime_s: int | None
    limits: Limits


@value_class
class ReadCounters:
    """Read the counters of these clients, answered by CountersRead; an empty tuple means all that are online."""

    keys: tuple[ClientKey, ...]


@value_class
class ReadActivity:
    """Ask which clients sent a packet since this was asked last; answered by ClientsActive.

    Upload counters only: this is asked every few seconds to know when an idle time began.
    """


@value_class
class CancelLogin:
    """Nobody waits for this login any more; an answer that still comes is ignored."""

    login_id: int


@value_class
class SaveSession:
    """Keep the session as it is now (the hub asks the store for its record when it performs this)."""

    key: ClientKey


@value_class
class ForgetSession:
    """The session has ended; its record is removed."""

    key: ClientKey


@value_class
class QueueAccounting:
    """Keep the record until a RADIUS server has answered for it."""

    record: AccountingRecord


@value_class
class ReplyLogin:
    """Answer a LoginRequested or AuthorizeRequested."""

    request_id: int
    key: ClientKey
    result: LoginResult
    message: str = ""  # the server's Reply-Message or our sentence; escaped where it is shown
    redirection_url: str = ""
    reason: str = ""  # a fixed word where one is known, for pages in the guest's language
    wait_s: float = 0.0  # the client need not try again before that


@value_class
class ReplyRequest:
    """Answer a LogoutRequested or ChangeRequested: whether it was done, else why not."""

    request_id: int
    done: bool
    reason: str = ""


@value_class
class Note:
    """A line for the client's timeline: what happened and why, in words. `kind` is a short fixed name."""

    key: ClientKey
    kind: str
    text: str


Action = (
    BindAddress
    | UnbindAddress
    | SendAccessRequest
    | VerifyLocalUser
    | VerifyVoucher
    | RecallDevice
    | RememberDevice
    | ChargeUsage
    | AllowTraffic
    | DenyTraffic
    | ApplyLimits
    | ReadCounters
    | ReadActivity
    | CancelLogin
    | SaveSession
    | ForgetSession
    | QueueAccounting
    | ReplyLogin
    | ReplyRequest
    | Note
)
