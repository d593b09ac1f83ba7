"""The one entry of capture analysis: bytes in, report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.report import Report
from gateway.analysis.settings import Settings

__all__ = ["AnalysisRefused", "Progress", "Report", "Settings", "analyze"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an analysis is: `phase` is reading, detecting or done; `bytes_total` is None for a pipe."""

    phase: str
    bytes_processed: int
    bytes_total: int | None
    packets: int
    findings: int


def analyze(
    source: BinaryIO,
    *,
    name: str,
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Analyse a capture read from `source`, which may be a pipe, and return its report.

    `name` is display text only. `progress` is called at most four times a second and at each change of phase; `cancelled`
    is asked once per block read. Raises AnalysisRefused when nothing can be said about the file.
    """
    raise AnalysisRefused("not-a-capture", "this is not a capture file")
