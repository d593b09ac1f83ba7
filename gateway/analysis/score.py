"""The health score: a weighted mean of penalties over what could be measured, and nothing when that is too little."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from gateway.analysis.measures import SECOND, rank
from gateway.analysis.name_rows import rtp_row

if TYPE_CHECKING:
    from gateway.analysis.report import Finding, Health, HealthMetric
    from gateway.analysis.state import State
    from gateway.analysis.summary import TcpTotals

Curve = tuple[tuple[float, float], ...]

# Penalties by value, straight between the points: continuous and never falling.
CURVES: Final[dict[str, Curve]] = {
    "tcp_loss": ((0, 0), (0.005, 10), (0.01, 20), (0.03, 45), (0.05, 65), (0.1, 100)),
    "rtt": ((0.05, 0), (0.15, 20), (0.4, 50), (0.8, 75), (2, 100)),
    "connect": ((0, 0), (0.02, 15), (0.1, 50), (0.3, 100)),
    "dns": ((0, 0), (0.01, 8), (0.05, 25), (0.15, 55), (0.3, 80), (0.6, 100)),
    "server_wait": ((0.1, 0), (0.5, 25), (1.5, 60), (5, 100)),
    "stall": ((0, 0), (0.01, 20), (0.05, 60), (0.2, 100)),
    "reorder": ((0, 0), (0.01, 20), (0.05, 60), (0.15, 100)),
    "rtp_loss": ((0, 0), (0.01, 20), (0.05, 70), (0.1, 100)),
    "rtp_jitter": ((20, 0), (50, 40), (150, 100)),
}
WEIGHTS: Final = {
    "tcp_loss": 30,
    "rtt": 15,
    "connect": 15,
    "dns": 15,
    "server_wait": 10,
    "stall": 5,
    "reorder": 5,
    "rtp": 5,
}
_WORDS: Final = {
    "tcp_loss": "TCP loss",
    "rtt": "the round trip",
    "connect": "failed connections",
    "dns": "DNS failures",
    "server_wait": "waiting for servers",
    "stall": "stalled receivers",
    "reorder": "reordering",
    "rtp": "voice and video",
}
_UNITS: Final = {"rtt": "s", "server_wait": "s"}
_KINDS: Final = {
    "tcp_loss": ("tcp.retransmission",),
    "rtt": ("tcp.rtt",),
    "connect": ("tcp.connect", "tcp.syn"),
    "dns": ("dns.failure",),
    "server_wait": ("http.slow", "tls.hello"),
    "stall": ("tcp.window",),
    "reorder": ("tcp.reordering",),
    "rtp": ("rtp.",),
}
MIN_WEIGHT: Final = 30
MIN_SEGMENTS: Final = 200
MIN_ATTEMPTS: Final = 5
MIN_TRANSACTIONS: Final = 5


def penalty(name: str, value: float) -> float:
    """The penalty, 0 to 100, of a value on one of the curves."""
    curve = CURVES[name]
    if value <= curve[0][0]:
        return curve[0][1]
    for (left, low), (right, high) in pairwise(curve):
        if value <= right:
            return low + (high - low) * (value - left) / (right - left)
    return curve[-1][1]


def _measures(st: State, totals: TcpTotals, scanned: int) -> dict[str, tuple[float, int, float] | str]:
    """Each metric's value, base and penalty, or why it could not be measured."""
    found: dict[str, tuple[float, int, float] | str] = {}
    if totals.segments >= MIN_SEGMENTS:
        loss = totals.lost / totals.segments
        found["tcp_loss"] = (loss, totals.segments, penalty("tcp_loss", loss))
        reorder = totals.reordered / totals.segments
        found["reorder"] = (reorder, totals.segments, penalty("reorder", reorder))
    else:
        why = f"{totals.segments:,} TCP data segments, {MIN_SEGMENTS} needed"
        found["tcp_loss"] = found["reorder"] = why
    path = totals.path_rtt
    if path is not None:
        found["rtt"] = (path / SECOND, len(totals.rtts), penalty("rtt", path / SECOND))
    else:
        found["rtt"] = "no round trip was seen"
    shakes = totals.handshakes
    failed = max(0, shakes["refused"] + shakes["no-answer"] - scanned)
    attempts = failed + shakes["complete"] + shakes["client-silent"]
    if attempts >= MIN_ATTEMPTS:
        found["connect"] = (failed / attempts, attempts, penalty("connect", failed / attempts))
    else:
        found["connect"] = f"{attempts} connection attempts, {MIN_ATTEMPTS} needed"
    transactions = sum(item.transactions for item in st.dns.servers.values())
    failures = sum(item.failed.count for item in st.dns.servers.values())
    if transactions >= MIN_TRANSACTIONS:
        found["dns"] = (failures / transactions, transactions, penalty("dns", failures / transactions))
    else:
        found["dns"] = f"{transactions} DNS transactions, {MIN_TRANSACTIONS} needed"
    if st.wait_samples:
        wait = rank(sorted(st.wait_samples), 0.5) / SECOND
        found["server_wait"] = (wait, len(st.wait_samples), penalty("server_wait", wait))
    else:
        found["server_wait"] = "no request with a response was seen"
    if totals.active_ns and totals.segments >= MIN_SEGMENTS:
        stall = min(1.0, totals.zero_ns / totals.active_ns)
        found["stall"] = (stall, totals.segments, penalty("stall", stall))
    else:
        found["stall"] = "too little TCP"
    streams = [rtp_row(st, item) for item in st.rtp if item.expected >= st.settings.rtp.min_packets]
    if streams:
        worst = max(
            max(penalty("rtp_loss", row["loss_rate"]), penalty("rtp_jitter", row["jitter_ms"])) for row in streams
        )
        found["rtp"] = (max(row["loss_rate"] for row in streams), len(streams), worst)
    else:
        found["rtp"] = "no RTP stream"
    return found


