"""The HTTP server on real sockets: order, bounds, deadlines, and what hostile clients get. Both parsers, same tests."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.webui.fake_daemon import eventually
from tests.webui.wire import LOOPS, exchange, get, post, read_answer, run
from webui.listener import Listener
from webui.messages import Endpoint, Request, Response, plain, refused
from webui.parsing import PARSERS
from webui.server import HttpServer, ServerLimits

both = pytest.mark.parametrize("parser", sorted(PARSERS))


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test on both event loops: they call a protocol in different orders."""
    if request.param == "uvloop":
        LOOPS.append(pytest.importorskip("uvloop").new_event_loop)
    yield
    del LOOPS[1:]


class Echo:
    """An application that shows what it got."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.release = asyncio.Event()
        self.cancelled = 0
        self.closed_streams = 0

    refusal = staticmethod(refused)

    def route(self, request: Request) -> Response | Endpoint:
        self.seen.append(request.target)
        match request.path:
            case "/now":
                return plain(200, "at once")
            case "/slow":
                return Endpoint(self.slow)
            case "/stream":
                return Endpoint(lambda _: Response(200, self.pieces(), "text/event-stream"))
            case "/endless":
                return Endpoint(lambda _: Response(200, self.endless(), "text/event-stream"))
            case "/fails":
                raise RuntimeError("on purpose")
            case "/fails-later":
                return Endpoint(self.fail)
            case _:
                return Endpoint(lambda r: Response(200, r.target.encode() + b"|" + r.body, "text/plain"), 1000)

    async def slow(self, request: Request) -> Response:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return plain(200, "slow")

    async def fail(self, request: Request) -> Response:
        await asyncio.sleep(0)
        raise RuntimeError("on purpose")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for number in range(3):
            yield b"piece %d\n" % number
            await asyncio.sleep(0)

    async def endless(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            self.closed_streams += 1


@asynccontextmanager
async def serving(parser: str, limits: ServerLimits | None = None) -> AsyncIterator[tuple[int, HttpServer, Echo]]:
    """A server on a free port of loopback."""
    app = Echo()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    port = int(sock.getsockname()[1])
    async with asyncio.TaskGroup() as group:
        server = HttpServer(limits or ServerLimits(rate=None), parser, group)
        listener = Listener(server, sock, app)
        try:
            yield port, server, app
        finally:
            listener.close()
            app.release.set()
            await server.stop(2.0)
            assert not server.per_client
            assert server.body_bytes == 0


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server ended the connection without a word."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@both
def test_pipelined_requests_are_answered_in_their_order(parser: str) -> None:
    """Also when the first of them takes longest."""

    async def story() -> None:
        async with serving(parser) as (port, _, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"".join(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"slow", b"b", b"now")))
            writer.write(b"POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            await eventually(lambda: app.seen, "the first request arrived")
            assert app.seen == ["/slow"]  # one at a time
            app.release.set()
            answers = [await read_answer(reader) for _ in range(4)]
            assert [answer.body for answer in answers] == [b"slow\n", b"/b|", b"at once\n", b"/c|abc"]
            assert all("connection" not in answer.fields for answer in answers)
            writer.close()

    run(story())


@both
def test_a_flood_of_pipelined_requests_is_held_back(parser: str) -> None:
    """While one is under way only a bounded number of octets is read; then all are answered."""

    async def story() -> None:
        async with serving(parser) as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n" * 20000)
            await eventually(lambda: app.seen, "the first request arrived")
            await asyncio.sleep(0.1)
            (connection,) = server.connections
            assert len(connection._buffer) < 1 << 20
            app.release.set()
            for _ in range(20001):
                assert (await read_answer(reader)).status == 200
            writer.close()

    run(story())


@both
def test_connections_close_when_asked_and_for_old_clients(parser: str) -> None:
    """`Connection: close` and HTTP/1.0 end it, and the answer says so."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            closing = await exchange(port, b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            old = await exchange(port, b"GET /now HTTP/1.0\r\n\r\n")
            kept = await exchange(port, b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n")
            assert closing.closed
            assert closing.fields["connection"] == "close"
            assert old.closed
            assert not kept.closed

    run(story())


@both
def test_head_gets_the_fields_only(parser: str) -> None:
    """Content-Length is that of the GET; no body follows."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HEAD /now HTTP/1.1\r\nHost: a\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n")
            first = await read_answer(reader, head=True)
            second = await read_answer(reader)
            assert first.fields["content-length"] == "8"
            assert second.body == b"at once\n"
            writer.close()

    run(story())


@both
def test_chunked_bodies_and_split_octets_are_read(parser: str) -> None:
    """Octet by octet is as good as all at once."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            wire = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            for octet in wire + b"\r\nGET /q HTTP/1.1\r\nHost: a\r\n\r\n":
                writer.write(bytes([octet]))
                await writer.drain()
            assert (await read_answer(reader)).body == b"/p|abcde"
            assert (await read_answer(reader)).body == b"/q|"
            writer.close()

    run(story())


@both
def test_a_client_that_waits_is_told_to_continue(parser: str) -> None:
    """100 before the body; at once 413 instead when it would be refused; 417 for other expectations."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            head = b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: %b\r\nContent-Length: %d\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head % (b"100-Continue", 3))
            assert (await read_answer(reader)).status == 100
            writer.write(b"abc")
            assert (await read_answer(reader)).body == b"/p|abc"
            writer.close()
            assert (await exchange(port, head % (b"100-continue", 5000))).status == 413
            assert (await exchange(port, head % (b"miracle", 3))).status == 417

    run(story())


@both
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\x00" * 100, 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n", 500),
        (b"GET /fails-later HTTP/1.1\r\nHost: a\r\n\r\n", 500),
    ],
)
def test_bad_requests_get_their_answer_and_others_notice_nothing(parser: str, data: bytes, status: int) -> None:
    """The connection is closed, the process lives, the next client is served."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            answer = await exchange(port, data)
            assert (answer.status, answer.closed) == (status, True)
            assert (await get(port, "/now", "a")).status == 200

    run(story())


@both
def test_a_refusal_arrives_although_the_client_still_sends(parser: str) -> None:
    """A close with octets unread would reset the connection; a megabyte after the refusal is thrown away instead."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            head = b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
            answer = await exchange(port, head + b"x" * 1000000)
            assert (answer.status, answer.closed) == (200, True)

    run(story())


@both
def test_slow_requests_run_into_the_deadline(parser: str) -> None:
    """A head or a body that dribbles gets 408; a silent connection is closed without a word."""

    async def story() -> None:
        async with serving(parser, ServerLimits(read_timeout_s=0.3, idle_timeout_s=0.3, rate=None)) as (port, _, _):
            beginnings = (b"GET / HT", b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            answers = await asyncio.gather(*(exchange(port, data) for data in beginnings))
            assert [answer.status for answer in answers] == [408, 408]
            silent, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await silent.read() == b""
            writer.close()
            kept, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_answer(kept)).status == 200
            assert await kept.read() == b""
            writer.close()

    run(story())


@both
def test_a_client_that_does_not_read_is_dropped(parser: str) -> None:
    """An endless stream stops at the write buffer's bound, then at the write deadline, and its generator is closed."""

    async def story() -> None:
        async with serving(parser, ServerLimits(write_timeout_s=0.3, rate=None)) as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: server.counts.timeouts == 1, "the deadline passed")
            await eventually(lambda: not server.connections, "the connection is gone")
            await eventually(lambda: app.closed_streams == 1, "the generator was closed")
            writer.close()
            assert reader

    run(story())


