"""Rows of DNS, TLS, HTTP, QUIC, DHCP, ARP, ICMP and RTP for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.analysis.arp import A_CONFLICTS, A_FRAMES, A_MACS, A_PROBES, A_REPLIES, A_REQUESTS, A_UNANSWERED, A_UNASKED
from gateway.analysis.dhcp import outcome
from gateway.analysis.dns import R_ANSWERS, R_KEY, R_STATUS, RCODES, TYPES
from gateway.analysis.flows import Connection
from gateway.analysis.fold import split_key
from gateway.analysis.icmp import (
    E_COUNT,
    E_FIRST,
    E_FIRST_FRAME,
    E_FLOW,
    E_FRAMES,
    E_LAST,
    E_LAST_FRAME,
    E_MTU,
    E_PROTOCOL,
    NAMES4,
    NAMES6,
)
from gateway.analysis.measures import MS, rank
from gateway.analysis.quic import version_name
from gateway.analysis.rtp import STATIC, RtpStream

if TYPE_CHECKING:
    from gateway.analysis.report import DeviceRow
    from gateway.analysis.report_protocols import Arp, Dhcp, Dns, Http, Icmp, Quic, RtpRow, Tls
    from gateway.analysis.state import State


def dns(st: State, exempt: list[str]) -> Dns:
    """The DNS section; `exempt` are parents that a tunnel detector passed over, with the reason."""
    table = st.dns
    rows: list[Any] = []
    for t, frame, response, key, transport, name, kind, rcode, status, waited, answers, retries in table.rows:
        client, server, port, server_port = split_key(key)
        if status == "unsolicited" or status == "announcement":
            client, server, port = server, client, server_port
        rows.append(
            {
                "t": st.seconds(t),
                "frame": frame,
                "response_frame": response,
                "client": st.address_text(client),
                "client_port": port,
                "server": st.address_text(server),
                "transport": transport,
                "name": name,
                "type": TYPES.get(kind & 0x7FFF) or f"TYPE{kind & 0x7FFF}",
                "rcode": (RCODES.get(rcode) or str(rcode)) if rcode is not None else None,
                "status": status,
                "ms": waited / MS if waited is not None else None,
                "answers": answers,
                "retries": retries,
            }
        )
    servers: list[Any] = [
        {
            "server": st.address_text(address),
            "transactions": stats.transactions,
            "failures": stats.failed.count,
            "median_ms": rank(sorted(stats.times), 0.5) / MS if stats.times else None,
            "failure_rate": stats.failed.count / max(1, stats.transactions),
        }
        for address, stats in sorted(table.servers.items(), key=lambda item: (-item[1].transactions, item[0]))[:50]
    ]
    return {
        "total": table.total,
        "queries": table.queries,
        "responses": table.responses,
        "rcodes": {RCODES.get(code, str(code)): count for code, count in sorted(table.rcodes.items())},
        "statuses": dict(sorted(table.statuses.items())),
        "names": len(table.names),
        "expected_nxdomain": table.expected_nxdomain,
        "servers": servers,
        "exempt": exempt,
        "rows": rows,
    }


def _ends(st: State, conn: Connection) -> tuple[str, str, int]:
    source, target, _, port = split_key(conn.key)
    return st.address_text(source), st.address_text(target), port


def server_rtt(conn: Connection) -> int | None:
    """The smallest round trip to the server, ns: what of a wait is the path's."""
    if conn.orig is not None and conn.orig.rtts:
        return int(min(conn.orig.rtts))
    if conn.syn_ack_time is not None and conn.syn_times and conn.syn_ack_time >= conn.syn_times[-1]:
        return conn.syn_ack_time - conn.syn_times[-1]
    return None


def tls(st: State) -> Tls:
    """The TLS section."""
    rows: list[Any] = []
    for row in st.tls.rows:
        conn = row["flow"]
        client, server, port = _ends(st, conn)
        trip = server_rtt(conn)
        waited = row["hello_ns"]
        rows.append(
            {
                "t": st.seconds(row["t"]),
                "frame": row["frame"],
                "server_frame": row["server_frame"],
                "flow": f"C{conn.frame}",
                "client": client,
                "server": server,
                "port": port,
                **{
                    name: row[name]
                    for name in ("sni", "ech", "version", "offered", "cipher", "alpn", "alpn_chosen", "ja4")
                },
                "hello_ms": waited / MS if waited is not None else None,
                "think_ms": max(0, waited - trip) / MS if waited is not None and trip is not None else None,
                "alert": row["alert"],
                "resumed": row["resumed"],
                "retry": row["retry"],
            }
        )
    return {"total": st.tls.total, "names": most(st.tls.names), "rows": rows}


