"""nfnetlink, as much of it as the gate needs: messages, attributes, batches and one socket.

A transaction is one datagram to the kernel and is decided before `send` returns, so a round trip never waits: what the
kernel has to say is in the receive queue. Numbers in headers are native, those in attributes are in network order
(linux/netfilter/nfnetlink.h); a message's sequence number is its place in the request, which is how an error names its
cause.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

NETLINK_NETFILTER: Final = 12
SUBSYSTEM_CONNTRACK: Final = 1
SUBSYSTEM_NFTABLES: Final = 10

REQUEST: Final = 0x1
ACK: Final = 0x4
ECHO: Final = 0x8
DUMP: Final = 0x300
CREATE: Final = 0x400

NFPROTO_INET: Final = 1

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32
_BUFFER_BYTES: Final = 8 << 20
_READ_BYTES: Final = 1 << 16
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF

HEADER: Final = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
_MESSAGE: Final = struct.Struct("=IHHI")
_NUMBER: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")


class KernelRefused(OSError):
    """The kernel answered a request with an error; `place` is the message's position in the request."""

    def __init__(self, number: int, place: int) -> None:
        super().__init__(number, os.strerror(number))
        self.place = place


class Reply(NamedTuple):
    """One message of the kernel: its type within the subsystem, and where in `data` its attributes lie."""

    kind: int
    data: bytes
    start: int
    end: int


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to four octets."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    """Encode an attribute that holds attributes."""
    value = b"".join(parts)
    return _ATTRIBUTE.pack(4 + len(value), kind | _NESTED) + value  # its parts are padded already


def message(subsystem: int, kind: int, flags: int, place: int, body: bytes, *, family: int = NFPROTO_INET) -> bytes:
    """Encode one message with its headers; `place` comes back with what it causes."""
    return HEADER.pack(20 + len(body), subsystem << 8 | kind, flags | REQUEST, place, 0, family, 0, 0) + body


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk over attributes: type, start and end of each value; stops at what does not fit."""
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & _TYPE_MASK, start + 4, start + length
        start += length + 3 & ~3


BATCH_BEGIN: Final = HEADER.pack(20, _BATCH_BEGIN, REQUEST, 0, 0, 0, 0, socket.htons(SUBSYSTEM_NFTABLES))
BATCH_END: Final = HEADER.pack(20, _BATCH_END, REQUEST, 0, 0, 0, 0, socket.htons(SUBSYSTEM_NFTABLES))


class Channel:
    """One nfnetlink socket. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._buffer = bytearray(_READ_BYTES)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
                try:
                    self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
                except PermissionError:
                    pass  # without CAP_NET_ADMIN over the host the default must do; requests are sized for it
            # An error needs no copy of the message that caused it.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.bind((0, 0))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket; the kernel keeps what was set."""
        self._socket.close()

    def transact(self, messages: Sequence[bytes], last: int) -> list[Reply]:
        """Send a batch whose message at place `last` asks for an acknowledgement; returns echoed messages.

        All or nothing: raises KernelRefused for the first message that the kernel did not take.
        """
        return self._exchange(b"".join((BATCH_BEGIN, *messages, BATCH_END)), last)

    def ask(self, request: bytes, place: int) -> list[Reply]:
        """Send a request (ACK or DUMP set) and return its replies; raises KernelRefused."""
        return self._exchange(request, place)

    def ask_tolerantly(self, request: bytes, place: int) -> tuple[list[Reply], KernelRefused | None]:
        """As `ask`, but returns the replies that came before an error together with it."""
        replies: list[Reply] = []
        self._socket.send(request)
        return replies, self._collect(replies, place)

    def dump(self, request: bytes) -> Iterator[list[Reply]]:
        """Send a DUMP request and yield its replies, one datagram at a time; raises KernelRefused.

        The kernel writes the next datagram when one is taken, so nothing piles up. A table that changes meanwhile may
        give an element twice or not at all; who needs better asks for elements by name.
        """
        self._socket.send(request)
        while True:
            replies: list[Reply] = []
            finished = self._take(replies)
            yield replies
            if finished:
                return

    def _take(self, replies: list[Reply]) -> bool:
        """Read one datagram of a dump; returns whether it was the last."""
        size = self._socket.recv_into(self._buffer)
        data = bytes(memoryview(self._buffer)[:size])
        start = 0
        while start + 16 <= size:
            length, kind, _flags, place = _MESSAGE.unpack_from(data, start)
            if length < 16 or start + length > size:
                raise KernelRefused(errno.EBADMSG, place)
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                number = -_NUMBER.unpack_from(data, start + 16)[0] if length >= 20 else 0
                if number:
                    raise KernelRefused(number, place)
                return True
            replies.append(Reply(kind & 0xFF, data, start + 20, start + length))
            start += length + 3 & ~3
        return False

    def _exchange(self, request: bytes, last: int) -> list[Reply]:
        replies: list[Reply] = []
        self._socket.send(request)
        refused = self._collect(replies, last)
        if refused is not None:
            raise refused
        return replies

    def _collect(self, replies: list[Reply], last: int) -> KernelRefused | None:
        """Read up to the answer for `last`; what comes before it is replies, echoes and errors of other messages."""
        refused: KernelRefused | None = None
        buffer = self._buffer
        while True:
            try:
                size = self._socket.recv_into(buffer)
            except BlockingIOError:
                # The kernel had said all it had to say: an error at the batch's begin suppresses everything after it.
                return refused or KernelRefused(errno.EPROTO, last)
            data = b""
            start = 0
            while start + 16 <= size:
                length, kind, _flags, place = _MESSAGE.unpack_from(buffer, start)
                if length < 16 or start + length > size:
                    return refused or KernelRefused(errno.EBADMSG, last)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    number = -_NUMBER.unpack_from(buffer, start + 16)[0] if length >= 20 else 0
                    if number and refused is None:
                        refused = KernelRefused(number, place)
                    if kind == _NLMSG_DONE or place == last:
                        return refused
                else:
                    data = data or bytes(memoryview(buffer)[:size])
                    replies.append(Reply(kind & 0xFF, data, start + 20, start + length))
                start += length + 3 & ~3
