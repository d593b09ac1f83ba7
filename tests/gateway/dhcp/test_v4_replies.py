"""What stands in a reply, and where it goes (RFC 2131 §4.1, §4.3.1, table 3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from gateway.addresses import MacAddress
from gateway.config import Reservation
from gateway.dhcp.v4_codec import BROADCAST_FLAG, Message, MessageType, Op, Option, encode
from gateway.dhcp.v4_events import SendReply, ToClient, ToEveryone, ToRelay
from gateway.dhcp.v4_replies import (
    acknowledgement,
    destination,
    information,
    lease_seconds,
    offer,
    refusal,
    zone_answers,
)
from tests.gateway.dhcp.conversation import GATEWAY, ZONE, ip

MAC = MacAddress.parse("02:00:5e:10:00:01")
ADDRESS = ip("10.41.0.10")
ANSWERS = zone_answers(ZONE, ())


def request(kind: MessageType = MessageType.DISCOVER, **fields: int) -> Message:
    """A client's message with the given header fields."""
    message = Message(Op.REQUEST, kind, 0xABCD, MAC + bytes(10))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_a_reply_answers_the_question_that_was_asked() -> None:
    """Transaction, hardware address, flags and relay come back; hops and secs do not."""
    reply = offer(request(flags=BROADCAST_FLAG, giaddr=5, hops=3, secs=9), ADDRESS, ANSWERS)
    assert (reply.op, reply.xid, reply.chaddr, reply.flags, reply.giaddr) == (2, 0xABCD, MAC + bytes(10), 0x8000, 5)
    assert (reply.hops, reply.secs, reply.ciaddr, reply.yiaddr, reply.siaddr) == (0, 0, 0, ADDRESS, 0)


def test_without_a_list_the_usual_parameters_are_sent() -> None:
    """A client that asks for nothing gets mask, router, resolver, domain and broadcast address, and the times."""
    options = offer(request(), ADDRESS, ANSWERS).options
    assert options == {
        Option.SUBNET_MASK: bytes((255, 255, 255, 0)),
        Option.ROUTER: GATEWAY.packed,
        Option.DNS_SERVERS: GATEWAY.packed,
        Option.DOMAIN_NAME: b"postern.lan",
        Option.BROADCAST_ADDRESS: bytes((10, 41, 0, 255)),
        Option.SERVER_ID: GATEWAY.packed,
        Option.LEASE_TIME: (3600).to_bytes(4, "big"),
        Option.RENEWAL_TIME: (1800).to_bytes(4, "big"),
        Option.REBINDING_TIME: (3150).to_bytes(4, "big"),
    }


def test_the_list_of_parameters_is_honoured() -> None:
    """What is asked for and known is sent; what is not asked for is not, save the mask."""
    zone = replace(ZONE, ntp_servers=(IPv4Address("10.41.0.1"), IPv4Address("192.0.2.7")))
    asked = request()
    asked.options[Option.PARAMETER_LIST] = bytes((42, 15, 33, 42, 119))
    options = offer(asked, ADDRESS, zone_answers(zone, ())).options
    assert options[Option.NTP_SERVERS] == bytes((10, 41, 0, 1, 192, 0, 2, 7))
    assert set(options) == {1, 15, 42, 51, 54, 58, 59}