def most(counts: dict[str, int], cap: int = 1000) -> dict[str, int]:
    """The most frequent entries of a count."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:cap])


def http(st: State) -> Http:
    """The HTTP section."""
    table = st.http
    rows: list[Any] = []
    for row in table.rows:
        conn = row["flow"]
        client, server, port = _ends(st, conn)
        rows.append(
            {
                "t": st.seconds(row["t"]),
                "flow": f"C{conn.frame}",
                "client": client,
                "server": server,
                "port": port,
                "ttfb_ms": row["ttfb"] / MS if row["ttfb"] is not None else None,
                "frame": row["frame"],
                "response_frame": row["response_frame"],
                "method": row["method"],
                "host": row["host"],
                "path": row["path"],
                "status": row["status"],
                "response_bytes": row["response_bytes"],
                "content_type": row["content_type"],
                "user_agent": row["user_agent"],
                "probe": row["probe"],
            }
        )
    return {
        "total": table.total,
        "requests": table.requests,
        "responses": table.responses,
        "hosts": most(table.hosts),
        "methods": most(table.methods),
        "statuses": {str(code): count for code, count in sorted(table.statuses.items())},
        "rows": rows,
    }


def quic(st: State) -> Quic:
    """The QUIC section."""
    rows: list[Any] = []
    for flow in st.quic:
        source, target, _, _ = split_key(flow.flow.key)
        rows.append(
            {
                "t": st.seconds(flow.time),
                "frame": flow.frame,
                "flow": f"C{flow.flow.frame}",
                "client": st.address_text(source),
                "server": st.address_text(target),
                "version": version_name(flow.version),
                "sni": flow.sni,
                "alpn": flow.alpn,
                "ja4": flow.ja4,
                "handshake_ms": flow.answered_ns / MS if flow.answered_ns is not None else None,
                "retry": flow.retry,
                "answered": flow.answered_ns is not None,
                "initials": flow.initials,
            }
        )
    return {"total": st.quic_total, "rows": rows}


def icmp(st: State) -> Icmp:
    """The ICMP section; an error's flow is that of the packet it quotes."""
    table = st.icmp
    errors: list[Any] = []
    ranked = sorted(table.errors.items(), key=lambda item: (-item[1][E_COUNT], item[1][E_FIRST_FRAME]))
    for (family, reporter, target, kind, code), row in ranked[:200]:
        names = NAMES6 if family == 6 else NAMES4
        frame = st.flow_frame(row[E_FLOW], row[E_PROTOCOL])
        errors.append(
            {
                "family": family,
                "type": kind,
                "code": code,
                "name": names.get((kind, code), f"type {kind} code {code}"),
                "reporter": st.address_text(reporter),
                "target": st.address_text(target) if target else None,
                "flow": f"C{frame}" if frame is not None else None,
                "mtu": row[E_MTU],
                "count": row[E_COUNT],
                "first": {"frame": row[E_FIRST_FRAME], "t": st.seconds(row[E_FIRST])},
                "last": {"frame": row[E_LAST_FRAME], "t": st.seconds(row[E_LAST])},
                "frames": row[E_FRAMES],
            }
        )
    return {
        "total": table.total,
        "types": {f"{kind}/{code}": count for (kind, code), count in sorted(table.types.items())},
        "types6": {f"{kind}/{code}": count for (kind, code), count in sorted(table.types6.items())},
        "errors": errors,
        "pmtu": [
            {
                "target": st.address_text(target),
                "mtu": row[0],
                "reporter": st.address_text(row[2]),
                "ignored": row[3],
                "frames": row[4],
            }
            for target, row in sorted(table.mtu.items())[:200]
        ],
    }


def dhcp(st: State) -> Dhcp:
    """The DHCP section."""
    rows: list[Any] = []
    for exchange in list(st.dhcp.exchanges.values())[: st.settings.tables.rows]:
        steps = exchange.steps
        rows.append(
            {
                **{
                    name: getattr(exchange, name)
                    for name in (
                        "family",
                        "client",
                        "xid",
                        "hostname",
                        "vendor",
                        "parameters",
                        "servers",
                        "address",
                        "lease_s",
                    )
                },
                "total_ms": max(0, steps[-1][2] - steps[0][2]) / MS if len(steps) > 1 else None,
                "steps": [{"message": message, "frame": frame, "t": st.seconds(t)} for message, frame, t in steps],
                "outcome": outcome(exchange),
            }
        )
    return {
        "total": len(st.dhcp.exchanges),
        "messages": dict(sorted(st.dhcp.messages.items())),
        "servers": sorted(st.dhcp.servers),
        "rows": rows,
    }


