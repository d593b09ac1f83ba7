"""Payload of TCP connections: put in order as far as needed, recognised by content, read as TLS, HTTP/1, DNS, logins.

At most the first 16 KiB of a direction are kept, and only until it is clear what they are. What is wanted afterwards
is written
into the direction (`app`): nothing, everything, from a sequence number on, or segments that begin with a certain byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis import dns, http, tls
from gateway.analysis.flows import HALF, MASK, Connection, Direction, reverse_key

if TYPE_CHECKING:
    from gateway.analysis.state import State

IGNORE: Final = 0
ALL: Final = 1
FROM: Final = 2  # from sequence number `app_next` on; larger values of `app` are the first byte of wanted segments

_LIMIT: Final = 16_384
_UNDECIDED: Final = 64  # bytes without a known beginning before a direction is left alone
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_MAX_PIECES: Final = 32
_TELLING: Final = 4  # bytes by which all that is known here can be told from the rest
_OVERTAKEN: Final = 8  # segments that wait for the first of all before it is given up
_LONGEST_DNS: Final = 65_537  # a message over TCP with its length

LINE_PORTS: Final = {21: "ftp", 23: "telnet", 25: "smtp", 110: "pop3", 143: "imap", 587: "smtp"}
_FAILURES: Final = {
    "ftp": (b"530 ",),
    "smtp": (b"535 ", b"535-"),
    "pop3": (b"-ERR",),
    "imap": (b" NO ", b" NO LOGIN", b"AUTHENTICATIONFAILED"),
    "telnet": (b"Login incorrect", b"login incorrect"),
}


class Payload:
    """What is being put together for one direction."""

    __slots__ = ("kind", "next", "pieces", "rest", "seen", "tls_body")

    def __init__(self, start: int) -> None:
        self.next = start
        self.rest = b""
        self.pieces: dict[int, tuple[bytes, int, int]] = {}
        self.kind: str | None = None
        self.seen = 0
        self.tls_body = b""


class App:
    """Payload state of a connection: one part for each direction and what was read from both."""

    __slots__ = ("failures", "http", "login", "orig", "resp", "tls")

    def __init__(self) -> None:
        self.orig: Payload | None = None
        self.resp: Payload | None = None
        self.tls: Any = None  # Any: a TlsRow under construction
        self.http: http.Conversation | None = None
        self.failures = 0
        self.login: str | None = None


def feed(st: State, d: Direction, buf: bytes, at: int, end: int, seq: int, length: int, t: int, frame: int) -> None:
    """Take the payload of one segment: `at` to `end` is what was captured of its `length` bytes."""
    conn: Connection = d.conn
    app: App | None = conn.app
    if app is None:
        app = conn.app = App()
    from_orig = d is conn.orig
    part = app.orig if from_orig else app.resp
    if part is None:
        # Behind the SYN, if that was seen: what comes first may have been overtaken.
        isn = d.isn
        begin = seq if isn is None or (seq - isn - 1 & MASK) >= _LIMIT else isn + 1 & MASK
        part = Payload(begin)
        if from_orig:
            app.orig = part
        else:
            app.resp = part
    if part.kind == "http":
        http.segment(st, conn, d, app.http, buf[at : min(end, at + _LIMIT)], seq, length, t, frame, from_orig)
        return
    ahead = seq - part.next & MASK
    if ahead >= HALF:
        skip = HALF * 2 - ahead
        if skip >= length:
            return
        at += skip
        length -= skip
        seq = part.next
        ahead = 0
        if at > end:
            return
    data = buf[at : min(end, at + _LIMIT)]
    if ahead:
        if ahead < _LIMIT and len(part.pieces) < _MAX_PIECES and part.kind in (None, "tls", "dns"):
            part.pieces[seq] = (data, t, frame)
            if part.kind is None and not part.rest and len(part.pieces) >= _OVERTAKEN:
                _begin_anew(part)
        elif part.kind != "lines":
            d.app = IGNORE
        if part.kind != "lines" and part.next not in part.pieces:
            return
    if not ahead or part.kind == "lines":
        part.next = seq + length & MASK
        _in_order(st, conn, d, app, part, data, len(data) < length, t, frame, from_orig)
    while part.pieces and d.app:
        later = part.pieces.pop(part.next, None)
        if later is None:
            break
        part.next = part.next + len(later[0]) & MASK
        _in_order(st, conn, d, app, part, later[0], False, later[1], later[2], from_orig)


def _begin_anew(part: Payload) -> None:
    """The first segment was never recorded: what follows it is all there is to recognise the direction by."""
    part.next = min(part.pieces, key=lambda seq: seq - part.next & MASK)


def at_end(conn: Connection) -> None:
    """Let go of what was being put together when the file ended; what was read from it stays."""
    app: App | None = conn.app
    if app is not None:
        app.orig = app.resp = app.http = None


def _in_order(
    st: State,
    conn: Connection,
    d: Direction,
    app: App,
    part: Payload,
    data: bytes,
    cut: bool,
    t: int,
    frame: int,
    from_orig: bool,
) -> None:
    if not data:
        return
    part.seen += len(data)
    if part.kind is None:
        _recognise(st, conn, d, app, part, data, t, frame, from_orig)
        return
    if part.kind == "tls":
        _tls(st, conn, d, app, part, data, t, frame, from_orig)
    elif part.kind == "dns":
        _dns(st, conn, d, part, data, t, frame, from_orig)
    elif part.kind == "lines":
        _lines(st, conn, d, app, data, t, frame, from_orig)
    if cut and part.kind != "lines":
        d.app = IGNORE
    if part.seen > _LIMIT and d.app == ALL and part.kind != "dns":
        d.app = IGNORE


def _recognise(
    st: State,
    conn: Connection,
    d: Direction,
    app: App,
    part: Payload,
    data: bytes,
    t: int,
    frame: int,
    from_orig: bool,
) -> None:
    part.rest += data
    head = part.rest
    port = _server_port(conn.key)
    answered = head[0] == _ALERT and app.tls is not None  # a server may refuse a hello by an alert and nothing else
    if (head[0] == _HANDSHAKE or answered) and len(head) >= 2 and head[1] == 3:
        part.kind, part.rest = "tls", b""
        conn.service = ("tls", 1.0, "payload")
        _tls(st, conn, d, app, part, head, t, frame, from_orig)
        return
    if http.begins(head) or app.http is not None:
        part.kind, part.rest = "http", b""
        if conn.service is None or conn.service[0] != "http":
            conn.service = ("http", 1.0, "payload")
        if app.http is None:
            app.http = http.Conversation()
        http.segment(st, conn, d, app.http, head, part.next - len(head) & MASK, len(head), t, frame, from_orig)
        return
    if head.startswith(b"SSH-"):
        conn.service = ("ssh", 1.0, "payload")
        d.app = IGNORE
        return
    if port == 53:
        part.kind, part.rest = "dns", b""
        _dns(st, conn, d, part, head, t, frame, from_orig)
        return
    if port in LINE_PORTS:
        part.kind, part.rest = "lines", b""
        if conn.service is None and (port != 23 or head[0] == 255):
            conn.service = (
                LINE_PORTS[port],
                1.0 if head[:4] in (b"220 ", b"220-", b"+OK ", b"* OK") else 0.7,
                "payload",
            )
        _lines(st, conn, d, app, head, t, frame, from_orig)
        return
    for magic, service in ((b"\xffSMB", "smb"), (b"\xfeSMB", "smb")):
        if head[4:8] == magic:
            conn.service = (service, 1.0, "payload")
            d.app = IGNORE
            return
    for begin, service in (
        (b"\x13BitTorrent", "bittorrent"),
        (b"SIP/2.0", "sip"),
        (b"\x03\x00\x00", "rdp"),
        (b"RFB 00", "vnc"),
    ):
        if head.startswith(begin):
            conn.service = (service, 0.9, "payload")
            d.app = IGNORE
            return
    if len(head) >= _UNDECIDED or (len(head) >= _TELLING and not http.may_begin(head)):
        d.app = IGNORE
        part.rest = b""


def _server_port(key: bytes) -> int:
    return key[10] << 8 | key[11] if len(key) < 36 else key[34] << 8 | key[35]


def _tls(
    st: State,
    conn: Connection,
    d: Direction,
    app: App,
    part: Payload,
    data: bytes,
    t: int,
    frame: int,
    from_orig: bool,
) -> None:
    """Take records apart; handshake messages may span records, records may span segments."""
    part.rest += data
    rest = part.rest
    at = 0
    while at + 5 <= len(rest):
        kind, size = rest[at], rest[at + 3] << 8 | rest[at + 4]
        if rest[at + 1] != 3 or kind not in (20, _ALERT, _HANDSHAKE, 23):
            d.app = IGNORE
            break
        if at + 5 + size > len(rest):
            break
        record = rest[at + 5 : at + 5 + size]
        at += 5 + size
        if kind == _ALERT and size == 2:
            _alert(st, conn, app, record, t, frame)
        elif kind == _HANDSHAKE:
            part.tls_body += record
            if _messages(st, conn, app, part, t, frame, from_orig):
                d.app = _ALERT  # from here on only alerts in clear are of interest
                part.rest = b""
                return
        elif kind in (20, 23):
            d.app = _ALERT if kind == 23 else d.app
            if kind == 23:
                part.rest = b""
                return
    part.rest = rest[at:]
    if len(part.rest) > _LIMIT or len(part.tls_body) > _LIMIT:
        d.app = _ALERT
        part.rest = part.tls_body = b""


def _alert(st: State, conn: Connection, app: App, record: bytes, t: int, frame: int) -> None:
    """Note an alert sent in clear; a close is no trouble."""
    name = tls.ALERTS.get(record[1], f"alert {record[1]}")
    if record[1] in (0, 90):
        return
    if app.tls is not None and app.tls["alert"] is None:
        app.tls["alert"] = name
    conn.event("tls-alert", frame, t, st.frames_cap)


def _messages(st: State, conn: Connection, app: App, part: Payload, t: int, frame: int, from_orig: bool) -> bool:
    """Handle whole handshake messages; returns True when the hello of this direction is done with."""
    body = part.tls_body
    if len(body) < 4:
        return False
    size = int.from_bytes(body[1:4], "big")
    if size > _LIMIT:
        return True
    if len(body) < 4 + size:
        return False
    part.tls_body = body[4 + size :]
    if body[0] == 1:
        hello = tls.client_hello(body[4 : 4 + size])
        if hello is not None:
            st.tls.client(st, conn, app, hello, t, frame)
        return True
    if body[0] == 2:
        answer = tls.server_hello(body[4 : 4 + size])
        if answer is not None:
            st.tls.server(conn, app, answer, t, frame)
    return True


def _dns(
    st: State, conn: Connection, d: Direction, part: Payload, data: bytes, t: int, frame: int, from_orig: bool
) -> None:
    """DNS over TCP: messages behind a length of two bytes."""
    part.rest += data
    key = conn.key if from_orig else reverse_key(conn.key)
    while len(part.rest) >= 2:
        size = part.rest[0] << 8 | part.rest[1]
        if len(part.rest) < 2 + size:
            break
        if dns.message(st, part.rest, 2, 2 + size, False, key, t, frame, "tcp"):
            conn.service = ("dns", 1.0, "payload")
        part.rest = part.rest[2 + size :]
    if len(part.rest) > _LONGEST_DNS:
        d.app = IGNORE
        part.rest = b""


def _lines(
    st: State, conn: Connection, d: Direction, app: App, data: bytes, t: int, frame: int, from_orig: bool
) -> None:
    """Failed and clear-text logins of the old line protocols; what was typed is never kept."""
    service = LINE_PORTS.get(_server_port(conn.key), "")
    if from_orig:
        upper = data[:16].upper()
        login = upper.startswith((b"USER ", b"PASS ", b"AUTH PLAIN", b"AUTH LOGIN")) or b" LOGIN " in upper
        if login and app.login is None:
            app.login = service
            conn.event("cleartext-login", frame, t, st.frames_cap)
    else:
        if service == "telnet" and app.login is None and b"assword" in data:
            app.login = service
            conn.event("cleartext-login", frame, t, st.frames_cap)
        for needle in _FAILURES.get(service, ()):
            hits = data.count(needle) if needle[:1] == b" " else int(data.startswith(needle) or b"\n" + needle in data)
            if hits:
                app.failures += hits
                conn.event("login-failure", frame, t, st.frames_cap)
                break
