"""Floods and amplification: rates at a target by true second, held against what the target usually sees and answers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.analysis.findings import Findings
from gateway.analysis.fold import HOST_TX, split_key
from gateway.analysis.handshake import T_BINS as SYN_BINS
from gateway.analysis.handshake import T_COMPLETED, T_FIRST_FRAME, T_SOURCES, T_TOTAL
from gateway.analysis.measures import SECOND, graded, is_group, is_local, many_bytes
from gateway.analysis.udp import T_BINS, T_LAST_FRAME, U_FIRST_FRAME, U_LAST, U_PACKETS, U_PAYLOAD
from gateway.analysis.udp import T_FIRST_FRAME as U_T_FIRST
from gateway.analysis.udp import T_SOURCES as U_T_SOURCES
from gateway.analysis.udp import T_TOTAL as U_T_TOTAL

if TYPE_CHECKING:
    from gateway.analysis.state import State

_REFLECTORS = {53: "DNS", 123: "NTP", 161: "SNMP", 389: "CLDAP", 1900: "SSDP", 11211: "memcached", 19: "chargen"}


class Flooded(NamedTuple):
    """What floods aimed at: what arrived there is no scan and no guess besides."""

    services: set[tuple[bytes, int]]  # address and TCP port
    hosts: set[bytes]  # by UDP


def detect(st: State, out: Findings) -> Flooded:
    """Report the floods; returns their targets."""
    services = _syn(st, out)
    reflected = _amplification(st, out)
    sent: dict[bytes, int] = defaultdict(int)
    for flow in st.udp_flows:
        source, target, _, _ = split_key(flow.key)
        if flow.resp is not None:
            sent[target] += flow.resp[U_PACKETS]
        if flow.orig is not None:
            sent[source] += flow.orig[U_PACKETS]
    limits = st.settings.flood
    # A reflection is a flood of which more is known.
    others = {address: row for address, row in st.targets.items() if 2 * reflected.get(address, 0) < row[U_T_TOTAL]}
    hosts = _packets(st, out, "udp", others, limits.udp_per_s, sent) | set(reflected)
    replies = {address: row[HOST_TX] for address, row in st.hosts.items() if address in st.icmp_targets}
    _packets(st, out, "icmp", st.icmp_targets, limits.icmp_per_s, replies)
    return Flooded(services, hosts)


def busy(bins: dict[int, int], rate: float, ratio: float, seconds: int) -> tuple[int, int, int] | None:
    """Longest run of seconds at or above `rate` and `ratio` times the median: (first second, length, peak)."""
    if not bins or max(bins.values()) < rate:
        return None
    span = max(bins) - min(bins) + 1
    # Seconds without an entry count as zero, so that a busy minute does not become its own normal.
    counts = sorted(bins.values())
    missing = span - len(counts)
    usual = 0 if missing > span // 2 else counts[max(0, span // 2 - missing)]
    steady = len(counts) >= 3 * seconds and usual >= rate / ratio
    least = max(rate, ratio * usual) if steady else rate
    best: tuple[int, int, int] | None = None
    start = previous = None
    peak = 0
    for second in sorted(bins):
        if bins[second] < least:
            continue
        if previous is None or second != previous + 1:
            start, peak = second, 0
        peak = max(peak, bins[second])
        previous = second
        assert start is not None
        if best is None or second - start + 1 > best[1]:
            best = (start, second - start + 1, peak)
    return best if best is not None and best[1] >= seconds else None


def _syn(st: State, out: Findings) -> set[tuple[bytes, int]]:
    limits = st.settings.flood
    flooded: set[tuple[bytes, int]] = set()
    for name, row in st.syn_targets.items():
        run = busy(row[SYN_BINS], limits.syn_per_s, limits.median_ratio, limits.min_s)
        # A flood that never pauses is its own median: the share of completed handshakes decides alone then.
        if run is None and row[T_COMPLETED] < limits.completed_share * row[T_TOTAL]:
            run = busy(row[SYN_BINS], limits.syn_per_s, 1.0, limits.min_s)
        if run is None or row[T_COMPLETED] >= limits.completed_share * row[T_TOTAL]:
            continue
        start, length, peak = run
        target, port = name[:-2], int.from_bytes(name[-2:], "big")
        flooded.add((target, port))
        sources = len(row[T_SOURCES])
        spoofed = sources > limits.spoofed_sources
        many = f"{'at least ' if sources >= 256 else ''}{sources}"
        share = row[T_COMPLETED] / row[T_TOTAL]
        out.add(
            "security.flood.syn",
            "critical" if peak >= limits.syn_per_s_critical else "high",
            0.8,
            f"SYN flood against {st.address_text(target)}:{port}",
            f"Up to {peak:,} SYNs a second for {length} s from {many} sources to {st.address_text(target)}:{port}, "
            f"{row[T_COMPLETED]:,} of {row[T_TOTAL]:,} handshakes completed"
            + ("; the sources are probably forged." if spoofed else "."),
            frames=[row[T_FIRST_FRAME]],
            count=row[T_TOTAL],
            first_ns=max(start * SECOND, st.first_ns or 0),
            last_ns=(start + length) * SECOND,
            last_frame=row[5],
            target=target,
            port=port,
            evidence={
                "peak_per_s": peak,
                "seconds": length,
                "sources": sources,
                "completed_share": share,
                "port": port,
                "spoofed": spoofed,
            },
            threshold={"syn_per_s": limits.syn_per_s, "min_s": limits.min_s, "completed_share": limits.completed_share},
            signals=["rate", "not-completed", *(["many-sources"] if spoofed else [])],
            advice="security.flood",
            group="security",
        )
    return flooded


def _packets(
    st: State, out: Findings, what: str, targets: dict[bytes, list[Any]], rate: int, answers: dict[bytes, int]
) -> set[bytes]:
    limits = st.settings.flood
    flooded: set[bytes] = set()
    for target, row in targets.items():
        if not row[T_BINS] or is_group(target):  # it never saw a busy second
            continue
        answered = answers.get(target, 0)
        if answered >= limits.completed_share * row[U_T_TOTAL]:
            continue
        run = busy(row[T_BINS], rate, limits.median_ratio, limits.min_s) or busy(row[T_BINS], rate, 1.0, limits.min_s)
        if run is None:
            continue
        flooded.add(target)
        start, length, peak = run
        grade = graded(peak, (rate, "medium"), (5 * rate, "high"), (20 * rate, "critical"))
        out.add(
            f"security.flood.{what}",
            grade or "medium",
            0.5,
            f"{what.upper()} flood against {st.address_text(target)}",
            f"Up to {peak:,} {what.upper()} packets a second for {length} s to {st.address_text(target)}, "
            f"{answered:,} answers to {row[U_T_TOTAL]:,}.",
            frames=[row[U_T_FIRST]],
            count=row[U_T_TOTAL],
            first_ns=max(start * SECOND, st.first_ns or 0),
            last_ns=(start + length) * SECOND,
            last_frame=row[T_LAST_FRAME],
            target=target,
            evidence={"peak_per_s": peak, "seconds": length, "answered": answered, "sources": len(row[U_T_SOURCES])},
            threshold={"per_s": rate, "min_s": limits.min_s, "answered_share": limits.completed_share},
            signals=["rate", "not-answered"],
            advice="security.flood",
            group="security",
        )
    return flooded


def _amplification(st: State, out: Findings) -> dict[bytes, int]:
    """Report amplification; returns how many packets each victim got."""
    limits = st.settings.amplification
    victims: dict[bytes, int] = defaultdict(int)
    found: dict[tuple[bytes, int], list[Any]] = {}
    for flow in st.udp_flows:
        source, target, sport, port = split_key(flow.key)
        orig, resp = flow.orig, flow.resp
        if orig is None:
            continue
        if sport in _REFLECTORS and port not in _REFLECTORS and resp is None:
            # The first packet came from the service: answers nobody here asked for.
            row = found.setdefault(
                (target, sport), [0, 0, 0, set(), orig[U_FIRST_FRAME], flow.time, orig[U_LAST], False]
            )
            row[0] += orig[U_PAYLOAD]
            row[2] += orig[U_PACKETS]
            row[3].add(source)
            row[6] = max(row[6], orig[U_LAST])
        elif port in _REFLECTORS and resp is not None:
            row = found.setdefault(
                (source, port), [0, 0, 0, set(), orig[U_FIRST_FRAME], flow.time, orig[U_LAST], False]
            )
            row[0] += resp[U_PAYLOAD]
            row[1] += orig[U_PAYLOAD]
            row[2] += resp[U_PACKETS]
            row[3].add(target)
            row[6] = max(row[6], resp[U_LAST])
            row[7] = row[7] or (is_local(target) and not is_local(source))
    for (victim, port), (answers, asked, packets, reflectors, frame, first, last, ours) in found.items():
        unasked = not asked
        # Unasked answers need bulk as well: a capture that starts in the middle has some of them.
        enough = packets >= limits.min_packets and answers >= limits.min_bytes / (10 if unasked else 1)
        if not enough or answers < limits.ratio * asked:
            continue
        victims[victim] += packets
        service = _REFLECTORS[port]
        out.add(
            "security.amplification",
            "critical" if ours else "high",
            0.8 if unasked else 0.5,
            f"{service} amplification against {st.address_text(victim)}",
            f"{len(reflectors):,} {service} servers sent {many_bytes(answers)} to {st.address_text(victim)}, "
            + ("which asked nothing." if unasked else f"{answers / max(1, asked):.0f} times what it asked.")
            + (" A server of this network is the reflector." if ours else ""),
            frames=[frame],
            count=packets,
            first_ns=first,
            last_ns=last,
            target=victim,
            port=port,
            evidence={"answer_bytes": answers, "question_bytes": asked, "reflectors": len(reflectors), "port": port},
            threshold={"ratio": limits.ratio, "bytes": limits.min_bytes},
            signals=["unasked" if unasked else "ratio"],
            advice="security.amplification",
            group="security",
        )
    return victims


__all__ = ["Flooded", "busy", "detect"]
