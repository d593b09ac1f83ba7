"""The sections of the HTML report about single protocols: TCP, names, web, media, control traffic, hosts.

Each shows what failed or was slow first, and is empty where the capture has none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.analysis.escape import markup
from gateway.analysis.html_parts import (
    Safe,
    bytes_cell,
    ms_cell,
    pairs_list,
    plain_cell,
    section,
    share_cell,
    table,
    tiles,
)

ReportLike = Mapping[str, Any]  # a Report, fresh or read back from JSON


def tcp(report: ReportLike) -> Safe:
    """TCP in numbers: what was seen, and what it was."""
    part = report["tcp"]
    if not part["packets"]:
        return Safe("")
    body: list[str] = [
        tiles(
            [
                ("Connections", part["streams"]),
                ("Data segments", part["data_segments"]),
                ("Sent again", part["retransmissions"]),
                ("Reordered", part["reordered"]),
                (
                    f"Loss, {part['unit']}",
                    share_cell(part["loss_rate"]) if part["loss_rate"] is not None else "not enough",
                ),
                ("Handshake, median", ms_cell(part["irtt_ms"]["median"]) if part["irtt_ms"] else None),
                ("Handshake, 95 %", ms_cell(part["irtt_ms"]["p95"]) if part["irtt_ms"] else None),
                ("Resets", part["rst"]),
                ("Ports reused", part["reused_ports"] or None),
            ]
        )
    ]
    counts = [
        ("Handshakes", part["handshakes"]),
        ("End states", part["conn_states"]),
        ("Why sent again", part["cause"]),
        ("Evidence", part["evidence"]),
        ("Labels as in Wireshark", part["labels"]),
        ("SACK", part["sack"]),
    ]
    body.append(
        pairs_list(
            (title, ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in mapping.items() if count))
            for title, mapping in counts
            if any(mapping.values())
        )
    )
    return section("tcp", "TCP", body)


def dns(report: ReportLike, most: int) -> Safe:
    """Names asked for, and how well the servers answered."""
    part = report["dns"]
    if not part["total"]:
        return Safe("")
    rows = sorted(part["rows"], key=lambda row: (row["status"] in {"ok", "announcement"}, -(row["ms"] or 0)))[:most]
    body = [
        tiles(
            [
                ("Queries", part["queries"]),
                ("Answers", part["responses"]),
                ("Names", part["names"]),
                *((f"Status {name}", count) for name, count in part["statuses"].items() if count),
            ]
        ),
        table(
            ["Server", "#Transactions", "#Failures", "#Failure rate", "#Median"],
            [
                [
                    row["server"],
                    row["transactions"],
                    row["failures"],
                    share_cell(row["failure_rate"]),
                    ms_cell(row["median_ms"]),
                ]
                for row in part["servers"][:20]
            ],
            total=len(part["servers"]),
        ),
        "<h3>Queries, failures and slow ones first</h3>",
        table(
            ["~Name", "Type", "Status", "#Time", "Client", "Server", "~Answers", "#Frame"],
            [
                [
                    row["name"],
                    row["type"],
                    row["status"],
                    ms_cell(row["ms"]),
                    row["client"],
                    row["server"],
                    ", ".join(row["answers"][:4]),
                    plain_cell(row["frame"]),
                ]
                for row in rows
            ],
            total=part["total"],
        ),
    ]
    if part["exempt"]:
        body.append(f'<p class="quiet">Not held for tunnels: {markup(", ".join(part["exempt"]), 600)}</p>')
    return section("dns", "DNS", body)


def tls(report: ReportLike, most: int) -> Safe:
    """TLS and QUIC handshakes."""
    hellos, quic = report["tls"], report["quic"]
    body: list[str] = [
        table(
            ["~Server name", "Version", "Cipher", "ALPN", "#Hello", "Client", "Server", "JA4", "Alert", "#Frame"],
            [
                [
                    ("(encrypted) " if row["ech"] else "") + (row["sni"] or "–"),
                    row["version"],
                    row["cipher"],
                    row["alpn_chosen"] or ", ".join(row["alpn"][:3]),
                    ms_cell(row["hello_ms"]),
                    row["client"],
                    f"{row['server']}:{row['port']}",
                    row["ja4"],
                    row["alert"],
                    plain_cell(row["frame"]),
                ]
                for row in sorted(hellos["rows"], key=lambda row: -(row["hello_ms"] or 0))[:most]
            ],
            total=hellos["total"],
        ),
    ]
    if quic["rows"]:
        body.append("<h3>QUIC</h3>")
        body.append(
            table(
                ["~Server name", "Version", "ALPN", "#Handshake", "Client", "Server", "Answered", "#Frame"],
                [
                    [
                        row["sni"] or "–",
                        row["version"],
                        ", ".join(row["alpn"][:3]),
                        ms_cell(row["handshake_ms"]),
                        row["client"],
                        row["server"],
                        row["answered"],
                        plain_cell(row["frame"]),
                    ]
                    for row in quic["rows"][:most]
                ],
                total=quic["total"],
            )
        )
    return section("tls", "TLS and QUIC", body)


def http(report: ReportLike, most: int) -> Safe:
    """HTTP requests, errors and slow ones first."""
    part = report["http"]
    rows = sorted(part["rows"], key=lambda row: ((row["status"] or 0) < 400, -(row["ttfb_ms"] or 0)))[:most]
    return section(
        "http",
        "HTTP",
        [
            table(
                ["Method", "~Host and path", "#Status", "#First byte", "#Bytes", "Type", "Client", "Server", "#Frame"],
                [
                    [
                        row["method"],
                        (row["host"] or row["server"]) + row["path"],
                        row["status"],
                        ms_cell(row["ttfb_ms"]),
                        bytes_cell(row["response_bytes"]),
                        (row["content_type"] or "") + (row["probe"] or ""),
                        row["client"],
                        f"{row['server']}:{row['port']}",
                        plain_cell(row["frame"]),
                    ]
                    for row in rows
                ],
                total=part["total"],
            )
        ],
    )


def media(report: ReportLike, most: int) -> Safe:
    """RTP streams and UDP flows of a regular pace."""
    rtp = table(
        ["Source", "Target", "Codec", "#Packets", "#Lost", "#Loss", "#Jitter", "#MOS", "#Frame"],
        [
            [
                row["source"],
                row["target"],
                row["codec"] or f"type {row['payload_type']}",
                row["packets"],
                row["lost"],
                share_cell(row["loss_rate"]),
                ms_cell(row["jitter_ms"]),
                row["mos"],
                plain_cell(row["first_frame"]),
            ]
            for row in report["rtp"][:most]
        ],
        total=len(report["rtp"]),
    )
    pace = table(
        ["Source", "Target", "#Packets", "#Every", "#Jitter 95 %", "#Worst"],
        [
            [
                row["source"],
                row["target"],
                row["n"],
                ms_cell(row["median_interval_ms"]),
                ms_cell(row["p95_ms"]),
                ms_cell(row["max_ms"]),
            ]
            for row in report["temporal"]["jitter"][:most]
        ],
        total=len(report["temporal"]["jitter"]),
    )
    return section("media", "Voice, video and other regular streams", [rtp, pace])


def control(report: ReportLike, most: int) -> Safe:
    """ICMP, path MTU, fragments, DHCP and ARP."""
    icmp, dhcp, arp, fragments = report["icmp"], report["dhcp"], report["arp"], report["fragments"]
    parts = [
        (
            "ICMP errors",
            table(
                ["~What", "Reporter", "Target", "Flow", "#MTU", "#Count", "#Frame"],
                [
                    [
                        row["name"],
                        row["reporter"],
                        row["target"],
                        row["flow"],
                        plain_cell(row["mtu"]),
                        row["count"],
                        plain_cell(row["first"]["frame"]),
                    ]
                    for row in icmp["errors"][:most]
                ],
                total=len(icmp["errors"]),
            ),
        ),
        (
            "DHCP",
            table(
                ["Client", "~Host name", "Outcome", "Address", "Servers", "#Time", "~Steps"],
                [
                    [
                        row["client"],
                        row["hostname"] or "",
                        row["outcome"],
                        row["address"],
                        ", ".join(row["servers"]),
                        ms_cell(row["total_ms"]),
                        " → ".join(f"{s['message']} #{s['frame']}" for s in row["steps"][:8]),
                    ]
                    for row in dhcp["rows"][:most]
                ],
                total=dhcp["total"],
            ),
        ),
        (
            "ARP and neighbours",
            table(
                ["Address", "~Hardware addresses", "#Requests", "#Replies", "#Unasked", "#Unanswered"],
                [
                    [
                        row["ip"],
                        ", ".join(row["macs"][:6]),
                        row["requests"],
                        row["replies"],
                        row["unasked"],
                        row["unanswered"],
                    ]
                    for row in sorted(arp["rows"], key=lambda row: -len(row["macs"]))[: min(most, 40)]
                ],
                total=len(arp["rows"]),
            ),
        ),
    ]
    body = [f"<h3>{title}</h3>{part}" for title, part in parts if part]
    if fragments["packets"]:
        body.append("<h3>IP fragments</h3>")
        body.append(tiles((name.replace("_", " ").capitalize(), count) for name, count in fragments.items()))
    return section("control", "ICMP, DHCP, ARP, fragments", body)


def hosts(report: ReportLike, most: int) -> Safe:
    """Who talked, and with whom."""
    who = table(
        ["Host", "~Names", "#Sent", "#Received", "#Share", "#Flows", "Hardware address"],
        [
            [
                row["host"],
                ", ".join(row["names"][:4]),
                bytes_cell(row["tx_bytes"]),
                bytes_cell(row["rx_bytes"]),
                share_cell(row["share"]),
                row["flows"],
                row["mac"],
            ]
            for row in report["hosts"][: min(most, 60)]
        ],
        total=len(report["hosts"]),
        sortable=True,
    )
    whom = table(
        ["Between", "and", "#There", "#Back", "#Share", "#Flows"],
        [
            [
                row["a"],
                row["b"],
                bytes_cell(row["a_to_b_bytes"]),
                bytes_cell(row["b_to_a_bytes"]),
                share_cell(row["share"]),
                row["flows"],
            ]
            for row in report["pairs"][:20]
        ],
        total=len(report["pairs"]),
    )
    devices = table(
        ["Device", "~Names", "~Services"],
        [
            [row["host"], ", ".join(row["names"][:6]), ", ".join(row["services"][:8])]
            for row in report["devices"][: min(most, 60)]
        ],
        total=len(report["devices"]),
    )
    body: list[str] = [who]
    body += [f"<h3>Pairs</h3>{whom}"] if whom else []
    body += [f"<h3>Devices that announced themselves</h3>{devices}"] if devices else []
    return section("hosts", "Hosts", body)


def protocols(report: ReportLike, most: int) -> Safe:
    """What the traffic was made of."""
    services = table(
        ["Service", "Protocol", "#Port", "#Flows", "#Packets", "#Bytes", "#Share", "Known by"],
        [
            [
                row["service"],
                row["proto"],
                plain_cell(row["port"]),
                row["flows"],
                row["packets"],
                bytes_cell(row["bytes"]),
                share_cell(row["share"]),
                f"{row['why']} ({row['confidence']:.0%})",
            ]
            for row in report["services"][: min(most, 40)]
        ],
        total=len(report["services"]),
    )
    layers = []
    for layer, counts in report["protocols"].items():
        rows = sorted(counts.items(), key=lambda item: -item[1]["bytes"])
        if rows:
            layers.append(
                f"<div><h3>{markup(layer.capitalize())}</h3>"
                + table(
                    ["", "#Packets", "#Bytes", "#Share"],
                    [[name, c["packets"], bytes_cell(c["bytes"]), share_cell(c["share"])] for name, c in rows[:16]],
                    total=len(rows),
                )
                + "</div>"
            )
    grid = f'<div class="grid2">{"".join(layers)}</div>' if layers else ""
    return section("protocols", "Protocols and services", [services, grid])
