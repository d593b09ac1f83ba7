"""The packet socket of a recording: filter first, then ring, then interface, so that no unfiltered packet is ever held.

The kernel puts matching packets into a ring of blocks shared with the recorder (TPACKET_V3, packet(7) and
Documentation/networking/packet_mmap.rst). When the recorder is slow the ring is full and the kernel counts a drop:
nothing waits for it, so a recording at line rate never slows a login. The socket is made by whoever has CAP_NET_RAW and
inherited by a child that has nothing; the filter is locked to it.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.capture.expression import Expression
from gateway.capture.kernel_filter import attach, compile_filter
from gateway.values import value_class

SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 1, 5, 6, 10
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_PROMISC: Final = 1
TPACKET_V3: Final = 2
ETH_P_ALL: Final = 3
BLOCK_BYTES: Final = 1 << 18
BLOCKS: Final = 16  # 4 MB in all: a third of a second of a saturated 100 Mbit/s line
RETIRE_MS: Final = 100  # the kernel hands over a block that is not full after so long
STATUS_USER: Final = 1
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_PPP, ARPHRD_NONE = 1, 772, 512, 0xFFFE
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101

_PACKET: Final = struct.Struct("=IIIIIIHHIIH")  # next, sec, nsec, snaplen, len, status, mac, net, hash, tci, tpid
_BLOCK: Final = struct.Struct("=III")  # status, packets, offset of the first
_RECORD: Final = struct.Struct("=IIII")


class TapError(Exception):
    """The interface cannot be recorded; the message says why and what would help."""


@value_class
class Tap:
    """An open, filtered, bound packet socket and what its frames begin with."""

    sock: socket.socket
    linktype: int


def link_type(interface: str) -> int:
    """What frames of an interface begin with, as a pcap link type; raises TapError."""
    path = Path("/sys/class/net") / interface / "type"
    try:
        if "/" in interface:
            raise FileNotFoundError(interface)
        hardware = int(path.read_text())
    except (OSError, ValueError):
        known = sorted(entry.name for entry in Path("/sys/class/net").iterdir())
        raise TapError(f"there is no interface {interface!r} here; there are {', '.join(known)}") from None
    if hardware in {ARPHRD_ETHER, ARPHRD_LOOPBACK}:
        return LINKTYPE_ETHERNET
    if hardware in {ARPHRD_PPP, ARPHRD_NONE}:
        return LINKTYPE_RAW
    raise TapError(f"interface {interface} has hardware type {hardware}; Ethernet, PPP and tunnels can be recorded")


def open_tap(interface: str, tree: Expression | None, *, snap_bytes: int, promiscuous: bool = False) -> Tap:
    """Open the socket of a recording; needs CAP_NET_RAW. Raises TapError and FilterError."""
    linktype = link_type(interface)
    program = compile_filter(tree, snap_bytes=snap_bytes, ethernet=linktype == LINKTYPE_ETHERNET)
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except PermissionError:
        raise TapError("recording needs root or CAP_NET_RAW; run it with sudo, or through the daemon") from None
    try:
        attach(sock, program)
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        ring = struct.pack("=7I", BLOCK_BYTES, BLOCKS, 2048, BLOCK_BYTES // 2048 * BLOCKS, RETIRE_MS, 0, 0)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, ring)
        if interface == "lo":  # whatever leaves there comes back, and would be recorded twice
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind((interface, ETH_P_ALL))
        if promiscuous:
            request = struct.pack("=iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
    except OSError as err:
        sock.close()
        raise TapError(f"interface {interface} cannot be recorded: {err.strerror}") from err
    return Tap(sock, linktype)


class Ring:
    """The reading side of the shared ring."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._memory = mmap.mmap(sock.fileno(), BLOCK_BYTES * BLOCKS)
        self._block = 0
        self._dropped = 0

    def close(self) -> None:
        """Unmap the ring."""
        self._memory.close()

    def blocks(self, linktype: int) -> Iterator[list[bytes]]:
        """Each block the kernel has handed over, as pcap records; it goes back when the next one is asked for."""
        while True:
            base = self._block * BLOCK_BYTES
            status, packets, first = _BLOCK.unpack_from(self._memory, base + 8)
            if not status & STATUS_USER:
                return
            yield _records(self._memory, base + first, packets, linktype)
            struct.pack_into("=I", self._memory, base + 8, 0)
            self._block = (self._block + 1) % BLOCKS

    def dropped(self) -> int:
        """Packets the kernel could not put into the ring since the start of the recording."""
        _, drops, _ = struct.unpack("=III", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
        self._dropped += drops  # reading resets the kernel's counter
        return self._dropped


def _records(memory: mmap.mmap, at: int, packets: int, linktype: int) -> list[bytes]:
    records = []
    for _ in range(packets):
        next_offset, sec, nsec, captured, length, status, mac, _, _, tci, tpid = _PACKET.unpack_from(memory, at)
        start = at + mac
        frame = memory[start : start + captured]
        if status & VLAN_VALID and linktype == LINKTYPE_ETHERNET and captured >= 12:
            # The kernel took the tag off the frame; a capture without it would show the wrong network.
            tag = struct.pack(">HH", tpid if status & VLAN_TPID_VALID else 0x8100, tci)
            frame = frame[:12] + tag + frame[12:]
            captured += 4
            length += 4
        records.append(_RECORD.pack(sec, nsec, captured, length) + frame)
        at += next_offset
    return records
