"""Where the headers of one packet are: link, tags, IP, ports. Used for chosen packets, never in the batch loop.

The engine decodes in place and keeps nothing; the second look, cutting and anonymising need to know, for a few packets,
at which offset each header begins. Encapsulations and link types are those of the engine, without its tunnels.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.analysis.link import find_network

IPV4, IPV6 = 0x0800, 0x86DD
TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100})
MOST_TAGS, MOST_EXTENSIONS = 4, 8
TCP, UDP, ICMP, ICMP6, SCTP = 6, 17, 1, 58, 132
_NULL_FAMILIES: Final = {2: IPV4, 10: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}


class Packet(NamedTuple):
    """Offsets into one frame. `transport` is -1 in later fragments and where the header was cut."""

    link: int  # where hardware addresses begin (destination, source), -1 if there are none
    vlan: int | None
    version: int  # 4 or 6
    network: int
    protocol: int
    source: bytes
    target: bytes
    transport: int
    payload_bytes: int  # behind the IP headers, from the IP length or, where that is 0, from the wire
    fragment: bool

    def ports(self, data: bytes) -> tuple[int, int]:
        """Source and destination port; zeros where the protocol has none or they were cut."""
        at = self.transport
        if at < 0 or self.protocol not in {TCP, UDP, SCTP} or len(data) < at + 4:
            return 0, 0
        return data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3]


def locate(linktype: int, data: bytes, wire_bytes: int) -> Packet | None:
    """Find the IP packet of a frame; `None` if there is none or its header is cut."""
    found = _link(linktype, data)
    if found is None:
        return None
    at, ethertype, link, vlan = found
    if ethertype == IPV4:
        return _ipv4(data, at, link, vlan, wire_bytes)
    if ethertype == IPV6:
        return _ipv6(data, at, link, vlan, wire_bytes)
    return None


def ethertype_of(linktype: int, data: bytes) -> tuple[int, int] | None:
    """Offset and EtherType of what follows the link header and its tags; `None` for an unknown or cut link header."""
    found = _link(linktype, data)
    return None if found is None else found[:2]


def _word(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1] if len(data) >= at + 2 else 0


def _by_version(data: bytes, at: int) -> int:
    return {4: IPV4, 6: IPV6}.get(data[at] >> 4, 0) if len(data) > at else 0


def _link(linktype: int, data: bytes) -> tuple[int, int, int, int | None] | None:
    """(offset of the next header, its EtherType, offset of hardware addresses or -1, VLAN id)."""
    size = len(data)
    if linktype == 1:
        return _tagged(data, 14, _word(data, 12), 0) if size >= 14 else None
    if linktype in {0, 108}:
        if size < 4:
            return None
        little, big = int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")
        return 4, _NULL_FAMILIES.get(little) or _NULL_FAMILIES.get(big, 0), -1, None
    if linktype in {12, 101, 228, 229}:
        return 0, _by_version(data, 0), -1, None
    if linktype == 113:
        return _tagged(data, 16, _word(data, 14), -1) if size >= 16 else None
    if linktype == 276:
        return _tagged(data, 20, _word(data, 0), -1) if size >= 20 else None
    if linktype == 239:
        return _nflog(data)
    if linktype in {9, 50}:
        at = 2 if data[:2] == b"\xff\x03" else 0
        return _ppp(data, at, -1, None)
    if linktype == 104:
        return (4, _word(data, 2), -1, None) if size >= 4 else None
    found = find_network(data, 0, size, linktype)
    return (found.start, found.ethertype, -1, found.vlan or None) if found is not None else None


def _tagged(data: bytes, at: int, ethertype: int, link: int) -> tuple[int, int, int, int | None]:
    vlan = None
    for _ in range(MOST_TAGS):
        if ethertype not in TAGS or len(data) < at + 4:
            break
        vlan = _word(data, at) & 0xFFF
        ethertype = _word(data, at + 2)
        at += 4
    if ethertype == 0x8864:
        return _ppp(data, at + 6, link, vlan)
    if ethertype in {0x8847, 0x8848}:
        for _ in range(16):
            if len(data) < at + 4:
                break
            bottom = data[at + 2] & 1
            at += 4
            if bottom:
                break
        return at, _by_version(data, at), link, vlan
    if ethertype <= 1500 and data[at : at + 6] == b"\xaa\xaa\x03\x00\x00\x00":
        return at + 8, _word(data, at + 6), link, vlan
    return at, ethertype, link, vlan


def _ppp(data: bytes, at: int, link: int, vlan: int | None) -> tuple[int, int, int, int | None]:
    return at + 2, {0x0021: IPV4, 0x0057: IPV6}.get(_word(data, at), 0), link, vlan


def _nflog(data: bytes) -> tuple[int, int, int, int | None] | None:
    at = 4
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        kind = int.from_bytes(data[at + 2 : at + 4], "little") & 0x7FFF
        if length > 0xFF and length & 0xFF == 0:  # written by a big-endian host
            length, kind = length >> 8, kind >> 8
        if length < 4:
            return None
        if kind == 9:
            return at + 4, _by_version(data, at + 4), -1, None
        at += (length + 3) & ~3
    return None


def _ipv4(data: bytes, at: int, link: int, vlan: int | None, wire_bytes: int) -> Packet | None:
    if len(data) < at + 20 or data[at] >> 4 != 4:
        return None
    header = (data[at] & 15) * 4
    if header < 20:
        return None
    total = _word(data, at + 2)
    if total < header:  # 0 in offloaded packets: only the wire knows
        total = max(header, wire_bytes - at)
    fragment = _word(data, at + 6) & 0x3FFF
    transport = at + header if fragment & 0x1FFF == 0 and len(data) > at + header else -1
    source, target = data[at + 12 : at + 16], data[at + 16 : at + 20]
    return Packet(link, vlan, 4, at, data[at + 9], source, target, transport, total - header, bool(fragment))


def _ipv6(data: bytes, at: int, link: int, vlan: int | None, wire_bytes: int) -> Packet | None:
    if len(data) < at + 40 or data[at] >> 4 != 6:
        return None
    length = _word(data, at + 4) or max(0, wire_bytes - at - 40)
    following, cursor, fragment, later = data[at + 6], at + 40, False, False
    for _ in range(MOST_EXTENSIONS):
        if following not in {0, 43, 44, 51, 60} or len(data) < cursor + 8:
            break
        if following == 44:
            fragment = bool(_word(data, cursor + 2) & 0xFFF9)
            later = bool(_word(data, cursor + 2) & 0xFFF8)
            size = 8
        elif following == 51:
            size = (data[cursor + 1] + 2) * 4
        else:
            size = (data[cursor + 1] + 1) * 8
        following = data[cursor]
        cursor += size
    transport = cursor if not later and len(data) > cursor else -1
    source, target = data[at + 8 : at + 24], data[at + 24 : at + 40]
    behind = max(0, length - (cursor - at - 40))
    return Packet(link, vlan, 6, at, following, source, target, transport, behind, fragment)
