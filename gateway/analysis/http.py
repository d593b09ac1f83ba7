"""HTTP/1 requests and responses in pipeline order (RFC 9112), by content on any port.

Bodies are stepped over by Content-Length; where the length is not known, a segment that begins like a message is
one. Cookies,
credentials and query strings are never kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis.flows import HALF, MASK, Connection, Direction

if TYPE_CHECKING:
    from gateway.analysis.state import State

METHODS: Final = (
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"REPORT ",
    b"NOTIFY ",
    b"M-SEARCH ",
    b"SUBSCRIBE ",
    b"UNSUBSCRIBE ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"MOVE ",
    b"COPY ",
    b"LOCK ",
    b"UNLOCK ",
    b"SEARCH ",
    b"RPC_IN_DATA ",
    b"RPC_OUT_DATA ",
)
_BEGINNINGS: Final = (*METHODS, b"HTTP/1.")
_KEPT: Final = frozenset(
    {b"host", b"user-agent", b"authorization", b"content-length", b"content-type", b"transfer-encoding"}
)
_MAX_HEADER: Final = 16_384
_MAX_WAITING: Final = 512
PROBES: Final = {
    "connectivitycheck.gstatic.com": "Android",
    "clients3.google.com": "Android",
    "connectivitycheck.android.com": "Android",
    "captive.apple.com": "Apple",
    "www.msftconnecttest.com": "Windows",
    "www.msftncsi.com": "Windows",
    "detectportal.firefox.com": "Firefox",
    "nmcheck.gnome.org": "GNOME",
    "connectivity-check.ubuntu.com": "Ubuntu",
    "network-test.debian.org": "Debian",
}


class Side:
    """Reading position of one direction."""

    __slots__ = ("body_until", "header", "header_frame", "header_time", "next")

    def __init__(self) -> None:
        self.header = b""
        self.header_time = 0
        self.header_frame = 0
        self.next: int | None = None  # sequence number behind what was read of a header still incomplete
        self.body_until: int | None = None


class Conversation:
    """Requests of one connection that wait for their responses."""

    __slots__ = ("failures", "last", "requests", "responses", "sides", "waiting")

    def __init__(self) -> None:
        self.sides = (Side(), Side())
        self.waiting: list[dict[str, Any]] = []
        self.requests = self.responses = 0
        self.failures = 0  # 401 and 403
        self.last: dict[str, Any] | None = None


class HttpTable:
    """Rows and counts of one capture."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.total = self.requests = self.responses = 0
        self.hosts: dict[str, int] = {}
        self.methods: dict[str, int] = {}
        self.statuses: dict[int, int] = {}
        self.errors: dict[bytes, list[Any]] = {}  # server -> [responses, 5xx, 4xx, frames of 5xx, flow]
        self.waits: list[tuple[int, int, int]] = []  # (ns to the first byte, connection, frame), slowest kept
        self.authentication: dict[tuple[bytes, bytes], list[Any]] = {}  # refusals by client and server
        self.accepted: dict[tuple[bytes, bytes], int] = {}  # credentials that were taken, by client and server


def begins(data: bytes) -> bool:
    """Whether payload begins like a request or a response."""
    return data.startswith(_BEGINNINGS)


def may_begin(data: bytes) -> bool:
    """Whether more bytes could still make it one."""
    return any(item.startswith(data[: len(item)]) for item in _BEGINNINGS)


def segment(
    st: State,
    conn: Connection,
    d: Direction,
    talk: Conversation | None,
    data: bytes,
    seq: int,
    length: int,
    t: int,
    frame: int,
    from_orig: bool,
) -> None:
    """Take one segment of a connection known to be HTTP."""
    if talk is None:
        return
    side = talk.sides[0 if from_orig else 1]
    end = seq + length & MASK
    if side.header:
        if side.next is not None and seq != side.next:
            side.header = b""
        else:
            side.header += data
            side.next = end
            data, seq = side.header, end - len(side.header) & MASK
    elif side.body_until is not None:
        skip = side.body_until - seq & MASK
        if skip >= HALF:
            side.body_until = None
        elif skip >= len(data):
            if (end - side.body_until & MASK) < HALF and end != side.body_until:
                side.body_until = None  # the next message begins in what was not captured
            _want(d, side)
            return
        else:
            data = data[skip:]
            seq = side.body_until
            side.body_until = None
    at = 0
    for _ in range(256):
        if at >= len(data):
            break
        piece = data[at:]
        if not begins(piece):
            if side.header:
                side.header = b""
            break
        stop = piece.find(b"\r\n\r\n")
        gap = 4
        if stop < 0:
            stop = piece.find(b"\n\n")
            gap = 2
        if stop < 0:
            if not side.header:
                side.header_time, side.header_frame = t, frame
            side.header = piece if len(piece) < _MAX_HEADER else b""
            side.next = end
            d.app = 1
            return
        first_time, first_frame = (side.header_time, side.header_frame) if side.header else (t, frame)
        side.header = b""
        size = _message(st, conn, talk, piece[:stop], t, frame, first_time, first_frame)
        at += stop + gap
        if size is None:
            d.app = piece[0]
            return
        if size > len(data) - at:
            side.body_until = seq + at + size & MASK
            break
        at += size
    _want(d, side)


def _want(d: Direction, side: Side) -> None:
    """Tell the batch loop from where on this direction is of interest."""
    if side.body_until is not None:
        d.app = 2
        d.app_next = side.body_until
    else:
        d.app = 1


