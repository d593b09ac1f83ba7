"""What happened: facts that the shells report to the session core, in the past tense.

Every event about one client names its `ClientKey`. `request_id` ties a question (of the control socket, of a RADIUS
server) to the `Reply…` action that answers it.
"""

from __future__ import annotations

from dataclasses import field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from gateway.session.model import (
    ClientKey,
    Counters,
    Credentials,
    Grant,
    GrantChange,
    LoginMethod,
    TerminateCause,
    VoucherCode,
)
from gateway.values import value_class


@value_class
class LeaseBound:
    """DHCP bound an address to a client, anew or again."""

    key: ClientKey
    address: IPv4Address
    expires_at: float
    hostname: str = ""
    renewed: bool = False


@value_class
class LeaseEnded:
    """A client no longer holds its address."""

    key: ClientKey
    address: IPv4Address
    reason: Literal["released", "expired", "declined", "replaced", "removed"]


@value_class
class Ipv6AddressSeen:
    """A client was seen to use an IPv6 address (neighbour table)."""

    key: ClientKey
    address: IPv6Address


@value_class
class LoginRequested:
    """A guest asked to be let in."""

    key: ClientKey
    request_id: int
    method: LoginMethod
    credentials: Credentials | VoucherCode | None = field(default=None)  # None for click-through


@value_class
class DeviceReturned:
    """A held client was seen to want something of the Internet."""

    key: ClientKey


@value_class
class AccessAccepted:
    """An authentication source accepted the login; `method` is how a recalled device had logged in."""

    key: ClientKey
    login_id: int
    grant: Grant
    method: LoginMethod | None = None


@value_class
class AccessRejected:
    """An authentication source refused the login; `unknown_user` lets the next source of the zone try."""

    key: ClientKey
    login_id: int
    message: str = ""
    unknown_user: bool = False
    reason: str = (
        ""  # a fixed word where one is known: wrong, expired, used_up, revoked, disabled, elsewhere, throttled
    )
    wait_s: float = 0.0  # the client must wait so long before it may try again


@value_class
class AccessFailed:
    """No authentication server gave a usable answer; `reason` is a sentence for the operator."""

    key: ClientKey
    login_id: int
    reason: str


@value_class
class UsageCharged:
    """What these sessions used is written to their accounts."""

    acct_session_ids: tuple[str, ...]


@value_class
class TrafficAllowed:
    """The kernel lets the client through."""

    key: ClientKey


@value_class
class TrafficRefused:
    """The kernel did not take the client's elements."""

    key: ClientKey
    reason: str


@value_class
class TrafficDenied:
    """The client's elements are gone; these are their last values (since they were added)."""

    key: ClientKey
    counters: Counters


@value_class
class NumberSwept:
    """No connection-tracking entry carries this client number any more; it may be given out again."""

    client_number: int


@value_class
class CountersRead:
    """Kernel counters of online clients, since their elements were added."""

    readings: tuple[tuple[ClientKey, Counters], ...]


@value_class
class ClientsActive:
    """These clients sent at least one packet since the last such event."""

    keys: tuple[ClientKey, ...]


@value_class
class LogoutRequested:
    """The guest, an operator or a RADIUS server wants the session to end."""

    key: ClientKey
    request_id: int | None
    cause: TerminateCause
    by: str  # "guest", "operator alice", "RADIUS server 192.0.2.1": for the timeline


@value_class
class AuthorizeRequested:
    """An operator lets a client in without asking anybody."""

    key: ClientKey
    request_id: int
    grant: Grant
    by: str


@value_class
class ChangeRequested:
    """A CoA-Request or an operator changes a live session."""

    key: ClientKey
    request_id: int | None
    change: GrantChange
    by: str


@value_class
class ClonedClientSeen:
    """A MAC was learned on another bridge port while its session was online (a clone, or a roaming device)."""

    key: ClientKey
    detail: str


@value_class
class ClockSet:
    """The relation of the wall clock to ours: unix time = now + offset; None while it was never set."""

    unix_offset_s: float | None


ClientEvent = (
    LeaseBound
    | LeaseEnded
    | Ipv6AddressSeen
    | LoginRequested
    | AccessAccepted
    | AccessRejected
    | AccessFailed
    | TrafficAllowed
    | TrafficRefused
    | TrafficDenied
    | LogoutRequested
    | AuthorizeRequested
    | ChangeRequested
    | ClonedClientSeen
    | DeviceReturned
)
Event = ClientEvent | NumberSwept | CountersRead | ClientsActive | ClockSet | UsageCharged
