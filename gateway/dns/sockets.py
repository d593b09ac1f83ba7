"""Sockets of the resolver: where guests ask, and the lanes through which we ask others.

Thin: octets come in and go to a callback, octets are sent. UDP goes through `add_reader`, because uvloop lacks the
loop's datagram calls and an endpoint per datagram would cost more than the query. Answers leave through the very socket
that was asked, which is bound to one address of one zone interface, so that they come from the address that the
client knows (or that connection tracking translated).
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, cast

from gateway.config import Endpoint
from gateway.dns.message import HEADER_BYTES
from gateway.dns.upstreams import SocketAddress
from gateway.values import value_class

MAX_QUERY_BYTES: Final = 4096  # a query with every EDNS option in use is far smaller
BATCH: Final = 64  # datagrams read before other work of the loop gets its turn
MAX_PIPELINED: Final = 64  # queries of one connection under way; more wait in the socket
MAX_WRITE_BUFFER_BYTES: Final = 256 * 1024  # a client that asks and does not read is cut off
_ANY_DATAGRAM_BYTES: Final = 65535
_SIOCGIFADDR: Final = 0x8915
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_TENTATIVE_OR_FAILED: Final = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED

Address = IPv4Address | IPv6Address


@value_class
class ListenAddress:
    """One address of a zone's interface that guests may ask; a new interface index means a new interface."""

    zone: str
    interface: str
    interface_index: int
    address: Address


def interface_addresses(interface: str, if_inet6: Path = Path("/proc/thread-self/net/if_inet6")) -> set[Address]:
    """The first IPv4 address of an interface (the one that nft's redirect takes) and its usable IPv6 addresses.

    An interface that does not exist has none.
    """
    found: set[Address] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
            found.add(IPv4Address(answer[20:24]))
        except OSError:
            pass  # no such interface, or it has no IPv4 address
    try:
        lines = if_inet6.read_text("ascii").splitlines()
    except OSError:
        return found  # a kernel without IPv6
    for line in lines:
        digits, _, _, _, flags, name = line.split()
        if name == interface and not int(flags, 16) & _TENTATIVE_OR_FAILED:
            found.add(IPv6Address(int(digits, 16)))
    return found


