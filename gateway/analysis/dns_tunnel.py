"""Tunnels over DNS: many long, ever new names under one parent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.analysis.dns import ParentStats
from gateway.analysis.findings import Findings
from gateway.analysis.measures import SECOND
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.state import State

# Names that look alike for good reasons: content networks, virus and block-list look-ups, reverse zones, service
# discovery.
_EXEMPT: Final = {
    "arpa": "reverse zone",
    "local": "multicast DNS",
    "akadns.net": "content network",
    "akamai.net": "content network",
    "akamaiedge.net": "content network",
    "akamaihd.net": "content network",
    "cloudfront.net": "content network",
    "cloudflare.net": "content network",
    "fastly.net": "content network",
    "edgekey.net": "content network",
    "edgesuite.net": "content network",
    "amazonaws.com": "cloud",
    "googlevideo.com": "content network",
    "gvt1.com": "content network",
    "nflxvideo.net": "content network",
    "azureedge.net": "content network",
    "trafficmanager.net": "content network",
    "windows.net": "cloud",
    "sophosxl.net": "virus look-up",
    "mcafee.com": "virus look-up",
    "trendmicro.com": "virus look-up",
    "avqs.mcafee.com": "virus look-up",
    "e5.sk": "virus look-up",
    "kaspersky-labs.com": "virus look-up",
    "cymru.com": "reputation look-up",
    "spamhaus.org": "mail block list",
    "spamcop.net": "mail block list",
    "barracudacentral.org": "mail block list",
    "sorbs.net": "mail block list",
    "dnswl.org": "mail block list",
    "uribl.com": "mail block list",
    "surbl.org": "mail block list",
}

_CARRIERS: Final = frozenset({"long-names", "random-names", "odd-types"})


def detect(st: State, out: Findings) -> list[str]:
    """Report tunnels; returns the parents that were passed over, each with its reason."""
    limits = st.settings.dns_tunnel
    own = {item.strip().lower() for item in limits.exempt.split(",") if item.strip()}
    exempt: list[str] = []
    for (client, parent), stats in st.dns.parents.items():
        if stats.queries < limits.min_queries:
            continue
        signals, numbers = _signals(st, stats)
        # Many short names with long answers are a large domain, however fast; something must carry the data.
        if len(signals) < limits.min_signals or not _CARRIERS.intersection(signals):
            continue
        reason = next(
            (why for name, why in _EXEMPT.items() if parent == name or parent.endswith("." + name)), None
        ) or ("configured" if parent in own else None)
        if reason is not None:
            if len(exempt) < 100:
                exempt.append(f"{parent}: {reason}")
            continue
        grade: Severity = "medium" if len(signals) == limits.min_signals else "high"
        if len(signals) >= limits.min_signals + 2:
            grade = "critical"
        out.add(
            "security.dns_tunnel",
            grade,
            0.5,
            f"Data hidden in DNS names under {parent}",
            f"{st.address_text(client)} asked {stats.queries:,} names under {parent}, {len(stats.names):,} of them "
            f"different, "
            f"{numbers['chars']:.0f} characters and {numbers['entropy']:.1f} bits per character on average.",
            frames=stats.frames,
            count=stats.queries,
            first_ns=stats.first_ns,
            last_ns=stats.last_ns,
            last_frame=stats.last_frame,
            source=client,
            evidence={**numbers, "queries": stats.queries, "parent": parent},
            threshold={"signals": limits.min_signals, "queries": limits.min_queries},
            signals=signals,
            advice="security.dns_tunnel",
            group="security",
        )
    return sorted(exempt)


def _signals(st: State, stats: ParentStats) -> tuple[list[str], dict[str, float]]:
    limits = st.settings.dns_tunnel
    total = sum(stats.chars.values())
    entropy = -sum(n / total * math.log2(n / total) for n in stats.chars.values()) if total else 0.0
    chars = stats.label_chars / stats.labels if stats.labels else 0.0
    span = (stats.last_ns - stats.first_ns) / SECOND
    numbers = {
        "distinct_share": len(stats.names) / min(stats.queries, 4096),
        "chars": chars,
        "entropy": entropy,
        "type_share": stats.odd_types / stats.queries,
        "nxdomain_share": stats.nxdomain / stats.queries,
        "answer_bytes": stats.answer_bytes / stats.answers if stats.answers else 0.0,
        "rate_per_s": stats.queries / span if span > 0 else 0.0,
    }
    signals = []
    if numbers["distinct_share"] > limits.distinct_share:
        signals.append("distinct-names")
    if chars > limits.label_chars:
        signals.append("long-names")
    if entropy > limits.entropy_bits and chars >= limits.entropy_min_chars:
        signals.append("random-names")
    if numbers["type_share"] > limits.type_share:
        signals.append("odd-types")
    if numbers["nxdomain_share"] > limits.nxdomain_share or numbers["answer_bytes"] > limits.answer_bytes:
        signals.append("answers")
    if numbers["rate_per_s"] > limits.rate_per_s and span >= limits.rate_span_s:
        signals.append("rate")
    return signals, numbers
