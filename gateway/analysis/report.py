"""The shape of a report: one TypedDict for each object of `report.json`, schema `postern.analysis/1.0`.

Times called `t` or `start` are seconds after the first packet of the file; `first_unix_ns` of `capture` is the anchor.
`frame` counts from 1 over the whole file. A number that could not be measured is null, never 0. Lists that may be long
are `{"total": n, "rows": [...]}` with at most `tables.rows` rows; the plain lists are short.
Strings that come from packets are raw text (control characters are possible): whoever prints them must escape them.
Floats are rounded to 6 significant digits.

An analysis builds plain dicts and never imports this module: only the type checker and `schema` do.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from gateway.analysis.report_protocols import Arp, Dhcp, Dns, FragmentSummary, FramePoint, Http, Icmp, Quic, RtpRow, Tls
from gateway.analysis.words import FindingClass, Severity, Side


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
    """One of at most three sentences; `about` says of which part of the path, `clear` that it is not to blame."""

    about: Literal["network", "server", "client", "capture", "security", "none"]
    sentence: str
    findings: list[str]
    frame: int | None
    numbers: dict[str, float | int | str | None]
    clear: bool


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


class BurstTalker(TypedDict):
    host: str
    bytes: int  # reckoned from the mean rates of its flows


class BurstRow(TypedDict):
    start: float
    duration: float
    packets: int
    bytes: int
    peak_ratio: float
    frame: int
    talkers: list[BurstTalker]  # at most five, who sent most first
    coinciding: list[str]  # ids of findings of loss or delay with frames in the burst


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
