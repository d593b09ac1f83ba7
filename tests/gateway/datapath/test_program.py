"""The seal's program, run by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import socket
import struct
import sys

from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.program import SEALED_PROTOCOLS, name_of, seal_program
from gateway.datapath.ruleset import sealed_mark

HOST, MULTICAST = 0, 2
MARK = sealed_mark("br-guest")
CODE = seal_program(MARK)
ARP, EAPOL, PPPOE = 0x0806, 0x888E, 0x8864


def run(code: bytes, fields: dict[int, int]) -> tuple[dict[int, int], int]:
    """Run a program on a frame, whose fields are by their places; returns them as it left them, and its answer."""
    left = dict(fields)
    registers = {1: 0}
    at = 0
    for _ in range(len(code) // 8):
        number, pair, offset, value = struct.unpack_from("=BBhi", code, 8 * at)
        to, source = (pair & 15, pair >> 4) if sys.byteorder == "little" else (pair >> 4, pair & 15)
        at += 1
        match number:
            case 0xBF:
                registers[to] = registers[source]
            case 0xB7:
                registers[to] = value
            case 0x57:
                registers[to] &= value
            case 0x61:
                registers[to] = left[offset]
            case 0x63:
                left[offset] = registers[source]
            case 0x15 | 0x55 if (registers[to] == value) is (number == 0x15):
                at += offset
            case 0x15 | 0x55:
                pass
            case 0x05:
                at += offset
            case 0x85:
                assert value == 32
                left[4] = registers[2]
                registers = {0: 0} | {kept: registers[kept] for kept in range(6, 10) if kept in registers}
            case 0x95:
                return left, registers[0]
            case _:
                raise AssertionError(f"unknown instruction {number:#x}")
    raise AssertionError("the program does not end")


@given(
    kind=st.integers(0, 3),
    mark=st.sampled_from([0, 0, 1, MARK, 0xFFFFFFFF]),
    protocol=st.sampled_from([*SEALED_PROTOCOLS, ARP, EAPOL, PPPOE, 0, 0xFFFF]),
    tagged=st.booleans(),
    tag=st.sampled_from([0, 1, 20, 0xFFF, 0x1000, 0xE000, 0xFFFF]),
)
def test_what_is_sealed_and_what_is_left_alone(kind: int, mark: int, protocol: int, tagged: bool, tag: int) -> None:
    """Unmarked IP frames for this box, in no VLAN or number 0, are marked and sent to many; others stay the same."""
    before = {4: kind, 8: mark, 16: socket.htons(protocol), 20: int(tagged), 24: tag}
    after, answer = run(CODE, before)
    other_vlan = tagged and tag & 0xFFF
    if kind == HOST and mark == 0 and protocol in SEALED_PROTOCOLS and not other_vlan:
        assert after == before | {4: MULTICAST, 8: MARK}
    else:
        assert after == before
    assert answer == -1


def test_each_interface_has_its_own_mark_far_from_those_of_clients() -> None:
    """Marks and names follow from the interface's name alone."""
    names = ["br-guest", "br-guest2", "wlan0", "wlan1", "eth0.10", "eth0.11"]
    marks = [sealed_mark(name) for name in names]
    assert len(set(marks)) == len(names)
    assert all(0x01000000 <= mark < 0x02000000 for mark in marks)
    assert len({name_of(name) for name in names}) == len(names)
    assert sealed_mark("br-guest") == 0x1BCC26D  # what a running gate has, and the next version must have
