"""HTTP requests and responses as handlers see them; plain values without a socket (RFC 9110).

An application is one object with `route`: it is asked as soon as the head of a request is there, and answers at once
(redirects, refusals: nothing of a body is read for them) or names the endpoint that wants the body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.values import value_class

MAX_BODY_BYTES: Final = 1 << 20  # reference value of the portal: 1 MiB

REASONS: Final = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}


class RequestError(Exception):
    """The peer is wrong: what it sent is not a request that we take. `status` is what it is told before we close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class Request:
    """One request. `target` is as it was sent; header names are in lower case, repeated fields joined by a comma."""

    method: str
    target: str
    minor: int  # 0 or 1: HTTP/1.0 or HTTP/1.1
    headers: dict[str, str]
    client: str  # address of the peer
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None  # the body as it comes, for an endpoint that streams it

    @property
    def path(self) -> str:
        """The target without its query, as sent (not decoded)."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first question mark, as sent; empty without one."""
        return self.target.partition("?")[2]

    def header(self, name: str) -> str:
        """The value of a header field, named in lower case; empty when absent."""
        return self.headers.get(name, "")

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Response:
    """One response. A body that is a generator is sent in chunks as it comes, never more than one buffered; it is
    closed when the client went away.

    `close` ends the connection after it. Content-Length, Transfer-Encoding and Connection are the server's to write.
    `drain_bytes` of a body that was not read are still taken and thrown away: a program that sends a whole file before
    it reads the answer would otherwise see a reset instead of a refusal.
    """

    status: int
    body: bytes | AsyncGenerator[bytes, None] = b""
    content_type: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    close: bool = False
    drain_bytes: int = 0


Handler = Callable[[Request], Response | Awaitable[Response]]


@value_class
class Endpoint:
    """Who answers a request once its body is there, and how large that body may be.

    An endpoint that `streams` is asked at the head already: it takes the body from `Request.stream` piece by piece,
    at its own pace (a piece is at most what one read gave), and may answer before the end, which ends the connection.
    """

    handler: Handler
    body_limit: int = 0
    streams: bool = False


class App(Protocol):
    """What a listener serves."""

    def route(self, request: Request) -> Response | Endpoint:
        """Decide by the head alone; called once per request, must not block."""

    def refusal(self, path: str, status: int, reason: str, retry_after_s: int | None = None) -> Response:
        """What is answered to a request that the server itself refuses; the path is empty when it is not known."""


def plain(status: int, text: str, *, close: bool = False, retry_after_s: int | None = None) -> Response:
    """A short text answer, for programs and for errors below the pages."""
    headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    if retry_after_s is not None:
        headers.append(("Retry-After", str(retry_after_s)))
    return Response(status, f"{text}\n".encode(), "text/plain; charset=utf-8", headers, close)


def refused(path: str, status: int, reason: str, retry_after_s: int | None = None) -> Response:
    """The usual answer to what the server itself refuses: a short text, whatever was asked for."""
    return plain(status, reason, close=True, retry_after_s=retry_after_s)
