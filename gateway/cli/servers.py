"""The table of RADIUS servers, which `postern status` and `postern radius status` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.cli.render import Column, Output, Row, duration, latency, text

COLUMNS: Final = (
    Column("SERVER", "server", least=8),
    Column("ADDRESS", "address"),
    Column("PORT", "port", right=True, rank=4),
    Column("FOR", "purpose"),
    Column("BREAKER", "breaker"),
    Column("FAILED", "failures_in_a_row", right=True, rank=3),
    Column("P50", "rtt_p50_s", latency, right=True, rank=6),
    Column("P95", "rtt_p95_s", latency, right=True, rank=2),
    Column("IN FLIGHT", "in_flight", right=True, rank=5),
    Column("LAST ANSWER", "last_answer_age_s", duration, right=True, rank=1),
    Column("LAST FAILURE", "reason", least=12, rank=7),
)


def print_servers(output: Output, servers: Sequence[Row]) -> None:
    """One row per server and purpose, then what the operator should know about them."""
    output.table(servers, COLUMNS)
    for server in servers:
        if server.get("warning"):
            output.line(f"! {text(server.get('warning'))}")
