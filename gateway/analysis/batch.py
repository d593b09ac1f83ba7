"""The batch loop: every packet of a block, in one function.

It is one long function on purpose. A call, an attribute or an object per packet costs more than the work itself, so
state lives in locals, a direction of a flow is an object with slots, and the two usual segments (data at
exactly the expected sequence number, an ACK that advances) are dealt with in place. Everything else goes to
`tcp.segment`, one call further.

Where the helper in machine code is there, it takes TCP over plain IPv4 and IPv6 and most datagrams over IPv4 first (see
`native`), by the same rules and in the order of this loop, which sees the other packets only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.analysis.applications import App, Payload, feed
from gateway.analysis.decode import decode
from gateway.analysis.dns import ParentStats, parent_of
from gateway.analysis.flows import HALF, MASK, NOBODY, RESENT, Direction, round_trips, slow_trip
from gateway.analysis.handshake import established, opening, opening_syn
from gateway.analysis.http import PROBES, Conversation
from gateway.analysis.icmp import too_big
from gateway.analysis.link import DECODED
from gateway.analysis.native import bind, taken, unusual
from gateway.analysis.tcp import roll, segment
from gateway.analysis.udp import PORTS, UdpFlow, close_second, datagram, read

if TYPE_CHECKING:
    from gateway.analysis.records import Block
    from gateway.analysis.state import State

# Of an Ethernet frame: ethertype, version and header length, total length, id, fragment, protocol, addresses and ports
# together as the key, then the TCP fields up to the checksum (for UDP: length and checksum where the sequence number
# is). Bytes are cheaper than words: the interpreter keeps all numbers below 257.
_IPV4 = "HBxHHHxBxx12sIIBBHH"
# The same for IPv6 without extension headers, whose type and version were read by the above.
_IPV6 = "6xHBx36sIIBBHH"
# Bytes from the ethertype to the TCP header, and to the end of one without options; a datagram of ten bytes is as long.
_TCP4, _TCP6 = 22, 42
_ROOM4, _ROOM6 = 42, 62
# Where the ethertype is in each link type that ends with one; elsewhere no packet is long enough for the short path.
_ETHERTYPE_AT = {1: 12, 113: 14}
_NOWHERE = 1 << 40
_MAX_SAMPLES = 4096
_NOTHING = (0, RESENT)  # in place of an unacknowledged segment: it gives no round trip


def _layouts(before: int) -> tuple[Callable[[bytes, int], tuple[Any, ...]], Callable[[bytes, int], tuple[Any, ...]]]:
    """Readers of both kinds of packet for a link type with `before` bytes before its ethertype."""
    return struct.Struct(f">{before}x{_IPV4}").unpack_from, struct.Struct(f">{before}x{_IPV6}").unpack_from


_LAYOUTS = {before: _layouts(before) for before in _ETHERTYPE_AT.values()}
bind(
    *(opening_syn, opening, segment, established, roll, feed, slow_trip),
    *(PORTS, UdpFlow, read, close_second, parent_of, ParentStats),
    *(App, Payload, Conversation, PROBES),
)


def run(block: Block, st: State) -> None:
    """Take all records of a block into the tables of `st`.

    What a packet adds to the totals of its protocol is not counted here one by one: all packets of the block less those
    that went another way are the plain TCP over IPv4.
    """
    buf, records = block.buffer, block.records
    linktype = block.interface.linktype
    before = _ETHERTYPE_AT.get(linktype)
    if before is None:
        before, room = 0, _NOWHERE
        unpack4, unpack6 = _LAYOUTS[12]
    else:
        room = before + _ROOM4
        unpack4, unpack6 = _LAYOUTS[before]
    ttl4, options4, protocol6, offset6 = before + 10, before + _ROOM4, before + 8, before + 54
    find, nobody = st.tcp.get, NOBODY
    st.base = block.base
    # Packets and bytes that are not plain TCP over IPv4
    others = other_bytes = plain_udp = plain_udp_bytes = plain6 = plain6_bytes = 0
    decapsulate = st.decapsulate
    watch = st.watch_mtu
    rest = unusual(block, before if room != _NOWHERE else -1, st)
    for frame, (start, end, wire, t) in rest:
        # Each layout leaves the same names; `total` counts an IPv4 header of 20 bytes, `doff` is the byte of the TCP
        # header's length, with the VLAN above it. `kind` tells afterwards where the TCP header begins.
        if end - start >= room:
            kind, version, total, ip_id, fragment, protocol, key, seq, ack, doff, flags, win, checksum = unpack4(
                buf, start
            )
        else:
            kind = protocol = 0
        if protocol == 6 and version == 0x45 and kind == 0x0800 and (fragment == 0x4000 or not fragment & 0x3FFF):
            d = find(key, nobody)
        elif (
            protocol == 17
            and version == 0x45
            and kind == 0x0800
            and not fragment & 0x3FFF
            and 8 <= seq >> 16 <= total - 20
            and not decapsulate
        ):
            plain_udp += 1
            plain_udp_bytes += wire
            at = start + before + _TCP4
            datagram(st, key, buf, start, at, end, (seq >> 16) - 8, wire, t, frame, 0, buf[at - 12])
            continue
        elif (
            kind == 0x86DD
            and version >> 4 == 6
            and end - start >= room + _ROOM6 - _ROOM4
            and buf[start + protocol6] == 6
            and buf[start + offset6] >= 0x50
        ):
            total, protocol, key, seq, ack, doff, flags, win, checksum = unpack6(buf, start)
            plain6 += 1
            plain6_bytes += wire
            total += 20
            ip_id = 0
            d = find(key, nobody)
        else:
            others += 1
            other_bytes += wire
            if linktype not in DECODED:
                st.undecoded += 1
                st.count(st.link, block.interface.linktype_name, wire)
                continue
            decoded = decode(st, buf, start, end, wire, t, linktype, frame)
            watch = st.watch_mtu
            if decoded is None:
                continue
            key, seq, ack, of, win, ip_id, checksum, length, ttl, vlan, header = decoded
            kind = 0
            doff, flags = of >> 8 | vlan << 8, of & 0xFF
            total = length + 20 + (of >> 10 & 0x3C)
            d = find(key, nobody)
        if doff == d.norm and seq == d.nseq and (flags == 16 or flags == 24) and win:
            acked = d.la
            length = total - d.head
            # Where an acknowledgement has wrapped and the data have not, the comparison fails and `tcp` takes over;
            # where only the data have, `norm` forbids this path.
            if ack == acked:
                moved = False
                usual = length > 0
            else:
                moved = True
                r = d.rev
                waiting = r.nseq
                usual = acked < ack <= waiting and length >= 0
            if usual and length:
                stop = seq + length
                if stop >= d.edge or length == 1:
                    r = d.rev
                    flight = stop - r.la
                    if flight == r.scaled or (length == 1 and not r.win > 0):
                        usual = False
                    elif r.span <= flight < r.scaled:
                        d.tight += 1
            if usual:
                d.bytes += wire
                if watch:
                    too_big(st, key, wire, t, frame)
                if t >= d.roll:
                    roll(d, t, st, frame)
                if win != d.win:
                    d.win = win
                    d.scaled = scaled = win << d.shift
                    if d.known:
                        d.span = scaled - scaled // 10
                    if win < d.wmin:
                        d.wmin = win
                    elif win > d.wmax:
                        d.wmax = win
                    d.rev.edge = ack + d.span
                if moved:
                    waiting -= acked
                    if waiting > r.max_flight:
                        r.max_flight = waiting
                    d.la = ack
                    r.edge = ack + d.span
                    out = r.out
                    if out:
                        entry = out[-1]
                        if entry[0] == ack:
                            out.clear()
                            r.old = entry
                        else:
                            count = 0
                            for entry in out:
                                if (ack - entry[0] & MASK) >= HALF:
                                    break
                                count += 1
                            entry = _NOTHING
                            if count:
                                r.old = entry = out[count - 1]
                                del out[:count]
                        trip = t - entry[1]
                        if trip >= 0:
                            samples = r.rtts
                            if samples is None:
                                round_trips(r).append(trip)
                            elif len(samples) < _MAX_SAMPLES:
                                samples.append(trip)
                            else:
                                samples[st.random(_MAX_SAMPLES)] = trip
                            if trip > r.slow_from:
                                slow_trip(r, trip, t, frame, st.spike_ns, st.frames_cap)
                if length:
                    d.nseq = stop
                    d.nseq_time = t
                    d.segments = count = d.segments + 1
                    out = d.out
                    out.append((stop, t, frame, ip_id, checksum, t, 1))
                    if not count & 255 and len(out) > 512:
                        del out[:256]
                    app = d.app
                    if app:
                        if app == 2:
                            ahead = stop - d.app_next
                            if (ahead > 0 or ahead < -HALF) and 0 < ahead & MASK < HALF:
                                app = 1
                        if app != 2:
                            if kind == 0x0800:
                                header = start + before + _TCP4
                            elif kind:
                                header = start + before + _TCP6
                            position = header + (doff >> 2 & 0x3C)
                            if app == 1 or (position < end and buf[position] == app):
                                feed(st, d, buf, position, end, seq, length, t, frame)
                else:
                    d.packets += 1
                    d.signature = (ip_id, checksum, t, doff << 8 & 0xFF00 | flags, seq, ack)
                d.last = t
                d.last_frame = frame
                continue
        known: Direction | None = d
        if d is nobody:
            # A first SYN, as a flood has half a million of them, is told apart at once.
            if (
                flags == 2
                and kind == 0x0800
                and total - 20 == doff >> 2 >= 20
                and start + before + 2 + total <= end
                and opening_syn(
                    st,
                    key,
                    frame,
                    t,
                    seq,
                    win,
                    ip_id << 16 | checksum,
                    buf[start + ttl4],
                    wire,
                    buf[start + options4 : start + ttl4 + total - 8],
                    start,
                )
            ):
                continue
            known = None
        if kind == 0x0800:
            header = start + before + _TCP4
            vlan, ttl = 0, buf[header - 12]
        elif kind:
            header = start + before + _TCP6
            vlan, ttl = 0, buf[header - 33]
        if kind:
            of = doff << 8 | flags
        length = total - 20 - (of >> 10 & 0x3C)
        if kind and (length < 0 or of < 0x5000):  # joined before it was recorded, or wrong
            others += 1
            other_bytes += wire
            if kind == 0x86DD:
                plain6 -= 1
                plain6_bytes -= wire
            decoded = decode(st, buf, start, end, wire, t, linktype, frame)
            if decoded is None:
                continue
            length = decoded.length
        if known is None or of & 2 or known.vlan != vlan:
            if known is not None and known.vlan != vlan:
                if known.vlan < 0:
                    known.vlan = vlan
                else:
                    key += vlan.to_bytes(2, "big")
                    known = find(key)
            known = opening(
                st, key, known, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, vlan, wire,
                buf, start, header + 20, end,
            )  # fmt: skip
            if known is None:
                continue
            d = known
        d.packets += 1
        d.bytes += wire
        if watch:
            too_big(st, key, wire, t, frame)
        if t >= d.roll:
            roll(d, t, st, frame)
        if segment(st, d, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, buf, header + 20, end):
            app = d.app
            if app and (app != 2 or 0 < (seq + length - d.app_next & MASK) < HALF):
                position = header + (of >> 10 & 0x3C)
                if app < 3 or (position < end and buf[position] == app):
                    feed(st, d, buf, position, end, seq, length, t, frame)
        if of & 0x10 and d.conn.ack_time is None:
            established(st, d, t, frame, ack, of & 0x3F)
        d.last = t
        d.last_frame = frame
    packets6, bytes6, datagrams, datagram_bytes = taken(rest)
    plain6 += packets6
    plain6_bytes += bytes6
    plain_udp += datagrams
    plain_udp_bytes += datagram_bytes
    plain4 = len(records) - others - plain_udp - plain6
    plain4_bytes = block.wire_bytes - other_bytes - plain_udp_bytes - plain6_bytes
    st.frame += len(records)
    for table, name, packets, octets in (
        (st.network, "IPv4", plain4 + plain_udp, plain4_bytes + plain_udp_bytes),
        (st.network, "IPv6", plain6, plain6_bytes),
        (st.transport, "TCP", plain4 + plain6, plain4_bytes + plain6_bytes),
        (st.transport, "UDP", plain_udp, plain_udp_bytes),
    ):
        if packets:
            row = table.setdefault(name, [0, 0])
            row[0] += packets
            row[1] += octets
