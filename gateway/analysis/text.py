"""A report as text for a terminal: verdict first, then what can be trusted, then findings, flows and names.

Colours only where the caller says that somebody is looking; every string from packets is escaped. Lines are broken at
the width given, tables give up their widest column first.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.analysis.advice import advice_for
from gateway.analysis.escape import show
from gateway.analysis.grouping import SEVERITY_ORDER, bounds_line, like_findings, limit_words, verdict_line
from gateway.analysis.html_parts import values
from gateway.analysis.plots import bytes_text, milliseconds_text, rate_text, seconds_text
from gateway.analysis.trace import SEEN_AGAIN, Segment

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON
_COLOURS: Final = {
    "bold": "1",
    "dim": "2",
    "critical": "1;35",
    "high": "1;31",
    "medium": "33",
    "low": "36",
    "info": "2",
    "good": "32",
    "excellent": "1;32",
    "fair": "33",
    "poor": "31",
    "bad": "1;31",
    "heading": "1;34",
}
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


class Style(NamedTuple):
    """How to write: width in columns, whether to use colours, whether the terminal can show more than ASCII."""

    width: int = 80
    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, kind: str) -> str:
        """Text in the colour of a kind, or as it is."""
        code = _COLOURS.get(kind)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text


def summary(report: ReportLike, style: Style, *, details: int = 8) -> str:
    """The whole summary; `details` rows of each list."""
    report = _safe(report)
    parts = [
        _head(report, style),
        _verdict(report, style),
        _trust(report, style),
        _traffic(report, style),
        _findings(report, style, details),
        _flows(report, style, details),
        _names(report, style, details),
        _hosts(report, style, details),
        _foot(report, style),
    ]
    text = "\n".join(part for part in parts if part)
    return text if style.unicode else text.translate(_ASCII)


_ASCII: Final = str.maketrans("→·…–µ×▁▂▃▄▅▆▇█─▶◀", ">-~-ux_.-:=+*#-><")


def finding_text(finding: Mapping[str, Any], style: Style) -> str:
    """One finding with everything that is known about it."""
    finding = _safe(finding)
    lines = [
        style.paint(f"{finding['severity'].upper()}  {show(finding['title'])}", finding["severity"]),
        *wrapped(show(finding["sentence"], 800), style, "  "),
    ]
    advice = advice_for(finding["advice"])
    if advice:
        lines += wrapped(advice, style, "  ")
    rows = [
        ("measured", show(values(finding["evidence"]), 500)),
        ("threshold", show(values(finding["threshold"]), 500)),
        ("signals", show(", ".join(finding["signals"]))),
        ("flow", finding["flow"] or ""),
        ("hosts", show(" → ".join(finding["hosts"].values()))),
        ("confidence", f"{finding['confidence'] * 100:.0f} %" + _because(finding["limits"])),
        ("frames", _frames(finding["frames"], finding["count"])),
        ("filter", show(finding["filter"], 1200)),
        ("id", finding["id"]),
    ]
    for name, value in rows:
        if value:
            lines += wrapped(value, style, " " * 14, first=f"  {name:<10}  ")
    return "\n".join(lines) + "\n"


def flow_text(row: Mapping[str, Any], style: Style) -> str:
    """The facts of one flow."""
    row = _safe(row)
    title = f"{row['uid']}  {row['orig_host']}:{row['orig_port']} → {row['resp_host']}:{row['resp_port']}"
    what = show(row["name"] or row["service"] or row["proto"], 80)
    facts = [
        what,
        f"{bytes_text(row['orig_bytes'])} sent, {bytes_text(row['resp_bytes'])} received",
        f"in {seconds_text(row['duration'])}",
        f"end state {row['conn_state']}",
        f"frames {row['first_frame']} to {row['last_frame']}",
    ]
    if row["proto"] == "tcp":
        facts += [f"{row['retrans']} sent again", f"{row['ooo']} out of order"]
    if row["rtt_ms"] is not None:
        facts.append(f"round trip {milliseconds_text(row['rtt_ms'])}")
    return "\n".join([style.paint(title, "bold"), *wrapped(" · ".join(facts), style, "  "), ""])


def ladder_text(segments: Sequence[Segment], style: Style, *, most: int = 300) -> str:
    """The packets of a TCP flow, one to a line, with arrows for the direction."""
    lines = [style.paint(f"  {'frame':>8}  {'time':>11}      flags and numbers", "dim")]
    for segment in segments[:most]:
        arrow = "──▶" if segment.from_orig else "◀──"
        words = [f"{segment.flag_text() or 'no flags':<10}"]
        if segment.length or not segment.flags & 16:
            words.append(f"seq {segment.seq} len {segment.length}")
        if segment.ack is not None:
            words.append(f"ack {segment.ack}")
        words.append(f"win {segment.window_bytes}")
        line = f"  {segment.frame:>8}  {segment.t_s:>11.6f}  {arrow} {'  '.join(words)}"
        if segment.sack:
            line += "  sack " + " ".join(f"{left}-{right}" for left, right in segment.sack)
        if segment.evidence:
            line = style.paint(f"{line}  [{segment.evidence}]", "high" if segment.evidence == SEEN_AGAIN else "medium")
        lines.append(line)
    if len(segments) > most:
        lines.append(f"  … {len(segments) - most:,} more; --cut OUT writes all of them")
    return "\n".join(lines) + "\n"


def progress_line(phase: str, done: int, total: int | None, packets: int, rate: float, width: int) -> str:
    """One line that shows how far a long analysis is."""
    right = f" {packets:,} packets  {rate:,.0f}/s"
    if not total:
        return f"{phase}  {bytes_text(done)}{right}"[: width - 1]
    share = min(done / total, 1.0)
    room = max(8, width - len(phase) - len(right) - 12)
    filled = int(share * room)
    return f"{phase} [{'#' * filled}{'.' * (room - filled)}] {share * 100:3.0f} %{right}"[: width - 1]


def _safe(value: Any) -> Any:  # Any: a JSON document
    """The same document with every string fit for a terminal, so that no field can be forgotten below."""
    if isinstance(value, str):
        return show(value, 2000)
    if isinstance(value, dict):
        return {show(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return value


def _head(report: ReportLike, style: Style) -> str:
    capture, health = report["capture"], report["health"]
    score = "not enough data" if health["score"] is None else f"{health['score']:.1f} of 100, {health['grade']}"
    kinds = ", ".join(sorted({row["linktype_name"] for row in capture["interfaces"]}))
    facts = (
        f"{capture['packets']:,} packets · {bytes_text(capture['wire_bytes'])} · "
        f"{seconds_text(capture['duration_s'])} · {capture['format']} · {show(kinds, 60)}"
    )
    return "\n".join(
        [
            style.paint(show(capture["name"], style.width - 1), "bold"),
            *(style.paint(line, "dim") for line in wrapped(facts, style, "")),
            f"Health  {style.paint(show(score, style.width - 10), health['grade'] or 'dim')}",
            "",
        ]
    )


def _verdict(report: ReportLike, style: Style) -> str:
    lines = [_heading("Verdict", style)]
    for entry in report["verdict"]:
        label, sentence, frame = verdict_line(entry)
        where = "" if frame is None else f" (frame {frame})"
        lines += wrapped(show(sentence, 600) + where, style, " " * 14, first=f"  {label:<10}  ")
    return "\n".join([*lines, ""])


def _trust(report: ReportLike, style: Style) -> str:
    part = report["capture_health"]
    names = (
        ("cut", "cut packets"),
        ("duplicates", "recorded twice"),
        ("offload", "offload-sized"),
        ("drops_proved", "lost by the capture"),
        ("one_sided", "one-sided flows"),
        ("backwards", "clock steps back"),
        ("unknown_linktype", "of unknown link type"),
        ("malformed", "malformed"),
    )
    side = {"client": "near the client", "server": "near the server", "middle": "in the middle"}.get(part["side"])
    facts = [f"taken {side}"] if side else ["side unknown"]
    facts += [f"{part[key]:,} {words}" for key, words in names if part[key]]
    lines = [_heading("Capture", style), *wrapped(" · ".join(facts), style, "  ")]
    for note in report["capture"]["notes"]:
        lines += wrapped(show(note["sentence"], 400), style, "    ", first="  - ")
    bounds = bounds_line(report["limits"])
    if bounds:
        lines += wrapped(bounds, style, "    ", first="  - ")
    return "\n".join([*lines, ""])


def _traffic(report: ReportLike, style: Style) -> str:
    series = report["series"]
    counts: list[int] = series["bytes"]
    if len(counts) < 2:
        return ""
    columns = min(style.width - 4, 100, len(counts))
    step = -(-len(counts) // columns)
    sums = [sum(counts[at : at + step]) for at in range(0, len(counts), step)]
    top = max(sums) or 1
    line = "".join(_BLOCKS[0 if value == 0 else 1 + int(value / top * 7)] for value in sums)
    peak = rate_text(top * 8 / (series["bin_s"] * step))
    head = f"  peak {peak}, one column is {seconds_text(series['bin_s'] * step)}"
    return "\n".join([_heading("Traffic", style), f"  {line}", style.paint(head, "dim"), ""])


def _findings(report: ReportLike, style: Style, details: int) -> str:
    found = [finding for finding in report["findings"] if finding["muted"] is None]
    counts = [(name, sum(f["severity"] == name for f in found)) for name in SEVERITY_ORDER]
    words = ", ".join(style.paint(f"{count} {name}", name) for name, count in counts if count)
    lines = [f"{_heading('Findings', style)}  {words or style.paint('nothing that needs attention', 'good')}"]
    groups = like_findings(found)
    for group in groups[: max(details, 0)]:
        lines += _finding_lines(group, style)
    hidden = len(groups) - max(details, 0)
    if hidden > 0:
        lines.append(style.paint(f"  and {hidden} more kinds: --details {len(groups)}, or --html FILE", "dim"))
    muted = len(report["findings"]) - len(found)
    if muted:
        lines.append(style.paint(f"  {muted} muted by the allow-list", "dim"))
    return "\n".join([*lines, ""])


def _finding_lines(group: Sequence[Mapping[str, Any]], style: Style) -> list[str]:
    """The first finding of a group, and how many are like it."""
    finding = group[0]
    frame = finding["first"]["frame"]
    place = f"  (#{frame})" if frame else ""
    label = style.paint(f"{finding['severity']:<8}", finding["severity"])
    title, *rest = wrapped(f"{show(finding['title'])}{place}", style, " " * 12, first=" " * 12)
    lines = [f"  {label}  {title[12:]}", *rest]
    lines += [style.paint(line, "dim") for line in wrapped(show(finding["sentence"], 400), style, " " * 12)]
    others = f", and {len(group) - 1} more of this kind" if len(group) > 1 else ""
    lines.append(style.paint(" " * 12 + show(f"{finding['id']}{others}", style.width - 14), "dim"))
    return lines


def _flows(report: ReportLike, style: Style, details: int) -> str:
    rows = sorted(report["flows"]["rows"], key=lambda row: -row["trouble"])[:details]
    if not rows:
        return ""
    cells = [
        [
            row["uid"],
            f"{row['orig_host']}:{row['orig_port']}",
            f"{row['resp_host']}:{row['resp_port']}",
            show(row["name"] or row["service"] or row["proto"], 60),
            bytes_text(row["orig_bytes"] + row["resp_bytes"]),
            row["conn_state"],
            str(row["retrans"]),
            "–" if row["rtt_ms"] is None else milliseconds_text(row["rtt_ms"]),
        ]
        for row in rows
    ]
    head = ["Flow", "From", "To", "What", "Bytes", "End", "Again", "RTT"]
    total = report["flows"]["total"]
    title = f"Flows, worst first ({len(rows)} of {total:,})" if total > len(rows) else "Flows, worst first"
    return "\n".join([_heading(title, style), *_columns(head, cells, style, right={4, 6, 7}, shrink=(3, 2, 1)), ""])


def _names(report: ReportLike, style: Style, details: int) -> str:
    lines: list[str] = []
    dns = report["dns"]
    if dns["queries"]:
        bad = {name: count for name, count in dns["statuses"].items() if name not in {"ok", "announcement"} and count}
        words = ", ".join(f"{count} {name}" for name, count in bad.items()) or "all answered"
        lines += wrapped(
            f"{dns['queries']:,} queries for {dns['names']:,} names; {words}", style, " " * 8, first="  DNS   "
        )
    for label, mapping in (("TLS", report["tls"]["names"]), ("HTTP", report["http"]["hosts"])):
        names = sorted(mapping.items(), key=lambda item: -item[1])
        if names:
            shown = ", ".join(f"{show(name, 60)} ({count})" for name, count in names[:details])
            more = f", {len(names) - details} more" if len(names) > details else ""
            lines += wrapped(shown + more, style, " " * 8, first=f"  {label:<4}  ")
    return "\n".join([_heading("Names", style), *lines, ""]) if lines else ""


def _hosts(report: ReportLike, style: Style, details: int) -> str:
    rows = [
        [
            row["host"],
            show(", ".join(row["names"][:2]), 60),
            bytes_text(row["tx_bytes"]),
            bytes_text(row["rx_bytes"]),
            str(row["flows"]),
        ]
        for row in report["hosts"][:details]
    ]
    if not rows:
        return ""
    head = ["Host", "Names", "Sent", "Received", "Flows"]
    return "\n".join([_heading("Hosts", style), *_columns(head, rows, style, right={2, 3, 4}, shrink=(1, 0)), ""])


def _foot(report: ReportLike, style: Style) -> str:
    timing = report["timing"]
    return style.paint(
        f"{timing['cpu_s']:.3g} s of processor time, {timing['packets_per_cpu_s']:,.0f} packets/s, "
        f"{timing['peak_rss_mb']:.0f} MB\n",
        "dim",
    )


def _heading(text: str, style: Style) -> str:
    return style.paint(text, "heading")


def wrapped(text: str, style: Style, indent: str, *, first: str | None = None) -> list[str]:
    """Text broken at the width, `first` before its first line and `indent` before the others."""
    return textwrap.wrap(
        text,
        style.width - 1,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _columns(
    head: list[str], rows: list[list[str]], style: Style, *, right: set[int], shrink: tuple[int, ...]
) -> list[str]:
    """Rows under their headings; columns give way in the order of `shrink` until a line fits, then the last go."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    for least in (16, 8):
        for index in shrink:
            excess = sum(widths) + 2 * len(widths) - style.width + 1
            widths[index] = max(min(widths[index], least), widths[index] - max(0, excess))
    while sum(widths) + 2 * len(widths) > style.width:
        widths.pop()  # half a number says less than none
    lines = []
    for number, row in enumerate([head, *rows]):
        cells = []
        for index, (value, width) in enumerate(zip(row, widths, strict=False)):
            value = _squeezed(value, width)
            cells.append(value.rjust(width) if index in right else value.ljust(width))
        line = _squeezed(("  " + "  ".join(cells)).rstrip(), style.width)
        lines.append(style.paint(line, "dim") if number == 0 else line)
    return lines


def _squeezed(value: str, width: int) -> str:
    """Text cut to a width; of an address with a port the port stays."""
    if len(value) <= width:
        return value
    tail = value.rpartition(":")[2]
    if tail.isdecimal() and len(tail) < 6 and width > len(tail) + 4:
        return f"{value[: width - len(tail) - 2]}…:{tail}"
    return value[: width - 1] + "…"


def _frames(frames: Sequence[int], count: int) -> str:
    shown = ", ".join(str(frame) for frame in frames[:20])
    return shown + (f" and {count - 20} more" if count > 20 else "")


def _because(limits: Sequence[str]) -> str:
    return f", less because {' and '.join(map(limit_words, limits))}" if limits else ""