def _message(
    st: State,
    conn: Connection,
    talk: Conversation,
    head: bytes,
    t: int,
    frame: int,
    first_time: int,
    first_frame: int,
) -> int | None:
    """Take one header; returns the length of the body, None where it is not told."""
    lines = head.split(b"\n")
    first = lines[0].rstrip(b"\r")
    fields: dict[bytes, bytes] = {}
    for line in lines[1:128]:
        name, colon, value = line.partition(b":")
        if colon:
            name = name.strip().lower()
            if name in _KEPT and name not in fields:
                fields[name] = value.strip()
    coding = fields.get(b"transfer-encoding")
    chunked = coding is not None and b"chunked" in coding.lower()
    raw = fields.get(b"content-length")
    size = int(raw) if raw is not None and raw.isdigit() and len(raw) < 16 else None
    if first.startswith(b"HTTP/"):
        return _response(st, conn, talk, first, fields, None if chunked else size, first_time, first_frame)
    _request(st, conn, talk, first, fields, t, first_frame)
    return None if chunked else size or 0


def _text(value: bytes | None, limit: int) -> str | None:
    return value.decode("utf-8", "replace")[:limit] if value is not None else None


def _request(
    st: State,
    conn: Connection,
    talk: Conversation,
    first: bytes,
    fields: dict[bytes, bytes],
    t: int,
    frame: int,
) -> None:
    table = st.http
    verb, _, rest = first.partition(b" ")
    method = verb.decode("utf-8", "replace")[:16]
    path = rest.partition(b" ")[0].partition(b"?")[0]
    host = _text(fields.get(b"host"), 253)
    row: dict[str, Any] = {
        "t": t,
        "frame": frame,
        "response_frame": None,
        "flow": conn,
        "method": method,
        "host": host,
        "path": path.decode("utf-8", "replace")[:253],
        "status": None,
        "ttfb": None,
        "response_bytes": None,
        "content_type": None,
        "user_agent": _text(fields.get(b"user-agent"), 120),
        "probe": PROBES.get(host.lower().partition(":")[0]) if host is not None else None,
        "credentials": b"authorization" in fields,
    }
    table.total += 1
    table.requests += 1
    talk.requests += 1
    cap = st.settings.tables.names
    if host is not None:
        if conn.name is None:
            conn.name = host
        hosts = table.hosts
        if host in hosts:
            hosts[host] += 1
        elif len(hosts) < cap:
            hosts[host] = 1
    if len(table.methods) < 64 or method in table.methods:
        table.methods[method] = table.methods.get(method, 0) + 1
    if len(table.rows) < st.settings.tables.rows:
        table.rows.append(row)
    talk.waiting.append(row)
    if len(talk.waiting) > _MAX_WAITING:
        del talk.waiting[0]
    if row["credentials"] and fields[b"authorization"][:6].lower() == b"basic ":
        conn.event("cleartext-login", frame, t, st.frames_cap)


def _response(
    st: State,
    conn: Connection,
    talk: Conversation,
    first: bytes,
    fields: dict[bytes, bytes],
    size: int | None,
    t: int,
    frame: int,
) -> int | None:
    table = st.http
    code = first[9:12]
    status = int(code) if len(code) == 3 and code.isdigit() else 0
    table.responses += 1
    talk.responses += 1
    table.statuses[status] = table.statuses.get(status, 0) + 1
    if 100 <= status < 200 and status != 101:
        return 0
    row = talk.waiting.pop(0) if talk.waiting else None
    _count_error(st, conn, status, frame, t)
    if row is None:
        return size
    row["status"] = status
    row["response_frame"] = frame
    row["response_bytes"] = size
    row["content_type"] = _text(fields.get(b"content-type"), 80)
    waited = t - row["t"]
    if waited >= 0:
        row["ttfb"] = waited
        st.server_wait(conn, waited, frame)
        if waited > st.settings.http.slow_s * 1_000_000_000:
            conn.event("http-slow", frame, t, st.frames_cap)
    key = conn.key
    pair = (key[:4], key[4:8]) if len(key) < 36 else (key[:16], key[16:32])
    if row["credentials"] and 200 <= status < 400 and (pair in table.accepted or len(table.accepted) < 1024):
        table.accepted[pair] = table.accepted.get(pair, 0) + 1
    if status in (401, 403):
        talk.failures += 1
        refused = table.authentication.get(pair)
        if refused is None and len(table.authentication) < 1024:
            refused = table.authentication[pair] = [0, t, t, frame, [], conn]
        if refused is not None:
            refused[0] += 1
            refused[2] = t
            if len(refused[4]) < st.frames_cap:
                refused[4].append((t, frame))
    if row["method"] == "HEAD" or status in (204, 304):
        return 0
    return size


def _count_error(st: State, conn: Connection, status: int, frame: int, t: int) -> None:
    key = conn.key
    server = key[4:8] if len(key) < 36 else key[16:32]
    row = st.http.errors.get(server)
    if row is None:
        if len(st.http.errors) >= 4096:
            return
        row = st.http.errors[server] = [0, 0, 0, [], conn, 0, 0]
    row[0] += 1
    if status >= 500:
        row[1] += 1
        row[5] = row[5] or t
        row[6] = t
        if len(row[3]) < st.frames_cap:
            row[3].append(frame)
    elif status >= 400:
        row[2] += 1
