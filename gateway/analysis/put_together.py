"""TCP segments that came in IP fragments: their length and their flags are known once the last piece is there.

They are told at the frame of the last piece, as tshark does. A scanner that hides its flags in tiny fragments is seen
like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.analysis.applications import feed
from gateway.analysis.flows import HALF, MASK
from gateway.analysis.handshake import established, opening
from gateway.analysis.tcp import roll, segment

if TYPE_CHECKING:
    from gateway.analysis.state import State


def segment_of(
    st: State,
    whole: bytes,
    addresses: bytes,
    ttl: int,
    ip_id: int,
    vlan: int,
    start: int,
    wire: int,
    t: int,
    frame: int,
) -> None:
    """Take a whole TCP segment between two addresses; `start` and `wire` are of the record with its last piece."""
    st.count(st.transport, "TCP", wire)
    end = len(whole)
    of = whole[12] << 8 | whole[13] if end >= 20 else 0
    data = (of >> 12) * 4
    if of < 0x5000 or data > end:
        st.malform(frame, "l4")
        return
    key = addresses + whole[:4]
    seq, ack = int.from_bytes(whole[4:8], "big"), int.from_bytes(whole[8:12], "big")
    win, checksum = whole[14] << 8 | whole[15], whole[16] << 8 | whole[17]
    length = end - data
    d = st.tcp.get(key)
    if d is not None and d.vlan != vlan:
        if d.vlan < 0:
            d.vlan = vlan
        else:
            key += vlan.to_bytes(2, "big")
            d = st.tcp.get(key)
    if d is None or of & 2:
        d = opening(
            st, key, d, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, vlan, wire, whole, start, 20, end
        )
        if d is None:
            return
    d.packets += 1
    d.bytes += wire
    if t >= d.roll:
        roll(d, t, st, frame)
    new = segment(st, d, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, whole, 20, end)
    app = d.app
    wanted = app == 1 or (app == 2 and 0 < (seq + length - d.app_next & MASK) < HALF)
    if new and (wanted or (app > 2 and data < end and whole[data] == app)):
        feed(st, d, whole, data, end, seq, length, t, frame)
    if of & 0x10 and d.conn.ack_time is None:
        established(st, d, t, frame, ack, of & 0x3F)
    d.last = t
    d.last_frame = frame
