"""A finished report, drilled down: overview, flows, one flow packet by packet, one packet field by field, tables.

Everything comes from the JSON report but for flow and packet pages, which a confined process fetches from the capture.
Text from packets goes through `escape` on its way into a page; downloads are those of the REST API.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from gateway.analysis import advice, dissect, html_flows, html_protocols, html_sections, job, plots, tables
from gateway.analysis.escape import markup, show
from gateway.analysis.frames import Record
from gateway.analysis.grouping import SEVERITY_ORDER, like_findings, limit_words
from gateway.analysis.html_parts import Safe, values
from gateway.analysis.job import State
from gateway.analysis.packet_text import hex_lines
from gateway.values import value_class
from webui import flow_table, jobs
from webui.admin.captures import desk_of, show_job
from webui.admin.daemon import ControlError
from webui.admin.paging import Column, read_listing
from webui.admin.site import Page, Route, segment
from webui.looks import LookFailed
from webui.messages import Response
from webui.reports import Report

_ROLE: Final = "operator"
_TABLE_ROWS: Final = 500
_MOST_FINDINGS: Final = 300
_FRAMES_SHOWN: Final = 24
_STYLES: Final = ("report.css",)


@value_class
class _Section:
    """One protocol's part of a report: its title, whether there is any, and its page."""

    title: str
    there_is: Callable[[Report], object]
    make: Callable[[Report], Safe]


def _with_rows(make: Callable[[Report, int], Safe]) -> Callable[[Report], Safe]:
    return lambda report: make(report, _TABLE_ROWS)


SECTIONS: Final = {
    "tcp": _Section("TCP", lambda report: report["tcp"]["packets"], html_protocols.tcp),
    "dns": _Section("DNS", lambda report: report["dns"]["total"], _with_rows(html_protocols.dns)),
    "tls": _Section(
        "TLS and QUIC",
        lambda report: report["tls"]["total"] or report["quic"]["total"],
        _with_rows(html_protocols.tls),
    ),
    "http": _Section("HTTP", lambda report: report["http"]["total"], _with_rows(html_protocols.http)),
    "media": _Section(
        "Voice and video",
        lambda report: report["rtp"] or report["temporal"]["jitter"],
        _with_rows(html_protocols.media),
    ),
    "control": _Section(
        "ICMP, DHCP, ARP",
        lambda report: report["icmp"]["total"] or report["dhcp"]["total"] or report["arp"]["total"],
        _with_rows(html_protocols.control),
    ),
    "hosts": _Section("Hosts", lambda report: report["hosts"], _with_rows(html_protocols.hosts)),
    "protocols": _Section("Protocols", lambda _: True, _with_rows(html_protocols.protocols)),
    "settings": _Section("Thresholds", lambda _: True, html_sections.settings),
}
FLOW_COLUMNS: Final = (
    Column("Flow"),
    Column("From", "orig"),
    Column("To", "resp"),
    Column("Service", "service"),
    Column("Start", "start", "number"),
    Column("Duration", "duration", "number"),
    Column("Bytes", "bytes", "number"),
    Column("State", "state"),
    Column("Again", "retrans", "number"),
    Column("Reordered", "ooo", "number"),
    Column("Round trip", "rtt", "number"),
)


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/captures/{id}", overview, _ROLE),
        Route("GET", "/captures/{id}/flows", flows, _ROLE),
        Route("GET", "/captures/{id}/flows/{uid}", flow, _ROLE),
        Route("GET", "/captures/{id}/packets/{frame}", packet, _ROLE),
        Route("GET", "/captures/{id}/exports", exports, _ROLE),
        Route("GET", "/captures/{id}/{section}", section, _ROLE),
    ]


async def _state(page: Page) -> State:
    return await desk_of(page).job(page.params["id"], page.caller)


async def _report(page: Page) -> tuple[State, Report]:
    state = await _state(page)
    return state, await desk_of(page).report(state)


def _render(page: Page, template: str, state: State, report: Report, here: str, **more: object) -> Response:
    """A page of a report, with the tabs that it has something for."""
    return page.render(
        template,
        **{
            "title": str(more.pop("title", show(state.name))),
            "styles": _STYLES,
            "state": state,
            "capture": report["capture"],
            "tabs": _tabs(report),
            "base_path": f"/captures/{state.id}",
            "tab": here,
            "show": show,
            "bytes_text": plots.bytes_text,
            "seconds_text": plots.seconds_text,
            "ms_text": plots.milliseconds_text,
            **more,
        },
    )


