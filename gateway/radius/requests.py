"""Requests as the servers get them: Access-, Accounting-Request and Status-Server, attribute by attribute.

Pure apart from a small cache: what is the same for every session of a zone (who we are, where the guest is) is encoded
once per server. This is the only place, with `attributes`, where upload and download become Input and Output.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from gateway.addresses import MacAddress
from gateway.config import Config, RadiusServer
from gateway.radius.packets import (
    MAX_PASSWORD_OCTETS,
    SIGNATURE_SLOT,
    Code,
    Type,
    address_attribute,
    attribute,
    chap_response,
    encode_request,
    hide_password,
    integer_attribute,
    vendor_attribute,
)
from gateway.session.actions import SendAccessRequest
from gateway.session.model import (
    AccountingRecord,
    AccountingStatus,
    ChapCredentials,
    Credentials,
    PapCredentials,
)
from gateway.values import value_class

_CHILLISPOT: Final = 14559
_ACCT_VIEW_POINT: Final = 10
_MAX_NAME: Final = 253
_LOW_WORD: Final = 0xFFFFFFFF
_ASK_IDENTITY: Final = b"\0"  # RFC 4372 §2.1
_ENDED: Final = (AccountingStatus.INTERIM, AccountingStatus.STOP)


class Randomness(Protocol):
    """What is needed of `random.Random`; in production `random.SystemRandom`: authenticators must be unguessable."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...

    def randbytes(self, n: int, /) -> bytes: ...


@value_class
class AccessBody:
    """One login as it goes to any server; `unix` is when it was asked for, None while the clock was never set."""

    action: SendAccessRequest
    credentials: Credentials
    unix: float | None


@value_class
class AccountingBody:
    """One record with its Event-Timestamp; `delay_s` is None unless it is late (RFC 2866 §5.2)."""

    record: AccountingRecord
    event_unix: float | None
    delay_s: int | None


@value_class
class StatusBody:
    """A question whether the server is alive (RFC 5997)."""


Body = AccessBody | AccountingBody | StatusBody


@value_class
class Written:
    """A packet ready to be sent, and what its answer is checked against."""

    data: bytes
    code: Code
    authenticator: bytes


def credentials_refused(credentials: Credentials) -> str:
    """Why credentials cannot be sent at all, as a sentence; empty when they can."""
    name = credentials.username.encode("utf-8", "surrogateescape")
    if not name or len(name) > _MAX_NAME or 0 in name:
        return f"a user name has 1 to {_MAX_NAME} octets and no NUL"
    if isinstance(credentials, PapCredentials):
        password = credentials.password.encode("utf-8", "surrogateescape")
        if len(password) > MAX_PASSWORD_OCTETS or 0 in password:
            return f"a password has at most {MAX_PASSWORD_OCTETS} octets and no NUL"
    elif len(credentials.response) != 16 or not 1 <= len(credentials.challenge) <= 253:
        return "a CHAP response has 16 octets, its challenge 1 to 253"
    return ""


def as_chap(credentials: PapCredentials, random: Randomness) -> ChapCredentials:
    """Answer a challenge of our own, so that the clear password does not travel (option `protocol`)."""
    ident, challenge = random.randrange(256), random.randbytes(16)
    password = credentials.password.encode("utf-8", "surrogateescape")
    return ChapCredentials(credentials.username, ident, chap_response(ident, password, challenge), challenge)


