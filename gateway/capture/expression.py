"""Capture filters as people write them: `host 10.0.0.5 and (tcp or udp) and not port 22`, as a tree.

The language is the part of pcap-filter(7) that a gateway's operator needs: `host`, `net`, `port`, `portrange`, `mac`
(also `ether host`), `proto`, and the bare words `ip`, `ip6`, `arp`, `tcp`, `udp`, `icmp`, `icmp6`, `sctp`, `gre`,
`esp`, `igmp`; `src` and `dst` before host, net, port and mac; `and`, `or`, `not`, parentheses. Nothing is resolved by
name. `kernel_filter` turns the tree into what the kernel runs.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Literal

from gateway.addresses import MacAddress
from gateway.values import value_class

Side = Literal["src", "dst", "either"]
PROTOCOLS: Final = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "sctp": 132,
}
ETHERTYPES: Final = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "eapol": 0x888E}
LONGEST: Final = 2000  # characters; longer filters do not fit the kernel's program limit anyway


class FilterError(ValueError):
    """The filter text is wrong; the message says where and what would be understood."""


@value_class
class Address:
    """A host or network, on one side or either."""

    network: IPv4Network | IPv6Network
    side: Side = "either"


@value_class
class Port:
    """A range of TCP, UDP or SCTP ports, on one side or either."""

    first: int
    last: int
    side: Side = "either"


@value_class
class Mac:
    """A hardware address, on one side or either."""

    address: MacAddress
    side: Side = "either"


@value_class
class Protocol:
    """An IP protocol number, in IPv4 or IPv6."""

    number: int


@value_class
class Ethertype:
    """What the link layer says is inside."""

    number: int


@value_class
class Not:
    """Everything but."""

    operand: Expression


@value_class
class Both:
    """Left and right."""

    left: Expression
    right: Expression


@value_class
class Either:
    """Left or right."""

    left: Expression
    right: Expression


Expression = Address | Port | Mac | Protocol | Ethertype | Not | Both | Either


def parse(text: str) -> Expression | None:
    """Read a filter; `None` for an empty one, which lets everything pass. Raises FilterError."""
    if len(text) > LONGEST:
        raise FilterError(f"the filter is longer than {LONGEST} characters")
    words = re.findall(r"[()!]|&&|\|\||[^\s()!&|]+", text.lower())
    if not words:
        return None
    reader = _Words(words)
    tree = _alternatives(reader, 0)
    if reader.peek() is not None:
        raise FilterError(f"cannot go on at {reader.peek()!r}: expected `and`, `or` or the end of the filter")
    return tree


class _Words:
    """The words of a filter, read from left to right."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0

    def peek(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def take(self, wanted: str) -> str:
        word = self.peek()
        if word is None:
            raise FilterError(f"the filter ends where {wanted} is missing")
        self._at += 1
        return word


def _alternatives(words: _Words, depth: int) -> Expression:
    tree = _conjunction(words, depth)
    while words.peek() in {"or", "||"}:
        words.take("or")
        tree = Either(tree, _conjunction(words, depth))
    return tree


def _conjunction(words: _Words, depth: int) -> Expression:
    tree = _factor(words, depth)
    while words.peek() in {"and", "&&"}:
        words.take("and")
        tree = Both(tree, _factor(words, depth))
    return tree


def _factor(words: _Words, depth: int) -> Expression:
    if depth > 50:
        raise FilterError("more than 50 levels of parentheses and `not`")
    if words.peek() in {"not", "!"}:
        words.take("not")
        return Not(_factor(words, depth + 1))
    if words.peek() == "(":
        words.take("(")
        tree = _alternatives(words, depth + 1)
        if words.take("`)`") != ")":
            raise FilterError("a parenthesis is not closed")
        return tree
    return _term(words)


def _term(words: _Words) -> Expression:
    word = words.take("a term such as `host 10.0.0.5`")
    side: Side = "either"
    if word in {"src", "dst"}:
        side = "src" if word == "src" else "dst"
        word = words.take("host, net, port or mac")
    if word == "ether":
        word = words.take("host")
        if word in {"src", "dst"}:
            side = "src" if word == "src" else "dst"
            if words.peek() == "host":
                words.take("host")
        return Mac(_mac(words.take("a MAC address")), side)
    if word in {"host", "net"}:
        return Address(_network(words.take("an address"), word), side)
    if word in {"port", "portrange"}:
        first, last = _ports(words.take("a port number"), word)
        return Port(first, last, side)
    if word == "mac":
        return Mac(_mac(words.take("a MAC address")), side)
    if side != "either":
        raise FilterError(f"{side} must be followed by host, net, port or mac, not by {word!r}")
    if word == "proto":
        value = words.take("a protocol")
        if value in PROTOCOLS:
            return Protocol(PROTOCOLS[value])
        if value.isascii() and value.isdigit() and int(value) < 256:
            return Protocol(int(value))
        raise FilterError(f"unknown protocol {value!r}; known are {', '.join(PROTOCOLS)} and numbers below 256")
    if word in PROTOCOLS:
        return Protocol(PROTOCOLS[word])
    if word in ETHERTYPES:
        return Ethertype(ETHERTYPES[word])
    raise FilterError(
        f"unknown word {word!r}; a term is host A, net A/N, port N, portrange N-M, mac M, proto P, "
        f"or one of {', '.join([*ETHERTYPES, *PROTOCOLS])}"
    )


def _mac(text: str) -> MacAddress:
    try:
        return MacAddress.parse(text)
    except ValueError as err:
        raise FilterError(str(err)) from err


def _network(text: str, word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise FilterError(f"{text!r} is not an IPv4 or IPv6 {'address' if word == 'host' else 'network'}") from None
    if word == "host" and network.prefixlen != network.max_prefixlen:
        raise FilterError(f"{text!r} is a network; write `net {text}`")
    return network


def _ports(text: str, word: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if word == "port" and dash:
        raise FilterError(f"{text!r} is a range; write `portrange {text}`")
    numbers = (low, high) if dash else (low, low)
    if not all(number.isascii() and number.isdigit() and int(number) < 65536 for number in numbers):
        raise FilterError(f"{text!r} is not a port number from 0 to 65535")
    first, last = int(numbers[0]), int(numbers[1])
    if last < first:
        raise FilterError(f"the range {text!r} ends before it begins")
    return first, last
