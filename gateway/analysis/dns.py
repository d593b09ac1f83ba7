"""DNS as seen on the wire (RFC 1035, RFC 6762, RFC 4795): transactions, servers, and what a tunnel would show.

A query waits in a bounded table until its answer, its repeat or the end of the capture. Names are read with a limit
on length
and on compression jumps; a message that contradicts itself is counted as malformed and no more of it is believed.
"""

from __future__ import annotations

import struct
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000

TYPES: Final = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    10: "NULL",
    12: "PTR",
    13: "HINFO",
    15: "MX",
    16: "TXT",
    25: "KEY",
    28: "AAAA",
    33: "SRV",
    35: "NAPTR",
    41: "OPT",
    43: "DS",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    64: "SVCB",
    65: "HTTPS",
    252: "AXFR",
    255: "ANY",
}
RCODES: Final = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_TUNNEL_TYPES: Final = (5, 10, 16, 25)
_HEADER: Final = struct.Struct(">HHHH").unpack_from  # and the two counts of sections that are not read
_ASKED: Final = b"\xc0\x0c"  # a name that is the one of the question, behind the header
_MAX_ANSWERS: Final = 8
_MAX_JUMPS: Final = 16
_MAX_NAME: Final = 255
# Parents of two labels under which names are sold one level lower; the whole list would be larger than this program.
_SECOND_LEVEL: Final = frozenset({"ac", "co", "com", "edu", "gov", "net", "ne", "nom", "or", "org", "gob", "go"})

# A row of the report while it is being made
R_TIME, R_FRAME, R_RESPONSE, R_KEY, R_TRANSPORT, R_NAME, R_TYPE, R_RCODE, R_STATUS, R_NS, R_ANSWERS, R_RETRIES = range(
    12
)


class ParentStats:
    """What one client asked about names under one parent."""

    __slots__ = (
        "answer_bytes",
        "answers",
        "chars",
        "first_frame",
        "first_ns",
        "frames",
        "label_chars",
        "labels",
        "last_frame",
        "last_ns",
        "names",
        "nxdomain",
        "odd_types",
        "queries",
    )

    def __init__(self, t: int, frame: int) -> None:
        self.queries = self.nxdomain = self.odd_types = self.labels = self.label_chars = 0
        self.answers = self.answer_bytes = 0
        self.names: set[int] = set()
        self.chars: dict[str, int] = {}
        self.first_ns = self.last_ns = t
        self.first_frame = self.last_frame = frame
        self.frames: list[int] = []


class Sightings:
    """How often something was seen, when first and last, and in which frames first."""

    __slots__ = ("count", "first_ns", "frames", "last_ns")

    def __init__(self) -> None:
        self.count = self.first_ns = self.last_ns = 0
        self.frames: list[int] = []

    def add(self, frame: int, t: int, cap: int) -> None:
        """Count one; in any order of time."""
        self.first_ns = min(self.first_ns, t) if self.count else t
        self.last_ns = max(self.last_ns, t)
        self.count += 1
        if len(self.frames) < cap:
            self.frames.append(frame)


class ServerStats:
    """Answers of one server."""

    __slots__ = ("failed", "refused", "servfail", "slow", "slowest", "timeouts", "times", "transactions")

    def __init__(self) -> None:
        self.transactions = self.timeouts = self.servfail = self.refused = 0
        self.failed = Sightings()  # the questions
        self.slow = Sightings()  # the answers
        self.slowest: tuple[int, str] = (0, "")  # in ns, and the name asked for
        self.times: array[int] = array("Q")


class DnsTable:
    """All that is remembered of DNS in one capture."""

    def __init__(self) -> None:
        self.pending: dict[tuple[bytes, int, str, int], list[Any]] = {}
        self.rows: list[list[Any]] = []
        self.total = self.queries = self.responses = 0
        self.rcodes: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.parents: dict[tuple[bytes, str], ParentStats] = {}
        self.servers: dict[bytes, ServerStats] = {}
        self.statuses: dict[str, int] = {}
        self.unsolicited: dict[tuple[bytes, bytes], list[int]] = {}  # (server, target) -> packets, bytes, frames
        self.expected_nxdomain = 0
        self.malformed = 0
        self.addresses: dict[bytes, str] = {}  # answer address -> name that was asked for
        # source -> [messages, running second, messages in it, most in a second, their frames, frames of the running
        # second, time of the best]
        self.multicast: dict[bytes, list[Any]] = {}
        self.amplified: dict[tuple[bytes, bytes], list[int]] = {}


