"""Disconnect- and CoA-Requests: who is heard, what is checked in which order, what is answered."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Endpoint, Radius, Secret
from gateway.radius.dynauth import (
    Answer,
    ChangeSessions,
    DisconnectSessions,
    DynamicAuthorizer,
    DynauthAction,
    OrderDone,
    ReportDrop,
    RequestReceived,
    SessionsMissing,
)
from gateway.radius.packets import (
    SIGNATURE_SLOT,
    Code,
    Packet,
    Type,
    attribute,
    decode,
    encode_request,
    integer_attribute,
    vendor_attribute,
)
from gateway.radius.session_keys import SessionFacts, SessionKeys, matches
from tests.gateway.radius.build import ADDRESS, MAC, SECRET, UNIX, config, server

SERVER = Endpoint(server().address, 40000)
NAS = IPv4Address("198.51.100.7")
SESSION = attribute(Type.ACCT_SESSION_ID, b"67a1b2c3-0000002a")
TIMEOUT = integer_attribute(27, 600)


def core(radius: Radius | None = None) -> DynamicAuthorizer:
    return DynamicAuthorizer(config(radius=radius), lambda: frozenset({NAS}))


def request(
    *parts: bytes, code: Code = Code.DISCONNECT_REQUEST, ident: int = 44, sign: bool = True, secret: bytes = SECRET
) -> bytes:
    attributes = (SIGNATURE_SLOT if sign else b"") + b"".join(parts)
    return encode_request(code, ident, secret, attributes)[0]


def feed(
    made: DynamicAuthorizer, data: bytes, now: float = 0.0, source: Endpoint = SERVER, unix: float | None = UNIX
) -> list[DynauthAction]:
    return made.receive(RequestReceived(source, data, unix), now)


def answered(actions: list[DynauthAction]) -> Packet:
    (action,) = actions
    assert isinstance(action, Answer)
    assert action.to == SERVER
    return decode(action.data)


def refused(actions: list[DynauthAction], cause: int) -> None:
    packet = answered(actions)
    assert packet.code in (Code.DISCONNECT_NAK, Code.COA_NAK)
    assert packet.integer("Error-Cause") == cause
    assert packet.texts("Reply-Message") != ("",)


def dropped(actions: list[DynauthAction], reason: str) -> None:
    (action,) = actions
    assert isinstance(action, ReportDrop)
    assert action.reason == reason


def test_a_disconnect_is_acknowledged_when_it_is_done() -> None:
    """The order goes out first; the ACK follows the hub's word and names the cause."""
    made = core()
    (order,) = feed(made, request(SESSION))
    assert isinstance(order, DisconnectSessions)
    assert order.keys == SessionKeys(acct_session_id="67a1b2c3-0000002a")
    assert order.by == f"RADIUS server {SERVER.address}"
    ack = answered(made.receive(OrderDone(order.request, True), 0.1))
    assert ack.code == Code.DISCONNECT_ACK
    assert ack.identifier == 44
    assert ack.integer("Acct-Terminate-Cause") == 6
    assert ack.has("Message-Authenticator")


def test_a_disconnect_that_the_kernel_refused_is_not_acknowledged() -> None:
    """The reason goes back in words with Error-Cause 504."""
    made = core()
    (order,) = feed(made, request(SESSION))
    assert isinstance(order, DisconnectSessions)
    refused(made.receive(OrderDone(order.request, False, "the kernel says no"), 0.1), 504)


def test_no_such_session() -> None:
    """Error-Cause 503 for keys that match nobody."""
    made = core()
    (order,) = feed(made, request(SESSION))
    assert isinstance(order, DisconnectSessions)
    refused(made.receive(SessionsMissing(order.request), 0.0), 503)


