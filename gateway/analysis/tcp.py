"""Rules for every TCP segment that is not on the short path of the batch loop.

Two things are said about a late segment. Its *label* follows tshark's definitions, so that the two can be compared. Its
*evidence* comes from what was seen: the bytes lie in ranges seen before (`seen-range`, a retransmission for certain),
or they fall into a hole (`hole-fill`, lost or reordered upstream of the capture; IP ids, timestamps and timing decide
which), or partly both. Copies of a packet that the capture recorded twice take no part in any rule.

An unacknowledged segment is a tuple (end, time or RESENT if sent twice, frame, IP id, checksum, last time,
transmissions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.analysis.flows import (
    HALF,
    MASK,
    NEVER,
    RESENT,
    Connection,
    Direction,
    Trouble,
    payload_of,
    round_trips,
    slow_trip,
    trouble_of,
)

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND = 1_000_000_000
_MAX_HOLES = 64
_MAX_OUT = 256
_MAX_SAMPLES = 4096
_MAX_GAPS = 16
_MAX_RESENT = 64
# Positions in an entry of `Trouble.resent`; its first two are where it begins and ends
_R_FRAME, _R_TIME, _R_STAMP, _R_IP_ID, _R_NEEDLESS = range(2, 7)
_KNOWN_NEEDLESS, _REPORTED = 1, 2  # besides 0: nothing speaks against it; by the ranges; by the receiver


def segment(
    st: State,
    d: Direction,
    frame: int,
    t: int,
    seq: int,
    ack: int,
    of: int,
    win: int,
    length: int,
    ip_id: int,
    checksum: int,
    ttl: int,
    buf: bytes,
    options: int,
    end_of_packet: int,
) -> bool:
    """Apply the rules to one segment of direction `d`; `of` is the field of header length and flags.

    `options` is where the TCP options begin in `buf`. Returns whether the payload is new and may be looked at.
    """
    flags = of & 0x3F
    sfr = flags & 7
    rst = flags & 4
    extra = 1 if flags & 3 else 0
    r: Direction | None = d.rev
    conn: Connection = d.conn
    if d.nseq is not None and d.nseq > MASK:
        _wrap(d)
    if r is not None and r.nseq is not None and r.nseq > MASK:
        _wrap(r)
    nseq: int | None = d.nseq
    la: int | None = d.la
    end = seq + length + extra & MASK
    payload = d.payload + (nseq or 0) + length
    if (
        nseq is not None
        and 0 <= t - d.last < st.duplicate_ns
        and _copy(st, d, t, frame, seq, ack, end, length, of, ip_id, checksum, ttl)
    ):
        return False
    stamp: int | None = None
    blocks: list[tuple[int, int]] | None = None
    if of >= 0x6000:
        stamp, blocks = _options(buf, options, min(options + ((of >> 12) - 5) * 4, end_of_packet))
    if d.shape < 0 and not sfr:
        stamped = stamp is not None and of >> 12 == 8
        d.shape = d.vlan << 8 | (0x80 if stamped else 0x50)
        d.head = 52 if stamped else 40
    if r is None:
        _first_way(st, d, conn, frame, t, seq, ack, of, win, length, end, stamp, ip_id, checksum)
        return length > 0

    # 1 to 8: what the segment says about windows, gaps and acknowledgements
    probe = keepalive = goes_on = False
    lost_before = 0
    r_la: int | None = r.la
    here = nseq is not None and seq == nseq
    same_ack = la is not None and ack == la
    scaled_same = win == d.win
    if length == 1 and here and r.win == 0 and r_la is not None:
        probe = True
        trouble_of(d).probes += 1
        st.label("zero_window_probe", conn, frame, t)
    else:
        if win == 0 and not sfr:
            trouble_of(d).zero_count += 1
            st.label("zero_window", conn, frame, t)
            if d.zero_since is None:
                d.zero_since = (t, frame)
        if nseq is not None and not here:
            ahead = seq - nseq & MASK
            if ahead < HALF and not rst:
                lost_before = ahead
                trouble_of(d).lost += 1
                st.label("lost_segment", conn, frame, t)
            if length <= 1 and ahead == MASK and not sfr:
                keepalive = True
                trouble_of(d).keepalives += 1
                st.label("keep_alive", conn, frame, t)
        if length == 0 and here and not sfr:
            if win and not scaled_same and same_ack:
                st.label("window_update", conn, frame, t)
            if win and scaled_same and same_ack and r.keepalive:
                st.label("keep_alive_ack", conn, frame, t)
                goes_on = True
            elif not win and scaled_same and r.probe and la is not None and ack in (la, (la + 1) & MASK):
                st.label("zero_window_probe_ack", conn, frame, t)
                goes_on = True
            elif win and scaled_same and same_ack:
                d.dup += 1
                trouble_of(d).duplicate_acks += 1
                st.label("duplicate_ack", conn, frame, t)
        elif length and not sfr and r.known and r_la is not None and not goes_on:
            room = r_la + r.scaled - (seq + length) & MASK
            if r.span != NEVER:
                if room == 0:
                    trouble_of(d).full += 1
                    st.label("window_full", conn, frame, t)
                if room <= r.scaled - r.span:
                    d.tight += 1
    # 9
    if not same_ack:
        d.dup = 0
    # 10: acknowledgement of what the capture never saw
    if flags & 0x10 and r.nseq is not None:
        _acknowledged(st, d, r, conn, frame, t, ack, blocks, stamp)
    # 11
    fresh = True
    if (length or extra) and not keepalive and nseq is not None:
        late = 0 < (nseq - seq & MASK) < HALF and not (length > 1 and seq == (nseq - 1) & MASK)
        spurious = bool(length) and r_la is not None and (r_la - seq - length & MASK) < HALF
        if spurious or late:
            filled = _late(st, d, r, conn, frame, t, seq, end, length, extra, spurious, stamp, ip_id, checksum)
            fresh = filled or not late
        elif length and not probe and not rst:
            _sent(d, r, seq, end, t, frame, ip_id, checksum)
    elif length and nseq is None and not rst:
        if r_la is not None and (r_la - seq - length & MASK) < HALF:
            # Acknowledged before the recording began, and sent again as the first that is seen of its sender
            trouble = trouble_of(d)
            trouble.spurious += 1
            trouble.labelled += 1
            trouble.unknown += 1
            st.evidence["unknown"] += 1
            st.label("spurious_retransmission", conn, frame, t)
            st.label("retransmission", conn, frame, t)
        _sent(d, r, seq, end, t, frame, ip_id, checksum)
    # 12
    # A SYN behind a stray packet of an older connection begins anew: nothing is missing in between.
    if lost_before and nseq is not None and not flags & 2:
        _open_hole(st, d, nseq, seq, frame, t, stamp, ip_id)
    if nseq is None:
        if not rst:
            d.nseq = end
            d.nseq_time = t
            d.base = seq
    elif not probe and not rst and 0 < (end - nseq & MASK) < HALF:
        d.nseq = end
        d.nseq_time = t
    _remember_window(d, conn, frame, t, flags, ack, win)
    d.keepalive = keepalive
    d.probe = probe
    if length:
        d.segments += 1
        d.packets -= 1
    elif not sfr:
        d.signature = (ip_id, checksum, t, of, seq, ack)
    d.payload = payload - (d.nseq or 0)
    if sfr:
        _control(st, d, r, conn, frame, t, seq, flags, ttl, nseq)
        d.signature = (ip_id, checksum, t, of, seq, ack)
    if r.la is not None:
        d.edge = r.la + r.span
    if d.la is not None:
        r.edge = d.la + d.span
    unseen = d.la is not None and r.nseq is not None and 0 < (d.la - r.nseq & MASK) < HALF
    care = (
        r.nseq is None
        or d.la is None  # a SYN sent again in the middle of a connection
        or r.la is None
        or d.nseq is None
        or d.nseq < r.la  # its numbers have wrapped, those acknowledged have not
        or d.dup
        or flags & 2  # the next window is to be scaled, even if its field is the same
        or keepalive
        or probe
        or d.holes
        or r.holes
        or d.zero_since
        or unseen
        or r.recover
    )
    d.norm = -1 if care else d.shape
    if d.holes or unseen or d.recover or keepalive or probe:
        r.norm = -1
    return fresh and length > 0 and not keepalive and not probe


def _wrap(d: Direction) -> None:
    """Bring a sequence number that the short path let run past 2^32 back, and that of its segment."""
    d.nseq &= MASK
    d.payload += MASK + 1
    d.norm = -1  # until the acknowledgements have wrapped as well
    out = d.out
    if out and out[-1][0] > MASK:
        out[-1] = (out[-1][0] & MASK, *out[-1][1:])
    if d.old is not None and d.old[0] > MASK:
        d.old = (d.old[0] & MASK, *d.old[1:])


def _first_way(
    st: State,
    d: Direction,
    conn: Connection,
    frame: int,
    t: int,
    seq: int,
    ack: int,
    of: int,
    win: int,
    length: int,
    end: int,
    stamp: int | None,
    ip_id: int,
    checksum: int,
) -> None:
    """A segment of a connection of which the other direction has not been seen: only gaps and repeats can be told."""
    nseq = d.nseq
    payload = payload_of(d) + length
    flags = of & 0x3F
    sfr = flags & 7
    if win == 0 and not sfr:
        trouble_of(d).zero_count += 1
        st.label("zero_window", conn, frame, t)
    if nseq is None:
        if not flags & 4:
            d.nseq = end
            d.nseq_time = t
            d.base = seq
            if length:
                d.out.append((end, t, frame, ip_id, checksum, t, 1))
    else:
        ahead = seq - nseq & MASK
        keepalive = length <= 1 and seq == (nseq - 1) & MASK and not sfr
        if keepalive:
            trouble_of(d).keepalives += 1
            st.label("keep_alive", conn, frame, t)
        elif length == 0 and ahead == 0 and not sfr and win and ack == d.la:
            if win != d.win:
                st.label("window_update", conn, frame, t)
            else:
                d.dup += 1
                trouble_of(d).duplicate_acks += 1
                st.label("duplicate_ack", conn, frame, t)
        if not flags & 4:
            if 0 < ahead < HALF:
                trouble_of(d).lost += 1
                st.label("lost_segment", conn, frame, t)
                _open_hole(st, d, nseq, seq, frame, t, stamp, ip_id)
            elif ahead >= HALF and (length or flags & 3) and not keepalive:
                if not (length > 1 and seq == (nseq - 1) & MASK):
                    extra = 1 if flags & 3 else 0
                    _late(st, d, None, conn, frame, t, seq, end, length, extra, False, stamp, ip_id, checksum)
            elif length:
                _append_out(d, (end, t, frame, ip_id, checksum, t, 1))
            if 0 < (end - nseq & MASK) < HALF:
                d.nseq = end
                d.nseq_time = t
        if ack != d.la:
            d.dup = 0
    _remember_window(d, conn, frame, t, flags, ack, win)
    d.payload = payload - (d.nseq or 0)
    if length:
        d.segments += 1
        d.packets -= 1
    else:
        d.signature = (ip_id, checksum, t, of, seq, ack)
    if sfr:
        _control(st, d, None, conn, frame, t, seq, flags, d.ttl, nseq)


def _copy(
    st: State,
    d: Direction,
    t: int,
    frame: int,
    seq: int,
    ack: int,
    end: int,
    length: int,
    of: int,
    ip_id: int,
    checksum: int,
    ttl: int,
) -> bool:
    """Whether this, soon after the packet before, is the same packet recorded again: by a span port, by two interfaces,
    before and behind a router.
    """
    if length == 0:
        signature = d.signature
        if (
            signature is None
            or not (ip_id or of >= 0x8000)  # without an id, timestamps among the options make the checksum tell
            or signature[0] != ip_id
            or signature[1] != checksum
            or signature[3:] != (of, seq, ack)
            or t - signature[2] >= st.duplicate_ns
        ):
            return False
    else:
        if d.nseq is None or 0 < (end - d.nseq & MASK) < HALF or not _sent_just_now(st, d, t, end, ip_id, checksum):
            return False
    st.copied(frame, t)
    if ttl != d.ttl:
        st.router_duplicates += 1
    return True


def _sent_just_now(st: State, d: Direction, t: int, end: int, ip_id: int, checksum: int) -> bool:
    """Whether a segment with this end, IP id and checksum was sent a moment ago and is not acknowledged, or just was.

    All are looked through: a bridge, or two interfaces, may record a whole burst before its copies.
    """
    if not (ip_id or checksum):
        return False
    for entry in (d.old, *reversed(d.out)):
        if entry is None or entry[0] != end or entry[3] != ip_id or entry[4] != checksum:
            continue
        if 0 <= t - entry[5] < st.duplicate_ns:
            return True
    return False


def _options(buf: bytes, position: int, end: int) -> tuple[int | None, list[tuple[int, int]] | None]:
    """The timestamp value and the SACK blocks among TCP options (RFC 7323, RFC 2018)."""
    stamp: int | None = None
    blocks: list[tuple[int, int]] | None = None
    while position < end:
        kind = buf[position]
        if kind == 0:
            break
        if kind == 1:
            position += 1
            continue
        if position + 1 >= end:
            break
        size = buf[position + 1]
        if size < 2 or position + size > end:
            break
        if kind == 8 and size == 10:
            stamp = int.from_bytes(buf[position + 2 : position + 6], "big")
        elif kind == 5 and size >= 10:
            blocks = [
                (int.from_bytes(buf[at : at + 4], "big"), int.from_bytes(buf[at + 4 : at + 8], "big"))
                for at in range(position + 2, position + size - 7, 8)
            ]
        position += size
    return stamp, blocks


def _acknowledged(
    st: State,
    d: Direction,
    r: Direction,
    conn: Connection,
    frame: int,
    t: int,
    ack: int,
    blocks: list[tuple[int, int]] | None,
    stamp: int | None,
) -> None:
    """What an ACK of `d` says about the data of `r`: captured at all, round trip, selective acknowledgements."""
    beyond = ack - r.nseq & MASK
    if 0 < beyond < HALF:
        known = r.acked if r.acked is not None and 0 < (r.acked - r.nseq & MASK) < HALF else r.nseq
        more = ack - known & MASK
        # Who answers a bare SYN with any other number than its own speaks of an older connection (RFC 5961 section 4).
        stray = conn.syn_ack_time is None and r.isn is not None and not r.segments
        if 0 < more < 1 << 30 and not stray:
            r.acked = ack
            st.drop_proved(conn, frame, t, more)
            trouble = trouble_of(r)
            trouble.ack_unseen += 1
            trouble.missing_bytes += more
    holes = r.holes
    if holes:
        kept = []
        for hole in holes:
            if 0 < (ack - hole[0] & MASK) < HALF:
                stop = hole[1] if (ack - hole[1] & MASK) < HALF else ack
                missing = stop - hole[0] & MASK
                st.drop_proved(conn, frame, t, missing)
                trouble = trouble_of(r)
                trouble.ack_unseen += 1
                trouble.missing_bytes += missing
                if stop != hole[1]:
                    hole[0] = stop
                    kept.append(hole)
            else:
                kept.append(hole)
        r.holes = kept or None
    out = r.out
    count = 0
    for entry in out:
        if (ack - entry[0] & MASK) >= HALF:
            break
        count += 1
    if count:
        entry = out[count - 1]
        repeated = entry[1] == RESENT if count == 1 else any(item[1] == RESENT for item in out[:count])
        if repeated:
            st.karn += 1
        elif t - entry[1] >= 0:
            samples = round_trips(r)
            trip = t - entry[1]
            if len(samples) < _MAX_SAMPLES:
                samples.append(trip)
            else:
                samples[st.random(_MAX_SAMPLES)] = trip
            if trip > r.slow_from:
                slow_trip(r, trip, t, frame, st.spike_ns, st.frames_cap)
        r.old = entry
        del out[:count]
    recover = r.recover
    if recover is not None and (ack - recover & MASK) < HALF:
        r.recover = None
    if blocks:
        _selective(r, conn, ack, blocks)
    elif r.trouble is not None:
        r.trouble.sack_high = None
        r.trouble.blocks = []


def _selective(r: Direction, conn: Connection, ack: int, blocks: list[tuple[int, int]]) -> None:
    trouble = trouble_of(r)
    trouble.sack_blocks += 1
    first = blocks[0]
    if (ack - first[1] & MASK) < HALF or (
        len(blocks) > 1 and (first[0] - blocks[1][0] & MASK) < HALF and (blocks[1][1] - first[1] & MASK) < HALF
    ):
        trouble.dsack += 1
        blocks = blocks[1:]
        for entry in reversed(trouble.resent):
            covers = (entry[0] - first[0] & MASK) < HALF and (first[1] - entry[1] & MASK) < HALF
            if covers and entry[_R_NEEDLESS] != _REPORTED:
                # One that was known to be needless is what this report is about, and no other.
                if not entry[_R_NEEDLESS]:
                    _needless(r, conn, trouble, entry)
                entry[_R_NEEDLESS] = _REPORTED
                break
    high: int | None = None
    for _, right in blocks:
        if high is None or (right - high & MASK) < HALF:
            high = right
    before = trouble.sack_high
    fell = high is not None and before is not None and before != high and (before - high & MASK) < HALF
    if fell and before is not None and (before - ack & MASK) < HALF:
        trouble.reneged += 1
    trouble.sack_high = high
    trouble.blocks = blocks


def _needless(d: Direction, conn: Connection, trouble: Trouble, entry: list[Any]) -> None:
    """A retransmission turned out to have brought nothing: its frame is no sign of loss any longer."""
    entry[_R_NEEDLESS] = _KNOWN_NEEDLESS
    trouble.needless += 1
    way = "up" if d is conn.orig else "down"
    frame = entry[_R_FRAME]
    events = conn.events or {}
    for kind in ("sent-again-" + way, "lost-before-" + way):
        row = events.get(kind)
        if row is None or frame not in row[4]:
            continue
        row[0] -= 1
        row[4].remove(frame)
        if not row[4]:
            del events[kind]
            continue
        # The first and the last frame of what is left: both are as young as this one, and so among the newest.
        times = {other[_R_FRAME]: other[_R_TIME] for other in trouble.resent}
        row[1] = times.get(row[4][0], row[1])
        if row[2] == frame:
            row[2], row[3] = row[4][-1], times.get(row[4][-1], row[3])
    before = events.get("needless-" + way)
    last = (before[2], before[3]) if before is not None else (frame, entry[_R_TIME])
    conn.event("needless-" + way, frame, entry[_R_TIME])
    row = (conn.events or {})["needless-" + way]
    row[1] = min(row[1], entry[_R_TIME])  # told in the order of the reports, which is not that of the frames
    row[2], row[3] = max(last, (frame, entry[_R_TIME]))
    row[4].sort()


def _resent(trouble: Trouble, seq: int, end: int, frame: int, t: int, stamp: int | None, ip_id: int) -> list[Any]:
    """Remember a retransmission, for later packets may say that it was needless."""
    resent = trouble.resent
    if len(resent) >= _MAX_RESENT:
        del resent[: _MAX_RESENT // 2]
    entry = [seq, end, frame, t, stamp, ip_id, 0]
    resent.append(entry)
    return entry


def _original(trouble: Trouble, seq: int, end: int, stamp: int | None, ip_id: int) -> list[Any] | None:
    """The retransmission that overtook this segment: it holds the same bytes, and was sent later."""
    for entry in reversed(trouble.resent):
        if (seq - entry[0] & MASK) < HALF and (entry[1] - end & MASK) < HALF:
            if stamp is not None and entry[_R_STAMP] is not None and stamp != entry[_R_STAMP]:
                return entry if (stamp - entry[_R_STAMP] & MASK) >= HALF else None
            behind = entry[_R_IP_ID] - ip_id & 0xFFFF
            return entry if ip_id and entry[_R_IP_ID] and 0 < behind < 0x400 else None
    return None


def _late(
    st: State,
    d: Direction,
    r: Direction | None,
    conn: Connection,
    frame: int,
    t: int,
    seq: int,
    end: int,
    length: int,
    extra: int,
    spurious: bool,
    stamp: int | None,
    ip_id: int,
    checksum: int,
) -> bool:
    """Label a segment that brings bytes from before the highest one seen; returns whether it filled a hole."""
    trouble = trouble_of(d)
    since_ack = t - r.last if r is not None else -1
    since_new = t - d.nseq_time
    soon = conn.opened_in or st.unknown_irtt_ns
    if spurious:
        trouble.spurious += 1
        st.label("spurious_retransmission", conn, frame, t)
    elif r is not None and r.dup >= 2 and seq == r.la and 0 <= since_ack < st.fast_window_ns:
        trouble.fast += 1
        st.label("fast_retransmission", conn, frame, t)
    elif 0 <= since_new < soon and end != d.nseq:
        trouble.out_of_order += 1
        st.label("out_of_order", conn, frame, t)
        return _evidence(st, d, r, conn, trouble, frame, t, seq, length, False, stamp, ip_id, checksum)
    trouble.labelled += 1
    st.label("retransmission", conn, frame, t)
    return _evidence(st, d, r, conn, trouble, frame, t, seq, length, spurious, stamp, ip_id, checksum)


def _evidence(
    st: State,
    d: Direction,
    r: Direction | None,
    conn: Connection,
    trouble: Trouble,
    frame: int,
    t: int,
    seq: int,
    length: int,
    spurious: bool,
    stamp: int | None,
    ip_id: int,
    checksum: int,
) -> bool:
    if not length:
        return False
    base = d.base
    holes = d.holes
    data_end = seq + length & MASK
    inside = overlap = None
    if holes:
        for hole in holes:
            if (seq - hole[0] & MASK) < HALF and (hole[1] - data_end & MASK) < HALF:
                inside = hole
                break
            if 0 < (data_end - hole[0] & MASK) < HALF and 0 < (hole[1] - seq & MASK) < HALF:
                overlap = hole
    if inside is not None:
        trouble.hole_fills += 1
        st.evidence["hole-fill"] += 1
        if _reordered(d, conn, inside, t, stamp, ip_id, st):
            trouble.reordered += 1
            conn.event("reordered-up" if d is conn.orig else "reordered-down", frame, t, st.frames_cap)
            st.note("reordered", frame)
        else:
            trouble.retransmitted += 1
            trouble.retransmitted_bytes += length
            conn.event("lost-before-up" if d is conn.orig else "lost-before-down", frame, t, st.frames_cap)
            _cause(st, d, r, conn, trouble, frame, t, seq, data_end, spurious=False, fill=inside)
            _resent(trouble, seq, data_end, frame, t, stamp, ip_id)
        _fill(d, inside, seq, data_end)
        _append_sorted(d, (data_end, RESENT, frame, ip_id, checksum, t, 1))
        return True
    if base is not None and (seq - base & MASK) >= HALF:
        # Before the first packet of this direction: nothing is known of what came there.
        st.evidence["unknown"] += 1
        trouble.unknown += 1
        if (base - data_end & MASK) < HALF:
            d.base = seq
        return False
    overtaker = _original(trouble, seq, data_end, stamp, ip_id) if overlap is None else None
    if overtaker is not None:
        # What was sent first comes after what was sent again: neither was lost.
        st.evidence["seen-range"] += 1
        trouble.reordered += 1
        conn.event("reordered-up" if d is conn.orig else "reordered-down", frame, t, st.frames_cap)
        st.note("reordered", frame)
        if not overtaker[_R_NEEDLESS]:
            _needless(d, conn, trouble, overtaker)
        return False
    if overlap is not None:
        st.evidence["overlap"] += 1
        trouble.overlap += 1
        _fill(d, overlap, seq, data_end)
    else:
        st.evidence["seen-range"] += 1
        trouble.seen_again += 1
    trouble.retransmitted += 1
    trouble.retransmitted_bytes += length
    conn.event("sent-again-up" if d is conn.orig else "sent-again-down", frame, t, st.frames_cap)
    cause = _cause(st, d, r, conn, trouble, frame, t, seq, data_end, spurious=spurious, fill=None)
    entry = _resent(trouble, seq, data_end, frame, t, stamp, ip_id)
    if cause == "spurious":
        _needless(d, conn, trouble, entry)
    if d.recover is None or (data_end - d.recover & MASK) < HALF:
        d.recover = data_end
    return overlap is not None


def _reordered(
    d: Direction, conn: Connection, hole: list[Any], t: int, stamp: int | None, ip_id: int, st: State
) -> bool:
    """Whether a segment that fills a hole was overtaken on the way (else it was lost and sent again)."""
    if stamp is not None and hole[4] is not None and stamp != hole[4]:
        # The sender stamps each transmission: a younger stamp than that of the overtaker means sent again.
        return bool((stamp - hole[4] & MASK) >= HALF)
    if ip_id and hole[5] and ip_id != hole[5]:
        # Ids rise by one with each packet of most senders; a large distance says they do not here.
        behind = hole[5] - ip_id & 0xFFFF
        if behind < 0x400:
            return True
        if behind > 0xFC00:
            return False
    samples = d.rtts
    round_trip = conn.irtt or 0
    if samples:
        round_trip = min(round_trip or samples[0], min(samples[:64]))
    if not round_trip:
        round_trip = st.unknown_irtt_ns
    return bool(0 <= t - hole[3] < round_trip * 9 // 10)


def _cause(
    st: State,
    d: Direction,
    r: Direction | None,
    conn: Connection,
    trouble: Trouble,
    frame: int,
    t: int,
    seq: int,
    end: int,
    *,
    spurious: bool,
    fill: list[Any] | None,
) -> str:
    """Why the sender sent these bytes again: duplicate ACKs, a timeout, a tail probe."""
    index = _find_out(d, end)
    entry = d.out[index] if index is not None else None
    sent_before = entry[5] if entry is not None else (fill[3] if fill is not None else d.nseq_time)
    attempts = entry[6] if entry is not None else 1
    delay = t - sent_before
    if delay > trouble.max_delay:
        trouble.max_delay = delay
    samples = d.rtts
    if samples:
        recent = samples[-8:]
        smooth = sum(recent) // len(recent)
        spread = sum(abs(item - smooth) for item in recent) // len(recent)
        timeout = max(SECOND // 5, smooth + 4 * spread)
    else:
        smooth = conn.irtt or 0
        timeout = SECOND if not smooth else max(SECOND // 5, 3 * smooth)
    sack_high = trouble.sack_high
    arrived = any((seq - left & MASK) < HALF and (right - end & MASK) < HALF for left, right in trouble.blocks)
    if spurious or arrived:
        cause = "spurious"
    elif r is not None and (r.dup >= 3 or (sack_high is not None and 0 < (sack_high - seq & MASK) < HALF)):
        cause = "fast"
    elif delay >= timeout * 9 // 10:
        cause = "rto-backoff" if attempts > 1 else "rto"
    elif smooth and end == d.nseq and delay * 2 >= smooth * 3:
        cause = "tail-probe"
    else:
        cause = "unknown"
    trouble.cause[cause] = trouble.cause.get(cause, 0) + 1
    if cause in ("rto", "rto-backoff"):
        conn.event("rto", frame, t, st.frames_cap)
    if index is not None and entry is not None:
        d.out[index] = (entry[0], RESENT, entry[2], entry[3], entry[4], t, attempts + 1)
    return cause


def _find_out(d: Direction, end: int) -> int | None:
    """Position in `out` of the segment that holds the byte before `end`; `out` is in order of sequence."""
    out = d.out
    low, high = 0, len(out)
    while low < high:
        middle = (low + high) // 2
        if 0 < (end - out[middle][0] & MASK) < HALF:
            low = middle + 1
        else:
            high = middle
    return low if low < len(out) else None


def _fill(d: Direction, hole: list[Any], seq: int, end: int) -> None:
    """Take [seq, end) out of a hole; the middle of one leaves two."""
    holes: list[list[Any]] = d.holes
    left = (seq - hole[0] & MASK) if (seq - hole[0] & MASK) < HALF else 0
    right = (hole[1] - end & MASK) if (hole[1] - end & MASK) < HALF else 0
    if left and right:
        rest = hole.copy()
        rest[0] = end
        hole[1] = seq
        if len(holes) < _MAX_HOLES:
            holes.append(rest)
    elif left:
        hole[1] = seq
    elif right:
        hole[0] = end
    else:
        holes.remove(hole)
        if not holes:
            d.holes = None


def _open_hole(
    st: State, d: Direction, start: int, end: int, frame: int, t: int, stamp: int | None, ip_id: int
) -> None:
    if (end - start & MASK) >= 1 << 30:
        return
    holes = d.holes
    if holes is None:
        holes = d.holes = []
    holes.append([start, end, frame, t, stamp, ip_id])
    if len(holes) > _MAX_HOLES:
        del holes[0]
        st.holes_dropped += 1


def _sent(d: Direction, r: Direction, seq: int, end: int, t: int, frame: int, ip_id: int, checksum: int) -> None:
    """Remember a new segment until it is acknowledged."""
    _append_out(d, (end, t, frame, ip_id, checksum, t, 1))
    if r.la is not None:
        flight = end - r.la & MASK
        if d.max_flight < flight < HALF:
            d.max_flight = flight


def _append_out(d: Direction, entry: tuple[int, ...]) -> None:
    out = d.out
    out.append(entry)
    if len(out) > 2 * _MAX_OUT:
        del out[:_MAX_OUT]


def _append_sorted(d: Direction, entry: tuple[int, ...]) -> None:
    """Put a segment that filled a hole where it belongs, so that `out` stays in order of sequence."""
    index = _find_out(d, entry[0])
    out = d.out
    if index is None:
        _append_out(d, entry)
    elif out[index][0] != entry[0]:
        out.insert(index, entry)


def _remember_window(d: Direction, conn: Connection, frame: int, t: int, flags: int, ack: int, win: int) -> None:
    if flags & 0x10:
        d.la = ack
    elif flags & 6:
        d.la = None
        if d.rev is not None:
            d.rev.norm = -1
    d.win = win  # as the field says: a change is a change of the field, in the SYN as elsewhere
    if flags & 2:
        d.scaled = win  # the window of a SYN is never scaled
        d.span = win - win // 10
        return
    scaled = win << d.shift
    d.scaled = scaled
    d.span = scaled - scaled // 10 if d.known else NEVER
    if not flags & 4:
        if win > d.wmax:
            d.wmax = win
        if win < d.wmin:
            d.wmin = win
        since = d.zero_since
        if since is not None and win:
            lasted = t - since[0]
            trouble = trouble_of(d)
            if lasted > 0:
                trouble.zero_time += lasted
                trouble.zero_longest = max(trouble.zero_longest, lasted)
            d.zero_since = None


def _control(
    st: State,
    d: Direction,
    r: Direction | None,
    conn: Connection,
    frame: int,
    t: int,
    seq: int,
    flags: int,
    ttl: int,
    nseq: int | None,
) -> None:
    """SYN, FIN and RST of a connection already in the table."""
    if flags & 4:
        st.rst += 1
        if conn.reset is None:
            by_orig = d is conn.orig
            if r is not None and r.fin is not None and d.fin is not None:
                phase = "after FIN"
            elif (d.segments or 0) + (r.segments if r is not None else 0):
                phase = "after data"
            else:
                phase = "before data"
            plausible = nseq is None or seq == nseq or (r is not None and seq == r.la)
            jump = abs(ttl - d.ttl) if d.packets or d.segments else 0
            conn.reset = (by_orig, frame, t, phase, plausible, jump, payload_of(d))
    elif flags & 1:
        st.fin += 1
        if d.fin is None:
            d.fin = (t, frame)


def roll(d: Direction, t: int, st: State, frame: int) -> None:
    """Close the current second of a direction: peak rate, idle time, silences that somebody waited through."""
    payload = payload_of(d)
    sent = payload - d.peak_base
    if sent > d.peak:
        d.peak = sent
    d.peak_base = payload
    d.roll_from = t
    d.roll = t + SECOND
    silence = t - d.last
    if silence > SECOND:
        d.idle += silence
        if silence > st.gap_ns:
            _gap(d, t, frame, st.gap_ns)


def _gap(d: Direction, t: int, frame: int, gap_ns: int) -> None:
    """Note a silence of the whole connection during which something was awaited."""
    r = d.rev
    conn: Connection = d.conn
    if r is None:
        return
    last, last_frame = (r.last, r.last_frame) if r.last > d.last else (d.last, d.last_frame)
    gaps = conn.gaps
    if gaps is not None and (len(gaps) >= _MAX_GAPS or gaps[-1][1] >= last):
        return
    if d.out or r.out:
        awaited = "acknowledgement"
    elif conn.orig is not None and conn.resp is not None and conn.orig.segments and not d.fin:
        # The side that sent data last has had its say; the other one is awaited if it was the client who asked.
        asked = conn.orig.nseq_time > (conn.resp.nseq_time or 0)
        if not asked or d is conn.orig:
            return
        awaited = "server"
    else:
        return
    if t - last <= gap_ns:
        return
    if gaps is None:
        gaps = conn.gaps = []
    gaps.append((t - last, t, last_frame, frame, awaited))


def at_end(d: Direction, t_end: int) -> None:
    """Close what is still open when the capture ends: the running second and a window that stayed at zero."""
    sent = payload_of(d) - d.peak_base
    if sent > d.peak:
        d.peak = sent
    since = d.zero_since
    if since is not None:
        trouble = trouble_of(d)
        lasted = max(0, t_end - since[0])
        trouble.zero_time += lasted
        trouble.zero_longest = max(trouble.zero_longest, lasted)
        d.zero_since = None
    d.old = d.signature = None  # the report is made in their place


def unacked(d: Direction) -> int:
    """Bytes sent and not acknowledged when the capture ended."""
    r = d.rev
    if r is None or r.la is None or d.nseq is None:
        return 0
    left = d.nseq - r.la & MASK
    return left if left < 1 << 30 else 0


__all__ = ["at_end", "roll", "segment", "unacked"]
