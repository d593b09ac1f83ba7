"""What the exchange with RADIUS servers is told, and what it orders: its events and actions."""

from __future__ import annotations

from gateway.radius.breaker import BreakerState
from gateway.radius.channel import Purpose
from gateway.radius.requests import AccountingBody
from gateway.session.actions import SendAccessRequest
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.values import value_class


@value_class
class LoginSubmitted:
    """A login is to be decided; `unix` is the wall clock, None while it was never set."""

    action: SendAccessRequest
    unix: float | None


@value_class
class LoginCancelled:
    """Nobody waits for this login any more."""

    login_id: int


@value_class
class RecordSubmitted:
    """An accounting record is to be told."""

    body: AccountingBody


@value_class
class DatagramReceived:
    """Octets came on one of our sockets."""

    server: str
    purpose: Purpose
    socket: int
    data: bytes
    unix: float | None


@value_class
class PortUnreachable:
    """The network says that nobody is there (ICMP): a hint, not a proof."""

    server: str
    purpose: Purpose
    socket: int


ExchangeEvent = LoginSubmitted | LoginCancelled | RecordSubmitted | DatagramReceived | PortUnreachable


@value_class
class Transmit:
    """Send octets from one of the sockets of a server and purpose; a socket not seen before is opened first."""

    server: str
    purpose: Purpose
    socket: int
    data: bytes


@value_class
class DecideLogin:
    """Tell the session core."""

    event: AccessAccepted | AccessRejected | AccessFailed


@value_class
class SettleRecord:
    """Tell the accounting queue whether a server has answered for the record."""

    record_id: int
    answered: bool


@value_class
class ReportServer:
    """A breaker changed: say so to the operator."""

    place: str
    purpose: Purpose
    state: BreakerState
    reason: str


@value_class
class ReportRefusal:
    """An answer was dropped: log it, once per server, reason and minute."""

    place: str
    reason: str
    text: str


@value_class
class RememberSigner:
    """A server was seen to sign its answers; keep that over restarts."""

    place: str


@value_class
class Remark:
    """A sentence for the log about one login."""

    text: str


ExchangeAction = Transmit | DecideLogin | SettleRecord | ReportServer | ReportRefusal | RememberSigner | Remark
