"""Small arithmetic of the report: percentiles, spreads, words for numbers, local addresses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import TYPE_CHECKING, Final

from gateway.analysis.native import TRIPS
from gateway.analysis.words import SEVERITIES, Severity

if TYPE_CHECKING:
    from gateway.analysis.report import Stats

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000


def rank(ordered: Sequence[int], share: float) -> int:
    """Nearest-rank percentile of sorted samples; `share` is at most 1."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(ordered: Sequence[int]) -> int:
    """What `rank` says of a half, for those who ask it of each flow."""
    return ordered[(len(ordered) - 1) // 2]


def stats_ms(samples: Sequence[int] | None) -> Stats | None:
    """Spread of samples in nanoseconds, as milliseconds; None without samples. Round trips of a flow are in order."""
    if not samples:
        return None
    if isinstance(samples, TRIPS) and (made := samples.stats_ms()) is not None:
        described: Stats = made
        return described
    ordered = sorted(samples)
    count, total = len(ordered), sum(ordered)
    return {
        "n": count,
        "min": ordered[0] / MS,
        "median": median(ordered) / MS,
        "p95": rank(ordered, 0.95) / MS,
        "max": ordered[-1] / MS,
        # Whole numbers up to the root: exact, and so the same wherever it is reckoned
        "stdev": math.sqrt(count * sum(map(mul, ordered, ordered)) - total * total) / count / MS,
    }


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Median, and median absolute deviation as a share of it."""
    middle = _median(sorted(values))
    if not middle:
        return 0.0, 1.0
    return middle, _median(sorted(abs(item - middle) for item in values)) / abs(middle)


def raised(severity: Severity, steps: int = 1) -> Severity:
    """A severity some steps higher (or lower), kept within the scale."""
    return SEVERITIES[max(0, min(len(SEVERITIES) - 1, SEVERITIES.index(severity) + steps))]


def graded(value: float, *limits: tuple[float, Severity]) -> Severity | None:
    """The severity of the highest limit that `value` reaches; limits rise."""
    found: Severity | None = None
    for limit, severity in limits:
        if value >= limit:
            found = severity
    return found


def is_local(address: bytes) -> bool:
    """Whether an address is private, link-local or loopback (RFC 1918, RFC 3927, RFC 4193, RFC 6598)."""
    if len(address) == 4:
        first, second = address[0], address[1]
        return (
            first in (10, 127)
            or (first == 172 and 16 <= second < 32)
            or (first == 192 and second == 168)
            or (first == 169 and second == 254)
            or (first == 100 and 64 <= second < 128)
        )
    return (
        address[0] & 0xFE == 0xFC or (address[0] == 0xFE and address[1] & 0xC0 == 0x80) or address == b"\0" * 15 + b"\1"
    )


def is_group(address: bytes) -> bool:
    """Whether an address is multicast or broadcast."""
    if len(address) == 4:
        return address[0] >= 224
    return address[0] == 0xFF


def short_s(seconds: float) -> str:
    """A duration for a sentence."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days"


def counted(count: int, thing: str, things: str = "") -> str:
    """A number with its noun, in the plural where it has to be."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def percent(share: float) -> str:
    """A share for a sentence."""
    return f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:.0f} %"


def many_bytes(count: float) -> str:
    """An amount of data for a sentence."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
