"""Names that the gateway answers itself."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.dns.message import Rcode, read_question
from gateway.dns.names import LocalAnswer, LocalKind, LocalNames
from tests.gateway.dns.messages import query, wire_name

NAMES = LocalNames(
    ("login.postern.lan", "status.postern.lan"),
    {"guest": IPv4Address("10.41.0.1"), "hall": IPv4Address("203.0.114.1")},
    30,
)


def ask(name: str, type_: int = 1, *, zone: str = "guest", class_: int = 1) -> LocalAnswer | None:
    """Ask the table."""
    return NAMES.answer(zone, read_question(query(name, type_, class_=class_)))


@pytest.mark.parametrize("name", ["login.postern.lan", "STATUS.postern.LAN"])
def test_the_portals_names_have_the_address_of_the_zone_that_asks(name: str) -> None:
    """Each zone reaches the portal at its own gateway address."""
    for zone, address in (("guest", "10.41.0.1"), ("hall", "203.0.114.1")):
        answer = ask(name, zone=zone)
        assert answer is not None
        assert answer.kind is LocalKind.PORTAL
        assert [(record.type, record.ttl_s, record.rdata) for record in answer.answers] == [
            (1, 30, IPv4Address(address).packed)
        ]


@pytest.mark.parametrize("type_", [28, 65, 16])
def test_the_portals_name_has_nothing_but_an_ipv4_address(type_: int) -> None:
    """AAAA, HTTPS and others are NODATA: no error, no answer, an SOA so that it is remembered."""
    answer = ask("login.postern.lan", type_)
    assert answer is not None
    assert (answer.rcode, answer.answers) == (Rcode.NOERROR, ())
    assert [record.type for record in answer.authority] == [6]


@pytest.mark.parametrize(
    "name", ["use-application-dns.net", "mask.icloud.com", "MASK-h2.icloud.com", "x.mask.icloud.com"]
)
@pytest.mark.parametrize("type_", [1, 28, 65])
def test_canaries_do_not_exist(name: str, type_: int) -> None:
    """NXDOMAIN for every type keeps browsers and phones from encrypting their DNS past the portal."""
    answer = ask(name, type_)
    assert answer is not None
    assert (answer.kind, answer.rcode) == (LocalKind.CANARY, Rcode.NXDOMAIN)


@pytest.mark.parametrize(
    "name",
    [
        "77.1.168.192.in-addr.arpa",
        "1.0.0.10.in-addr.arpa",
        "9.9.31.172.in-addr.arpa",
        "9.9.127.100.in-addr.arpa",
        "1.0.0.0.8.e.f.ip6.arpa",
        "a.d.f.ip6.arpa",
        "printer.local",
        "anything.invalid",
        "abc.onion",
        "host.login.postern.lan",
    ],
)
def test_private_and_special_names_do_not_leave_the_box(name: str) -> None:
    """NXDOMAIN at once instead of a question that no public resolver can answer."""
    answer = ask(name, 12)
    assert answer is not None
    assert answer.rcode is Rcode.NXDOMAIN
    assert answer.authority


@pytest.mark.parametrize(
    "name",
    [
        "icloud.com",
        "notmask.icloud.com",
        "use-application-dns.net.example",
        "8.8.8.8.in-addr.arpa",
        "9.9.32.172.in-addr.arpa",
        "9.9.128.100.in-addr.arpa",
        "postern.lan",
        "other.lan",
        "www.example.test",
        "",
    ],
)
def test_every_other_name_is_forwarded(name: str) -> None:
    """Neighbours of our names are not ours."""
    assert ask(name) is None


def test_another_class_is_forwarded() -> None:
    """CHAOS questions are none of our names."""
    assert ask("login.postern.lan", class_=3) is None


def test_localhost_is_the_client_itself() -> None:
    """RFC 6761: loopback addresses, also below."""
    a, aaaa = ask("localhost"), ask("x.localhost", 28)
    assert a is not None
    assert aaaa is not None
    assert a.answers[0].rdata == bytes((127, 0, 0, 1))
    assert aaaa.answers[0].rdata == bytes(15) + b"\x01"


@pytest.mark.parametrize(("zone", "name"), [("guest", "1.0.41.10.in-addr.arpa"), ("hall", "1.114.0.203.in-addr.arpa")])
def test_the_gateways_address_has_the_portals_name(zone: str, name: str) -> None:
    """A reverse query for the zone's own gateway names the portal, private prefix or not."""
    answer = ask(name, 12, zone=zone)
    assert answer is not None
    assert [record.rdata for record in answer.answers] == [wire_name("login.postern.lan")]


def test_a_zone_that_was_removed_gets_no_address() -> None:
    """A connection that outlives its zone gets an empty answer, not an error of ours."""
    answer = ask("login.postern.lan", zone="gone")
    assert answer is not None
    assert (answer.rcode, answer.answers) == (Rcode.NOERROR, ())