def _tabs(report: Report) -> list[tuple[str, str]]:
    tabs = [("", "Overview"), ("flows", f"Flows ({report['flows']['total']:,})")]
    tabs += [(name, part.title) for name, part in SECTIONS.items() if part.there_is(report)]
    return [*tabs, ("exports", "Exports")]


# -- overview ---------------------------------------------------------------------------------------------------------


async def overview(page: Page) -> Response:
    """GET /captures/{id}: verdict, trust, traffic, findings; or how far the analysis is."""
    state = await _state(page)
    if not jobs.has_report(state):
        return await show_job(page, state)
    report = await desk_of(page).report(state)
    span = _span(page, report)
    wanted_class, severity, search = (
        page.query.choice("class", ("", *html_sections.CLASS_TITLES)),
        page.query.choice("severity", ("", *SEVERITY_ORDER)),
        page.query.text("q", longest=200),
    )
    found = [
        finding
        for finding in report["findings"]
        if (not wanted_class or finding["class"] == wanted_class)
        and (not severity or finding["severity"] == severity)
        and all(word in _finding_words(finding) for word in search.casefold().split())
        and (span is None or (finding["first"]["t"] <= span[1] and finding["last"]["t"] >= span[0]))
    ]
    kept = {"class": wanted_class, "severity": severity, "q": search}
    return _render(
        page,
        "report",
        state,
        report,
        "",
        scripts=("report.js",),
        facts=Safe(html_sections.facts(report)),
        summary=html_sections.summary(report),
        health=html_sections.health(report),
        trust=html_sections.capture(report),
        graph=_graph(report, span),
        plot=(plots.LEFT, plots.WIDTH - plots.RIGHT, plots.WIDTH),
        span=span or (0.0, _duration(report)),
        zoomed=span is not None,
        kept=kept,
        clear="?" + urlencode({name: value for name, value in kept.items() if value}),
        flows_query=urlencode({"from": f"{span[0]:g}", "to": f"{span[1]:g}"}) if span else "",
        groups=like_findings(found[:_MOST_FINDINGS]),
        shown=len(found),
        total=len(report["findings"]),
        counts=[(name, sum(f["severity"] == name for f in report["findings"])) for name in SEVERITY_ORDER],
        classes=html_sections.CLASS_TITLES,
        values=values,
        limit_words=limit_words,
        advice_for=advice.advice_for,
        frames_shown=_FRAMES_SHOWN,
        origin=Safe(html_sections.origin(report)),
    )


def _finding_words(finding: Mapping[str, Any]) -> str:
    hosts = " ".join(finding["hosts"].values())
    return f"{finding['kind']} {finding['title']} {finding['sentence']} {hosts} {finding['flow'] or ''}".casefold()


def _duration(report: Report) -> float:
    series = report["series"]
    return float(max(len(series["packets"]), 1) * series["bin_s"])


def _span(page: Page, report: Report) -> tuple[float, float] | None:
    """The stretch of time that a query asks for; None for the whole, also for what makes no sense."""
    try:
        low = float(page.query.text("from", "0", longest=30))
        high = float(page.query.text("to", str(_duration(report)), longest=30))
    except ValueError:
        return None
    low, high = max(0.0, low), min(high, _duration(report))
    if not low < high or (low == 0 and high == _duration(report)):
        return None
    return low, high