def test_a_change_is_ordered_and_acknowledged() -> None:
    """A CoA-Request orders exactly what it names."""
    made = core()
    (order,) = feed(made, request(SESSION, TIMEOUT, code=Code.COA_REQUEST))
    assert isinstance(order, ChangeSessions)
    assert order.change.changed == {"session_time_s"}
    assert order.change.limits.session_time_s == 600
    assert answered(made.receive(OrderDone(order.request, True), 0.1)).code == Code.COA_ACK
    (order,) = feed(made, request(SESSION, TIMEOUT, code=Code.COA_REQUEST, ident=45))
    assert isinstance(order, ChangeSessions)
    refused(made.receive(OrderDone(order.request, False, "no"), 0.1), 506)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (request(SESSION)[:-1], "malformed"),
        (request(SESSION, secret=b"guessed1"), "authenticator"),
        (request(SESSION)[:-1] + b"b", "authenticator"),
        (request(attribute(80, b"x" * 16), SESSION, sign=False), "message_authenticator"),
        (request(SESSION, SIGNATURE_SLOT), "malformed"),
        (request(SESSION, code=Code.ACCESS_REQUEST), "code"),
        (request(SESSION, integer_attribute(55, int(UNIX) - 301)), "event_timestamp"),
        (request(SESSION, integer_attribute(55, int(UNIX) + 301)), "event_timestamp"),
        (request(SESSION, attribute(55, b"abc")), "attribute"),
        (request(SESSION, *[attribute(33, b"x" * 253)] * 14), "malformed"),
    ],
)
def test_what_does_not_verify_gets_no_answer(data: bytes, reason: str) -> None:
    """Broken, forged, unsigned and stale requests are dropped without a word, and counted."""
    made = core()
    dropped(feed(made, data), reason)
    assert made.counters == {f"dropped_{reason}": 1}


def test_strangers_get_no_answer() -> None:
    """Only the RADIUS servers may ask, whatever secret is used."""
    dropped(feed(core(), request(SESSION), source=Endpoint(IPv4Address("192.0.2.250"), 1)), "source")


def test_listed_clients_may_ask() -> None:
    """With a list of clients, it alone decides; without a secret for them nothing is believed."""
    network = (IPv4Network("203.0.113.0/24"),)
    client = Endpoint(IPv4Address("203.0.113.5"), 9)
    own = core(Radius(coa_clients=network, coa_secret=Secret("another-secret")))
    (order,) = feed(own, request(SESSION, secret=b"another-secret"), source=client)
    assert isinstance(order, DisconnectSessions)
    dropped(feed(own, request(SESSION, secret=b"another-secret")), "source")
    dropped(feed(core(Radius(coa_clients=network)), request(SESSION), source=client), "secret")


def test_signature_and_timestamp_can_be_demanded() -> None:
    """By option a request without Message-Authenticator or Event-Timestamp is dropped."""
    unsigned = request(SESSION, sign=False)
    assert isinstance(feed(core(), unsigned)[0], DisconnectSessions)
    dropped(feed(core(Radius(coa_require_message_authenticator=True)), unsigned), "message_authenticator")
    dropped(feed(core(Radius(coa_require_event_timestamp=True)), request(SESSION)), "event_timestamp")


def test_without_a_clock_no_timestamp_is_wrong() -> None:
    """A gateway whose clock was never set cannot judge the time."""
    stamped = request(SESSION, integer_attribute(55, 1))
    assert isinstance(feed(core(), stamped, unix=None)[0], DisconnectSessions)


def test_a_repeated_request_happens_once() -> None:
    """The same request gets the same answer for 30 s, also while it is being decided; later it is a new one."""
    made = core()
    data = request(SESSION)
    (order,) = feed(made, data)
    assert isinstance(order, DisconnectSessions)
    assert feed(made, data, 0.1) == []
    first = made.receive(OrderDone(order.request, True), 0.2)
    assert feed(made, data, 30.1) == first
    assert made.counters["duplicate"] == 2
    assert made.deadline() == pytest.approx(30.2)
    made.tick(30.2)
    assert made.deadline() is None
    assert isinstance(feed(made, data, 31.0)[0], DisconnectSessions)


def test_a_recorded_request_cannot_be_used_again_while_its_time_would_pass() -> None:
    """Replayed from another port after minutes, it gets the answer of the first time, and nothing happens."""
    made = core(Radius(coa_window=300))
    stamped = request(attribute(Type.USER_NAME, b"alice"), integer_attribute(Type.EVENT_TIMESTAMP, int(UNIX) + 200))
    (order,) = feed(made, stamped)
    assert isinstance(order, DisconnectSessions)
    (ack,) = made.receive(OrderDone(order.request, True), 0.0)
    assert isinstance(ack, Answer)
    elsewhere = Endpoint(SERVER.address, 40001)
    assert feed(made, stamped, 499.0, elsewhere, UNIX + 499) == [Answer(elsewhere, ack.data)]
    dropped(feed(made, stamped, 501.0, elsewhere, UNIX + 501), "event_timestamp")


