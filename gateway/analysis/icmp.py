"""ICMP and ICMPv6: errors joined to the flow they quote, path MTU, floods, echo sweeps (RFC 792, RFC 4443, RFC
1191).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis import arp
from gateway.analysis.udp import count_target, target_row

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000
_ERRORS4: Final = frozenset({3, 4, 5, 11, 12})
_ERRORS6: Final = frozenset({1, 2, 3, 4, 137})
_MAX_ERRORS: Final = 4_096
_LINK_HEADER: Final = 22  # Ethernet with two tags: a packet must be larger for certain
_MAX_ECHO: Final = 8_192
_MAX_PREFIXES: Final = 64

E_COUNT, E_FIRST, E_FIRST_FRAME, E_LAST, E_LAST_FRAME, E_FRAMES, E_FLOW, E_MTU, E_PROTOCOL = range(9)

NAMES4: Final = {
    (0, 0): "echo reply",
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 9): "network prohibited",
    (3, 10): "host prohibited",
    (3, 13): "administratively prohibited",
    (4, 0): "source quench",
    (5, 0): "redirect for network",
    (5, 1): "redirect for host",
    (8, 0): "echo request",
    (11, 0): "time to live exceeded",
    (11, 1): "reassembly time exceeded",
    (12, 0): "parameter problem",
}
NAMES6: Final = {
    (1, 0): "no route",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "reassembly time exceeded",
    (4, 0): "parameter problem",
    (128, 0): "echo request",
    (129, 0): "echo reply",
    (133, 0): "router solicitation",
    (134, 0): "router advertisement",
    (135, 0): "neighbour solicitation",
    (136, 0): "neighbour advertisement",
    (137, 0): "redirect",
    (143, 0): "multicast listener report",
}


class IcmpTable:
    """Counts by type, errors by (reporter, target, type, code), path MTU by destination, echo by source."""

    def __init__(self) -> None:
        self.types: dict[tuple[int, int], int] = {}
        self.types6: dict[tuple[int, int], int] = {}
        self.total = 0
        self.errors: dict[tuple[int, bytes, bytes, int, int], list[Any]] = {}
        self.mtu: dict[bytes, list[Any]] = {}  # destination -> [mtu, time, reporter, ignored, frames]
        self.echo: dict[bytes, list[Any]] = {}  # source -> [targets, answered, first frame, last frame, first, last]
        self.unreachable_ports: dict[bytes, set[bytes]] = {}  # asker -> keys of flows told "port unreachable"
        self.prefixes: set[bytes] = set()  # IPv6 networks on this link, by neighbour discovery
        self.routers: set[bytes] = set()  # IPv6 addresses that advertise themselves as routers
        self.wanted: dict[bytes, tuple[int, int]] = {}  # address somebody is about to take -> time and frame
        self.defended: dict[
            bytes, tuple[bytes, int, int, list[int]]
        ] = {}  # address -> who has it, when asked and told, frames


def packet(
    st: State,
    buf: bytes,
    at: int,
    end: int,
    length: int,
    wire: int,
    t: int,
    frame: int,
    source: bytes,
    destination: bytes,
    six: bool,
    ttl: int,
) -> None:
    """Take one ICMP message whose header is at `at`."""
    st.host_packet(source, destination, wire)
    table = st.icmp
    if at + 4 > end:
        if length < 4:  # else the record was cut
            st.malform(frame, "l4")
        return
    kind, code = buf[at], buf[at + 1]
    table.total += 1
    types = table.types6 if six else table.types
    types[kind, code] = types.get((kind, code), 0) + 1
    target = target_row(st.icmp_targets, source, destination, frame)
    if target is not None:
        count_target(target, t, frame)
    if six and kind in (135, 136) and at + 24 <= end and len(table.prefixes) < _MAX_PREFIXES:
        prefix = buf[at + 8 : at + 16]
        if prefix[0] & 0xE0 == 0x20:  # a global address that neighbour discovery asks for is on this link
            table.prefixes.add(prefix)
    if six and 134 <= kind <= 136:
        _neighbour(st, buf, at, end, kind, t, frame, source)
    if kind in (_ERRORS6 if six else _ERRORS4):
        _error(st, buf, at, end, t, frame, source, destination, six, kind, code)
    elif kind in ((128, 129) if six else (8, 0)):
        _echo(table, source, destination, kind in (8, 128), t, frame)


def _neighbour(st: State, buf: bytes, at: int, end: int, kind: int, t: int, frame: int, source: bytes) -> None:
    """Neighbour discovery: claims of addresses, and addresses that two hosts want (RFC 4861, RFC 4862)."""
    table = st.icmp
    if kind == 134:
        if len(table.routers) < _MAX_PREFIXES:
            table.routers.add(source)
        return
    if at + 24 > end:
        return
    address = buf[at + 8 : at + 24]
    unspecified = not any(source)
    if kind == 135:
        if unspecified and (address in table.wanted or len(table.wanted) < _MAX_ERRORS):
            table.wanted[address] = (t, frame)
        return
    # An answer without the override flag comes from a proxy, from a router that shares the address, or from the host
    # itself that uses an address before it is sure of it (RFC 4861 section 4.4, RFC 4429).
    if not buf[at + 4] & 0x20:
        return
    mac = _link_address(buf, at + 24, end, 2)
    asked = table.wanted.get(address)
    if asked is not None and 0 <= t - asked[0] <= SECOND and len(table.defended) < _MAX_ERRORS:
        table.defended.setdefault(address, (mac, asked[0], t, [asked[1], frame]))
    if mac:
        arp.neighbour(st, address, mac, t, frame)


def _link_address(buf: bytes, at: int, end: int, wanted: int) -> bytes:
    """The hardware address among the options of neighbour discovery, empty where there is none."""
    while at + 8 <= end and buf[at + 1]:
        if buf[at] == wanted and buf[at + 1] == 1:
            return buf[at + 2 : at + 8]
        at += buf[at + 1] * 8
    return b""


def _echo(table: IcmpTable, source: bytes, destination: bytes, request: bool, t: int, frame: int) -> None:
    asker = source if request else destination
    row = table.echo.get(asker)
    if row is None:
        if not request or len(table.echo) >= _MAX_ECHO:
            return
        row = table.echo[asker] = [set(), set(), frame, frame, t, t, []]
    if request:
        if len(row[0]) < 4096 and destination not in row[0]:
            row[0].add(destination)
            if len(row[6]) < 100:
                row[6].append(frame)
        row[3], row[5] = frame, t
    elif len(row[1]) < 4096:
        row[1].add(source)


def _error(
    st: State,
    buf: bytes,
    at: int,
    end: int,
    t: int,
    frame: int,
    reporter: bytes,
    told: bytes,
    six: bool,
    kind: int,
    code: int,
) -> None:
    quoted = _quoted(buf, at + 8, end)
    key, protocol = quoted if quoted is not None else (b"", -1)
    if key:
        target = key[4:8] if len(key) < 36 else key[16:32]
    else:
        target = b""
    mtu: int | None = None
    if six and kind == 2 and at + 8 <= end:
        mtu = int.from_bytes(buf[at + 4 : at + 8], "big")
    elif not six and (kind, code) == (3, 4) and at + 8 <= end:
        mtu = buf[at + 6] << 8 | buf[at + 7]
    table = st.icmp
    name = (6 if six else 4, reporter, target or told, kind, code)
    row = table.errors.get(name)
    if row is None:
        if len(table.errors) >= _MAX_ERRORS:
            return
        row = table.errors[name] = [0, t, frame, t, frame, [], key, mtu, protocol]
    row[E_COUNT] += 1
    row[E_LAST], row[E_LAST_FRAME] = t, frame
    if mtu is not None and (row[E_MTU] is None or mtu < row[E_MTU]):
        row[E_MTU] = mtu
    if len(row[E_FRAMES]) < st.frames_cap:
        row[E_FRAMES].append(frame)
    if mtu is not None and target and (len(table.mtu) < _MAX_ERRORS or target in table.mtu):
        known = table.mtu.get(target)
        if known is None or mtu < known[0]:
            table.mtu[target] = [mtu, t, reporter, 0, [frame]]
            st.watch_mtu = True
    if key and protocol == 17 and (kind, code) == ((1, 4) if six else (3, 3)):
        refused = table.unreachable_ports.get(told)
        if refused is None and len(table.unreachable_ports) < _MAX_ERRORS:
            refused = table.unreachable_ports[told] = set()
        if refused is not None and len(refused) < 4096:
            refused.add(key)


def _quoted(buf: bytes, at: int, end: int) -> tuple[bytes, int] | None:
    """Addresses and ports of the packet an error quotes, as that packet's sender wrote them."""
    if at + 20 > end:
        return None
    version = buf[at] >> 4
    if version == 4:
        protocol = buf[at + 9]
        ports = at + (buf[at] & 15) * 4
        addresses = buf[at + 12 : at + 20]
    elif version == 6 and at + 40 <= end:
        protocol = buf[at + 6]
        ports = at + 40
        addresses = buf[at + 8 : at + 40]
    else:
        return None
    if protocol in (6, 17) and ports + 4 <= end:
        return addresses + buf[ports : ports + 4], protocol
    return addresses + b"\0\0\0\0", protocol


def too_big(st: State, key: bytes, wire: int, t: int, frame: int) -> None:
    """Count a TCP packet larger than its path was said to carry, sent after there was time to learn it."""
    row = st.icmp.mtu.get(key[4:8] if len(key) < 36 else key[16:32])
    if row is not None and wire - _LINK_HEADER > row[0] and t - row[1] > st.settings.icmp.pmtu_grace_s * SECOND:
        row[3] += 1
        if len(row[4]) < st.frames_cap:
            row[4].append(frame)
