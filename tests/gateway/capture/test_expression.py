"""Filters as people write them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.capture.expression import (
    Address,
    Both,
    Either,
    Ethertype,
    FilterError,
    Mac,
    Not,
    Port,
    Protocol,
    parse,
)

HOST = Address(ip_network("10.0.0.5/32"))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        ("host 10.0.0.5", HOST),
        ("src host 10.0.0.5", Address(ip_network("10.0.0.5/32"), "src")),
        ("net 10.1.2.3/16", Address(ip_network("10.1.0.0/16"))),
        ("dst net fd00::/8", Address(ip_network("fd00::/8"), "dst")),
        ("port 53", Port(53, 53)),
        ("src portrange 1000-2000", Port(1000, 2000, "src")),
        ("mac 02-00-00-00-00-01", Mac(MacAddress.parse("02:00:00:00:00:01"))),
        ("ether host 02:00:00:00:00:01", Mac(MacAddress.parse("02:00:00:00:00:01"))),
        ("ether src 02:00:00:00:00:01", Mac(MacAddress.parse("02:00:00:00:00:01"), "src")),
        ("proto 47", Protocol(47)),
        ("TCP", Protocol(6)),
        ("arp", Ethertype(0x0806)),
        ("not arp", Not(Ethertype(0x0806))),
        ("!arp", Not(Ethertype(0x0806))),
        ("host 10.0.0.5 and tcp or udp", Either(Both(HOST, Protocol(6)), Protocol(17))),
        ("host 10.0.0.5 && (tcp || udp)", Both(HOST, Either(Protocol(6), Protocol(17)))),
    ],
)
def test_a_filter_is_read_as_it_is_meant(text: str, tree: object) -> None:
    """`and` binds stronger than `or`, words have no case, addresses are masked."""
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host", "the filter ends where an address is missing"),
        ("host example.org", "'example.org' is not an IPv4 or IPv6 address"),
        ("host 10.0.0.0/8", "write `net 10.0.0.0/8`"),
        ("port 70000", "'70000' is not a port number"),
        ("port 10-20", "write `portrange 10-20`"),
        ("portrange 20-10", "ends before it begins"),
        ("proto nonsense", "unknown protocol 'nonsense'"),
        ("hots 10.0.0.5", "unknown word 'hots'"),
        ("tcp udp", "cannot go on at 'udp'"),
        ("(tcp", "`)` is missing"),
        ("tcp and", "a term such as"),
        ("src tcp", "src must be followed by"),
        ("mac nonsense", "is not a MAC address"),
        ("not " * 60 + "tcp", "more than 50 levels"),
        ("x" * 3000, "longer than 2000"),
    ],
)
def test_a_wrong_filter_is_answered_with_what_is_wrong(text: str, message: str) -> None:
    """The message names the word and what would be understood."""
    with pytest.raises(FilterError, match=message.replace("(", "\\(").replace(")", "\\)")):
        parse(text)


WORDS = [
    "host",
    "net",
    "port",
    "and",
    "or",
    "not",
    "tcp",
    "src",
    "mac",
    "(",
    ")",
    "10.0.0.1",
    "53",
    "::",
    "!",
    "&&",
    "1-2",
]


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_words_give_a_tree_or_a_filter_error(words: list[str]) -> None:
    """There is no other outcome."""
    try:
        parse(" ".join(words))
    except FilterError:
        return
