"""The verdict: up to three sentences that say network, server or client, and only what the evidence carries.

What is wrong comes first, the weightiest before. Where that leaves room and there is enough traffic to tell, the other
parts of the path are cleared, each with its numbers: who looks for the culprit must know who it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.analysis.measures import SECOND, counted, percent, rank, short_s
from gateway.analysis.score import MIN_SEGMENTS
from gateway.analysis.words import SEVERITIES

if TYPE_CHECKING:
    from gateway.analysis.report import Finding, VerdictSentence
    from gateway.analysis.state import State
    from gateway.analysis.summary import TcpTotals

_CLEAR_SIDE: Final = 0.8  # share of the placed losses from which one side is named
_SENTENCES: Final = 3
_SLOW_S: Final = 0.5  # from here on the median wait for a server is told even where nothing else is


def _worst(findings: list[Finding], *kinds: str) -> list[Finding]:
    return [row for row in findings if row["kind"].startswith(kinds) and row["muted"] is None]


def _weight(row: Finding) -> int:
    return SEVERITIES.index(row["severity"])


def _sentence(
    about: str, text: str, rows: list[Finding], numbers: dict[str, float | int | str | None], *, clear: bool = False
) -> VerdictSentence:
    frame = rows[0]["first"]["frame"] if rows else None
    if frame:
        text += f" First at frame {frame}."
    return {
        "about": about,  # type: ignore[typeddict-item]
        "sentence": text,
        "findings": [row["id"] for row in rows[:20]],
        "frame": frame or None,
        "numbers": numbers,
        "clear": clear,
    }


def verdict(st: State, totals: TcpTotals, findings: list[Finding]) -> list[VerdictSentence]:
    """The sentences, the weightiest first, then who is not to blame."""
    found: list[tuple[int, VerdictSentence]] = []
    for part in (_security, _network, _connect, _server, _client, _capture):
        result = part(st, totals, findings)
        if result is not None:
            found.append(result)
    found.sort(key=lambda item: -item[0])
    chosen = [sentence for _, sentence in found[:_SENTENCES]] or [_fine(st, totals, findings)]
    blamed = {sentence["about"] for sentence in chosen}
    seen = totals.segments >= MIN_SEGMENTS and 2 * totals.one_sided < len(st.connections)
    if seen and "capture" not in blamed:
        for about, cleared in (("network", _network_clear), ("server", _server_clear), ("client", _client_clear)):
            # Where nothing is wrong at all, the first sentence has the network's numbers.
            if len(chosen) < _SENTENCES and about not in blamed and not (about == "network" and "none" in blamed):
                chosen += cleared(st, totals, findings)
    return chosen


def _network_clear(st: State, totals: TcpTotals, findings: list[Finding]) -> list[VerdictSentence]:
    if _worst(findings, "tcp.connect", "tcp.syn", "tcp.rtt", "icmp.", "ip.pmtu", "tcp.retransmission"):
        return []
    path = totals.path_rtt
    text = f"Network: {totals.lost:,} of {totals.segments:,} TCP data segments were lost"
    text += f", at {short_s(path / SECOND)} round trip (median)." if path is not None else "."
    numbers: dict[str, float | int | str | None] = {
        "retransmissions": totals.lost,
        "rate": totals.lost / totals.segments,
        "rtt_s": None if path is None else path / SECOND,
    }
    return [_sentence("network", text, [], numbers, clear=True)]


def _server_clear(st: State, totals: TcpTotals, findings: list[Finding]) -> list[VerdictSentence]:
    if not st.wait_samples or _worst(findings, "http.slow", "http.error", "tls.hello.slow", "tcp.gap.server"):
        return []
    wait = rank(sorted(st.wait_samples), 0.5) / SECOND
    trip = rank(sorted(totals.irtts), 0.5) / SECOND if totals.irtts else None
    text = f"Server: first byte {short_s(wait)} after the request beyond the path"
    text += f", at {short_s(trip)} round trip" if trip is not None else ""
    text += f" (median of {counted(len(st.wait_samples), 'answer')})."
    return [_sentence("server", text, [], {"wait_s": wait, "rtt_s": trip, "n": len(st.wait_samples)}, clear=True)]


def _client_clear(st: State, totals: TcpTotals, findings: list[Finding]) -> list[VerdictSentence]:
    if totals.zero_ns or _worst(findings, "tcp.window", "tcp.handshake.client"):
        return []
    text = f"Client: no receiver's window closed in {totals.segments:,} TCP data segments."
    return [_sentence("client", text, [], {"zero_windows": 0, "segments": totals.segments}, clear=True)]


def _network(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = _worst(findings, "tcp.retransmission.loss", "tcp.retransmission.rto")
    rtts = _worst(findings, "tcp.rtt", "icmp.unreachable", "icmp.loop", "ip.pmtu")
    rtts = [row for row in rtts if _weight(row) >= 2]
    if rows and totals.segments:
        lost = sum(row["count"] for row in rows)
        rate = totals.lost / totals.segments
        worst = max(rows, key=lambda row: row["count"])
        placed = totals.towards_server + totals.towards_client
        if totals.towards_server > _CLEAR_SIDE * placed:
            where = "on the servers' side of the capture point"
        elif totals.towards_client > _CLEAR_SIDE * placed:
            where = "on the clients' side of the capture point"
        else:
            where = "on both sides of the capture point"
        weight = max(map(_weight, rows))
        text = (
            f"Network: {counted(lost, 'lost segment')} in {counted(len(rows), 'transfer')} "
            f"({percent(rate)} of all data segments), most "
            f"towards {worst['hosts'].get('target', 'several hosts')}; the loss is {where}."
        )
        return weight * 10 + 5, _sentence(
            "network",
            text,
            sorted(rows, key=lambda row: row["first"]["frame"]),
            {
                "retransmissions": lost,
                "rate": rate,
                "towards_server": totals.towards_server,
                "towards_client": totals.towards_client,
            },
        )
    if rtts:
        worst = max(rtts, key=_weight)
        return _weight(worst) * 10 + 3, _sentence(
            "network", "Network: " + worst["sentence"], rtts, dict(worst["evidence"])
        )
    return None


def _connect(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = [
        row for row in _worst(findings, "tcp.connect", "tcp.syn.", "dns.failure", "dhcp.no_offer") if _weight(row) >= 2
    ]
    if not rows:
        return None
    worst = max(rows, key=lambda row: (_weight(row), row["count"]))
    refused = worst["kind"] == "tcp.connect.refused" or worst["kind"].startswith(("dns", "dhcp"))
    about = "server" if refused else "network"
    lead = "Server: " if refused else "Network or server: "
    ordered = [worst, *(row for row in rows if row is not worst)]
    numbers: dict[str, float | int | str | None] = {"findings": len(rows), "count": worst["count"]}
    return _weight(worst) * 10 + 4, _sentence(about, lead + worst["sentence"], ordered, numbers)


def _server(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = _worst(findings, "http.slow", "http.error", "tls.hello.slow", "tcp.gap.server")
    rows = [row for row in rows if _weight(row) >= 1]
    waits = sorted(st.wait_samples)
    wait = rank(waits, 0.5) / SECOND if waits else None
    trip = rank(sorted(totals.irtts), 0.5) / SECOND if totals.irtts else None
    if not rows and (wait is None or wait < _SLOW_S):
        return None
    weight = max(map(_weight, rows), default=2)
    if wait is not None and trip is not None and (wait >= _SLOW_S or any(row["kind"] == "http.slow" for row in rows)):
        text = (
            f"Server: median {short_s(wait)} from request to first byte beyond the path, at {short_s(trip)} round trip."
        )
        if rows:
            text += " " + rows[0]["sentence"]
    elif rows:
        text = "Server: " + max(rows, key=_weight)["sentence"]
    else:
        text = f"Server: median {short_s(wait or 0)} from request to first byte."
    return weight * 10 + 3, _sentence("server", text, rows, {"wait_s": wait, "rtt_s": trip, "n": len(waits)})


def _client(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = _worst(findings, "tcp.window.zero", "tcp.handshake.client")
    if not rows:
        return None
    worst = max(rows, key=_weight)
    target = worst["hosts"].get("target", "")
    lead = "Client: "
    if worst["kind"] == "tcp.window.zero" and st.is_server_side(worst):
        lead = "Server: "
    text = lead + worst["sentence"]
    return _weight(worst) * 10 + 2, _sentence(
        "client" if lead == "Client: " else "server", text, rows, {"host": target, "count": worst["count"]}
    )


def _security(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = [row for row in findings if row["class"] == "security" and _weight(row) >= 2 and row["muted"] is None]
    if not rows:
        return None
    worst = max(rows, key=_weight)
    more = f" {counted(len(rows) - 1, 'more security finding')}." if len(rows) > 1 else ""
    ordered = [worst, *(row for row in rows if row is not worst)]
    return _weight(worst) * 10 + 6, _sentence(
        "security", f"Security: {worst['sentence']}{more}", ordered, {"findings": len(rows)}
    )


def _capture(st: State, totals: TcpTotals, findings: list[Finding]) -> tuple[int, VerdictSentence] | None:
    rows = [row for row in findings if row["class"] == "capture" and _weight(row) >= 2]
    if not rows:
        return None
    worst = max(rows, key=_weight)
    return 19, _sentence("capture", f"Recording: {worst['sentence']}", rows, {"count": worst["count"]})


def _fine(st: State, totals: TcpTotals, findings: list[Finding]) -> VerdictSentence:
    if totals.segments < 20 and not st.dns.total:
        text = f"Too little traffic for a verdict: {st.frame:,} packets, {totals.segments:,} of them TCP data."
    else:
        text = f"Nothing wrong was found in {st.frame:,} packets"
        if totals.segments:
            text += f"; {totals.retransmitted:,} of {totals.segments:,} TCP data segments were sent again"
        if totals.irtts:
            text += f", connections opened within {short_s(rank(sorted(totals.irtts), 0.5) / SECOND)} (median)"
        text += "."
    minor = [row for row in findings if _weight(row) == 1 and row["muted"] is None]
    if minor:
        text = text.replace("Nothing wrong", "Nothing serious")
        text += f" {counted(len(minor), 'minor finding')}: {minor[0]['title']}."
    return _sentence("none", text, minor, {"packets": st.frame, "segments": totals.segments})
