"""UDP: flows by address and port, the rate at each target, and which datagrams are worth reading."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis import dhcp, dns, mdns, quic, rtp
from gateway.analysis.flows import UdpDirection, reverse_key
from gateway.analysis.fold import fold_udp

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000

# Slots of a direction of a UDP flow
U_REV, U_FLOW, U_PACKETS, U_BYTES, U_LAST, U_LAST_FRAME, U_PAYLOAD, U_APP = range(8)
U_TARGET, U_PACE, U_RTP, U_FIRST, U_FIRST_FRAME = range(8, 13)

# Counters of one target
T_COUNT, T_UNTIL, T_BINS, T_TOTAL, T_FIRST_FRAME, T_LAST_FRAME, T_SOURCES, T_LAST = range(8)

NOTHING, DNS, MDNS, LLMNR, DHCP4, DHCP6, QUIC, UNKNOWN, RTP, SSDP = range(10)

PORTS: Final = {
    port.to_bytes(2, "big"): app  # as keys have them
    for port, app in (
        (53, DNS),
        (5353, MDNS),
        (5355, LLMNR),
        (67, DHCP4),
        (68, DHCP4),
        (546, DHCP6),
        (547, DHCP6),
        (443, QUIC),
        (1900, SSDP),
        (123, NOTHING),
    )
}
_DNS_TRANSPORTS: Final = {DNS: "udp", MDNS: "mdns", LLMNR: "llmnr"}
_BUSY_SECOND: Final = 50  # datagrams; seconds below are not kept
_MAX_BINS: Final = 4_096
_MAX_TARGETS: Final = 65_536
_MAX_PACE: Final = 512
_MAX_STARTS: Final = 256
_SOURCES: Final = 256
_UNKNOWN_PACKETS: Final = 12


class UdpFlow:
    """What both directions of a UDP flow share."""

    __slots__ = ("app", "frame", "key", "name", "number", "offset", "orig", "resp", "service", "starts", "time", "vlan")

    def __init__(self, key: bytes, time: int, frame: int, offset: int, vlan: int) -> None:
        self.number = frame
        self.key = key
        self.time = time
        self.frame = frame
        self.offset = offset
        self.vlan = vlan
        self.orig: UdpDirection | None = None
        self.resp: UdpDirection | None = None
        self.service: tuple[str, float, str] | None = None
        self.name: str | None = None
        self.starts: list[tuple[int, int]] = [(time, frame)]  # of requests after a silence of a second
        self.app: Any = None  # Any: state of QUIC


def datagram(
    st: State,
    key: bytes,
    buf: bytes,
    start: int,
    at: int,
    end: int,
    payload: int,
    wire: int,
    t: int,
    frame: int,
    vlan: int,
    ttl: int,
) -> None:
    """Count one datagram whose UDP header is at `at`; `payload` is its true length."""
    d = st.udp.get(key)
    if d is None:
        d = _open(st, key, t, frame, st.base + start, vlan)
    since = t - d[U_LAST]
    d[U_PACKETS] += 1
    d[U_BYTES] += wire
    d[U_PAYLOAD] += payload
    if since > SECOND:
        flow = d[U_FLOW]
        if d is flow.orig and len(flow.starts) < _MAX_STARTS:
            flow.starts.append((t, frame))
    pace = d[U_PACE]
    if pace is not None:
        if len(pace) < _MAX_PACE:
            pace.append(max(-(1 << 62), since))
    elif d[U_PACKETS] == 4:
        d[U_PACE] = array("q")
    d[U_LAST] = t
    d[U_LAST_FRAME] = frame
    target = d[U_TARGET]
    if target is not None:
        if not 0 < target[T_UNTIL] - t <= SECOND:
            close_second(target, t)
        target[T_COUNT] += 1
        target[T_TOTAL] += 1
        target[T_LAST_FRAME] = frame
    app = d[U_APP]
    if app:
        read(st, d, app, key, buf, at + 8, min(end, at + 8 + payload), payload, t, frame)


def _open(st: State, key: bytes, t: int, frame: int, offset: int, vlan: int) -> UdpDirection:
    back = st.udp.get(reverse_key(key))
    if back is not None:
        flow = back[U_FLOW]
    else:
        flow = UdpFlow(key, t, frame, offset, vlan)
        st.udp_flows.append(flow)
        if len(st.udp_flows) > st.settings.tables.flows:
            fold_udp(st)
    app = PORTS.get(key[-2:])
    if app is None:
        app = PORTS.get(key[-4:-2], UNKNOWN)
    if len(key) < 36:
        source, address = key[:4], key[4:8]
    else:
        source, address = key[:16], key[16:32]
    target = target_row(st.targets, source, address, frame)
    d: UdpDirection = [back, flow, 0, 0, t, frame, 0, app, target, None, None, t, frame]
    if back is not None:
        back[U_REV] = d
        if flow.orig is back:
            flow.resp = d
        else:
            flow.orig = d
    else:
        flow.orig = d
    st.udp[key] = d
    return d


def target_row(targets: dict[bytes, list[Any]], source: bytes, address: bytes, frame: int) -> list[Any] | None:
    """The counters of one receiver, made on first use; None once the table is full."""
    row = targets.get(address)
    if row is None:
        if len(targets) >= _MAX_TARGETS:
            return None
        row = targets[address] = [0, 0, {}, 0, frame, frame, (source,), 0]
    else:
        sources = row[T_SOURCES]
        if source not in sources and len(sources) < _SOURCES:
            if len(sources) == 1:  # most have one, and a tuple of one is small
                row[T_SOURCES] = {*sources, source}
            else:
                sources.add(source)
    return row


def close_second(target: list[Any], t: int) -> None:
    """Put the running second of a target into its bins, if it was a busy one, and begin the second of `t`."""
    bins = target[T_BINS]
    if target[T_COUNT] >= _BUSY_SECOND and len(bins) < _MAX_BINS:
        second = (target[T_UNTIL] - 1) // SECOND
        bins[second] = bins.get(second, 0) + target[T_COUNT]
    target[T_COUNT] = 0
    target[T_UNTIL] = (t // SECOND + 1) * SECOND


def count_target(target: list[Any], t: int, frame: int) -> None:
    """Count one packet at a target; the same as the datagram path does."""
    if not 0 < target[T_UNTIL] - t <= SECOND:
        close_second(target, t)
    target[T_COUNT] += 1
    target[T_TOTAL] += 1
    target[T_LAST_FRAME] = frame


def close_targets(targets: dict[bytes, list[Any]]) -> None:
    """Put the running second of each target into its bins; called once, at the end."""
    for target in targets.values():
        close_second(target, target[T_UNTIL])


def read(
    st: State, d: UdpDirection, app: int, key: bytes, buf: bytes, at: int, end: int, payload: int, t: int, frame: int
) -> None:
    """Read a datagram by what its ports say it is for; `at` to `end` is what was captured of its `payload` bytes."""
    flow: UdpFlow = d[U_FLOW]
    transport = _DNS_TRANSPORTS.get(app)
    if transport is not None:
        if dns.message(st, buf, at, end, at + payload > end, key, t, frame, transport):
            flow.service = ("dns" if app == DNS else transport, 1.0, "payload")
    elif app == UNKNOWN:
        if payload >= 12 and at + 12 <= end and rtp.looks_like(buf, at):
            if rtp.packet(st, d, key, buf, at, end, payload, t, frame):
                d[U_APP] = RTP
                flow.service = ("rtp", 1.0, "payload")
        elif d[U_PACKETS] > _UNKNOWN_PACKETS and d[U_RTP] is None:
            d[U_APP] = NOTHING
    elif app == RTP:
        if at + 12 <= end:
            rtp.packet(st, d, key, buf, at, end, payload, t, frame)
    elif app == DHCP4:
        if dhcp.message4(st, buf, at, end, key, t, frame):
            flow.service = ("dhcp", 1.0, "payload")
    elif app == DHCP6:
        if dhcp.message6(st, buf, at, end, key, t, frame):
            flow.service = ("dhcpv6", 1.0, "payload")
    elif app == QUIC:
        if quic.datagram(st, flow, d is flow.orig, key, buf, at, end, t, frame):
            flow.service = ("quic", 1.0, "payload")
        elif d[U_PACKETS] > _UNKNOWN_PACKETS:
            d[U_APP] = NOTHING
    elif app == SSDP and mdns.ssdp(st, buf, at, end, key):
        dns.announced(st, key[:4] if len(key) < 36 else key[:16], t, frame)
        flow.service = ("ssdp", 1.0, "payload")
