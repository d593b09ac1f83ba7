"""Connections before they are connections: SYN, SYN-ACK and refusals as one small tuple each.

A flood or a scan makes tens of thousands of attempts that never carry data. Each stays a tuple until somebody sends
anything
but SYN, SYN-ACK or the RST that answers a SYN; only then two direction lists are made and the handshake is replayed
to the
rules. Over the cap the oldest attempts are folded into their hosts' counters.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.flows import HALF, MASK, Connection, Direction, reverse_key
from gateway.analysis.fold import fold_connections, fold_half
from gateway.analysis.tcp import segment

if TYPE_CHECKING:
    from gateway.analysis.state import State

# An attempt: the SYN, its repeats, the answer, the refusal, counters.
H_TIME: Final = 0
H_FRAME: Final = 1
H_OFFSET: Final = 2
H_ISN: Final = 3
H_WIN: Final = 4
H_OPTIONS: Final = 5
H_TTL: Final = 6
H_VLAN: Final = 7
H_SIGNATURE: Final = 8  # IP id << 16 | checksum
H_BYTES: Final = 9  # wire bytes of the SYNs
H_REPEATS: Final = 10  # ((time, frame), ...) of further SYNs
H_ANSWER: Final = 11  # None or (time, frame, offset, isn, win, options, ttl, ack, signature, bytes, count, last frame)
H_REFUSAL: Final = 12  # None or (time, frame, from the responder, ttl, wire bytes, plausible)

# Counters of SYNs to one address and port: see `floods`
T_TOTAL, T_COMPLETED, T_FIRST, T_LAST, T_FIRST_FRAME, T_LAST_FRAME, T_BINS, T_SOURCES, T_ANSWERED, T_SECOND = range(10)

_MAX_REPEATS: Final = 32
_MAX_TARGETS: Final = 16_384
_MAX_BINS: Final = 4_096
_SOURCES_EXACT: Final = 256
_OPTION_TEXTS: Final = 1024
_SPLIT: Final = struct.Struct("4s4s2s2s").unpack


def opening(
    st: State,
    key: bytes,
    d: Direction | None,
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
    vlan: int,
    wire: int,
    buf: bytes,
    start: int,
    options: int,
    end: int,
) -> Direction | None:
    """Handle a segment without a direction in the table, or one with SYN set.

    Returns the direction to which the batch loop should apply the segment, or None when all is done.
    """
    flags = of & 0x17
    if d is not None:
        if not flags & 2:
            return d
        if flags & 0x10:
            if d.isn is None or seq == d.isn:
                return _syn_ack_of_known(st, d, frame, t, seq, of, buf, options, end)
            if d.nseq is None or d.rev is None:
                return d
        elif d.isn is not None and seq == d.isn:
            st.syn += 1
            conn = d.conn
            if len(conn.syn_times) < _MAX_REPEATS:
                conn.syn_times += (t,)
                conn.syn_frames += (frame,)
            return d
        if flags & 0x10 and d.isn is None:
            return d
        _retire(st, key, d, frame, t)
    return _without_connection(
        st, key, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, vlan, wire, buf, start, options, end
    )


def opening_syn(
    st: State,
    key: bytes,
    frame: int,
    t: int,
    seq: int,
    win: int,
    signature: int,
    ttl: int,
    wire: int,
    options: bytes,
    start: int,
) -> bool:
    """Take the first SYN of a pair of ports over IPv4, as a flood has half a million of; False where anything is known
    of them. It does what `opening` would, in one call.
    """
    half = st.half
    source, target, own, port = _SPLIT(key)
    back = target + source + port + own
    if key in half or back in half or back in st.tcp:
        return False
    texts = st.option_texts
    kept = texts.get(options)
    if kept is None:
        kept = options
        if len(texts) < _OPTION_TEXTS:
            texts[options] = options
    half[key] = (t, frame, st.base + start, seq, win, kept, ttl, 0, signature, wire, (), None, None)
    st.streams += 1
    st.syn += 1
    row = st.syn_targets.get(target + port)
    if row is None or row[T_SECOND] != t // 1_000_000_000:
        _count_target(st, key, t, frame)
    else:
        row[T_TOTAL] += 1
        row[T_LAST] = t
        row[T_LAST_FRAME] = frame
        row[T_BINS][row[T_SECOND]] += 1
        if len(row[T_SOURCES]) < _SOURCES_EXACT:
            _count_source(row, source)
    if len(half) > st.half_cap:
        fold_half(st)
    return True


def _syn_ack_of_known(
    st: State, d: Direction, frame: int, t: int, seq: int, of: int, buf: bytes, options: int, end: int
) -> Direction:
    st.syn_ack += 1
    conn: Connection = d.conn
    conn.syn_ack_count += 1
    if conn.syn_ack_time is None:
        conn.syn_ack_time = t
        conn.syn_ack_frame = frame
        d.isn = seq
        d.known = True
        conn.resp_options = parse_options(buf[options : min(options + ((of >> 12) - 5) * 4, end)])
        _agree_on_scale(conn, d.rev, d)
    return d


def _retire(st: State, key: bytes, d: Direction, frame: int, t: int) -> None:
    """A new connection takes the ports of an old one."""
    conn: Connection = d.conn
    st.reused += 1
    st.label("reused_ports", conn, frame, t)
    st.tcp.pop(key, None)
    st.tcp.pop(reverse_key(key), None)
    conn.reused = True
    st.closed.append(conn)


def _without_connection(
    st: State,
    key: bytes,
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
    vlan: int,
    wire: int,
    buf: bytes,
    start: int,
    options: int,
    end: int,
) -> Direction | None:
    flags = of & 0x17
    half = st.half
    if flags == 2 and not length:
        known = half.get(key)
        signature = ip_id << 16 | checksum
        if known is None:
            # The other side may have tried at the same time (simultaneous open).
            back = reverse_key(key)
            other = st.tcp.get(back)
            if other is not None and other.isn is None and other.la not in (None, (seq + 1) & MASK):
                # Its numbers do not belong to the connection of which only the other side has been seen.
                _retire(st, back, other, frame, t)
            elif other is not None:
                return _midstream(st, key, frame, t, seq, of, ttl, vlan, buf, start, options, end)
            if back not in half:
                raw = buf[options : min(options + ((of >> 12) - 5) * 4, end)]
                raw = st.option_texts.setdefault(raw, raw) if len(st.option_texts) < 1024 else raw
                half[key] = (
                    *(t, frame, st.base + start, seq, win, raw, ttl, vlan, signature, wire),
                    *((), None, None),
                )
                st.streams += 1
                st.syn += 1
                _count_target(st, key, t, frame)
                if len(half) > st.settings.tables.half_open:
                    fold_half(st)
                return None
        elif known[H_ISN] == seq:
            st.syn += 1
            if signature == known[H_SIGNATURE] and 0 <= t - known[H_TIME] < st.duplicate_ns:
                st.copied(frame, t)
            else:
                _half_label(st, "retransmission", frame)
                if len(known[H_REPEATS]) < _MAX_REPEATS:
                    known = (*known[:H_REPEATS], (*known[H_REPEATS], (t, frame)), *known[H_ANSWER:])
            half[key] = (*known[:H_BYTES], known[H_BYTES] + wire, *known[H_REPEATS:])
            return None
        else:
            st.reused += 1
            _half_label(st, "reused_ports", frame)
            st.old_half.append((key, half.pop(key)))
            if len(st.old_half) > st.settings.tables.half_open // 4:
                fold_half(st)
            return _without_connection(
                st, key, frame, t, seq, ack, of, win, length, ip_id, checksum, ttl, vlan, wire, buf, start, options, end
            )
    back = reverse_key(key)
    known = half.get(back)
    if known is not None:
        if flags == 0x12 and not length:
            return _answered(
                st, back, known, frame, t, seq, ack, of, win, ip_id, checksum, ttl, wire, buf, start, options, end
            )
        if flags & 4 and known[H_REFUSAL] is None and known[H_ANSWER] is None:
            st.rst += 1
            plausible = ack == (known[H_ISN] + 1) & MASK or not flags & 0x10
            half[back] = (*known[:H_REFUSAL], (t, frame, True, ttl, wire, plausible))
            return None
        return _promote(st, back, known)[1]
    known = half.get(key)
    if known is not None:
        if flags & 4 and known[H_REFUSAL] is None:
            st.rst += 1
            half[key] = (*known[:H_REFUSAL], (t, frame, False, ttl, wire, True))
            return None
        return _promote(st, key, known)[0]
    return _midstream(st, key, frame, t, seq, of, ttl, vlan, buf, start, options, end)


def _answered(
    st: State,
    back: bytes,
    known: tuple[Any, ...],
    frame: int,
    t: int,
    seq: int,
    ack: int,
    of: int,
    win: int,
    ip_id: int,
    checksum: int,
    ttl: int,
    wire: int,
    buf: bytes,
    start: int,
    options: int,
    end: int,
) -> Direction | None:
    answer = known[H_ANSWER]
    st.syn_ack += 1
    signature = ip_id << 16 | checksum
    if answer is None:
        raw = buf[options : min(options + ((of >> 12) - 5) * 4, end)]
        raw = st.option_texts.setdefault(raw, raw) if len(st.option_texts) < 1024 else raw
        target = st.syn_targets.get(_target_key(back))
        if target is not None:
            target[T_ANSWERED] += 1
        answer = (t, frame, st.base + start, seq, win, raw, ttl, ack, signature, wire, 1, frame)
    elif answer[3] == seq:
        if signature == answer[8] and 0 <= t - answer[0] < st.duplicate_ns:
            st.copied(frame, t)
            return None
        _half_label(st, "retransmission", frame)
        answer = (*answer[:9], answer[9] + wire, answer[10] + 1, frame)
    else:
        return _promote(st, back, known)[1]
    st.half[back] = (*known[:H_ANSWER], answer, known[H_REFUSAL])
    return None


def _half_label(st: State, kind: str, frame: int) -> None:
    st.labels[kind] = st.labels.get(kind, 0) + 1
    frames = st.label_frames.setdefault(kind, [])
    if len(frames) < 200:
        frames.append(frame)


def _promote(st: State, key: bytes, half: tuple[Any, ...]) -> tuple[Direction, Direction]:
    """Make a full connection of an attempt, replaying its SYN and SYN-ACK."""
    del st.half[key]
    conn = _connection(st, key, half[H_TIME], half[H_FRAME], half[H_OFFSET])
    repeats = half[H_REPEATS]
    last_time, last_frame = repeats[-1] if repeats else (half[H_TIME], half[H_FRAME])
    orig = Direction(conn, half[H_TIME], half[H_FRAME], half[H_VLAN], half[H_TTL])
    resp = Direction(conn, half[H_TIME], half[H_FRAME], -1, 0)  # its VLAN may be another one
    orig.rev, resp.rev = resp, orig
    conn.orig, conn.resp = orig, resp
    conn.first_flags = 2
    conn.syn_frame = half[H_FRAME]
    conn.syn_times, conn.syn_frames = (half[H_TIME],), (half[H_FRAME],)
    if repeats:
        conn.syn_times += tuple(time for time, _ in repeats)
        conn.syn_frames += tuple(frame for _, frame in repeats)
    conn.options = parse_options(half[H_OPTIONS])
    orig.known = True
    orig.isn = half[H_ISN]
    st.tcp[key], st.tcp[reverse_key(key)] = orig, resp
    _sent_syn(orig, half[H_TIME], half[H_ISN], 0, half[H_WIN], half[H_SIGNATURE], 0x5002)
    orig.packets = 1 + len(repeats)
    orig.bytes = half[H_BYTES]
    orig.last, orig.last_frame = last_time, last_frame
    answer = half[H_ANSWER]
    if answer is None:
        resp.packets = 0
        if half[H_REFUSAL] is not None:
            _refusal(conn, orig, resp, half[H_REFUSAL])
        _agree_on_scale(conn, orig, resp)
        return orig, resp
    conn.syn_ack_time, conn.syn_ack_frame, conn.syn_ack_count = answer[0], answer[1], answer[10]
    conn.resp_options = parse_options(answer[5])
    resp.known = True
    resp.isn = answer[3]
    resp.ttl = answer[6]
    resp.first, resp.first_frame = answer[0], answer[1]
    _agree_on_scale(conn, orig, resp)
    if answer[7] == orig.nseq:
        _sent_syn(resp, answer[0], answer[3], answer[7], answer[4], answer[8], 0x5012)
        resp.la = answer[7]
        orig.edge = resp.la + resp.span
    else:
        segment(
            *(st, resp, answer[1], answer[0], answer[3], answer[7], 0x5012, answer[4], 0),
            *(answer[8] >> 16, answer[8] & 0xFFFF, answer[6], b"", 0, 0),
        )
    resp.packets = answer[10]
    resp.bytes = answer[9]
    resp.last, resp.last_frame = answer[0], answer[11]
    if half[H_REFUSAL] is not None:
        _refusal(conn, orig, resp, half[H_REFUSAL])
    return orig, resp


def _sent_syn(d: Direction, t: int, seq: int, ack: int, win: int, signature: int, of: int) -> None:
    """What `segment` leaves of a SYN, or of a SYN-ACK of nothing but it, in a direction that has sent nothing else."""
    d.nseq = seq + 1 & MASK
    d.payload = -d.nseq
    d.nseq_time = t
    d.base = seq
    d.win = d.scaled = win
    d.span = win - win // 10
    d.signature = (signature >> 16, signature & 0xFFFF, t, of, seq, ack)


def _refusal(conn: Connection, orig: Direction, resp: Direction, refusal: tuple[Any, ...]) -> None:
    time, frame, from_responder, ttl, wire, plausible = refusal
    side = resp if from_responder else orig
    side.packets += 1
    side.bytes += wire
    side.last, side.last_frame = time, frame
    jump = abs(ttl - side.ttl) if side.ttl else 0
    conn.reset = (not from_responder, frame, time, "SYN", plausible, jump, 0)


def _midstream(
    st: State,
    key: bytes,
    frame: int,
    t: int,
    seq: int,
    of: int,
    ttl: int,
    vlan: int,
    buf: bytes,
    start: int,
    options: int,
    end: int,
) -> Direction:
    """A connection whose SYN was not seen, or that opens in an unusual way."""
    back = reverse_key(key)
    other = st.tcp.get(back)
    flags = of & 0x17
    if other is not None:
        conn: Connection = other.conn
        d = Direction(conn, t, frame, vlan, ttl)
        d.rev, other.rev = other, d
        if conn.orig is other:
            conn.resp = d
        else:
            conn.orig = d
        st.tcp[key] = d
        # What the first side sent before its peer appeared is not outstanding in a way that gives round trips.
        other.norm = -1
    else:
        answering = flags & 0x12 == 0x12
        st.streams += 1
        conn = _connection(st, back if answering else key, t, frame, st.base + start)
        d = Direction(conn, t, frame, vlan, ttl)
        conn.first_flags = of & 0x3F
        if answering or (not flags & 2 and _is_server(key)):
            conn.resp = d
            conn.key = back
        else:
            conn.orig = d
        st.tcp[key] = d
    if flags & 2:
        raw = parse_options(buf[options : min(options + ((of >> 12) - 5) * 4, end)])
        d.isn = seq
        d.known = True
        if flags & 0x10:
            st.syn_ack += 1
            conn.syn_ack_time, conn.syn_ack_frame, conn.syn_ack_count = t, frame, 1
            conn.resp_options = raw
        else:
            st.syn += 1
            conn.syn_frame, conn.syn_times, conn.syn_frames = frame, (t,), (frame,)
            conn.options = raw
            _count_target(st, key, t, frame)
        _agree_on_scale(conn, conn.orig, conn.resp)
    return d


def _is_server(key: bytes) -> bool:
    """Whether the sender of a midstream packet is the serving side, judged by port numbers."""
    if len(key) >= 36:
        source, destination = int.from_bytes(key[32:34], "big"), int.from_bytes(key[34:36], "big")
    else:
        source, destination = int.from_bytes(key[8:10], "big"), int.from_bytes(key[10:12], "big")
    return source < destination and source < 10_000


def _connection(st: State, key: bytes, t: int, frame: int, offset: int) -> Connection:
    conn = Connection(key, t, frame, offset)
    st.connections.append(conn)
    if len(st.connections) > st.settings.tables.flows:
        fold_connections(st)
    return conn


@lru_cache(maxsize=1024)  # a system offers the same in each of its connections
def parse_options(raw: bytes) -> tuple[int | None, int | None, bool, bool]:
    """MSS, window scale (capped at 14 as RFC 7323 says), SACK permitted and timestamps of a SYN's options."""
    mss: int | None = None
    scale: int | None = None
    sack = stamps = False
    position, size = 0, len(raw)
    while position < size:
        kind = raw[position]
        if kind == 0:
            break
        if kind == 1:
            position += 1
            continue
        if position + 1 >= size:
            break
        length = raw[position + 1]
        if length < 2 or position + length > size:
            break
        if kind == 2 and length == 4:
            mss = raw[position + 2] << 8 | raw[position + 3]
        elif kind == 3 and length == 3:
            scale = min(raw[position + 2], 14)
        elif kind == 4:
            sack = True
        elif kind == 8 and length == 10:
            stamps = True
        position += length
    return mss, scale, sack, stamps


