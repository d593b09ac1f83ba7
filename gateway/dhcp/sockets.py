"""The DHCP shell: packet sockets per zone around the server cores (asyncio or uvloop).

Per zone interface three sockets: a packet socket for DHCP frames in both directions (see `frames` for why), a packet
socket for ARP that listens only while addresses are probed, and a UDP socket that holds port 67, so that the kernel
does not answer renewals with "port unreachable", and through which relays are answered. Needs CAP_NET_RAW and
CAP_NET_BIND_SERVICE.

Bounds: at most 32 frames are read per wake-up; what the daemon cannot keep up with waits in the kernel's receive buffer
and is dropped there, and clients repeat. An interface that is missing, down or taken away is tried again each second.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from gateway.config import Dhcp, Reservation, Zone
from gateway.dhcp.frames import (
    ARP_FILTER,
    BROADCAST_ADDRESS,
    BROADCAST_MAC,
    DHCP_FILTER,
    ETH_P_ARP,
    ETH_P_IP,
    HEADER_ROOM,
    NOTHING_FILTER,
    SERVER_PORT,
    KernelFilter,
    build_arp_probe,
    build_datagram,
    read_arp,
    read_datagram,
)
from gateway.dhcp.v4_codec import DecodeError, decode, encode
from gateway.dhcp.v4_events import (
    AddressSeen,
    DhcpAction,
    DhcpEvent,
    PacketReceived,
    PacketUnreadable,
    ReportRefusal,
    SendProbe,
    SendReply,
    ToClient,
    ToEveryone,
    ToRelay,
)
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound, LeaseEnded
from gateway.session.model import ClientKey

LOG: Final = logging.getLogger(__name__)

BATCH: Final = 32
RETRY_S: Final = 1.0
RECEIVE_BUFFER_OCTETS: Final = 1 << 20

_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_IP_FREEBIND: Final = 15
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_ETHERNET_HARDWARE: Final = 1
_INTERFACE_GONE: Final = frozenset((errno.ENETDOWN, errno.ENODEV, errno.ENXIO))

Post = Callable[[LeaseBound | LeaseEnded], None]
Clock = Callable[[], float]


class DhcpService:
    """Runs the DHCP servers of all zones on the event loop.

    `post` is called with each LeaseBound and LeaseEnded, and must have done what may not be lost when it returns: the
    acknowledgement leaves right after, or not at all if `post` raises. `clock` is the clock of every `now`, in seconds,
    monotonic.
    """

    def __init__(self, servers: Iterable[DhcpServer], post: Post, clock: Clock) -> None:
        self._post = post
        self._clock = clock
        self._wake: asyncio.Event | None = None  # made by run(), where there is a loop
        self._ports = {server.zone.name: _ZonePort(server, post, clock, self._port_lost) for server in servers}

    @property
    def servers(self) -> Mapping[str, DhcpServer]:
        """The server core of each zone."""
        return MappingProxyType({name: port.server for name, port in self._ports.items()})

    @property
    def listening(self) -> Mapping[str, bool]:
        """Whether each zone's sockets are open."""
        return MappingProxyType({name: port.is_open for name, port in self._ports.items()})

    async def run(self) -> None:
        """Serve until cancelled."""
        self._wake = asyncio.Event()
        try:
            while True:
                self._wake.clear()
                missing = [port for port in self._ports.values() if not port.try_open()]
                try:
                    async with asyncio.timeout(RETRY_S if missing else None):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # time to look again for what is missing
                else:
                    # A lost interface is not there again at once; and one that comes and goes must not busy the loop.
                    await asyncio.sleep(0.05)
        finally:
            self._wake = None
            for port in self._ports.values():
                port.close()

    def release(self, key: ClientKey) -> bool:
        """End a client's lease on an operator's word; False if it has none."""
        port = self._ports.get(key.zone)
        if port is None:
            return False
        actions = port.server.release(key.mac, self._clock())
        port.perform(actions)
        return bool(actions)

    def reconfigure(self, zones: Iterable[Zone], settings: Dhcp, reservations: tuple[Reservation, ...]) -> None:
        """Go on with another configuration; leases that fit are kept, of the others LeaseEnded is posted.

        Raises ValueError, before anything is changed, if a zone's prefix has no room for its pool.
        """
        now = self._clock()
        wanted = {zone.name: zone for zone in zones}
        fresh = {name: DhcpServer(zone, settings, reservations) for name, zone in wanted.items()}
        for name in [name for name in self._ports if name not in wanted]:
            port = self._ports.pop(name)
            for lease in list(port.server.leases()):
                port.perform(port.server.release(lease.key.mac, now))
            port.close()
        for name, zone in wanted.items():
            port_or_none = self._ports.get(name)
            if port_or_none is None:
                self._ports[name] = _ZonePort(fresh[name], self._post, self._clock, self._port_lost)
                continue
            former = port_or_none.server.zone
            port_or_none.perform(port_or_none.server.reconfigure(zone, settings, reservations, now))
            if (former.interface, former.address) != (zone.interface, zone.address):
                port_or_none.close_sockets()
        self._port_lost()

    def _port_lost(self) -> None:
        if self._wake is not None:
            self._wake.set()


