"""Scans: who tried many ports of one host, one port of many hosts, or sent what no connection sends.

Tries are taken with their outcome. The look-alikes (a browser's burst, monitoring, passive FTP, peers) succeed
mostly, and a
share of failures keeps them apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.analysis.findings import Findings
from gateway.analysis.fold import (
    F_COUNT,
    F_FAILED,
    F_FIRST,
    F_FIRST_FRAME,
    F_LAST,
    F_PORTS,
    F_TARGETS,
    HOST_TRIES,
    split_key,
)
from gateway.analysis.measures import SECOND, graded, is_group, percent, raised, short_s
from gateway.analysis.services import PORTS
from gateway.analysis.sessions import attempts_by_source, sessions
from gateway.analysis.udp import U_FIRST, U_PACKETS, U_REV
from gateway.analysis.words import Severity

if TYPE_CHECKING:
    from gateway.analysis.floods import Flooded
    from gateway.analysis.state import State

_FLAG_NAMES = {0: "NULL", 1: "FIN", 0x29: "XMAS", 0x11: "Maimon", 0x10: "ACK"}


class Try(NamedTuple):
    """One attempt of a source."""

    t: int
    target: bytes
    port: int
    failed: bool
    opened: bool
    frame: int
    last_frame: int


def detect(st: State, out: Findings, flooded: Flooded) -> set[bytes]:
    """Report the scans; returns their sources. What arrived at `flooded` targets belongs to the flood."""
    tries = _tries(st, flooded.services)
    scanners: set[bytes] = set()
    for source, found in tries.items():
        if _port_scans(st, out, source, found):
            scanners.add(source)
    for source, row in st.hosts.items():
        folded = row[HOST_TRIES]
        if folded is not None and source not in scanners and _folded(st, out, source, folded):
            scanners.add(source)
    scanners |= _flag_scans(st, out)
    scanners |= _udp_scans(st, out, flooded.hosts)
    _sweeps(st, out)
    return scanners


def _tries(st: State, flooded: set[tuple[bytes, int]]) -> dict[bytes, list[Try]]:
    """Tries by source, of sources that may have enough of them."""
    least = min(st.settings.scan.ports, st.settings.scan.targets)
    wanted = {source for source, count in attempts_by_source(st).items() if count >= least}
    tries: dict[bytes, list[Try]] = defaultdict(list)
    if not wanted:
        return tries
    for session in sessions(st, sources=wanted):
        if not session.syn or (session.target, session.port) in flooded:
            continue
        # Open and closed at once without data is what a connect scan leaves behind at an open port.
        closed_at_once = session.established and not session.up and not session.down and session.state != "S1"
        # Where only one direction was recorded, data behind a SYN say that it was answered.
        failed = (
            not (session.answered or session.up)
            or closed_at_once
            or (not session.established and session.state in ("RSTO", "RSTOS0"))
        )
        tries[session.source].append(
            Try(
                session.start, session.target, session.port, failed, session.answered, session.frame, session.last_frame
            )
        )
    for found in tries.values():
        found.sort()
    return tries


def _window(
    found: Iterable[Try], span: int, group: Callable[[Try], Any], item: Callable[[Try], Any], share: float
) -> dict[Any, tuple[int, list[Try]]]:
    """For each group the largest number of distinct items tried within `span`, where enough of the tries failed."""
    best: dict[Any, tuple[int, list[Try]]] = {}
    windows: dict[Any, deque[Try]] = defaultdict(deque)
    seen: dict[Any, Counter[Any]] = defaultdict(Counter)
    failed: Counter[Any] = Counter()
    for one in found:
        name = group(one)
        window, items = windows[name], seen[name]
        window.append(one)
        items[item(one)] += 1
        failed[name] += one.failed
        while one.t - window[0].t > span:
            old = window.popleft()
            key = item(old)
            items[key] -= 1
            if not items[key]:
                del items[key]
            failed[name] -= old.failed
        if len(items) > best.get(name, (0, []))[0] and failed[name] >= share * len(window):
            best[name] = (len(items), [])
    for name, (count, _) in best.items():
        best[name] = (count, [one for one in found if group(one) == name])
    return best


def _port_scans(st: State, out: Findings, source: bytes, found: list[Try]) -> bool:
    limits = st.settings.scan
    span = int(limits.window_s * SECOND)
    reported = False
    vertical = {
        target: value
        for target, value in _window(
            found, span, lambda one: one.target, lambda one: one.port, limits.failed_share
        ).items()
        if value[0] >= limits.ports
    }
    horizontal = {
        port: value
        for port, value in _window(
            found, span, lambda one: one.port, lambda one: one.target, limits.failed_share
        ).items()
        if value[0] >= limits.targets
    }
    ports_by_target: dict[bytes, set[int]] = defaultdict(set)
    for one in found:
        ports_by_target[one.target].add(one.port)
    blocks = [target for target, ports in ports_by_target.items() if len(ports) >= limits.block_each]
    all_ports = {one.port for one in found}
    failed = sum(one.failed for one in found)
    if (
        len(blocks) >= limits.block_targets
        and len(all_ports) >= limits.block_ports
        and failed >= limits.failed_share * len(found)
    ):
        _report(
            st, out, "security.scan.block", "high", source, None, None, found,
            f"{st.address_text(source)} scanned {len(blocks):,} hosts on {len(all_ports):,} ports",
            {"targets": len(blocks), "ports": len(all_ports)},
            {"targets": limits.block_targets, "ports": limits.block_ports, "each": limits.block_each},
        )  # fmt: skip
        return True
    for target, (count, part) in vertical.items():
        grade = graded(
            count, (limits.ports, "medium"), (limits.ports_high, "high"), (limits.ports_critical, "critical")
        )
        assert grade is not None
        opened = sorted({one.port for one in part if one.opened})
        used = any(not one.failed for one in part)
        _report(
            st, out, "security.scan.vertical", raised(grade) if opened and used else grade, source, target, None, part,
            f"{st.address_text(source)} scanned {count:,} ports of {st.address_text(target)}",
            {"ports": count, "open": opened[:50]},
            {"ports": limits.ports, "window_s": limits.window_s, "failed_share": limits.failed_share},
        )  # fmt: skip
        reported = True
    for port, (count, part) in horizontal.items():
        grade = graded(
            count, (limits.targets, "medium"), (limits.targets_high, "high"), (limits.targets_critical, "critical")
        )
        assert grade is not None
        answered = sorted({st.address_text(one.target) for one in part if one.opened})
        _report(
            st, out, "security.scan.horizontal", grade, source, None, port, part,
            f"{st.address_text(source)} looked for port {port} on {count:,} hosts",
            {"targets": count, "port": port, "answered": answered[:50]},
            {"targets": limits.targets, "window_s": limits.window_s, "failed_share": limits.failed_share},
        )  # fmt: skip
        reported = True
    if not reported and len(found) >= limits.slow_tries and failed > limits.slow_failed_share * len(found):
        distinct = max(max(map(len, ports_by_target.values())), len({one.target for one in found}))
        if distinct >= min(limits.ports, limits.targets):
            _report(
                st, out, "security.scan.slow", "low", source, None, None, found,
                f"{st.address_text(source)} tried {len(found):,} connections and nearly all failed",
                {"targets": len(ports_by_target), "ports": len(all_ports)},
                {"tries": limits.slow_tries, "failed_share": limits.slow_failed_share},
            )  # fmt: skip
            return True
    return reported


def _report(
    st: State,
    out: Findings,
    kind: str,
    severity: Severity,
    source: bytes,
    target: bytes | None,
    port: int | None,
    part: list[Try],
    title: str,
    evidence: dict[str, Any],
    threshold: dict[str, Any],
) -> None:
    failed = sum(one.failed for one in part)
    length = (part[-1].t - part[0].t) / SECOND
    frames = [one.frame for one in part]
    out.add(
        kind,
        severity,
        0.8,
        title,
        f"{title} within {short_s(length)}; {failed:,} of {len(part):,} tries failed ({percent(failed / len(part))}).",
        frames=frames[: st.frames_cap],
        count=len(part),
        first_ns=part[0].t,
        last_ns=part[-1].t,
        last_frame=max(one.last_frame for one in part),
        source=source,
        target=target,
        port=port,
        evidence={**evidence, "tries": len(part), "failed": failed, "failed_share": failed / len(part)},
        threshold=threshold,
        signals=["many-tries", "mostly-failed"],
        advice="security.scan",
        group="security",
    )


def _folded(st: State, out: Findings, source: bytes, row: list[Any]) -> bool:
    """A scan so large that its tries were folded: counts are all there is, and they are enough."""
    limits = st.settings.scan
    count, failed = row[F_COUNT], row[F_FAILED]
    targets, ports = len(row[F_TARGETS]), len(row[F_PORTS])
    if count < limits.slow_tries or failed < limits.failed_share * count:
        return False
    if targets < limits.targets and ports < limits.ports:
        return False
    kind = (
        "security.scan.vertical"
        if ports >= limits.ports and targets < limits.targets
        else ("security.scan.horizontal" if ports < limits.ports else "security.scan.block")
    )
    grade = graded(max(targets, ports), (0, "medium"), (limits.ports_high, "high"), (limits.ports_critical, "critical"))
    out.add(
        kind,
        grade or "medium",
        0.8,
        f"{st.address_text(source)} tried {count:,} connections to {targets:,} hosts on {ports:,} ports",
        f"{st.address_text(source)} tried {count:,} connections to at least {targets:,} hosts on at least {ports:,} "
        f"ports; {percent(failed / count)} failed.",
        frames=[row[F_FIRST_FRAME]],
        count=count,
        first_ns=row[F_FIRST],
        last_ns=row[F_LAST],
        source=source,
        evidence={"tries": count, "failed": failed, "targets": targets, "ports": ports},
        threshold={"ports": limits.ports, "targets": limits.targets},
        signals=["folded"],
        advice="security.scan",
        group="security",
    )
    return True


def _flag_scans(st: State, out: Findings) -> set[bytes]:
    """NULL, FIN, XMAS and bare ACK packets that belong to no connection."""
    limits = st.settings.scan
    found: dict[tuple[bytes, int], list[Try]] = defaultdict(list)
    source_ports: dict[tuple[bytes, int], set[int]] = defaultdict(set)
    for conn in st.connections:
        flags = conn.first_flags & 0x3F
        if flags not in _FLAG_NAMES or conn.syn_frame is not None or conn.syn_ack_time is not None:
            continue
        d = conn.orig if conn.orig is not None else conn.resp
        other = conn.resp if d is conn.orig else conn.orig
        if d is None or d.packets > 2 or (other is not None and other.packets > 2):
            continue
        if other is not None and (conn.reset is None or other.segments):
            continue
        if flags in (0x10, 0x11) and (d.segments or conn.time - (st.first_ns or 0) < SECOND):
            continue  # may be the tail of a connection older than the capture
        source, target, sport, port = split_key(conn.key)
        if d is conn.resp:
            source, target, sport, port = target, source, port, sport
        source_ports[source, flags].add(sport)
        found[source, flags].append(Try(conn.time, target, port, True, False, conn.frame, conn.frame))
    scanners = set()
    for (source, flags), tries in found.items():
        tries.sort()
        distinct = len({(one.target, one.port) for one in tries})
        if distinct < limits.flag_targets:
            continue
        if flags in (0x10, 0x11):
            # Connections older than the capture end like this too; each of them has a port of its own.
            own_ports = 2 * len(source_ports[source, flags]) > len(tries)
            most = max(Counter(target for target, _ in {(one.target, one.port) for one in tries}).values())
            if (most if own_ports else distinct) < limits.ports:
                continue
        name = _FLAG_NAMES[flags]
        grade = graded(distinct, (0, "medium"), (limits.ports_high, "high"), (limits.ports_critical, "critical"))
        targets = {one.target for one in tries}
        _report(
            st, out, f"security.scan.{name.lower()}", grade or "medium", source,
            next(iter(targets)) if len(targets) == 1 else None, None, tries,
            f"{name} scan of {distinct} ports by {st.address_text(source)}",
            {"ports": len({one.port for one in tries}), "targets": len(targets), "flags": name},
            {"targets_or_ports": limits.flag_targets},
        )  # fmt: skip
        scanners.add(source)
    return scanners


def _udp_scans(st: State, out: Findings, flooded: set[bytes]) -> set[bytes]:
    limits = st.settings.scan
    found: dict[tuple[bytes, bytes], list[Try]] = defaultdict(list)
    refused = st.icmp.unreachable_ports
    for flow in st.udp_flows:
        d = flow.orig
        if d is None:
            continue
        source, target, sport, port = split_key(flow.key)
        if target in flooded or is_group(target) or 33434 <= port <= 33534:  # traceroute
            continue
        if ("udp", sport) in PORTS and port >= 1024 and ("udp", port) not in PORTS:
            continue  # a server's answers, of which the questions were not recorded
        told = flow.key in refused.get(source, ())
        silent = d[U_REV] is None and d[U_PACKETS] <= 3
        found[source, target].append(
            Try(d[U_FIRST], target, port, told or silent, not (told or silent), flow.frame, flow.frame)
        )
    scanners = set()
    for (source, target), tries in found.items():
        if len(tries) < limits.udp_ports:
            continue
        tries.sort()
        best = _window(
            tries, int(limits.window_s * SECOND), lambda one: one.target, lambda one: one.port, limits.udp_failed_share
        ).get(target, (0, []))
        if best[0] >= limits.udp_ports:
            _report(
                st, out, "security.scan.udp", "medium", source, target, None, tries,
                f"{st.address_text(source)} scanned {best[0]:,} UDP ports of {st.address_text(target)}",
                {"ports": best[0]}, {"ports": limits.udp_ports, "failed_share": limits.udp_failed_share},
            )  # fmt: skip
            scanners.add(source)
    return scanners


def _sweeps(st: State, out: Findings) -> None:
    """Echo requests and ARP requests to many hosts."""
    limits = st.settings.scan
    for source, row in st.icmp.echo.items():
        targets, answered = row[0], row[1]
        if len(targets) >= limits.targets and len(answered & targets) <= (1 - limits.failed_share) * len(targets):
            out.add(
                "security.scan.ping",
                graded(len(targets), (0, "medium"), (limits.targets_critical, "high")) or "medium",
                0.8,
                f"{st.address_text(source)} pinged {len(targets):,} hosts",
                f"{st.address_text(source)} sent echo requests to {len(targets):,} hosts, {len(answered & targets):,} "
                f"answered.",
                frames=row[6],
                count=len(targets),
                first_ns=row[4],
                last_ns=row[5],
                last_frame=row[3],
                source=source,
                evidence={"targets": len(targets), "answered": len(answered & targets)},
                threshold={"targets": limits.targets},
                advice="security.scan",
                group="security",
            )
    for mac, row in st.arp.askers.items():
        if row[2] > st.settings.arp.sweep_per_s and len(row[5]) > st.settings.arp.sweep_per_s:
            out.add(
                "arp.sweep",
                "low",
                0.8,
                f"{mac.hex(':')} asks for {len(row[5]):,} addresses",
                f"{mac.hex(':')} asked for {len(row[5]):,} addresses by ARP, up to {row[2]:,} in one second.",
                frames=row[4],
                count=row[7],
                first_ns=row[3],
                last_ns=row[6],
                evidence={"per_s": row[2], "addresses": len(row[5]), "mac": mac.hex(":")},
                threshold={"per_s": st.settings.arp.sweep_per_s},
                advice="arp.sweep",
                group="security",
            )
