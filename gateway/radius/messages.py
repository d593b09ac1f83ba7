"""What the exchange with RADIUS servers is told, and what it orders: its events and actions."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.radius.breaker import BreakerState
from gateway.radius.channel import Purpose
from gateway.radius.requests import AccountingBody
from gateway.session.actions import SendAccessRequest
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected


@dataclass(frozen=True, slots=True)
class LoginSubmitted:
    """A login is to be decided; `unix` is the wall clock, None while it was never set."""

    action: SendAccessRequest
    unix: float | None


@dataclass(frozen=True, slots=True)
class LoginCancelled:
    """Nobody waits for this login any more."""

    login_id: int


@dataclass(frozen=True, slots=True)
class RecordSubmitted:
    """An accounting record is to be told."""

    body: AccountingBody


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """Octets came on one of our sockets."""

    server: str
    purpose: Purpose
    socket: int
    data: bytes
    unix: float | None


@dataclass(frozen=True, slots=True)
class PortUnreachable:
    """The network says that nobody is there (ICMP): a hint, not a proof."""

    server: str
    purpose: Purpose
    socket: int


ExchangeEvent = LoginSubmitted | LoginCancelled | RecordSubmitted | DatagramReceived | PortUnreachable


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send octets from one of the sockets of a server and purpose; a socket not seen before is opened first."""

    server: str
    purpose: Purpose
    socket: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DecideLogin:
    """Tell the session core."""

    event: AccessAccepted | AccessRejected | AccessFailed


@dataclass(frozen=True, slots=True)
class SettleRecord:
    """Tell the accounting queue whether a server has answered for the record."""

    record_id: int
    answered: bool


@dataclass(frozen=True, slots=True)
class ReportServer:
    """A breaker changed: say so to the operator."""

    place: str
    purpose: Purpose
    state: BreakerState
    reason: str


@dataclass(frozen=True, slots=True)
class ReportRefusal:
    """An answer was dropped: log it, once per server, reason and minute."""

    place: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class RememberSigner:
    """A server was seen to sign its answers; keep that over restarts."""

    place: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence for the log about one login."""

    text: str


ExchangeAction = Transmit | DecideLogin | SettleRecord | ReportServer | ReportRefusal | RememberSigner | Remark