def _agree_on_scale(conn: Connection, orig: Direction | None, resp: Direction | None) -> None:
    """Windows are scaled only if both sides offered it; a side whose SYN was not seen stays unknown."""
    ours = conn.options[1] if conn.options is not None else None
    theirs = conn.resp_options[1] if conn.resp_options is not None else None
    both = conn.options is not None and conn.resp_options is not None
    if orig is not None and conn.options is not None:
        orig.shift = (ours or 0) if not both or theirs is not None else 0
        if both and ours is None:
            orig.shift = 0
        orig.norm = -1  # its scaled window is to be made anew
    if resp is not None and conn.resp_options is not None:
        resp.shift = (theirs or 0) if not both or ours is not None else 0
        resp.norm = -1
    # Where one side did not offer it, the other cannot use it, whatever its own SYN said.
    if conn.options is not None and ours is None and resp is not None and not resp.known:
        resp.known, resp.shift = True, 0
    if conn.resp_options is not None and theirs is None and orig is not None and not orig.known:
        orig.known, orig.shift = True, 0


def established(st: State, d: Direction, t: int, frame: int, ack: int, flags: int) -> None:
    """Note the packet that closes the handshake: the originator's ACK of the SYN-ACK."""
    conn: Connection = d.conn
    if conn.opened_in is None and conn.syn_times and not flags & 2:
        conn.opened_in = max(0, t - conn.syn_times[-1])
    resp = conn.resp
    if resp is None or d is not conn.orig or resp.isn is None or conn.ack_time is not None or not flags & 0x10:
        return
    if flags & 6 or ack != (resp.isn + 1) & MASK:
        if (ack - resp.isn & MASK) < HALF and not flags & 6:
            conn.ack_time, conn.ack_frame = -1, None
        return
    conn.ack_time, conn.ack_frame = t, frame
    if conn.syn_times:
        conn.irtt = max(0, t - conn.syn_times[-1]) or None
    target = st.syn_targets.get(_target_key(conn.key))
    if target is not None:
        target[T_COMPLETED] += 1


