"""The words that all parts of a report share: its schema, severities in rising order, classes of findings, sides."""

from __future__ import annotations

from typing import Final, Literal

SCHEMA: Final = "postern.analysis/1.0"

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "low", "medium", "high", "critical")
FindingClass = Literal["performance", "security", "capture"]
Side = Literal["client", "server", "middle", "unknown"]
