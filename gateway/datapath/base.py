"""What of the system around our table is ours to set: sysctls, zone addresses, the guards, isolation of bridge ports.

A guard keeps the gate shut without our table, whoever took it away and whether or not we live. On a guest interface it
is a seal (`seal`). Where the kernel takes none it is a routing rule, `iif <guest> fwmark 0/0xffffffff prohibit`: our
table marks everything that it lets into routing. The rule stands behind that of the local table (priority 0). With any
such rule the kernel looks up routes the long way, for every packet of everybody and until it is restarted, so none is
set where a seal holds. Either way DHCP, DNS and ARP of this box work without the table; a seal closes its TCP as well.

All of it is a desired state: `apply` may be called again at any time and changes only what differs.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path

from gateway.config import Config, Zone
from gateway.datapath.netlink import Guard, Link, Netlink, NetlinkRefused
from gateway.datapath.program import name_of
from gateway.datapath.seal import seal, seals, unseal, why_not

log = logging.getLogger(__name__)

_PROC = Path("/proc/sys/net")
_NOBODYS = ""  # the interface name under which no zone can be


class Base:
    """Holds the system to what the configuration says."""

    def __init__(self, netlink: Netlink, config: Config) -> None:
        self._netlink = netlink
        self._config = config
        self._unsealable = ""  # why seals do not work here

    @property
    def guarding(self) -> str:
        """How the gate is kept shut without our table, for people."""
        return f"routing rules ({self._unsealable})" if self._unsealable else "seals"

    async def apply(self, *, table_is_loaded: bool = True) -> list[str]:
        """Set what differs; returns what could not be done, each a sentence with its remedy.

        Until `table_is_loaded` what is in the kernel may be a table of another version, which knows no seals.
        """
        network = self._config.network
        zones = self._config.zones
        problems: list[str] = []
        links = await self._netlink.links()
        await self._guard(links, problems, table_is_loaded=table_is_loaded)
        wanted = wanted_sysctls(self._config)
        problems += [problem for path, value in wanted if (problem := write_sysctl(path, value)) is not None]
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

    async def guard(self) -> list[str]:
        """Of `apply` what concerns guards, as soon as the table is ours."""
        problems: list[str] = []
        await self._guard(await self._netlink.links(), problems, table_is_loaded=True)
        return problems

    async def change(self, config: Config) -> list[str]:
        """Go over to another configuration: undo what only the old one wanted, then apply the new one."""
        old, self._config = self._config, config
        kept = {(zone.interface, zone.address) for zone in config.zones} if config.network.set_addresses else set()
        isolating = {zone.interface for zone in config.zones if zone.isolate}
        links = await self._netlink.links()
        if old.network.rule_priority != config.network.rule_priority:
            # The new guards first, so that there is no moment without one.
            await self._guard(links, [], table_is_loaded=True)
            for guard in await self._netlink.guards(old.network.rule_priority):
                await self._netlink.remove_guard(guard, old.network.rule_priority)
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
        for index in await self._netlink.work(seals):
            await self._netlink.work(partial(unseal, index))
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
        links = await self._netlink.links()
        guards = await self._netlink.guards(network.rule_priority)
        unsealed = _unsealed(self._config.zones, links, await self._netlink.work(seals))
        found += [
            f"nothing guards {link.name} while the table is not there: it has neither a seal nor the routing rules"
            for link in unsealed
            if not _rules_for(link.name) <= guards
        ]
        isolating = {zone.interface for zone in self._config.zones if zone.isolate}
        bridges = {link.index for link in links if link.name in isolating and link.is_bridge}
        found += [
            f"the bridge port {link.name} is not isolated"
            for link in links
            if link.master in bridges and not link.is_isolated
        ]
        return found

    async def _guard(self, links: Sequence[Link], problems: list[str], *, table_is_loaded: bool) -> None:
        """Seal each guest interface, or guard it by rules; what is no guest interface any more loses both."""
        zones = self._config.zones
        priority = self._config.network.rule_priority
        try:
            present = await self._netlink.guards(priority)
            unsealable = await self._netlink.work(why_not)
            wanted = {rule for zone in zones if unsealable for rule in _rules_for(zone.interface)}
            sealed = await self._netlink.work(seals)
            for link in () if unsealable else _unsealed(zones, links, sealed):
                rules = _rules_for(link.name)
                if rules <= present and not table_is_loaded:
                    wanted |= rules
                    continue
                try:
                    await self._netlink.work(partial(seal, link.index, link.name))
                except OSError as error:
                    if error.errno != errno.ENODEV:  # it went just now
                        wanted |= rules
                        unsealable = f"{link.name}: {error.strerror or error}"
            if unsealable and unsealable != self._unsealable:
                log.warning("guest interfaces are guarded by routing rules, which costs speed reason=%s", unsealable)
            self._unsealable = unsealable
            for guard in sorted(wanted - present):
                await self._netlink.add_guard(guard, priority)
            for guard in sorted(present - wanted):
                await self._netlink.remove_guard(guard, priority)
            await self._free(links, sealed)
        except OSError as refused:
            problems.append(
                f"the guards that keep the gate shut without our table could not be set: {refused}; "
                "the daemon needs the capability NET_ADMIN"
            )

    async def _free(self, links: Sequence[Link], sealed: Mapping[int, str]) -> None:
        """Unseal what is no guest interface any more, but not what was renamed under its guests.

        That keeps a seal which no table takes off, for as long as the interface of a zone is missing: to rules that go
        by names its guests would be nobody's, and forwarded.
        """
        names = {link.index: link.name for link in links}
        guests = {zone.interface for zone in self._config.zones}
        of_guests = {name_of(interface) for interface in guests}
        shut = name_of(_NOBODYS)
        for index in sorted(sealed.keys() & names.keys()):
            if names[index] in guests:
                continue
            if sealed[index] in of_guests:
                await self._netlink.work(partial(seal, index, _NOBODYS))
            elif sealed[index] != shut or guests <= set(names.values()):
                await self._netlink.work(partial(unseal, index))

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


def _rules_for(interface: str) -> set[Guard]:
    return {Guard(interface, version) for version in (4, 6)}


def _unsealed(zones: Sequence[Zone], links: Sequence[Link], sealed: Mapping[int, str]) -> list[Link]:
    """The guest interfaces that are there without the seal that we would put on them."""
    guests = {zone.interface for zone in zones}
    return [link for link in links if link.name in guests and sealed.get(link.index) != name_of(link.name)]


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
            # Where it is on, IPv6 drops sealed packets before our table sees them. IPv4 looks at it behind our table.
            (f"ipv6/conf/{zone.interface}/drop_unicast_in_l2_multicast", "0"),
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
