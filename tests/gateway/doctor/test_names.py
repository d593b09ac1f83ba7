"""DNS before login: reading answers, and judging them."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, Endpoint, Garden, Zone
from gateway.dns.message import DecodeError, Rcode, Record, RecordType, encode_response, read_question
from gateway.dns.names import CANARIES
from gateway.doctor import names
from gateway.doctor.names import Reply, names_to_ask, read_reply, write_query
from gateway.doctor.rows import State

ZONE = Zone(name="guest", interface="br-guest")
CONFIG = Config(zones=(ZONE,))
PUBLIC = Reply(0, (IPv4Address("198.51.100.7"),))
NOWHERE = Reply(Rcode.NXDOMAIN, ())


def healthy() -> dict[str, Reply | None]:
    """What our resolver says when all is well."""
    replies: dict[str, Reply | None] = dict.fromkeys(names_to_ask(CONFIG), PUBLIC)
    replies |= dict.fromkeys(CANARIES, NOWHERE)
    replies |= dict.fromkeys((CONFIG.dns.portal_name, CONFIG.dns.status_name), Reply(0, (ZONE.address.ip,)))
    return replies


def test_question_and_answer_meet_our_own_codec() -> None:
    """What we ask is a question to the resolver, and its answer is read back."""
    query = write_query("login.postern.lan", 0x1234)
    question = read_question(query)
    address = IPv4Address("10.41.0.1")
    record = Record(question.name, RecordType.A, 30, address.packed)
    assert read_reply(encode_response(query, question, Rcode.NOERROR, answers=(record,))) == (
        0x1234,
        Reply(0, (address,)),
    )
    with pytest.raises(DecodeError):
        read_reply(query)


@given(st.binary(max_size=120))
def test_no_octets_break_the_reader(octets: bytes) -> None:
    """Anybody may answer; what cannot be read is DecodeError."""
    try:
        read_reply(octets)
    except DecodeError:
        pass


def test_all_is_well() -> None:
    """Our names, the canaries and public addresses for the probes."""
    assert [row.state for row in names.judge_zone(CONFIG, ZONE, healthy())] == [State.OK, State.OK]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict.fromkeys(names_to_ask(CONFIG)), "does not answer"),
        ({CONFIG.dns.portal_name: PUBLIC}, "login.postern.lan is 198.51.100.7 instead of 10.41.0.1"),
        ({CONFIG.dns.status_name: None}, "status.postern.lan is not answered"),
        ({CANARIES[0]: PUBLIC}, "use-application-dns.net"),
        (
            {"captive.apple.com": Reply(0, (IPv4Address("192.168.1.1"),))},
            "captive.apple.com is answered with a private",
        ),
        (dict.fromkeys(names_to_ask(CONFIG)[5:], Reply(Rcode.SERVFAIL, ())), "None of the names by which phones"),
    ],
)
def test_what_keeps_phones_from_the_page(changed: dict[str, Reply | None], words: str) -> None:
    """Each is a failure with its reason and remedy."""
    row = names.judge_zone(CONFIG, ZONE, healthy() | changed)[-1]
    assert row.state is State.FAIL
    assert words in row.text
    assert row.remedy


def test_a_garden_that_lets_probes_through_fails() -> None:
    """Only one that opens plain HTTP to this zone does."""
    garden = Garden(name="cdn", networks=(IPv4Network("198.51.100.0/24"),))
    for ports, zone, state in (((80, 443), "", State.FAIL), ((443,), "", State.OK), ((80,), "other", State.OK)):
        config = Config(zones=(ZONE,), gardens=(dataclasses.replace(garden, ports=ports, zone=zone),))
        assert names.judge_zone(config, ZONE, healthy())[-1].state is state


def test_resolvers_that_answer_some_or_none() -> None:
    """None fails, some warn, all are well."""
    one, other = Endpoint(IPv4Address("192.0.2.1"), 53), Endpoint(IPv4Address("192.0.2.2"), 53)
    assert names.judge_upstreams({one: PUBLIC, other: PUBLIC}).state is State.OK
    assert names.judge_upstreams({one: PUBLIC, other: None}).state is State.WARN
    row = names.judge_upstreams({one: Reply(Rcode.REFUSED, ()), other: None})
    assert row.state is State.FAIL
    assert "192.0.2.1:53 (refused)" in row.text
    assert names.judge_upstreams({}).state is State.FAIL
