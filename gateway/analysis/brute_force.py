"""Password guessing, and movement from host to host inside the network.

A try is a completed connection to a login port that was short and much like the others, or a failure seen in the
payload.
Unanswered SYNs are no tries, so a flood never looks like one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from gateway.analysis.findings import Findings
from gateway.analysis.fold import split_key
from gateway.analysis.measures import SECOND, graded, raised, short_s, spread
from gateway.analysis.neighbourhood import membership
from gateway.analysis.sessions import Session, of_connection, sessions

if TYPE_CHECKING:
    from gateway.analysis.state import State

LOGIN_PORTS: Final = frozenset({21, 22, 23, 25, 110, 143, 389, 445, 587, 993, 995, 1433, 3306, 3389, 5432, 5900, 5985})
MOVE_PORTS: Final = frozenset({22, 135, 139, 445, 3389, 5985, 5986, 593})
_MIN_REPLY: Final = 20  # bytes from the server; a health check closes before the service has spoken
# Bytes of a client that tries to log in; a monitor that reads the greeting, says its version and goes sends less.
_MIN_TRY: Final = {22: 400, 25: 40, 587: 40, 445: 150, 993: 150, 995: 150}
_CHALLENGES: Final = 2  # refusals that may precede each accepted web login: NTLM asks twice


def detect(st: State, out: Findings) -> set[bytes]:
    """Report guessing; returns the sources."""
    groups: dict[tuple[bytes, bytes, int], list[Session]] = defaultdict(list)
    failures: dict[tuple[bytes, bytes, int], list[tuple[int, int]]] = defaultdict(list)
    for conn in st.connections:
        session = of_connection(conn)
        if session.port in LOGIN_PORTS and session.established and session.syn:
            name = (session.source, session.target, session.port)
            groups[name].append(session)
            if conn.app is not None and conn.app.failures:
                failures[name].append((session.start, conn.app.failures))
    for name, rows in st.folded_sessions.items():
        if name[2] in LOGIN_PORTS:
            groups[name] += [
                Session(frame, *name, start, last, frame, up, down, "SF", True, True, True, 2, None)
                for start, last, up, down, frame in rows
            ]
    guessers: set[bytes] = set()
    for name, found in groups.items():
        if _judge(st, out, name, found, failures[name]):
            guessers.add(name[0])
    guessers |= _http(st, out)
    return guessers


def _judge(
    st: State,
    out: Findings,
    name: tuple[bytes, bytes, int],
    found: list[Session],
    failures: list[tuple[int, int]],
) -> bool:
    limits = st.settings.brute_force
    found.sort(key=lambda item: item.start)
    source, target, port = name
    short = [
        item
        for item in found
        if (item.last - item.start) <= limits.short_s * SECOND
        and item.up >= _MIN_TRY.get(port, 1)
        and item.down >= _MIN_REPLY
    ]
    # The most tries within the window
    best, low = 0, 0
    best_range = (0, 0)
    for high in range(len(short)):
        while short[high].start - short[low].start > limits.window_s * SECOND:
            low += 1
        if high - low + 1 > best:
            best, best_range = high - low + 1, (low, high + 1)
    tries = short[best_range[0] : best_range[1]]
    by_size = False
    if best >= limits.tries:
        _, scatter = spread([item.up + item.down for item in tries])
        by_size = scatter < limits.max_spread
    failed = _most_within(failures, limits.window_s)
    by_failure = failed >= limits.tries
    if not by_size and not by_failure:
        return False
    count = max(best if by_size else 0, failed if by_failure else 0)
    tries = tries or found
    grade = graded(count, (limits.tries, "medium"), (limits.tries_high, "high"), (limits.tries_critical, "critical"))
    assert grade is not None
    typical = spread([item.up + item.down for item in tries])[0]
    after = [
        item
        for item in found
        if item.start > tries[-1].start
        and (item.last - item.start > limits.short_s * SECOND or item.up + item.down > 5 * typical + 5000)
    ]
    if after:
        grade = raised(grade)
    out.add(
        "security.brute_force",
        grade,
        0.8 if by_failure else 0.5,
        f"Password guessing against {st.address_text(target)}:{port}",
        f"{st.address_text(source)} logged in {len(found):,} times at {st.address_text(target)}:{port}"
        + (f", {failed:,} logins failed" if failed else "")
        + (f"; {best} alike within {short_s((tries[-1].start - tries[0].start) / SECOND)}" if by_size else "")
        + ("; then a session unlike them: the guess may have succeeded." if after else "."),
        frames=[item.frame for item in tries][: st.frames_cap],
        count=count,
        first_ns=tries[0].start,
        last_ns=found[-1].last,
        last_frame=found[-1].last_frame,
        source=source,
        target=target,
        port=port,
        evidence={"tries": best, "failures": failed, "port": port, "possible_success": bool(after)},
        threshold={"tries": limits.tries, "window_s": limits.window_s, "spread": limits.max_spread},
        signals=[
            *(["failures"] if by_failure else []),
            *(["alike"] if by_size else []),
            *(["success"] if after else []),
        ],
        advice="security.brute_force",
        group="security",
    )
    return True


def _most_within(failures: list[tuple[int, int]], window_s: float) -> int:
    """The most failures of connections that began within one window; they are (start, failures)."""
    failures.sort()
    best = running = low = 0
    for start, count in failures:
        running += count
        while start - failures[low][0] > window_s * SECOND:
            running -= failures[low][1]
            low += 1
        best = max(best, running)
    return best


def _http(st: State, out: Findings) -> set[bytes]:
    limits = st.settings.brute_force
    guessers = set()
    for (source, target), row in st.http.authentication.items():
        times = row[4]
        best, low = 0, 0
        for high in range(len(times)):
            while times[high][0] - times[low][0] > limits.window_s * SECOND:
                low += 1
            best = max(best, high - low + 1)
        if row[0] > len(times) and best == len(times):
            best = row[0]
        # A refusal is how a server asks for the password: only those that no login followed are guesses.
        best = min(best, row[0] - _CHALLENGES * st.http.accepted.get((source, target), 0))
        grade = graded(best, (limits.tries, "medium"), (limits.tries_high, "high"), (limits.tries_critical, "critical"))
        if grade is None:
            continue
        guessers.add(source)
        port = split_key(row[5].key)[3]
        out.add(
            "security.brute_force",
            grade,
            0.8,
            f"Password guessing against the web server {st.address_text(target)}",
            f"{st.address_text(target)} refused {row[0]:,} requests of {st.address_text(source)} (401 or 403).",
            frames=[frame for _, frame in times],
            count=row[0],
            first_ns=row[1],
            last_ns=row[2],
            source=source,
            target=target,
            port=port,
            evidence={"failures": row[0], "port": port},
            threshold={"tries": limits.tries, "window_s": limits.window_s},
            signals=["http-401-403"],
            advice="security.brute_force",
            group="security",
        )
    return guessers


def lateral(st: State, out: Findings, suspects: set[bytes]) -> None:
    """Report sources that reach ever new hosts of the network on administration ports."""
    limits = st.settings.lateral
    reached: dict[bytes, list[Session]] = defaultdict(list)
    tried: dict[bytes, list[Session]] = defaultdict(list)
    known: dict[bytes, set[bytes]] = defaultdict(set)
    local = membership(st)
    begin = (st.first_ns or 0) + SECOND
    for session in sessions(st, ports=MOVE_PORTS):
        if not local(session.source) or not local(session.target):
            continue
        if not session.syn or session.start < begin:
            known[session.source].add(session.target)  # a fan-out that was there from the start is steady
        if session.syn and session.target not in known[session.source]:
            tried[session.source].append(session)
            # A monitor that only reads the greeting does not move.
            if session.established and session.up >= _MIN_TRY.get(session.port, _MIN_REPLY):
                reached[session.source].append(session)
    for source, found in tried.items():
        targets = _most(reached.get(source, []), limits.window_s)
        attempts = _most(found, limits.window_s)
        if len(targets) < limits.targets and len(attempts) < limits.tried:
            continue
        if not reached.get(source):
            continue  # only failures: that is a scan and reported as one
        chosen = targets if len(targets) >= limits.targets else attempts
        grade = graded(len(chosen), (0, "medium"), (limits.targets_high, "high")) or "medium"
        if source in suspects:
            grade = "critical"
        frames = sorted(item.frame for item in chosen.values())
        times = [item.start for item in chosen.values()]
        out.add(
            "security.lateral",
            grade,
            0.5,
            f"{st.address_text(source)} moves between hosts",
            f"{st.address_text(source)} opened sessions to {len(targets):,} hosts of the network it had not used before"
            f" ({len(attempts):,} tried) within {short_s(limits.window_s)}.",
            frames=frames,
            first_ns=min(times),
            last_ns=max(times),
            source=source,
            evidence={
                "targets": len(targets),
                "tried": len(attempts),
                "ports": sorted({item.port for item in chosen.values()}),
            },
            threshold={"targets": limits.targets, "tried": limits.tried, "window_s": limits.window_s},
            signals=["new-targets"],
            advice="security.lateral",
            group="security",
        )


def _most(found: list[Session], window_s: float) -> dict[bytes, Session]:
    """The largest set of distinct targets within a window: first session to each."""
    found = sorted(found, key=lambda item: item.start)
    best: dict[bytes, Session] = {}
    for low in range(min(len(found), 2000)):
        current: dict[bytes, Session] = {}
        for item in found[low : low + 500]:
            if item.start - found[low].start > window_s * SECOND:
                break
            current.setdefault(item.target, item)
        if len(current) > len(best):
            best = current
    return best
