"""Compiled filters, run by a small interpreter of classic BPF and held against a plain reading of the packet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capture.expression import Either, Expression, FilterError, parse
from gateway.capture.kernel_filter import KERNEL_PROTOCOL, NETWORK, Instruction, compile_filter
from tests.gateway.analysis.made_packets import MACS, ethernet, ip_packet

ARP = MACS + bytes.fromhex("0806 0001 0800 06 04 0001 020000000002 0a000005 000000000000 0a000001")
A4, B4, C4 = "10.0.0.5", "192.0.2.9", "203.0.113.7"
A6, B6 = "2001:db8::5", "2001:db8:9::1"


def run(program: list[Instruction], frame: bytes, *, link: int = 14, protocol: int | None = None) -> int:
    """Interpret a program as the kernel does: loads outside the packet reject it."""
    if protocol is None:
        protocol = int.from_bytes(frame[12:14], "big")
    a = x = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code in {0x20, 0x28, 0x30, 0x48, 0xB1}:
            size = {0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2, 0xB1: 1}[code]
            if k == KERNEL_PROTOCOL:
                a = protocol
                continue
            offset = k - NETWORK + link if k >= NETWORK else k
            offset += x if code == 0x48 else 0
            if offset + size > len(frame):
                return 0
            value = int.from_bytes(frame[offset : offset + size], "big")
            if code == 0xB1:
                x = (value & 15) * 4
            else:
                a = value
        elif code == 0x54:
            a &= k
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return k
        else:
            truth = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[code]
            at += yes if truth else no


def matches(text: str, frame: bytes) -> bool:
    """Whether a filter lets a frame pass."""
    return run(compile_filter(parse(text), snap_bytes=96), frame) == 96


def _l4(protocol: int, source: str, target: str, source_port: int = 0, target_port: int = 0) -> bytes:
    ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    return ethernet(ip_packet(source, target, protocol, ports + bytes(20)))


@pytest.mark.parametrize(
    ("text", "frame", "passes"),
    [
        ("", ARP, True),
        ("host 10.0.0.5", _l4(6, A4, B4), True),
        ("host 10.0.0.5", _l4(6, B4, A4), True),
        ("src host 10.0.0.5", _l4(6, B4, A4), False),
        ("dst host 10.0.0.5", _l4(6, B4, A4), True),
        ("host 10.0.0.5", _l4(6, B4, C4), False),
        ("host 10.0.0.5", ARP, True),
        ("host 10.0.0.9", ARP, False),
        ("host 2001:db8::5", _l4(17, A6, B6), True),
        ("host 2001:db8::6", _l4(17, A6, B6), False),
        ("net 10.0.0.0/8", _l4(6, A4, B4), True),
        ("net 10.1.0.0/16", _l4(6, A4, B4), False),
        ("net 2001:db8:9::/48", _l4(6, A6, B6), True),
        ("net 0.0.0.0/0", _l4(6, A4, B4), True),
        ("net 0.0.0.0/0", _l4(6, A6, B6), False),
        ("port 53", _l4(17, A4, B4, 5000, 53), True),
        ("port 53", _l4(17, A6, B6, 53, 5000), True),
        ("src port 53", _l4(17, A4, B4, 5000, 53), False),
        ("port 53", _l4(1, A4, B4, 53, 53), False),
        ("portrange 50-60", _l4(6, A4, B4, 5000, 60), True),
        ("portrange 50-60", _l4(6, A4, B4, 5000, 61), False),
        ("tcp", _l4(6, A6, B6), True),
        ("tcp", _l4(17, A6, B6), False),
        ("icmp6", _l4(58, A6, B6), True),
        ("arp", ARP, True),
        ("not arp", ARP, False),
        ("ip6", _l4(6, A4, B4), False),
        ("mac 02:00:00:00:00:01", _l4(6, A4, B4), True),
        ("ether src 02:00:00:00:00:01", _l4(6, A4, B4), False),
        ("ether dst 02:00:00:00:00:01", _l4(6, A4, B4), True),
        ("mac 02:00:00:00:00:03", _l4(6, A4, B4), False),
        ("host 10.0.0.5 and (tcp or udp) and not port 22", _l4(6, A4, B4, 40000, 22), False),
        ("host 10.0.0.5 and (tcp or udp) and not port 22", _l4(6, A4, B4, 40000, 23), True),
    ],
)
def test_a_filter_lets_pass_what_it_says(text: str, frame: bytes, passes: bool) -> None:
    """Hosts, networks, ports, protocols and hardware addresses, in IPv4, IPv6 and ARP."""
    assert matches(text, frame) is passes


def test_options_move_the_ports() -> None:
    """An IPv4 header with options has its ports further on."""
    packet = bytearray(ip_packet(A4, B4, 17, bytes(8) + (5000).to_bytes(2, "big") + (53).to_bytes(2, "big") + bytes(8)))
    packet[0] = 0x47
    assert matches("dst port 53", ethernet(bytes(packet)))


def test_a_later_fragment_has_no_ports_and_a_fragment_header_hides_no_protocol() -> None:
    """What stands where ports would be is data; UDP behind a fragment header is UDP."""
    frame = bytearray(_l4(17, A4, B4, 53, 53))
    frame[20:22] = (185).to_bytes(2, "big")
    assert not matches("port 53", bytes(frame))
    fragment = ethernet(ip_packet(A6, B6, 44, bytes((17, 0, 0, 1, 0, 0, 0, 1)) + bytes(20)))
    assert matches("udp", fragment)


def test_a_packet_too_short_for_the_question_is_left_out() -> None:
    """As in every classic BPF program."""
    assert not matches("port 53", _l4(17, A4, B4, 53, 53)[:30])


def test_an_interface_without_hardware_addresses_cannot_be_asked_for_them() -> None:
    """The message says what to do instead."""
    with pytest.raises(FilterError, match="filter by host"):
        compile_filter(parse("mac 02:00:00:00:00:01"), snap_bytes=96, ethernet=False)


def test_a_raw_ip_packet_is_filtered_by_the_same_program() -> None:
    """Without a link header the network header begins at the first byte."""
    packet = _l4(17, A4, B4, 5000, 53)[14:]
    program = compile_filter(parse("host 10.0.0.5 and port 53"), snap_bytes=96, ethernet=False)
    assert run(program, packet, link=0, protocol=0x0800) == 96


def test_a_long_filter_jumps_over_255_instructions() -> None:
    """Two hundred hosts are matched, the first as well as the last, and no jump goes astray."""
    hosts = [f"10.9.{n // 256}.{n % 256}" for n in range(200)]
    tree: Expression | None = None
    for host in hosts:
        part = parse(f"host {host}")
        assert part is not None
        tree = part if tree is None else Either(tree, part)
    program = compile_filter(tree, snap_bytes=96)
    assert len(program) > 600
    for host in (hosts[0], hosts[100], hosts[-1]):
        assert run(program, _l4(6, B4, host)) == 96
    assert run(program, _l4(6, B4, C4)) == 0


def test_a_filter_too_long_for_the_kernel_is_refused() -> None:
    """The limit of the kernel is named."""
    tree = parse("tcp")
    assert tree is not None
    for n in range(600):
        part = parse(f"host 10.9.{n // 256}.{n % 256}")
        assert part is not None
        tree = Either(tree, part)
    with pytest.raises(FilterError, match="4096 are the most"):
        compile_filter(tree, snap_bytes=96)


_TERMS = (
    "host 10.0.0.5",
    "net 192.0.2.0/24",
    "port 53",
    "src port 22",
    "tcp",
    "udp",
    "ip6",
    "host 2001:db8::5",
    "mac 02:00:00:00:00:02",
)


@given(
    st.recursive(
        st.sampled_from(_TERMS),
        lambda inner: st.one_of(
            inner.map(lambda a: f"not ({a})"),
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        ),
        max_leaves=12,
    ),
    st.sampled_from([(6, A4, B4), (17, B4, A4), (6, A6, B6), (17, C4, B4), (1, A4, C4)]),
    st.sampled_from([22, 53, 80]),
    st.sampled_from([22, 53, 80]),
)
def test_any_combination_means_what_its_parts_mean(
    text: str, ends: tuple[int, str, str], source_port: int, target_port: int
) -> None:
    """A compiled tree gives the same answer as Python's and, or, not over single terms."""
    frame = _l4(*ends, source_port, target_port)
    plain = text
    for term in sorted(_TERMS, key=len, reverse=True):
        plain = plain.replace(term, f" {'T' if matches(term, frame) else 'F'} ")
    expected = eval(plain, {"__builtins__": {}, "T": True, "F": False})  # words of the lines above
    assert matches(text, frame) is expected


def test_addresses_of_the_test_are_what_they_seem() -> None:
    """The interpreter reads what the frames hold."""
    assert _l4(6, A4, B4)[26:30] == ip_address(A4).packed
