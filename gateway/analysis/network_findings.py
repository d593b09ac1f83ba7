"""Detectors below TCP: ICMP errors, path MTU, fragments, bursts, one-sided recording, damage done by the recording
itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.icmp import E_COUNT, E_FIRST, E_FLOW, E_FRAMES, E_LAST, E_LAST_FRAME, E_PROTOCOL, NAMES4, NAMES6
from gateway.analysis.measures import SECOND, counted, graded, percent, short_s
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.state import State
    from gateway.analysis.summary import TcpTotals


def detect(st: State, out: Findings, totals: TcpTotals, scanners: set[bytes]) -> None:
    """All detectors of this module."""
    _icmp(st, out, scanners)
    _pmtu(st, out)
    _fragments(st, out)
    _capture(st, out, totals)


def _icmp(st: State, out: Findings, scanners: set[bytes]) -> None:
    groups: dict[tuple[int, bytes, int, int], list[Any]] = defaultdict(list)
    for (family, reporter, target, kind, code), row in st.icmp.errors.items():
        groups[family, reporter, kind, code].append((target, row))
    for (family, reporter, kind, code), rows in groups.items():
        count = sum(row[E_COUNT] for _, row in rows)
        name = (NAMES6 if family == 6 else NAMES4).get((kind, code), f"type {kind} code {code}")
        grade: Severity = "info"
        signals: list[str] = []
        label = "icmp.unreachable"
        if (family == 4 and kind == 3 and code in (0, 1, 13)) or (family == 6 and kind == 1 and code != 4):
            grade = "medium"
        elif (family, kind) in ((4, 11), (6, 3)):
            label = "icmp.ttl_exceeded"
            if code == 0 and any(row[E_COUNT] >= st.settings.icmp.loop_min for _, row in rows):
                label, grade = "icmp.loop", "high"
                signals.append("same-target")
        elif (kind == 5 and family == 4) or kind == 137:
            label, grade = "icmp.redirect", "low"
        elif (family, kind, code) in ((4, 3, 4), (6, 2, 0)):
            label = "icmp.too_big"
        asker = split_key(rows[0][1][E_FLOW])[0] if rows[0][1][E_FLOW] else None
        if asker in scanners:
            grade = "info"
        frames = sorted({frame for _, row in rows for frame in row[E_FRAMES]})
        flow = st.flow_frame(rows[0][1][E_FLOW], rows[0][1][E_PROTOCOL])
        targets = [st.address_text(target) for target, _ in rows if target]
        out.add(
            label,
            grade,
            1.0,
            f"{st.address_text(reporter)}: {name}",
            f"{st.address_text(reporter)} reported {name!r} {counted(count, 'time')}, about "
            f"{', '.join(targets[:3]) or 'unknown targets'}"
            + (f" and {len(targets) - 3} more." if len(targets) > 3 else "."),
            frames=frames[: st.frames_cap],
            count=count,
            first_ns=min(row[E_FIRST] for _, row in rows),
            last_ns=max(row[E_LAST] for _, row in rows),
            last_frame=max(row[E_LAST_FRAME] for _, row in rows),
            flow=flow,
            source=reporter,
            target=rows[0][0] or None,
            evidence={"type": kind, "code": code, "count": count, "targets": len(targets)},
            threshold={"loop_min": st.settings.icmp.loop_min} if label == "icmp.loop" else {},
            signals=signals,
            advice=label,
        )


def _pmtu(st: State, out: Findings) -> None:
    for target, (mtu, t, reporter, ignored, frames) in st.icmp.mtu.items():
        if ignored:
            out.add(
                "ip.pmtu.ignored",
                "high",
                0.8,
                f"Path MTU of {mtu} to {st.address_text(target)} is ignored",
                f"{st.address_text(reporter)} said that packets to {st.address_text(target)} must not exceed "
                f"{mtu} bytes; "
                f"{ignored:,} larger ones were sent more than {short_s(st.settings.icmp.pmtu_grace_s)} later.",
                frames=frames,
                count=ignored,
                first_ns=t,
                last_ns=st.max_ns,
                target=target,
                evidence={"mtu": mtu, "ignored": ignored},
                threshold={"grace_s": st.settings.icmp.pmtu_grace_s},
                advice="ip.pmtu",
            )


def _fragments(st: State, out: Findings) -> None:
    table = st.fragments
    if not table.total:
        return
    share = table.incomplete / table.total
    for kind, count, grade, text in (
        (
            "incomplete",
            table.incomplete,
            "medium" if share > st.settings.fragments.incomplete_medium else "low",
            f"{table.incomplete:,} of {table.total:,} fragmented packets never became complete",
        ),
        (
            "teardrop",
            table.teardrop,
            "critical",
            f"{table.teardrop:,} fragments lie inside others, as the teardrop attack sends them",
        ),
        (
            "overlap",
            table.overlapping if not table.teardrop else 0,
            "high",
            f"{table.overlapping:,} fragmented packets overlap themselves",
        ),
        (
            "oversize",
            table.oversize,
            "critical",
            f"{table.oversize:,} fragments end beyond the largest packet (ping of death)",
        ),
        ("tiny", table.tiny, "medium", f"{table.tiny:,} first fragments are too small to hold a header"),
    ):
        if not count:
            continue
        source, target = table.hosts[kind]
        first, last = table.times[kind]
        severity: Severity = graded(1, (1, grade)) or "low"  # type: ignore[arg-type]
        out.add(
            f"ip.fragments.{kind}",
            severity,
            1.0,
            text[0].upper() + text[1:],
            f"{text[0].upper() + text[1:]}, from {st.address_text(source)} to {st.address_text(target)} among others.",
            frames=sorted(table.frames[kind]),
            count=count,
            first_ns=first,
            last_ns=last,
            source=source,
            target=target,
            evidence={"count": count, "groups": table.total},
            threshold={"share": st.settings.fragments.incomplete_medium} if kind == "incomplete" else {},
            advice="ip.fragments",
            group="performance" if kind == "incomplete" else "security",
        )


def _capture(st: State, out: Findings, totals: TcpTotals) -> None:
    """What is wrong with the recording, so that nobody charges it to the network."""

    def note(
        kind: str,
        severity: Severity,
        title: str,
        sentence: str,
        frames: list[int],
        count: int,
        first_ns: int,
        last_ns: int | None = None,
        display_filter: str = "",
        **evidence: Any,
    ) -> None:
        out.add(
            f"capture.{kind}",
            severity,
            1.0,
            title,
            sentence,
            frames=frames,
            count=count,
            first_ns=first_ns,
            last_ns=st.max_ns if last_ns is None or count > len(frames) else last_ns,
            last_frame=None if count == len(frames) else st.frame,
            display_filter=display_filter,
            evidence=evidence,
            advice=f"capture.{kind}",
            group="capture",
        )

    if st.drops:
        note(
            "drops",
            "medium" if st.drops >= 5 and st.drops > 0.001 * st.frame else "low",
            f"The recording lost packets ({counted(st.drops, 'place')})",
            f"{counted(st.missing_bytes, 'byte')} were acknowledged though they were never recorded, in "
            f"{counted(st.drops, 'place')}: "
            f"the capture "
            "lost them, not the network.",
            sorted(set(st.drop_first)),
            st.drops,
            *st.drop_times,
            missing_bytes=st.missing_bytes,
        )
    if st.duplicates:
        share = st.duplicates / st.frame
        many = share > st.settings.loss.duplicate_share
        routed = st.router_duplicates > st.duplicates / 2
        note(
            "duplicates",
            "medium" if many else "info",
            f"{'Every packet' if many else counted(st.duplicates, 'packet')} recorded more than once",
            f"{st.duplicates:,} of {counted(st.frame, 'packet')} ({percent(share)}) are copies of the one before, made "
            f"by {'a recorder before and behind a router' if routed else 'a mirror port or several interfaces'}; "
            "they are left out of all TCP results.",
            st.duplicate_frames,
            st.duplicates,
            *st.duplicate_times,
            share=share,
            other_ttl=st.router_duplicates,
        )
    if st.cut:
        note(
            "cut",
            "info",
            "Packets were cut when recorded",
            f"{st.cut:,} of {counted(st.frame, 'packet')} hold less than was on the wire; payload "
            "could be read only in part.",
            [st.cut_frame],
            st.cut,
            st.cut_ns,
            st.cut_ns,
            "frame.cap_len < frame.len" if st.cut > 1 else "",
            share=st.cut / st.frame,
        )
    if st.offload:
        note(
            "offload",
            "info",
            "Packets were joined before they were recorded",
            f"{counted(st.offload, 'packet is', 'packets are')} larger than a wire carries (offload): loss rates count "
            "segments, not wire packets.",
            [st.offload_frame],
            st.offload,
            st.offload_ns,
            st.offload_ns,
        )
    if st.backwards:
        disturbing = "clock-backwards" in out.limits
        note(
            "clock",
            "low" if disturbing else "info",
            "The clock runs backwards",
            f"{counted(st.backwards, 'packet is', 'packets are')} older than the one before, by up to "
            f"{short_s(st.backwards_ns / SECOND)}"
            + (
                "; times across them mean little."
                if disturbing
                else ": no more than two processors of one recorder may differ by."
            ),
            [st.notes.frames.get("clock-backwards") or 1],
            st.backwards,
            st.backwards_first_ns,
            st.backwards_first_ns,
            "frame.time_delta < 0" if st.backwards > 1 else "",
        )
    connections = len(st.connections)
    if totals.one_sided and totals.one_sided > st.settings.asymmetry.one_sided_share * connections:
        note(
            "one_sided",
            "medium",
            "Only one direction was recorded",
            f"{totals.one_sided:,} of {counted(connections, 'connection shows', 'connections show')} one direction "
            "only: the other takes another path, or the tap is wrong.",
            [conn.frame for conn in totals.one_way],
            totals.one_sided,
            totals.one_way[0].time,
            share=totals.one_sided / connections,
        )
    for gap, before, after, ended in st.pauses[:10]:
        out.add("capture.pause", "info", 0.8, f"No packet at all for {short_s(gap / SECOND)}",
                f"Between frames {before} and {after} nothing was recorded for {short_s(gap / SECOND)}.",
                frames=[before, after], first_ns=ended - gap, last_ns=ended, evidence={"gap_s": gap / SECOND},
                threshold={"pause_s": st.settings.gap.pause_s}, advice="capture.pause", group="capture")  # fmt: skip