def test_a_request_without_a_time_is_another_one_after_half_a_minute() -> None:
    """Whatever else is still remembered: nothing tells it from one that was made anew."""
    made = core()
    for data in (request(SESSION, integer_attribute(Type.EVENT_TIMESTAMP, int(UNIX))), request(SESSION)):
        (order,) = feed(made, data)
        assert isinstance(order, DisconnectSessions)
        made.receive(OrderDone(order.request, True), 0.0)
    assert isinstance(feed(made, request(SESSION), 29.0)[0], Answer)
    assert isinstance(feed(made, request(SESSION), 31.0)[0], DisconnectSessions)


def test_the_memory_of_answers_is_bounded() -> None:
    """Very many requests do not make it grow without end."""
    made = core()
    for number in range(3000):
        feed(made, request(attribute(1, str(number).encode()), integer_attribute(200, 1), ident=number % 256))
    assert len(made._seen) <= 1025


def test_too_many_requests_at_once_are_refused() -> None:
    """While 256 are being decided the next is told that resources are short."""
    made = core()
    for number in range(256):
        assert isinstance(feed(made, request(attribute(1, str(number).encode())))[0], DisconnectSessions)
    refused(feed(made, request(attribute(1, b"more"))), 506)


@pytest.mark.parametrize(
    "wrong",
    [attribute(32, b"another"), attribute(4, b"\x01\x02\x03\x04"), attribute(95, bytes(16))],
)
def test_another_access_server_is_meant(wrong: bytes) -> None:
    """NAS-Identifier and addresses must be ours when they are given."""
    refused(feed(core(), request(SESSION, wrong)), 403)


def test_our_own_names_are_accepted() -> None:
    """Our identifier and address may be given."""
    (order,) = feed(core(), request(SESSION, attribute(32, b"postern"), attribute(4, NAS.packed)))
    assert isinstance(order, DisconnectSessions)


