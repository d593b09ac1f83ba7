"""What happens around the table: interfaces that come and go, MACs that move between bridge ports, IPv6 addresses.

A MAC that appears on another port while its session is online is a full clone or a device that roams; the two cannot
be told apart on a bridge, so it is reported and nothing is decided. IPv6 addresses of known clients are reported once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Config
from gateway.datapath.ledger import Ledger
from gateway.datapath.netlink import Netlink
from gateway.datapath.watch import (
    AF_BRIDGE,
    EventsLost,
    FilterGone,
    LinkSeen,
    NeighbourSeen,
    PortSeen,
    RouteEvent,
    Watcher,
    neighbours,
)
from gateway.session.events import ClonedClientSeen, Event, Ipv6AddressSeen
from gateway.session.model import ClientKey

_REMEMBERED: Final = 65536  # MACs on ports, and IPv6 addresses; more are a flood and forgotten
_CLONE_REPORT_S: Final = 60.0  # two clones make a bridge learn with every frame: one report a minute each


class Surroundings:
    """Follows the routing socket's events; `changed` is set when the system must be held to the configuration anew."""

    def __init__(
        self,
        netlink: Netlink,
        config: Config,
        ledger: Ledger,
        post: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self.changed = asyncio.Event()
        self.clones_seen = 0
        self._netlink = netlink
        self._ledger = ledger
        self._post = post
        self._clock = clock
        self._watcher: Watcher | None = None
        self._zone_of_name: dict[str, str] = {}
        self._uplinks: frozenset[str] = frozenset()
        self._zone_of_index: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._masters: dict[int, int] = {}
        self._ports: dict[tuple[int, MacAddress], int] = {}
        self._seen6: dict[tuple[int, IPv6Address], MacAddress] = {}
        self._reported: dict[ClientKey, float] = {}
        self._configure(config)

    async def start(self) -> None:
        """Listen first, then read what is there, so that nothing falls in between."""
        self._watcher = Watcher(self.handle)
        await self._refresh()

    async def change(self, config: Config) -> None:
        """Go over to another configuration."""
        self._configure(config)
        await self._refresh()

    def close(self) -> None:
        """Stop listening."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    async def refresh_links(self) -> None:
        """Read which interface has which index and bridge."""
        links = await self._netlink.links()
        self._names = {link.index: link.name for link in links}
        self._masters = {link.index: link.master for link in links}
        self._zone_of_index = {
            link.index: self._zone_of_name[link.name] for link in links if link.name in self._zone_of_name
        }

    def handle(self, event: RouteEvent) -> None:
        """Take one event."""
        match event:
            case LinkSeen():
                self._link(event)
            case PortSeen():
                self._port(event)
            case NeighbourSeen(index, address, mac):
                self._neighbour(index, address, mac)
            case FilterGone(index):
                if index in self._zone_of_index:
                    self.changed.set()  # perhaps the seal
            case EventsLost():
                self._ports.clear()  # what was missed cannot be told from a move
                self.changed.set()

    def _configure(self, config: Config) -> None:
        self._zone_of_name = {zone.interface: zone.name for zone in config.zones}
        self._uplinks = frozenset(config.network.uplinks)

    async def _refresh(self) -> None:
        await self.refresh_links()
        self.changed.set()  # a port that joined a moment ago is known from now on, and perhaps not isolated
        for family in (AF_BRIDGE, socket.AF_INET6):
            for event in await self._netlink.work(partial(neighbours, family)):
                self.handle(event)

    def _link(self, event: LinkSeen) -> None:
        known = self._names.get(event.index)
        ours = event.name in self._zone_of_name or event.name in self._uplinks
        joins = event.master in self._zone_of_index and self._masters.get(event.index) != event.master
        appears = ours and known != event.name
        if event.gone:
            self._names.pop(event.index, None)
            self._masters.pop(event.index, None)
        renamed = known is not None and known != event.name
        if (event.gone or renamed) and self._zone_of_index.pop(event.index, None) is not None:
            # Its addresses and ports went with it; what comes back is new.
            self._ports = {place: port for place, port in self._ports.items() if place[0] != event.index}
            self.changed.set()
        if not event.gone:
            self._names[event.index] = event.name
            self._masters[event.index] = event.master
            if appears and event.name in self._zone_of_name:
                self._zone_of_index[event.index] = self._zone_of_name[event.name]
            if joins or appears:
                self.changed.set()

    def _port(self, event: PortSeen) -> None:
        zone = self._zone_of_index.get(event.bridge)
        if zone is None:
            return
        place = (event.bridge, event.mac)
        if event.gone:
            if self._ports.get(place) == event.port:
                del self._ports[place]
            return
        before = self._ports.get(place)
        if before is None and len(self._ports) >= _REMEMBERED:
            return
        self._ports[place] = event.port
        if before is not None and before != event.port:
            self._moved(ClientKey(zone, event.mac), before, event.port)

    def _moved(self, key: ClientKey, before: int, after: int) -> None:
        if key not in self._ledger.clients:
            return
        now = self._clock()
        if now - self._reported.get(key, -_CLONE_REPORT_S) < _CLONE_REPORT_S:
            return
        self._reported = {
            other: at for other, at in self._reported.items() if now - at < _CLONE_REPORT_S and other != key
        }
        self._reported[key] = now
        self.clones_seen += 1
        names = self._names
        detail = f"moved from port {names.get(before, before)} to port {names.get(after, after)}"
        self._post(ClonedClientSeen(key, f"{detail} while online: another device with its address, or it roams"))

    def _neighbour(self, index: int, address: IPv6Address, mac: MacAddress) -> None:
        zone = self._zone_of_index.get(index)
        if zone is None or address.is_link_local or address.is_multicast or mac.is_multicast:
            return
        key = ClientKey(zone, mac)
        if key not in self._ledger.clients and key not in self._ledger.bound:
            return
        if self._seen6.get((index, address)) == mac:
            return
        if len(self._seen6) >= _REMEMBERED:
            self._seen6.clear()
        self._seen6[index, address] = mac
        self._post(Ipv6AddressSeen(key, address))
