"""The batch loop: every packet of a block, in one function.

It is one long function on purpose. A call, an attribute or an object per packet costs more than the work itself, so
state lives in locals, a direction of a flow is a list read by constant positions, and the two usual segments (data at
exactly the expected sequence number, an ACK that advances) are dealt with in place. Everything else goes to
`tcp.segment`, one call further.

`run(buffer, records, state)` is the seam: a native helper that fills the same state could take its place.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from gateway.analysis.applications import feed
from gateway.analysis.decode import decode
from gateway.analysis.flows import (
    APP,
    APP_NEXT,
    BYTES,
    CONN,
    HALF,
    HEAD,
    KNOWN,
    LA,
    LAST,
    LAST_FRAME,
    MASK,
    MAX_FLIGHT,
    NORM,
    NSEQ,
    NSEQ_TIME,
    OLD,
    OUT,
    PACKETS,
    PAYLOAD,
    REV,
    ROLL,
    RTTS,
    SCALED,
    SEGMENTS,
    SHIFT,
    SIGNATURE,
    SPAN,
    TIGHT,
    VLAN,
    WIN,
    WMAX,
    WMIN,
)
from gateway.analysis.handshake import established, opening, opening_syn
from gateway.analysis.icmp import too_big
from gateway.analysis.link import DECODED
from gateway.analysis.tcp import roll, segment
from gateway.analysis.udp import datagram

if TYPE_CHECKING:
    from gateway.analysis.records import Record
    from gateway.analysis.state import State

# From the ethertype on: type, version, header length and TOS together, total length, id, fragment, protocol, addresses
# and ports together as the key, then the TCP fields up to the checksum (for UDP: length and checksum where the sequence
# number is).
_IPV4 = struct.Struct(">IHHHxBxx12sIIHHH").unpack_from
# The same for IPv6 without extension headers, whose type and version were read by the above.
_IPV6 = struct.Struct(">6xHBx36sIIHHH").unpack_from
# Bytes from the ethertype to the end of a TCP header without options; a datagram of ten bytes is as long.
_ROOM4, _ROOM6 = 42, 62
# Where the ethertype is in each link type that ends with one; elsewhere no packet is long enough for the short path.
_ETHERTYPE_AT = {1: 12, 113: 14}
_NOWHERE = 1 << 40
_MAX_SAMPLES = 4096
_NOTHING = (0, -1)  # in place of an unacknowledged segment: never sent


def run(buf: bytes, records: list[Record], st: State) -> None:
    """Take all records of one buffer into the tables of `st`.

    What a packet adds to the totals of its protocol is not counted here one by one: all packets of the block less those
    that went another way are the plain TCP over IPv4.
    """
    unpack4, unpack6 = _IPV4, _IPV6
    find = st.tcp.get
    interfaces = st.interfaces
    before = [_ETHERTYPE_AT.get(item.linktype, _NOWHERE) for item in interfaces]
    wire_total, previous = st.wire_bytes, st.last_ns
    wire_begun = wire_total
    bin_high = st.bin_high
    interface_counts = [0] * len(interfaces)
    interface_counts[0] = len(records)
    first_at = before[0]
    # Packets and bytes that are not plain TCP over IPv4
    others = other_bytes = plain_udp = plain_udp_bytes = plain6 = plain6_bytes = 0
    decapsulate = st.decapsulate
    watch = st.watch_mtu
    decoded_frame = 0
    if st.first_ns is None:
        st.first_ns = previous = records[0][3]
    for frame, (start, end, wire, t, interface) in enumerate(records, st.frame + 1):
        wire_total += wire
        if end - start != wire:
            if end - start < wire:
                st.cut += 1
                st.cut_frame = st.cut_frame or frame
            st.captured_bytes += end - start - wire
        if not previous <= t < bin_high:  # the packet before was in the running bin
            if t < previous:
                st.backwards += 1
                if previous - t > st.backwards_ns:
                    st.backwards_ns = previous - t
                if st.backwards == 1:
                    st.notes.add("clock-backwards", "the clock runs backwards between two packets", None, frame, 0)
            if not st.bin_low <= t < bin_high:
                _next_bin(st, t, previous, frame, wire_total - wire)
                bin_high = st.bin_high
        previous = t
        if interface:
            interface_counts[interface] += 1
            interface_counts[0] -= 1
            at = start + before[interface]
        else:
            at = start + first_at
        # Each layout leaves the same names: the TCP header is at `at` + 22, `total` counts an IPv4 header of 20 bytes.
        if end - at >= _ROOM4:
            kind, total, ip_id, fragment, protocol, key, seq, ack, of, win, checksum = unpack4(buf, at)
        else:
            kind = protocol = fragment = 0
        if protocol == 6 and kind >> 8 == 0x080045 and not fragment & 0x3FFF:
            shape = of & 0xFFF7
        elif (
            protocol == 17
            and kind >> 8 == 0x080045
            and not fragment & 0x3FFF
            and 8 <= seq >> 16 <= total - 20
            and not decapsulate
        ):
            plain_udp += 1
            plain_udp_bytes += wire
            datagram(st, key, buf, start, at + 22, end, (seq >> 16) - 8, wire, t, frame, 0, buf[at + 10])
            continue
        elif kind >> 12 == 0x86DD6 and end - at >= _ROOM6 and buf[at + 8] == 6 and buf[at + 54] >= 0x50:
            total, protocol, key, seq, ack, of, win, checksum = unpack6(buf, at)
            plain6 += 1
            plain6_bytes += wire
            shape = of & 0xFFF7
            total += 20
            at += 20
            ip_id = 0
        else:
            others += 1
            other_bytes += wire
            linktype = interfaces[interface].linktype
            if linktype not in DECODED:
                st.undecoded += 1
                st.count(st.link, interfaces[interface].linktype_name, wire)
                continue
            decoded = decode(st, buf, start, end, wire, t, linktype, frame)
            watch = st.watch_mtu
            if decoded is None:
                continue
            key, seq, ack, of, win, ip_id, checksum, length, ttl, vlan, header = decoded
            decoded_frame = frame
            shape = of & 0xFFF7 | vlan << 16
            total = length + 20 + (of >> 10 & 0x3C)
            at = header - 22
        d = find(key)
        if d is not None and shape == d[NORM] and seq == d[NSEQ] and win:
            r = d[REV]
            acked = d[LA]
            length = total - d[HEAD]
            moved = ack - acked
            # Where an acknowledgement has wrapped and the data have not, the comparison fails and `tcp` takes over;
            # where only the data have, NORM forbids this path.
            if moved:
                waiting = r[NSEQ] - acked
                usual = 0 < moved <= waiting and length >= 0
            else:
                usual = length > 0
            if usual and length:
                stop = seq + length
                flight = stop - r[LA]
                if flight >= r[SPAN] or length == 1:
                    if flight == r[SCALED] or (length == 1 and not r[WIN] > 0):
                        usual = False
                    elif r[SPAN] <= flight < r[SCALED]:
                        d[TIGHT] += 1
            if usual:
                d[BYTES] += wire
                if watch:
                    too_big(st, key, wire, t, frame)
                if t >= d[ROLL]:
                    roll(d, t, st, frame)
                if moved:
                    if waiting > r[MAX_FLIGHT]:
                        r[MAX_FLIGHT] = waiting
                    d[LA] = ack
                    out = r[OUT]
                    if out:
                        entry = out[-1]
                        if entry[0] == ack:
                            out.clear()
                            r[OLD] = entry
                        else:
                            count = 0
                            for entry in out:
                                if (ack - entry[0] & MASK) >= HALF:
                                    break
                                count += 1
                            entry = _NOTHING
                            if count:
                                r[OLD] = entry = out[count - 1]
                                del out[:count]
                        trip = t - entry[1]
                        if trip >= 0 and entry[1] >= 0:
                            samples = r[RTTS]
                            if samples is None:
                                r[RTTS] = array("Q", (trip,))
                            elif len(samples) < _MAX_SAMPLES:
                                samples.append(trip)
                            else:
                                samples[st.random(_MAX_SAMPLES)] = trip
                if win != d[WIN]:
                    d[WIN] = win
                    d[SCALED] = scaled = win << d[SHIFT]
                    if d[KNOWN]:
                        d[SPAN] = scaled - scaled // 10
                    if win < d[WMIN]:
                        d[WMIN] = win
                    elif win > d[WMAX]:
                        d[WMAX] = win
                if length:
                    d[NSEQ] = stop
                    d[NSEQ_TIME] = t
                    d[PAYLOAD] += length
                    d[SEGMENTS] = count = d[SEGMENTS] + 1
                    out = d[OUT]
                    out.append((stop, t, frame, ip_id, checksum, t, 1))
                    if not count & 255 and len(out) > 512:
                        del out[:256]
                    app = d[APP]
                    if app:
                        if app == 2:
                            ahead = stop - d[APP_NEXT]
                            if (ahead > 0 or ahead < -HALF) and 0 < ahead & MASK < HALF:
                                app = 1
                        elif app > 2 and (position := at + 22 + (of >> 10 & 0x3C)) < end and buf[position] == app:
                            app = 1
                        if app == 1:
                            feed(st, d, buf, at + 22 + (of >> 10 & 0x3C), end, seq, length, t, frame)
                else:
                    d[PACKETS] += 1
                    d[SIGNATURE] = (ip_id, checksum, t, of, seq, ack)
                d[LAST] = t
                d[LAST_FRAME] = frame
                continue
        header = at + 22
        length = total - 20 - (of >> 10 & 0x3C)
        if length < 0 or of < 0x5000:  # joined before it was recorded, or wrong
            others += 1
            other_bytes += wire
            if kind >> 12 == 0x86DD6:
                plain6 -= 1
                plain6_bytes -= wire
            decoded = decode(st, buf, start, end, wire, t, interfaces[interface].linktype, frame)
            if decoded is None:
                continue
            length = decoded.length
        if decoded_frame != frame:
            vlan = 0
            ttl = buf[at - 11 if kind >> 12 == 0x86DD6 else at + 10]
        if d is None or of & 2 or d[VLAN] != vlan:
            if d is not None and d[VLAN] != vlan:
                if d[VLAN] < 0:
                    d[VLAN] = vlan
                else:
                    key += vlan.to_bytes(2, "big")
                    d = find(key)
            if (
                d is None
                and of & 0x3F == 2
                and not length
                and opening_syn(
                    st,
                    key,
                    frame,
                    t,
                    seq,
                    win,
                    ip_id,
                    checksum,
                    ttl,
                    vlan,
                    wire,
                    buf[header + 20 : header + (of >> 10 & 0x3C)],
                    start,
                )
            ):
                continue
            d = opening(
                st, key, d, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, vlan, wire,
                buf, start, header + 20, end,
            )  # fmt: skip
            if d is None:
                continue
        d[PACKETS] += 1
        d[BYTES] += wire
        if watch:
            too_big(st, key, wire, t, frame)
        if t >= d[ROLL]:
            roll(d, t, st, frame)
        if segment(st, d, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, buf, header + 20, end):
            app = d[APP]
            if app and (app != 2 or 0 < (seq + length - d[APP_NEXT] & MASK) < HALF):
                position = header + (of >> 10 & 0x3C)
                if app < 3 or (position < end and buf[position] == app):
                    feed(st, d, buf, position, end, seq, length, t, frame)
        if of & 0x10 and d[CONN].ack_time is None:
            established(st, d, t, frame, ack, of & 0x3F)
        d[LAST] = t
        d[LAST_FRAME] = frame
    plain4 = len(records) - others - plain_udp - plain6
    plain4_bytes = wire_total - wire_begun - other_bytes - plain_udp_bytes - plain6_bytes
    st.frame, st.wire_bytes, st.last_ns = st.frame + len(records), wire_total, previous
    for index, count in enumerate(interface_counts):
        interfaces[index].packets += count
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


def _next_bin(st: State, t: int, previous: int, frame: int, wire_before: int) -> None:
    """Close the running bin of the time series and open the one `t` falls into."""
    if frame > 1:
        number = st.bin_low // st.bin_ns
        row = st.bins.get(number)
        packets, octets = frame - 1 - st.bin_frame, wire_before - st.bin_bytes
        if row is None:
            st.bins[number] = [packets, octets, st.bin_frame + 1]
        else:
            row[0] += packets
            row[1] += octets
        silence = t - previous
        if silence > st.pause_ns and len(st.pauses) < 100:
            st.pauses.append((silence, frame - 1, frame))
    st.bin_frame, st.bin_bytes = frame - 1, wire_before
    st.max_ns = max(st.max_ns, t, previous)
    if len(st.bins) > 20_000:
        st.bin_ns *= 2
        merged: dict[int, list[int]] = {}
        for number, (packets, octets, first) in st.bins.items():
            row = merged.setdefault(number // 2, [0, 0, first])
            row[0] += packets
            row[1] += octets
        st.bins = merged
    st.bin_low = t // st.bin_ns * st.bin_ns
    st.bin_high = st.bin_low + st.bin_ns


def close(st: State) -> None:
    """Close the running bin when the file has ended."""
    _next_bin(st, st.last_ns, st.last_ns, st.frame + 1, st.wire_bytes)
    st.bin_low, st.bin_high = 1, 0
