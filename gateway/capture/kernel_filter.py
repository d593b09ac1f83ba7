"""Filter trees as classic BPF programs, the ones SO_ATTACH_FILTER takes (Documentation/networking/filter.rst).

Loads go through the kernel's own ideas of where things are (the ancillary protocol word and the network header), so
one program serves Ethernet, tunnels without a link header, and frames whose VLAN tag the kernel took off. Only hardware
addresses are read at fixed places and hence need Ethernet. A load beyond the packet rejects it, as in any classic BPF.

Code is generated backwards from two labels: each piece is told where to go on yes and on no. Jumps of conditions reach
255 instructions; where that is not enough an unconditional jump stands between.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final, assert_never

from gateway.capture.expression import (
    Address,
    Both,
    Either,
    Ethertype,
    Expression,
    FilterError,
    Mac,
    Not,
    Port,
    Protocol,
    Side,
)

SO_ATTACH_FILTER: Final = 26
SO_LOCK_FILTER: Final = 44
MOST_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
NETWORK: Final = 0xFFF00000  # SKF_NET_OFF: offsets from the network header
KERNEL_PROTOCOL: Final = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL: the EtherType as the kernel knows it

LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_HALF_AT_X, LOAD_HEADER_LENGTH = 0x48, 0xB1  # [x + k]; x = 4 * ([k] & 15)
AND, JUMP, EQUAL, GREATER, AT_LEAST, ANY_BIT, GIVE = 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
WITH_PORTS: Final = (6, 17, 132)

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


@dataclass(slots=True)
class _Code:
    """Instructions with label numbers in place of jump distances; label -1 is the next instruction."""

    lines: list[tuple[int, int, int, int]] = field(default_factory=list)
    labels: dict[int, int] = field(default_factory=dict)  # label -> index of the instruction it stands before
    next_label: int = 0

    def label(self) -> int:
        self.next_label += 1
        return self.next_label

    def place(self, label: int) -> None:
        self.labels[label] = len(self.lines)

    def put(self, code: int, operand: int) -> None:
        self.lines.append((code, 0, 0, operand & 0xFFFFFFFF))

    def test(self, code: int, operand: int, yes: int, no: int) -> None:
        self.lines.append((code, yes, no, operand & 0xFFFFFFFF))


def compile_filter(tree: Expression | None, *, snap_bytes: int, ethernet: bool = True) -> list[Instruction]:
    """The program for a tree: gives `snap_bytes` for a packet that matches, else 0. Raises FilterError."""
    if tree is None:
        return [(GIVE, 0, 0, snap_bytes)]
    code = _Code()
    accept, reject = code.label(), code.label()
    _emit(code, tree, accept, reject, ethernet)
    code.place(accept)
    code.put(GIVE, snap_bytes)
    code.place(reject)
    code.put(GIVE, 0)
    program = _resolve(code)
    if len(program) > MOST_INSTRUCTIONS:
        raise FilterError(f"the filter needs {len(program)} kernel instructions, {MOST_INSTRUCTIONS} are the most")
    return program


def attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Give the program to a socket and lock it there, so that whoever inherits the socket cannot widen it."""
    packed = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer)))
    sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


def _emit(code: _Code, tree: Expression, yes: int, no: int, ethernet: bool) -> None:
    match tree:
        case Both(left, right):
            middle = code.label()
            _emit(code, left, middle, no, ethernet)
            code.place(middle)
            _emit(code, right, yes, no, ethernet)
        case Either(left, right):
            middle = code.label()
            _emit(code, left, yes, middle, ethernet)
            code.place(middle)
            _emit(code, right, yes, no, ethernet)
        case Not(operand):
            _emit(code, operand, no, yes, ethernet)
        case Ethertype(number):
            code.put(LOAD_HALF, KERNEL_PROTOCOL)
            code.test(EQUAL, number, yes, no)
        case Protocol(number):
            _protocol(code, (number,), yes, yes, no)
        case Address(network, side):
            _address(code, network, side, yes, no)
        case Port():
            _port(code, tree, yes, no)
        case Mac(address, side):
            if not ethernet:
                raise FilterError("this interface has no hardware addresses; filter by host instead of mac")
            if side != "src":
                missed = no if side == "dst" else code.label()
                _words(code, 0, address, yes, missed)
                if side == "either":
                    code.place(missed)
            if side != "dst":
                _words(code, 6, address, yes, no)
        case _:
            assert_never(tree)


def _words(code: _Code, offset: int, value: bytes, yes: int, no: int) -> None:
    """Compare six bytes at a fixed offset."""
    second = code.label()
    code.put(LOAD_WORD, offset)
    code.test(EQUAL, int.from_bytes(value[:4], "big"), second, no)
    code.place(second)
    code.put(LOAD_HALF, offset + 4)
    code.test(EQUAL, int.from_bytes(value[4:], "big"), yes, no)