def _target_key(key: bytes) -> bytes:
    return key[4:8] + key[10:12] if len(key) < 36 else key[16:32] + key[34:36]


def _count_target(st: State, key: bytes, t: int, frame: int) -> None:
    """Count a first SYN at the address and port it goes to, by the second in which it came."""
    if len(key) < 36:
        name, source = key[4:8] + key[10:12], key[:4]
    else:
        name, source = key[16:32] + key[34:36], key[:16]
    targets = st.syn_targets
    row = targets.get(name)
    second = t // 1_000_000_000
    if row is None:
        if len(targets) >= _MAX_TARGETS:
            for other in [other for other, value in targets.items() if value[T_TOTAL] <= 8]:
                del targets[other]
            if len(targets) >= _MAX_TARGETS:
                return
        targets[name] = [1, 0, t, t, frame, frame, {second: 1}, (source,), 0, second]
        return
    row[T_TOTAL] += 1
    row[T_LAST] = t
    row[T_LAST_FRAME] = frame
    bins = row[T_BINS]
    if second in bins:
        bins[second] += 1
        row[T_SECOND] = second
    elif len(bins) < _MAX_BINS:
        bins[second] = 1
        row[T_SECOND] = second
    _count_source(row, source)


def _count_source(row: list[Any], source: bytes) -> None:
    """Count the sources of a target exactly up to a limit; most have one, and a tuple of one is small."""
    sources = row[T_SOURCES]
    if source not in sources and len(sources) < _SOURCES_EXACT:
        if len(sources) == 1:
            row[T_SOURCES] = {*sources, source}
        else:
            sources.add(source)
