"""A small HTTP/1.1 server on asyncio: hostile clients outside, plain request and response values inside.

One request of a connection is under way at a time, so responses leave in request order by construction; what a client
sends ahead waits in a buffer of bounded size, then in the kernel. Every phase of a connection has a deadline, looked at
twice a second by one sweep (a timer per connection would cost more than it decides). Parsing is in `parsing`, policy
in the application. No Date field is sent: the boxes that we run on may have no clock (RFC 9110 §6.6.1).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

from gateway.buckets import TokenBuckets
from gateway.values import value_class
from webui.bodies import BodyStream
from webui.messages import REASONS, App, Endpoint, Request, RequestError, Response
from webui.parsing import (
    MAX_HEAD_BYTES,
    PARSERS,
    BodyReader,
    announces_body,
    could_be_request,
    parse_head,
    wants_close,
)

log = logging.getLogger(__name__)

_MAX_BUFFER_BYTES: Final = 64 << 10  # read ahead of the request under way
_MAX_LINGER_BYTES: Final = 4 << 20  # thrown away after a refusal, so that its text still arrives
_LINGER_S: Final = 2.0
_DRAIN_S: Final = 20.0  # for what a response's `drain_bytes` allows
_WRITE_BUFFER_BYTES: Final = 64 << 10
_SWEEP_S: Final = 0.5
_EVICTION_SCAN: Final = 64  # connections looked at to find one that may go
_NEVER: Final = float("inf")


@value_class
class ServerLimits:
    """Bounds of a server; the defaults are those of the portal."""

    read_timeout_s: float = 10.0  # for one whole request, also the first after connecting
    body_timeout_s: float = 60.0  # without an octet of a body that its handler streams
    write_timeout_s: float = 10.0  # without progress of the client
    idle_timeout_s: float = 120.0  # between the requests of a kept connection
    max_connections: int = 2048
    max_connections_per_client: int = 32
    max_body_bytes_total: int = 16 << 20  # of all bodies being read: the box may have 256 MB
    rate: float | None = 100.0  # requests per second of one client address; None: no limit
    rate_burst: float = 200.0
    rate_cleanup_interval_s: float = 600.0


@dataclass(slots=True)
class ServerCounts:
    """What a server did, as cumulative numbers."""

    requests: int = 0
    connections: int = 0
    refused_connections: int = 0
    rate_limited: int = 0
    bad_requests: int = 0
    timeouts: int = 0
    failures: int = 0


@dataclass(slots=True)  # not frozen: one is made per redirect, and frozen ones are slow to make
class Decision:
    """What is done with a request: answered by its head alone, or by an endpoint that wants its body."""

    request: Request | None  # None: refused before it was read
    answer: Response | Endpoint

    @property
    def has_body(self) -> bool:
        """Whether octets of a body follow the head."""
        return self.request is not None and announces_body(self.request)


class _Phase(Enum):
    READING = "reading"  # no request under way: waiting for one, or in the middle of it
    HANDLING = "handling"  # a handler works on it
    STREAMING = "streaming"  # a body is written piece by piece
    LINGERING = "lingering"  # refused and half closed; what still comes is thrown away
    CLOSING = "closing"  # the last octets leave


class HttpServer:
    """All listeners of a process, with bounds that hold over all of them."""

    def __init__(self, limits: ServerLimits, parser: str, group: asyncio.TaskGroup) -> None:
        """`parser` is a name in `parsing.PARSERS`; handlers that wait run as tasks of `group`."""
        self.limits = limits
        self.counts = ServerCounts()
        self.head_parser = PARSERS[parser]
        self.group = group
        self.loop = asyncio.get_running_loop()
        self.stopping = False
        self.body_bytes = 0
        self.connections: dict[Connection, None] = {}  # in the order of their making
        self.per_client: dict[str, int] = {}
        self.buckets = self._make_buckets()
        self._next_cleanup = self.loop.time() + limits.rate_cleanup_interval_s
        self._sweeper = group.create_task(self._sweep(), name="http sweep")

    def _make_buckets(self) -> TokenBuckets | None:
        if self.limits.rate is None:
            return None
        return TokenBuckets(self.limits.rate, self.limits.rate_burst)

    def set_limits(self, limits: ServerLimits) -> None:
        """Take other bounds; connections that exist keep their deadlines until their next request."""
        changed = limits != self.limits
        self.limits = limits
        if changed:
            self.buckets = self._make_buckets()

    def decide(self, head: bytes, client: str, app: App) -> Decision:
        """Count a request, hold it against its client's rate, parse its head and route it; raises RequestError."""
        self.counts.requests += 1
        if self.buckets is not None:
            now = self.loop.time()
            if not self.buckets.take(client, now):
                self.counts.rate_limited += 1
                wait_s = max(1, math.ceil(self.buckets.wait_s(client, now) - 1e-6))  # a rounding error is no second
                return Decision(None, _refusal(app, path_of(head), 429, "too many requests", wait_s))
        request = parse_head(head, client, self.head_parser)
        try:
            answer = app.route(request)
        except Exception:
            log.exception("routing failed client=%s", client)
            self.counts.failures += 1
            answer = _refusal(app, request.path, 500, "internal error")
        return Decision(request, answer)

    async def stop(self, grace_s: float) -> None:
        """End gracefully: idle connections at once, those under way when answered or after `grace_s` seconds.

        Listeners are their owners' to close first.
        """
        self.stopping = True
        for connection in list(self.connections):
            connection.stop()
        deadline = self.loop.time() + grace_s
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        self._sweeper.cancel()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, or say that it must go. At the total bound the longest idle one goes instead."""
        limits = self.limits
        held = self.per_client.get(connection.client, 0)
        if held >= limits.max_connections_per_client or self.stopping:
            self.counts.refused_connections += 1
            return False
        if len(self.connections) >= limits.max_connections and not self._evict():
            self.counts.refused_connections += 1
            return False
        self.per_client[connection.client] = held + 1
        self.connections[connection] = None
        self.counts.connections += 1
        return True

    def _evict(self) -> bool:
        for number, connection in enumerate(self.connections):
            if connection.is_reading:
                connection.abort()
                self.forget(connection)
                return True
            if number >= _EVICTION_SCAN:
                break
        return False

    def forget(self, connection: Connection) -> None:
        """Count a connection out; twice is once."""
        if connection in self.connections:
            del self.connections[connection]
            held = self.per_client[connection.client] - 1
            if held:
                self.per_client[connection.client] = held
            else:
                del self.per_client[connection.client]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self.loop.time()
            for connection in [one for one in self.connections if one.deadline <= now]:
                connection.expire()
            if self.buckets is not None and now >= self._next_cleanup:
                self._next_cleanup = now + self.limits.rate_cleanup_interval_s
                self.buckets.sweep(now)


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "__weakref__",
        "_app",
        "_begun",
        "_body",
        "_buffer",
        "_decision",
        "_drain_bytes",
        "_drained",
        "_endpoint",
        "_eof",
        "_phase",
        "_request",
        "_scanned",
        "_server",
        "_stream_in",
        "_task",
        "_thrown_away",
        "_transport",
        "client",
        "deadline",
    )
    _transport: asyncio.Transport

    def __init__(self, server: HttpServer, app: App, data: bytes, decision: Decision | None) -> None:
        """`data` and `decision` are what was read and decided before there was a connection object."""
        self._server = server
        self._app = app
        self._decision = decision
        self._begun = decision is None and not data
        self._buffer = bytearray(data)
        self._scanned = 0  # octets of the buffer that hold no end of a head
        self._phase = _Phase.READING
        self._request: Request | None = None  # its head is read, its body may not be
        self._endpoint: Endpoint | None = None
        self._body: BodyReader | None = None
        self._stream_in: BodyStream | None = None  # the body of the request under way, when its handler streams it
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Event | None = None  # exists while the write buffer is full
        self._thrown_away = 0
        self._drain_bytes = _MAX_LINGER_BYTES
        self._eof = False
        self.client = ""
        self.deadline = _NEVER

    @property
    def is_reading(self) -> bool:
        """Whether no request is being answered."""
        return self._phase is _Phase.READING

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it without a word when a bound is reached."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class has no common base with it
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if isinstance(peer, tuple) else "local"
        if not self._server.admit(self):
            self._phase = _Phase.CLOSING
            self._transport.abort()
            return
        self.deadline = self._server.loop.time() + self._server.limits.read_timeout_s
        if not self._begun:
            self._server.loop.call_soon(self._begin)  # not from in here, where the transport is half made

    def _begin(self) -> None:
        """Go on with what came with the connection, before anything that came later; twice is once."""
        if self._begun or self._phase is not _Phase.READING:
            return
        self._begun = True
        decision, self._decision = self._decision, None
        try:
            if decision is not None:
                self._proceed(decision)
        except RequestError as err:
            self._refuse(err)
        if self._phase is _Phase.READING and self._buffer:
            self._advance()

    def data_received(self, data: bytes) -> None:
        """Octets came: go on with the request, or keep them for the next one."""
        self._begin()  # uvloop may read before it runs what was called soon
        if self._phase is _Phase.LINGERING:
            self._thrown_away += len(data)
            if self._thrown_away > self._drain_bytes:
                self.abort()
            return
        if self._phase is _Phase.CLOSING:
            return
        buffer = self._buffer
        if not buffer and self._request is None and self._phase is _Phase.READING:
            self.deadline = self._server.loop.time() + self._server.limits.read_timeout_s
        buffer += data
        if self._stream_in is not None and not self._stream_in.complete:
            self._feed_stream(self._stream_in)
        elif self._phase is _Phase.READING and self._drained is None:
            self._advance()
        elif len(buffer) > _MAX_BUFFER_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; it still gets the answer to what it asked."""
        self._begin()
        self._eof = True
        if self._stream_in is not None and not self._stream_in.complete:
            return False  # the rest of the body will never come: the handler is cancelled
        if self._transport.get_extra_info("sslcontext") is not None:
            return False  # TLS as asyncio has it closes both ways at once
        return self._phase in (_Phase.HANDLING, _Phase.STREAMING)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: nobody waits for the handler."""
        self._phase = _Phase.CLOSING
        self._release_body()
        self._server.forget(self)
        if self._drained is not None:
            self._drained.set()
        task, self._task = self._task, None  # what cancels it would hold us, our buffers and TLS until a collection
        if task is not None:
            task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._drained = asyncio.Event()
        self.deadline = self._server.loop.time() + self._server.limits.write_timeout_s

    def resume_writing(self) -> None:
        """The client caught up."""
        if self._drained is not None:
            self._drained.set()
            self._drained = None
        if self._phase is _Phase.STREAMING:
            self.deadline = _NEVER
        elif self._phase is _Phase.READING:
            self.deadline = self._server.loop.time() + self._server.limits.idle_timeout_s
            self._transport.resume_reading()
            self._advance()

    # Called by the server

    def expire(self) -> None:
        """The deadline of the phase is over."""
        self.deadline = _NEVER
        counts = self._server.counts
        if self._phase is _Phase.HANDLING and self._stream_in is not None:
            counts.timeouts += 1
            self._stream_in.fail(RequestError(408, "the body stopped coming"))
        elif self._phase is not _Phase.READING or self._drained is not None:
            counts.timeouts += 1
            self.abort()
        elif self._request is None and not self._buffer:
            self._close()  # idle: not an error
        else:
            counts.timeouts += 1
            self._refuse(RequestError(408, "the request took too long"))

    def stop(self) -> None:
        """Close if nothing is under way; otherwise the answer under way says that it is the last."""
        if self._phase is _Phase.READING:
            self._close()

    def abort(self) -> None:
        """End now, whatever is unsent."""
        self._phase = _Phase.CLOSING
        self._transport.abort()

    # Reading

    def _advance(self) -> None:
        """Answer as many requests of the buffer as can be answered without waiting."""
        try:
            # Not beyond a full write buffer: a client that asks and does not read is waited for.
            while self._phase is _Phase.READING and self._drained is None and self._read_one():
                pass
        except RequestError as err:
            self._refuse(err)

    def _read_one(self) -> bool:
        """Make one step; False when more octets are needed. Raises RequestError."""
        request = self._request
        if request is not None:
            return self._read_body(request)
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # some clients end a form with one line too many (RFC 9112 §2.2)
            del buffer[:2]
            self._scanned = 0
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0 or end + 4 > MAX_HEAD_BYTES:
            if end >= 0 or len(buffer) > MAX_HEAD_BYTES:
                raise RequestError(431, "the request head is too large")
            if not could_be_request(buffer) and buffer != b"\r":
                raise RequestError(400, "not a request")
            self._scanned = max(0, len(buffer) - 3)
            return False
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._scanned = 0
        return self._proceed(self._server.decide(head, self.client, self._app))

    def _proceed(self, decision: Decision) -> bool:
        """Answer a request whose head was read, or begin with its body; False when more octets are needed."""
        request, answer = decision.request, decision.answer
        if isinstance(answer, Response):
            if decision.has_body:
                answer.close = True  # the body is not read; what follows it cannot be found
            self._respond(answer, request)
            return bool(self._buffer)
        assert request is not None
        self._request = request  # whoever refuses it below wants to know what it asked for
        body = BodyReader(request, answer.body_limit)
        expects = not body.complete and "expect" in request.headers
        if expects and request.headers["expect"].lower() != "100-continue":
            raise RequestError(417, "unknown expectation")

        def go_on() -> None:
            if expects and not self._buffer and request.minor:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

        if answer.streams:
            self._request = None
            request.stream = self._stream_in = BodyStream(body, go_on, self._read_on)
            self._handle(request, answer)
            if self._stream_in is not None:
                self._feed_stream(self._stream_in)
            return False
        self._request, self._endpoint, self._body = request, answer, body
        go_on()
        return self._read_body(request)

    def _feed_stream(self, stream: BodyStream) -> None:
        """Hand on what came of a streamed body; a client that sends nothing for long is given up."""
        stream.feed(self._buffer)
        self.deadline = _NEVER
        if stream.full:
            self._transport.pause_reading()
        elif not stream.complete and self._phase is _Phase.HANDLING:
            self.deadline = self._server.loop.time() + self._server.limits.body_timeout_s

    def _read_on(self) -> None:
        """The handler took what waited: read more of the body."""
        self._transport.resume_reading()
        if self._stream_in is not None:
            self._feed_stream(self._stream_in)

    def _read_body(self, request: Request) -> bool:
        body, endpoint, server = self._body, self._endpoint, self._server
        assert body is not None
        assert endpoint is not None
        if not body.complete:
            before = body.size
            body.feed(self._buffer)
            server.body_bytes += body.size - before
            if server.body_bytes > server.limits.max_body_bytes_total:
                raise RequestError(503, "too many bodies at once")
            if not body.complete:
                return False
        self._release_body()
        request.body = body.take()
        self._request = self._endpoint = self._body = None
        self._handle(request, endpoint)
        return self._phase is _Phase.READING and bool(self._buffer)

    def _release_body(self) -> None:
        if self._body is not None:
            self._server.body_bytes -= self._body.size
            self._body = None

    # Answering

    def _handle(self, request: Request, endpoint: Endpoint) -> None:
        try:
            answer = endpoint.handler(request)
        except Exception:
            log.exception("a handler failed client=%s", self.client)
            self._server.counts.failures += 1
            answer = _refusal(self._app, request.path, 500, "internal error")
        if isinstance(answer, Response) and isinstance(answer.body, bytes) and self._stream_in is None:
            self._respond(answer, request)
            return
        self._phase = _Phase.HANDLING
        self.deadline = _NEVER  # handlers bound their own time
        self._task = self._server.group.create_task(self._answer_later(answer, request), name="http request")

    async def _answer_later(self, answer: Response | Awaitable[Response], request: Request) -> None:
        try:
            response = answer if isinstance(answer, Response) else await answer
        except RequestError as err:  # what came was no body; its handler let us say so
            self._server.counts.bad_requests += 1
            response = _refusal(self._app, request.path, err.status, err.reason)
        except Exception:
            log.exception("a handler failed client=%s", self.client)
            self._server.counts.failures += 1
            response = _refusal(self._app, request.path, 500, "internal error")
        if self._phase is not _Phase.HANDLING:  # the client went away meanwhile
            return
        if self._stream_in is not None and not self._stream_in.complete:
            response.close = True  # answered before its end, which cannot be found any more
            self._drain_bytes = max(_MAX_LINGER_BYTES, response.drain_bytes)
        else:
            self._stream_in = None
        if isinstance(response.body, bytes):
            self._respond(response, request)
        else:
            await self._stream(response, response.body, request)
        self._task = None
        self._transport.resume_reading()
        if self.is_reading and self._buffer:
            self._advance()  # itself waits for a client that does not read

    def _respond(self, response: Response, request: Request | None) -> None:
        """Write a whole response; then wait for the next request, or close."""
        assert isinstance(response.body, bytes)
        keep = not (response.close or self._server.stopping or request is None or wants_close(request))
        head_only = request is not None and request.method == "HEAD"
        self._transport.write(serialize(response, response.body, keep=keep, head_only=head_only))
        self._finish(keep=keep, unread=self._unread(request))

    def _unread(self, request: Request | None) -> bool:
        """Whether the client may still be sending, so that closing at once would reset the connection."""
        if self._buffer or request is None or self._stream_in is not None:
            return True
        if request.stream is not None:
            return False
        return not request.body and announces_body(request)

    def _finish(self, *, keep: bool, unread: bool) -> None:
        now = self._server.loop.time()
        if keep and not self._eof:
            self._phase = _Phase.READING
            limits = self._server.limits
            if self._drained is not None:
                self.deadline = now + limits.write_timeout_s
            else:
                self.deadline = now + (limits.read_timeout_s if self._buffer else limits.idle_timeout_s)
        elif unread and not self._eof:
            # A close with octets unread becomes a reset, and the client never sees why (RFC 9112 §9.6).
            self._phase = _Phase.LINGERING
            self.deadline = now + (_DRAIN_S if self._drain_bytes > _MAX_LINGER_BYTES else _LINGER_S)
            self._buffer.clear()
            self._stream_in = None
            if self._transport.can_write_eof():  # TLS has no half-closed connections here
                self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._close()

    def _close(self) -> None:
        self._phase = _Phase.CLOSING
        self.deadline = self._server.loop.time() + self._server.limits.write_timeout_s
        self._transport.close()

    def _refuse(self, error: RequestError) -> None:
        self._server.counts.bad_requests += 1
        log.debug("request refused client=%s status=%d reason=%s", self.client, error.status, error.reason)
        self._release_body()
        path = path_of(self._buffer) if self._request is None else self._request.path
        self._request = self._endpoint = None
        self._respond(_refusal(self._app, path, error.status, error.reason), None)

    async def _stream(self, response: Response, pieces: AsyncGenerator[bytes, None], request: Request) -> None:
        """Write a body as it comes, chunked for HTTP/1.1, with the client's pace as the bound."""
        chunked = request.minor == 1
        keep = chunked and not (response.close or self._server.stopping or wants_close(request))
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._phase = _Phase.STREAMING
        self._transport.write(_head(response, framing, keep=keep))
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if request.method == "HEAD" or self._transport.is_closing():
                        break
                    if piece:
                        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    if self._drained is not None:
                        await self._drained.wait()
        except Exception:
            # Half a body must not look like a whole one.
            log.exception("a stream failed client=%s", self.client)
            self._server.counts.failures += 1
            self.abort()
            return
        if self._transport.is_closing():
            return
        if chunked and request.method != "HEAD":
            self._transport.write(b"0\r\n\r\n")
        self._finish(keep=keep, unread=False)