def _protocol(code: _Code, numbers: tuple[int, ...], yes4: int, yes6: int, no: int) -> None:
    """Go to `yes4` or `yes6` if the packet is IPv4 or IPv6 with one of the protocols, also behind a fragment header."""
    ipv4, not_ipv4, ipv6, fragment, behind = (code.label() for _ in range(5))
    code.put(LOAD_HALF, KERNEL_PROTOCOL)
    code.test(EQUAL, IPV4, ipv4, not_ipv4)
    code.place(ipv4)
    code.put(LOAD_BYTE, NETWORK + 9)
    _one_of(code, numbers, yes4, no)
    code.place(not_ipv4)
    code.test(EQUAL, IPV6, ipv6, no)
    code.place(ipv6)
    code.put(LOAD_BYTE, NETWORK + 6)
    _one_of(code, numbers, yes6, fragment)
    code.place(fragment)
    code.test(EQUAL, 44, behind, no)
    code.place(behind)
    code.put(LOAD_BYTE, NETWORK + 40)
    # Ports behind a fragment header are eight bytes further on, so a port test has its answer: no.
    _one_of(code, numbers, yes6 if yes4 == yes6 else no, no)


def _one_of(code: _Code, numbers: tuple[int, ...], yes: int, no: int) -> None:
    for number in numbers[:-1]:
        following = code.label()
        code.test(EQUAL, number, yes, following)
        code.place(following)
    code.test(EQUAL, numbers[-1], yes, no)


def _address(code: _Code, network: IPv4Network | IPv6Network, side: Side, yes: int, no: int) -> None:
    inside, other, arp = code.label(), code.label(), code.label()
    code.put(LOAD_HALF, KERNEL_PROTOCOL)
    if isinstance(network, IPv6Network):
        code.test(EQUAL, IPV6, inside, no)
        code.place(inside)
        _on_sides(code, network, side, (8, 24), yes, no)
        return
    code.test(EQUAL, IPV4, inside, other)
    code.place(inside)
    _on_sides(code, network, side, (12, 16), yes, no)
    code.place(other)
    code.test(EQUAL, ARP, arp, no)
    code.place(arp)
    _on_sides(code, network, side, (14, 24), yes, no)


def _on_sides(
    code: _Code, network: IPv4Network | IPv6Network, side: Side, offsets: tuple[int, int], yes: int, no: int
) -> None:
    if side == "src":
        _network_at(code, network, offsets[0], yes, no)
    elif side == "dst":
        _network_at(code, network, offsets[1], yes, no)
    else:
        other = code.label()
        _network_at(code, network, offsets[0], yes, other)
        code.place(other)
        _network_at(code, network, offsets[1], yes, no)


def _network_at(code: _Code, network: IPv4Network | IPv6Network, offset: int, yes: int, no: int) -> None:
    """Compare address words at an offset from the network header, each under its part of the mask."""
    address, mask = network.network_address.packed, network.netmask.packed
    words = [
        (at, int.from_bytes(address[at : at + 4], "big"), int.from_bytes(mask[at : at + 4], "big"))
        for at in range(0, len(address), 4)
    ]
    words = [word for word in words if word[2]]
    if not words:
        code.put(LOAD_BYTE, NETWORK)
        code.test(AT_LEAST, 0, yes, no)
        return
    for index, (at, value, bits) in enumerate(words):
        last = index == len(words) - 1
        following = yes if last else code.label()
        code.put(LOAD_WORD, NETWORK + offset + at)
        if bits != 0xFFFFFFFF:
            code.put(AND, bits)
        code.test(EQUAL, value, following, no)
        if not last:
            code.place(following)


def _port(code: _Code, port: Port, yes: int, no: int) -> None:
    ipv4, ipv6, whole = code.label(), code.label(), code.label()
    _protocol(code, WITH_PORTS, ipv4, ipv6, no)
    code.place(ipv4)
    code.put(LOAD_HALF, NETWORK + 6)
    code.test(ANY_BIT, 0x1FFF, no, whole)  # a later fragment has no ports
    code.place(whole)
    code.put(LOAD_HEADER_LENGTH, NETWORK)
    _ports_at(code, LOAD_HALF_AT_X, NETWORK, port, yes, no)
    code.place(ipv6)
    _ports_at(code, LOAD_HALF, NETWORK + 40, port, yes, no)


def _ports_at(code: _Code, load: int, offset: int, port: Port, yes: int, no: int) -> None:
    offsets = {"src": (0,), "dst": (2,), "either": (0, 2)}[port.side]
    for index, at in enumerate(offsets):
        missed = no if index == len(offsets) - 1 else code.label()
        code.put(load, offset + at)
        if port.first == port.last:
            code.test(EQUAL, port.first, yes, missed)
        else:
            reached = code.label()
            code.test(AT_LEAST, port.first, reached, missed)
            code.place(reached)
            code.test(GREATER, port.last, missed, yes)
        if missed != no:
            code.place(missed)


def _resolve(code: _Code) -> list[Instruction]:
    """Turn labels into distances, from the end backwards; far targets get an unconditional jump behind the test."""
    conditions = (EQUAL, GREATER, AT_LEAST, ANY_BIT)
    out: list[Instruction] = []  # in reverse order
    height: dict[int, int] = {}  # index of the source line -> instructions from there to the end
    for index in range(len(code.lines) - 1, -1, -1):
        operation, yes, no, operand = code.lines[index]
        if operation in conditions:
            here = len(out)
            far_yes, far_no = here - height[code.labels[yes]], here - height[code.labels[no]]
            if max(far_yes, far_no) > 255:
                # Two stepping stones; distances of both are counted from the instruction after each.
                out.append((JUMP, 0, 0, far_no))
                out.append((JUMP, 0, 0, far_yes + 1))
                far_yes, far_no = 0, 1
            out.append((operation, far_yes, far_no, operand))
        else:
            out.append((operation, 0, 0, operand))
        height[index] = len(out)
    out.reverse()
    return out
