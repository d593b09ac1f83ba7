"""Being told by RADIUS servers: Disconnect-Request and CoA-Request (RFC 5176).

Sans-IO: a datagram comes in, an answer or an order to look up sessions goes out; the shell reports how the order went,
and only then is it acknowledged. Who is not on the list, or does not verify, gets no answer at all; a correct request
that cannot be followed gets a NAK with Error-Cause. A request that is repeated within `CACHE_S` gets the same answer
and happens once; one that says when it was made is known, from whichever port it comes, for as long as it would be
taken: who recorded it cannot use it again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, TypeVar, assert_never

from gateway.addresses import MacAddress
from gateway.config import Config, Endpoint
from gateway.radius.attributes import CHANGEABLE, Moment, UnacceptableValue, read_change
from gateway.radius.packets import (
    SIGNATURE_SLOT,
    Code,
    DecodeError,
    Packet,
    Type,
    attribute,
    decode_dynamic_request,
    encode_answer,
    integer_attribute,
)
from gateway.radius.session_keys import SessionKeys
from gateway.session.model import GrantChange, TerminateCause
from gateway.values import value_class

CACHE_S: Final = 30.0
MAX_CACHED: Final = 1024
MAX_PENDING: Final = 256
_AUTHORIZE_ONLY: Final = 17
_MAX_REASON: Final = 253
_MAX_ECHO: Final = 3072  # octets, so that an answer stays below 4096
_Value = TypeVar("_Value")

# Attributes by which a session is found, and those that say nothing about what is to be changed.
_KEYS: Final = frozenset(
    {
        "Acct-Session-Id",
        "Acct-Multi-Session-Id",
        "User-Name",
        "Calling-Station-Id",
        "Framed-IP-Address",
        "Framed-IPv6-Address",
        "Framed-IPv6-Prefix",
        "NAS-Port",
        "NAS-Port-Id",
        "Chargeable-User-Identity",
    }
)
_NEUTRAL: Final = frozenset(
    {
        "Message-Authenticator",
        "Event-Timestamp",
        "NAS-Identifier",
        "NAS-IP-Address",
        "NAS-IPv6-Address",
        "Service-Type",
        "State",
        "Proxy-State",
        "Reply-Message",
    }
)
_DISCONNECT_ALSO: Final = frozenset({"Acct-Terminate-Cause", "Class"})


class ErrorCause(IntEnum):
    """Error-Cause values that we send (RFC 5176 §3.5)."""

    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_IDENTIFICATION_MISMATCH = 403
    INVALID_REQUEST = 404
    UNSUPPORTED_SERVICE = 405
    INVALID_ATTRIBUTE_VALUE = 407
    SESSION_CONTEXT_NOT_FOUND = 503
    SESSION_CONTEXT_NOT_REMOVABLE = 504
    RESOURCES_UNAVAILABLE = 506


@value_class
class RequestReceived:
    """A datagram came; `unix` is the wall clock, None while it was never set."""

    source: Endpoint
    data: bytes
    unix: float | None


@value_class
class SessionsMissing:
    """No live session matches the keys of a request."""

    request: int


@value_class
class OrderDone:
    """All sessions of a request were disconnected or changed, and the kernel follows; or not, and why."""

    request: int
    done: bool
    reason: str = ""


DynauthEvent = RequestReceived | SessionsMissing | OrderDone


@value_class
class Answer:
    """Send octets back to where a request came from."""

    to: Endpoint
    data: bytes


@value_class
class DisconnectSessions:
    """End all sessions that match; answered by OrderDone or SessionsMissing."""

    request: int
    keys: SessionKeys
    by: str


@value_class
class ChangeSessions:
    """Change all sessions that match; answered by OrderDone or SessionsMissing."""

    request: int
    keys: SessionKeys
    change: GrantChange
    by: str


@value_class
class ReportDrop:
    """A datagram was dropped: log it, once per source, reason and minute."""

    source: Endpoint
    reason: str
    text: str


DynauthAction = Answer | DisconnectSessions | ChangeSessions | ReportDrop


class Refused(Exception):
    """A correct request that gets a NAK."""

    def __init__(self, cause: ErrorCause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(slots=True, eq=False)
class _Pending:
    source: Endpoint
    code: int
    identifier: int
    authenticator: bytes
    secret: bytes
    echo: bytes  # State and Proxy-State, which every answer repeats
    kept_s: float  # how long it is remembered once it is answered
    answer: bytes = b""
    forget_at: float = 0.0


class DynamicAuthorizer:
    """Decides about Disconnect- and CoA-Requests."""

    def __init__(self, config: Config, nas_addresses: Callable[[], frozenset[IPv4Address | IPv6Address]]) -> None:
        self._nas_addresses = nas_addresses
        self._pending: dict[int, _Pending] = {}
        # By header and source, of which the port counts only where nothing else tells a replay from another request.
        self._seen: OrderedDict[tuple[Endpoint | IPv4Address | IPv6Address, bytes], _Pending] = OrderedDict()
        self._next = 0
        self.counters: Counter[str] = Counter()  # by what became of it: ack, nak_503, duplicate, dropped_source …
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Take over another configuration."""
        self._radius = config.radius
        self._nas_identifier = config.general.nas_identifier
        self._client_view = config.radius.accounting_view == "client"
        self._secrets = {server.address: server.secret for server in config.radius.servers}

    def receive(self, event: DynauthEvent, now: float) -> list[DynauthAction]:
        """Take note of an event; returns what to do about it, in order."""
        out: list[DynauthAction] = []
        match event:
            case RequestReceived():
                self._request(event, now, out)
            case SessionsMissing(request):
                text = "no session matches"
                self._refuse(request, Refused(ErrorCause.SESSION_CONTEXT_NOT_FOUND, text), now, out)
            case OrderDone(request, done, reason):
                self._done(request, done, reason, now, out)
            case _:
                assert_never(event)
        return out

    def tick(self, now: float) -> list[DynauthAction]:
        """Forget answers that are old enough."""
        while self._seen:
            key, oldest = next(iter(self._seen.items()))
            if (not oldest.answer or now < oldest.forget_at) and len(self._seen) <= MAX_CACHED:
                break
            del self._seen[key]
        return []

    def deadline(self) -> float | None:
        """When to tick next, None when nothing is remembered."""
        oldest = next(iter(self._seen.values()), None)
        return oldest.forget_at if oldest is not None and oldest.answer else None

    def _request(self, event: RequestReceived, now: float, out: list[DynauthAction]) -> None:
        self.tick(now)
        try:
            secret = self._secret(event.source)
            packet = decode_dynamic_request(
                event.data, secret, require_message_authenticator=self._radius.coa_require_message_authenticator
            )
            valid_s = self._check_time(packet, event.unix)
            echo = _echo(packet)
        except DecodeError as err:
            self.counters[f"dropped_{err.reason}"] += 1
            out.append(ReportDrop(event.source, err.reason, str(err)))
            return
        place = event.source if valid_s is None else event.source.address
        key = (place, event.data[:20])  # code, identifier, authenticator
        known = self._seen.get(key)
        if known is not None and (not known.answer or now < known.forget_at):
            self.counters["duplicate"] += 1
            if known.answer:
                out.append(Answer(event.source, known.answer))
            return  # still being decided: the first one will be answered
        self._next += 1
        request = self._next
        kept_s = max(CACHE_S, valid_s or 0.0)
        pending = _Pending(event.source, packet.code, packet.identifier, packet.authenticator, secret, echo, kept_s)
        self._pending[request] = self._seen[key] = pending
        by = f"RADIUS server {event.source.address}"
        try:
            if len(self._pending) > MAX_PENDING:
                raise Refused(ErrorCause.RESOURCES_UNAVAILABLE, "too many requests are being decided")
            self._check_nas(packet)
            keys = _session_keys(packet)
            _check_service(packet)
            if packet.code == Code.DISCONNECT_REQUEST:
                _check_attributes(packet, _DISCONNECT_ALSO)
                out.append(DisconnectSessions(request, keys, by))
            else:
                _check_attributes(packet, CHANGEABLE)
                change = self._change(packet, event.unix)
                out.append(ChangeSessions(request, keys, change, by))
        except Refused as refused:
            self._refuse(request, refused, now, out)

    def _secret(self, source: Endpoint) -> bytes:
        """Check 1, the source: the secret shared with it."""
        address = source.address
        listed = self._radius.coa_clients
        if not (any(address in network for network in listed) if listed else address in self._secrets):
            raise DecodeError("source", "its sender is not on the list of those who may ask (option coa_client)")
        secret = self._radius.coa_secret or self._secrets.get(address)
        if not secret:
            raise DecodeError("secret", "no secret is configured for its sender (option coa_secret)")
        return secret.reveal().encode()

    def _check_time(self, packet: Packet, unix: float | None) -> float | None:
        """The replay window (RFC 5176 §6.3): for how many seconds more this request would be taken.

        None where its time says nothing: it has none, or our own clock was never set.
        """
        stamp = packet.integer("Event-Timestamp")
        if stamp is None:
            if self._radius.coa_require_event_timestamp:
                raise DecodeError("event_timestamp", "it has no Event-Timestamp, which is demanded")
            return None
        if unix is None:
            return None
        if abs(unix - stamp) > self._radius.coa_window:
            raise DecodeError("event_timestamp", f"its Event-Timestamp is {unix - stamp:.0f} s from our clock")
        return stamp + self._radius.coa_window - unix

    def _check_nas(self, packet: Packet) -> None:
        try:
            addresses = packet.ipv4("NAS-IP-Address") + packet.ipv6("NAS-IPv6-Address")
        except DecodeError as err:
            raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, str(err)) from err
        ours = self._nas_addresses()
        if any(name != self._nas_identifier for name in packet.texts("NAS-Identifier")) or any(
            address not in ours for address in addresses
        ):
            raise Refused(ErrorCause.NAS_IDENTIFICATION_MISMATCH, "this is another access server")

    def _change(self, packet: Packet, unix: float | None) -> GrantChange:
        if not any(packet.has(name) for name in CHANGEABLE):
            raise Refused(ErrorCause.MISSING_ATTRIBUTE, "nothing is to be changed")
        try:
            return read_change(packet, client_view=self._client_view, moment=Moment(unix))
        except (DecodeError, UnacceptableValue) as err:
            raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, str(err)) from err

    def _done(self, request: int, done: bool, reason: str, now: float, out: list[DynauthAction]) -> None:
        pending = self._pending.get(request)
        if pending is None:
            return
        disconnect = pending.code == Code.DISCONNECT_REQUEST
        if not done:
            cause = ErrorCause.SESSION_CONTEXT_NOT_REMOVABLE if disconnect else ErrorCause.RESOURCES_UNAVAILABLE
            self._refuse(request, Refused(cause, reason), now, out)
            return
        self.counters["ack"] += 1
        if disconnect:
            cause_attribute = integer_attribute(Type.ACCT_TERMINATE_CAUSE, TerminateCause.ADMIN_RESET)
            self._answer(request, Code.DISCONNECT_ACK, cause_attribute, now, out)
        else:
            self._answer(request, Code.COA_ACK, b"", now, out)

    def _refuse(self, request: int, refused: Refused, now: float, out: list[DynauthAction]) -> None:
        pending = self._pending.get(request)
        if pending is None:
            return
        self.counters[f"nak_{refused.cause.value}"] += 1
        code = Code.DISCONNECT_NAK if pending.code == Code.DISCONNECT_REQUEST else Code.COA_NAK
        attributes = integer_attribute(Type.ERROR_CAUSE, refused.cause)
        if text := str(refused).encode()[:_MAX_REASON]:
            attributes += attribute(Type.REPLY_MESSAGE, text)
        self._answer(request, code, attributes, now, out)

    def _answer(self, request: int, code: Code, attributes: bytes, now: float, out: list[DynauthAction]) -> None:
        pending = self._pending.pop(request)
        pending.answer = encode_answer(
            code, pending.identifier, pending.secret, SIGNATURE_SLOT + attributes + pending.echo, pending.authenticator
        )
        pending.forget_at = now + pending.kept_s
        out.append(Answer(pending.source, pending.answer))