def path_of(start: bytes | bytearray) -> str:
    """The path that a head begins with, as far as that can be told before it is parsed; else empty."""
    line = bytes(start[:1024]).split(b"\r\n", 1)[0].split(b" ")
    target = line[1] if len(line) > 2 else b""
    return target.partition(b"?")[0].decode("ascii", "replace") if target.startswith(b"/") else ""


def _refusal(app: App, path: str, status: int, reason: str, retry_after_s: int | None = None) -> Response:
    """The application's words for a refusal; the connection ends with it."""
    response = app.refusal(path, status, reason, retry_after_s)
    response.close = True
    return response


def _head(response: Response, framing: str, *, keep: bool) -> bytes:
    status = response.status
    content_type = f"Content-Type: {response.content_type}\r\n" if response.content_type else ""
    fields = "".join([f"{name}: {value}\r\n" for name, value in response.headers])
    connection = "" if keep else "Connection: close\r\n"
    # A status that we have no words for is still an answer: the phrase may be empty (RFC 9112 §4).
    head = f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\n{content_type}{fields}{framing}{connection}\r\n"
    return head.encode("latin-1")


def serialize(response: Response, body: bytes, *, keep: bool, head_only: bool) -> bytes:
    """A whole response as octets."""
    framing = "" if response.status in (204, 304) else f"Content-Length: {len(body)}\r\n"
    head = _head(response, framing, keep=keep)
    return head if head_only or response.status in (204, 304) else head + body
