"""The page: self-contained, safe, within its size."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.analysis import html, html_flows
from gateway.analysis.frames import CaptureFile
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap
from tests.gateway.analysis.sample_report import HOSTILE, many_rows, sample

VOID = {"meta", "input", "br", "hr", "link", "img"}


class _Page(HTMLParser):
    """Collects elements, checks that they are closed in order, and gathers style and script text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self.inside[tag].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data


@pytest.fixture(scope="module")
def hostile() -> str:
    """The page of a report in which every string attacks it."""
    return html.render(sample(HOSTILE))


def test_every_element_is_closed(hostile: str) -> None:
    """Nothing from a packet opens or closes an element."""
    page = _Page(hostile)
    assert page.open == []
    assert len(page.inside["script"]) == 1
    assert len(page.inside["style"]) == 1


def test_nothing_from_outside_and_no_handlers(hostile: str) -> None:
    """No address leads outside the page, no attribute holds a script or a style."""
    for _, attributes in _Page(hostile).elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"style", "src", "srcset", "action", "formaction"}
            if name == "href":
                assert value is not None
                assert value.startswith("#")
    assert "http://" not in hostile
    assert "https://" not in hostile
    assert "url(" not in hostile
    assert "@import" not in hostile


def test_the_policy_allows_exactly_this_style_and_script(hostile: str) -> None:
    """The hashes in the policy are those of the page's own style and script, and everything else is forbidden."""
    page = _Page(hostile)
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inside[kind][0].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_hostile_text_is_shown_as_text(hostile: str) -> None:
    """Markup, control characters and bidi marks appear as what they are."""
    assert "<script>alert" not in hostile
    assert "\x1b" not in hostile
    assert "\u202e" not in hostile
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202egpj.exe" in hostile


def test_the_page_keeps_its_size_with_many_rows() -> None:
    """A report with three thousand rows of everything is cut to fit and says so."""
    page = html.render(many_rows(sample("some.host.example.org"), 3000))
    assert len(page.encode()) <= html.LIMIT_BYTES
    assert "of 3,000 shown" in page


def test_what_was_not_measured_is_not_zero() -> None:
    """A missing score is a dash and words."""
    report = sample()
    report["health"].update(score=None, grade=None)
    page = html.render(report)
    assert "not enough data" in page
    assert re.search(r"g-number[^>]*>–<", page)


def test_an_empty_report_has_no_empty_sections() -> None:
    """Sections without rows disappear, and no finding is said to be good news."""
    report = sample()
    report["findings"] = []
    report["rtp"] = []
    report["temporal"]["jitter"] = []
    report["dns"]["total"] = 0
    page = html.render(report)
    assert 'id="media"' not in page
    assert 'id="dns"' not in page
    assert "Nothing was found that needs attention." in page


def test_marks_lead_to_their_findings() -> None:
    """A mark in the traffic graph is a link to the finding's element."""
    page = _Page(html.render(sample()))
    targets = {attributes.get("id") for _, attributes in page.elements}
    links = {a["href"] for tag, a in page.elements if tag == "a" and a.get("href")}
    assert "#tcp.loss-0a1b2c" in links
    assert {link[1:] for link in links if link} <= {target for target in targets if target}


def test_the_worst_flows_are_drawn_from_the_capture(tmp_path: Path) -> None:
    """A flow with trouble is read again from its offset and gets all its plots."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation(lost=True)))
    report = sample()
    row = report["flows"]["rows"][0]
    row.update(orig_host=CLIENT, orig_port=40000, resp_host=SERVER, resp_port=80, vlan=None)
    row.update(first_frame=1, last_frame=25, offset=24, trouble=3.0, orig_bytes=18, resp_bytes=1000)
    with CaptureFile.open(path) as capture:
        pictures = html_flows.worst_flows(capture, report)
    assert [picture.row["uid"] for picture in pictures] == ["C1"]
    page = html.render(report, pictures)
    _Page(page)
    for title in ("Time and sequence", "In flight and window", "Round trip", "fills a hole"):
        assert title in page


def test_a_flow_without_trouble_is_not_drawn(tmp_path: Path) -> None:
    """Reading again costs time and is for what is wrong."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation()))
    report = sample()
    report["flows"]["rows"][0]["trouble"] = 0.0
    with CaptureFile.open(path) as capture:
        assert html_flows.worst_flows(capture, report) == []


def test_counts_have_separators_and_names_made_of_digits_have_none() -> None:
    """A thousand is read at a glance; a port or a frame number is typed in elsewhere as it stands."""
    report = sample()
    report["services"][0].update(port=51_000, flows=1_069)
    report["dns"]["rows"][0]["frame"] = 4_711
    report["findings"][0]["evidence"] = {"segments": 1_069, "port": 8_080, "ports": [8_443, 51_001]}
    page = html.render(report)
    assert '<td class="n">51000</td>' in re.sub(' data-v="[^"]*"', "", page)
    assert '<td class="n" data-v="1069">1,069</td>' in page
    assert '<td class="n" data-v="4711">4711</td>' in page
    assert "segments 1,069, port 8080, ports 8443 51001" in page
