"""Names before login: does our resolver answer as phones need it, and do those that it asks answer it? Pure.

Without DNS a phone does not even try its probe, so the login page never appears (RFC 8952 §2; `login_pages`). The names
of the probes are asked too: an answer with a private address reads as "no Internet", and one within a walled garden
lets the probe through, so that the phone believes to be online.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from gateway.config import Config, Endpoint, Garden, Zone
from gateway.dns.message import (
    CLASS_IN,
    DecodeError,
    Rcode,
    RecordType,
    decode_name,
    encode_name,
    is_response,
    parse_name,
    rcode,
    read_question,
)
from gateway.dns.names import CANARIES
from gateway.doctor.login_pages import PROBES
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

ASKED_UPSTREAM: Final = "connectivitycheck.gstatic.com"
_RECURSION_DESIRED: Final = 0x01
_PRIVATE: Final = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
)


@value_class
class Reply:
    """An answer to one question for an address."""

    code: int
    addresses: tuple[IPv4Address, ...]
    took_s: float = 0.0


Replies = Mapping[str, Reply | None]
"""Answers by name; None where none came in time."""


def names_to_ask(config: Config) -> tuple[str, ...]:
    """What is asked of our own resolver in a zone."""
    probes = dict.fromkeys(probe.host for probe in PROBES)
    return (config.dns.portal_name, config.dns.status_name, *CANARIES, *probes)


def write_query(name: str, query_id: int) -> bytes:
    """A question for the IPv4 address of a name (RFC 1035 §4.1)."""
    head = query_id.to_bytes(2) + bytes((_RECURSION_DESIRED, 0)) + b"\0\1" + bytes(6)
    return head + encode_name(parse_name(name)) + RecordType.A.to_bytes(2) + CLASS_IN.to_bytes(2)


def read_reply(message: bytes) -> tuple[int, Reply]:
    """The id and content of an answer; raises DecodeError."""
    question = read_question(message)
    if not is_response(message):
        raise DecodeError("a query came where an answer should be")
    addresses = []
    offset = question.end
    for _ in range(int.from_bytes(message[6:8])):
        _, offset = decode_name(message, offset)
        if offset + 10 > len(message):
            raise DecodeError("a record is cut off")
        kind, length = int.from_bytes(message[offset : offset + 2]), int.from_bytes(message[offset + 8 : offset + 10])
        offset += 10
        if offset + length > len(message):
            raise DecodeError("a record's data runs past the end of the message")
        if kind == RecordType.A and length == 4:
            addresses.append(IPv4Address(message[offset : offset + 4]))
        offset += length
    return int.from_bytes(message[:2]), Reply(rcode(message), tuple(addresses))


def judge_zone(config: Config, zone: Zone, replies: Replies) -> list[Row]:
    """What our resolver said in a zone."""
    check = f"zone {zone.name}: DNS before login"
    where = Endpoint(zone.address.ip, 53)
    if not any(replies.values()):
        remedy = (
            "See which program has port 53 (row ports), or restart posternd; on OpenWrt keep dnsmasq off "
            f"{zone.interface} (list notinterface)."
        )
        return [fail(check, f"Our resolver does not answer at {where}: phones never show the login page.", remedy)]
    wrong = []
    for name in (config.dns.portal_name, config.dns.status_name):
        reply = replies.get(name)
        if reply is None or zone.address.ip not in reply.addresses:
            wrong.append(f"{name} is {_said(reply)} instead of {zone.address.ip}")
    for name in CANARIES:
        reply = replies.get(name)
        if reply is None or reply.code != Rcode.NXDOMAIN:
            wrong.append(f"{name} is {_said(reply)} instead of a name that does not exist")
    if wrong:
        remedy = "Another resolver answers at this address: see the row ports, and let posternd alone have port 53."
        return [fail(check, f"The answers at {where} are not ours: {'; '.join(wrong)}.", remedy)]
    return [
        ok(check, f"The resolver answers at {where}, with the portal's names and the canaries."),
        *_judge_probes(config, zone, replies),
    ]


def _judge_probes(config: Config, zone: Zone, replies: Replies) -> list[Row]:
    check = f"zone {zone.name}: names of probes"
    hosts = dict.fromkeys(probe.host for probe in PROBES)
    known = {host: reply.addresses for host in hosts if (reply := replies.get(host)) is not None and reply.addresses}
    if not known:
        return [
            fail(
                check,
                "None of the names by which phones look for the Internet is answered: they show no login page.",
                "See that the resolvers of list upstream (section dns) answer, and that the uplink is connected.",
            )
        ]
    private = [host for host, found in known.items() if any(address in net for address in found for net in _PRIVATE)]
    if private:
        return [
            fail(
                check,
                f"{', '.join(private)} is answered with a private address, which phones take for no Internet at all.",
                "Ask another resolver (list upstream in section dns), or take the name off its block list.",
            )
        ]
    gardens = [garden for garden in config.gardens if garden.zone in ("", zone.name)]
    through = {
        f"{host} (garden {garden.name})" for host, found in known.items() for garden in gardens if _opens(garden, found)
    }
    if through:
        return [
            fail(
                check,
                f"A walled garden lets probes through before login: {', '.join(sorted(through))}. Those phones believe "
                "to be online and show no login page.",
                "Take these addresses out of the garden, or open its ports other than 80.",
            )
        ]
    return [ok(check, f"{len(known)} of {len(hosts)} names by which phones look for the Internet have public answers.")]


def _opens(garden: Garden, addresses: Sequence[IPv4Address]) -> bool:
    """Whether a garden opens plain HTTP to one of these addresses."""
    if garden.protocol == "udp" or (garden.protocol == "tcp" and 80 not in garden.ports):
        return False
    return any(
        address in network for network in garden.networks if isinstance(network, IPv4Network) for address in addresses
    )


def judge_upstreams(replies: Mapping[Endpoint, Reply | None]) -> Row:
    """The resolvers that are asked for guests."""
    check = "resolvers"
    if not replies:
        return fail(
            check,
            "There is no resolver to ask: resolv.conf names none but ourselves.",
            "Name one in section dns (list upstream '9.9.9.9'), or let the uplink's DHCP client set one.",
        )
    silent = [str(endpoint) for endpoint, reply in replies.items() if reply is None]
    refusing = [
        f"{endpoint} ({_said(reply)})"
        for endpoint, reply in replies.items()
        if reply is not None and not reply.addresses
    ]
    bad = silent + refusing
    remedy = (
        "See that the uplink is connected and lets DNS out (UDP and TCP 53), or name other resolvers in section dns."
    )
    if len(bad) == len(replies):
        return fail(check, f"No resolver answers: {', '.join(bad)}. Guests have no names, and phones no page.", remedy)
    if bad:
        return warn(check, f"Some resolvers do not answer: {', '.join(bad)}. The others are asked.", remedy)
    slowest = max(reply.took_s for reply in replies.values() if reply is not None)
    return ok(check, f"{', '.join(map(str, replies))} answer in {slowest * 1000:.0f} ms at most.")


def nothing_to_ask() -> Row:
    """Without a zone nobody asks."""
    return skipped("zones", "No zone is configured, so there are no guests.", "Add a config zone section.")


def _said(reply: Reply | None) -> str:
    if reply is None:
        return "not answered"
    if reply.addresses:
        return " ".join(map(str, reply.addresses))
    return _CODES.get(reply.code, f"answered with code {reply.code}")


_CODES: Final = {
    int(Rcode.NOERROR): "answered without an address",
    int(Rcode.SERVFAIL): "answered with a failure",
    int(Rcode.NXDOMAIN): "said not to exist",
    int(Rcode.REFUSED): "refused",
}
