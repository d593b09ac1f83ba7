"""Folding: when a table is full, its oldest entries become counters of their hosts and of the services they tried.

What the detectors need of a folded flow is kept in a small bounded form: tries by source (scans), sessions by
source, target and
port (brute force, beacons), packets and bytes by host.
"""

from __future__ import annotations

import heapq
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.flows import Connection, reverse_key, settle

if TYPE_CHECKING:
    from gateway.analysis.state import State

HOST_TX, HOST_RX, HOST_TX_BYTES, HOST_RX_BYTES, HOST_FLOWS, HOST_SYN, HOST_ANSWERED, HOST_TRIES = range(8)
# Folded tries of one source
F_COUNT, F_FAILED, F_FIRST, F_LAST, F_FIRST_FRAME, F_LAST_FRAME, F_TARGETS, F_PORTS = range(8)

_SPLIT4: Final = struct.Struct(">4s4sHH").unpack_from
_SPLIT6: Final = struct.Struct(">16s16sHH").unpack_from
_DISTINCT: Final = 1_024
_MAX_SESSION_KEYS: Final = 16_384
_MAX_SESSIONS: Final = 512


def split_key(key: bytes) -> tuple[bytes, bytes, int, int]:
    """Source, destination, source port, destination port of a flow key."""
    parts: tuple[bytes, bytes, int, int] = _SPLIT4(key) if len(key) < 36 else _SPLIT6(key)
    return parts


def host_row(st: State, address: bytes) -> list[Any] | None:
    """The counters of a host; None once the table is full, which is counted."""
    row = st.hosts.get(address)
    if row is None:
        if len(st.hosts) >= st.settings.tables.hosts:
            st.hosts_rest += 1
            return None
        row = st.hosts[address] = [0, 0, 0, 0, 0, 0, 0, None]
    return row


def add_traffic(
    st: State, source: bytes, destination: bytes, sent: int, received: int, sent_bytes: int, received_bytes: int
) -> list[Any] | None:
    """Add one flow's packets and bytes to both of its hosts; returns the row of the source, if it has one."""
    own = host_row(st, source)
    if own is not None:
        own[HOST_TX] += sent
        own[HOST_RX] += received
        own[HOST_TX_BYTES] += sent_bytes
        own[HOST_RX_BYTES] += received_bytes
        own[HOST_FLOWS] += 1
    row = host_row(st, destination)
    if row is not None:
        row[HOST_TX] += received
        row[HOST_RX] += sent
        row[HOST_TX_BYTES] += received_bytes
        row[HOST_RX_BYTES] += sent_bytes
        row[HOST_FLOWS] += 1
    return own


