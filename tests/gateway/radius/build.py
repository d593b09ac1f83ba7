"""Values and answers that the RADIUS tests share: a configuration, a login, a record, a server's side of the codec."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

from gateway.addresses import MacAddress
from gateway.config import Config, Radius, RadiusServer, Secret, Zone
from gateway.radius.exchange import Exchange
from gateway.radius.messages import ExchangeAction, Transmit
from gateway.radius.packets import Code, Type
from gateway.radius.requests import RequestWriter
from gateway.session.actions import SendAccessRequest
from gateway.session.model import (
    AccountingRecord,
    AccountingStatus,
    ClientKey,
    Counters,
    Credentials,
    PapCredentials,
    TerminateCause,
)

SECRET = b"testing123"
UNIX = 1_795_000_000.0
MAC = MacAddress.parse("02:00:5e:10:00:2a")
GATEWAY_MAC = MacAddress.parse("02:00:5e:00:00:01")
ADDRESS = IPv4Address("10.41.0.20")
KEY = ClientKey("guest", MAC)


class EvenRandom(Random):
    """Randomness whose jitter is exactly none: `random()` is always a half. Everything else comes from a seed."""

    def random(self) -> float:
        return 0.5


def server(name: str = "one", priority: int = 10, policy: str = "auto", *, status_server: bool = True) -> RadiusServer:
    """A server at an address made from its name."""
    address = IPv4Address("192.0.2.1") + sum(name.encode()) % 200
    return RadiusServer(
        name=name,
        address=address,
        secret=Secret(SECRET.decode()),
        priority=priority,
        require_message_authenticator=policy,
        status_server=status_server,
    )


def config(*servers: RadiusServer, radius: Radius | None = None) -> Config:
    """A gateway with one zone and these servers."""
    base = radius or Radius()
    return Config(
        radius=replace(base, servers=servers or (server(),)),
        zones=(Zone(name="guest", interface="br-guest", ssid="Cafe"),),
    )


def exchange(settings: Config, *, learned: Iterable[str] = ()) -> Exchange:
    """An exchange without jitter."""
    random = EvenRandom(7)
    return Exchange(settings, RequestWriter(settings, random, lambda _zone: GATEWAY_MAC), random, learned)


def login(login_id: int = 1, credentials: Credentials | None = None) -> SendAccessRequest:
    """A login of alice."""
    return SendAccessRequest(
        KEY, login_id, credentials or PapCredentials("alice", "wonderland"), ADDRESS, 7, f"67a1b2c3-{login_id:08x}"
    )


def record(
    record_id: int,
    status: AccountingStatus = AccountingStatus.START,
    session: str = "67a1b2c3-0000002a",
    *,
    upload_bytes: int = 0,
    download_bytes: int = 0,
    event_unix: float | None = UNIX,
) -> AccountingRecord:
    """A record of alice's session, or one that speaks for the whole gateway."""
    if status in (AccountingStatus.ON, AccountingStatus.OFF):
        return AccountingRecord(record_id, status, session, event_unix)
    return AccountingRecord(
        record_id,
        status,
        session,
        event_unix,
        zone="guest",
        mac=MAC,
        address=ADDRESS,
        client_number=7,
        username="alice",
        class_values=(b"gold", b"two"),
        session_time_s=0 if status is AccountingStatus.START else 60,
        counters=Counters(upload_bytes, 10, download_bytes, 20),
        terminate_cause=TerminateCause.USER_REQUEST if status is AccountingStatus.STOP else None,
    )


def answer(request: bytes, code: Code, attributes: bytes = b"", *, sign: bool = True, secret: bytes = SECRET) -> bytes:
    """A server's answer to a request, written without our own codec."""
    signature = bytes((Type.MESSAGE_AUTHENTICATOR, 18)) + bytes(16) if sign else b""
    head = bytes((code, request[1])) + (20 + len(signature) + len(attributes)).to_bytes(2, "big")
    vector = bytes(16) if request[0] == Code.ACCOUNTING_REQUEST else request[4:20]
    if sign:
        signature = signature[:2] + hmac.digest(secret, head + vector + signature + attributes, "md5")
    body = signature + attributes
    return head + hashlib.md5(head + request[4:20] + body + secret).digest() + body


def sent(actions: Iterable[ExchangeAction]) -> list[Transmit]:
    """The transmissions among actions."""
    return [action for action in actions if isinstance(action, Transmit)]


def others(actions: Iterable[ExchangeAction]) -> list[ExchangeAction]:
    """Everything among actions that is no transmission."""
    return [action for action in actions if not isinstance(action, Transmit)]
