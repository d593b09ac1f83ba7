"""One view of every TCP attempt and connection, whether it stayed an attempt or became a connection.

The detectors read sessions; they never see packets, nor whether a table held a tuple or a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, NamedTuple

from gateway.analysis.flows import Connection
from gateway.analysis.fold import split_key
from gateway.analysis.tcp import unacked

if TYPE_CHECKING:
    from gateway.analysis.state import State


class Session(NamedTuple):
    """A TCP attempt or connection; `state` is a conn_state letter group of Zeek's."""

    frame: int
    source: bytes
    target: bytes
    port: int
    start: int
    last: int
    last_frame: int
    up: int
    down: int
    state: str
    answered: bool
    established: bool
    syn: bool
    flags: int
    connection: Connection | None


def conn_state(conn: Connection) -> str:
    """The end state of a connection in Zeek's letters."""
    orig, resp = conn.orig, conn.resp
    reset = conn.reset
    if conn.syn_frame is None and conn.syn_ack_time is None:
        if reset is not None and reset[3] != "after FIN":
            return "RSTO" if reset[0] else "RSTR"
        return "OTH"
    if conn.syn_ack_time is None:
        if reset is not None:
            return "RSTOS0" if reset[0] else "REJ"
        if orig is not None and orig.fin is not None:
            return "SH"
        return "S0"
    if conn.syn_frame is None and orig is None:
        return "RSTRH" if reset is not None else "SHR"
    ends = (orig is not None and orig.fin is not None, resp is not None and resp.fin is not None)
    if reset is not None and ends != (True, True):
        return "RSTO" if reset[0] else "RSTR"
    if ends == (True, True):
        return "SF"
    if ends[0]:
        return "S2"
    if ends[1]:
        return "S3"
    return "S1"


def all_connections(st: State) -> Iterator[Connection]:
    """Every connection still in the tables."""
    return iter(st.connections)


def of_connection(conn: Connection) -> Session:
    """A connection as a session; made once, for a dozen detectors ask."""
    if conn.session is None:
        conn.session = _of_connection(conn)
    session: Session = conn.session
    return session


def _of_connection(conn: Connection) -> Session:
    orig, resp = conn.orig, conn.resp
    source, target, _, port = split_key(conn.key)
    last, last_frame, up, down = conn.time, conn.frame, 0, 0
    if orig is not None:
        last, last_frame, up = orig.last, orig.last_frame, orig.payload
    if resp is not None:
        down = resp.payload
        if resp.packets and resp.last >= last:
            last, last_frame = resp.last, max(last_frame, resp.last_frame)
    answered = conn.syn_ack_time is not None or (conn.syn_frame is None and bool(down))
    established = conn.ack_frame is not None or bool(
        orig is not None and resp is not None and orig.segments + resp.segments and answered
    )
    return Session(
        conn.frame, source, target, port, conn.time, last, last_frame, up, down, conn_state(conn),
        answered, established, conn.syn_frame is not None, conn.first_flags, conn,
    )  # fmt: skip


def of_attempt(key: bytes, half: tuple[object, ...]) -> Session:
    """An attempt that never became a connection as a session."""
    source, target, _, port = split_key(key)
    start, frame = half[0], half[1]
    assert isinstance(start, int)
    assert isinstance(frame, int)
    repeats, answer, refusal = half[10], half[11], half[12]
    if refusal is answer is None and not repeats:  # one SYN and nothing else, as a flood has them
        return Session(
            frame, source, target, port, start, start, frame, 0, 0, "S0", False, False, True, 2, None
        )  # fmt: skip
    last, last_frame = start, frame
    if isinstance(repeats, tuple) and repeats:
        last, last_frame = repeats[-1]
    if isinstance(answer, tuple):
        last, last_frame = max(last, answer[0]), max(last_frame, answer[11])
    state = "S0" if answer is None else "S1H"
    if isinstance(refusal, tuple):
        last, last_frame = refusal[0], refusal[1]
        state = "RSTOS0" if not refusal[2] else "REJ"
    return Session(
        frame, source, target, port, start, last, last_frame, 0, 0, state, answer is not None, False, True, 2, None
    )


def attempts(st: State) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    """Every attempt still in the tables, with its key."""
    yield from st.old_half
    yield from st.half.items()


def attempts_by_source(st: State) -> Counter[bytes]:
    """How many connections and attempts that began with a SYN each source has."""
    counts = Counter(key[:4] if len(key) < 36 else key[:16] for key, _ in attempts(st))
    counts.update(session.source for session in map(of_connection, st.connections) if session.syn)
    return counts


def sessions(
    st: State, sources: Container[bytes] | None = None, ports: Container[int] | None = None
) -> Iterator[Session]:
    """Every session still in the tables, connections first; only those of the given sources and to the given ports.

    Asking for few is much faster: after a flood there are sixty thousand attempts.
    """
    for conn in all_connections(st):
        session = of_connection(conn)
        if (sources is None or session.source in sources) and (ports is None or session.port in ports):
            yield session
    for key, half in attempts(st):
        at = 4 if len(key) < 36 else 16
        if sources is not None and key[:at] not in sources:
            continue
        if ports is not None and int.from_bytes(key[2 * at + 2 : 2 * at + 4], "big") not in ports:
            continue
        yield of_attempt(key, half)


def is_zombie(conn: Connection, idle_s: float, limit_s: float) -> bool:
    """Whether a connection fell silent with data unacknowledged and was never closed."""
    if idle_s <= limit_s or conn.reset is not None:
        return False
    return any(d is not None and unacked(d) > 0 for d in (conn.orig, conn.resp))
