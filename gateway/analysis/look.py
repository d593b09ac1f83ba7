"""The process that goes back into a capture for one page: a flow's plots and packets, a few frames, a cut-out.

Started by whoever shows reports, never by people: the capture comes as an open file on standard input, the report as
another, and the order as JSON argument; the answer is one JSON document or, for a cut, the octets of a capture file.
Like the analysis it gives everything up before it reads a byte of either. Without an answer it says why in one line
of JSON on standard error: `not-found` with exit status 3, anything else with 1.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any, Final

from gateway.analysis import html_flows, plots, sandbox, second_look
from gateway.analysis.anonymize import Anonymizer, anonymise_report
from gateway.analysis.cut import cut, cut_anonymised
from gateway.analysis.frames import CaptureFile, Record
from gateway.analysis.headers import locate
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.second_look import NotFound
from gateway.analysis.trace import FlowKey, Segment

NOBODY: Final = 65534
NOT_FOUND: Final = 3
LADDER_ROWS: Final = 60
MOST_UDP: Final = 20_000  # packets of a flow without a trace that are counted
MEMORY_BYTES: Final = 320 << 20
CPU_S: Final = 60
ReportLike = dict[str, Any]  # Any: a Report read back from JSON


def run(order: dict[str, Any], report_file: int) -> int:  # Any: a JSON object, see the functions below
    """Carry out one order; returns the exit status."""
    limits = sandbox.Limits(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=1 << 30)
    sandbox.confine(limits, user=(NOBODY, NOBODY) if os.getuid() == 0 else None)
    try:
        with os.fdopen(report_file, "rb") as file:
            report: ReportLike = json.load(file)
        match order["kind"]:
            case "flow":
                _answer(flow(report, order))
            case "frames":
                _answer(frames(report, order))
            case "cut":
                cut_out(report, order)
            case "anonymised":
                _answer(anonymise_report(report, _anonymizer(order)))
            case kind:
                raise NotFound(f"there is no kind of look {kind!r}")
    except NotFound as err:
        return _complain("not-found", str(err), NOT_FOUND)
    except AnalysisRefused as err:
        return _complain(err.error, str(err), 1)
    except BrokenPipeError:  # nobody waits for the answer any more
        return 1
    except (OSError, MemoryError, ValueError, KeyError) as err:
        return _complain("failed", f"{type(err).__name__}: {err}", 1)
    return 0


def flow(report: ReportLike, order: dict[str, Any]) -> dict[str, Any]:
    """`uid`, `data` (orig, resp or empty: the side that sent more), `at`: the row of the ladder to begin with, -1 for
    the first trouble. Returns figures as markup, the page of packets, and how many there are.
    """
    row = second_look.find_flow(report, order["uid"])
    with _capture() as capture:
        if row["proto"] != "tcp":
            return _without_trace(capture, report, row, order["at"])
        trace = second_look.trace_flow(capture, report, row)
    if not trace.segments:
        raise NotFound(f"the packets of flow {row['uid']} are not in the capture any more")
    from_orig = order["data"] == "orig" or (order["data"] != "resp" and row["orig_bytes"] > row["resp_bytes"])
    at = order["at"]
    if at < 0:
        at = trace.segments.index(html_flows.around_trouble(trace.segments)[0])
    at = min(at, max(0, len(trace.segments) - 1))
    page = trace.segments[at : at + LADDER_ROWS]
    ends = (f"{row['orig_host']}:{row['orig_port']}", f"{row['resp_host']}:{row['resp_port']}")
    return {
        "figures": [str(figure) for figure in html_flows.figures(row, trace, from_orig) if figure],
        "span": str(html_flows.drawn_span(trace)),
        "ladder": plots.ladder(page, *ends),
        "data": "orig" if from_orig else "resp",
        "at": at,
        "rows": LADDER_ROWS,
        "total": len(trace.segments),
        "complete": trace.complete,
        "scaled": trace.scaled,
        "packets": [_segment(segment) for segment in page],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "frame": segment.frame,
        "t": round(segment.t_s, 6),
        "from_orig": segment.from_orig,
        "flags": segment.flag_text(),
        "seq": segment.seq,
        "ack": segment.ack,
        "length": segment.length,
        "window": segment.window_bytes,
        "evidence": segment.evidence,
    }


def _without_trace(capture: CaptureFile, report: ReportLike, row: Any, at: int) -> dict[str, Any]:  # Any: a FlowRow
    """The packets of a flow that is no TCP: when, which way, how long."""
    key = FlowKey.of_row(row)
    found = list(itertools.islice(second_look.flow_records(capture, report, row), MOST_UDP))
    if not found:
        raise NotFound(f"the packets of flow {row['uid']} are not in the capture any more")
    at = min(max(0, at), len(found) - 1)
    packets = []
    for record in found[at : at + LADDER_ROWS]:
        packet = locate(record.linktype, record.data, record.wire_bytes)
        assert packet is not None
        packets.append(
            {
                "frame": record.frame,
                "t": round((record.t_ns - found[0].t_ns) / 1e9, 6),
                "from_orig": bool(key.direction(packet, record.data)),
                "flags": "",
                "seq": None,
                "ack": None,
                "length": max(0, packet.payload_bytes - 8),
                "window": None,
                "evidence": "",
            }
        )
    return {
        "figures": [],
        "span": "",
        "ladder": "",
        "data": "",
        "at": at,
        "rows": LADDER_ROWS,
        "total": len(found),
        "complete": len(found) < MOST_UDP,
        "scaled": False,
        "packets": packets,
    }


def frames(report: ReportLike, order: dict[str, Any]) -> list[dict[str, Any]]:
    """Frames `first` to `last` as they stand in the file, in the form that `dissect` takes."""
    first, last = order["first"], min(order["last"], order["first"] + second_look.MOST_FRAMES - 1)
    with _capture() as capture:
        found = list(second_look.between(capture, report, first, last))
    wanted = [record for record in found if record.frame >= first]
    if not wanted:
        raise NotFound(f"the capture has no frame {first}")
    return [
        {
            "frame": record.frame,
            "t_ns": record.t_ns,
            "linktype": record.linktype,
            "wire_bytes": record.wire_bytes,
            "data": base64.b64encode(record.data).decode(),
        }
        for record in wanted
    ]


def cut_out(report: ReportLike, order: dict[str, Any]) -> None:
    """Write the records of `flow`, of `finding`, or all of them as a capture file; `anonymise` rewrites them."""
    with _capture() as capture, os.fdopen(os.dup(1), "wb", buffering=1 << 18) as out:
        records: Iterable[Record]
        if order.get("flow"):
            records = second_look.flow_records(capture, report, second_look.find_flow(report, order["flow"]))
        elif order.get("finding"):
            finding = second_look.find_finding(report, order["finding"])
            records = second_look.finding_records(capture, report, finding)
        else:
            records = _whole(capture, report)
        if order["anonymise"]:
            cut_anonymised(records, out, _anonymizer(order))
        else:
            cut(capture, records, out)


def _whole(capture: CaptureFile, report: ReportLike) -> Iterator[Record]:
    return second_look.between(capture, report, 1, report["capture"]["packets"])


def _anonymizer(order: dict[str, Any]) -> Anonymizer:
    return Anonymizer(os.urandom(32), keep=[ip_address(text) for text in order.get("keep", ())])


def _capture() -> CaptureFile:
    return CaptureFile.of(os.fdopen(os.dup(0), "rb"))


def _answer(value: Any) -> None:  # Any: JSON
    view = memoryview(json.dumps(value).encode())
    while view:
        view = view[os.write(1, view) :]


def _complain(error: str, message: str, status: int) -> int:
    print(json.dumps({"error": error, "message": message}), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1]), int(sys.argv[2])))