class _ZonePort:
    """The sockets and the timer of one zone."""

    def __init__(self, server: DhcpServer, post: Post, clock: Clock, lost: Callable[[], None]) -> None:
        self.server = server
        self._post = post
        self._clock = clock
        self._lost = lost
        self._sockets: _Sockets | None = None
        self._complaint = ""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    @property
    def is_open(self) -> bool:
        return self._sockets is not None

    def try_open(self) -> bool:
        """Open the sockets if they are not; logs why not, once per reason."""
        if self._sockets is not None:
            return True
        zone = self.server.zone
        try:
            self._sockets = _Sockets(zone)
        except OSError as error:
            reason = _remedy(error)
            if reason != self._complaint:
                self._complaint = reason
                LOG.warning("dhcp cannot listen zone=%s interface=%s cause=%s", zone.name, zone.interface, reason)
            self._arm()  # leases end on time all the same
            return False
        self._complaint = ""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sockets.packets, self._read_packets)
        loop.add_reader(self._sockets.arp, self._read_arp)
        self._arm()
        LOG.info("dhcp listens zone=%s interface=%s ip=%s", zone.name, zone.interface, zone.address)
        return True

    def close_sockets(self) -> None:
        """Stop receiving; leases go on to end on time."""
        if self._sockets is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sockets.arp)
        loop.remove_reader(self._sockets.packets)
        self._sockets.close()
        self._sockets = None

    def close(self) -> None:
        """Stop altogether."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.close_sockets()

    def perform(self, actions: list[DhcpAction]) -> None:
        """Do what the core ordered, and set the timer to its next deadline."""
        try:
            self._perform(actions)
        finally:
            self._arm()

    def _perform(self, actions: list[DhcpAction]) -> None:
        for action in actions:
            match action:
                case SendReply():
                    self._send(action)
                case LeaseBound() | LeaseEnded():
                    self._post(action)
                case SendProbe(address):
                    self._probe(address)
                case ReportRefusal(mac, reason, detail):
                    zone = self.server.zone.name
                    LOG.warning("dhcp message refused zone=%s mac=%s cause=%s detail=%s", zone, mac, reason, detail)
                case _:
                    assert_never(action)

    def _read_packets(self) -> None:
        sockets = self._sockets
        if sockets is None:
            return
        try:
            self._read_batch(sockets, self._clock())
        finally:
            self._arm()  # once for the batch

    def _read_batch(self, sockets: _Sockets, now: float) -> None:
        receive = self.server.receive
        receive_frame = sockets.packets.recv
        size = self.server.settings.buffer_size + HEADER_ROOM
        for _ in range(BATCH):
            try:
                frame = receive_frame(size)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error)
                return
            event: DhcpEvent
            try:
                datagram = read_datagram(frame)
                if datagram.destination not in sockets.own_addresses:
                    continue  # on its way through us to another network
                event = PacketReceived(decode(datagram.payload), datagram.source_mac)
            except DecodeError as error:
                event = PacketUnreadable(frame[6:12], str(error))
            self._perform(receive(event, now))
            if self._sockets is not sockets:
                return  # lost while answering

    def _read_arp(self) -> None:
        sockets = self._sockets
        if sockets is None:
            return
        now = self._clock()
        for _ in range(BATCH):
            try:
                seen = read_arp(sockets.arp.recv(64))
            except BlockingIOError:
                return
            except DecodeError:
                continue  # ARP of other networks; nothing that we asked for
            except OSError as error:
                self._lose(error)
                return
            # Somebody has the address, or probes for it to take it (RFC 5227 §2.1.1).
            address = seen.sender or seen.target
            if self.server.is_probing(address):
                self.perform(self.server.receive(AddressSeen(address, seen.sender_mac), now))
                if self._sockets is not sockets:
                    return

    def _send(self, reply: SendReply) -> None:
        sockets = self._sockets
        if sockets is None:
            return
        payload = encode(reply.message)
        try:
            match reply.destination:
                case ToRelay(address):
                    sockets.port.sendto(payload, (socket.inet_ntoa(address.to_bytes(4, "big")), SERVER_PORT))
                case ToClient(mac, client):
                    sockets.packets.send(build_datagram(sockets.mac, sockets.address, mac, client, payload))
                case ToEveryone():
                    sockets.packets.send(
                        build_datagram(sockets.mac, sockets.address, BROADCAST_MAC, BROADCAST_ADDRESS, payload)
                    )
                case _:
                    assert_never(reply.destination)
        except OSError as error:
            self._send_failed(error)

    def _probe(self, address: int) -> None:
        sockets = self._sockets
        if sockets is None:
            return
        try:
            sockets.listen_to_arp(True)
            sockets.arp.send(build_arp_probe(sockets.mac, address))
        except OSError as error:
            self._send_failed(error)

    def _send_failed(self, error: OSError) -> None:
        if error.errno in _INTERFACE_GONE:
            self._lose(error)
        else:
            # A full queue, no route to a relay: the client repeats.
            LOG.debug("dhcp reply not sent zone=%s cause=%s", self.server.zone.name, error.strerror)

    def _lose(self, error: OSError) -> None:
        """The interface went away under us; `DhcpService.run` opens again when it is back."""
        zone = self.server.zone
        self._complaint = _remedy(error)
        LOG.warning("dhcp lost its interface zone=%s interface=%s cause=%s", zone.name, zone.interface, error.strerror)
        self.close_sockets()
        self._lost()

    def _arm(self) -> None:
        """Have the core ticked at its deadline; a timer that fires too early does no harm."""
        due = self.server.deadline()
        if self._timer is not None:
            if due is not None and self._timer_due <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_due = due
            delay = max(0.0, due - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.perform(self.server.tick(self._clock()))
        if self._sockets is not None and not self.server.probing:
            self._sockets.listen_to_arp(False)


class _Sockets:
    """The three sockets of a zone's interface, open together and closed together; raises OSError if one fails."""

    def __init__(self, zone: Zone) -> None:
        self.address = int(zone.address.ip)
        self.own_addresses = frozenset((BROADCAST_ADDRESS, self.address, int(zone.address.network.broadcast_address)))
        self._open: list[socket.socket] = []
        self._hears_arp = False
        try:
            self.port = self._udp(zone)
            _require_up(self.port, zone.interface)
            self.packets = self._packet(zone.interface, ETH_P_IP, DHCP_FILTER)
            self.arp = self._packet(zone.interface, ETH_P_ARP, NOTHING_FILTER)
            _, _, _, hardware, mac = self.packets.getsockname()
            if hardware != _ETHERNET_HARDWARE:
                raise OSError(errno.EPFNOSUPPORT, "the interface is not Ethernet")
            self.mac = bytes(mac)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()
        self._open.clear()

    def listen_to_arp(self, wanted: bool) -> None:
        """Have ARP delivered, or left in the kernel: a busy network must not wake a daemon that asks for nothing."""
        if wanted != self._hears_arp:
            _attach(self.arp, ARP_FILTER if wanted else NOTHING_FILTER)
            self._hears_arp = wanted

    def _udp(self, zone: Zone) -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._open.append(udp)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, zone.interface.encode() + b"\0")
        udp.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the address may be set after we start
        _attach(udp, NOTHING_FILTER)
        udp.bind((str(zone.address.ip), SERVER_PORT))
        return udp

    def _packet(self, interface: str, protocol: int, program: tuple[tuple[int, int, int, int], ...]) -> socket.socket:
        # Protocol 0 until bind: nothing arrives before the filter stands.
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._open.append(packet)
        _attach(packet, program)
        _enlarge(packet)
        packet.bind((interface, protocol))
        return packet


def _attach(target: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    kernel_filter = KernelFilter(program)
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, kernel_filter.argument)


def _enlarge(target: socket.socket) -> None:
    """A receive buffer for a burst of clients; beyond the system's limit where we may (CAP_NET_ADMIN)."""
    try:
        target.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
    except PermissionError:
        target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)


def _require_up(any_socket: socket.socket, interface: str) -> None:
    """Raise OSError unless the interface is up; a packet socket on one that is down only reports errors."""
    request = struct.pack("16sH22x", interface.encode(), 0)
    (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)
    if not flags & _IFF_UP:
        raise OSError(errno.ENETDOWN, "the interface is down")


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another DHCP server has port 67; stop it, or keep it off this interface"
        case errno.EPERM | errno.EACCES:
            return "not permitted; posternd needs CAP_NET_RAW and CAP_NET_BIND_SERVICE"
        case errno.ENODEV | errno.ENXIO:
            return "there is no such interface; it is tried again each second"
        case errno.ENETDOWN:
            return "the interface is down; it is tried again each second"
        case _:
            return str(error)
