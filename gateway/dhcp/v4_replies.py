"""Building DHCPv4 replies: which fields and options, and where they are sent (RFC 2131 §4.1, §4.3.1, table 3).

A reply is made by an ordered tuple of small functions, each adding to the reply what it stands for. Pure functions of
request and zone; which reply a request deserves is decided in `v4_server`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Final, NamedTuple

from gateway.config import Reservation, Zone
from gateway.dhcp.v4_codec import (
    BROADCAST_FLAG,
    HEADER_OCTETS,
    Message,
    MessageType,
    Op,
    Option,
    options_octets,
    read_word,
    write_addresses,
    write_host_name,
    write_word,
)
from gateway.dhcp.v4_events import Destination, ToClient, ToEveryone, ToRelay
from gateway.values import value_class

SHORTEST_LEASE_S: Final = 120
"""A client may ask for less than the zone's lease time, not for less than this: some phones break, and each renewal
costs."""

_SMALLEST_MAXIMUM: Final = 576  # octets of the IP datagram that every client takes (RFC 2131 §2)
_LARGEST_DATAGRAM: Final = 1500  # we never fragment
_IP_UDP_OCTETS: Final = 28
_FRAME_OPTIONS: Final = 4  # option 53 and End, which Message.options do not hold
_DEFAULT_PARAMETERS: Final = bytes((Option.ROUTER, Option.DNS_SERVERS, Option.DOMAIN_NAME, Option.BROADCAST_ADDRESS))


_SELECTIONS_KEPT: Final = 256
"""There are a few dozen kinds of clients, each with its own list of parameters; invented lists must not fill memory."""


class Selection(NamedTuple):
    """The parameters that one list asks for, in its order, and the octets they take."""

    options: dict[int, bytes]
    octets: int


@value_class
class ZoneAnswers:
    """What a zone tells its clients, encoded once."""

    server_id: bytes
    subnet_mask: bytes
    lease_time_s: int
    times: dict[int, bytes]  # the three options of a lease of that time
    parameters: dict[int, bytes]  # options sent when asked for
    host_names: dict[bytes, bytes]  # by MAC
    selections: dict[bytes, Selection] = field(default_factory=dict)  # by parameter list, as far as seen


def zone_answers(zone: Zone, reservations: tuple[Reservation, ...]) -> ZoneAnswers:
    """Encode what the zone's configuration says."""
    network = zone.address.network
    parameters = {
        int(Option.ROUTER): zone.address.ip.packed,
        int(Option.DNS_SERVERS): write_addresses(zone.dns_servers or (zone.address.ip,)),
        int(Option.DOMAIN_NAME): write_host_name(zone.domain),
        int(Option.BROADCAST_ADDRESS): network.broadcast_address.packed,
        int(Option.NTP_SERVERS): write_addresses(zone.ntp_servers),
    }
    return ZoneAnswers(
        server_id=zone.address.ip.packed,
        subnet_mask=network.netmask.packed,
        lease_time_s=zone.lease_time,
        times=_time_options(zone.lease_time),
        parameters={code: value for code, value in parameters.items() if value},
        host_names={
            reservation.mac: write_host_name(reservation.hostname)
            for reservation in reservations
            if reservation.hostname and reservation.zone == zone.name
        },
    )


def lease_seconds(request: Message, answers: ZoneAnswers) -> int:
    """The zone's lease time, or less if the client asks for less."""
    sent = request.options.get(Option.LEASE_TIME)
    wish = None if sent is None else read_word(sent)
    if wish is None or wish >= answers.lease_time_s:
        return answers.lease_time_s
    return max(wish, min(SHORTEST_LEASE_S, answers.lease_time_s))


def offer(request: Message, address: int, answers: ZoneAnswers) -> Message:
    """A DHCPOFFER of an address."""
    return _build(request, MessageType.OFFER, address, answers, _LEASE_PARTS)


def acknowledgement(request: Message, address: int, answers: ZoneAnswers) -> Message:
    """A DHCPACK that binds an address."""
    return _build(request, MessageType.ACK, address, answers, _LEASE_PARTS)


def information(request: Message, answers: ZoneAnswers) -> Message:
    """A DHCPACK to DHCPINFORM: parameters without an address or lease (RFC 2131 §4.3.5)."""
    return _build(request, MessageType.ACK, 0, answers, _INFORM_PARTS)


def refusal(request: Message, sentence: str, answers: ZoneAnswers) -> Message:
    """A DHCPNAK; the sentence is for whoever reads the client's log."""
    reply = _build(request, MessageType.NAK, 0, answers, _NAK_PARTS)
    reply.options[Option.MESSAGE] = sentence.encode("ascii", "replace")
    return reply


