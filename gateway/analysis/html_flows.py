"""The worst flows of a report drawn: time-sequence, round trip, window and ladder of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.analysis import plots
from gateway.analysis.escape import markup
from gateway.analysis.frames import CaptureFile
from gateway.analysis.html_parts import Number, Safe, section, tiles
from gateway.analysis.second_look import trace_flows
from gateway.analysis.trace import Segment, Trace

DRAWN_FLOWS: Final = 4
MOST_FRAMES_APART: Final = 200_000  # the part of the file that is read again: about a second on a small box
_TROUBLE: Final = ("seen again", "fills a hole", "after a hole")


class FlowPicture(NamedTuple):
    """A flow row and what was read of it."""

    row: Mapping[str, Any]
    trace: Trace


def worst_flows(capture: CaptureFile, report: Mapping[str, Any], most: int = DRAWN_FLOWS) -> list[FlowPicture]:
    """Read the flows with the most trouble again, in one pass from the first of them; none if nothing is wrong."""
    rows = [
        row
        for row in report["flows"]["rows"]
        if row["proto"] == "tcp" and row["trouble"] > 0 and row["orig_bytes"] + row["resp_bytes"] > 0
    ]
    rows.sort(key=lambda row: -row["trouble"])
    chosen: list[Mapping[str, Any]] = []
    for row in rows[: most * 4]:
        first, last = _span([*chosen, row])
        if len(chosen) < most and last - first <= MOST_FRAMES_APART:
            chosen.append(row)
    if not chosen:
        return []
    traces = trace_flows(capture, report, chosen)
    return [FlowPicture(row, trace) for row, trace in zip(chosen, traces, strict=True) if len(trace.segments) > 3]


def _span(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return min(row["first_frame"] for row in rows), max(row["last_frame"] for row in rows)


def flow_pictures(pictures: Sequence[FlowPicture]) -> Safe:
    """All pictures as one section; the first is open."""
    body = [_picture(picture, index == 0) for index, picture in enumerate(pictures) if picture.trace.segments]
    return section("worst", "Worst flows, packet by packet", body)


def flow_picture(picture: FlowPicture) -> Safe:
    """One flow with all its plots, for a page of its own."""
    return _picture(picture, True)


def figures(row: Mapping[str, Any], trace: Trace, from_orig: bool) -> list[Safe]:
    """The plots of one flow for data of one side: time and sequence, in flight and window, round trip."""
    sender = f"{row['orig_host']}:{row['orig_port']}" if from_orig else f"{row['resp_host']}:{row['resp_port']}"
    return [
        _figure(f"Time and sequence: data of {sender}", plots.time_sequence(trace, from_orig), _SEQUENCE_LEGEND),
        _figure(f"In flight and window: data of {sender}", plots.window(trace, from_orig), _WINDOW_LEGEND),
        _figure("Round trip, seen from the capture point", plots.round_trip(trace), _RTT_LEGEND),
    ]


def _picture(picture: FlowPicture, is_open: bool) -> Safe:
    row, trace = picture.row, picture.trace
    orig = f"{row['orig_host']}:{row['orig_port']}"
    resp = f"{row['resp_host']}:{row['resp_port']}"
    drawings = figures(row, trace, row["resp_bytes"] < row["orig_bytes"])
    around = around_trouble(trace.segments)
    if around:
        drawings.append(_figure(_ladder_title(around, trace), plots.ladder(around, orig, resp), ""))
    title = f"{row['uid']}  {orig} → {resp}"
    cut = "" if trace.complete else f'<p class="quiet">Drawn are the first {len(trace.segments):,} packets.</p>'
    return Safe(
        f'<details class="more" id="flow-{markup(row["uid"])}"{" open" if is_open else ""}>'
        f"<summary>{markup(title)}</summary>{flow_facts(row)}{cut}{drawn_span(trace)}{''.join(drawings)}</details>"
    )


def flow_facts(row: Mapping[str, Any]) -> Safe:
    """The numbers of a flow that matter first."""
    return tiles(
        [
            ("Service", row["name"] or row["service"]),
            ("Sent again", row["retrans"]),
            ("Out of order", row["ooo"]),
            (
                "Round trip",
                None if row["rtt_ms"] is None else Number(row["rtt_ms"], plots.milliseconds_text(row["rtt_ms"])),
            ),
            ("Received", Number(row["resp_bytes"], plots.bytes_text(row["resp_bytes"]))),
            ("Frames", f"{row['first_frame']}–{row['last_frame']}"),
        ]
    )


def drawn_span(trace: Trace) -> Safe:
    """A line that says how much of the flow's time the plots leave out as silence; empty if hardly any."""
    low, high = plots.active_span(trace)
    whole = trace.segments[-1].t_s
    if high - low >= 0.8 * whole:
        return Safe("")
    drawn = f"Drawn are {plots.seconds_text(high - low)} of {plots.seconds_text(whole)}; the rest was silence."
    return Safe(f'<p class="quiet">{drawn}</p>')


def around_trouble(segments: Sequence[Segment]) -> Sequence[Segment]:
    """The packets of the ladder: a few before the first trouble and what follows, or the beginning."""
    first = next((index for index, segment in enumerate(segments) if segment.evidence in _TROUBLE), 0)
    start = max(0, first - 8)
    return segments[start : start + plots.LADDER_ROWS]


def _ladder_title(around: Sequence[Segment], trace: Trace) -> str:
    if len(around) == len(trace.segments):
        return "Packets"
    return f"Packets of frames {around[0].frame} to {around[-1].frame}, around the first trouble"


def _figure(title: str, plot: str, legend: str) -> Safe:
    if not plot:
        return Safe("")
    box = f'<div class="plotbox" tabindex="0">{plot}</div>'  # scrolls on a phone, by the keyboard too
    return Safe(f"<figure><figcaption>{markup(title)}</figcaption>{box}{legend}</figure>")


def _legend(*entries: tuple[str, str]) -> str:
    return '<p class="legend">' + "".join(f'<span class="{kind}">{text}</span>' for kind, text in entries) + "</p>"


_SEQUENCE_LEGEND: Final = _legend(
    ("l-data", "data"),
    ("l-again", "bytes seen before"),
    ("l-fill", "fills a hole"),
    ("l-ack", "acknowledged"),
    ("l-win", "edge of the window"),
    ("l-sack", "SACK blocks"),
)
_WINDOW_LEGEND: Final = _legend(
    ("l-data", "bytes in flight"), ("l-win", "window offered"), ("l-again", "window closed")
)
_RTT_LEGEND: Final = _legend(("l-data", "data of the originator"), ("l-fill", "data of the responder"))
