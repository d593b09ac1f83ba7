"""The first sections of the HTML report, in the order in which an answer is looked for.

Verdict, health, the capture itself, traffic, findings, flows, thresholds. A section that has nothing to say is empty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.analysis import plots
from gateway.analysis.advice import advice_for
from gateway.analysis.escape import markup
from gateway.analysis.grouping import SEVERITY_ORDER, bounds_line, like_findings, limit_words, verdict_line
from gateway.analysis.html_parts import (
    Cell,
    Number,
    Safe,
    bytes_cell,
    frame_list,
    ms_cell,
    pairs_list,
    plain_cell,
    seconds_cell,
    section,
    share_cell,
    table,
    tiles,
    value_text,
    values,
)

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON
CLASS_TITLES: Final = {"performance": "Performance", "security": "Security", "capture": "The capture itself"}
METRIC_TITLES: Final = {
    "tcp_loss": "TCP loss",
    "rtt": "Round trip",
    "connect": "Failed connections",
    "dns": "DNS failures",
    "server_wait": "Server wait",
    "stall": "Receiver stalls",
    "reorder": "Reordering",
    "rtp": "Voice and video",
}


def facts(report: ReportLike) -> str:
    """The line under the title."""
    capture = report["capture"]
    parts = [
        f"{capture['packets']:,} packets",
        plots.bytes_text(capture["wire_bytes"]) + " on the wire",
        plots.seconds_text(capture["duration_s"]),
        capture["format"],
    ]
    if capture["first_unix_ns"] is not None:
        parts.insert(0, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(capture["first_unix_ns"] // 10**9)))
    return markup(" · ".join(parts), 500)


def origin(report: ReportLike) -> str:
    """The last lines: what made the report, from which bytes."""
    generator, timing = report["generator"], report["timing"]
    return (
        f"<p>Made by {markup(generator['name'])} {markup(generator['version'])}, schema {markup(report['schema'])}, in "
        f"{timing['cpu_s']:.3g} s of processor time ({timing['packets_per_cpu_s']:,.0f} packets/s, "
        f"{timing['peak_rss_mb']:.0f} MB). Capture SHA-256 <code>{markup(report['capture']['sha256'])}</code>.</p>"
        "<p>Frame numbers count from 1 over the whole file, as in Wireshark. Filters can be pasted there.</p>"
    )


def summary(report: ReportLike) -> Safe:
    """Verdict and score."""
    health_part = report["health"]
    lines = []
    known = {finding["id"] for finding in report["findings"]}
    for entry in report["verdict"]:
        links = " ".join(
            f'<a href="#{markup(name)}">finding {index + 1}</a>'
            for index, name in enumerate(name for name in entry["findings"] if name in known)
        )
        about, sentence, first = verdict_line(entry)
        frame = "" if first is None else f"first at frame {first}"
        small = " · ".join(part for part in (frame, links) if part)
        tag = "tag ok" if entry.get("clear") else "tag"
        lines.append(
            f'<li><span class="{tag}">{markup(about)}</span><p>{markup(sentence, 600)}'
            f"{f'<small>{small}</small>' if small else ''}</p></li>"
        )
    grade = health_part["grade"] or "none"
    word = f"<b>{markup(grade)}</b>" if health_part["grade"] else "<b>not enough data</b>"
    return section(
        "summary",
        "Verdict",
        [
            f'<div class="summary"><div class="score">{plots.gauge(health_part["score"], grade)}'
            f"<p>Health {word}</p></div>"
            f'<ul class="verdict">{"".join(lines)}</ul></div>'
        ],
    )


def health(report: ReportLike) -> Safe:
    """What the score is made of."""
    part = report["health"]
    bars = "".join(
        f"<div><span>{markup(METRIC_TITLES.get(metric['name'], metric['name']))}</span>"
        f'<meter min="0" max="100" low="20" high="50" optimum="0" value="{metric["penalty"]:.4g}"></meter>'
        f'<span>{_metric_value(metric)} <small class="quiet">of {metric["n"]:,}, '
        f"weight {metric['weight']}</small></span></div>"
        for metric in part["metrics"]
    )
    excluded = "".join(
        f"<li>{markup(METRIC_TITLES.get(entry['name'], entry['name']))}: {markup(entry['reason'])}</li>"
        for entry in part["excluded"]
    )
    limits = "".join(f"<li>{markup(limit_words(limit))}</li>" for limit in part["limits"])
    body = [f'<p class="quiet">{markup(part["sentence"], 600)} A longer bar costs more points.</p>']
    if bars:
        body.append(f'<div class="bars">{bars}</div>')
    if excluded:
        body.append(f'<h3>Not measured</h3><ul class="notes">{excluded}</ul>')
    if limits:
        body.append(f'<h3>What weakens the score</h3><ul class="notes">{limits}</ul>')
    return section("health", "How healthy is this traffic?", body)


def _metric_value(metric: Mapping[str, Any]) -> str:
    unit, value = metric["unit"], metric["value"]
    if unit in {"share", "ratio", ""}:
        return f"{value * 100:.3g} %"
    if unit == "ms":
        return markup(plots.milliseconds_text(value))
    if unit == "s":
        return markup(plots.seconds_text(value))
    return f"{value:.4g} {markup(unit)}"


def capture(report: ReportLike) -> Safe:
    """How good the capture itself is, and how that limits the rest."""
    part, facts_of = report["capture_health"], report["capture"]
    side = {"client": "near the client", "server": "near the server", "middle": "in the middle"}.get(part["side"])
    counts = (
        ("Cut packets", part["cut"]),
        ("Recorded twice", part["duplicates"]),
        ("Offload-sized", part["offload"]),
        ("Lost by the capture", part["drops_proved"]),
        ("One-sided flows", part["one_sided"]),
        ("Clock went back", part["backwards"]),
        ("Malformed", part["malformed"]),
        ("Unknown link type", part["unknown_linktype"]),
    )
    shown = tiles([("Taken", side or "at an unknown place"), *((title, count or None) for title, count in counts)])
    clean = ", ".join(title.lower() for title, count in counts if not count)
    if clean:
        shown = Safe(f'{shown}<p class="quiet">None of these: {clean}.</p>')
    notes = "".join(
        f"<li>{markup(note['sentence'], 400)}"
        + (f' <span class="quiet">frame {note["frame"]}</span>' if note["frame"] is not None else "")
        + "</li>"
        for note in facts_of["notes"]
    )
    interfaces = table(
        ["Interface", "Link type", "Clock", "#Snap length", "#Packets", "Decoded"],
        [
            [
                row["name"] or "–",
                f"{row['linktype_name']} ({row['linktype']})",
                row["resolution"],
                row["snaplen"],
                row["packets"],
                row["decoded"],
            ]
            for row in facts_of["interfaces"][:20]
        ],
        total=len(facts_of["interfaces"]),
    )
    bounds = bounds_line(report["limits"])
    body = [shown, f'<ul class="notes">{notes}</ul>' if notes else "", "<h3>Interfaces</h3>", interfaces]
    if bounds:
        body.append(f'<p class="quiet">{bounds}</p>')
    return section("capture", "Can this capture be trusted?", body)


def traffic(report: ReportLike) -> Safe:
    """Input-output graph with findings as marks, bursts and silences."""
    series = report["series"]
    if not series["packets"]:
        return Safe("")
    titles = {finding["id"]: finding["title"] for finding in report["findings"]}
    marks = [
        (mark["t"], mark["finding"], mark["severity"], titles.get(mark["finding"], mark["finding"]))
        for mark in series["marks"]
        if mark["severity"] != "info"
    ]
    graph = plots.io_graph(series["bin_s"], series["packets"], series["bytes"], marks)
    legend = (
        '<p class="legend"><span class="l-data">bits per second</span><span class="l-line">packets per second, '
        f"at most {plots.count_text(max(series['packets']) / series['bin_s'])}</span>"
        f"dashed marks are findings, one bin is {plots.seconds_text(series['bin_s'])}</p>"
    )
    temporal = report["temporal"]
    bursts = table(
        ["#Start", "#Duration", "#Packets", "#Bytes", "#Peak", "#Frame", "~Most from", "#Lost or delayed"],
        [
            [
                seconds_cell(row["start"]),
                seconds_cell(row["duration"]),
                row["packets"],
                bytes_cell(row["bytes"]),
                Number(row["peak_ratio"], f"{row['peak_ratio']:.3g} × mean"),
                plain_cell(row["frame"]),
                ", ".join(talker["host"] for talker in row["talkers"][:3]),
                len(row["coinciding"]) or None,
            ]
            for row in temporal["bursts"][:12]
        ],
        total=len(temporal["bursts"]),
    )
    gaps = table(
        ["#At", "#Silence", "Flow", "#Before", "#After", "~Awaited"],
        [
            [
                seconds_cell(row["t"]),
                seconds_cell(row["gap_s"]),
                row["flow"],
                plain_cell(row["before_frame"]),
                plain_cell(row["after_frame"]),
                row["awaited"],
            ]
            for row in temporal["gaps"][:12]
        ],
        total=len(temporal["gaps"]),
    )
    periodic = table(
        ["Source", "Target", "Service", "#Every", "#Spread", "#Times", "#First frame"],
        [
            [
                row["source"],
                row["target"],
                row["service"],
                seconds_cell(row["period_s"]),
                share_cell(row["spread"]),
                row["starts"],
                plain_cell(row["first_frame"]),
            ]
            for row in temporal["periodic"][:12]
        ],
        total=len(temporal["periodic"]),
    )
    body = [f'<div class="plotbox" tabindex="0">{graph}</div>{legend}']
    for title, part in (("Bursts", bursts), ("Silences inside transfers", gaps), ("What repeats", periodic)):
        if part:
            body.append(f'<details class="more"><summary>{title}</summary>{part}</details>')
    return section("traffic", "Traffic over time", body)


def findings(report: ReportLike, most: int) -> Safe:
    """Findings by class, the most severe first."""
    found = report["findings"]
    if not found:
        return section("findings", "Findings", ['<p class="good">Nothing was found that needs attention.</p>'])
    counts = "".join(
        f'<li><span class="sev sev-{severity}">{sum(f["severity"] == severity for f in found)} {severity}</span></li>'
        for severity in SEVERITY_ORDER
        if any(f["severity"] == severity for f in found)
    )
    body = [f'<ul class="counts">{counts}</ul>']
    ordered = sorted(found, key=lambda f: (f["muted"] is not None, SEVERITY_ORDER.index(f["severity"]), -f["count"]))
    shown = ordered[:most]
    known = {finding["id"] for finding in shown}
    for name, title in CLASS_TITLES.items():
        groups = like_findings(finding for finding in shown if finding["class"] == name)
        if groups:
            body.append(f"<h3>{title}</h3>{''.join(_group(group, known) for group in groups)}")
    if len(shown) < len(found):
        body.append(f'<p class="quiet">{len(shown)} of {len(found)} shown; the JSON report holds all.</p>')
    return section("findings", "Findings", body)


def _group(group: Sequence[Mapping[str, Any]], known: set[str]) -> str:
    """Findings of one kind and severity: up to three as they are, of more all but the first folded away."""
    if len(group) <= 3:
        return "".join(_finding(finding, known) for finding in group)
    rest = "".join(_finding(finding, known) for finding in group[1:])
    kind = group[0]["kind"].replace("_", " ").replace(".", ", ")
    return (
        f'{_finding(group[0], known)}<details class="more"><summary>{len(group) - 1} more of this kind '
        f"({markup(kind)})</summary>{rest}</details>"
    )


def _finding(finding: Mapping[str, Any], known: set[str]) -> str:
    hosts = " → ".join(finding["hosts"][name] for name in ("source", "target") if name in finding["hosts"])
    related = " ".join(f'<a href="#{markup(name)}">{markup(name)}</a>' for name in finding["related"] if name in known)
    rows: list[tuple[str, Cell]] = [
        ("Measured", values(finding["evidence"])),
        ("Threshold", values(finding["threshold"])),
        ("Signals", ", ".join(finding["signals"])),
        ("Hosts", hosts),
        ("Flow", finding["flow"]),
        ("Frames", frame_list(finding["frames"], finding["count"]) if finding["frames"] else None),
        ("Confidence", _confidence(finding)),
        ("Related", Safe(related) if related else None),
        (
            "Wireshark",
            Safe(f'<code class="all">{markup(finding["filter"], 1200)}</code>') if finding["filter"] else None,
        ),
        ("Id", Safe(f"<code>{markup(finding['id'])}</code>")),
    ]
    advice = advice_for(finding["advice"])
    muted = f'<p class="quiet">Muted: {markup(finding["muted"])}</p>' if finding["muted"] is not None else ""
    frame = finding["first"]["frame"]
    place = f"frame {frame}" if frame else f"at {plots.seconds_text(finding['first']['t'])}"
    if finding["count"] > 1:
        place = f"{finding['count']:,} × from {place}" if frame else f"{finding['count']:,} ×"
    return (
        f'<details class="finding sev-{markup(finding["severity"])}{" muted" if finding["muted"] is not None else ""}" '
        f'id="{markup(finding["id"])}"><summary><span class="sev sev-{markup(finding["severity"])}">'
        f"{markup(finding['severity'])}</span><b>{markup(finding['title'])}</b><span>{place}</span></summary><div>"
        f"<p>{markup(finding['sentence'], 800)}</p>{f'<p>{markup(advice, 800)}</p>' if advice else ''}{muted}"
        f"{pairs_list((name, value) for name, value in rows if value)}</div></details>"
    )


def _confidence(finding: Mapping[str, Any]) -> str:
    word = {True: "proved by sequence numbers", False: "from timing or statistics"}[finding["confidence"] >= 0.95]
    weak = f"; less sure because {' and '.join(map(limit_words, finding['limits']))}" if finding["limits"] else ""
    return f"{finding['confidence'] * 100:.0f} %, {word}{weak}"


def flows(report: ReportLike, most: int) -> Safe:
    """The flow list, worst first."""
    part = report["flows"]
    rows = sorted(part["rows"], key=lambda row: -row["trouble"])[:most]
    body = table(
        [
            *("Flow", "Originator", "Responder", "Service", "~Name", "#Start", "#Duration", "#Sent", "#Received"),
            *("State", "#Again", "#Reordered", "#RTT", "#Zero win", "#Frame"),
        ],
        [_flow_row(row) for row in rows],
        total=part["total"],
        sortable=True,
    )
    if not body:
        return Safe("")
    tools = (
        '<div class="tools" hidden><input type="search" placeholder="Filter flows: address, name, state" '
        'aria-label="Filter flows"><output class="quiet"></output></div>'
    )
    folded = f" {part['folded']:,} more were counted by host only." if part["folded"] else ""
    return section("flows", f"Flows ({part['total']:,})", [f'<p class="quiet">Worst first.{folded}</p>', tools, body])


def _flow_row(row: Mapping[str, Any]) -> list[Cell]:
    return [
        Safe(f"<code>{markup(row['uid'])}</code>"),
        f"{row['orig_host']}:{row['orig_port']}",
        f"{row['resp_host']}:{row['resp_port']}",
        row["service"] or row["proto"],
        row["name"] or "",
        seconds_cell(row["start"]),
        seconds_cell(row["duration"]),
        bytes_cell(row["orig_bytes"]),
        bytes_cell(row["resp_bytes"]),
        row["conn_state"],
        row["retrans"],
        row["ooo"],
        ms_cell(row["rtt_ms"]),
        row["zero_window"],
        plain_cell(row["first_frame"]),
    ]


def settings(report: ReportLike) -> Safe:
    """Every threshold that was used."""
    body = pairs_list(
        (name, ", ".join(f"{key} {value_text(value)}" for key, value in group.items() if value != ""))
        for name, group in report["settings"].items()
    )
    return section(
        "settings",
        "Thresholds",
        [f'<details class="more"><summary>All values this analysis used</summary>{body}</details>'],
    )