def destination(request: Message, reply: Message) -> Destination:
    """Where a reply goes (RFC 2131 §4.1)."""
    if request.giaddr:
        return ToRelay(request.giaddr)
    if reply.kind is MessageType.NAK:
        return ToEveryone()
    if request.ciaddr:
        return ToClient(request.chaddr[:6], request.ciaddr)
    if request.flags & BROADCAST_FLAG:
        return ToEveryone()
    return ToClient(request.chaddr[:6], reply.yiaddr)


def _identity(request: Message, reply: Message, answers: ZoneAnswers) -> None:
    """Who answers, and to whom: the client's identifier comes back in every reply (RFC 6842 §3)."""
    reply.options[Option.SERVER_ID] = answers.server_id
    client_id = request.options.get(Option.CLIENT_ID)
    if client_id is not None:
        reply.options[Option.CLIENT_ID] = client_id


def _times(request: Message, reply: Message, answers: ZoneAnswers) -> None:
    """Life of the lease; renewal at half of it, rebinding at seven eighths (RFC 2131 §4.4.5)."""
    seconds = lease_seconds(request, answers)
    reply.options |= answers.times if seconds == answers.lease_time_s else _time_options(seconds)


def _time_options(seconds: int) -> dict[int, bytes]:
    return {
        int(Option.LEASE_TIME): write_word(seconds),
        int(Option.RENEWAL_TIME): write_word(seconds // 2),
        int(Option.REBINDING_TIME): write_word(seconds * 7 // 8),
    }


def _relay_agent(request: Message, reply: Message, answers: ZoneAnswers) -> None:
    """What a relay added comes back unchanged (RFC 3046 §2.2)."""
    information = request.options.get(Option.RELAY_AGENT)
    if information is not None:
        reply.options[Option.RELAY_AGENT] = information


def _parameters(request: Message, reply: Message, answers: ZoneAnswers) -> None:
    """What the client asks for, in its order, as long as there is room; the usual four if it does not say.

    The subnet mask is always sent: without it a client would guess one from the address class.
    """
    options = reply.options
    options[Option.SUBNET_MASK] = answers.subnet_mask
    wanted = request.options.get(Option.PARAMETER_LIST, _DEFAULT_PARAMETERS)
    if answers.host_names and Option.HOST_NAME in wanted:
        name = answers.host_names.get(request.chaddr[:6])
        if name is not None:
            options[Option.HOST_NAME] = name
    selection = answers.selections.get(wanted) or _select(wanted, answers)
    room = _room(request) - options_octets(options)
    if selection.octets <= room:
        options |= selection.options
        return
    for code, value in selection.options.items():
        if len(value) + 2 <= room:
            options[code] = value
            room -= len(value) + 2


def _select(wanted: bytes, answers: ZoneAnswers) -> Selection:
    """What a parameter list comes to; remembered, since the same few lists come again and again."""
    options = {code: answers.parameters[code] for code in wanted if code in answers.parameters}
    selection = Selection(options, options_octets(options))
    if len(answers.selections) >= _SELECTIONS_KEPT:
        answers.selections.clear()
    answers.selections[wanted] = selection
    return selection


def _room(request: Message) -> int:
    """Octets for options in the largest message that the client takes (RFC 2132 §9.10)."""
    wish = request.options.get(Option.MAXIMUM_SIZE)
    if wish is None:
        datagram = _SMALLEST_MAXIMUM
    else:
        datagram = min(max(int.from_bytes(wish[:2], "big"), _SMALLEST_MAXIMUM), _LARGEST_DATAGRAM)
    return datagram - _IP_UDP_OCTETS - HEADER_OCTETS - _FRAME_OPTIONS


_Part = Callable[[Message, Message, ZoneAnswers], None]
_LEASE_PARTS: Final[tuple[_Part, ...]] = (_identity, _times, _relay_agent, _parameters)
_INFORM_PARTS: Final[tuple[_Part, ...]] = (_identity, _relay_agent, _parameters)
_NAK_PARTS: Final[tuple[_Part, ...]] = (_identity, _relay_agent)


def _build(
    request: Message, kind: MessageType, address: int, answers: ZoneAnswers, parts: tuple[_Part, ...]
) -> Message:
    """The fixed fields by RFC 2131 table 3, then each part in turn."""
    flags = request.flags
    ciaddr = request.ciaddr
    if kind is MessageType.NAK:
        ciaddr = 0
        if request.giaddr:
            flags |= BROADCAST_FLAG  # the relay must not send it to an address the client has lost (RFC 2131 §4.3.2)
    elif kind is MessageType.OFFER:
        ciaddr = 0
    reply = Message(
        op=Op.REPLY,
        kind=kind,
        xid=request.xid,
        chaddr=request.chaddr,
        htype=request.htype,
        hlen=request.hlen,
        flags=flags,
        ciaddr=ciaddr,
        yiaddr=address,
        giaddr=request.giaddr,
    )
    for part in parts:
        part(request, reply, answers)
    return reply
