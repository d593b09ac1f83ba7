"""Server-sent events: a stream of named values as a response, with a heartbeat (WHATWG HTML, section 9.2).

A reader that is slow is held back by the connection itself (`server` waits for it before the next piece), so nothing
piles up here; how many streams there may be at once is bounded per process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from gateway.values import value_class
from webui.messages import Response, plain

HEARTBEAT_S: Final = 15.0  # well below what proxies and phones take for a dead connection
RETRY_MS: Final = 2000
_MAX_STREAMS: Final = 128
TOO_MANY: Final = "too many live pages are open"
FULL_RETRY_S: Final = 10


@value_class
class Event:
    """One event: `data` is anything that JSON can say; `id` comes back as Last-Event-ID after a break."""

    data: object
    name: str = "message"
    id: str = ""


def encode(event: Event) -> bytes:
    """One event as it goes over the wire; JSON has no bare line breaks, so data is one line."""
    head = f"id: {event.id}\n" if event.id else ""
    return f"{head}event: {event.name}\ndata: {json.dumps(event.data, separators=(',', ':'))}\n\n".encode()


class Streams:
    """Counts the streams of a process and makes their responses."""

    def __init__(self, most: int = _MAX_STREAMS, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._most = most
        self._heartbeat_s = heartbeat_s
        self.open = 0

    @property
    def full(self) -> bool:
        """Whether there are as many streams as there may be."""
        return self.open >= self._most

    def answer(self, events: AsyncGenerator[Event, None]) -> Response:
        """The response that sends `events`; 503 when there are too many streams already.

        `events` is closed when the client went away.
        """
        if self.full:
            return plain(503, TOO_MANY, retry_after_s=FULL_RETRY_S)
        headers = [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")]
        return Response(200, self._pieces(events), "text/event-stream; charset=utf-8", headers)

    async def _pieces(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
        self.open += 1
        try:
            async with aclosing(events):
                yield f"retry: {RETRY_MS}\n\n".encode()
                async for piece in self._with_heartbeat(events):
                    yield piece
        finally:
            self.open -= 1

    async def _with_heartbeat(self, events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
        following: asyncio.Future[Event] | None = None
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait((following,), timeout=self._heartbeat_s)
                if not done:
                    yield b": still here\n\n"
                    continue
                try:
                    event = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield encode(event)
        finally:
            if following is not None:
                following.cancel()
                # Waited for, because a generator that still runs cannot be closed.
                await asyncio.wait((following,))
