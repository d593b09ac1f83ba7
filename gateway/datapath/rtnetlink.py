"""Dumps of the kernel's routing socket (rtnetlink(7)) without a library: for a thread, and for who has no daemon."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from gateway.datapath.nfnetlink import DUMP, REQUEST

NETLINK_ROUTE: Final = 0
READ_BYTES: Final = 1 << 16
WAIT_S: Final = 2.0
HEADER: Final = struct.Struct("=IHHII")
ERROR_NUMBER: Final = struct.Struct("=i")
_ERROR, _DONE = 2, 3


def dump(kind: int, body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each message of a dump: the datagram, and where in it the message's body begins and ends.

    Blocks for as long as the kernel takes; raises OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as asking:
        asking.settimeout(WAIT_S)
        asking.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | DUMP, 1, 0) + body)
        while True:
            data = asking.recv(READ_BYTES)
            start = 0
            while start + HEADER.size <= len(data):
                length, answer = HEADER.unpack_from(data, start)[:2]
                if answer == _DONE or length < HEADER.size or start + length > len(data):
                    return
                if answer == _ERROR:
                    number = -ERROR_NUMBER.unpack_from(data, start + HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                if length >= HEADER.size + len(body):  # answers have the same fixed part as their question
                    yield data, start + HEADER.size, start + length
                start += length + 3 & ~3