def arp(st: State) -> Arp:
    """The ARP section: addresses with conflicts and most asked for come first."""
    table = st.arp
    ranked = sorted(
        table.addresses.items(), key=lambda item: (-len(item[1][A_CONFLICTS]), -item[1][A_REQUESTS], item[0])
    )[: st.settings.tables.rows]
    return {
        "total": len(table.addresses),
        "requests": table.requests,
        "replies": table.replies,
        "rows": [
            {
                "ip": st.address_text(address),
                "macs": [mac.hex(":") for mac in row[A_MACS]],
                "requests": row[A_REQUESTS],
                "replies": row[A_REPLIES],
                "unasked": row[A_UNASKED],
                "unanswered": row[A_UNANSWERED],
                "probes": row[A_PROBES],
                "frames": row[A_FRAMES],
            }
            for address, row in ranked
        ],
    }


def rtp_row(st: State, stream: RtpStream) -> RtpRow:
    """One RTP stream with its loss and jitter."""
    source, target, _, _ = split_key(stream.key)
    expected, lost = stream.expected, stream.lost
    loss = lost / max(1, expected)
    jitter = 1000 * stream.jitter_sum / stream.jitter_n / stream.clock if stream.jitter_n and stream.clock else 0.0
    codec = STATIC[stream.type][0] if stream.type in STATIC else None
    return {
        "flow": f"C{stream.flow_number}",
        "source": st.address_text(source),
        "target": st.address_text(target),
        "ssrc": f"{stream.ssrc:08x}",
        "payload_type": stream.type,
        "codec": codec,
        "clock_hz": stream.clock,
        "clock_inferred": stream.type not in STATIC,
        "packets": stream.packets,
        "expected": expected,
        "lost": lost,
        "loss_rate": loss,
        "max_loss_burst": stream.max_burst,
        "reordered": stream.reordered,
        "duplicates": stream.duplicates,
        "jitter_ms": jitter,
        "max_jitter_ms": 1000 * stream.jitter_max / stream.clock if stream.clock else 0.0,
        "mos": _opinion(codec, loss, jitter),
        "first_frame": stream.first_frame,
        "last_frame": stream.last_frame,
    }


def _opinion(codec: str | None, loss: float, jitter_ms: float) -> float | None:
    """Mean opinion score by the E-model with the loss robustness of G.711 (ITU-T G.107, G.113); other codecs are
    unknown.
    """
    if codec not in ("PCMU", "PCMA"):
        return None
    delay = 2 * jitter_ms + 20  # a playout buffer of twice the jitter
    impairment = 0.024 * delay + (0.11 * (delay - 177.3) if delay > 177.3 else 0.0)
    factor = 93.2 - impairment - 95 * (100 * loss) / (100 * loss + 4.3)
    factor = max(0.0, min(100.0, factor))
    return round(1 + 0.035 * factor + factor * (factor - 60) * (100 - factor) * 7e-6, 2)


def devices(st: State) -> list[DeviceRow]:
    """Devices that said who they are, by SSDP, mDNS, LLMNR or DHCP."""
    found: dict[str, Any] = {}

    def row(host: str) -> Any:
        return found.setdefault(host, {"host": host, "names": set(), "services": set(), "packets": 0})

    for address, (names, services) in st.devices.items():
        entry = row(st.address_text(address))
        entry["names"] |= names
        entry["services"] |= services
    for address, messages in st.dns.multicast.items():
        row(st.address_text(address))["packets"] += messages[0]
    for item in st.dns.rows:
        if item[R_STATUS] == "announcement":
            entry = row(st.address_text(split_key(item[R_KEY])[0]))
            for answer in item[R_ANSWERS]:
                owner, _, rest = answer.partition(" ")
                target = entry["services"] if "._tcp" in owner or "._udp" in owner else entry["names"]
                if len(target) < 16 and not rest.startswith("NSEC"):
                    target.add(owner)
    for exchange in list(st.dhcp.exchanges.values())[:500]:
        if exchange.hostname and exchange.address:
            row(exchange.address)["names"].add(exchange.hostname)
    return [
        {
            "host": entry["host"],
            "names": sorted(entry["names"]),
            "services": sorted(entry["services"]),
            "packets": entry["packets"],
        }
        for entry in sorted(found.values(), key=lambda entry: (-entry["packets"], entry["host"]))[:200]
    ]


__all__ = ["arp", "devices", "dhcp", "dns", "http", "icmp", "quic", "rtp_row", "tls"]
