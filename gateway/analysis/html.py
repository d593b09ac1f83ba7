"""A report as one HTML file that needs nothing else: opened from disk, mailed, printed, or served under our policy.

One style sheet, one small script for sorting and filtering, plots as SVG, no external address of any kind. The policy
in the head allows exactly that style sheet and that script by their hashes; without the script everything is still
there. The file stays under a size limit: tables show fewer rows and fewer flows are drawn until it fits.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from gateway.analysis import html_protocols as protocols
from gateway.analysis import html_sections as sections
from gateway.analysis.escape import markup
from gateway.analysis.html_flows import FlowPicture, flow_pictures

LIMIT_BYTES: Final = 500_000
MOST_ROWS: Final = 250
ASSETS: Final = Path(__file__).with_name("assets")
_GATE: Final = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 21V10a8 8 0 0 1 16 0v11M4 21h16M9 21v-8a3 3 0 0 1 6 0v8"/>'
    "</svg>"
)

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON


def render(report: ReportLike, pictures: Sequence[FlowPicture] = (), *, limit_bytes: int = LIMIT_BYTES) -> str:
    """The report as HTML. `pictures` are flows to draw, worst first; raises ValueError if even the least is too big."""
    rows, drawn = MOST_ROWS, len(pictures)
    while True:
        page = _page(report, pictures[:drawn], rows)
        if len(page.encode()) <= limit_bytes:
            return page
        if rows <= 5 and drawn == 0:
            raise ValueError(f"the report does not fit into {limit_bytes} bytes")
        rows = max(5, rows * 2 // 3)
        if rows < MOST_ROWS // 2:
            drawn = max(0, drawn - 1)


def policy() -> str:
    """The content security policy of a report: nothing but its own style and script, by hash."""
    style, script = _asset("report.css"), _asset("report.js")
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _page(report: ReportLike, pictures: Sequence[FlowPicture], rows: int) -> str:
    name = markup(report["capture"]["name"])
    parts = [
        ("summary", "Verdict", sections.summary(report)),
        ("health", "Health", sections.health(report)),
        ("capture", "Capture", sections.capture(report)),
        ("traffic", "Traffic", sections.traffic(report)),
        ("findings", "Findings", sections.findings(report, min(rows, 200))),
        ("flows", "Flows", sections.flows(report, rows)),
        ("worst", "Worst flows", flow_pictures(pictures)),
        ("tcp", "TCP", protocols.tcp(report)),
        ("dns", "DNS", protocols.dns(report, rows)),
        ("tls", "TLS and QUIC", protocols.tls(report, rows)),
        ("http", "HTTP", protocols.http(report, rows)),
        ("media", "Media", protocols.media(report, rows)),
        ("control", "Control protocols", protocols.control(report, rows)),
        ("hosts", "Hosts", protocols.hosts(report, rows)),
        ("protocols", "Protocols", protocols.protocols(report, rows)),
        ("settings", "Thresholds", sections.settings(report)),
    ]
    shown = [(anchor, title, body) for anchor, title, body in parts if body]
    menu = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in shown)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
        f"<title>{name} – capture report</title><style>{_asset('report.css')}</style></head><body>"
        f'<div class="top"><div class="brand">{_GATE}Postern capture report</div><h1>{name}</h1>'
        f'<p class="facts">{sections.facts(report)}</p></div>'
        f'<nav aria-label="Sections"><ul>{menu}</ul></nav><main>{"".join(body for _, _, body in shown)}</main>'
        f"<footer>{sections.origin(report)}</footer><script>{_asset('report.js')}</script></body></html>\n"
    )


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