def test_configured_resolvers_replace_ours() -> None:
    """With resolvers of its own the zone does not name the gateway."""
    zone = replace(ZONE, dns_servers=(IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1")))
    assert offer(request(), ADDRESS, zone_answers(zone, ())).options[6] == bytes((9, 9, 9, 9, 1, 1, 1, 1))


def test_a_reserved_host_name_is_told_to_its_client_only() -> None:
    """The reservation's name goes to that MAC, if asked for."""
    answers = zone_answers(ZONE, (Reservation("tv", "guest", MAC, IPv4Address("10.41.0.40"), "television"),))
    asked = request()
    asked.options[Option.PARAMETER_LIST] = bytes((12,))
    assert offer(asked, ADDRESS, answers).options[12] == b"television"
    other = replace(asked, chaddr=bytes(16))
    assert 12 not in offer(other, ADDRESS, answers).options


def test_identifier_and_relay_information_come_back_in_every_reply() -> None:
    """Options 61 (RFC 6842) and 82 (RFC 3046) are echoed by OFFER, ACK, NAK and the answer to INFORM."""
    asked = request(MessageType.REQUEST)
    asked.options |= {61: b"\x00phone", 82: b"\x01\x04port"}
    replies = (
        offer(asked, 1, ANSWERS),
        acknowledgement(asked, 1, ANSWERS),
        information(asked, ANSWERS),
        refusal(asked, "no", ANSWERS),
    )
    for reply in replies:
        assert reply.options[61] == b"\x00phone"
        assert reply.options[82] == b"\x01\x04port"
    assert 61 not in offer(request(), 1, ANSWERS).options


def test_a_refusal_grants_nothing() -> None:
    """A NAK has no address and no parameter, only who says it and why."""
    reply = refusal(request(MessageType.REQUEST, ciaddr=ADDRESS), "address not available", ANSWERS)
    assert (reply.yiaddr, reply.ciaddr) == (0, 0)
    assert reply.options == {Option.SERVER_ID: GATEWAY.packed, Option.MESSAGE: b"address not available"}


def test_the_answer_to_inform_has_no_lease() -> None:
    """Parameters only: no address, no times (RFC 2131 §4.3.5)."""
    reply = information(request(MessageType.INFORM, ciaddr=ADDRESS), ANSWERS)
    assert (reply.yiaddr, reply.ciaddr) == (0, ADDRESS)
    assert set(reply.options) == {1, 3, 6, 15, 28, 54}


def test_a_client_may_have_a_shorter_lease_but_not_a_silly_one() -> None:
    """Wishes are honoured between two minutes and the zone's lease time; nonsense is no wish."""
    seconds = []
    for wish in (b"", b"\x00\x01", (600).to_bytes(4, "big"), (1).to_bytes(4, "big"), b"\xff" * 4):
        asked = request()
        asked.options[Option.LEASE_TIME] = wish
        seconds.append(lease_seconds(asked, ANSWERS))
    assert seconds == [3600, 3600, 600, 120, 3600]


def test_parameters_that_do_not_fit_are_left_out() -> None:
    """A message never exceeds what the client takes: the last asked for goes first, identity and times stay."""
    zone = replace(ZONE, dns_servers=tuple(IPv4Address(0x09090900 + number) for number in range(60)))
    asked = request()
    asked.options |= {55: bytes((3, 6, 15)), 82: bytes(200)}
    reply = offer(asked, ADDRESS, zone_answers(zone, ()))
    assert set(reply.options) == {1, 3, 15, 51, 54, 58, 59, 82}
    assert len(encode(reply)) <= 548
    asked.options[57] = (1500).to_bytes(2, "big")
    assert 6 in offer(asked, ADDRESS, zone_answers(zone, ())).options


def test_where_replies_go() -> None:
    """To the relay, to everyone, to the address in use, or to the new address by the client's MAC (RFC 2131 §4.1)."""
    mac = bytes(MAC)
    cases = [
        (request(giaddr=ip("10.41.0.2"), flags=BROADCAST_FLAG), ToRelay(ip("10.41.0.2"))),
        (request(ciaddr=ADDRESS), ToClient(mac, ADDRESS)),
        (request(flags=BROADCAST_FLAG), ToEveryone()),
        (request(), ToClient(mac, ADDRESS)),
    ]
    for asked, expected in cases:
        assert destination(asked, acknowledgement(asked, ADDRESS, ANSWERS)) == expected
    asked = request(ciaddr=ADDRESS)
    assert destination(asked, refusal(asked, "no", ANSWERS)) == ToEveryone()


def test_a_relayed_refusal_asks_to_be_broadcast() -> None:
    """The relay must not send a NAK to the address that the client has just lost."""
    asked = request(MessageType.REQUEST, giaddr=ip("10.41.0.2"))
    reply = refusal(asked, "no", ANSWERS)
    assert reply.flags & BROADCAST_FLAG
    assert SendReply(reply, destination(asked, reply)).destination == ToRelay(ip("10.41.0.2"))
