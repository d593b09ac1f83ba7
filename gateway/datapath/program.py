"""The program of a guest interface's seal, as instructions of eBPF. Pure; `seal` puts it in its place.

It runs on every frame that comes in (tc ingress, before IP sees it) and says of those that are meant for this box that
they were sent to many: the kernel forwards no such packet, of either family, and TCP does not take it. The mark that it
sets tells our table, in prerouting, which frames to give back what they were (`ruleset`). So whatever does not meet
our table goes nowhere, and no routing rule is needed for it.

What it leaves alone: broadcast and frames for others, which are not forwarded anyway; frames of a VLAN, which belong to
another interface; packets that have a mark, because with bridge-nf-call-iptables our table has seen them already; and
what is neither IP nor a VLAN's frame in one of VLAN 0 (which the kernel unpacks after us), above all ARP.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from typing import Final

from gateway.datapath.ruleset import sealed_mark

OURS: Final = "postern "  # begins the names of our filters
_CHANGE_TYPE: Final = 32  # the helper bpf_skb_change_type
_MULTICAST: Final = 2  # PACKET_MULTICAST
_NEXT_FILTER: Final = -1  # TC_ACT_UNSPEC: whoever else filters here goes on

# Fields of struct __sk_buff.
_TYPE, _MARK, _PROTOCOL, _TAGGED, _TAG = 4, 8, 16, 20, 24
_VLAN_NUMBER: Final = 0x0FFF
SEALED_PROTOCOLS: Final = (0x0800, 0x86DD, 0x8100, 0x88A8)  # IPv4, IPv6, and tags inside a tag

_READ, _WRITE, _COPY, _SET, _AND, _CALL, _END = 0x61, 0x63, 0xBF, 0xB7, 0x57, 0x85, 0x95
_IF_EQUAL, _IF_NOT, _JUMP = 0x15, 0x55, 0x05


def seal_program(mark: int) -> bytes:
    """The instructions, for frames that shall get this mark."""
    leave = "leave"
    lines: list[tuple[int, int, int, int | str, int]] = [
        (_COPY, 6, 1, 0, 0),  # the frame; a call does not keep r1
        (_READ, 2, 6, _TYPE, 0),
        (_IF_NOT, 2, 0, leave, 0),
        (_READ, 2, 6, _MARK, 0),
        (_IF_NOT, 2, 0, leave, 0),
        (_READ, 2, 6, _TAGGED, 0),  # what is left of a tag that was taken off is in the next field
        (_IF_EQUAL, 2, 0, 3, 0),
        (_READ, 2, 6, _TAG, 0),
        (_AND, 2, 0, 0, _VLAN_NUMBER),
        (_IF_NOT, 2, 0, leave, 0),
        (_READ, 2, 6, _PROTOCOL, 0),
        *((_IF_EQUAL, 2, 0, "seal", in_network_order(protocol)) for protocol in SEALED_PROTOCOLS),
        (_JUMP, 0, 0, leave, 0),
        (_SET, 2, 0, 0, mark),  # "seal"
        (_WRITE, 6, 2, _MARK, 0),
        (_COPY, 1, 6, 0, 0),
        (_SET, 2, 0, 0, _MULTICAST),
        (_CALL, 0, 0, 0, _CHANGE_TYPE),
        (_SET, 0, 0, 0, _NEXT_FILTER),  # "leave"
        (_END, 0, 0, 0, 0),
    ]
    labels = {"seal": len(lines) - 7, leave: len(lines) - 2}
    return b"".join(
        _instruction(code, to, source, offset if isinstance(offset, int) else labels[offset] - place - 1, value)
        for place, (code, to, source, offset, value) in enumerate(lines)
    )


def name_of(interface: str) -> str:
    """The name of the filter that this version of ours puts on an interface."""
    return OURS + hashlib.sha256(seal_program(sealed_mark(interface))).hexdigest()[:16]


def in_network_order(number: int) -> int:
    """A number of 16 bits as the kernel compares it without looking at its order."""
    return int.from_bytes(number.to_bytes(2, "big"), sys.byteorder)


def _instruction(code: int, to: int, source: int, offset: int, value: int) -> bytes:
    registers = source << 4 | to if sys.byteorder == "little" else to << 4 | source
    return struct.pack("=BBhi", code, registers, offset, value)