def _echo(packet: Packet) -> bytes:
    """State and Proxy-State, which every answer repeats in order (RFC 5176 §3.1)."""
    echo = b"".join(attribute(Type.STATE, value) for value in packet.octets("State") if value)
    echo += b"".join(attribute(Type.PROXY_STATE, value) for value in packet.octets("Proxy-State") if value)
    if len(echo) > _MAX_ECHO:
        raise DecodeError("malformed", "its State and Proxy-State leave no room for an answer")
    return echo


def _session_keys(packet: Packet) -> SessionKeys:
    """Check 6: how the session is named."""
    if not any(packet.has(name) for name in _KEYS):
        raise Refused(ErrorCause.MISSING_ATTRIBUTE, "no attribute names a session")
    try:
        return SessionKeys(
            acct_session_id=_one(packet.texts("Acct-Session-Id")),
            acct_multi_session_id=_one(packet.texts("Acct-Multi-Session-Id")),
            username=_one(packet.texts("User-Name")),
            calling_station_id=_one(tuple(MacAddress.parse(text) for text in packet.texts("Calling-Station-Id"))),
            framed_ip=_one(packet.ipv4("Framed-IP-Address")),
            framed_ipv6=_one(packet.ipv6("Framed-IPv6-Address")),
            framed_ipv6_prefix=_one(tuple(_prefix(value) for value in packet.octets("Framed-IPv6-Prefix"))),
            nas_port=_one(packet.integers("NAS-Port")),
            nas_port_id=_one(packet.texts("NAS-Port-Id")),
            chargeable_user_identity=_one(packet.octets("Chargeable-User-Identity")),
        )
    except (DecodeError, ValueError) as err:
        raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, str(err)) from err


