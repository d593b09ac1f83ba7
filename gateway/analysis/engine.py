"""The one entry of capture analysis: bytes in, report out.

Reading, batch loop and detectors in one pass over the file; garbage collection is off during the pass, for the
tables hold no
cycles that matter and each collection would walk all of them.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from gateway import __version__
from gateway.analysis import (
    application_findings,
    applications,
    batch,
    beacons,
    brute_force,
    bursts,
    connection_findings,
    dhcp,
    dns,
    dns_tunnel,
    exfiltration,
    floods,
    flow_rows,
    fragments,
    host_rows,
    name_rows,
    network_findings,
    scans,
    score,
    services,
    summary,
    tcp,
    tcp_findings,
    udp,
    verdict,
)
from gateway.analysis.findings import Findings
from gateway.analysis.flows import settle
from gateway.analysis.fold import split_key
from gateway.analysis.link import DECODED
from gateway.analysis.measures import SECOND
from gateway.analysis.native import round_floats, sorted_trips
from gateway.analysis.reader import Reader
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.rtp import settle_clock
from gateway.analysis.settings import Settings
from gateway.analysis.state import State
from gateway.analysis.words import SCHEMA

if TYPE_CHECKING:
    from gateway.analysis.report import Finding, GapRow, Report

__all__ = ["AnalysisRefused", "Progress", "Settings", "analyze"]

_PROGRESS_S = 0.25
_CLOCK_STEP_NS = 1_000_000
_PYTHON = ".".join(map(str, sys.version_info[:3]))
_PLAIN = frozenset((int, str, bool, type(None)))
# How much a limit of the recording takes away from which findings
_WEAKENED: dict[str, tuple[str, ...]] = {
    "capture-drops": ("tcp.retransmission", "tcp.reordering", "tcp.gap", "tcp.state"),
    "duplicates": ("tcp.", "udp.jitter", "rtp."),
    "one-sided": ("tcp.", "security.scan", "security.flood"),
    "clock-backwards": ("tcp.rtt", "tcp.gap", "tcp.handshake", "udp.jitter", "rtp.jitter", "security.beacon"),
    "offload": ("udp.jitter", "traffic.burst"),
    "cut-packets": ("tls.", "http.", "dns.", "security.dns_tunnel"),
    "truncated": ("security.beacon",),
}


class Progress(NamedTuple):
    """How far an analysis is: `phase` is reading, detecting or done; `bytes_total` is None for a pipe."""

    phase: str
    bytes_processed: int
    bytes_total: int | None
    packets: int
    findings: int


def analyze(
    source: BinaryIO,
    *,
    name: str,
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    block_bytes: int | None = None,
) -> Report:
    """Analyse a capture read from `source`, which may be a pipe, and return its report.

    `name` is display text only. `progress` is called at most four times a second and at each change of phase;
    `cancelled`
    is asked once per block of `block_bytes` read. Raises AnalysisRefused when nothing can be said about the file.
    """
    wall, cpu = time.monotonic(), time.process_time()
    reader = Reader(source, settings.reader, int(settings.gap.pause_s * SECOND))
    if block_bytes is not None:
        reader.block_bytes = block_bytes
    collecting = gc.isenabled()
    gc.disable()
    gc.unfreeze()
    try:
        st = _read(reader, settings, progress, cancelled)
        if progress is not None:
            progress(Progress("detecting", reader.stored_bytes, _size(source), st.frame, 0))
        report = _report(st, reader, name)
        _take_apart(st)
    finally:
        if collecting:
            # Nothing made so far is walked over again, at the next allocation or at the exit, until another analysis
            # begins: the report is a tree, and what is let go of it is freed without a walk.
            gc.freeze()
            gc.enable()
    spent = time.process_time() - cpu
    report["timing"] = {
        "cpu_s": spent,
        "wall_s": time.monotonic() - wall,
        "packets_per_cpu_s": st.frame / max(spent, 1e-6),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if progress is not None:
        progress(Progress("done", reader.stored_bytes, reader.stored_bytes, st.frame, len(report["findings"])))
    (round_floats() or _round)(report)
    return report


def _size(source: BinaryIO) -> int | None:
    """Length of a seekable source, without disturbing it."""
    try:
        here = source.tell()
        end = source.seek(0, 2)
        source.seek(here)
    except (OSError, AttributeError, ValueError):
        return None
    return end


def _read(
    reader: Reader,
    settings: Settings,
    progress: Callable[[Progress], None] | None,
    cancelled: Callable[[], bool] | None,
) -> State:
    """The pass over the file."""
    st: State | None = None
    total = _size(reader.source) if progress is not None else None
    told = time.monotonic() - _PROGRESS_S
    for block in reader.blocks():
        if st is None:
            assert reader.notes is not None
            st = State(settings, reader.notes)
        assert reader.interfaces is not None
        st.interfaces = reader.interfaces
        batch.run(block, st)
        if cancelled is not None and cancelled():
            raise AnalysisRefused(
                "cancelled", "The analysis was cancelled.", f"{st.frame} packets read", reader.stored_bytes
            )
        if progress is not None and time.monotonic() - told >= _PROGRESS_S:
            told = time.monotonic()
            progress(Progress("reading", reader.stored_bytes, total, st.frame, 0))
    assert st is not None  # a file without records was refused by the reader
    assert reader.timeline is not None
    st.adopt(reader.timeline)
    if not any(item.packets for item in st.interfaces if item.linktype in DECODED):
        first = next((item for item in st.interfaces if item.packets), st.interfaces[0])
        span = (st.max_ns - (st.first_ns or 0)) / SECOND
        raise AnalysisRefused(
            "unsupported-linktype",
            f"The capture is of link type {first.linktype} ({first.linktype_name}), which cannot be analysed.",
            f"{st.frame} packets, {st.wire_bytes} bytes, {span:.3f} s",
            0,
            "Record on an Ethernet, Wi-Fi (monitor mode), cooked, PPP or raw IP interface.",
        )
    return st


def _finish_tables(st: State) -> None:
    """Close what is still open now that the file has ended."""
    dns.at_end(st)
    dhcp.close_second(st)
    fragments.at_end(st)
    udp.close_targets(st.targets)
    udp.close_targets(st.icmp_targets)
    for conn in st.connections:
        if conn.app is not None:
            applications.at_end(conn)
        for d in (conn.orig, conn.resp):
            if d is not None:
                tcp.at_end(d, st.max_ns)
                settle(d)
                if d.rtts is not None and len(d.rtts) > 1:
                    d.rtts = sorted_trips(d.rtts)  # once, for four readers
        if conn.name is not None and not conn.name[:1].isdigit() and len(st.names_seen) < st.settings.tables.names:
            st.names_seen[split_key(conn.key)[1]] = conn.name
    for stream in st.rtp:
        settle_clock(stream)
    for note, sentence, count, frame in (
        ("cut-packets", "packets were cut when recorded", st.cut, st.cut_frame),
        ("clock-backwards", "the clock runs backwards", st.backwards, None),
        ("unknown-linktype-packets", "packets of a link layer that is not known here", st.undecoded, None),
        ("malformed-ip", "packets whose IP headers contradict themselves", *st.malformed.get("ip", (0, None))),
        (
            "malformed-l4",
            "packets whose TCP, UDP, ICMP or GRE headers contradict themselves",
            *st.malformed.get("l4", (0, None)),
        ),
        ("offload", "packets joined before they were recorded", st.offload, st.offload_frame),
    ):
        if count:
            st.notes.add(note, sentence, None, frame, count - st.notes.counts.get(note, 0))


def _take_apart(st: State) -> None:
    """Break the cycles of the flow tables, so that they are freed at once and not by a walk over all there is."""
    for conn in st.connections:
        if conn.orig is not None:
            conn.orig.rev = None
        conn.orig = conn.resp = conn.session = None
    for flow in st.udp_flows:
        flow.orig = flow.resp = None


def _weakening(st: State, totals: summary.TcpTotals) -> dict[str, tuple[str, ...]]:
    active = {
        "capture-drops": st.drops > 0.001 * st.frame,
        "duplicates": summary.copies(st) > 1,
        "one-sided": totals.one_sided > st.settings.asymmetry.one_sided_share * max(1, len(st.connections)),
        # Two processors of one recorder differ by microseconds: that disturbs nothing that is told in milliseconds.
        "clock-backwards": st.backwards_ns > _CLOCK_STEP_NS,
        "offload": st.offload > 0,
        "cut-packets": st.cut > 0.1 * st.frame,
        "truncated": "truncated" in st.notes.counts,
    }
    return {limit: kinds for limit, kinds in _WEAKENED.items() if active[limit]}


def _report(st: State, reader: Reader, name: str) -> Report:
    _finish_tables(st)
    totals = summary.TcpTotals(st)
    pairs = host_rows.add_live_flows(st)
    out = Findings(st)
    out.limits = _weakening(st, totals)
    # One event gives one finding: floods before scans before guessing before beacons.
    flooded = floods.detect(st, out)
    scanners = scans.detect(st, out, flooded)
    guessers = brute_force.detect(st, out)
    exempt = dns_tunnel.detect(st, out)
    exfiltration.detect(st, out)
    periodic = beacons.detect(st, out, scanners | guessers)
    brute_force.lateral(st, out, scanners | guessers)
    connection_findings.detect(st, out, scanners)
    tcp_findings.detect(st, out)
    jitter = application_findings.detect(st, out)
    network_findings.detect(st, out, totals, scanners)
    busy = bursts.detect(st, out)
    findings = out.ordered()
    _relate(findings)
    kept = findings[: st.settings.tables.rows]
    limits = list(out.limits)
    scanned = _scanned(kept)
    wanted = {int(row["flow"][1:]) for row in kept if row["flow"] is not None}
    return {
        "schema": SCHEMA,
        "generator": {"name": "postern", "version": __version__, "python": _PYTHON},
        "capture": summary.capture(st, reader, name),
        "settings": st.settings.as_dict(),
        "verdict": verdict.verdict(st, totals, kept),
        "health": score.health(st, totals, kept, limits, scanned),
        "capture_health": summary.capture_health(st, totals),
        "findings": kept,
        "flows": flow_rows.build(st, wanted),
        "hosts": host_rows.build(st),
        "pairs": pairs,
        "tcp": summary.tcp(st, totals),
        "dns": name_rows.dns(st, exempt),
        "tls": name_rows.tls(st),
        "http": name_rows.http(st),
        "quic": name_rows.quic(st),
        "icmp": name_rows.icmp(st),
        "fragments": summary.fragments(st),
        "dhcp": name_rows.dhcp(st),
        "arp": name_rows.arp(st),
        "rtp": [name_rows.rtp_row(st, stream) for stream in st.rtp[: st.settings.tables.rows]],
        "protocols": summary.protocols(st),
        "services": services.build(st),
        "devices": name_rows.devices(st),
        "temporal": {
            "bin_s": st.bin_ns / SECOND,
            "bursts": busy,
            "gaps": _gaps(st),
            "periodic": periodic,
            "jitter": jitter,
        },
        "series": summary.series(st, kept),
        "limits": {
            "flows_folded": st.folded,
            "hosts_rest": st.hosts_rest,
            "holes_dropped": st.holes_dropped,
            "findings_dropped": out.dropped + len(findings) - len(kept),
            "frames_capped": sum(row["count"] > len(row["frames"]) >= st.frames_cap for row in kept),
        },
        "timing": {"cpu_s": 0.0, "wall_s": 0.0, "packets_per_cpu_s": 0.0, "peak_rss_mb": 0.0},
    }


def _relate(findings: list[Finding]) -> None:
    """Point findings of one flow, or of one attacker, at each other."""
    groups: dict[str, list[Finding]] = {}
    for row in findings:
        if row["flow"] is not None:
            groups.setdefault(row["flow"], []).append(row)
        elif row["class"] == "security" and "source" in row["hosts"]:
            groups.setdefault(row["hosts"]["source"], []).append(row)
    for rows in groups.values():
        for row in rows:
            row["related"] = [other["id"] for other in rows if other is not row][:10]


def _scanned(findings: list[Finding]) -> int:
    """Failed attempts that belong to scans and floods."""
    return sum(
        int(row["evidence"].get("failed", row["count"]))
        for row in findings
        if row["kind"].startswith(("security.scan", "security.flood.syn"))
    )


def _gaps(st: State) -> list[GapRow]:
    rows: list[GapRow] = []
    for conn in st.connections:
        for silence, t, before, after, awaited in conn.gaps or ():
            if len(rows) < st.settings.tables.rows:
                rows.append(
                    {
                        "flow": f"C{conn.frame}",
                        "gap_s": silence / SECOND,
                        "t": st.seconds(t - silence),
                        "before_frame": before,
                        "after_frame": after,
                        "awaited": awaited,
                    }
                )
    return rows


def _round(tree: Any) -> None:  # Any: the report is walked without regard to its shape
    """Bring the floats of a tree to six significant digits, and its tuples to lists, in place."""
    if type(tree) is list and _PLAIN.issuperset(map(type, tree)):
        return  # the usual list: frame numbers, names
    for key, value in tree.items() if type(tree) is dict else enumerate(tree):
        if value.__class__ in _PLAIN:
            continue
        kind = type(value)
        if kind is float:
            if not (-1e6 < value < 1e6) or value != int(value):  # else it has no more than six, as most have
                tree[key] = float(f"{value:.6g}") if value - value == 0 else None
        elif kind is dict or kind is list:
            if value:
                _round(value)
        elif kind is tuple:
            tree[key] = value = list(value)
            _round(value)
