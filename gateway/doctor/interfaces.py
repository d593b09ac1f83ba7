"""Interfaces of zones and the way to the Internet: are they there, up, connected, with the right address? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface

from gateway.config import Network, Zone
from gateway.doctor.rows import Row, fail, ok, warn
from gateway.values import value_class


@value_class
class Link:
    """An interface as the kernel has it."""

    index: int
    name: str
    master: int  # index of its bridge; 0 for none
    is_up: bool
    has_carrier: bool
    addresses: tuple[IPv4Interface, ...]  # IPv4 only: the zone's address is one


def judge_zone(zone: Zone, links: Sequence[Link]) -> Row:
    """The interface of a zone."""
    check, name = f"zone {zone.name}: interface", zone.interface
    link = next((link for link in links if link.name == name), None)
    if link is None:
        return fail(
            check,
            f"There is no interface {name}, so the zone has no guests.",
            f"Make the bridge, VLAN or Wi-Fi network {name}, or set option interface of zone {zone.name} to one of: "
            f"{_names(links)}.",
        )
    if not link.is_up:
        return fail(check, f"{name} is switched off.", f"Switch it on: ip link set {name} up.")
    if not link.has_carrier:
        return fail(
            check,
            f"{name} has no carrier: nothing is connected to it.",
            f"Plug in the cable or start the access point behind {name}; a bridge needs at least one port that is up.",
        )
    if zone.address not in link.addresses:
        has = " ".join(map(str, link.addresses)) or "no IPv4 address"
        return fail(
            check,
            f"{name} has {has}, and not {zone.address}, which guests are told is their gateway.",
            f"Put it there (ip address add {zone.address} dev {name}), or let posternd do it: set_addresses '1' in "
            "section network, then postern config reload.",
        )
    return ok(check, f"{name} is up, connected, and has {zone.address}.")


def judge_uplinks(network: Network, links: Sequence[Link], default_routes: Sequence[int]) -> list[Row]:
    """The interfaces that lead to the Internet, and whether a route does."""
    rows = []
    by_name = {link.name: link for link in links}
    for name in network.uplinks:
        check, link = f"uplink {name}", by_name.get(name)
        if link is None:
            remedy = f"Connect the uplink, or set list uplink of section network to one of: {_names(links)}."
            rows.append(fail(check, f"There is no interface {name}; guests have no Internet through it.", remedy))
        elif not link.is_up or not link.has_carrier:
            what = "has no carrier: nothing is connected to it" if link.is_up else "is switched off"
            remedy = f"Plug in its cable, or look at the modem behind it; ip link show {name} tells its state."
            rows.append(fail(check, f"{name} {what}; guests have no Internet through it.", remedy))
        else:
            rows.append(ok(check, f"{name} is up and connected."))
    leads_out = {by_name[name].index for name in network.uplinks if name in by_name}
    if network.uplinks and not any(index in leads_out or index == 0 for index in default_routes):
        elsewhere = [link.name for link in links if link.index in default_routes]
        text = f"The default route leads through {elsewhere[0]}" if elsewhere else "There is no default route"
        remedy = "Get one (DHCP client of the uplink, or ip route add default via …), or name the right uplink."
        uplinks = " ".join(network.uplinks)
        rows.append(warn("default route", f"{text}; guests may leave through {uplinks} only.", remedy))
    elif network.uplinks:
        rows.append(ok("default route", "A default route leads through an uplink."))
    return rows


def _names(links: Sequence[Link]) -> str:
    return ", ".join(sorted(link.name for link in links if link.name != "lo")) or "none is there"