def _one(values: tuple[_Value, ...]) -> _Value | None:
    """The value of a key that may be given once; two different ones contradict each other."""
    if len(set(values)) > 1:
        raise Refused(ErrorCause.INVALID_REQUEST, "an attribute that names the session is given twice")
    return values[0] if values else None


def _prefix(value: bytes) -> IPv6Network:
    """Framed-IPv6-Prefix (RFC 3162 §2.3): a zero octet, the length in bits, and up to 16 octets."""
    if not 2 <= len(value) <= 18 or value[1] > 128:
        raise DecodeError("attribute", "Framed-IPv6-Prefix is not a prefix")
    return IPv6Network((value[2:].ljust(16, b"\0"), value[1]), strict=False)


def _check_service(packet: Packet) -> None:
    """Check 7: Authorize Only and other services are not for us (RFC 5176 §3.2)."""
    try:
        services = packet.integers("Service-Type")
    except DecodeError as err:
        raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, str(err)) from err
    if _AUTHORIZE_ONLY in services:
        raise Refused(ErrorCause.UNSUPPORTED_SERVICE, "Authorize Only is not supported")


def _check_attributes(packet: Packet, allowed: frozenset[str]) -> None:
    """What we cannot follow is refused, and nothing of the request happens."""
    for name in packet.names():
        if name not in allowed and name not in _KEYS and name not in _NEUTRAL:
            raise Refused(ErrorCause.UNSUPPORTED_ATTRIBUTE, f"attribute {name} cannot be changed here")