def health(st: State, totals: TcpTotals, findings: list[Finding], limits: list[str], scanned: int) -> Health:
    """The score with its terms; `scanned` failed attempts belong to scans and are left out."""
    metrics: list[HealthMetric] = []
    excluded: list[dict[str, str]] = []
    weight_sum = penalty_sum = 0.0
    for name, measured in _measures(st, totals, scanned).items():
        if isinstance(measured, str):
            excluded.append({"name": name, "reason": measured})
            continue
        value, base, points = measured
        weight = WEIGHTS[name]
        weight_sum += weight
        penalty_sum += weight * points
        metrics.append(
            {
                "name": name,
                "value": value,
                "unit": _UNITS.get(name, "share"),
                "n": base,
                "weight": weight,
                "penalty": points,
                "evidence": [row["id"] for row in findings if row["kind"].startswith(_KINDS[name])][:20],
            }
        )
    metrics.sort(key=lambda row: -row["weight"])
    score: float | None = None
    grade: Literal["excellent", "good", "fair", "poor", "bad"] | None = None
    if weight_sum >= MIN_WEIGHT:
        score = round(100 - penalty_sum / weight_sum, 1)
        grade = (
            "excellent"
            if score >= 90
            else "good"
            if score >= 75
            else "fair"
            if score >= 55
            else "poor"
            if score >= 35
            else "bad"
        )
        worst = max(metrics, key=lambda row: row["weight"] * row["penalty"])
        sentence = f"{score} of 100, {grade}"
        if worst["penalty"] > 0:
            points = worst["weight"] * worst["penalty"] / weight_sum
            sentence += f"; {_WORDS[worst['name']]} costs most ({points:.1f} points)"
        sentence += "."
    else:
        measured = f"only {weight_sum:.0f} of 100 points of weight could be measured"
        sentence = f"Not enough data: {measured}, {MIN_WEIGHT} are needed."
    return {
        "score": score,
        "grade": grade,
        "sentence": sentence,
        "metrics": metrics,
        "excluded": [{"name": row["name"], "reason": row["reason"]} for row in excluded],
        "limits": limits,
    }
