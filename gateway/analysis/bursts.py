"""Bursts: when far more packets came than usual, who sent them, and what else went wrong at that moment.

Time is in bins (see `timeline`), which know how many packets they had and not whose. Who talked is reckoned from the
flows: each is taken to have sent at its mean rate, so the bytes of a talker are an estimate. What coincides is exact: a
finding whose frames are among those of the burst.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, counted, short_s
from gateway.analysis.udp import U_BYTES, U_FIRST, U_LAST

if TYPE_CHECKING:
    from gateway.analysis.report import BurstRow
    from gateway.analysis.state import State

_TALKERS: Final = 5
_COINCIDING: Final = 10
# What a burst may have caused: queues that grew, and packets that found them full.
_CONSEQUENCES: Final = ("tcp.retransmission.loss", "tcp.retransmission.rto", "tcp.rtt.spikes")


def detect(st: State, out: Findings) -> list[BurstRow]:
    """Bins far above the mean, merged when they are close; after the detectors with which they may coincide."""
    rows = _found(st)
    if not rows:
        return rows
    _add_talkers(st, rows)
    for row in rows:
        end = row["frame"] + row["packets"]
        for finding in out.rows:
            if finding["kind"] in _CONSEQUENCES and len(row["coinciding"]) < _COINCIDING:
                at = bisect_left(finding["frames"], row["frame"])
                if at < len(finding["frames"]) and finding["frames"][at] < end:
                    row["coinciding"].append(finding["id"])
    limits = st.settings.burst
    worst = max(rows, key=lambda row: (bool(row["coinciding"]), row["peak_ratio"]))
    begin = int(worst["start"] * SECOND) + (st.first_ns or 0)
    disturbed = sum(bool(row["coinciding"]) for row in rows)
    most = worst["talkers"][0]["host"] if worst["talkers"] else None
    where = "in it" if len(rows) == 1 else f"in {disturbed:,} of {len(rows):,} bursts"
    out.add(
        "traffic.burst",
        "medium" if disturbed else "low",
        0.5,
        f"{counted(len(rows), 'burst')} of packets",
        f"The {'strongest burst' if not disturbed or len(rows) == 1 else 'strongest burst with trouble in it'} carried "
        f"{counted(worst['packets'], 'packet')} in {short_s(worst['duration'])}, {worst['peak_ratio']:,.0f} times the "
        "mean"
        + (f", most of it from {most}" if most is not None else "")
        + (f"; {where} segments were lost or delayed." if disturbed else "."),
        frames=[worst["frame"]],
        count=len(rows),
        last_frame=worst["frame"] + worst["packets"] - 1,
        first_ns=begin,
        last_ns=begin + int(worst["duration"] * SECOND),
        display_filter=f"frame.number >= {worst['frame']} && frame.number < {worst['frame'] + worst['packets']}",
        evidence={
            "bursts": len(rows),
            "peak_ratio": worst["peak_ratio"],
            "packets": worst["packets"],
            "with_trouble": disturbed,
        },
        threshold={"ratio": limits.ratio, "packets": limits.min_packets},
        signals=["loss-or-delay"] if disturbed else [],
        advice="traffic.burst",
    )
    return rows


def _found(st: State) -> list[BurstRow]:
    limits = st.settings.burst
    if not st.bins:
        return []
    width = st.bin_ns / SECOND
    low, high = min(st.bins), max(st.bins)
    span = high - low + 1
    if span < 10:
        return []
    mean = st.frame / span
    counts = sorted(row[0] for row in st.bins.values())
    # Empty bins count: the percentile is taken as if they were in the list.
    index = max(0, int(0.99 * span) - (span - len(counts)))
    p99 = counts[min(len(counts) - 1, index)]
    least = max(limits.ratio * mean, limits.min_packets, p99)
    rows: list[BurstRow] = []
    last = low
    between = [0, 0]  # packets and bytes since the last bin of the burst before
    for number in sorted(st.bins):
        packets, size, frame = st.bins[number]
        if packets < least:
            between[0] += packets
            between[1] += size
            continue
        start = max(0, number * st.bin_ns - (st.first_ns or 0)) / SECOND  # whole numbers: a date leaves no room for µs
        if rows and (number - last) * width <= limits.merge_s + width / 2:
            row = rows[-1]
            row["duration"] = start + width - row["start"]
            row["packets"] += packets + between[0]
            row["bytes"] += size + between[1]
            row["peak_ratio"] = max(row["peak_ratio"], packets / mean)
        elif len(rows) < st.settings.tables.rows:
            rows.append(
                {
                    "start": start,
                    "duration": width,
                    "packets": packets,
                    "bytes": size,
                    "peak_ratio": packets / mean,
                    "frame": frame,
                    "talkers": [],
                    "coinciding": [],
                }
            )
        last = number
        between = [0, 0]
    return rows


def _add_talkers(st: State, rows: list[BurstRow]) -> None:
    """The hosts that sent most in each burst, by the mean rate of their flows."""
    origin = st.first_ns or 0
    ends = [origin + round((row["start"] + row["duration"]) * SECOND) for row in rows]
    begins = [origin + round(row["start"] * SECOND) for row in rows]
    sent: list[dict[bytes, float]] = [defaultdict(float) for _ in rows]

    def share(host: bytes, first: int, last: int, size: int) -> None:
        for at in range(bisect_left(ends, first), len(rows)):
            if begins[at] > last:
                break
            overlap = min(last, ends[at]) - max(first, begins[at])
            sent[at][host] += size * (overlap / (last - first) if last > first else 1.0)

    for conn in st.connections:
        source, target, _, _ = split_key(conn.key)
        for host, d in ((source, conn.orig), (target, conn.resp)):
            if d is not None and d.bytes:
                share(host, d.first, d.last, d.bytes)
    for flow in st.udp_flows:
        source, target, _, _ = split_key(flow.key)
        for host, u in ((source, flow.orig), (target, flow.resp)):
            if u is not None:
                share(host, u[U_FIRST], u[U_LAST], u[U_BYTES])
    for row, hosts in zip(rows, sent, strict=True):
        most = sorted(hosts.items(), key=lambda item: (-item[1], item[0]))[:_TALKERS]
        row["talkers"] = [{"host": st.address_text(host), "bytes": round(size)} for host, size in most]
