"""From octets to request heads and bodies (RFC 9112), with httptools or, where it is missing, with h11.

Sans-IO. A head is cut from the stream and must match `_HEAD`, one strict grammar, before a library sees it: what llhttp
and h11 would each forgive (bare line feeds, folded lines, blanks before the colon, control characters) is refused for
both, so the two agree, and nobody behind or before us can read the same octets as different requests. How long a body
is, and chunks, are decided here for both (RFC 9112 §6): either one Content-Length or the coding `chunked`, never both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import h11

from webui.messages import Request, RequestError

try:
    import httptools
except ImportError:  # armhf and OpenWrt have no build of it
    httptools = None  # type: ignore[assignment]

MAX_HEAD_BYTES: Final = 16 << 10
MAX_HEADERS: Final = 64  # browsers send about 15
_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILER_BYTES: Final = 4096

# Possessive quantifiers: no backtracking on hostile input.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Targets: origin-form, or absolute-form as to a proxy; a fragment is never sent (RFC 9112 §3.2).
_TARGET: Final = rb"(?:/[!\"$-~]*+|[Hh][Tt][Tt][Pp][Ss]?+://[0-9A-Za-z._\-:\[\]]{1,255}+(?:[/?][!\"$-~]*+)?+|\*)"
_HEAD: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}+) (" + _TARGET + rb") HTTP/([0-9])\.([0-9])\r\n"
    rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8}+)[\t ]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?")
_TRAILER_LINE: Final = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+")
_FRAMING: Final = re.compile(rb"\r\n(content-length|transfer-encoding):[ \t]*([^\r]*)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,12}")
# Fields that mean something different when joined; a second one is an attack or a broken program.
_SINGLE: Final = frozenset(("host", "expect", "content-type", "origin", "sec-fetch-site"))

Fields = list[tuple[bytes, bytes]]
HeadParser = Callable[[bytes], tuple[bytes, Fields]]  # one whole head -> target and header fields


def could_be_request(start: bytes | bytearray) -> bool:
    """Whether octets may still become a request line; a TLS hello, for one, is refused at its first octet."""
    return not start or 0x21 <= start[0] <= 0x7E


def parse_head(data: bytes, client: str, parser: HeadParser) -> Request:
    """Read one head, from the request line to the empty line; raises RequestError."""
    if data.count(b"\r\n") > MAX_HEADERS + 2:
        raise RequestError(431, "too many header fields")
    match = _HEAD.fullmatch(data)
    if match is None:
        raise RequestError(400, "not a request head")
    method, _, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise RequestError(505, "HTTP/1.0 and HTTP/1.1 only")
    if method not in _METHODS:
        raise RequestError(501, "unknown method")
    _check_framing(data, minor == b"1")
    target, fields = parser(data)
    headers: dict[str, str] = {}
    for name, value in fields:
        key = name.decode("ascii").lower()
        text = value.decode("latin-1").strip(" \t")
        if key not in headers:
            headers[key] = text
        elif key in _SINGLE:
            raise RequestError(400, f"more than one {key}")
        else:
            headers[key] += ", " + text
    if minor == b"1" and "host" not in headers:
        raise RequestError(400, "no Host")
    return Request(method.decode("ascii"), target.decode("ascii"), minor[0] - 0x30, headers, client)


def _check_framing(data: bytes, chunks_allowed: bool) -> None:
    """Refuse every head about whose body's length two readers could disagree (RFC 9112 §6.3, §11.2).

    On the octets, because h11 makes one of repeated lengths.
    """
    found = _FRAMING.findall(data)
    if not found:
        return
    if len(found) > 1:
        raise RequestError(400, "more than one length of the body")
    name, value = found[0]
    if name.lower() == b"content-length":
        if not _LENGTH.fullmatch(value.rstrip(b" \t")):
            raise RequestError(400, "not a Content-Length")
    elif not chunks_allowed:
        raise RequestError(400, "no transfer codings in HTTP/1.0")
    elif value.rstrip(b" \t").lower() != b"chunked":
        raise RequestError(501, "unknown transfer coding")


def wants_close(request: Request) -> bool:
    """Whether the connection ends after the answer: asked for, or HTTP/1.0 (RFC 9112 §9.3)."""
    connection = request.headers.get("connection")
    if connection is None:
        return request.minor == 0
    return request.minor == 0 or "close" in [option.strip() for option in connection.lower().split(",")]


def announces_body(request: Request) -> bool:
    """Whether octets of a body follow the head (RFC 9112 §6)."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


