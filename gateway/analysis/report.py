"""The shape of a report: one TypedDict for each object of `report.json`, schema `postern.analysis/1.0`.

Times called `t` or `start` are seconds after the first packet of the file; `first_unix_ns` of `capture` is the anchor.
`frame` counts from 1 over the whole file. A number that could not be measured is null, never 0. Lists that may be long
are `{"total": n, "rows": [...]}` with at most `tables.rows` rows; the plain lists are short.
Strings that come from packets are raw text (control characters are possible): whoever prints them must escape them.
Floats are rounded to 6 significant digits.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypedDict

SCHEMA: Final = "postern.analysis/1.0"

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "low", "medium", "high", "critical")
FindingClass = Literal["performance", "security", "capture"]
Side = Literal["client", "server", "middle", "unknown"]


class Generator(TypedDict):
    name: str
    version: str
    python: str


class Note(TypedDict):
    """Something about the file itself: `truncated`, `bad-record-length`, `cut-packets`, `clock-backwards` and so on."""

    name: str
    count: int
    sentence: str
    frame: int | None  # the first frame concerned
    offset: int | None  # byte offset in the unpacked file


class Interface(TypedDict):
    name: str
    linktype: int
    linktype_name: str
    resolution: str  # "us", "ns", "10^-3", "2^-20"
    snaplen: int
    packets: int
    decoded: bool


class Capture(TypedDict):
    name: str
    sha256: str  # of the file as stored
    bytes: int  # of the file as stored
    unpacked_bytes: int
    format: str  # "pcap", "pcapng", with "+gzip"
    interfaces: list[Interface]
    packets: int
    first_unix_ns: int | None
    duration_s: float
    wire_bytes: int
    captured_bytes: int
    notes: list[Note]


class VerdictSentence(TypedDict):
    """One of at most three sentences; `about` says which part of the path it speaks of."""

    about: Literal["network", "server", "client", "capture", "security", "none"]
    sentence: str
    findings: list[str]
    frame: int | None
    numbers: dict[str, float | int | str | None]


class HealthMetric(TypedDict):
    name: str
    value: float
    unit: str
    n: int
    weight: int
    penalty: float
    evidence: list[str]


class Excluded(TypedDict):
    name: str
    reason: str


class Health(TypedDict):
    score: float | None
    grade: Literal["excellent", "good", "fair", "poor", "bad"] | None
    sentence: str
    metrics: list[HealthMetric]
    excluded: list[Excluded]
    limits: list[str]


class CaptureHealth(TypedDict):
    cut: int
    duplicates: int
    copies: int  # how often each packet was recorded, 1 when there is no pattern
    offload: int
    backwards: int
    one_sided: int
    side: Side
    side_votes: dict[str, int]
    drops_proved: int
    missing_bytes: int
    unknown_linktype: int
    malformed: int
    pauses: list[dict[str, float | int]]  # from_frame, to_frame, gap_s


class FramePoint(TypedDict):
    frame: int
    t: float


# Written as a call because "class" is a reserved word.
Finding = TypedDict(
    "Finding",
    {
        "id": str,
        "kind": str,
        "class": FindingClass,
        "severity": Severity,
        "confidence": float,
        "title": str,
        "sentence": str,
        "count": int,
        "first": FramePoint,
        "last": FramePoint,
        "frames": list[int],
        "flow": str | None,  # uid of a flow row
        "hosts": dict[str, str],  # source, target
        "evidence": dict[str, Any],  # Any: numbers and short strings that fired
        "threshold": dict[str, Any],  # what they were held against
        "signals": list[str],
        "limits": list[str],  # notes on the capture that weaken it
        "filter": str,  # Wireshark display filter
        "related": list[str],
        "advice": str,  # key of an explanation, such as "tcp.loss"
        "muted": str | None,  # reason of the allow-list entry that mutes it
    },
)


class Stats(TypedDict):
    """Spread of one measured quantity, in milliseconds."""

    n: int
    min: float
    median: float
    p95: float
    max: float
    stdev: float


class HandshakeRow(TypedDict):
    syn_frame: int | None
    last_syn_frame: int | None
    syn_ack_frame: int | None
    ack_frame: int | None
    syn_count: int
    syn_ack_count: int
    syn_intervals_s: list[float]
    server_ms: float | None  # SYN to SYN-ACK
    client_ms: float | None  # SYN-ACK to ACK
    irtt_ms: float | None
    ambiguous: bool
    state: Literal["complete", "no-answer", "refused", "client-silent", "cut-at-end", "not-seen"]


class DirectionRow(TypedDict):
    """One direction of a TCP flow, as sent by that side."""

    segments: int  # data segments
    retrans: int  # by evidence, capture duplicates left out
    fast: int
    spurious: int
    out_of_order: int  # tshark's label
    retransmission: int  # tshark's label, with fast and spurious
    hole_fills: int
    reordered: int  # hole fills that timing calls reordering
    seen_again: int  # evidence: bytes seen before
    rto: int
    tail_probes: int
    duplicate_acks: int
    lost_segments: int  # holes opened
    missing_bytes: int  # acknowledged though never captured
    zero_windows: int
    zero_window_s: float
    window_full: int
    keepalives: int
    min_window: int | None
    max_window: int | None
    window_scale: int | None
    mss: int | None
    sack: bool | None
    timestamps: bool | None
    sack_blocks: int
    dsack: int
    reneged: int
    max_in_flight: int
    bps: float | None
    peak_bps: float | None
    unique_bytes: int
    active_s: float
    unacked_bytes: int
    limited_by: str | None  # "receiver application", "receiver window", "sender application", "network"


class FlowTcp(TypedDict):
    handshake: HandshakeRow
    rtt_client_ms: Stats | None  # capture point to the originator and back
    rtt_server_ms: Stats | None
    dropped_by_karn: int
    side: Side
    one_sided: bool
    reset_by: Literal["orig", "resp"] | None
    reset_frame: int | None
    reset_phase: str | None
    orig: DirectionRow
    resp: DirectionRow
    events: dict[str, list[int]]  # kind -> first frames


class FlowRow(TypedDict):
    """A connection or a pair of UDP ports; names follow Zeek's conn.log."""

    uid: str
    proto: Literal["tcp", "udp"]
    orig_host: str
    orig_port: int
    resp_host: str
    resp_port: int
    vlan: int | None
    service: str | None
    service_confidence: float | None
    service_why: str | None
    name: str | None  # SNI, HTTP host or DNS name of the responder
    start: float
    duration: float
    idle_s: float
    orig_pkts: int
    resp_pkts: int
    orig_bytes: int  # payload
    resp_bytes: int
    orig_wire_bytes: int
    resp_wire_bytes: int
    conn_state: str
    retrans: int
    ooo: int
    rtt_ms: float | None  # larger side's median
    irtt_ms: float | None
    zero_window: int
    sni: str | None
    first_frame: int
    last_frame: int
    offset: int  # byte offset of the first record in the unpacked file (the record header, or the pcapng block)
    trouble: float  # sorting key: the worst flows have the highest
    tcp: NotRequired[FlowTcp]


