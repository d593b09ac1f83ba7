"""The question for other DHCP servers, their answers, and the rows about addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.config import Dhcp, Zone
from gateway.dhcp.frames import build_datagram, read_datagram
from gateway.dhcp.v4_codec import DecodeError, decode, encode
from gateway.dhcp.v4_events import PacketReceived, SendReply
from gateway.dhcp.v4_server import DhcpServer
from gateway.doctor.dhcp_servers import (
    Asked,
    Offer,
    judge_listening,
    judge_pool,
    judge_segment,
    read_offer,
    write_discover,
)
from gateway.doctor.rows import State

ZONE = Zone(name="guest", interface="br-guest")
CLIENT, OURS = MacAddress(b"\x02\0\x5e\x10\0\x2a"), MacAddress(b"\x02\0\x5e\0\0\1")
XID = 0x12345678
OTHER = Offer(IPv4Address("192.168.77.1"), CLIENT, IPv4Address("192.168.77.20"), None)


def test_our_own_server_answers_the_question_and_the_answer_is_read() -> None:
    """The question is a real DHCPDISCOVER, and an offer that a server makes of it is recognised by its number."""
    datagram = read_datagram(write_discover(CLIENT, XID))
    assert datagram.source_mac == CLIENT
    server = DhcpServer(ZONE, Dhcp(probe=False), ())
    replies = [
        action
        for action in server.receive(PacketReceived(decode(datagram.payload), datagram.source_mac), 0.0)
        if isinstance(action, SendReply)
    ]
    assert len(replies) == 1
    frame = build_datagram(OURS, int(ZONE.address.ip), b"\xff" * 6, 0xFFFFFFFF, encode(replies[0].message))
    found = read_offer(frame, XID)
    assert found is not None
    assert (found.server, found.server_mac, found.router) == (ZONE.address.ip, OURS, ZONE.address.ip)
    assert read_offer(frame, XID + 1) is None, "the answer to somebody else's question"


@given(st.binary(max_size=400))
def test_no_frame_breaks_the_reader(frame: bytes) -> None:
    """What is no DHCP message is DecodeError."""
    try:
        read_offer(frame, XID)
    except DecodeError:
        pass


def test_others_are_told_with_address_and_mac_and_we_are_not_others() -> None:
    """Our own answer on a looped segment is ours; our address at another MAC is somebody else's."""
    row = judge_segment(ZONE, Asked((OTHER,)), OURS)
    assert row.state is State.FAIL
    assert "192.168.77.1 (02:00:5e:10:00:2a), which offers 192.168.77.20" in row.text
    own = replace(OTHER, server=ZONE.address.ip, server_mac=OURS)
    assert judge_segment(ZONE, Asked((own,)), OURS).state is State.OK
    assert judge_segment(ZONE, Asked((replace(own, server_mac=CLIENT),)), OURS).state is State.FAIL
    assert judge_segment(ZONE, Asked(), OURS).state is State.OK
    assert judge_segment(ZONE, Asked(trouble="not permitted"), OURS).state is State.SKIPPED


@pytest.mark.parametrize(
    ("bound", "size", "state"),
    [(0, 10, State.OK), (8, 10, State.OK), (9, 10, State.WARN), (10, 10, State.FAIL), (0, 0, State.FAIL)],
)
def test_a_pool_that_runs_out(bound: int, size: int, state: State) -> None:
    """Nine tenths warn, all fail."""
    assert judge_pool(ZONE, bound, size).state is state


def test_a_zone_without_a_server_fails() -> None:
    """Each zone is told by itself."""
    assert judge_listening([ZONE], {"guest": True})[0].state is State.OK
    assert judge_listening([ZONE], {"guest": False})[0].state is State.FAIL
