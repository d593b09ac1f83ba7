"""Findings grouped, verdict sentences without repetition."""

from __future__ import annotations

from typing import Any

from gateway.analysis.grouping import bounds_line, like_findings, verdict_line


def _finding(kind: str, severity: str, count: int, muted: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "severity": severity, "count": count, "muted": muted}


def test_the_most_severe_kind_comes_first_and_likes_are_together() -> None:
    """Within a severity the most frequent kind leads; muted ones are at the end."""
    findings = [
        _finding("a", "low", 1),
        _finding("b", "high", 2),
        _finding("a", "low", 9),
        _finding("c", "low", 5),
        _finding("d", "critical", 1, muted="known scanner"),
    ]
    groups = [[(f["kind"], f["count"]) for f in group] for group in like_findings(findings)]
    assert groups == [[("b", 2)], [("a", 9), ("a", 1)], [("c", 5)], [("d", 1)]]


def test_a_verdict_does_not_repeat_its_label_or_its_frame() -> None:
    """`Network: 2 % lost` under the label `network` is `2 % lost`."""
    entry = {"about": "network", "sentence": "Network: loss towards X. First at frame 94.", "frame": 94}
    assert verdict_line(entry) == ("network", "Loss towards X. First at frame 94.", None)
    entry = {"about": "network", "sentence": "Network or server: no answer.", "frame": 3}
    assert verdict_line(entry) == ("network", "Network or server: no answer.", 3)
    entry = {"about": "server", "sentence": "Server: first byte 2 ms after the request.", "frame": None, "clear": True}
    assert verdict_line(entry) == ("server ok", "First byte 2 ms after the request.", None)
    assert verdict_line({"about": "none", "sentence": "Fine.", "frame": None})[0] == "all clear"


def test_what_bounds_left_out_is_said_in_words() -> None:
    """A reader learns what is not there; where nothing is missing nothing is said."""
    nothing = {"flows_folded": 0, "hosts_rest": 0, "holes_dropped": 0, "findings_dropped": 0, "frames_capped": 0}
    assert bounds_line(nothing) == ""
    assert bounds_line({**nothing, "flows_folded": 12_345, "frames_capped": 1}) == (
        "To bound memory and the size of the report, 12,345 flows are counted by host only; "
        "one finding has more frames than it lists."
    )
