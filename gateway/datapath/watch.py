"""Events of the routing socket: interfaces that come and go, filters that go, bridge ports that learn, IPv6 neighbours.

Decoding is our own: a network of a thousand clients refreshes dozens of neighbours a second, of each message three
fields matter, and ten thousand of them are read at a start. Nothing here decides; `Watcher` hands on what it decodes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.datapath.nfnetlink import DUMP, REQUEST, attributes
from gateway.values import value_class

log = logging.getLogger(__name__)

_NETLINK_ROUTE: Final = 0
_GROUP_LINK: Final = 1 << 0
_GROUP_NEIGHBOUR: Final = 1 << 2
_GROUP_FILTER: Final = 1 << 3
_DEL_HOOKS, _DEL_FILTER = 37, 45
_NEW_LINK, _DEL_LINK, _NEW_NEIGHBOUR, _DEL_NEIGHBOUR, _GET_NEIGHBOUR = 16, 17, 28, 29, 30
_ERROR, _DONE = 2, 3
AF_BRIDGE: Final = 7
_LINK_NAME, _LINK_MASTER = 3, 10
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_MAC, _NEIGHBOUR_MASTER = 1, 2, 9
_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10  # reachable, stale, delay, probe
_IFF_UP: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_FILTER: Final = struct.Struct("=BxxxiIII")
_BUFFER_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 16
_SHARE: Final = 64  # datagrams taken before others run


@value_class
class LinkSeen:
    """An interface was made, changed or removed."""

    index: int
    name: str
    master: int
    is_up: bool
    gone: bool


@value_class
class PortSeen:
    """A bridge learned (or forgot) a MAC on a port."""

    bridge: int
    port: int
    mac: MacAddress
    gone: bool


@value_class
class NeighbourSeen:
    """An IPv6 address was resolved to a MAC."""

    index: int
    address: IPv6Address
    mac: MacAddress


@value_class
class FilterGone:
    """A filter of an interface, or the place of all its filters, was removed."""

    index: int


@value_class
class EventsLost:
    """More happened than the kernel could queue for us: what is remembered must be read anew."""


RouteEvent = LinkSeen | PortSeen | NeighbourSeen | FilterGone | EventsLost


def decode(data: bytes) -> Iterator[RouteEvent]:
    """Decode one datagram of the routing socket; passes over what it does not know or cannot read."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, start)[:2]
        if length < _HEADER.size or start + length > len(data):
            return
        body, end = start + _HEADER.size, start + length
        if kind in (_NEW_LINK, _DEL_LINK) and body + _LINK.size <= end:
            yield from _decode_link(data, body, end, kind == _DEL_LINK)
        elif kind in (_NEW_NEIGHBOUR, _DEL_NEIGHBOUR) and body + _NEIGHBOUR.size <= end:
            yield from _decode_neighbour(data, body, end, kind == _DEL_NEIGHBOUR)
        elif kind in (_DEL_HOOKS, _DEL_FILTER) and body + _FILTER.size <= end:
            yield FilterGone(_FILTER.unpack_from(data, body)[1])
        start += length + 3 & ~3


def _decode_link(data: bytes, start: int, end: int, gone: bool) -> Iterator[RouteEvent]:
    family, _type, index, flags, _change = _LINK.unpack_from(data, start)
    name = ""
    master = 0
    for kind, first, last in attributes(data, start + _LINK.size, end):
        if kind == _LINK_NAME:
            name = data[first:last].rstrip(b"\0").decode("ascii", "replace")
        elif kind == _LINK_MASTER and last - first == 4:
            master = struct.unpack_from("=I", data, first)[0]
    # A port that leaves its bridge is told as the bridge's own removal of it; the interface stays.
    if family == AF_BRIDGE and gone:
        yield LinkSeen(index, name, 0, bool(flags & _IFF_UP), False)
    else:
        yield LinkSeen(index, name, master, bool(flags & _IFF_UP), gone)


def _decode_neighbour(data: bytes, start: int, end: int, gone: bool) -> Iterator[RouteEvent]:
    family, index, state, _flags, _type = _NEIGHBOUR.unpack_from(data, start)
    mac: MacAddress | None = None
    address: IPv6Address | None = None
    master = 0
    for kind, first, last in attributes(data, start + _NEIGHBOUR.size, end):
        if kind == _NEIGHBOUR_MAC and last - first == 6:
            mac = MacAddress(data[first:last])
        elif kind == _NEIGHBOUR_ADDRESS and last - first == 16:
            address = IPv6Address(data[first:last])
        elif kind == _NEIGHBOUR_MASTER and last - first == 4:
            master = struct.unpack_from("=I", data, first)[0]
    if mac is None:
        return
    if family == AF_BRIDGE and master:
        yield PortSeen(master, index, mac, gone)
    elif family == socket.AF_INET6 and address is not None and not gone and state & _USABLE:
        yield NeighbourSeen(index, address, mac)


def neighbours(family: int) -> list[RouteEvent]:
    """What is known now, as events: MACs on bridge ports (AF_BRIDGE), or IPv6 neighbours. Blocks; raises OSError."""
    found: list[RouteEvent] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as asking:
        head = _HEADER.pack(_HEADER.size + _NEIGHBOUR.size, _GET_NEIGHBOUR, REQUEST | DUMP, 1, 0)
        asking.send(head + _NEIGHBOUR.pack(family, 0, 0, 0, 0))
        while True:
            data = asking.recv(_READ_BYTES)
            found.extend(decode(data))
            if _is_last(data):
                return found


def _is_last(data: bytes) -> bool:
    """Whether a dump ends with this datagram; raises OSError when the kernel refused it."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, start)[:2]
        if kind == _ERROR and length >= _HEADER.size + 4:
            number = -struct.unpack_from("=i", data, start + _HEADER.size)[0]
            raise OSError(number, os.strerror(number))
        if kind == _DONE or length < _HEADER.size:
            return True
        start += length + 3 & ~3
    return False


class Watcher:
    """The event socket on the event loop; calls `handle` for each event."""

    def __init__(self, handle: Callable[[RouteEvent], None]) -> None:
        self._handle = handle
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _GROUP_LINK | _GROUP_NEIGHBOUR | _GROUP_FILTER))
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_SHARE):
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("network events were lost, reading the state anew")
                self._handle(EventsLost())
                return
            for event in decode(data):
                self._handle(event)