class Flows(TypedDict):
    total: int
    folded: int
    rows: list[FlowRow]


class HostRow(TypedDict):
    host: str
    names: list[str]
    mac: str | None
    local: bool
    tx_packets: int
    rx_packets: int
    tx_bytes: int
    rx_bytes: int
    flows: int
    share: float
    syn_sent: int
    syn_answered: int


class PairRow(TypedDict):
    a: str
    b: str
    packets: int
    a_to_b_bytes: int
    b_to_a_bytes: int
    flows: int
    share: float


class TcpSummary(TypedDict):
    """Counts over the file; `labels` follows tshark's definitions so that the two can be compared."""

    streams: int
    packets: int
    data_segments: int
    syn: int
    syn_ack: int
    fin: int
    rst: int
    attempts: int
    labels: dict[str, int]
    label_frames: dict[str, list[int]]  # first 200 frames of each label
    evidence: dict[str, int]  # seen-range, hole-fill, overlap, unknown
    cause: dict[str, int]  # fast, rto, rto-backoff, tail-probe, spurious, unknown
    retransmissions: int  # by evidence
    reordered: int
    loss_rate: float | None
    handshakes: dict[str, int]
    conn_states: dict[str, int]
    rtt_ms: Stats | None
    irtt_ms: Stats | None
    sack: dict[str, int]
    unit: Literal["of packets", "of segments"]
    reused_ports: int


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


class Count(TypedDict):
    packets: int
    bytes: int
    share: float


class Protocols(TypedDict):
    link: dict[str, Count]
    network: dict[str, Count]
    transport: dict[str, Count]
    vlans: dict[str, Count]
    tunnels: dict[str, Count]


class ServiceRow(TypedDict):
    service: str
    proto: str
    port: int
    why: str
    confidence: float
    flows: int
    packets: int
    bytes: int
    share: float


class DeviceRow(TypedDict):
    """A device that announced itself by mDNS, LLMNR, SSDP or DHCP."""

    host: str
    names: list[str]
    services: list[str]
    packets: int


class PeriodicRow(TypedDict):
    source: str
    target: str
    service: str
    proto: str
    port: int
    starts: int
    period_s: float
    spread: float
    first_frame: int
    last_frame: int


class BurstRow(TypedDict):
    start: float
    duration: float
    packets: int
    bytes: int
    peak_ratio: float
    frame: int


class GapRow(TypedDict):
    flow: str
    gap_s: float
    t: float
    before_frame: int
    after_frame: int
    awaited: str


class JitterRow(TypedDict):
    flow: str
    source: str
    target: str
    n: int
    median_interval_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float


class Timing(TypedDict):
    cpu_s: float
    wall_s: float
    packets_per_cpu_s: float
    peak_rss_mb: float


class Mark(TypedDict):
    t: float
    finding: str
    severity: Severity


class Series(TypedDict):
    bin_s: float
    packets: list[int]
    bytes: list[int]
    marks: list[Mark]


class Temporal(TypedDict):
    """What happened when: bursts, silences inside transfers, paces; `bin_s` is the bin of bursts."""

    bin_s: float
    bursts: list[BurstRow]
    gaps: list[GapRow]
    periodic: list[PeriodicRow]
    jitter: list[JitterRow]


class Report(TypedDict):
    """The whole report."""

    schema: str
    generator: Generator
    capture: Capture
    settings: dict[str, dict[str, object]]
    verdict: list[VerdictSentence]
    health: Health
    capture_health: CaptureHealth
    findings: list[Finding]
    flows: Flows
    hosts: list[HostRow]
    pairs: list[PairRow]
    tcp: TcpSummary
    dns: Dns
    tls: Tls
    http: Http
    quic: Quic
    icmp: Icmp
    fragments: FragmentSummary
    dhcp: Dhcp
    arp: Arp
    rtp: list[RtpRow]
    protocols: Protocols
    services: list[ServiceRow]
    devices: list[DeviceRow]
    temporal: Temporal
    series: Series
    limits: dict[str, int]
    timing: Timing