def _graph(report: Report, span: tuple[float, float] | None) -> Safe:
    """Traffic over time, of the whole or of a stretch; marks are the findings in it."""
    series = report["series"]
    bin_s, packets, octets = series["bin_s"], series["packets"], series["bytes"]
    if not packets:
        return Safe("")
    start = 0.0
    low, high = span or (0.0, _duration(report))
    if span is not None:
        first, last = int(low / bin_s), max(int(low / bin_s) + 1, -(-int(high * 1e6) // int(bin_s * 1e6)))
        packets, octets, start = packets[first:last], octets[first:last], first * bin_s
    titles = {finding["id"]: finding["title"] for finding in report["findings"]}
    marks = [
        (mark["t"], mark["finding"], mark["severity"], titles.get(mark["finding"], mark["finding"]))
        for mark in series["marks"]
        if mark["severity"] != "info" and low <= mark["t"] <= high
    ]
    return Safe(plots.io_graph(bin_s, packets, octets, marks, start))


# -- flows ------------------------------------------------------------------------------------------------------------


async def flows(page: Page) -> Response:
    """GET /captures/{id}/flows: a page of flows, sorted and filtered here."""
    state, report = await _report(page)
    query = page.query
    path = f"/captures/{state.id}/flows"
    listing = read_listing(path, query, FLOW_COLUMNS, "trouble", "q", "proto", "from", "to")
    if "sort" not in query:  # the worst first
        listing = replace(listing, descending=True)
    kept = dict(listing.kept)
    found = flow_table.select(
        report["flows"]["rows"],
        sort=listing.sort,
        descending=listing.descending,
        search=kept["q"],
        proto=query.choice("proto", ("", "tcp", "udp")),
        span=_span(page, report) or (None, None),
    )
    return _render(
        page,
        "report_flows",
        state,
        report,
        "flows",
        rows=found[listing.offset : listing.offset + listing.size],
        total=len(found),
        listing=listing,
        columns=FLOW_COLUMNS,
        kept=kept,
        folded=report["flows"]["folded"],
        beyond=report["flows"]["total"] - len(report["flows"]["rows"]),
    )


async def flow(page: Page) -> Response:
    """GET /captures/{id}/flows/{uid}: its plots, its ladder and its packets, from the capture."""
    state, report = await _report(page)
    uid = page.params["uid"]
    row = next((row for row in report["flows"]["rows"] if row["uid"] == uid), None)
    if row is None:
        raise ControlError("not_found", f"There is no flow {show(uid, 20)} in this report.")
    at = page.query.integer("at", None, low=0, high=10**9)
    data = page.query.choice("data", ("", "orig", "resp"))
    look, trouble = None, ""
    try:
        order = {"kind": "flow", "uid": uid, "data": data, "at": -1 if at is None else at}
        look = await desk_of(page).look(state, order)
    except LookFailed as err:
        trouble = str(err)
    except ControlError as err:
        if err.code == "unauthenticated":
            raise
        trouble = err.message
    return _render(
        page,
        "report_flow",
        state,
        report,
        "flows",
        title=f"Flow {uid}",
        row=row,
        facts=html_flows.flow_facts(row),
        look=look,
        trouble=trouble,
        figures=[Safe(figure) for figure in (look or {}).get("figures", ())],
        ladder=Safe((look or {}).get("ladder", "")),
        span=Safe((look or {}).get("span", "")),
        findings=[finding for finding in report["findings"] if finding["flow"] == uid],
    )


# -- packets ----------------------------------------------------------------------------------------------------------


async def packet(page: Page) -> Response:
    """GET /captures/{id}/packets/{frame}: one packet decoded to every field, and its octets."""
    state, report = await _report(page)
    text = page.params["frame"]
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= report["capture"]["packets"]:
        last = report["capture"]["packets"]
        raise ControlError("not_found", f"There is no frame {show(text, 20)}; they are numbered from 1 to {last:,}.")
    frame = int(text)
    try:
        found = await desk_of(page).look(state, {"kind": "frames", "first": frame, "last": frame})
    except LookFailed as err:
        raise ControlError("not_found", str(err)) from None
    item = found[0]
    data = base64.b64decode(item["data"])
    record = Record(item["frame"], 0, item["t_ns"], item["linktype"], item["wire_bytes"], data, b"")
    decoded, trouble = None, ""
    try:
        (decoded,) = await asyncio.to_thread(dissect.dissect, [record])
    except (dissect.DissectorMissing, dissect.DissectorFailed) as err:
        trouble = str(err)
    first = report["capture"]["first_unix_ns"]
    return _render(
        page,
        "report_packet",
        state,
        report,
        "",
        title=f"Frame {frame:,}",
        frame=frame,
        last=report["capture"]["packets"],
        after_s=None if first is None else (record.t_ns - first) / 1e9,
        at_unix=record.t_ns / 1e9,
        wire_bytes=record.wire_bytes,
        captured=len(data),
        decoded=decoded,
        trouble=trouble,
        octets="\n".join(hex_lines(data)),
    )


# -- tables and exports -----------------------------------------------------------------------------------------------


async def section(page: Page) -> Response:
    """GET /captures/{id}/dns and its like: what the report has of one protocol."""
    name = page.params["section"]
    if name not in SECTIONS:
        raise ControlError("not_found", "There is no such part of a report.")
    state, report = await _report(page)
    body = SECTIONS[name].make(report)
    csv = name if name in tables.TABLES else ""
    return _render(page, "report_section", state, report, name, body=body, heading=SECTIONS[name].title, csv=csv)


async def exports(page: Page) -> Response:
    """GET /captures/{id}/exports: everything that can be taken away."""
    state, report = await _report(page)
    capture = await asyncio.to_thread(desk_of(page).backend.file, state.id, job.CAPTURE)
    return _render(
        page,
        "report_exports",
        state,
        report,
        "exports",
        api=f"/api/v1/reports/{segment(state.id)}",
        table_names=list(tables.TABLES),
        has_capture=capture is not None,
        sha256=markup(report["capture"]["sha256"]),
    )
