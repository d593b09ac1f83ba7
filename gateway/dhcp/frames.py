"""Ethernet frames around DHCP and ARP: reading, building, and the kernel filters that choose them.

Packet sockets are used in both directions. Reading needs the frame's source MAC, which a UDP socket does not tell, to
refuse a client that asks in another's name. Writing must reach a client that has no address yet, which the kernel's
neighbour table cannot (RFC 2131 §4.1), and never trusts that table for one that has.

UDP and IP checksums of received frames are not verified: inside one machine they are not filled in yet (virtual
Ethernet with checksum offload), and on a wire Ethernet's own check sum has been verified.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final, NamedTuple

from gateway.addresses import MacAddress
from gateway.dhcp.v4_codec import DecodeError

ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
HEADER_ROOM: Final = 14 + 60 + 8  # Ethernet, the longest IPv4 header, UDP
BROADCAST_MAC: Final = MacAddress(b"\xff" * 6)
BROADCAST_ADDRESS: Final = 0xFFFFFFFF

_FRAME: Final = struct.Struct("!6s6sHBBHHHBBHIIHHHH")
_IP_HEADER: Final = struct.Struct("!BBHHHBBHII")
_IP_ADDRESSES: Final = struct.Struct("!II")
_UDP_PORTS_LENGTH: Final = struct.Struct("!HHH")
_ARP: Final = struct.Struct("!6s6sHHHBBH6sI6sI")


class Datagram(NamedTuple):
    """One UDP datagram as it came off the wire."""

    source_mac: bytes
    source: int
    destination: int
    payload: bytes


def read_datagram(frame: bytes) -> Datagram:
    """Take an Ethernet frame with an unfragmented UDP datagram to port 67 apart; raises DecodeError."""
    if len(frame) < 42:
        raise DecodeError("the frame is too short for Ethernet, IPv4 and UDP")
    if frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != 17:
        raise DecodeError("the frame holds no UDP over IPv4")
    udp = 14 + (frame[14] & 15) * 4
    if udp < 34 or udp + 8 > len(frame):
        raise DecodeError("the IPv4 header's length is impossible")
    _, destination_port, length = _UDP_PORTS_LENGTH.unpack_from(frame, udp)
    if destination_port != SERVER_PORT:
        raise DecodeError("the datagram is not for the DHCP server's port")
    if length < 8 or udp + length > len(frame):
        raise DecodeError("the datagram was cut short, or is larger than we read")
    source, destination = _IP_ADDRESSES.unpack_from(frame, 26)
    return Datagram(frame[6:12], source, destination, frame[udp + 8 : udp + length])


def build_datagram(source_mac: bytes, source: int, target_mac: bytes, destination: int, payload: bytes) -> bytes:
    """Build the frame of a datagram from the server's port to the client's."""
    udp_length = 8 + len(payload)
    total = 20 + udp_length
    header = _IP_HEADER.pack(0x45, 0, total, 0, 0x4000, 64, 17, 0, source, destination)
    even = payload if len(payload) % 2 == 0 else payload + b"\0"
    # 2**16 is 1 modulo 65535, so the one's-complement sum of 16-bit words is the number itself modulo 65535.
    udp_sum = source + destination + 17 + 2 * udp_length + SERVER_PORT + CLIENT_PORT + int.from_bytes(even, "big")
    return (
        _FRAME.pack(
            target_mac,
            source_mac,
            ETH_P_IP,
            0x45,
            0,
            total,
            0,
            0x4000,  # do not fragment; so the identification may be 0 (RFC 6864 §4.1)
            64,
            17,
            0xFFFF - int.from_bytes(header, "big") % 0xFFFF,
            source,
            destination,
            SERVER_PORT,
            CLIENT_PORT,
            udp_length,
            0xFFFF - udp_sum % 0xFFFF,
        )
        + payload
    )


class ArpSeen(NamedTuple):
    """Sender and target of an ARP packet; `sender` is 0 in a probe (RFC 5227 §1.1)."""

    sender_mac: bytes
    sender: int
    target: int


def read_arp(frame: bytes) -> ArpSeen:
    """Read an ARP request or answer for IPv4 over Ethernet; raises DecodeError."""
    if len(frame) < _ARP.size:
        raise DecodeError("the frame is too short for ARP")
    _, _, ethertype, hardware, protocol, hlen, plen, _, sender_mac, sender, _, target = _ARP.unpack_from(frame)
    if (ethertype, hardware, protocol, hlen, plen) != (ETH_P_ARP, 1, ETH_P_IP, 6, 4):
        raise DecodeError("not ARP for IPv4 over Ethernet")
    return ArpSeen(sender_mac, sender, target)


def build_arp_probe(source_mac: bytes, target: int) -> bytes:
    """Ask who has an address without claiming one of our own (RFC 5227 §2.1.1)."""
    return _ARP.pack(BROADCAST_MAC, source_mac, ETH_P_ARP, 1, ETH_P_IP, 6, 4, 1, source_mac, 0, bytes(6), target)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


# Classic BPF (linux/filter.h): load halfword, load byte, load word, X from the IP header length, load relative to X,
# jump if equal, jump if any bit set, return.
_LDH, _LDB, _LDW, _LDX_IP, _LDH_X, _JEQ, _JSET, _RET = 0x28, 0x30, 0x20, 0xB1, 0x48, 0x15, 0x45, 0x06
_PACKET_TYPE: Final = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE
_PACKET_OTHERHOST: Final = 3

DHCP_FILTER: Final = (
    (_LDW, 0, 0, _PACKET_TYPE),
    (_JEQ, 9, 0, _PACKET_OTHERHOST),  # for somebody else, seen because a capture runs on the interface
    (_LDH, 0, 0, 12),
    (_JEQ, 0, 7, ETH_P_IP),
    (_LDB, 0, 0, 23),
    (_JEQ, 0, 5, 17),
    (_LDH, 0, 0, 20),
    (_JSET, 3, 0, 0x3FFF),  # a fragment
    (_LDX_IP, 0, 0, 14),
    (_LDH_X, 0, 0, 16),
    (_JEQ, 1, 0, SERVER_PORT),
    (_RET, 0, 0, 0),
    (_RET, 0, 0, 0x40000),
)
ARP_FILTER: Final = ((_LDH, 0, 0, 12), (_JEQ, 0, 1, ETH_P_ARP), (_RET, 0, 0, 64), (_RET, 0, 0, 0))
NOTHING_FILTER: Final = ((_RET, 0, 0, 0),)


class KernelFilter:
    """A classic BPF program in the form that SO_ATTACH_FILTER takes; must outlive the setsockopt call only."""

    def __init__(self, program: tuple[tuple[int, int, int, int], ...]) -> None:
        self._instructions = (_Instruction * len(program))(*(_Instruction(*line) for line in program))
        # struct sock_fprog: a 16-bit count, padding to the pointer's alignment, the pointer.
        self.argument: Final = struct.pack("@HP", len(program), ctypes.addressof(self._instructions))