class BodyReader:
    """Cuts one body out of the stream and undoes `chunked`; raises RequestError, 413 beyond `limit` octets.

    The request comes from `parse_head`, which let through only one length of one kind.
    """

    __slots__ = ("_chunked", "_chunks", "_left", "_limit", "_parts", "_state", "_trailer_bytes", "size")

    def __init__(self, request: Request, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._chunks = 0
        self._left = 0
        self._state = "done"
        self._trailer_bytes = 0
        self.size = 0  # octets read so far
        length = request.headers.get("content-length")
        self._chunked = "transfer-encoding" in request.headers
        if self._chunked:
            self._state = "size"
        elif length is not None:
            self._left = int(length)
            if self._left > limit:
                raise RequestError(413, "the body is too large")
            self._state = "data" if self._left else "done"

    @property
    def complete(self) -> bool:
        """Whether the whole body was read."""
        return self._state == "done"

    def feed(self, buffer: bytearray) -> None:
        """Take what belongs to the body from the front of `buffer`; what follows it stays there."""
        while self._state != "done":
            if self._state == "data":
                if not buffer:
                    return
                part = bytes(buffer[: self._left])
                del buffer[: len(part)]
                self._parts.append(part)
                self.size += len(part)
                self._left -= len(part)
                if self._left:
                    return
                self._state = "data_end" if self._chunked else "done"
                continue
            end = buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)
            if end < 0:
                if len(buffer) >= _MAX_CHUNK_LINE or (self._state == "data_end" and len(buffer) >= 2):
                    raise RequestError(400, "a chunk has no proper end")
                return
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            self._line(line)

    def _line(self, line: bytes) -> None:
        if self._state == "data_end":
            if line:
                raise RequestError(400, "a chunk is longer than it says")
            self._state = "size"
        elif self._state == "size":
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise RequestError(400, "not a chunk size")
            self._left = int(match[1], 16)
            if self.size + self._left > self._limit:
                raise RequestError(413, "the body is too large")
            # A flood of tiny chunks costs more than it carries; no browser sends pieces this small.
            self._chunks += 1
            if self._chunks > 64 + self.size // 16:
                raise RequestError(400, "the chunks are too small")
            self._state = "data" if self._left else "trailer"
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER_LINE.fullmatch(line):
                raise RequestError(400, "not a trailer")
        else:
            self._state = "done"

    def take(self) -> bytes:
        """What was read since the last take; afterwards nothing of it is held here."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _HttptoolsHead:
    """Collects the callbacks of one head."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: Fields = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def httptools_head(data: bytes) -> tuple[bytes, Fields]:
    """Read a head with httptools (llhttp in C); raises RequestError."""
    head = _HttptoolsHead()
    try:
        httptools.HttpRequestParser(head).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # `Upgrade: h2c` of Java clients: the offer is ignored, the request answered (RFC 9110 §7.8)
    except httptools.HttpParserError as err:
        raise RequestError(400, "not a request head") from err
    return head.target, head.fields


def h11_head(data: bytes) -> tuple[bytes, Fields]:
    """Read a head with h11 (pure Python); raises RequestError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError as err:
        raise RequestError(400, "not a request head") from err
    if not isinstance(event, h11.Request):
        raise RequestError(400, "not a request head")
    return event.target, list(event.headers)


PARSERS: Final[dict[str, HeadParser]] = {"h11": h11_head}
if httptools is not None:
    PARSERS["httptools"] = httptools_head
DEFAULT_PARSER: Final = "httptools" if "httptools" in PARSERS else "h11"
