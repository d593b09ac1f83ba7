"""Detectors on names and applications: DNS, TLS, HTTP, QUIC, DHCP, ARP, RTP, jitter, log-ins in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.arp import A_CONFLICTS, A_MACS, mac_words
from gateway.analysis.dhcp import outcome
from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.measures import MS, SECOND, counted, graded, is_group, percent, rank, short_s, spread
from gateway.analysis.name_rows import rtp_row, server_rtt
from gateway.analysis.sessions import of_connection
from gateway.analysis.udp import U_APP, U_FLOW, U_LAST, U_LAST_FRAME, U_PACE, U_PACKETS
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.report import JitterRow
    from gateway.analysis.state import State

_OLD: Final = ("SSL 2.0", "SSL 3.0", "TLS 1.0", "TLS 1.1")
_RTP_APP: Final = 8
_SUDDEN_DHCP: Final = 50  # times the messages a second that would be a flood if they lasted


def detect(st: State, out: Findings) -> list[JitterRow]:
    """All detectors of this module; returns the paces of regular UDP flows."""
    _dns(st, out)
    _tls(st, out)
    _http(st, out)
    _quic(st, out)
    _dhcp(st, out)
    _arp(st, out)
    _duplicates(st, out)
    _rtp(st, out)
    _multicast(st, out)
    _cleartext(st, out)
    return _jitter(st, out)


def _dns(st: State, out: Findings) -> None:
    limits = st.settings.dns
    for server, stats in st.dns.servers.items():
        failed, slow = stats.failed, stats.slow
        rate = failed.count / max(1, stats.transactions)
        if failed.count and stats.transactions >= limits.failure_min:
            grade: Severity = "high" if rate > limits.failure_high and failed.count > 1 else "low"
            out.add(
                "dns.failure",
                grade,
                1.0,
                f"DNS server {st.address_text(server)} fails",
                f"{failed.count:,} of {counted(stats.transactions, 'question')} to {st.address_text(server)} failed "
                f"({percent(rate)}): "
                f"{stats.timeouts:,} without answer, {counted(stats.servfail, 'server failure')}, "
                f"{stats.refused:,} refused.",
                frames=sorted(failed.frames),
                count=failed.count,
                first_ns=failed.first_ns,
                last_ns=failed.last_ns,
                target=server,
                port=53,
                evidence={
                    "failures": failed.count,
                    "transactions": stats.transactions,
                    "rate": rate,
                    "timeouts": stats.timeouts,
                    "servfail": stats.servfail,
                    "refused": stats.refused,
                },
                threshold={"rate": limits.failure_high, "transactions": limits.failure_min},
                advice="dns.failure",
            )
        if slow.count:
            longest, name = stats.slowest
            out.add(
                "dns.slow",
                "medium" if longest > limits.slow_medium_s * SECOND else "low",
                1.0,
                f"Slow answers of DNS server {st.address_text(server)}",
                f"{counted(slow.count, 'answer')} took longer than {short_s(limits.slow_low_s)}, the longest "
                f"{short_s(longest / SECOND)} for {name}.",
                frames=sorted(slow.frames),
                count=slow.count,
                first_ns=slow.first_ns,
                last_ns=slow.last_ns,
                target=server,
                port=53,
                evidence={"count": slow.count, "max_s": longest / SECOND, "name": name},
                threshold={"low_s": limits.slow_low_s, "medium_s": limits.slow_medium_s},
                advice="dns.slow",
            )


def _tls(st: State, out: Findings) -> None:
    limits = st.settings.tls
    old: dict[tuple[bytes, str], list[Any]] = {}
    for row in st.tls.rows:
        conn = row["flow"]
        source, target, _, port = split_key(conn.key)
        if row["version"] in _OLD:
            old.setdefault((target, row["version"]), []).append(row)
        trip = server_rtt(conn)
        waited = row["hello_ns"]
        if waited is not None:
            think = max(0, waited - (trip or 0)) / SECOND
            grade = graded(think, (limits.slow_low_s, "low"), (limits.slow_medium_s, "medium"))
            if grade is not None:
                out.add(
                    "tls.hello.slow",
                    grade,
                    0.8,
                    f"{row['sni'] or st.address_text(target)} answers TLS slowly",
                    f"The server needed {short_s(think)} beyond the round trip to answer the ClientHello.",
                    frames=[row["frame"], row["server_frame"]],
                    first_ns=row["t"],
                    last_ns=row["t"] + waited,
                    flow=conn.frame,
                    source=source,
                    target=target,
                    port=port,
                    evidence={"think_s": think, "sni": row["sni"]},
                    threshold={"low_s": limits.slow_low_s, "medium_s": limits.slow_medium_s},
                    advice="tls.slow",
                )
        if row["alert"] is not None:
            event = (conn.events or {}).get("tls-alert")
            out.add(
                "tls.alert",
                "medium",
                1.0,
                f"TLS with {row['sni'] or st.address_text(target)} failed: {row['alert']}",
                f"The handshake with {row['sni'] or st.address_text(target)} ended with the alert {row['alert']!r}.",
                frames=event[4] if event is not None else [row["frame"]],
                first_ns=event[1] if event is not None else row["t"],
                last_ns=event[3] if event is not None else row["t"],
                flow=conn.frame,
                source=source,
                target=target,
                port=port,
                evidence={"alert": row["alert"], "sni": row["sni"]},
                advice="tls.alert",
            )
    for (target, version), rows in old.items():
        out.add(
            "tls.version.old",
            "low",
            1.0,
            f"{st.address_text(target)} still speaks {version}",
            f"{counted(len(rows), 'session')} with {rows[0]['sni'] or st.address_text(target)} "
            f"{'uses' if len(rows) == 1 else 'use'} {version}, which is no longer safe.",
            frames=[row["server_frame"] for row in rows],
            first_ns=rows[0]["t"] + (rows[0]["hello_ns"] or 0),
            last_ns=rows[-1]["t"] + (rows[-1]["hello_ns"] or 0),
            target=target,
            evidence={"version": version, "sessions": len(rows)},
            threshold={"version": "TLS 1.2"},
            advice="tls.version",
            group="security",
        )


def _http(st: State, out: Findings) -> None:
    limits = st.settings.http
    for server, row in st.http.errors.items():
        if not row[1]:
            continue
        share = row[1] / row[0]
        out.add(
            "http.error",
            "high" if share > limits.error_high and row[0] >= limits.error_min else "medium",
            1.0,
            f"{counted(row[1], 'server error')} of {st.address_text(server)}",
            f"{row[1]} of {counted(row[0], 'response')} of {row[4].name or st.address_text(server)} "
            f"{'was a server error' if row[1] == 1 else 'were server errors'} (5xx).",
            frames=row[3],
            count=row[1],
            first_ns=row[5],
            last_ns=row[6],
            flow=row[4].frame,
            target=server,
            evidence={"errors": row[1], "responses": row[0], "share": share},
            threshold={"share": limits.error_high},
            advice="http.error",
        )
    for conn in st.connections:
        event = (conn.events or {}).get("http-slow")
        waits = st.waits.get(conn.number)
        if event is None or waits is None:
            continue
        think = max(0, waits[2] - (server_rtt(conn) or 0)) / SECOND
        if think <= limits.slow_s:
            continue
        source, target, _, port = split_key(conn.key)
        out.add(
            "http.slow",
            "medium",
            0.8,
            f"{conn.name or st.address_text(target)} answers slowly",
            f"{counted(event[0], 'response')} came later than {short_s(limits.slow_s)} after the request, the longest "
            f"{short_s(think)} beyond the "
            "round trip: the server, not the network.",
            frames=event[4],
            count=event[0],
            first_ns=event[1],
            last_ns=event[3],
            flow=conn.frame,
            source=source,
            target=target,
            port=port,
            evidence={"max_wait_s": think, "count": event[0]},
            threshold={"slow_s": limits.slow_s},
            advice="http.slow",
        )


def _quic(st: State, out: Findings) -> None:
    fallback: dict[tuple[bytes, bytes], int] = {}  # when a client began its last TCP connection to a server's port 443
    for session in map(of_connection, st.connections):
        if session.port == 443:
            ends = (session.source, session.target)
            fallback[ends] = max(session.start, fallback.get(ends, session.start))
    for flow in st.quic:
        source, target, _, _ = split_key(flow.flow.key)
        # A connection from before is how the client learned of QUIC, no way round a filter.
        fell_back = fallback.get((source, target), flow.time) > flow.time
        if flow.initials >= 3 and flow.answered_ns is None and not flow.retry and fell_back:
            out.add(
                "quic.blocked",
                "info",
                0.5,
                f"QUIC to {flow.sni or st.address_text(target)} is blocked",
                f"{flow.initials} first packets of QUIC were not answered, then TCP was used: UDP 443 is filtered "
                f"somewhere.",
                frames=[flow.frame],
                count=flow.initials,
                first_ns=flow.time,
                last_ns=flow.time,
                flow=flow.flow.frame,
                source=source,
                target=target,
                port=443,
                evidence={"initials": flow.initials, "sni": flow.sni},
                threshold={"initials": 3},
                advice="quic.blocked",
            )


def _dhcp(st: State, out: Findings) -> None:
    table, limits = st.dhcp, st.settings.dhcp
    flood = table.flood
    # A house that comes back after a power cut asks for a second or two, and has no thousand devices.
    flooding = flood[4] >= st.settings.flood.min_s or flood[2] >= _SUDDEN_DHCP * limits.flood_per_s
    if flooding:
        many = table.best[0] >= limits.flood_per_s
        out.add(
            "security.dhcp.starvation" if many else "security.flood.dhcp",
            "critical" if many else "high",
            0.8,
            "DHCP pool under attack" if many else "DHCP request flood",
            f"Up to {table.best[1]:,} DHCP requests a second, "
            f"{counted(len(table.all_clients), 'client address', 'different client addresses')} in all: "
            + ("somebody empties the address pool." if many else "one client repeats itself without pause."),
            frames=flood[3],
            count=flood[2],
            first_ns=table.best[2] * SECOND,
            last_ns=st.max_ns,
            last_frame=flood[1],
            evidence={
                "per_s": table.best[1],
                "clients_per_s": table.best[0],
                "clients": len(table.all_clients),
                "seconds": flood[4],
            },
            threshold={"per_s": limits.flood_per_s, "min_s": st.settings.flood.min_s},
            signals=["rate", *(["new-clients"] if many else [])],
            advice="security.dhcp",
            group="security",
        )
    allowed = {item.strip() for item in limits.allowed_servers.split(",") if item.strip()}
    servers = {name: row for name, row in table.servers.items() if name not in allowed}
    if len(servers) > 1 or (allowed and servers):
        frames = sorted(row[0] for row in servers.values())
        out.add(
            "dhcp.rogue",
            "high",
            0.8,
            "More than one DHCP server" if not allowed else "A DHCP server that is not listed",
            f"Addresses are offered by {', '.join(sorted(servers))}"
            + (f", besides the allowed {', '.join(sorted(allowed))}." if allowed else "."),
            frames=frames,
            first_ns=st.first_ns or 0,
            last_ns=st.max_ns,
            evidence={"servers": sorted(servers)},
            threshold={"servers": 1},
            advice="dhcp.rogue",
            group="security",
        )
    for kind, state, grade, text in (
        ("dhcp.no_offer", "no-offer", "high", "asked for an address and got no offer"),
        ("dhcp.nak", "nak", "medium", "was refused the address it asked for"),
    ):
        found = [item for item in table.exchanges.values() if item.family == 4 and outcome(item) == state]
        if state == "no-offer":
            found = [item for item in found if st.max_ns - item.steps[-1][2] > 3 * SECOND or len(item.steps) > 2]
        if not found or (flooding and state == "no-offer"):
            continue
        step = found[0].steps[0]
        severity: Severity = "high" if grade == "high" else "medium"
        out.add(
            kind,
            severity,
            1.0,
            f"{counted(len(found), 'DHCP client')} {'without offer' if state == 'no-offer' else 'refused'}",
            f"{found[0].client}{' and others' if len(found) > 1 else ''} {text}.",
            frames=sorted(item.steps[0][1] for item in found)[: st.frames_cap],
            count=len(found),
            first_ns=step[2],
            last_ns=found[-1].steps[-1][2],
            evidence={"clients": len(found)},
            threshold={"clients": 1},
            advice=kind,
        )


def _arp(st: State, out: Findings) -> None:
    gateways = {target for target, row in st.arp.addresses.items() if target[-1:] in (b"\x01", b"\xfe") and row[1] > 0}
    gateways |= st.icmp.routers
    for address, row in st.arp.addresses.items():
        conflicts = row[A_CONFLICTS]
        if not conflicts:
            continue
        gateway = address in gateways
        macs = [mac.hex(":") for mac in row[A_MACS]]
        out.add(
            "arp.conflict" if len(address) == 4 else "nd.conflict",
            "critical" if gateway else "high",
            0.8,
            f"{st.address_text(address)} is claimed by {len(macs)} devices",
            f"{', '.join(map(mac_words, row[A_MACS]))} all say they are {st.address_text(address)}"
            + (", which looks like the gateway: traffic may be diverted." if gateway else "."),
            frames=sorted({frame for pair in conflicts for frame in pair[:2]}),
            count=len(conflicts),
            first_ns=conflicts[0][2],
            last_ns=conflicts[-1][2],
            target=address,
            evidence={"macs": macs, "address": st.address_text(address)},
            threshold={"within_s": st.settings.arp.conflict_s},
            advice="arp.conflict" if len(address) == 4 else "nd.conflict",
            group="security",
        )


def _duplicates(st: State, out: Findings) -> None:
    """IPv6 addresses that were asked for and defended: somebody else has them already (RFC 4862 section 5.4)."""
    for address, (owner, asked, told, frames) in st.icmp.defended.items():
        out.add(
            "nd.duplicate",
            "medium",
            0.8,
            f"{st.address_text(address)} is taken already",
            f"A host was about to take the address {st.address_text(address)}, and "
            f"{mac_words(owner) if owner else 'another one'} said that it has it: one of the two has to take another.",
            frames=frames,
            first_ns=asked,
            last_ns=told,
            target=address,
            evidence={"address": st.address_text(address), "owner": owner.hex(":")},
            advice="nd.conflict",
        )


def _rtp(st: State, out: Findings) -> None:
    limits = st.settings.rtp
    for stream in st.rtp:
        row = rtp_row(st, stream)
        if row["expected"] < limits.min_packets:
            continue
        by_loss = graded(
            row["loss_rate"], (limits.loss_low, "low"), (limits.loss_medium, "medium"), (limits.loss_high, "high")
        )
        by_jitter = graded(
            row["jitter_ms"],
            (limits.jitter_low_ms, "low"),
            (limits.jitter_medium_ms, "medium"),
            (limits.jitter_high_ms, "high"),
        )
        source, target, _, port = split_key(stream.key)
        for kind, grade, what in (
            (
                "rtp.loss",
                by_loss,
                f"{row['lost']:,} of {row['expected']:,} packets were lost ({percent(row['loss_rate'])}), at most "
                f"{row['max_loss_burst']} in a row",
            ),
            (
                "rtp.jitter",
                by_jitter,
                f"jitter is {row['jitter_ms']:.0f} ms on average, {row['max_jitter_ms']:.0f} ms at worst",
            ),
        ):
            if grade is not None:
                out.add(
                    kind,
                    grade,
                    1.0 if kind == "rtp.loss" else 0.8,
                    f"Bad audio or video from {row['source']} to {row['target']}",
                    f"RTP stream {row['ssrc']} ({row['codec'] or 'type ' + str(row['payload_type'])}): {what}.",
                    frames=[stream.first_frame],
                    count=row["lost"] if kind == "rtp.loss" else row["packets"],
                    first_ns=stream.first_ns,
                    last_ns=stream.arrival,
                    last_frame=stream.last_frame,
                    flow=stream.flow_number,
                    source=source,
                    target=target,
                    port=port,
                    evidence={"lost": row["lost"], "loss_rate": row["loss_rate"], "jitter_ms": row["jitter_ms"]},
                    threshold={"loss": limits.loss_low, "jitter_ms": limits.jitter_low_ms},
                    advice="rtp",
                )


def _multicast(st: State, out: Findings) -> None:
    for address, (count, _, _, most, frames, _, best) in st.dns.multicast.items():
        if most > st.settings.mdns.rate_per_s:
            out.add(
                "mdns.flood",
                "low",
                0.8,
                f"{st.address_text(address)} announces itself without pause",
                f"{st.address_text(address)} sent up to {most:,} multicast name messages a second, {count:,} in all.",
                frames=frames,
                count=most,
                first_ns=best // SECOND * SECOND,
                last_ns=best,
                source=address,
                evidence={"per_s": most, "messages": count},
                threshold={"per_s": st.settings.mdns.rate_per_s},
                advice="mdns.flood",
            )


def _cleartext(st: State, out: Findings) -> None:
    found: dict[tuple[bytes, int], list[Any]] = {}
    for conn in st.connections:
        event = (conn.events or {}).get("cleartext-login")
        if event is None:
            continue
        session = of_connection(conn)
        row = found.setdefault((session.target, session.port), [0, [], event[1], event[1], conn])
        row[0] += 1
        row[1].append(event[4][0])
        row[2], row[3] = min(row[2], event[1]), max(row[3], event[1])
    for (target, port), (count, frames, first, last, conn) in found.items():
        out.add(
            "security.cleartext_login",
            "low",
            1.0,
            f"Passwords in clear to {st.address_text(target)}:{port}",
            f"{counted(count, 'log-in')} to {st.address_text(target)}:{port} "
            f"({conn.service[0] if conn.service else 'unknown'}) sent the password unencrypted.",
            frames=sorted(frames)[: st.frames_cap],
            count=count,
            first_ns=first,
            last_ns=last,
            flow=conn.frame,
            target=target,
            port=port,
            evidence={"logins": count, "port": port},
            advice="security.cleartext",
            group="security",
        )


def _jitter(st: State, out: Findings) -> list[JitterRow]:
    """Paces of UDP flows that are regular; offload and duplicated recordings make them meaningless."""
    limits = st.settings.jitter
    rows: list[JitterRow] = []
    if st.offload or st.duplicates > 0.05 * st.frame:
        return rows
    for key, d in st.udp.items():
        pace = d[U_PACE]
        if pace is None or d[U_PACKETS] < limits.min_packets or len(pace) < limits.min_packets - 4:
            continue
        middle, scatter = spread(pace)
        if middle < MS or scatter >= limits.max_spread or d[U_APP] == _RTP_APP:
            continue
        deviations = sorted(int(abs(item - middle)) for item in pace)
        source, target, _, port = split_key(key)
        p95 = rank(deviations, 0.95)
        flow = d[U_FLOW]
        if len(rows) < st.settings.tables.rows:
            rows.append(
                {
                    "flow": f"C{flow.frame}",
                    "source": st.address_text(source),
                    "target": st.address_text(target),
                    "n": len(pace),
                    "median_interval_ms": middle / MS,
                    "p50_ms": rank(deviations, 0.5) / MS,
                    "p95_ms": p95 / MS,
                    "max_ms": deviations[-1] / MS,
                }
            )
        grade = graded(p95 / SECOND, (limits.low_s, "low"), (limits.medium_s, "medium"), (limits.high_s, "high"))
        if grade is None or middle > SECOND // 4 or is_group(target) or target.endswith(b"\xff"):
            continue
        out.add(
            "udp.jitter",
            grade,
            0.5,
            f"Uneven stream from {st.address_text(source)} to {st.address_text(target)}",
            f"Packets come every {middle / MS:.1f} ms, but 5 % of them are more than {p95 / MS:.0f} ms off.",
            frames=[flow.frame],
            count=d[U_PACKETS],
            first_ns=flow.time,
            last_ns=d[U_LAST],
            last_frame=d[U_LAST_FRAME],
            flow=flow.frame,
            source=source,
            target=target,
            port=port,
            evidence={"p95_ms": p95 / MS, "median_interval_ms": middle / MS},
            threshold={"low_ms": limits.low_s * 1000},
            advice="udp.jitter",
        )
    return rows