def read_name(buf: bytes, at: int, base: int, end: int) -> tuple[str, int] | None:
    """A name at `at` and the position behind it; None if it is malformed or cut (RFC 1035 4.1.4)."""
    labels: list[str] = []
    after = -1
    jumps = length = 0
    while True:
        if at >= end:
            return None
        size = buf[at]
        if size == 0:
            at += 1
            break
        if size & 0xC0 == 0xC0:
            if at + 1 >= end:
                return None
            target = base + ((size & 0x3F) << 8 | buf[at + 1])
            jumps += 1
            if jumps > _MAX_JUMPS or target >= at:
                return None
            if after < 0:
                after = at + 2
            at = target
            continue
        if size & 0xC0 or at + 1 + size > end:
            return None
        length += size + 1
        if length > _MAX_NAME:
            return None
        labels.append(buf[at + 1 : at + 1 + size].decode("utf-8", "replace"))
        at += 1 + size
    return ".".join(labels), after if after >= 0 else at


@lru_cache(maxsize=1024)  # an answer repeats its question, and a client its names
def _plain_name(raw: bytes) -> tuple[str, str] | None:
    """A name and its small letters, of bytes that end with their first zero; None if that is not where it ends."""
    found = read_name(raw, 0, len(raw), len(raw))  # whatever it points to lies behind it, which is refused
    return (found[0], found[0].lower()) if found is not None and found[1] == len(raw) else None


@lru_cache(maxsize=1024)
def parent_of(name: str) -> str:
    """The part of a name that somebody registered: its last two labels, three under `co.uk` and its like."""
    labels = name.lower().split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def message(
    st: State, buf: bytes, at: int, end: int, cut: bool, key: bytes, t: int, frame: int, transport: str
) -> bool:
    """Read one message; `key` is addresses and ports as sent. Returns whether it was DNS at all."""
    table = st.dns
    if at + 12 > end:
        return False
    ident, flags, questions, answers = _HEADER(buf, at)
    response = bool(flags & 0x8000)
    if flags >> 11 & 15 not in (0, 4, 5) or questions > 64:
        return False
    name, lowered, kind = "", "", 0
    position = at + 12
    if questions:
        # The usual question ends with its first zero: then its bytes alone say what it is.
        stop = buf.find(0, position, min(end, position + _MAX_NAME)) + 1
        plain = _plain_name(buf[position:stop]) if position < stop <= end - 4 else None
        if plain is not None:
            name, lowered = plain
            position = stop
        else:
            found = read_name(buf, position, at, end)
            if found is None or found[1] + 4 > end:
                if found is None and not cut:
                    table.malformed += 1
                table.queries += not response
                table.responses += response
                if response:
                    _rcode(table, flags & 15)
                return True
            name, position = found
            lowered = name.lower()
        kind = buf[position] << 8 | buf[position + 1]
        position += 4
        for _ in range(questions - 1):
            found = read_name(buf, position, at, end)
            if found is None or found[1] + 4 > end:
                break
            position = found[1] + 4
            if not response:
                _count_name(st, found[0])
    if transport != "udp" and transport != "tcp":
        announced(st, key[:4] if len(key) < 36 else key[:16], t, frame)
    if response:
        table.responses += 1
        _rcode(table, flags & 15)
        texts, size = _answers(st, buf, position, at, end, answers, name, transport)
        _response(st, ident, lowered, flags, texts, size, t, frame, transport, name, kind, end - at, key)
        return True
    table.queries += 1
    _count_name(st, name)
    _query(st, ident, lowered, key, t, frame, transport, name, kind)
    return True


def announced(st: State, source: bytes, t: int, frame: int) -> None:
    """Count a multicast name message (mDNS, LLMNR, SSDP) of `source`, by seconds."""
    rows = st.dns.multicast
    row = rows.get(source)
    second = t // SECOND
    if row is None:
        if len(rows) < st.settings.tables.hosts:
            rows[source] = [1, second, 1, 1, [frame], [frame], t]
        return
    row[0] += 1
    if row[1] != second:
        row[1], row[2], row[5] = second, 0, []
    row[2] += 1
    if len(row[5]) < st.frames_cap:
        row[5].append(frame)
    if row[2] > row[3]:
        row[3], row[4], row[6] = row[2], row[5], t


def _count_name(st: State, name: str) -> None:
    names = st.dns.names
    seen = names.get(name)
    if seen is not None:
        names[name] = seen + 1
    elif len(names) < st.settings.tables.names:
        names[name] = 1


