"""Everything one analysis knows while it reads: tables, counters and their bounds.

The batch loop and the rules fill it, the detectors read it. Each table has a cap; what is pushed out is folded into
totals by
host and by service, so that counts stay exact while memory stays bounded under a flood of sources, flows or names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gateway.analysis import fold
from gateway.analysis.arp import ArpTable
from gateway.analysis.dhcp import DhcpTable
from gateway.analysis.dns import DnsTable
from gateway.analysis.flows import RESENT, Connection, UdpDirection, reverse_key
from gateway.analysis.fragments import FragmentTable
from gateway.analysis.http import HttpTable
from gateway.analysis.icmp import IcmpTable
from gateway.analysis.native import new_registers, new_table
from gateway.analysis.quic import QuicFlow
from gateway.analysis.records import Interface, Notes
from gateway.analysis.rtp import RtpStream
from gateway.analysis.settings import Settings
from gateway.analysis.timeline import Timeline
from gateway.analysis.tls_sessions import TlsTable
from gateway.analysis.udp import UdpFlow

if TYPE_CHECKING:
    from gateway.analysis.report import Finding

SECOND = 1_000_000_000
LABEL_FRAMES = 200  # first frames kept for each label over the whole file


@lru_cache(maxsize=1024)  # the rows of a report name the same few again and again
def _address_text(address: bytes) -> str:
    if len(address) == 4:
        return ".".join(map(str, address))
    if len(address) != 16:
        return address.hex()
    from ipaddress import IPv6Address  # many captures have none, and each start would pay for it

    return str(IPv6Address(address))


class State:
    """Tables and counters of one analysis; see the comments for what each holds."""

    def __init__(self, settings: Settings, notes: Notes) -> None:
        self.settings = settings
        self.notes = notes
        self.frames_cap = settings.tables.frames
        # Thresholds that the rules need per packet, in nanoseconds
        self.duplicate_ns = int(settings.loss.duplicate_s * SECOND)
        self.fast_window_ns = int(settings.loss.fast_window_s * SECOND)
        self.unknown_irtt_ns = int(settings.loss.unknown_irtt_s * SECOND)
        self.spike_ns = min(int(settings.rtt.spike_s * SECOND), RESENT)  # no clock goes further
        self.gap_ns = int(settings.gap.low_s * SECOND)
        self.half_cap = settings.tables.half_open
        self.decapsulate = settings.reader.decapsulate
        # The file
        self.interfaces: list[Interface] = []
        self.base = 0  # file offset of the buffer in work
        self.frame = 0
        self.undecoded = 0
        # What the timeline knows, once the file was read
        self.wire_bytes = 0
        self.captured_bytes = 0
        self.cut = 0
        self.cut_frame = self.cut_ns = 0
        self.first_ns: int | None = None
        self.max_ns = 0
        self.backwards = 0
        self.backwards_ns = 0  # the largest step back
        self.backwards_first_ns = 0  # when the first one was noticed
        self.bin_ns = SECOND // 10
        self.bins: dict[int, list[int]] = {}  # [packets, bytes, first frame] by number of the bin
        self.pauses: list[tuple[int, int, int, int]] = []  # gap in ns, frame before, frame after, when it ended
        # TCP
        self.tcp = new_table()
        self.half: dict[bytes, tuple[Any, ...]] = {}  # see `handshake`
        self.old_half: list[tuple[bytes, tuple[Any, ...]]] = []  # attempts whose ports were taken by a newer one
        self.option_texts: dict[bytes, bytes] = {}  # SYN options, one copy of each
        self.connections: deque[Connection] = deque()  # in order of creation
        self.closed: list[Connection] = []  # whose ports were taken by a newer one
        self.streams = 0
        self.syn = self.syn_ack = self.fin = self.rst = 0
        self.reused = 0
        self.labels: dict[str, int] = {}
        self.label_frames: dict[str, list[int]] = {}
        self.noted: dict[str, list[int]] = {}
        self.evidence = {"seen-range": 0, "hole-fill": 0, "overlap": 0, "unknown": 0}
        self.karn = 0
        self.holes_dropped = 0
        self.drops = 0
        self.missing_bytes = 0
        self.drop_first: list[int] = []
        self.drop_times = (0, 0)  # of the first and of the last
        self.duplicates = 0
        self.router_duplicates = 0  # of them with another TTL than the first one
        self.duplicate_frames: list[int] = []
        self.duplicate_times = (0, 0)
        self.offload = 0
        self.offload_frame = self.offload_ns = 0
        # UDP
        self.udp: dict[bytes, UdpDirection] = {}
        self.udp_flows: deque[UdpFlow] = deque()
        self.targets: dict[bytes, list[Any]] = {}  # address -> counters of datagrams received, see `udp`
        self.icmp_targets: dict[bytes, list[Any]] = {}
        self.syn_targets: dict[bytes, list[Any]] = {}  # address + port -> SYN counters, see `handshake`
        # Folded flows
        self.folded = 0
        self.folded_half = 0
        self.hosts: dict[bytes, list[Any]] = {}
        self.hosts_rest = 0
        # Protocols: name -> [packets, bytes]
        self.link: dict[str, list[int]] = {}
        self.network: dict[str, list[int]] = {}
        self.transport: dict[str, list[int]] = {}
        self.vlans: dict[int, list[int]] = {}
        self.tunnels: dict[str, list[int]] = {}
        self.malformed: dict[str, list[int]] = {}  # layer -> [packets, first frame]
        self.folded_sessions: dict[tuple[bytes, bytes, int], list[tuple[int, int, int, int, int]]] = {}
        # Names and applications
        self.dns = DnsTable()
        self.tls = TlsTable()
        self.http = HttpTable()
        self.quic: list[QuicFlow] = []
        self.quic_total = 0
        self.quic_opened = 0
        self.dhcp = DhcpTable()
        self.arp = ArpTable()
        self.icmp = IcmpTable()
        self.fragments = FragmentTable()
        self.rtp: list[RtpStream] = []
        self.rtp_known: set[RtpStream] = set()
        self.devices: dict[bytes, tuple[set[str], set[str]]] = {}  # names and services told by SSDP
        self.waits: dict[int, list[int]] = {}  # connection -> [n, sum in ns, slowest, its frame]
        self.wait_samples: list[int] = []
        self.watch_mtu = False
        self.names_seen: dict[bytes, str] = {}  # address -> name by SNI or HTTP host, filled at the end
        self.local: Callable[[bytes], bool] | None = None  # see `neighbourhood`
        self._seed = 0x2545F491
        self.registers = new_registers(self)

    def adopt(self, timeline: Timeline) -> None:
        """Take over what the reader knows of times and sizes, now that the file has ended."""
        timeline.close()
        self.wire_bytes = timeline.wire_bytes
        self.captured_bytes = timeline.wire_bytes - timeline.cut_bytes
        self.cut, self.cut_frame, self.cut_ns = timeline.cut, timeline.cut_frame, timeline.cut_ns
        self.first_ns = timeline.first_ns
        self.max_ns = timeline.max_ns
        self.backwards, self.backwards_ns = timeline.backwards, timeline.backwards_ns
        self.backwards_first_ns = timeline.backwards_first_ns
        self.bin_ns, self.bins, self.pauses = timeline.bin_ns, timeline.bins, timeline.pauses

    def random(self, limit: int) -> int:
        """A number below `limit` from a fixed seed, so that two runs of one file keep the same samples."""
        self._seed = (self._seed * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        return (self._seed >> 8) % limit

    def label(self, kind: str, conn: Connection, frame: int, time: int) -> None:
        """Count a segment under one of tshark's labels, for the file and for its connection."""
        self.labels[kind] = self.labels.get(kind, 0) + 1
        frames = self.label_frames.get(kind)
        if frames is None:
            self.label_frames[kind] = [frame]
        elif len(frames) < LABEL_FRAMES:
            frames.append(frame)
        conn.event(kind, frame, time, self.frames_cap)

    def note(self, kind: str, frame: int) -> None:
        """Keep the first frames of something seen over the whole file."""
        frames = self.noted.setdefault(kind, [])
        if len(frames) < self.frames_cap:
            frames.append(frame)

    def copied(self, frame: int, time: int) -> None:
        """Count a packet that was recorded twice."""
        self.duplicate_times = (self.duplicate_times[0] if self.duplicates else time, time)
        self.duplicates += 1
        if len(self.duplicate_frames) < self.frames_cap:
            self.duplicate_frames.append(frame)

    def drop_proved(self, conn: Connection, frame: int, time: int, missing: int) -> None:
        """Count bytes that were acknowledged and never captured: the recording lost them, not the network."""
        self.drop_times = (self.drop_times[0] if self.drops else time, time)
        self.drops += 1
        self.missing_bytes += missing
        if len(self.drop_first) < self.frames_cap:
            self.drop_first.append(frame)
        conn.event("capture-drop", frame, time, self.frames_cap)

    def count(self, table: dict[str, list[int]], name: str, wire: int) -> None:
        """Add a packet of `wire` bytes to a row of a protocol table."""
        row = table.get(name)
        if row is None:
            table[name] = [1, wire]
        else:
            row[0] += 1
            row[1] += wire

    def malform(self, frame: int, layer: str) -> None:
        """Count a packet whose headers of a layer, `ip` or `l4`, contradict themselves."""
        row = self.malformed.setdefault(layer, [0, frame])
        row[0] += 1

    def offloaded(self, frame: int, time: int) -> None:
        """Count a packet larger than the wire carries: several were joined before they were recorded."""
        if not self.offload:
            self.offload_frame, self.offload_ns = frame, time
        self.offload += 1

    def host_packet(self, source: bytes, destination: bytes, wire: int) -> None:
        """Count a packet without ports at its hosts."""
        row = fold.host_row(self, source)
        if row is not None:
            row[fold.HOST_TX] += 1
            row[fold.HOST_TX_BYTES] += wire
        row = fold.host_row(self, destination)
        if row is not None:
            row[fold.HOST_RX] += 1
            row[fold.HOST_RX_BYTES] += wire

    def server_wait(self, conn: Connection, waited: int, frame: int) -> None:
        """Note how long a client waited for the first byte of a response."""
        row = self.waits.get(conn.number)
        if row is None:
            if len(self.waits) >= self.settings.tables.flows:
                return
            row = self.waits[conn.number] = [0, 0, 0, 0]
        row[0] += 1
        row[1] += waited
        if waited >= row[2]:
            row[2], row[3] = waited, frame
        trip = conn.irtt or 0
        if len(self.wait_samples) < 4096:
            self.wait_samples.append(max(0, waited - trip))
        else:
            self.wait_samples[self.random(4096)] = max(0, waited - trip)

    def address_text(self, address: bytes) -> str:
        """An address as people write it."""
        return _address_text(address)

    def seconds(self, t: int) -> float:
        """Seconds after the first packet."""
        return (t - (self.first_ns or 0)) / SECOND

    def record_header(self) -> int:
        """Bytes of a record before its packet: the record of a packet begins so far before it in the unpacked file."""
        return max(self.interfaces, key=lambda item: item.packets).header if self.interfaces else 0

    def flow_frame(self, key: bytes, protocol: int) -> int | None:
        """The first frame, and so the name, of the flow with these addresses and ports; None if it is not in a
        table.
        """
        if not key:
            return None
        back = reverse_key(key)
        if protocol == 17:
            d = self.udp.get(key) or self.udp.get(back)
            return d[1].frame if d is not None else None
        direction = self.tcp.get(key) or self.tcp.get(back)
        if direction is not None:
            conn: Connection = direction.conn
            return conn.frame
        half = self.half.get(key) or self.half.get(back)
        return half[1] if half is not None else None

    def is_server_side(self, finding: Finding) -> bool:
        """Whether the receiver of a finding's data is the server of its flow."""
        evidence_flow = finding["flow"]
        if evidence_flow is None:
            return False
        number = int(evidence_flow[1:])
        for conn in self.connections:
            if conn.frame == number:
                return finding["hosts"].get("target") == self.address_text(fold.split_key(conn.key)[1])
        return False
