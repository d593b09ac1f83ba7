"""From a record to its transport header, for everything that is not plain IPv4 or IPv6 over Ethernet.

TCP comes back to the batch loop as a `Segment`; datagrams, ICMP, ARP and fragments are handed on from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.analysis import arp, fragments, icmp, put_together, udp
from gateway.analysis.link import ARP, IPV4, IPV6, OTHER_NAMES, find_network

if TYPE_CHECKING:
    from gateway.analysis.state import State

_EXTENSIONS: Final = (0, 43, 60, 135, 139, 140)
_MAX_EXTENSIONS: Final = 8
_MAX_DEPTH: Final = 4
_TRANSPORT: Final = {
    1: "ICMP",
    2: "IGMP",
    4: "IPv4 in IP",
    6: "TCP",
    17: "UDP",
    41: "IPv6 in IP",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    59: "no next header",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    132: "SCTP",
}
_TUNNEL_PORTS: Final = {4789: "VXLAN", 8472: "VXLAN", 6081: "Geneve", 2152: "GTP-U", 4754: "GRE in UDP", 3544: "Teredo"}


class Segment(NamedTuple):
    """A TCP segment, fields as the batch loop names them."""

    key: bytes
    seq: int
    ack: int
    of: int
    win: int
    ip_id: int
    checksum: int
    length: int
    ttl: int
    vlan: int
    tcp: int  # where the TCP header begins


def decode(st: State, buf: bytes, start: int, end: int, wire: int, t: int, linktype: int, frame: int) -> Segment | None:
    """Decode one record; returns its TCP segment, or None when it was something else and has been dealt with."""
    found = find_network(buf, start, end, linktype)
    if found is None:
        st.count(st.network, "not decoded", wire)
        st.undecoded += 1
        return None
    if found.vlan:
        row = st.vlans.setdefault(found.vlan, [0, 0])
        row[0] += 1
        row[1] += wire
    if found.ethertype == ARP:
        st.count(st.network, "ARP", wire)
        arp.packet(st, buf, found.start, end, t, frame)
        return None
    if found.ethertype not in (IPV4, IPV6):
        name = OTHER_NAMES.get(found.ethertype)
        if name is None:
            name = "802.3" if 0 <= found.ethertype < 0x600 else f"ethertype 0x{found.ethertype & 0xFFFF:04x}"
            if len(st.network) > 200:
                name = "other ethertypes"
        st.count(st.network, name, wire)
        return None
    return _ip(st, buf, start, found.start, end, wire, t, frame, found.vlan, found.end, 0)


def _ip(
    st: State,
    buf: bytes,
    start: int,
    at: int,
    end: int,
    wire: int,
    t: int,
    frame: int,
    vlan: int,
    bound: int | None,
    depth: int,
) -> Segment | None:
    """An IPv4 or IPv6 packet at `at`; `wire - (at - start)` is its true length where its own field is of no use."""
    if at >= end:
        _short(st, frame, "ip", start, end, wire)
        return None
    if buf[at] >> 4 == 4:
        return _ipv4(st, buf, start, at, end, wire, t, frame, vlan, bound, depth)
    if buf[at] >> 4 == 6:
        return _ipv6(st, buf, start, at, end, wire, t, frame, vlan, bound, depth)
    st.count(st.network, "malformed IP", wire)
    st.malform(frame, "ip")
    return None


def _ipv4(
    st: State,
    buf: bytes,
    start: int,
    at: int,
    end: int,
    wire: int,
    t: int,
    frame: int,
    vlan: int,
    bound: int | None,
    depth: int,
) -> Segment | None:
    st.count(st.network, "IPv4", wire)
    header = (buf[at] & 15) * 4
    if header < 20:
        st.malform(frame, "ip")
        return None
    if at + header > end:
        _short(st, frame, "ip", start, end, wire)
        return None
    total = buf[at + 2] << 8 | buf[at + 3]
    if bound is not None and at + total > bound and bound > at + header:
        total = bound - at
    if total < header:
        total = wire - (at - start)
        st.offloaded(frame, t)
        if total < header:
            st.malform(frame, "ip")
            return None
    fragment = buf[at + 6] << 8 | buf[at + 7]
    protocol = buf[at + 9]
    source, destination = buf[at + 12 : at + 16], buf[at + 16 : at + 20]
    ip_id = buf[at + 4] << 8 | buf[at + 5]
    if fragment & 0x3FFF:
        group = (source, destination, protocol, ip_id)
        piece = total - header
        data = buf[at + header : min(end, at + total)] if protocol == 6 else None
        whole = fragments.packet(st, group, (fragment & 0x1FFF) * 8, piece, bool(fragment & 0x2000), t, frame, data)
        if whole is not None:
            put_together.segment_of(st, whole, source + destination, buf[at + 8], ip_id, vlan, start, wire, t, frame)
            return None
        if fragment & 0x1FFF or (protocol == 6 and len(data or b"") == piece):
            st.count(st.transport, "fragment", wire)
            return None
    return _transport(
        st, buf, start, at + header, end, wire, t, frame, vlan, depth, protocol, source, destination,
        total - header, buf[at + 8], ip_id, at, bool(fragment & 0x3FFF), bool(fragment & 0x4000),
    )  # fmt: skip


def _ipv6(
    st: State,
    buf: bytes,
    start: int,
    at: int,
    end: int,
    wire: int,
    t: int,
    frame: int,
    vlan: int,
    bound: int | None,
    depth: int,
) -> Segment | None:
    st.count(st.network, "IPv6", wire)
    if at + 40 > end:
        _short(st, frame, "ip", start, end, wire)
        return None
    length = buf[at + 4] << 8 | buf[at + 5]
    following = buf[at + 6]
    if bound is not None and at + 40 + length > bound and bound > at + 40:
        length = bound - at - 40
    if length == 0 and following != 59:
        length = wire - (at - start) - 40
        st.offloaded(frame, t)
    source, destination = buf[at + 8 : at + 24], buf[at + 24 : at + 40]
    position = at + 40
    stop = position + length
    fragmented = False
    for _ in range(_MAX_EXTENSIONS):
        if following in _EXTENSIONS:
            if position + 8 > end:
                _short(st, frame, "ip", start, end, wire)
                return None
            following, size = buf[position], (buf[position + 1] + 1) * 8
        elif following == 51:
            if position + 8 > end:
                _short(st, frame, "ip", start, end, wire)
                return None
            following, size = buf[position], (buf[position + 1] + 2) * 4
        elif following == 44:
            if position + 8 > end:
                _short(st, frame, "ip", start, end, wire)
                return None
            offset = buf[position + 2] << 8 | buf[position + 3]
            size = 8
            if offset & 0xFFF9:
                fragmented = True
                group = (source, destination, -1, int.from_bytes(buf[position + 4 : position + 8], "big"))
                piece = stop - position - 8
                data = buf[position + 8 : min(end, stop)] if buf[position] == 6 else None
                whole = fragments.packet(st, group, offset & 0xFFF8, piece, bool(offset & 1), t, frame, data)
                if whole is not None:
                    put_together.segment_of(
                        st, whole, source + destination, buf[at + 7], 0, vlan, start, wire, t, frame
                    )
                    return None
                if offset & 0xFFF8 or (data is not None and len(data) == piece):
                    st.count(st.transport, "fragment", wire)
                    return None
            following = buf[position]
        else:
            break
        position += size
    if stop - position < 0:
        st.malform(frame, "ip")
        return None
    return _transport(
        st, buf, start, position, end, wire, t, frame, vlan, depth, following, source, destination,
        stop - position, buf[at + 7], 0, at, fragmented, True,
    )  # fmt: skip


def _transport(
    st: State,
    buf: bytes,
    start: int,
    at: int,
    end: int,
    wire: int,
    t: int,
    frame: int,
    vlan: int,
    depth: int,
    protocol: int,
    source: bytes,
    destination: bytes,
    length: int,
    ttl: int,
    ip_id: int,
    ip: int,
    fragmented: bool,
    unfragmentable: bool,
) -> Segment | None:
    """`length` bytes of transport header and payload at `at`, of which the record may hold fewer."""
    if protocol == 6:
        if length < 20:
            st.count(st.transport, "TCP", wire)
            st.malform(frame, "l4")
            return None
        if at + 20 > end:
            st.count(st.transport, "TCP", wire)
            _short(st, frame, "l4", start, end, wire)
            return None
        of = buf[at + 12] << 8 | buf[at + 13]
        payload = length - (of >> 12) * 4
        if of < 0x5000 or payload < 0:
            st.count(st.transport, "TCP", wire)
            st.malform(frame, "l4")
            return None
        st.count(st.transport, "TCP", wire)
        return Segment(
            source + destination + buf[at : at + 4],
            int.from_bytes(buf[at + 4 : at + 8], "big"),
            int.from_bytes(buf[at + 8 : at + 12], "big"),
            of,
            buf[at + 14] << 8 | buf[at + 15],
            ip_id,
            buf[at + 16] << 8 | buf[at + 17],
            payload,
            ttl,
            vlan,
            at,
        )
    if protocol == 17:
        st.count(st.transport, "UDP", wire)
        if at + 8 > end:
            _short(st, frame, "l4", start, end, wire)
            return None
        stated = buf[at + 4] << 8 | buf[at + 5]
        payload = (stated if 8 <= stated <= length or fragmented else length) - 8
        if payload < 0:
            st.malform(frame, "l4")
            return None
        if st.settings.reader.decapsulate and depth < _MAX_DEPTH:
            inner = _inside_udp(st, buf, start, at, end, wire, t, frame, depth)
            if inner is None or isinstance(inner, Segment):
                return inner
        key = source + destination + buf[at : at + 4]
        udp.datagram(st, key, buf, start, at, end, payload, wire, t, frame, vlan, ttl)
        return None
    if protocol in (1, 58):
        st.count(st.transport, "ICMP" if protocol == 1 else "ICMPv6", wire)
        icmp.packet(st, buf, at, end, length, wire, t, frame, source, destination, protocol == 58, ttl)
        return None
    name = _TRANSPORT.get(protocol, f"protocol {protocol}")
    st.count(st.transport, name, wire)
    st.host_packet(source, destination, wire)
    if st.settings.reader.decapsulate and depth < _MAX_DEPTH:
        if protocol in (4, 41):
            st.count(st.tunnels, name, wire)
            return _ip(st, buf, start, at, end, wire, t, frame, vlan, None, depth + 1)
        if protocol == 47:
            return _gre(st, buf, start, at, end, wire, t, frame, vlan, depth)
    elif protocol in (4, 41, 47):
        st.count(st.tunnels, name, wire)
    return None


def _gre(
    st: State, buf: bytes, start: int, at: int, end: int, wire: int, t: int, frame: int, vlan: int, depth: int
) -> Segment | None:
    """GRE (RFC 2784, RFC 2890) with IP, Ethernet or ERSPAN inside."""
    if at + 4 > end:
        _short(st, frame, "l4", start, end, wire)
        return None
    flags, kind = buf[at], buf[at + 2] << 8 | buf[at + 3]
    position = at + 4 + sum(4 for bit in (0x80, 0x20, 0x10) if flags & bit)
    st.count(st.tunnels, "ERSPAN" if kind in (0x88BE, 0x22EB) else "GRE", wire)
    if kind in (IPV4, IPV6):
        return _ip(st, buf, start, position, end, wire, t, frame, vlan, None, depth + 1)
    if kind == 0x88BE:
        position += 8 if flags & 0x10 else 0  # type I has no header of its own
    elif kind == 0x22EB:
        position += 12
        if position <= end and position > at and buf[position - 1] & 1:
            position += 8
    elif kind != 0x6558:
        return None
    return _ethernet(st, buf, start, position, end, wire, t, frame, depth)


def _ethernet(
    st: State, buf: bytes, start: int, at: int, end: int, wire: int, t: int, frame: int, depth: int
) -> Segment | None:
    found = find_network(buf, at, end, 1)
    if found is None or found.ethertype not in (IPV4, IPV6):
        return None
    return _ip(st, buf, start, found.start, end, wire, t, frame, found.vlan, found.end, depth + 1)


def _inside_udp(
    st: State, buf: bytes, start: int, at: int, end: int, wire: int, t: int, frame: int, depth: int
) -> Segment | bool | None:
    """The packet inside a tunnel over UDP; False where it is none."""
    name = _TUNNEL_PORTS.get(buf[at + 2] << 8 | buf[at + 3])
    position = at + 8
    if name is None or position + 8 > end:
        return False
    if name == "VXLAN" and buf[position] & 0x08:
        st.count(st.tunnels, name, wire)
        return _ethernet(st, buf, start, position + 8, end, wire, t, frame, depth)
    if name == "Geneve" and buf[position] >> 6 == 0:
        kind = buf[position + 2] << 8 | buf[position + 3]
        inner = position + 8 + (buf[position] & 0x3F) * 4
        st.count(st.tunnels, name, wire)
        if kind == 0x6558:
            return _ethernet(st, buf, start, inner, end, wire, t, frame, depth)
        return _ip(st, buf, start, inner, end, wire, t, frame, 0, None, depth + 1) if kind in (IPV4, IPV6) else False
    if name == "GTP-U" and buf[position] >> 5 == 1 and buf[position + 1] == 0xFF:
        inner = position + 8
        if buf[position] & 7:
            inner += 4
            extension = buf[inner - 1] if inner <= end else 0
            for _ in range(8):
                if not extension or inner >= end or not buf[inner]:
                    break
                size = buf[inner] * 4
                extension = buf[inner + size - 1] if inner + size <= end else 0
                inner += size
        st.count(st.tunnels, name, wire)
        return _ip(st, buf, start, inner, end, wire, t, frame, 0, None, depth + 1)
    if name == "GRE in UDP":
        return _gre(st, buf, start, position, end, wire, t, frame, 0, depth)
    if name == "Teredo" and buf[position] >> 4 == 6:
        st.count(st.tunnels, name, wire)
        return _ip(st, buf, start, position, end, wire, t, frame, 0, None, depth + 1)
    return False


def _short(st: State, frame: int, layer: str, start: int, end: int, wire: int) -> None:
    """A header that ends beyond the record: malformed, unless the record does not hold all that was on the wire."""
    if end - start >= wire:
        st.malform(frame, layer)