@pytest.mark.parametrize(
    ("parts", "code", "cause"),
    [
        ((), Code.DISCONNECT_REQUEST, 402),
        ((TIMEOUT,), Code.COA_REQUEST, 402),
        ((SESSION,), Code.COA_REQUEST, 402),
        ((SESSION, attribute(44, b"other")), Code.DISCONNECT_REQUEST, 404),
        ((attribute(31, b"no mac"),), Code.DISCONNECT_REQUEST, 407),
        ((attribute(8, b"\x01"),), Code.DISCONNECT_REQUEST, 407),
        ((attribute(97, b"\x00\xff"),), Code.DISCONNECT_REQUEST, 407),
        ((SESSION, integer_attribute(6, 17)), Code.DISCONNECT_REQUEST, 405),
        ((SESSION, TIMEOUT, integer_attribute(6, 17)), Code.COA_REQUEST, 405),
        ((SESSION, TIMEOUT), Code.DISCONNECT_REQUEST, 401),
        ((SESSION, TIMEOUT, integer_attribute(62, 1)), Code.COA_REQUEST, 401),
        ((SESSION, TIMEOUT, vendor_attribute(9, 1, b"x")), Code.COA_REQUEST, 401),
        ((SESSION, attribute(27, b"\x00\x00\x01")), Code.COA_REQUEST, 407),
        ((SESSION, vendor_attribute(14988, 8, b"fast")), Code.COA_REQUEST, 407),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_cause(parts: tuple[bytes, ...], code: Code, cause: int) -> None:
    """Correct requests that cannot be followed get a NAK, and nothing of them happens."""
    refused(feed(core(), request(*parts, code=code)), cause)


def test_state_and_proxy_state_come_back_in_order() -> None:
    """Answers repeat them unchanged (RFC 5176 §3.1)."""
    parts = (SESSION, attribute(33, b"one"), attribute(24, b"state"), attribute(33, b"two"))
    made = core()
    (order,) = feed(made, request(*parts))
    assert isinstance(order, DisconnectSessions)
    ack = answered(made.receive(OrderDone(order.request, True), 0.0))
    assert ack.octets("Proxy-State") == (b"one", b"two")
    assert ack.octets("State") == (b"state",)


def test_all_kinds_of_keys_are_read() -> None:
    """Every attribute that may name a session is understood."""
    (order,) = feed(
        core(),
        request(
            attribute(1, b"alice"), attribute(31, b"0200.5e10.002a"), attribute(8, ADDRESS.packed), SESSION,
            integer_attribute(5, 7), attribute(87, b"br-guest"), attribute(89, b"cui"), attribute(50, b"chain"),
            attribute(168, IPv6Address("2001:db8::1").packed), attribute(97, b"\0\x40\x20\x01\x0d\xb8"),
        ),
    )  # fmt: skip
    assert isinstance(order, DisconnectSessions)
    assert order.keys == SessionKeys(
        "67a1b2c3-0000002a", "chain", "alice", MAC, ADDRESS, IPv6Address("2001:db8::1"),
        IPv6Network("2001:db8::/64"), 7, "br-guest", b"cui",
    )  # fmt: skip


FACTS = SessionFacts("s1", "alice", MAC, ADDRESS, (IPv6Address("2001:db8::1"),), 7, "br-guest", b"cui")


@pytest.mark.parametrize(
    ("keys", "matched"),
    [
        (SessionKeys(acct_session_id="s1"), True),
        (SessionKeys(username="alice", calling_station_id=MAC, framed_ip=ADDRESS, nas_port=7), True),
        (SessionKeys(framed_ipv6=IPv6Address("2001:db8::1"), framed_ipv6_prefix=IPv6Network("2001:db8::/64")), True),
        (SessionKeys(nas_port_id="br-guest", chargeable_user_identity=b"cui"), True),
        (SessionKeys(username="alice", acct_session_id="s2"), False),
        (SessionKeys(username="bob"), False),
        (SessionKeys(framed_ipv6=IPv6Address("2001:db8::2")), False),
        (SessionKeys(framed_ipv6_prefix=IPv6Network("2001:db9::/64")), False),
        (SessionKeys(acct_multi_session_id="s1"), False),
        (SessionKeys(nas_port=0), False),
    ],
)
def test_everything_given_must_match(keys: SessionKeys, matched: bool) -> None:
    """One key that does not fit is enough for another session."""
    assert matches(keys, FACTS) is matched


def test_reconfiguration_changes_who_may_ask() -> None:
    """A reload takes over other secrets at once."""
    made = core()
    made.reconfigure(config(radius=Radius(coa_secret=Secret("another-secret"))))
    dropped(feed(made, request(SESSION)), "authenticator")


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([Code.DISCONNECT_REQUEST, Code.COA_REQUEST]))
def test_any_signed_content_is_answered_or_dropped(content: bytes, code: Code) -> None:
    """Whatever a server with the right secret puts into a request, the process lives."""
    feed(core(), encode_request(code, 1, SECRET, content)[0])


def test_damaged_requests_never_raise() -> None:
    """5,000 seeded damages to a rich request, some signed anew after the damage, are answered or dropped."""
    random = Random(3799)
    made = core()
    parts = (
        SESSION,
        TIMEOUT,
        attribute(31, b"02-00-5E-10-00-2A"),
        attribute(33, b"p"),
        vendor_attribute(14988, 8, b"1M/2M"),
        attribute(97, b"\0\x40\x20\x01\x0d\xb8"),
        integer_attribute(55, int(UNIX)),
    )
    seed = request(*parts, code=Code.COA_REQUEST)
    damages: tuple[Callable[[bytearray], None], ...] = (
        lambda data: data.__setitem__(random.randrange(20, len(data)), random.randrange(256)),
        lambda data: data.__delitem__(slice(random.randrange(20, len(data)), None)),
        lambda data: data.extend(data[random.randrange(20, len(data)) :]),
    )
    for number in range(5_000):
        data = bytearray(seed)
        random.choice(damages)(data)
        content = bytes(data[20:])
        feed(made, bytes(data), float(number))
        feed(made, encode_request(Code.COA_REQUEST, number % 256, SECRET, content)[0], float(number))
    assert sum(made.counters.values()) > 5_000
