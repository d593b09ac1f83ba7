"""Ethernet frames: what is built is what is read, and checksums are right."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dhcp.frames import build_arp_probe, build_datagram, read_arp, read_datagram
from gateway.dhcp.v4_codec import DecodeError

OURS = bytes.fromhex("02005e000001")
THEIRS = bytes.fromhex("02005e100001")
macs = st.binary(min_size=6, max_size=6)
addresses = st.integers(0, 2**32 - 1)


def ones_complement(octets: bytes) -> int:
    """The sum that is 0xffff over data with a right checksum in it (RFC 1071)."""
    octets += b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def to_server(frame: bytes) -> bytes:
    """The same frame with the ports of a client's message."""
    return frame[:34] + struct.pack("!HH", 68, 67) + frame[38:]


@given(macs, addresses, macs, addresses, st.binary(max_size=700))
def test_checksums_of_built_datagrams_are_right(
    source_mac: bytes, source: int, target_mac: bytes, target: int, payload: bytes
) -> None:
    """IP and UDP checksums hold for every payload, odd lengths included, and UDP's is never "none"."""
    frame = build_datagram(source_mac, source, target_mac, target, payload)
    assert ones_complement(frame[14:34]) == 0xFFFF
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, len(payload) + 8)
    assert ones_complement(pseudo + frame[34:]) == 0xFFFF
    assert frame[40:42] != b"\0\0"


@given(macs, addresses, addresses, st.binary(max_size=700), st.integers(0, 20))
def test_a_datagram_is_read_back_without_the_padding(
    mac: bytes, source: int, target: int, payload: bytes, padding: int
) -> None:
    """Sender and payload come back; what Ethernet added at the end does not."""
    frame = to_server(build_datagram(mac, source, OURS, target, payload)) + bytes(padding)
    assert read_datagram(frame) == (mac, source, target, payload)


def test_ip_options_are_stepped_over() -> None:
    """A header longer than 20 octets moves the datagram."""
    frame = to_server(build_datagram(THEIRS, 1, OURS, 2, b"payload"))
    longer = frame[:14] + b"\x46" + frame[15:34] + bytes(4) + frame[34:]
    assert read_datagram(longer).payload == b"payload"


@given(st.binary(max_size=120))
def test_any_frame_is_read_or_refused(frame: bytes) -> None:
    """Whatever arrives, the readers raise nothing but DecodeError."""
    proper = to_server(build_datagram(THEIRS, 1, OURS, 2, frame))
    source = random.Random(frame)
    damaged = bytearray(proper[: source.randrange(len(proper) + 1)])
    for _ in range(3):
        if damaged:
            damaged[source.randrange(len(damaged))] = source.randrange(256)
    for candidate in (frame, bytes(damaged), frame[:12] + b"\x08\x06" + frame[12:]):
        for reader in (read_datagram, read_arp):
            try:
                reader(candidate)
            except DecodeError:
                pass


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame[:40], "too short"),
        (lambda frame: frame[:12] + b"\x86\xdd" + frame[14:], "no UDP over IPv4"),
        (lambda frame: frame[:23] + b"\x06" + frame[24:], "no UDP over IPv4"),
        (lambda frame: frame[:14] + b"\x4f" + frame[15:], "length is impossible"),
        (lambda frame: frame[:14] + b"\x44" + frame[15:], "length is impossible"),
        (lambda frame: frame[:36] + b"\x00\x35" + frame[38:], "not for the DHCP server"),
        (lambda frame: frame[:38] + b"\xff\xff" + frame[40:], "cut short"),
        (lambda frame: frame[:38] + b"\x00\x07" + frame[40:], "cut short"),
    ],
)
def test_what_is_wrong_with_a_frame_is_said(change: object, sentence: str) -> None:
    """Each kind of damage has its own words."""
    assert callable(change)
    with pytest.raises(DecodeError, match=sentence):
        read_datagram(change(to_server(build_datagram(THEIRS, 1, OURS, 2, b"x" * 10))))


def test_an_arp_probe_claims_no_address() -> None:
    """Our question has sender address 0, goes to everyone and names the target (RFC 5227 §2.1.1)."""
    frame = build_arp_probe(OURS, 0x0A290010)
    assert frame[:6] == b"\xff" * 6
    assert read_arp(frame) == (OURS, 0, 0x0A290010)


def test_arp_for_other_protocols_is_refused() -> None:
    """ARP for anything but IPv4 over Ethernet says nothing about our addresses."""
    frame = build_arp_probe(OURS, 1)
    with pytest.raises(DecodeError, match="not ARP"):
        read_arp(frame[:16] + b"\x86\xdd" + frame[18:])
