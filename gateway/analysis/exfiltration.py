"""Data leaving: a local host that sends far more than it gets, to somebody it does not usually talk to."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, graded, is_group, many_bytes, raised, short_s
from gateway.analysis.neighbourhood import membership
from gateway.analysis.services import PORTS
from gateway.analysis.sessions import of_connection
from gateway.analysis.udp import U_LAST, U_PAYLOAD

if TYPE_CHECKING:
    from gateway.analysis.state import State

_CLEAR = {21, 23, 25, 80, 110, 143, 20}


def detect(st: State, out: Findings) -> None:
    """Report large uploads; payload only, retransmitted bytes taken out."""
    limits = st.settings.exfiltration
    least = min(limits.low_bytes, limits.medium_bytes, limits.high_bytes, limits.new_peer_bytes, limits.odd_port_bytes)
    sent = sum(session.up for session in map(of_connection, st.connections) if session.up > 0)
    if sent + sum(flow.orig[U_PAYLOAD] for flow in st.udp_flows if flow.orig is not None) < least:
        return  # all together is too little, as in most captures
    local = membership(st)
    sums: dict[tuple[bytes, bytes, int, str], list[Any]] = defaultdict(lambda: [0, 0, 0, 0, [], None])
    for conn in st.connections:
        session = of_connection(conn)
        if not local(session.source) or local(session.target):
            continue
        row = sums[session.source, session.target, session.port, "tcp"]
        up = session.up
        if conn.orig is not None and conn.orig.trouble is not None:
            up -= conn.orig.trouble.retransmitted_bytes
        _add(row, up, session.down, session.start, session.last, conn.frame, conn.name, limits.window_s)
    for flow in st.udp_flows:
        source, target, _, port = split_key(flow.key)
        if not local(source) or local(target) or is_group(target) or flow.orig is None:
            continue
        down = flow.resp[U_PAYLOAD] if flow.resp is not None else 0
        row = sums[source, target, port, "udp"]
        _add(row, flow.orig[U_PAYLOAD], down, flow.time, flow.orig[U_LAST], flow.frame, flow.name, limits.window_s)
    for (source, target, port, proto), (up, down, first, last, frames, name) in sums.items():
        if up < least:
            continue
        ratio = up / max(1, down)
        odd = (proto, port) not in PORTS
        name = name or st.dns.addresses.get(target)
        grade = None
        if ratio >= limits.ratio:
            grade = graded(up, (limits.low_bytes, "low"), (limits.medium_bytes, "medium"), (limits.high_bytes, "high"))
        late = first - (st.first_ns or 0) > 60 * SECOND
        if grade is None and (
            (late and up >= limits.new_peer_bytes and ratio >= limits.new_peer_ratio)
            or (odd and up >= limits.odd_port_bytes and ratio >= limits.ratio)
        ):
            grade = "low"
        if grade is None:
            continue
        signals = ["volume", "one-way"]
        if odd or port in _CLEAR:
            grade = raised(grade)
            signals.append("unusual-port" if odd else "cleartext")
        if name is not None and not odd:
            grade = raised(grade, -1)
            signals.append("known-name")
        out.add(
            "security.exfiltration",
            grade,
            0.5,
            f"{many_bytes(up)} sent to {name or st.address_text(target)}",
            f"{st.address_text(source)} sent {many_bytes(up)} to {name or st.address_text(target)}:{port} and got "
            f"{many_bytes(down)} back within {short_s(min(limits.window_s, (last - first) / SECOND))}.",
            frames=sorted(frames),
            count=len(frames),
            first_ns=first,
            last_ns=last,
            flow=min(frames),
            source=source,
            target=target,
            port=port,
            evidence={"sent": up, "received": down, "ratio": ratio, "name": name, "port": port},
            threshold={"bytes": limits.low_bytes, "ratio": limits.ratio, "odd_port_bytes": limits.odd_port_bytes},
            signals=signals,
            advice="security.exfiltration",
            group="security",
        )


def _add(
    row: list[Any], up: int, down: int, first: int, last: int, frame: int, name: str | None, window_s: float
) -> None:
    """Add a flow; one that begins long after the window of those before starts the sum anew if it is larger."""
    lasted = (last - first) / SECOND
    if not row[4] and lasted <= window_s:  # the first, and mostly the only one
        row[0], row[1], row[2], row[3] = up, down, first, max(row[3], last)
        row[4].append(frame)
        row[5] = row[5] or name
        return
    if lasted > window_s:
        # Only what went within one window counts: a camera that streams all day is no burglar.
        up, down = round(up * window_s / lasted), round(down * window_s / lasted)
    if row[4] and first - row[2] > window_s * SECOND:
        if up <= row[0]:
            return
        row[0] = row[1] = 0
        row[4] = []
    if not row[4]:
        row[2] = first
    row[0] += up
    row[1] += down
    row[3] = max(row[3], last)
    if len(row[4]) < 100:
        row[4].append(frame)
    row[5] = row[5] or name