class RequestWriter:
    """Writes requests of this gateway; `source` of a server is the address that our requests to it come from."""

    def __init__(self, config: Config, random: Randomness, zone_mac: Callable[[str], MacAddress | None]) -> None:
        self._random = random
        self._zone_mac = zone_mac
        self._sources: dict[str, IPv4Address | IPv6Address] = {}
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Take over another configuration; what was encoded before is encoded anew."""
        self._config = config.radius
        self._identifier = config.general.nas_identifier.encode()[:_MAX_NAME]
        self._zones = {zone.name: zone for zone in config.zones}
        self._places: dict[tuple[str, str, MacAddress | None], bytes] = {}
        self._nas: dict[str, bytes] = {}

    def set_source(self, server: str, address: IPv4Address | IPv6Address) -> None:
        """Remember which of our addresses a server sees; it is our NAS-IP-Address unless one is configured."""
        if self._sources.get(server) != address:
            self._sources[server] = address
            self._places.clear()
            self._nas.clear()

    def nas_addresses(self) -> frozenset[IPv4Address | IPv6Address]:
        """Addresses under which servers know us."""
        configured = {self._config.nas_ip} if self._config.nas_ip is not None else set()
        return frozenset(configured | set(self._sources.values()))

    def write(self, server: RadiusServer, body: Body, identifier: int) -> Written:
        """Write a request for one server; each call makes a new authenticator, so the caller repeats the octets."""
        secret = server.secret.reveal().encode()
        if isinstance(body, AccountingBody):
            data, authenticator = encode_request(
                Code.ACCOUNTING_REQUEST, identifier, secret, self._accounting(server, body)
            )
            return Written(data, Code.ACCOUNTING_REQUEST, authenticator)
        authenticator = self._random.randbytes(16)
        if isinstance(body, AccessBody):
            code, attributes = Code.ACCESS_REQUEST, self._access(server, body, secret, authenticator)
        else:
            code, attributes = Code.STATUS_SERVER, SIGNATURE_SLOT + self._nas_attributes(server)
        data, _ = encode_request(code, identifier, secret, attributes, authenticator)
        return Written(data, code, authenticator)

    def _access(self, server: RadiusServer, body: AccessBody, secret: bytes, authenticator: bytes) -> bytes:
        action, credentials = body.action, body.credentials
        parts = [SIGNATURE_SLOT, attribute(Type.USER_NAME, _octets(credentials.username))]
        if isinstance(credentials, PapCredentials):
            hidden = hide_password(_octets(credentials.password), secret, authenticator)
            parts.append(attribute(Type.USER_PASSWORD, hidden))
        else:
            parts.append(attribute(Type.CHAP_PASSWORD, bytes((credentials.ident,)) + credentials.response))
            parts.append(attribute(Type.CHAP_CHALLENGE, credentials.challenge))
        parts += (
            self._place(server, action.key.zone),
            integer_attribute(Type.NAS_PORT, action.client_number),
            attribute(Type.FRAMED_IP_ADDRESS, action.address.packed),
            attribute(Type.CALLING_STATION_ID, action.key.mac.dashed().encode()),
            attribute(Type.ACCT_SESSION_ID, action.acct_session_id.encode()),
            attribute(Type.CHARGEABLE_USER_IDENTITY, _ASK_IDENTITY),
        )
        if body.unix is not None:
            parts.append(integer_attribute(Type.EVENT_TIMESTAMP, int(body.unix) & _LOW_WORD))
        return b"".join(parts)

    def _accounting(self, server: RadiusServer, body: AccountingBody) -> bytes:
        record = body.record
        parts = [
            SIGNATURE_SLOT,
            integer_attribute(Type.ACCT_STATUS_TYPE, record.status),
            attribute(Type.ACCT_SESSION_ID, record.acct_session_id.encode()),
        ]
        if record.mac is None:
            parts.append(self._nas_attributes(server))
            if gateway_mac := self._gateway_mac():
                parts.append(attribute(Type.CALLED_STATION_ID, gateway_mac.dashed().encode()))
        else:
            parts += self._session(server, record, record.mac)
        if body.event_unix is not None:
            parts.append(integer_attribute(Type.EVENT_TIMESTAMP, int(body.event_unix) & _LOW_WORD))
        if body.delay_s is not None:
            parts.append(integer_attribute(Type.ACCT_DELAY_TIME, min(body.delay_s, _LOW_WORD)))
        return b"".join(parts)

    def _session(self, server: RadiusServer, record: AccountingRecord, mac: MacAddress) -> list[bytes]:
        parts = [
            attribute(Type.USER_NAME, _octets(record.username)[:_MAX_NAME] or str(mac).encode()),
            self._place(server, record.zone),
            integer_attribute(Type.NAS_PORT, record.client_number),
            attribute(Type.CALLING_STATION_ID, mac.dashed().encode()),
            integer_attribute(Type.ACCT_AUTHENTIC, record.authenticated_by),
        ]
        if record.address is not None:
            parts.append(attribute(Type.FRAMED_IP_ADDRESS, record.address.packed))
        parts += (attribute(Type.FRAMED_IPV6_ADDRESS, address.packed) for address in record.ipv6_addresses)
        parts += (attribute(Type.CLASS, value) for value in record.class_values)
        if record.chargeable_user_identity:
            parts.append(attribute(Type.CHARGEABLE_USER_IDENTITY, record.chargeable_user_identity))
        if record.status in _ENDED:
            parts.append(integer_attribute(Type.ACCT_SESSION_TIME, record.session_time_s & _LOW_WORD))
            parts.append(self._counters(record))
        if record.terminate_cause is not None:
            parts.append(integer_attribute(Type.ACCT_TERMINATE_CAUSE, record.terminate_cause))
        return parts

    def _counters(self, record: AccountingRecord) -> bytes:
        """Octets and packets; Input is from the client (RFC 2866 §5.3) unless the view is the client's."""
        counters = record.counters
        into = (counters.upload_bytes, counters.upload_packets)
        out = (counters.download_bytes, counters.download_packets)
        view = b""
        if self._config.accounting_view == "client":
            into, out = out, into
            view = vendor_attribute(_CHILLISPOT, _ACCT_VIEW_POINT, (2).to_bytes(4, "big"))
        return (
            integer_attribute(Type.ACCT_INPUT_OCTETS, into[0] & _LOW_WORD)
            + integer_attribute(Type.ACCT_OUTPUT_OCTETS, out[0] & _LOW_WORD)
            + integer_attribute(Type.ACCT_INPUT_GIGAWORDS, into[0] >> 32 & _LOW_WORD)
            + integer_attribute(Type.ACCT_OUTPUT_GIGAWORDS, out[0] >> 32 & _LOW_WORD)
            + integer_attribute(Type.ACCT_INPUT_PACKETS, into[1] & _LOW_WORD)
            + integer_attribute(Type.ACCT_OUTPUT_PACKETS, out[1] & _LOW_WORD)
            + view
        )

    def _nas_attributes(self, server: RadiusServer) -> bytes:
        """Who we are: NAS-Identifier, and NAS-IP-Address once it is known."""
        cached = self._nas.get(server.name)
        if cached is None:
            cached = attribute(Type.NAS_IDENTIFIER, self._identifier)
            address = self._config.nas_ip or self._sources.get(server.name)
            if address is not None:
                cached += address_attribute(address)
            self._nas[server.name] = cached
        return cached

    def _place(self, server: RadiusServer, zone_name: str) -> bytes:
        """Who we are and where the guest is: the attributes that all sessions of a zone share."""
        gateway_mac = self._zone_mac(zone_name)
        cached = self._places.get((server.name, zone_name, gateway_mac))
        if cached is not None:
            return cached
        zone = self._zones.get(zone_name)
        parts = [
            self._nas_attributes(server),
            integer_attribute(Type.NAS_PORT_TYPE, self._config.nas_port_type),
            integer_attribute(Type.SERVICE_TYPE, self._config.service_type),
        ]
        if zone is not None:
            parts.append(attribute(Type.NAS_PORT_ID, zone.interface.encode()))
        if gateway_mac is not None:
            called = gateway_mac.dashed()
            if zone is not None and zone.ssid and self._config.called_station_ssid:
                called += f":{zone.ssid}"  # RFC 3580 §3.20
            parts.append(attribute(Type.CALLED_STATION_ID, called.encode()[:_MAX_NAME]))
        encoded = b"".join(parts)
        self._places[server.name, zone_name, gateway_mac] = encoded
        return encoded

    def _gateway_mac(self) -> MacAddress | None:
        """A MAC for what speaks for the whole gateway: that of the first zone that has one."""
        return next((mac for zone in self._zones if (mac := self._zone_mac(zone)) is not None), None)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
