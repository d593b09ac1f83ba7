"""The summary for a terminal."""

from __future__ import annotations

import re

import pytest

from gateway.analysis.text import Style, finding_text, flow_text, progress_line, summary
from tests.gateway.analysis.sample_report import HOSTILE, many_rows, sample


def test_the_verdict_comes_first() -> None:
    """After the file's name and score, before anything else."""
    text = summary(sample(), Style())
    headings = [line for line in text.splitlines() if re.match("[A-Z][a-z]+", line)]
    assert headings[:2] == ["Health  81.5 of 100, good", "Verdict"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Long names are cut or wrapped, never left to the terminal."""
    report = sample("a-name-of-some-length.example.org " * 6)
    lines = summary(report, Style(width=width)).splitlines()
    assert max(len(line) for line in lines) <= width


def test_colours_only_when_asked() -> None:
    """Without colours there is no escape character at all, whatever the packets said."""
    assert "\x1b" not in summary(sample(HOSTILE), Style())
    coloured = summary(sample(HOSTILE), Style(colour=True))
    assert set(re.findall("\x1b[^m]*m", coloured)) <= {
        f"\x1b[{code}m" for code in ("0", "1", "2", "32", "36", "1;31", "1;34")
    }


def test_a_terminal_without_unicode_gets_ascii() -> None:
    """Everything of ours can be written in ASCII."""
    assert summary(sample(), Style(unicode=False)).isascii()


def test_no_score_is_not_a_perfect_score() -> None:
    """A capture that cannot be judged says so."""
    report = sample()
    report["health"].update(score=None, grade=None)
    assert "not enough data" in summary(report, Style())


def test_hidden_findings_are_counted() -> None:
    """What does not fit is announced with the way to see it."""
    report = many_rows(sample(), 30)
    assert "and 29 more of this kind" in summary(report, Style(), details=4)
    for index, finding in enumerate(report["findings"]):
        finding["kind"] = f"kind.{index}"
    text = summary(report, Style(), details=4)
    assert "and 26 more kinds: --details 30" in text


def test_a_finding_shows_what_fired_and_its_filter() -> None:
    """Evidence, threshold, frames and filter are all there, escaped."""
    report = sample("v\x1bv")
    finding = report["findings"][0]
    finding.update(evidence={"rate": 0.021}, threshold={"rate": 0.01}, filter="frame.number in {7}")
    text = finding_text(finding, Style())
    assert "rate 0.021" in text
    assert "rate 0.01" in text
    assert "frame.number in {7}" in text
    assert "\x1b" not in text


def test_a_flow_is_told_in_two_lines() -> None:
    """Both ends, bytes and end state."""
    text = flow_text(sample()["flows"]["rows"][0], Style())
    assert "192.0.2.10:7 → 198.51.100.7:7" in text


def test_the_progress_bar_fits_and_knows_no_total() -> None:
    """With a total there is a bar and a percentage, for a pipe there are bytes."""
    line = progress_line("reading", 50, 100, 1234, 99.0, 80)
    assert "50 %" in line
    assert len(line) < 80
    assert "%" not in progress_line("reading", 50, None, 1234, 99.0, 80)