def _rcode(table: DnsTable, rcode: int) -> None:
    table.rcodes[rcode] = table.rcodes.get(rcode, 0) + 1


def _query(
    st: State, ident: int, lowered: str, key: bytes, t: int, frame: int, transport: str, name: str, kind: int
) -> None:
    table = st.dns
    if transport == "mdns":
        _row(st, [t, frame, None, key, transport, name, kind, None, "query", None, [], 0])
        return
    if len(key) < 36:
        client, place = key[:4], key[:4] + key[8:10]
    else:
        client, place = key[:16], key[:16] + key[32:34]
    pending_key = (place, ident, lowered, kind)
    waiting = table.pending.get(pending_key)
    if waiting is not None and 0 <= t - waiting[R_TIME] < st.settings.dns.retry_s * SECOND:
        waiting[R_RETRIES] += 1
        return
    row: list[Any] = [t, frame, None, key, transport, name, kind, None, "waiting", None, [], 0]
    table.total += 1
    _row(st, row)
    if waiting is not None:
        finish(st, waiting)
    table.pending[pending_key] = row
    if len(table.pending) > st.settings.tables.dns_pending:
        oldest = next(iter(table.pending))
        finish(st, table.pending.pop(oldest))
    parent = parent_of(name)
    stats = table.parents.get((client, parent))
    if stats is None:
        if len(table.parents) >= st.settings.tables.names:
            for other in [other for other, value in table.parents.items() if value.queries < 3]:
                del table.parents[other]
            if len(table.parents) >= st.settings.tables.names:
                return
        stats = table.parents[client, parent] = ParentStats(t, frame)
    stats.queries += 1
    stats.last_ns, stats.last_frame = t, frame
    if len(stats.frames) < st.frames_cap:
        stats.frames.append(frame)
    if len(stats.names) < 4096:
        stats.names.add(hash(name))
    stats.odd_types += kind in _TUNNEL_TYPES
    below = name[: len(name) - len(parent)].strip(".") if len(name) > len(parent) else ""
    if below:
        # The part under the parent, without its dots, is where a tunnel puts its data.
        stats.labels += 1
        stats.label_chars += len(below) - below.count(".")
        if stats.queries <= 512:
            chars = stats.chars
            for char in below.lower():
                if char != ".":
                    chars[char] = chars.get(char, 0) + 1
                    if len(chars) > 512:
                        break


def _row(st: State, row: list[Any]) -> None:
    if len(st.dns.rows) < st.settings.tables.rows:
        st.dns.rows.append(row)


def _response(
    st: State,
    ident: int,
    lowered: str,
    flags: int,
    texts: list[str],
    answer_bytes: int,
    t: int,
    frame: int,
    transport: str,
    name: str,
    kind: int,
    size: int,
    key: bytes,
) -> None:
    table = st.dns
    rcode = flags & 15
    if transport == "mdns":
        _row(st, [t, frame, None, key, transport, texts[0].split(" ")[0] if texts and not name else name, kind, rcode,
                  "announcement", None, texts, 0])  # fmt: skip
        return
    if len(key) < 36:
        server, client, place = key[:4], key[4:8], key[4:8] + key[10:12]
    else:
        server, client, place = key[:16], key[16:32], key[16:32] + key[34:36]
    pending_key = (place, ident, lowered, kind)
    row: list[Any] | None = table.pending.pop(pending_key, None)
    if row is None:
        table.statuses["unsolicited"] = table.statuses.get("unsolicited", 0) + 1
        if len(table.unsolicited) < 4096 or (server, client) in table.unsolicited:
            seen = table.unsolicited.setdefault((server, client), [0, 0, frame, frame])
            seen[0] += 1
            seen[1] += size
            seen[3] = frame
        _row(st, [t, frame, frame, key, transport, name, kind, rcode, "unsolicited", None, texts, 0])
        return
    row[R_RESPONSE] = frame
    row[R_NS] = max(0, t - row[R_TIME])
    row[R_RCODE] = rcode
    row[R_ANSWERS] = texts
    if flags & 0x0200:
        row[R_STATUS] = "truncated"
    elif rcode == 0:
        row[R_STATUS] = "ok"
    elif rcode == 3:
        row[R_STATUS] = "nxdomain"
        if expected_nxdomain(name):
            table.expected_nxdomain += 1
    else:
        row[R_STATUS] = "refused" if rcode == 5 else "error"
    stats = table.parents.get((client, parent_of(name)))
    if stats is not None:
        stats.nxdomain += rcode == 3
        stats.answers += 1
        stats.answer_bytes += answer_bytes
    finish(st, row, server)


