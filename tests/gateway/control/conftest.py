"""A control server on a loop, and raw connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.control.server import ControlServer

RunOnLoop = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_on_loop(request: pytest.FixtureRequest) -> RunOnLoop:
    """Runs a coroutine on both event loops that the daemon may have; nothing may take longer than 30 s."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(conversation: Coroutine[None, None, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await conversation

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    return run


@asynccontextmanager
async def serving(server: ControlServer) -> AsyncIterator[ControlServer]:
    """The server runs until the context ends, and must end by cancellation alone."""
    server.bind()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await asyncio.sleep(0)  # it runs; cancelled before that, it would never have begun
        try:
            yield server
        finally:
            task.cancel()


class RawPeer:
    """A peer that may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> RawPeer:
        """Connect to a socket."""
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, body: bytes) -> None:
        """One frame with this body."""
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def receive(self) -> bytes:
        """The next frame's body; raises IncompleteReadError at the end."""
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(4), "big"))

    async def close(self) -> None:
        """Close, whatever the server did before."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass  # the server closed first
