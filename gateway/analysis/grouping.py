"""Findings and verdict in the order and the words in which people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

_BOUNDS: Final = {  # what was left out where a table was full: of one, of many
    "flows_folded": ("one flow is counted by host only", "{} flows are counted by host only"),
    "hosts_rest": ("one host is counted among the others", "{} hosts are counted together as others"),
    "holes_dropped": (
        "of one gap in sequence numbers it is not known what filled it",
        "of {} gaps in sequence numbers it is not known what filled them",
    ),
    "findings_dropped": ("one finding is not listed", "{} findings are not listed"),
    "frames_capped": ("one finding has more frames than it lists", "{} findings have more frames than they list"),
}
_LIMITS: Final = {  # what weakens a finding or the score
    "capture-drops": "the recording lost packets",
    "duplicates": "packets were recorded more than once",
    "one-sided": "only one direction was recorded",
    "clock-backwards": "the clock ran backwards",
    "offload": "packets were joined before they were recorded",
    "cut-packets": "packets were cut when recorded",
    "truncated": "the file ends too early",
}
SEVERITY_ORDER: Final = ("critical", "high", "medium", "low", "info")


def like_findings(findings: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Findings of one kind and severity together: the most severe first, in a group the most frequent first."""
    groups: dict[tuple[bool, int, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        key = (finding["muted"] is not None, SEVERITY_ORDER.index(finding["severity"]), finding["kind"])
        groups.setdefault(key, []).append(finding)
    for group in groups.values():
        group.sort(key=lambda finding: -finding["count"])
    return [groups[key] for key in sorted(groups, key=lambda key: (key[:2], -groups[key][0]["count"], key[2]))]


def verdict_line(entry: Mapping[str, Any]) -> tuple[str, str, int | None]:
    """(label, sentence, first frame) of a verdict sentence; what the sentence says itself is not said twice."""
    about, sentence, frame = entry["about"], entry["sentence"], entry["frame"]
    begin = f"{about}: "
    if sentence.lower().startswith(begin):
        sentence = sentence[len(begin) :]
        sentence = sentence[:1].upper() + sentence[1:]
    if frame is not None and f"frame {frame}" in sentence:
        frame = None
    label = "all clear" if about == "none" else f"{about} ok" if entry.get("clear") else about
    return label, sentence, frame


def bounds_line(limits: Mapping[str, int]) -> str:
    """What the bounds of the tables left out, as a sentence; empty where they left out nothing."""
    parts = [
        one if limits[name] == 1 else many.format(f"{limits[name]:,}")
        for name, (one, many) in _BOUNDS.items()
        if limits.get(name)
    ]
    return f"To bound memory and the size of the report, {'; '.join(parts)}." if parts else ""


def limit_words(name: str) -> str:
    """What a limit of findings and score means, for people; a name of another version as it stands."""
    return _LIMITS.get(name, name)
