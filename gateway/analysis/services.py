"""What a flow is used for: payload evidence before names, names before port numbers, port numbers before shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.flows import Connection, Direction, UdpDirection
from gateway.analysis.fold import split_key
from gateway.analysis.udp import U_BYTES, U_FIRST, U_LAST, U_PACKETS, U_PAYLOAD, UdpFlow

if TYPE_CHECKING:
    from gateway.analysis.report import ServiceRow
    from gateway.analysis.state import State

PORTS: Final = {
    ("tcp", 20): "ftp-data",
    ("tcp", 21): "ftp",
    ("tcp", 22): "ssh",
    ("tcp", 23): "telnet",
    ("tcp", 25): "smtp",
    ("tcp", 53): "dns",
    ("udp", 53): "dns",
    ("udp", 67): "dhcp",
    ("udp", 68): "dhcp",
    ("udp", 69): "tftp",
    ("tcp", 80): "http",
    ("tcp", 88): "kerberos",
    ("udp", 88): "kerberos",
    ("tcp", 110): "pop3",
    ("udp", 123): "ntp",
    ("tcp", 135): "msrpc",
    ("udp", 137): "netbios-ns",
    ("udp", 138): "netbios-dgm",
    ("tcp", 139): "netbios-ssn",
    ("tcp", 143): "imap",
    ("udp", 161): "snmp",
    ("tcp", 179): "bgp",
    ("tcp", 389): "ldap",
    ("tcp", 443): "tls",
    ("udp", 443): "quic",
    ("tcp", 445): "smb",
    ("udp", 500): "ike",
    ("udp", 514): "syslog",
    ("tcp", 515): "lpd",
    ("udp", 547): "dhcpv6",
    ("tcp", 554): "rtsp",
    ("tcp", 587): "smtp",
    ("tcp", 631): "ipp",
    ("tcp", 853): "dns-tls",
    ("tcp", 993): "imaps",
    ("tcp", 995): "pop3s",
    ("udp", 1194): "openvpn",
    ("tcp", 1433): "mssql",
    ("tcp", 1883): "mqtt",
    ("udp", 1900): "ssdp",
    ("tcp", 3128): "proxy",
    ("tcp", 3306): "mysql",
    ("tcp", 3389): "rdp",
    ("udp", 3478): "stun",
    ("udp", 4500): "ipsec-nat",
    ("tcp", 5060): "sip",
    ("udp", 5060): "sip",
    ("udp", 5353): "mdns",
    ("udp", 5355): "llmnr",
    ("tcp", 5432): "postgresql",
    ("tcp", 5900): "vnc",
    ("tcp", 6379): "redis",
    ("tcp", 8080): "http",
    ("tcp", 8443): "tls",
    ("udp", 51820): "wireguard",
}


Guess = tuple[str, float, str]  # service, confidence, reason
_NO_SERVICE: Final = (None, None, None)
SECOND: Final = 1_000_000_000
# What a flow on an unknown port looks like
_BULK_BYTES, _BULK_SEGMENT = 100_000, 800
_TYPED_SEGMENTS, _TYPED_SEGMENT, _TYPED_S = 20, 200, 5
_STREAM_PACKETS, _STREAM_PER_S, _STREAM_LEAST = 100, 10, 60


def shape_of_tcp(orig: Direction | None, resp: Direction | None) -> Guess | None:
    """A guess by size and pace: much in large pieces one way, or little in small pieces both ways for a while."""
    ways = [(d.payload, d.segments, d.last - d.first) for d in (orig, resp) if d is not None and d.segments]
    if not ways:
        return None
    octets, segments, _ = max(ways)
    if octets >= _BULK_BYTES and octets >= _BULK_SEGMENT * segments:
        return "bulk", 0.4, "shape"
    small = all(octets <= _TYPED_SEGMENT * segments for octets, segments, _ in ways)
    if small and len(ways) == 2 and sum(way[1] for way in ways) >= _TYPED_SEGMENTS:
        return ("interactive", 0.3, "shape") if max(way[2] for way in ways) >= _TYPED_S * SECOND else None
    return None


def shape_of_udp(orig: UdpDirection | None, resp: UdpDirection | None) -> Guess | None:
    """A guess by size and pace: many datagrams of some size at a steady rate."""
    for d in (orig, resp):
        if d is None or d[U_PACKETS] < _STREAM_PACKETS:
            continue
        lasted = (d[U_LAST] - d[U_FIRST]) / SECOND
        if lasted >= 2 and d[U_PACKETS] >= _STREAM_PER_S * lasted and d[U_PAYLOAD] >= _STREAM_LEAST * d[U_PACKETS]:
            return "stream", 0.3, "shape"
    return None


def service_by_port(proto: str, port: int, other: int = 0) -> str | None:
    """The service that is usual at the server's port, or at the client's where that is one of a service."""
    return PORTS.get((proto, port)) or (PORTS.get((proto, other)) if other and other < 1024 else None)


def service_of_tcp(conn: Connection, port: int, sport: int = 0) -> Guess | tuple[None, None, None]:
    """What a connection to `port` is used for; its shape is looked at only where nothing else tells."""
    if conn.service is not None:
        return conn.service
    known = service_by_port("tcp", port, sport)
    return (known, 0.7, "port") if known is not None else shape_of_tcp(conn.orig, conn.resp) or _NO_SERVICE


def service_of_udp(flow: UdpFlow, sport: int, port: int) -> Guess | tuple[None, None, None]:
    """What a UDP flow between these ports is used for."""
    if flow.service is not None:
        return flow.service
    known = service_by_port("udp", port, sport)
    return (known, 0.7, "port") if known is not None else shape_of_udp(flow.orig, flow.resp) or _NO_SERVICE


def build(st: State) -> list[ServiceRow]:
    """Services by bytes, counted at the server's port."""
    # service, protocol and port -> flows, packets, bytes, reason and confidence of the first
    table: dict[tuple[str, str, int], list[Any]] = {}
    for conn in st.connections:
        _, _, sport, port = split_key(conn.key)
        service, confidence, why = service_of_tcp(conn, port, sport)
        name = (service, "tcp", port) if service is not None else ("other", "tcp", 0)
        row = table.get(name)
        if row is None:
            row = table[name] = [0, 0, 0, why or "none", confidence or 0.0]
        row[0] += 1
        for d in (conn.orig, conn.resp):
            if d is not None:
                row[1] += d.packets
                row[2] += d.bytes
    for flow in st.udp_flows:
        _, _, sport, port = split_key(flow.key)
        service, confidence, why = service_of_udp(flow, sport, port)
        name = (service, "udp", port) if service is not None else ("other", "udp", 0)
        row = table.get(name)
        if row is None:
            row = table[name] = [0, 0, 0, why or "none", confidence or 0.0]
        row[0] += 1
        for way in (flow.orig, flow.resp):
            if way is not None:
                row[1] += way[U_PACKETS]
                row[2] += way[U_BYTES]
    ordered = sorted(table.items(), key=lambda item: (-item[1][2], item[0]))[:100]
    total = max(1, st.wire_bytes)
    return [
        {
            "service": service,
            "proto": proto,
            "port": port,
            "why": why,
            "confidence": confidence,
            "flows": flows,
            "packets": packets,
            "bytes": octets,
            "share": octets / total,
        }
        for (service, proto, port), (flows, packets, octets, why, confidence) in ordered
    ]
