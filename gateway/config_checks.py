"""What no single option of the configuration can know: how sections fit together, with each other and with the kernel.

Pure: the tree in, complaints out, each with its place, the value and a sentence that says how to mend it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from gateway.config import Config, Garden, Zone
from gateway.dns.message import DecodeError, parse_name

DNS_PORT: Final = 53
FOREIGN_TABLES: Final = frozenset({"filter", "nat", "mangle", "raw", "fw4", "firewalld"})
"""Names under which distributions and other firewalls keep their own inet table."""

_NFT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")  # a zone's is part of the names of chains and sets
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")  # IFNAMSIZ, and what needs no care in a ruleset
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")  # RFC 1123 §2.1
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")

Complain = Callable[[str, str, str, object, str], None]
"""Called with section type, section name, option, value and sentence for everything that is wrong."""


def check_whole(config: Config, complain: Complain) -> None:
    """Hold the sections against each other; `complain` is called for each problem."""
    if config.zones and not config.network.uplinks:
        complain("network", "", "uplink", None, "is missing; name the interface that leads to the Internet")
    for index, zone in enumerate(config.zones):
        for earlier in config.zones[:index]:
            if earlier.interface == zone.interface:
                complain(
                    "zone",
                    zone.name,
                    "interface",
                    zone.interface,
                    f"is already that of zone {earlier.name!r}; each zone needs its own",
                )
            if earlier.address.network.overlaps(zone.address.network):
                complain(
                    "zone",
                    zone.name,
                    "address",
                    zone.address,
                    f"overlaps zone {earlier.name!r} ({earlier.address.network}); choose another prefix",
                )
        if zone.interface in config.network.uplinks:
            complain(
                "zone",
                zone.name,
                "interface",
                zone.interface,
                "is an uplink as well; guests need an interface of their own",
            )
        _check_zone(zone, complain)
    zones = {zone.name: zone for zone in config.zones}
    for garden in config.gardens:
        if garden.zone and garden.zone not in zones:
            complain("garden", garden.name, "zone", garden.zone, f"is not a zone; {_listed(zones)}")
    _check_reservations(config, zones, complain)
    for garden in config.gardens:
        _check_garden(garden, complain)
    _check_names(config, complain)
    _check_ports(config, complain)
    _check_admin(config, complain)


def _check_names(config: Config, complain: Complain) -> None:
    """Names that DNS, HTTP, nftables and the kernel must be able to hold."""
    for option in ("portal_name", "status_name"):
        name = getattr(config.dns, option)
        if not _is_host_name(name):
            complain(
                "dns", "", option, name, "is not a host name; use letters, digits and dots as in login.postern.lan"
            )
    if config.dns.portal_name.lower() == config.dns.status_name.lower():
        name = config.dns.status_name
        complain("dns", "", "status_name", name, "is the portal_name too; give each its own name")
    table = config.network.table
    if not _NFT_NAME.fullmatch(table):
        complain(
            "network", "", "table", table, "is not a table's name; use a letter, then letters, digits, underscores"
        )
    elif table in FOREIGN_TABLES:
        complain("network", "", "table", table, "is the table of another firewall, which would be lost; choose another")
    for zone in config.zones:
        if not _NFT_NAME.fullmatch(zone.name):
            sentence = "is not a zone's name; use a letter, then letters, digits and underscores, 32 at most"
            complain("zone", zone.name, "", zone.name, sentence)
    named = [("zone", zone.name, "interface", zone.interface) for zone in config.zones]
    named += [("network", "", "uplink", uplink) for uplink in config.network.uplinks]
    for section, name, option, interface in named:
        if not _INTERFACE.fullmatch(interface):
            complain(section, name, option, interface, "is not an interface's name; they have at most 15 characters")


def _is_host_name(text: str) -> bool:
    """Whether browsers send this name as it stands: ASCII labels, none of them empty, and not an address."""
    try:
        parse_name(text)
    except DecodeError:
        return False
    labels = text.split(".")
    return all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()


def _check_ports(config: Config, complain: Complain) -> None:
    """No two of our TCP listeners may want the same port of the same address."""
    port, metrics = config.uam.port, config.metrics.listen
    if port == DNS_PORT:
        complain("uam", "", "port", port, "is the port of DNS; choose another, such as 3990")
    in_zones = metrics.address.is_unspecified or any(metrics.address == zone.address.ip for zone in config.zones)
    if config.metrics.enabled and in_zones and metrics.port in (port, DNS_PORT):
        whose = "the portal" if metrics.port == port else "DNS"
        complain("metrics", "", "listen", metrics, f"is the port of {whose} in the zones; choose another, such as 2112")


def _check_admin(config: Config, complain: Complain) -> None:
    """The administration is never where guests are, and its certificate is whole."""
    admin = config.admin
    owners = {zone.interface: zone.name for zone in config.zones}
    for interface in admin.interfaces:
        if interface in owners:
            sentence = f"is that of guests (zone {owners[interface]!r}); name an interface that only you can reach"
            complain("admin", "", "interface", interface, sentence)
        if not _INTERFACE.fullmatch(interface):
            complain("admin", "", "interface", interface, "is not an interface's name; they have at most 15 characters")
    if bool(admin.certificate) != bool(admin.certificate_key):
        missing, given = ("certificate_key", "certificate") if admin.certificate else ("certificate", "certificate_key")
        complain("admin", "", missing, None, f"is missing; {given} takes both files, or leave both out")
    listen = config.metrics.listen
    if config.metrics.enabled and admin.enabled and listen.port == admin.port:
        sentence = "is the port of the administration; choose another, such as 2112"
        complain("metrics", "", "listen", listen, sentence)


def _check_garden(garden: Garden, complain: Complain) -> None:
    """A garden is a few places, not the way out."""
    whole = set(collapse_addresses(network for network in garden.networks if isinstance(network, IPv4Network)))
    whole6 = set(collapse_addresses(network for network in garden.networks if isinstance(network, IPv6Network)))
    if IPv4Network("0.0.0.0/0") in whole or any(network.supernet_of(_GLOBAL_IPV6) for network in whole6):
        networks = " ".join(map(str, garden.networks))
        sentence = "is the whole Internet, open to all without login; name the prefixes that guests need to log in"
        complain("garden", garden.name, "network", networks, sentence)


def _check_zone(zone: Zone, complain: Complain) -> None:
    network = zone.address.network
    if network.prefixlen > 30 or network.prefixlen < 12:
        complain(
            "zone",
            zone.name,
            "address",
            zone.address,
            "has a prefix that is too long or too short; use /12 to /30, such as 10.41.0.1/24",
        )
        return
    ip = zone.address.ip
    if ip.is_multicast or ip.is_loopback or ip.is_link_local or ip.is_reserved or ip.is_unspecified:
        sentence = "is not an address that a network can have; use a private one such as 10.41.0.1/24"
        complain("zone", zone.name, "address", zone.address, sentence)
    elif ip in (network.network_address, network.broadcast_address):
        complain(
            "zone",
            zone.name,
            "address",
            zone.address,
            f"is not a host's address; use one such as {network.network_address + 1}/{network.prefixlen}",
        )
    if zone.pool is not None:
        if zone.pool.first not in network or zone.pool.last not in network:
            complain(
                "zone",
                zone.name,
                "pool",
                zone.pool,
                f"is not within the zone's prefix {network}; choose addresses of that prefix",
            )
        elif zone.pool.first == network.network_address or zone.pool.last == network.broadcast_address:
            complain(
                "zone",
                zone.name,
                "pool",
                zone.pool,
                f"holds the network or broadcast address of {network}; leave those out",
            )
        if zone.address.ip in zone.pool:
            complain(
                "zone",
                zone.name,
                "pool",
                zone.pool,
                f"holds the gateway's own address {zone.address.ip}; begin behind it",
            )
    for relay in zone.relays:
        if relay not in network or relay in (network.network_address, network.broadcast_address, zone.address.ip):
            complain(
                "zone",
                zone.name,
                "relay",
                relay,
                f"is not another host's address in the zone's prefix {network}; give the relay's own address there",
            )
    for mac in set(zone.allow_macs) & set(zone.block_macs):
        complain("zone", zone.name, "block_mac", mac, "is also in allow_mac; keep it in one of them")


def _check_reservations(config: Config, zones: Mapping[str, Zone], complain: Complain) -> None:
    taken: dict[tuple[str, object], str] = {}
    for item in config.reservations:
        zone = zones.get(item.zone)
        if zone is None:
            complain("reservation", item.name, "zone", item.zone, f"is not a zone; {_listed(zones)}")
            continue
        network = zone.address.network
        if item.address not in network or item.address in (network.network_address, network.broadcast_address):
            complain(
                "reservation",
                item.name,
                "address",
                item.address,
                f"is not a host's address of zone {item.zone!r} ({network})",
            )
        if item.address == zone.address.ip:
            complain("reservation", item.name, "address", item.address, "is the gateway's own address; choose another")
        for option, value in (("address", item.address), ("mac", item.mac)):
            owner = taken.setdefault((item.zone, value), item.name)
            if owner != item.name:
                complain("reservation", item.name, option, value, f"is already reserved by {owner!r}; keep one of them")


def _listed(known: Iterable[str]) -> str:
    names = sorted(known)
    return f"there are: {', '.join(names)}" if names else "there is none"
