"""The worst flows of a report drawn: time-sequence, round trip, window and ladder of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.analysis import plots
from gateway.analysis.escape import markup
from gateway.analysis.frames import CaptureFile
from gateway.analysis.html_parts import Number, Safe, section, tiles
from gateway.analysis.second_look import trace_flows
from gateway.analysis.trace import Segment, Trace

DRAWN_FLOWS: Final = 4
MOST_FRAMES_APART: Final = 200_000  # the part of the file that is read again: about a second on a small box
_TROUBLE: Final = ("seen again", "fills a hole", "after a hole")


@dataclass(frozen=True, slots=True)
class FlowPicture:
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


def _picture(picture: FlowPicture, is_open: bool) -> Safe:
    row, trace = picture.row, picture.trace
    orig = f"{row['orig_host']}:{row['orig_port']}"
    resp = f"{row['resp_host']}:{row['resp_port']}"
    downloads = row["resp_bytes"] >= row["orig_bytes"]
    sender = resp if downloads else orig
    figures = [
        _figure(f"Time and sequence: data of {sender}", plots.time_sequence(trace, not downloads), _SEQUENCE_LEGEND),
        _figure(f"In flight and window: data of {sender}", plots.window(trace, not downloads), _WINDOW_LEGEND),
        _figure("Round trip, seen from the capture point", plots.round_trip(trace), _RTT_LEGEND),
    ]
    around = _around_trouble(trace.segments)
    if around:
        figures.append(_figure(_ladder_title(around, trace), plots.ladder(around, orig, resp), ""))
    title = f"{row['uid']}  {orig} → {resp}"
    facts = tiles(
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
    low, high = plots.active_span(trace)
    whole = trace.segments[-1].t_s
    drawn = f"Drawn are {plots.seconds_text(high - low)} of {plots.seconds_text(whole)}; the rest was silence."
    silent = f'<p class="quiet">{drawn}</p>' if high - low < 0.8 * whole else ""
    cut = "" if trace.complete else f'<p class="quiet">Drawn are the first {len(trace.segments):,} packets.</p>'
    return Safe(
        f'<details class="more" id="flow-{markup(row["uid"])}"{" open" if is_open else ""}>'
        f"<summary>{markup(title)}</summary>{facts}{cut}{silent}{''.join(figures)}</details>"
    )


def _around_trouble(segments: Sequence[Segment]) -> Sequence[Segment]:
    """The packets of the ladder: a few before the first trouble and what follows, or the beginning."""
    first = next((index for index, segment in enumerate(segments) if segment.evidence in _TROUBLE), 0)
    start = max(0, first - 8)
    return segments[start : start + plots.LADDER_ROWS]


def _ladder_title(around: Sequence[Segment], trace: Trace) -> str:
    if len(around) == len(trace.segments):
        return "Packets"
    return f"Packets of frames {around[0].frame} to {around[-1].frame}, around the first trouble"


def _figure(title: str, plot: str, legend: str) -> str:
    if not plot:
        return ""
    return f'<figure><figcaption>{markup(title)}</figcaption><div class="plotbox">{plot}</div>{legend}</figure>'


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
