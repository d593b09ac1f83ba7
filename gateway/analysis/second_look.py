"""Going back into a capture for a few packets: frames N to M, one flow, or the frames of a finding.

A report remembers where the first record of each flow lies. The look begins at the nearest such place and reads only
from there to the last wanted frame. Without a report it hops over record headers from the start, which parses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from gateway.analysis.frames import Anchor, CaptureFile, Record
from gateway.analysis.headers import locate
from gateway.analysis.trace import FlowKey, Trace, Wanted, build_all

MOST_FRAMES: Final = 300  # packets decoded at one look

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON


class NotFound(LookupError):
    """There is no such flow, finding or frame; the text says what there is."""


def find_flow(report: ReportLike, uid: str) -> Mapping[str, Any]:
    """The flow row with this uid (`C7`, or just `7`); raises NotFound."""
    rows: list[Mapping[str, Any]] = report["flows"]["rows"]
    for row in rows:
        if uid in {row["uid"], row["uid"].lstrip("C")}:
            return row
    known = ", ".join(row["uid"] for row in rows[:8])
    raise NotFound(f"there is no flow {uid!r} in the report; " + (f"there are {known}" if known else "it has none"))


def find_finding(report: ReportLike, wanted: str) -> Mapping[str, Any]:
    """The finding with this id, or the only one whose id begins so; raises NotFound."""
    findings: list[Mapping[str, Any]] = report["findings"]
    matches = [finding for finding in findings if finding["id"] == wanted]
    matches = matches or [finding for finding in findings if finding["id"].startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFound(f"{wanted!r} fits several findings: {', '.join(finding['id'] for finding in matches[:8])}")
    known = ", ".join(finding["id"] for finding in findings[:8])
    raise NotFound(
        f"there is no finding {wanted!r}; " + (f"there are {known}" if known else "nothing was found at all")
    )


def anchor_for(capture: CaptureFile, report: ReportLike | None, frame: int) -> Anchor | None:
    """The nearest known place at or before a frame.

    In a pcapng file whose interfaces are described between packets, a place in the middle cannot be read without what
    came before it: then `None`, the start.
    """
    if report is None:
        return None
    if capture.is_pcapng and len(report["capture"]["interfaces"]) != len(capture.interfaces):
        return None
    best = None
    for row in report["flows"]["rows"]:
        if row["first_frame"] <= frame and (best is None or row["first_frame"] > best.frame):
            best = Anchor(row["first_frame"], row["offset"])
    return best


def frames(path: Path, first: int, last: int, report: ReportLike | None = None) -> list[Record]:
    """Records of frames `first` to `last`, at most MOST_FRAMES; raises NotFound if the file ends before `first`."""
    with CaptureFile.open(path) as capture:
        last = min(last, first + MOST_FRAMES - 1)
        found = list(capture.walk(anchor_for(capture, report, first), first=first, last=last))
    if not found:
        raise NotFound(f"the capture has no frame {first}")
    return found


def first_time(path: Path) -> int | None:
    """When a capture begins, in nanoseconds since 1970: times are told from there, as Wireshark tells them."""
    with CaptureFile.open(path) as capture:
        return next((record.t_ns for record in capture.walk(last=1)), None)


def flow_records(capture: CaptureFile, report: ReportLike, row: Mapping[str, Any]) -> Iterator[Record]:
    """The records of one flow, in file order, read from its first to its last frame."""
    key = FlowKey.of_row(row)
    for record in between(capture, report, row["first_frame"], row["last_frame"]):
        packet = locate(record.linktype, record.data, record.wire_bytes)
        if packet is not None and key.direction(packet, record.data) is not None:
            yield record


def between(capture: CaptureFile, report: ReportLike | None, first: int, last: int) -> Iterator[Record]:
    """All records from frame `first` to `last`, begun at the nearest known place."""
    return capture.walk(anchor_for(capture, report, first), first=first, last=last)


def finding_records(capture: CaptureFile, report: ReportLike, finding: Mapping[str, Any]) -> Iterator[Record]:
    """The records a finding speaks of.

    If all its frames are listed these are they; else the packets of its flow, or between its hosts, from the first
    frame to the last.
    """
    first, last = finding["first"]["frame"], finding["last"]["frame"]
    listed = set(finding["frames"])
    if finding["count"] <= len(listed):
        first, last = min(listed), max(listed)
        for record in between(capture, report, first, last):
            if record.frame in listed:
                yield record
        return
    if finding["flow"] is not None:
        row = next((row for row in report["flows"]["rows"] if row["uid"] == finding["flow"]), None)
        if row is not None:
            for record in flow_records(capture, report, row):
                if first <= record.frame <= last:
                    yield record
            return
    hosts = {_packed(host) for host in finding["hosts"].values()} - {b""}
    for record in between(capture, report, first, last):
        packet = locate(record.linktype, record.data, record.wire_bytes)
        if record.frame in listed or (
            packet is not None and hosts and len(hosts & {packet.source, packet.target}) == min(2, len(hosts))
        ):
            yield record


def trace_flows(capture: CaptureFile, report: ReportLike, rows: Sequence[Mapping[str, Any]]) -> list[Trace]:
    """Follow several TCP flows of the report in one pass, from the first frame of any to the last of any."""
    first, last = min(row["first_frame"] for row in rows), max(row["last_frame"] for row in rows)
    wanted = [Wanted(FlowKey.of_row(row), row["first_frame"], row["last_frame"]) for row in rows]
    return build_all(between(capture, report, first, last), wanted)


def trace_flow(capture: CaptureFile, report: ReportLike, row: Mapping[str, Any]) -> Trace:
    """Follow one TCP flow of the report through the capture."""
    return trace_flows(capture, report, [row])[0]


def _packed(host: str) -> bytes:
    try:
        return ip_address(host).packed
    except ValueError:
        return b""
