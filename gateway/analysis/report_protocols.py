"""The part of a report that is about single protocols: names, hellos, requests, leases, addresses, calls.

See `report` for what all of it has in common.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class FramePoint(TypedDict):
    frame: int
    t: float


# Written as a call because "class" is a reserved word.
class DnsRow(TypedDict):
    t: float
    frame: int
    response_frame: int | None
    client: str
    client_port: int
    server: str
    transport: Literal["udp", "tcp", "mdns", "llmnr"]
    name: str
    type: str
    rcode: str | None
    status: str  # ok nxdomain error refused truncated timeout unanswered-at-end unsolicited announcement
    ms: float | None
    answers: list[str]
    retries: int


class DnsServerRow(TypedDict):
    server: str
    transactions: int
    failures: int
    median_ms: float | None
    failure_rate: float


class Dns(TypedDict):
    total: int
    queries: int
    responses: int
    rcodes: dict[str, int]
    statuses: dict[str, int]
    names: int
    expected_nxdomain: int
    servers: list[DnsServerRow]
    exempt: list[str]  # parents a tunnel detector would have named, with the reason
    rows: list[DnsRow]


class TlsRow(TypedDict):
    t: float
    frame: int
    server_frame: int | None
    flow: str
    client: str
    server: str
    port: int
    sni: str | None
    ech: bool
    version: str | None
    offered: list[str]
    cipher: str | None
    alpn: list[str]
    alpn_chosen: str | None
    ja4: str | None
    hello_ms: float | None
    think_ms: float | None  # hello_ms less the RTT to the server
    alert: str | None
    resumed: bool | None
    retry: bool


class Tls(TypedDict):
    total: int
    names: dict[str, int]  # SNI -> hellos
    rows: list[TlsRow]


class HttpRow(TypedDict):
    t: float
    frame: int
    response_frame: int | None
    flow: str
    client: str
    server: str
    port: int
    method: str
    host: str | None
    path: str
    status: int | None
    ttfb_ms: float | None
    response_bytes: int | None
    content_type: str | None
    user_agent: str | None
    probe: str | None  # name of a captive-portal check


class Http(TypedDict):
    total: int
    requests: int
    responses: int
    hosts: dict[str, int]
    methods: dict[str, int]
    statuses: dict[str, int]
    rows: list[HttpRow]


class QuicRow(TypedDict):
    t: float
    frame: int
    flow: str
    client: str
    server: str
    version: str
    sni: str | None
    alpn: list[str]
    ja4: str | None
    handshake_ms: float | None
    retry: bool
    answered: bool
    initials: int


class Quic(TypedDict):
    total: int
    rows: list[QuicRow]


class IcmpRow(TypedDict):
    """ICMP or ICMPv6 messages of one kind from one reporter about one target."""

    family: Literal[4, 6]
    type: int
    code: int
    name: str
    reporter: str
    target: str | None
    flow: str | None
    mtu: int | None
    count: int
    first: FramePoint
    last: FramePoint
    frames: list[int]


class PmtuRow(TypedDict):
    target: str
    mtu: int
    reporter: str
    ignored: int
    frames: list[int]


class Icmp(TypedDict):
    total: int
    types: dict[str, int]  # "3/1" -> count
    types6: dict[str, int]
    errors: list[IcmpRow]
    pmtu: list[PmtuRow]


class FragmentSummary(TypedDict):
    packets: int
    groups: int
    complete: int
    incomplete: int
    overlapping: int
    tiny_first: int
    oversize: int


class DhcpStep(TypedDict):
    message: str
    frame: int
    t: float


class DhcpRow(TypedDict):
    family: Literal[4, 6]
    client: str  # MAC or DUID
    xid: str
    hostname: str | None
    vendor: str | None
    parameters: list[int]
    servers: list[str]
    address: str | None
    lease_s: int | None
    total_ms: float | None
    steps: list[DhcpStep]
    outcome: Literal["bound", "no-offer", "no-ack", "nak", "released", "partial"]


class Dhcp(TypedDict):
    total: int
    messages: dict[str, int]
    servers: list[str]
    rows: list[DhcpRow]


class ArpRow(TypedDict):
    ip: str
    macs: list[str]
    requests: int
    replies: int
    unasked: int
    unanswered: int
    probes: int
    frames: list[int]


class Arp(TypedDict):
    total: int
    requests: int
    replies: int
    rows: list[ArpRow]


class RtpRow(TypedDict):
    flow: str
    source: str
    target: str
    ssrc: str
    payload_type: int
    codec: str | None
    clock_hz: int
    clock_inferred: bool
    packets: int
    expected: int
    lost: int
    loss_rate: float
    max_loss_burst: int
    reordered: int
    duplicates: int
    jitter_ms: float
    max_jitter_ms: float
    mos: float | None
    first_frame: int
    last_frame: int
