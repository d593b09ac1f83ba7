"""A report as CSV tables (RFC 4180): findings, flows, DNS, TLS, HTTP, hosts and the series over time.

One table is one function from the report to rows; a header row comes first, lines end in CR LF. Text from packets goes
through `escape.cell`, so that no spreadsheet takes it for a formula. Lists are joined with a space.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.analysis.escape import cell

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON
Row = list[Any]  # Any: a string, number, boolean, list of them, or None

_FLOW: Final = (
    *("uid", "proto", "orig_host", "orig_port", "resp_host", "resp_port", "vlan", "service", "name", "sni", "start"),
    *("duration", "conn_state", "orig_pkts", "resp_pkts", "orig_bytes", "resp_bytes", "orig_wire_bytes"),
    *("resp_wire_bytes", "retrans", "ooo", "rtt_ms", "irtt_ms", "zero_window", "first_frame", "last_frame", "trouble"),
)
_FLOW_TCP: Final = ("handshake_state", "syn_count", "server_ms", "client_ms", "one_sided", "reset_by", "reset_phase")
_DIRECTION: Final = (
    *("segments", "retrans", "fast", "spurious", "rto", "reordered", "lost_segments", "missing_bytes"),
    *("duplicate_acks", "zero_windows", "zero_window_s", "window_full", "max_in_flight", "bps", "limited_by"),
)
_FINDING: Final = (
    *("id", "class", "kind", "severity", "confidence", "title", "sentence", "count", "first_frame", "first_t"),
    *("last_frame", "last_t", "flow", "source", "target", "frames", "filter", "evidence", "threshold", "signals"),
    *("limits", "related", "advice", "muted"),
)
_DNS: Final = (
    *("t", "frame", "response_frame", "client", "client_port", "server", "transport", "name", "type", "rcode"),
    *("status", "ms", "answers", "retries"),
)
_TLS: Final = (
    *("t", "frame", "server_frame", "flow", "client", "server", "port", "sni", "ech", "version", "offered", "cipher"),
    *("alpn", "alpn_chosen", "ja4", "hello_ms", "think_ms", "alert", "resumed", "retry"),
)
_HTTP: Final = (
    *("t", "frame", "response_frame", "flow", "client", "server", "port", "method", "host", "path", "status"),
    *("ttfb_ms", "response_bytes", "content_type", "user_agent", "probe"),
)
_HOST: Final = (
    *("host", "names", "mac", "local", "tx_packets", "rx_packets", "tx_bytes", "rx_bytes", "flows", "share"),
    *("syn_sent", "syn_answered"),
)


def _flows(report: ReportLike) -> Iterator[Row]:
    yield [*_FLOW, *_FLOW_TCP, *(f"{side}_{name}" for side in ("orig", "resp") for name in _DIRECTION)]
    for row in report["flows"]["rows"]:
        line = [row[name] for name in _FLOW]
        tcp = row.get("tcp")
        if tcp is None:
            line += [None] * (len(_FLOW_TCP) + 2 * len(_DIRECTION))
        else:
            handshake = tcp["handshake"]
            line += [handshake["state"], handshake["syn_count"], handshake["server_ms"], handshake["client_ms"]]
            line += [tcp["one_sided"], tcp["reset_by"], tcp["reset_phase"]]
            line += [tcp[side][name] for side in ("orig", "resp") for name in _DIRECTION]
        yield line


def _findings(report: ReportLike) -> Iterator[Row]:
    yield list(_FINDING)
    for finding in report["findings"]:
        flat = {
            **finding,
            "first_frame": finding["first"]["frame"],
            "first_t": finding["first"]["t"],
            "last_frame": finding["last"]["frame"],
            "last_t": finding["last"]["t"],
            "source": finding["hosts"].get("source"),
            "target": finding["hosts"].get("target"),
        }
        yield [flat[name] for name in _FINDING]


def _plain(section: str, columns: tuple[str, ...]) -> Callable[[ReportLike], Iterator[Row]]:
    def table(report: ReportLike) -> Iterator[Row]:
        yield list(columns)
        rows = report[section] if isinstance(report[section], list) else report[section]["rows"]
        for row in rows:
            yield [row[name] for name in columns]

    return table


def _series(report: ReportLike) -> Iterator[Row]:
    yield ["t", "bin_s", "packets", "bytes"]
    series = report["series"]
    for index, (packets, count) in enumerate(zip(series["packets"], series["bytes"], strict=True)):
        yield [round(index * series["bin_s"], 6), series["bin_s"], packets, count]


TABLES: Final[dict[str, Callable[[ReportLike], Iterator[Row]]]] = {
    "findings": _findings,
    "flows": _flows,
    "dns": _plain("dns", _DNS),
    "tls": _plain("tls", _TLS),
    "http": _plain("http", _HTTP),
    "hosts": _plain("hosts", _HOST),
    "series": _series,
}


def table(report: ReportLike, name: str) -> str:
    """One table as CSV text; `name` is a key of TABLES."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    for row in TABLES[name](report):
        writer.writerow([_text(value) for value in row])
    return out.getvalue()


def write_all(report: ReportLike, directory: Path) -> list[Path]:
    """Write every table as `NAME.csv` into a directory, which is made if need be; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in TABLES:
        path = directory / f"{name}.csv"
        path.write_text(table(report, name), encoding="utf-8", newline="")
        written.append(path)
    return written


def _text(value: Any) -> str | int | float:  # Any: see Row
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return cell(value)
    if isinstance(value, dict):
        return cell(" ".join(f"{key}={item}" for key, item in value.items()))
    return cell(" ".join(str(item) for item in value))