def listening_socket(where: ListenAddress, port: int, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket on one address of one interface, listening if it is TCP; raises OSError.

    It is bound although the address may not be there yet (IP_FREEBIND): the order of start-up must not matter.
    """
    version6 = where.address.version == 6
    sock = socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, where.interface.encode() + b"\0")
        if version6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        scope = where.interface_index if where.address.is_link_local else 0
        sock.bind((str(where.address), port, 0, scope) if version6 else (str(where.address), port))
        if kind is socket.SOCK_STREAM:
            sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


class UdpListener:
    """A UDP socket that guests ask."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[bytes, SocketAddress], None],
    ) -> None:
        """`received(data, address)` is called for each datagram; data is longer than MAX_QUERY_BYTES when too long."""
        self._sock = sock
        self._loop = loop
        self._received = received
        loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                data, address = self._sock.recvfrom(MAX_QUERY_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                return  # the interface went down; the next look at the interfaces closes this socket
            self._received(data, address)

    def send(self, data: bytes, address: SocketAddress) -> bool:
        """Send one answer; False when the kernel would not take it."""
        try:
            self._sock.sendto(data, address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._sock)
        self._sock.close()


class UdpLane:
    """A connected UDP socket towards a resolver; the kernel passes on only what comes from there."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[bytes], None],
        lost: Callable[[bool], None],
    ) -> None:
        """Open it at a port that the kernel chooses at random. Raises OSError when there is no route.

        `lost(unreachable)` is called when the kernel reports that the resolver cannot be reached.
        """
        family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._sock.connect((str(endpoint.address), endpoint.port))
        except OSError:
            self._sock.close()
            raise
        self._loop = loop
        self._received = received
        self._lost = lost
        loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                data = self._sock.recv(_ANY_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: nobody listens there, or there is no way
                self._lost(True)
                return
            self._received(data)
            if self._sock.fileno() < 0:
                return  # that answer was the last one this lane waited for

    def send(self, data: bytes) -> None:
        """Send one query."""
        try:
            self._sock.send(data)
        except BlockingIOError:
            pass  # the send buffer is full: lost like any datagram, and repeated later
        except OSError:
            self._lost(True)

    def close(self) -> None:
        """Close it; queries that still wait are not reported."""
        self._loop.remove_reader(self._sock)
        self._sock.close()


class TcpLane(asyncio.Protocol):
    """A connection to a resolver, several queries at once (RFC 7766 §6.2.1)."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[bool], None]) -> None:
        """`lost(unreachable)` is called once when the connection is gone and was not closed by us."""
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []  # until connected; bounded by the core's bound of queries under way
        self._buffer = bytearray()
        self._closed = False

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Connect; a failure is reported through `lost`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(lambda: self, str(endpoint.address), endpoint.port)
        except TimeoutError:
            self._report_lost(unreachable=False)
        except OSError:
            self._report_lost(unreachable=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what has been waiting."""
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:
            self._transport.abort()
            return
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Hand on every complete message."""
        self._buffer += data
        for message in take_frames(self._buffer):
            self._received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The resolver closed the connection, which it may do at any time."""
        self._report_lost(unreachable=False)

    def _report_lost(self, *, unreachable: bool) -> None:
        if not self._closed:
            self._closed = True
            self._lost(unreachable)

    def send(self, data: bytes) -> None:
        """Send one query, now or when connected."""
        frame = len(data).to_bytes(2) + data
        if self._transport is None:
            self._unsent.append(frame)
        else:
            self._transport.write(frame)

    def close(self) -> None:
        """Close it; queries that still wait are not reported."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()


def take_frames(buffer: bytearray) -> Iterator[bytes]:
    """Take complete messages, each behind its length in two octets, off the front (RFC 1035 §4.2.2)."""
    at = 0
    while len(buffer) - at >= 2:
        length = buffer[at] << 8 | buffer[at + 1]
        if len(buffer) - at < 2 + length:
            break
        yield bytes(buffer[at + 2 : at + 2 + length])
        at += 2 + length
    del buffer[:at]


class TcpClient(asyncio.BufferedProtocol):
    """A guest's connection: queries one after the other without waiting, bounded in memory, number and time.

    One buffer of fixed size holds what was read; when MAX_PIPELINED queries are under way nothing more is read, and the
    client feels it by TCP.
    """

    def __init__(
        self,
        opened: Callable[[TcpClient, str], bool],
        received: Callable[[TcpClient, bytes], None],
        closed: Callable[[TcpClient], None],
        clock: Callable[[], float],
    ) -> None:
        """`opened(client, address)` says whether the connection is welcome; then `received` for each query."""
        self.number = 0  # given by the service
        self.address = ""
        self.active_at = clock()
        self.under_way = 0
        self._opened = opened
        self._received = received
        self._closed = closed
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(2 + MAX_QUERY_BYTES)
        self._filled = 0
        self._taking = False
        self._paused = False
        self._half_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask whether there is room for this client."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None or not self._opened(self, str(peer[0])):
            self.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next octets go; never empty, because a full buffer holds a whole query."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Octets arrived."""
        self._filled += nbytes
        self._take_queries()

    def _take_queries(self) -> None:
        self._taking = True
        at = 0
        while self._transport is not None and self.under_way < MAX_PIPELINED and self._filled - at >= 2:
            length = self._buffer[at] << 8 | self._buffer[at + 1]
            if not HEADER_BYTES <= length <= MAX_QUERY_BYTES:
                self.close()
                return
            if self._filled - at < 2 + length:
                break
            query = bytes(self._buffer[at + 2 : at + 2 + length])
            at += 2 + length
            self.under_way += 1
            self.active_at = self._clock()
            self._received(self, query)
        self._buffer[: self._filled - at] = self._buffer[at : self._filled]
        self._filled -= at
        self._taking = False
        if self._transport is None:
            return
        if self.under_way >= MAX_PIPELINED and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        elif self._paused and self.under_way < MAX_PIPELINED:
            self._paused = False
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send one answer; a client that does not read its answers is cut off."""
        if self._transport is None:
            return
        self.under_way -= 1
        self.active_at = self._clock()
        self._transport.write(len(data).to_bytes(2) + data)
        if self._transport.get_write_buffer_size() > MAX_WRITE_BUFFER_BYTES:
            self.close()
        elif self._half_closed and self.under_way == 0:
            self._transport.close()
        elif self._paused and not self._taking:
            self._take_queries()

    def eof_received(self) -> bool:
        """The client has asked all it wanted; the connection stays for the answers."""
        self._half_closed = True
        return self.under_way > 0

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._closed(self)

    def close(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()
