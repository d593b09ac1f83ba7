"""Bodies that a handler takes as they come: its pace, its refusals, clients that stop or go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.webui.fake_daemon import eventually
from tests.webui.wire import LOOPS, read_answer, run
from webui.listener import Listener
from webui.messages import Endpoint, Request, RequestError, Response, plain, refused
from webui.parsing import DEFAULT_PARSER
from webui.server import HttpServer, ServerLimits, serialize


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def _loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test on both event loops."""
    if request.param == "uvloop":
        LOOPS.append(pytest.importorskip("uvloop").new_event_loop)
    yield
    del LOOPS[1:]


class Taker:
    """An application that takes bodies, or refuses them."""

    def __init__(self) -> None:
        self.taken = 0
        self.largest = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.errors: list[str] = []

    refusal = staticmethod(refused)

    def route(self, request: Request) -> Response | Endpoint:
        return Endpoint(self.refuse if request.path == "/refuse" else self.take, 1 << 30, streams=True)

    async def take(self, request: Request) -> Response:
        assert request.stream is not None
        try:
            async for piece in request.stream:
                self.taken += len(piece)
                self.largest = max(self.largest, len(piece))
                await self.go_on.wait()
        except RequestError as err:
            self.errors.append(err.reason)
            raise
        except asyncio.CancelledError:
            self.errors.append("cancelled")
            raise
        return plain(200, str(self.taken))

    async def refuse(self, request: Request) -> Response:
        answer = plain(503, "not now", retry_after_s=7)
        answer.drain_bytes = int(request.query)
        return answer


@asynccontextmanager
async def serving(limits: ServerLimits | None = None) -> AsyncIterator[tuple[int, Taker]]:
    """A server on a free port of loopback."""
    app = Taker()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    port = int(sock.getsockname()[1])
    async with asyncio.TaskGroup() as group:
        server = HttpServer(limits or ServerLimits(rate=None), DEFAULT_PARSER, group)
        listener = Listener(server, sock, app)
        try:
            yield port, app
        finally:
            listener.close()
            app.go_on.set()
            await server.stop(2.0)


def head(path: str, size: int) -> bytes:
    """The head of an upload."""
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()


def test_a_body_is_taken_in_pieces_and_the_connection_is_kept() -> None:
    """Nothing is ever larger than about a megabyte, and the next request follows."""

    async def story() -> None:
        async with serving() as (port, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for total in (8 << 20, 16 << 20):
                writer.write(head("/take", 8 << 20))
                for _ in range(8):
                    writer.write(bytes(1 << 20))
                    await writer.drain()
                assert (await read_answer(reader)).text == f"{total}\n"
            assert app.largest <= 1 << 20
            writer.close()

    run(story())


def test_a_handler_that_is_slow_holds_the_client_back() -> None:
    """What waits for it is bounded by half a megabyte and what the kernel holds."""

    async def story() -> None:
        async with serving() as (port, app):
            app.go_on.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/take", 32 << 20))
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(512):
                    writer.write(bytes(1 << 16))
                    await writer.drain()
                    sent += 1 << 16

            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0.3)
            stuck = sent
            await asyncio.sleep(0.2)
            assert sent == stuck < 16 << 20
            app.go_on.set()
            await sending
            assert (await read_answer(reader)).text == f"{32 << 20}\n"
            writer.close()

    run(story())


def test_a_client_that_sends_everything_first_still_reads_the_refusal() -> None:
    """As far as the handler allows; its connection ends then."""

    async def story() -> None:
        async with serving() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/refuse?33554432", 24 << 20))
            for _ in range(24):
                writer.write(bytes(1 << 20))
                await writer.drain()
            answer = await read_answer(reader)
            assert (answer.status, answer.fields["retry-after"], answer.fields["connection"]) == (503, "7", "close")
            writer.close()

    run(story())


def test_a_refused_client_that_sends_on_and_on_is_cut_off() -> None:
    """Beyond what the handler allows."""

    async def story() -> None:
        async with serving() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/refuse?0", 1 << 30))

            async def send() -> None:
                for _ in range(1024):
                    writer.write(bytes(1 << 20))
                    await writer.drain()

            with pytest.raises(ConnectionError):
                await send()
            writer.close()
            assert reader

    run(story())


def test_a_client_that_stops_sending_is_told_so() -> None:
    """Its handler hears of it and the answer is 408."""

    async def story() -> None:
        async with serving(ServerLimits(rate=None, body_timeout_s=0.3)) as (port, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/take", 1000) + b"half")
            answer = await read_answer(reader)
            assert (answer.status, app.taken, app.errors) == (408, 4, ["the body stopped coming"])
            writer.close()

    run(story())


@pytest.mark.parametrize("how", ["close", "half-close"])
def test_a_client_that_goes_away_ends_its_handler(how: str) -> None:
    """Whether it closes or only says that nothing more comes."""

    async def story() -> None:
        async with serving() as (port, app):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/take", 1000) + b"half")
            await eventually(lambda: app.taken == 4, "the first half came")
            if how == "close":
                writer.close()
            else:
                writer.write_eof()
            await eventually(lambda: app.errors == ["cancelled"], "the handler was cancelled")
            writer.close()

    run(story())


def test_every_status_is_an_answer() -> None:
    """One without words too: a fault there would end the process for everybody."""
    assert serialize(Response(418), b"", keep=True, head_only=False).startswith(b"HTTP/1.1 418 \r\n")


def test_a_body_is_asked_for_only_when_the_handler_wants_it() -> None:
    """`Expect: 100-continue` is answered by the refusal alone, or by the go-ahead."""

    async def story() -> None:
        async with serving() as (port, _):
            for path, first in (("/refuse?0", b"HTTP/1.1 503"), ("/take", b"HTTP/1.1 100")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head(path, 4)[:-2] + b"Expect: 100-continue\r\n\r\n")
                assert (await reader.readexactly(12)) == first
                writer.close()

    run(story())
