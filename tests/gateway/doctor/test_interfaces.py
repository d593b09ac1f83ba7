"""Interfaces and the way out, judged from what the kernel would say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from gateway.config import Network, Zone
from gateway.doctor.interfaces import Link, judge_uplinks, judge_zone
from gateway.doctor.rows import State

ZONE = Zone(name="guest", interface="br-guest", address=IPv4Interface("10.41.0.1/24"))
BRIDGE = Link(3, "br-guest", 0, True, True, (ZONE.address,))
WAN = Link(2, "wan0", 0, True, True, (IPv4Interface("198.18.0.2/24"),))


@pytest.mark.parametrize(
    ("links", "state", "words"),
    [
        ([BRIDGE, WAN], State.OK, "has 10.41.0.1/24"),
        ([WAN], State.FAIL, "no interface br-guest"),
        ([replace(BRIDGE, is_up=False)], State.FAIL, "switched off"),
        ([replace(BRIDGE, has_carrier=False)], State.FAIL, "no carrier"),
        ([replace(BRIDGE, addresses=())], State.FAIL, "no IPv4 address"),
        ([replace(BRIDGE, addresses=(IPv4Interface("10.41.0.1/16"),))], State.FAIL, "10.41.0.1/16, and not"),
    ],
)
def test_the_interface_of_a_zone(links: list[Link], state: State, words: str) -> None:
    """It is there, on, connected, and has the address that guests are told; else the row says what is not so."""
    row = judge_zone(ZONE, links)
    assert row.state is state
    assert words in row.text
    assert bool(row.remedy) is (state is State.FAIL)


def test_a_default_route_must_lead_out_of_an_uplink() -> None:
    """Elsewhere or nowhere is a warning; one of several hops is believed."""
    network = Network(uplinks=("wan0",))
    assert [row.state for row in judge_uplinks(network, [BRIDGE, WAN], [2])] == [State.OK, State.OK]
    assert judge_uplinks(network, [WAN], [0])[-1].state is State.OK
    elsewhere = judge_uplinks(network, [BRIDGE, WAN], [3])[-1]
    assert elsewhere.state is State.WARN
    assert "br-guest" in elsewhere.text
    assert "no default route" in judge_uplinks(network, [WAN], [])[-1].text


def test_uplinks_that_are_away_or_unplugged_fail() -> None:
    """Each uplink has its own row."""
    network = Network(uplinks=("wan0", "lte0"))
    unplugged, away, _ = judge_uplinks(network, [replace(WAN, has_carrier=False)], [])
    assert (unplugged.state, away.state) == (State.FAIL, State.FAIL)
    assert "no carrier" in unplugged.text
    assert "no interface lte0" in away.text
