"""Link layers: where the network packet of a record begins, and of which kind it is.

Walked always: any 802.1Q and 802.1ad tags (four at most), PPPoE sessions, MPLS stacks, LLC/SNAP. 802.11 frames are
followed as far as an unencrypted LLC header, behind whatever the recorder has put in front of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
ARP: Final = 0x0806

_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_MPLS: Final = (0x8847, 0x8848)
_PPPOE: Final = 0x8864
_PPP: Final = {0x0021: IPV4, 0x0057: IPV6, 0x0281: 0x8847, 0x0283: 0x8848}
_NULL_IPV6: Final = (10, 24, 28, 30)
_LLC_SNAP: Final = b"\xaa\xaa\x03"
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_AVS_MAGIC: Final = b"\x80\x21\x10\x01"
_FRAME_RELAY: Final = {0xCC: IPV4, 0x8E: IPV6}  # by network layer protocol id (RFC 2427)
DECODED: Final = _RAW | {
    0,
    1,
    6,
    9,
    10,
    50,
    51,
    100,
    104,
    105,
    107,
    108,
    109,
    113,
    117,
    119,
    127,
    163,
    192,
    204,
    239,
    276,
}

OTHER_NAMES: Final = {
    0x0806: "ARP",
    0x8035: "RARP",
    0x88CC: "LLDP",
    0x888E: "EAPOL",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE",
    0x88E5: "MACsec",
    0x8809: "slow protocols",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x890D: "802.11 encapsulation",
    0x88E1: "HomePlug",
    0x86DD: "IPv6",
    0x0800: "IPv4",
}


class Found(NamedTuple):
    """The network packet: its type as an ethertype, where it begins, the outer VLAN id, and where it must end."""

    ethertype: int
    start: int
    vlan: int
    end: int | None  # of an enclosing length field (PPPoE), where there is one


def find_network(buf: bytes, start: int, end: int, linktype: int) -> Found | None:
    """The network packet in a record of `linktype`; None where the record is too short or of no kind known here."""
    if linktype == 1:
        if end - start < 14:
            return None
        return _ethertype(buf, start + 14, end, buf[start + 12] << 8 | buf[start + 13], 0)
    if linktype == 113:
        if end - start < 16:
            return None
        return _ethertype(buf, start + 16, end, buf[start + 14] << 8 | buf[start + 15], 0)
    if linktype == 276:
        if end - start < 20:
            return None
        return _ethertype(buf, start + 20, end, buf[start] << 8 | buf[start + 1], 0)
    if linktype in _RAW:
        return _raw(buf, start, end)
    if linktype in (0, 108):
        if end - start < 5:
            return None
        family = int.from_bytes(buf[start : start + 4], "big")
        if family > 0xFFFF:  # written by a little-endian machine
            family = int.from_bytes(buf[start : start + 4], "little")
        if family == 2:
            return Found(IPV4, start + 4, 0, None)
        return Found(IPV6, start + 4, 0, None) if family in _NULL_IPV6 else None
    if linktype in (9, 50, 104):
        return _serial(buf, start, end, linktype)
    if linktype == 239:
        return _nflog(buf, start, end)
    if linktype == 127:
        if end - start < 8:
            return None
        length = int.from_bytes(buf[start + 2 : start + 4], "little")
        return _wifi(buf, start + length, end, padded=_radiotap_pads(buf, start, start + length))
    if linktype == 105:
        return _wifi(buf, start, end)
    return _rare(buf, start, end, linktype)


def _rare(buf: bytes, start: int, end: int, linktype: int) -> Found | None:
    """Link layers of other systems, and headers that recorders put before a common one."""
    if end - start < 16:
        return None
    if linktype == 51:
        return _ethertype(buf, start, end, _PPPOE, 0)
    if linktype == 100:  # RFC 2684, always with LLC
        return _ethertype(buf, start, end, 0, 0)
    if linktype == 10:  # FDDI: frame control, two addresses
        return _ethertype(buf, start + 13, end, 0, 0)
    if linktype == 6:  # Token Ring: two control bytes, two addresses, a route where the source address says so
        routed = buf[start + 8] & 0x80
        return _ethertype(buf, start + 14 + (buf[start + 14] & 0x1F if routed else 0), end, 0, 0)
    if linktype == 107:
        kind = _FRAME_RELAY.get(buf[start + 3], -1)
        return Found(kind, start + 4, 0, None) if buf[start + 2] == 3 else None
    if linktype in (109, 117):
        at, family = (
            (12, int.from_bytes(buf[start : start + 4], "little"))
            if linktype == 109
            else (buf[start] + 3 & ~3, buf[start + 1])
        )
        if family > 0xFFFF:
            family = int.from_bytes(buf[start : start + 4], "big")
        kind = IPV4 if family == 2 else IPV6 if family in _NULL_IPV6 else -1
        return Found(kind, start + at, 0, None)
    if linktype in (119, 163):
        big = buf[start : start + 4] == _AVS_MAGIC
        return _wifi(buf, start + int.from_bytes(buf[start + 4 : start + 8], "big" if big else "little"), end)
    if linktype == 192:
        inner = int.from_bytes(buf[start + 4 : start + 8], "little")
        length = int.from_bytes(buf[start + 2 : start + 4], "little")
        return find_network(buf, start + length, end, inner) if inner != 192 else None
    if linktype == 204:
        return _serial(buf, start + 1, end, 9)
    return None


def _radiotap_pads(buf: bytes, start: int, end: int) -> bool:
    """Whether the driver has filled the 802.11 header up to a multiple of four bytes: a bit of the radiotap flags."""
    present = buf[start + 4]
    if not present & 2:
        return False
    at = start + 4
    while at + 8 <= end and buf[at + 3] & 0x80:  # another word of what is present follows
        at += 4
    at += 4
    if present & 1:  # a time stamp of eight bytes on a border of eight
        at += -(at - start) % 8 + 8
    return at < end and bool(buf[at] & 0x20)


def _raw(buf: bytes, start: int, end: int) -> Found | None:
    if start >= end:
        return None
    version = buf[start] >> 4
    if version == 4:
        return Found(IPV4, start, 0, None)
    return Found(IPV6, start, 0, None) if version == 6 else None


def _ethertype(buf: bytes, position: int, end: int, kind: int, vlan: int) -> Found | None:
    bound: int | None = None
    for _ in range(8):
        if kind in (IPV4, IPV6):
            return Found(kind, position, vlan, bound)
        if kind in _TAGS:
            if position + 4 > end:
                return None
            vlan = vlan or (buf[position] << 8 | buf[position + 1]) & 0xFFF
            kind = buf[position + 2] << 8 | buf[position + 3]
            position += 4
        elif kind == _PPPOE:
            if position + 8 > end:
                return None
            bound = position + 6 + (buf[position + 4] << 8 | buf[position + 5])
            kind = _PPP.get(buf[position + 6] << 8 | buf[position + 7], -1)
            position += 8
        elif kind in _MPLS:
            while position + 4 <= end and not buf[position + 2] & 1:
                position += 4
            position += 4
            if position >= end:
                return None
            version = buf[position] >> 4
            if version == 0 and position + 18 <= end:  # control word of an Ethernet pseudowire
                kind = buf[position + 16] << 8 | buf[position + 17]
                position += 18
            else:
                kind = IPV4 if version == 4 else IPV6 if version == 6 else -1
        elif 0 <= kind < 0x600:
            if position + 8 > end or buf[position : position + 3] != _LLC_SNAP:
                return Found(kind, position, vlan, bound)
            kind = buf[position + 6] << 8 | buf[position + 7]
            position += 8
        else:
            return Found(kind, position, vlan, bound)
    return None


def _serial(buf: bytes, start: int, end: int, linktype: int) -> Found | None:
    if end - start < 4:
        return None
    if linktype == 104 or buf[start] in (0x0F, 0x8F):
        return _ethertype(buf, start + 4, end, buf[start + 2] << 8 | buf[start + 3], 0)
    position = start + 2 if buf[start : start + 2] == b"\xff\x03" else start
    if buf[position] & 1:  # a compressed protocol field
        kind = buf[position]
        position += 1
    elif position + 2 <= end:
        kind = buf[position] << 8 | buf[position + 1]
        position += 2
    else:
        return None
    network = _PPP.get(kind)
    return _ethertype(buf, position, end, network, 0) if network is not None else None


def _nflog(buf: bytes, start: int, end: int) -> Found | None:
    """A 4-byte head, then attributes whose length and type are in the order of the writing machine."""
    position = start + 4
    for _ in range(64):
        if position + 4 > end:
            return None
        length = int.from_bytes(buf[position : position + 2], "little")
        kind = int.from_bytes(buf[position + 2 : position + 4], "little")
        if (length > 0xFF and length & 0xFF == 0) or (kind > 0xFF and kind & 0xFF == 0):
            length = int.from_bytes(buf[position : position + 2], "big")
            kind = int.from_bytes(buf[position + 2 : position + 4], "big")
        if length < 4:
            return None
        if kind & 0x7FFF == 9:
            return _raw(buf, position + 4, end)
        position += length + (-length & 3)
    return None


def _wifi(buf: bytes, start: int, end: int, padded: bool = False) -> Found | None:
    if end - start < 24:
        return None
    control = buf[start] | buf[start + 1] << 8
    if control >> 2 & 3 != 2 or control & 0x4000 or control & 0x0040:  # no data frame, encrypted, or without data
        return None
    size = 30 if control & 0x0300 == 0x0300 else 24
    aggregated = False
    if control & 0x0080:
        if start + size + 2 > end:
            return None
        aggregated = bool(buf[start + size] & 0x80)
        size += 2
        if control & 0x8000:  # high-throughput control
            size += 4
    position = start + (size + 3 & ~3 if padded else size)
    if aggregated:  # the first frame of an A-MSDU stands for all
        position += 14
    if position + 8 > end or buf[position : position + 3] != _LLC_SNAP:
        return None
    return _ethertype(buf, position + 8, end, buf[position + 6] << 8 | buf[position + 7], 0)
