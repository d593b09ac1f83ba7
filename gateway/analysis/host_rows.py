"""Hosts and pairs of hosts by traffic; live flows are added to what was folded."""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from gateway.analysis.fold import (
    HOST_ANSWERED,
    HOST_FLOWS,
    HOST_RX,
    HOST_RX_BYTES,
    HOST_SYN,
    HOST_TX,
    HOST_TX_BYTES,
    add_traffic,
    attempt_traffic,
    split_key,
)
from gateway.analysis.measures import is_local
from gateway.analysis.sessions import attempts
from gateway.analysis.udp import U_BYTES, U_PACKETS

if TYPE_CHECKING:
    from gateway.analysis.report import HostRow, PairRow
    from gateway.analysis.state import State

_ROWS = 20
_MAX_PAIRS = 20_000


def add_live_flows(st: State) -> list[PairRow]:
    """Add the flows still in the tables to the host counters (once, at the end) and return the largest pairs."""
    pairs: dict[tuple[bytes, bytes], list[int]] = {}
    hosts = st.hosts

    def take(key: bytes, sent: int, received: int, sent_bytes: int, received_bytes: int) -> list[Any] | None:
        source, target, _, _ = split_key(key)
        own, other = hosts.get(source), hosts.get(target)
        if own is None or other is None:
            own = add_traffic(st, source, target, sent, received, sent_bytes, received_bytes)
        else:  # the same in place: nearly all hosts are met again and again
            own[HOST_TX] += sent
            own[HOST_RX] += received
            own[HOST_TX_BYTES] += sent_bytes
            own[HOST_RX_BYTES] += received_bytes
            own[HOST_FLOWS] += 1
            other[HOST_TX] += received
            other[HOST_RX] += sent
            other[HOST_TX_BYTES] += received_bytes
            other[HOST_RX_BYTES] += sent_bytes
            other[HOST_FLOWS] += 1
        if target < source:
            name = (target, source)
            sent_bytes, received_bytes = received_bytes, sent_bytes
        else:
            name = (source, target)
        row = pairs.get(name)
        if row is not None:
            row[0] += sent + received
            row[1] += sent_bytes
            row[2] += received_bytes
            row[3] += 1
        elif len(pairs) < _MAX_PAIRS:
            pairs[name] = [sent + received, sent_bytes, received_bytes, 1]
        return own

    for conn in st.connections:
        orig, resp = conn.orig, conn.resp
        row = take(
            conn.key,
            0 if orig is None else orig.packets,
            0 if resp is None else resp.packets,
            0 if orig is None else orig.bytes,
            0 if resp is None else resp.bytes,
        )
        if row is not None and conn.syn_frame is not None:
            row[HOST_SYN] += 1
            row[HOST_ANSWERED] += conn.syn_ack_time is not None
    for flow in st.udp_flows:
        up, down = flow.orig, flow.resp
        take(
            flow.key,
            0 if up is None else up[U_PACKETS],
            0 if down is None else down[U_PACKETS],
            0 if up is None else up[U_BYTES],
            0 if down is None else down[U_BYTES],
        )
    for key, half in attempts(st):
        row = take(key, *attempt_traffic(half))
        if row is not None:
            row[HOST_SYN] += 1
            row[HOST_ANSWERED] += half[11] is not None
    total = max(1, st.wire_bytes)
    largest = heapq.nlargest(_ROWS, pairs.items(), key=lambda item: (item[1][1] + item[1][2], item[0]))
    return [
        {
            "a": st.address_text(a),
            "b": st.address_text(b),
            "packets": row[0],
            "a_to_b_bytes": row[1],
            "b_to_a_bytes": row[2],
            "flows": row[3],
            "share": (row[1] + row[2]) / total,
        }
        for (a, b), row in largest
    ]


def build(st: State) -> list[HostRow]:
    """The hosts with most bytes, and one row for the rest of them."""
    names: dict[bytes, list[str]] = {}
    for address, name in st.dns.addresses.items():
        names.setdefault(address, []).append(name)
    for conn in st.connections:
        if conn.name is not None:
            known = names.setdefault(split_key(conn.key)[1], [])
            if conn.name not in known and len(known) < 5:
                known.append(conn.name)
    macs = {address: next(iter(row[0])).hex(":") for address, row in st.arp.addresses.items() if len(row[0]) == 1}
    total = max(1, st.wire_bytes)
    largest = heapq.nlargest(
        _ROWS, st.hosts.items(), key=lambda item: (item[1][HOST_TX_BYTES] + item[1][HOST_RX_BYTES], item[0])
    )
    rows: list[HostRow] = [
        {
            "host": st.address_text(address),
            "names": names.get(address, [])[:5],
            "mac": macs.get(address),
            "local": is_local(address),
            "tx_packets": row[HOST_TX],
            "rx_packets": row[HOST_RX],
            "tx_bytes": row[HOST_TX_BYTES],
            "rx_bytes": row[HOST_RX_BYTES],
            "flows": row[HOST_FLOWS],
            "share": (row[HOST_TX_BYTES] + row[HOST_RX_BYTES]) / total,
            "syn_sent": row[HOST_SYN],
            "syn_answered": row[HOST_ANSWERED],
        }
        for address, row in largest
    ]
    shown = {address for address, _ in largest}
    rest = [row for address, row in st.hosts.items() if address not in shown]
    if rest or st.hosts_rest:
        sums = [sum(map(itemgetter(index), rest)) for index in range(HOST_ANSWERED + 1)]
        rows.append(
            {
                "host": f"{len(rest)} others" + (" and more not counted apart" if st.hosts_rest else ""),
                "names": [],
                "mac": None,
                "local": False,
                "tx_packets": sums[HOST_TX],
                "rx_packets": sums[HOST_RX],
                "tx_bytes": sums[HOST_TX_BYTES],
                "rx_bytes": sums[HOST_RX_BYTES],
                "flows": sums[HOST_FLOWS],
                "share": (sums[HOST_TX_BYTES] + sums[HOST_RX_BYTES]) / total,
                "syn_sent": sums[HOST_SYN],
                "syn_answered": sums[HOST_ANSWERED],
            }
        )
    return rows