def fold_half(st: State) -> None:
    """Fold the oldest eighth of the attempts."""
    batch = max(1, st.settings.tables.half_open // 8)
    for key, half in st.old_half:
        fold_attempt(st, key, half)
    st.old_half.clear()
    table, hosts, most = st.half, st.hosts, st.settings.tables.hosts
    targets: dict[bytes, list[int]] = {}  # what the bare SYNs of this batch add to the row of their target
    bare = rest = 0
    for key, half in list(islice(table.items(), batch)):
        del table[key]
        source = key[:4]
        if half[12] is not half[11] or half[10] or len(key) != 12 or source in hosts:
            fold_attempt(st, key, half)
            continue
        # The flood of forged sources: one SYN of a source never seen before.
        bare += 1
        if len(hosts) < most:
            hosts[source] = [1, 0, half[9], 0, 1, 1, 0, None]
        else:
            rest += 1
        target = key[4:8]
        if target in targets:
            sums = targets[target]
            sums[0] += 1
            sums[1] += half[9]
        else:
            host_row(st, target)
            targets[target] = [1, half[9]]
    st.hosts_rest += rest
    st.folded += bare
    st.folded_half += bare
    for address, (count, octets) in targets.items():
        row = hosts.get(address)
        if row is None:
            st.hosts_rest += count - 1  # the first was counted above
            continue
        row[HOST_RX] += count
        row[HOST_RX_BYTES] += octets
        row[HOST_FLOWS] += count


def attempt_traffic(half: tuple[Any, ...]) -> tuple[int, int, int, int]:
    """Packets and bytes of an attempt: from the originator, from the responder."""
    sent, sent_bytes = 1 + len(half[10]), half[9]
    answer, refusal = half[11], half[12]
    if answer is refusal is None:
        return sent, 0, sent_bytes, 0
    received = received_bytes = 0
    if answer is not None:
        received, received_bytes = answer[10], answer[9]
    if refusal is not None:
        if refusal[2]:
            received, received_bytes = received + 1, received_bytes + refusal[4]
        else:
            sent, sent_bytes = sent + 1, sent_bytes + refusal[4]
    return sent, received, sent_bytes, received_bytes


def fold_attempt(st: State, key: bytes, half: tuple[Any, ...]) -> None:
    """Turn one attempt into counters."""
    st.folded += 1
    st.folded_half += 1
    source, destination, _, port = split_key(key)
    row = add_traffic(st, source, destination, *attempt_traffic(half))
    if row is None:
        return
    row[HOST_SYN] += 1
    answered = half[11] is not None
    row[HOST_ANSWERED] += answered
    if row[HOST_SYN] < 2:  # a source with a single try is no scanner, and a flood has half a million of them
        return
    tries = row[HOST_TRIES]
    if tries is None:
        tries = row[HOST_TRIES] = [0, 0, half[0], half[0], half[1], half[1], {}, {}]
    tries[F_COUNT] += 1
    tries[F_FAILED] += not answered
    tries[F_LAST], tries[F_LAST_FRAME] = half[0], half[1]
    for table, item in ((tries[F_TARGETS], destination), (tries[F_PORTS], port)):
        if item in table or len(table) < _DISTINCT:
            table[item] = table.get(item, 0) + 1


def fold_connections(st: State) -> None:
    """Fold a sixteenth of the connections: first those whose ports were taken over, then closed ones, then the idle."""
    batch = max(1, st.settings.tables.flows // 16)
    chosen: list[Connection] = st.closed[:batch]
    del st.closed[:batch]
    if len(chosen) < batch:
        taken = set(map(id, chosen))
        candidates = [conn for conn in st.connections if id(conn) not in taken and not conn.reused]
        newest = candidates.pop() if candidates else None
        chosen += heapq.nsmallest(batch - len(chosen), candidates, key=_age)
        del newest
    gone = set(map(id, chosen))
    for conn in chosen:
        _fold_connection(st, conn)
    st.connections = type(st.connections)(conn for conn in st.connections if id(conn) not in gone)


def _age(conn: Connection) -> tuple[bool, int]:
    last, closed = conn.time, conn.reset is not None
    both = 0
    for d in (conn.orig, conn.resp):
        if d is not None:
            last = max(last, d.last)
            both += d.fin is not None
    return not (closed or both == 2), last


def _fold_connection(st: State, conn: Connection) -> None:
    st.folded += 1
    orig, resp = conn.orig, conn.resp
    if not conn.reused:
        st.tcp.pop(conn.key, None)
        st.tcp.pop(reverse_key(conn.key), None)
    counts = [0, 0, 0, 0]
    for index, d in enumerate((orig, resp)):
        if d is not None:
            settle(d)
            counts[index], counts[index + 2] = d.packets, d.bytes
            d.rev = None
    source, destination, _, port = split_key(conn.key)
    row = add_traffic(st, source, destination, *counts)
    if row is not None and conn.syn_frame is not None:
        row[HOST_SYN] += 1
        row[HOST_ANSWERED] += conn.syn_ack_time is not None
    if conn.syn_ack_time is None:
        return
    name = (source, destination, port)
    sessions = st.folded_sessions.get(name)
    if sessions is None:
        if len(st.folded_sessions) >= _MAX_SESSION_KEYS:
            return
        sessions = st.folded_sessions[name] = []
    if len(sessions) < _MAX_SESSIONS:
        last = max(d.last for d in (orig, resp) if d is not None)
        up = orig.payload if orig is not None else 0
        down = resp.payload if resp is not None else 0
        sessions.append((conn.time, last, up, down, conn.frame))


def fold_udp(st: State) -> None:
    """Fold the oldest sixteenth of the UDP flows by last datagram."""
    batch = max(1, st.settings.tables.flows // 16)
    candidates = list(st.udp_flows)
    candidates.pop()  # the one being made
    chosen = heapq.nsmallest(batch, candidates, key=lambda flow: flow.orig[4] if flow.orig is not None else flow.time)
    gone = set(map(id, chosen))
    for flow in chosen:
        st.folded += 1
        st.udp.pop(flow.key, None)
        st.udp.pop(reverse_key(flow.key), None)
        counts = [0, 0, 0, 0]
        for index, d in enumerate((flow.orig, flow.resp)):
            if d is not None:
                counts[index], counts[index + 2] = d[2], d[3]
                d[0] = None
        source, destination, _, _ = split_key(flow.key)
        add_traffic(st, source, destination, *counts)
    st.udp_flows = type(st.udp_flows)(flow for flow in st.udp_flows if id(flow) not in gone)
