"""What no single option of the configuration can know: how sections fit together, with each other and with the kernel.

Pure: the tree in, complaints out, each with its place, the value and a sentence that says how to mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gateway.config import Config, Zone

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
    for section, option, port in (("uam", "port", config.uam.port),):
        if port == 53:
            complain(section, "", option, port, "is the port of DNS; choose another, such as 3990")


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
    if zone.address.ip in (network.network_address, network.broadcast_address):
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
