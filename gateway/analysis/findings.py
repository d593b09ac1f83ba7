"""Findings: collecting, naming, weakening and muting them.

The id is the kind and a short hash of kind, flow and first frame, so it is the same in each run. The display filter
is in
Wireshark's language and works when pasted: frame numbers for up to 50 frames, else addresses with a range of time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.words import SEVERITIES, FindingClass, Severity

if TYPE_CHECKING:
    from gateway.analysis.report import Finding
    from gateway.analysis.state import State

_FILTER_FRAMES: Final = 50
_LIMIT_COST: Final = 0.2


class Findings:
    """The findings of one analysis, in the making."""

    def __init__(self, st: State) -> None:
        self._st = st
        self.rows: list[Finding] = []
        self.limits: dict[str, tuple[str, ...]] = {}  # note on the capture -> beginnings of the kinds it weakens
        self.dropped = 0

    def seconds(self, t: int) -> float:
        """Seconds after the first packet."""
        return (t - (self._st.first_ns or 0)) / 1e9

    def add(
        self,
        kind: str,
        severity: Severity,
        confidence: float,
        title: str,
        sentence: str,
        *,
        frames: Sequence[int],
        first_ns: int,
        last_ns: int,
        count: int | None = None,
        last_frame: int | None = None,
        flow: int | None = None,
        source: bytes | None = None,
        target: bytes | None = None,
        port: int | None = None,
        evidence: dict[str, Any],
        threshold: dict[str, Any] | None = None,
        signals: Iterable[str] = (),
        advice: str = "",
        group: FindingClass = "performance",
        only: str = "",
        display_filter: str = "",
    ) -> Finding:
        """Add a finding; `flow` is the first frame of its flow, times are in nanoseconds, `frames` rise.

        Where there are too many frames to name them all, `only` narrows the filter by addresses and times;
        `display_filter` takes its place in any case.
        """
        st = self._st
        cap = st.settings.tables.frames
        first_frame = frames[0] if frames else 0
        hosts = {}
        if source is not None:
            hosts["source"] = st.address_text(source)
        if target is not None:
            hosts["target"] = st.address_text(target)
        name = f"{kind}|{flow or ''}|{hosts.get('source', '')}|{hosts.get('target', '')}|{port or ''}|{first_frame}"
        limits = [limit for limit, kinds in self.limits.items() if any(kind.startswith(begin) for begin in kinds)]
        total = len(frames) if count is None else count
        finding: Finding = {
            "id": f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:6]}",
            "kind": kind,
            "class": group,
            "severity": severity,
            "confidence": max(0.1, round(confidence - _LIMIT_COST * len(limits), 2)),
            "title": title,
            "sentence": sentence,
            "count": total,
            "first": {"frame": first_frame, "t": self.seconds(first_ns)},
            "last": {"frame": last_frame or (frames[-1] if frames else 0), "t": self.seconds(max(first_ns, last_ns))},
            "frames": list(frames[:cap]),
            "flow": f"C{flow}" if flow is not None else None,
            "hosts": hosts,
            "evidence": evidence,
            "threshold": threshold or {},
            "signals": list(signals),
            "limits": limits,
            "filter": "",
            "related": [],
            "advice": advice or kind.rpartition(".")[0],
            "muted": None,
        }
        finding["filter"] = display_filter or self._filter(finding, total, source, target, port, only)
        if len(self.rows) < st.settings.tables.rows * 4:
            self.rows.append(finding)
        else:
            self.dropped += 1
        return finding

    def _filter(
        self,
        finding: Finding,
        total: int,
        source: bytes | None,
        target: bytes | None,
        port: int | None,
        only: str,
    ) -> str:
        frames = finding["frames"]
        if frames and (total <= len(frames)) and len(frames) <= _FILTER_FRAMES:
            return "frame.number in {" + ",".join(map(str, frames)) + "}"
        parts = [only] if only else []
        for address in dict.fromkeys((source, target)):
            if address is not None and len(address) in (4, 16):
                parts.append(f"{'ip' if len(address) == 4 else 'ipv6'}.addr == {self._st.address_text(address)}")
        if port is not None:
            parts.append(f"(tcp.port == {port} || udp.port == {port})")
        begin, end = finding["first"]["t"], finding["last"]["t"]
        parts.append(f"frame.time_relative >= {begin - 1e-6:.6f}")
        parts.append(f"frame.time_relative <= {end + 1e-6:.6f}")
        return " && ".join(parts)

    def ordered(self) -> list[Finding]:
        """The findings by severity, confidence and first frame, the muted ones marked."""
        allow = _allow_entries(self._st.settings.allow.entries)
        for row in self.rows:
            for detector, source, target, port, until, reason in allow:
                if (
                    detector in ("*", row["kind"])
                    or (row["kind"].startswith(detector.rstrip("*")) and detector.endswith("*"))
                ) and _fits(row, source, target, port, until):
                    row["muted"] = reason or "allowed"
        return sorted(
            self.rows,
            key=lambda row: (
                row["muted"] is not None,
                -SEVERITIES.index(row["severity"]),
                -row["confidence"],
                row["first"]["frame"],
                row["id"],
            ),
        )


def _allow_entries(text: str) -> list[tuple[str, str, str, str, str, str]]:
    entries = []
    for entry in text.split(";"):
        words = entry.split(None, 5)
        if len(words) >= 5:
            detector, source, target, port, until = words[:5]
            entries.append((detector, source, target, port, until, words[5] if len(words) > 5 else ""))
    return entries


def _fits(row: Finding, source: str, target: str, port: str, until: str) -> bool:
    if until != "*" and time.strftime("%Y-%m-%d", time.gmtime()) > until:
        return False
    return (
        source in ("*", row["hosts"].get("source"))
        and target in ("*", row["hosts"].get("target"))
        and port in ("*", str(row["evidence"].get("port", "")))
    )