def expected_nxdomain(name: str) -> bool:
    """Names whose absence is normal: search-list guesses, proxy discovery, local names."""
    lowered = name.lower()
    return (
        "." not in lowered
        or lowered.startswith(("wpad.", "isatap.", "_ldap.", "lb._dns-sd."))
        or lowered.endswith(
            (".local", ".lan", ".home", ".localdomain", ".internal", ".corp", ".home.arpa", ".in-addr.arpa")
        )
    )


def finish(st: State, row: list[Any], server: bytes | None = None) -> None:
    """Close a transaction, answered or not, and count it at its server."""
    table = st.dns
    if server is None:
        key = row[R_KEY]
        server = key[4:8] if len(key) < 36 else key[16:32]
        waited = st.max_ns - row[R_TIME]
        row[R_STATUS] = "timeout" if waited >= st.settings.dns.timeout_s * SECOND else "unanswered-at-end"
    status = row[R_STATUS]
    table.statuses[status] = table.statuses.get(status, 0) + 1
    if row[R_TRANSPORT] == "llmnr" or status == "unanswered-at-end":
        return
    stats = table.servers.get(server)
    if stats is None:
        if len(table.servers) >= 4096:
            return
        stats = table.servers[server] = ServerStats()
    stats.transactions += 1
    if status in ("timeout", "error", "refused"):
        stats.failed.add(row[R_FRAME], row[R_TIME], st.frames_cap)
        stats.timeouts += status == "timeout"
        stats.refused += status == "refused"
        stats.servfail += status == "error"
    elapsed = row[R_NS]
    if elapsed is not None:
        if len(stats.times) < 4096:
            stats.times.append(elapsed)
        if elapsed > st.settings.dns.slow_low_s * SECOND:
            stats.slow.add(row[R_RESPONSE], row[R_TIME] + elapsed, st.frames_cap)
            stats.slowest = max(stats.slowest, (elapsed, row[R_NAME]))


def _answers(
    st: State, buf: bytes, position: int, base: int, end: int, count: int, asked: str, transport: str
) -> tuple[list[str], int]:
    """Texts of the first answers, and the bytes of all answer data."""
    texts: list[str] = []
    total = 0
    for _ in range(min(count, 64)):
        if asked and buf[position : position + 2] == _ASKED:
            owner, position = asked, position + 2
        else:
            found = read_name(buf, position, base, end)
            if found is None:
                break
            owner, position = found
        if position + 10 > end:
            break
        kind = buf[position] << 8 | buf[position + 1]
        size = buf[position + 8] << 8 | buf[position + 9]
        position += 10
        if position + size > end:
            break
        total += size
        if len(texts) < _MAX_ANSWERS:
            texts.append(_answer_text(st, buf, position, size, base, end, kind, owner, asked, transport))
        position += size
    return texts, total


def _answer_text(
    st: State,
    buf: bytes,
    at: int,
    size: int,
    base: int,
    end: int,
    kind: int,
    owner: str,
    asked: str,
    transport: str,
) -> str:
    data = buf[at : at + size]
    if (kind == 1 and size == 4) or (kind == 28 and size == 16):
        text = st.address_text(data)
        _remember(st, data, asked or owner)
    elif kind in (2, 5, 12):
        found = read_name(buf, at, base, end)
        text = found[0] if found is not None else "malformed"
    elif kind == 15 and size > 2:
        found = read_name(buf, at + 2, base, end)
        text = found[0] if found is not None else "malformed"
    elif kind == 33 and size > 6:
        found = read_name(buf, at + 6, base, end)
        port = data[4] << 8 | data[5]
        text = f"{found[0]}:{port}" if found is not None else "malformed"
    elif kind == 16 and size > 1:
        text = data[1 : 1 + data[0]].decode("utf-8", "replace")[:120]
    else:
        text = f"{size} bytes"
    shown = f"{TYPES.get(kind) or f'TYPE{kind}'} {text}"
    return f"{owner} {shown}" if transport == "mdns" else shown


def _remember(st: State, address: bytes, name: str) -> None:
    if name and (len(st.dns.addresses) < st.settings.tables.names or address in st.dns.addresses):
        st.dns.addresses[address] = name


def at_end(st: State) -> None:
    """Close the queries still waiting."""
    for row in st.dns.pending.values():
        finish(st, row)
    st.dns.pending.clear()
