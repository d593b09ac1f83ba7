"""What of the system around our table is ours to set: sysctls, zone addresses, the guards, isolation of bridge ports.

The guard is the routing rule that keeps the gate shut without our table: `iif <guest> fwmark 0/0xffffffff prohibit`.
Our table marks everything that it lets into routing, so with the table gone nothing of a guest's is forwarded. The rule
stands behind that of the local table (priority 0): what this box itself offers stays reachable, and ARP works.

All of it is a desired state: `apply` may be called again at any time and changes only what differs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from gateway.config import Config
from gateway.datapath.netlink import Guard, Link, Netlink, NetlinkRefused

log = logging.getLogger(__name__)

_PROC = Path("/proc/sys/net")


class Base:
    """Holds the system to what the configuration says."""

    def __init__(self, netlink: Netlink, config: Config) -> None:
        self._netlink = netlink
        self._config = config

    async def apply(self) -> list[str]:
        """Set what differs; returns what could not be done, each a sentence with its remedy."""
        network = self._config.network
        zones = self._config.zones
        problems: list[str] = []
        await self._guard({Guard(zone.interface, version) for zone in zones for version in (4, 6)}, problems)
        wanted = wanted_sysctls(self._config)
        problems += [problem for path, value in wanted if (problem := write_sysctl(path, value)) is not None]
        links = await self._netlink.links()
        by_name = {link.name: link for link in links}
        for zone in zones:
            link = by_name.get(zone.interface)
            if link is None:
                problems.append(
                    f"zone {zone.name}: the interface {zone.interface} does not exist; "
                    "its guests are served as soon as it does"
                )
                continue
            if network.set_addresses:
                await self._address(link, zone.address, problems)
            if zone.isolate:
                await self._isolate(link, links, problems)
            else:
                await self._release(link, links)  # isolated by an earlier start with another configuration
        problems += [
            f"the uplink {uplink} does not exist; guests have no Internet until it does"
            for uplink in network.uplinks
            if uplink not in by_name
        ]
        return problems

    async def change(self, config: Config) -> list[str]:
        """Go over to another configuration: undo what only the old one wanted, then apply the new one."""
        old, self._config = self._config, config
        kept = {(zone.interface, zone.address) for zone in config.zones} if config.network.set_addresses else set()
        isolating = {zone.interface for zone in config.zones if zone.isolate}
        if old.network.rule_priority != config.network.rule_priority:
            # The new guards first, so that there is no moment without one.
            await self._guard({Guard(zone.interface, version) for zone in config.zones for version in (4, 6)}, [])
            for guard in await self._netlink.guards(old.network.rule_priority):
                await self._netlink.remove_guard(guard, old.network.rule_priority)
        links = await self._netlink.links()
        for zone in old.zones:
            link = next((link for link in links if link.name == zone.interface), None)
            if link is None:
                continue
            if old.network.set_addresses and (zone.interface, zone.address) not in kept:
                await self._netlink.remove_address(link.index, zone.address)
            if zone.isolate and zone.interface not in isolating:
                await self._release(link, links)
        return await self.apply()

    async def withdraw(self) -> None:
        """Undo everything; forwarding goes first, because without the guard it would be an open router."""
        network = self._config.network
        if network.forwarding:
            for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                write_sysctl(path, "0")
        links = await self._netlink.links()
        for zone in self._config.zones:
            link = next((link for link in links if link.name == zone.interface), None)
            if link is None:
                continue
            if network.set_addresses:
                await self._netlink.remove_address(link.index, zone.address)
            if zone.isolate:
                await self._release(link, links)
        for guard in await self._netlink.guards(network.rule_priority):
            await self._netlink.remove_guard(guard, network.rule_priority)

    async def differences(self) -> list[str]:
        """What is not as it should be, in sentences; changes nothing."""
        network = self._config.network
        found = [
            f"/proc/sys/net/{path} is {now}, not {value}"
            for path, value in wanted_sysctls(self._config)
            if (now := _read_sysctl(path)) not in (None, value)
        ]
        guards = await self._netlink.guards(network.rule_priority)
        found += [
            f"the routing rule that guards {zone.interface} (IPv{version}) is missing"
            for zone in self._config.zones
            for version in (4, 6)
            if Guard(zone.interface, version) not in guards
        ]
        links = await self._netlink.links()
        isolating = {zone.interface for zone in self._config.zones if zone.isolate}
        bridges = {link.index for link in links if link.name in isolating and link.is_bridge}
        found += [
            f"the bridge port {link.name} is not isolated"
            for link in links
            if link.master in bridges and not link.is_isolated
        ]
        return found

    async def _guard(self, wanted: set[Guard], problems: list[str]) -> None:
        priority = self._config.network.rule_priority
        try:
            present = await self._netlink.guards(priority)
            for guard in sorted(wanted - present):
                await self._netlink.add_guard(guard, priority)
            for guard in sorted(present - wanted):
                await self._netlink.remove_guard(guard, priority)
        except NetlinkRefused as refused:
            problems.append(
                f"the routing rules that keep the gate shut could not be set: {refused}; "
                "the daemon needs the capability NET_ADMIN"
            )

    async def _address(self, link: Link, address: IPv4Interface, problems: list[str]) -> None:
        try:
            if not link.is_up:
                await self._netlink.set_up(link.index)
            await self._netlink.add_address(link.index, address)
        except NetlinkRefused as refused:
            problems.append(f"the address {address} could not be put on {link.name}: {refused}")

    async def _isolate(self, bridge: Link, links: Sequence[Link], problems: list[str]) -> None:
        if not bridge.is_bridge:
            return  # a Wi-Fi or VLAN interface: its access point isolates (hostapd ap_isolate)
        for link in links:
            if link.master == bridge.index and not link.is_isolated:
                try:
                    await self._netlink.isolate(link.index, True)
                except NetlinkRefused as refused:
                    problems.append(f"guests behind {link.name} could not be isolated: {refused}")

    async def _release(self, bridge: Link, links: Sequence[Link]) -> None:
        for link in links:
            if link.master == bridge.index and link.is_isolated:
                await self._netlink.isolate(link.index, False)


def wanted_sysctls(config: Config) -> list[tuple[str, str]]:
    """Settings below /proc/sys/net, in the order in which they must be made; reads what uplinks have now."""
    wanted = [
        # Frames between ports of a bridge are not ours: passing them to inet tables would judge them twice.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ]
    for zone in config.zones:
        # A guest must not be able to give this box a route.
        wanted += [
            (f"ipv6/conf/{zone.interface}/accept_ra", "0"),
            (f"ipv6/conf/{zone.interface}/accept_redirects", "0"),
            (f"ipv4/conf/{zone.interface}/accept_redirects", "0"),
            (f"ipv4/conf/{zone.interface}/send_redirects", "0"),
            (f"ipv4/conf/{zone.interface}/route_localnet", "0"),
        ]
    if config.network.forwarding:
        for uplink in config.network.uplinks:
            # A forwarding box ignores router advertisements unless told otherwise, and would lose its own IPv6.
            if _read_sysctl(f"ipv6/conf/{uplink}/accept_ra") == "1":
                wanted.append((f"ipv6/conf/{uplink}/accept_ra", "2"))
        wanted += [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]
    return wanted


def write_sysctl(path: str, value: str) -> str | None:
    """Set a sysctl below /proc/sys/net if it differs; returns a sentence when that failed.

    One that does not exist is no failure: without the bridge filter module or IPv6 there is nothing to set.
    """
    now = _read_sysctl(path)
    if now is None or now == value:
        return None
    try:
        (_PROC / path).write_text(value + "\n")
    except OSError as error:
        return f"/proc/sys/net/{path} is {now} and could not be set to {value}: {error.strerror}"
    log.info("set sysctl path=net/%s value=%s was=%s", path, value, now)
    return None


def _read_sysctl(path: str) -> str | None:
    try:
        return (_PROC / path).read_text().strip()
    except OSError:
        return None