@both
def test_a_client_that_asks_on_and_on_without_reading_is_dropped(parser: str) -> None:
    """Its answers stop at the write buffer's bound, its questions at the read buffer's."""

    async def story() -> None:
        async with serving(parser, ServerLimits(write_timeout_s=0.5, rate=None)) as (port, server, app):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", port))
            flood = asyncio.ensure_future(loop.sock_sendall(sock, b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n" * 500_000))
            await eventually(lambda: len(app.seen) > 100, "some were answered")
            await eventually(lambda: server.counts.timeouts == 1, "the deadline passed")
            with pytest.raises(ConnectionError):
                await flood
            assert len(app.seen) < 100_000
            sock.close()

    run(story())


@both
def test_streams_are_chunked_for_new_clients_and_end_the_connection_of_old_ones(parser: str) -> None:
    """An asynchronous body needs no length."""

    async def story() -> None:
        async with serving(parser) as (port, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_answer(reader)).body == b"piece 0\npiece 1\npiece 2\n"
            assert (await read_answer(reader)).body == b"at once\n"
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /stream HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\npiece 0\npiece 1\npiece 2\n")
            writer.close()

    run(story())


@both
def test_connections_are_bounded_per_client_and_in_total(parser: str) -> None:
    """One address cannot take all; at the total bound the longest idle connection makes room."""

    async def story() -> None:
        limits = ServerLimits(max_connections=4, max_connections_per_client=3, rate=None)
        async with serving(parser, limits) as (port, server, _):

            async def begin(client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
                writer.write(b"G")  # the kernel keeps connections that are silent for a while
                return reader, writer

            held = [await begin("127.0.0.1") for _ in range(3)]
            await eventually(lambda: len(server.connections) == 3, "three connections")
            reader, writer = await begin("127.0.0.1")
            assert await is_ended(reader)  # the fourth of the same client
            writer.close()
            assert (await get(port, "/now", "a", client="127.0.0.2")).status == 200
            await eventually(lambda: len(server.connections) == 3, "it was counted out")
            for number in (3, 4):
                held.append(await begin(f"127.0.0.{number}"))
            await eventually(lambda: server.counts.connections == 6, "both were taken")
            assert len(server.connections) == 4
            assert await is_ended(held[0][0])  # the oldest went
            for _, writer in held:
                writer.close()

    run(story())


@both
def test_requests_of_one_address_are_limited_in_rate(parser: str) -> None:
    """429 with Retry-After for the one; another address is served."""

    async def story() -> None:
        async with serving(parser, ServerLimits(rate=0.5, rate_burst=2)) as (port, _, _):
            answers = [await get(port, "/now", "a") for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 429]
            assert answers[2].fields["retry-after"] == "2"
            assert (await get(port, "/now", "a", client="127.0.0.2")).status == 200

    run(story())


@both
def test_all_bodies_together_are_bounded(parser: str) -> None:
    """Many half-sent bodies cannot fill the memory; what is given up is given back."""

    async def story() -> None:
        async with serving(parser, ServerLimits(max_body_bytes_total=1500, rate=None)) as (port, server, _):
            half = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(half)
            await eventually(lambda: server.body_bytes == 900, "the first body is held")
            assert (await exchange(port, half)).status == 503
            writer.close()
            await eventually(lambda: server.body_bytes == 0, "the first body was given up")
            assert (await post(port, "/p", b"x" * 1000, host="a")).status == 200

    run(story())


@both
def test_a_handler_whose_client_went_away_is_cancelled(parser: str) -> None:
    """Nobody waits for its answer."""

    async def story() -> None:
        async with serving(parser) as (port, server, app):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: app.seen, "the request arrived")
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a half-close
            writer.transport.abort()
            await eventually(lambda: app.cancelled == 1, "the handler was cancelled")
            assert not server.connections

    run(story())


@both
def test_a_client_that_leaves_in_the_middle_of_a_stream_leaves_nothing_behind(parser: str) -> None:
    """Its buffers and its TLS are freed at once: the collector sees only how few objects they are, not how large."""

    async def story() -> None:
        async with serving(parser) as (port, server, app):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: server.connections, "the connection is there")
            connection = weakref.ref(next(iter(server.connections)))
            await eventually(lambda: app.seen, "the request arrived")
            gc.disable()
            try:
                writer.transport.abort()
                await eventually(lambda: app.closed_streams, "the stream was closed")
                await eventually(lambda: connection() is None, "the connection was freed")
            finally:
                gc.enable()

    run(story())


@both
def test_a_half_closed_client_still_gets_its_answer(parser: str) -> None:
    """Some programs end their side right after the request."""

    async def story() -> None:
        async with serving(parser) as (port, _, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            writer.write_eof()
            await eventually(lambda: app.seen, "the request arrived")
            app.release.set()
            assert (await read_answer(reader)).body == b"slow\n"
            assert await reader.read() == b""
            writer.close()

    run(story())


@both
def test_a_stop_lets_the_request_under_way_finish(parser: str) -> None:
    """Idle connections close at once; the last answer says that it is the last."""

    async def story() -> None:
        async with serving(parser) as (port, server, app):
            idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: app.seen, "the request arrived")
            stop = asyncio.ensure_future(server.stop(5.0))
            assert await idle.read() == b""
            app.release.set()
            answer = await read_answer(reader)
            assert (answer.body, answer.fields["connection"]) == (b"slow\n", "close")
            await stop
            idle_writer.close()
            writer.close()

    run(story())
