"""A request's body as it comes: octets pushed by the connection, pieces taken by a handler at its own pace.

What waits is bounded: beyond `_HIGH_BYTES` the connection stops reading and the kernel holds the client back, so an
upload of any size costs the same memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from webui.messages import RequestError
from webui.parsing import BodyReader

_HIGH_BYTES: Final = 512 << 10


class BodyStream:
    """An asynchronous iterator over the pieces of one body; raises RequestError when what comes is not a body."""

    __slots__ = ("_error", "_on_room", "_on_start", "_parts", "_reader", "_size", "_waiter")

    def __init__(self, reader: BodyReader, on_start: Callable[[], None], on_room: Callable[[], None]) -> None:
        """`on_start` is called before the first piece is awaited, `on_room` when more may be read."""
        self._reader = reader
        self._on_start: Callable[[], None] | None = on_start
        self._on_room = on_room
        self._parts: list[bytes] = []
        self._size = 0
        self._error: RequestError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole body was read from the client."""
        return self._reader.complete

    @property
    def full(self) -> bool:
        """Whether the handler has enough to take, so that nothing more should be read."""
        return self._size >= _HIGH_BYTES

    def feed(self, buffer: bytearray) -> None:
        """Take what belongs to the body from the front of `buffer`."""
        if self._error is not None:
            return
        try:
            self._reader.feed(buffer)
        except RequestError as err:
            self._error = err
        piece = self._reader.take()
        if piece:
            self._parts.append(piece)
            self._size += len(piece)
        if piece or self._reader.complete or self._error is not None:
            self._wake()

    def fail(self, error: RequestError) -> None:
        """Tell the handler that no more will come; what came already it still gets."""
        if self._error is None and not self._reader.complete:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        if self._on_start is not None:
            start, self._on_start = self._on_start, None
            start()
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._reader.complete:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        parts, self._parts = self._parts, []
        was_full, self._size = self.full, 0
        if was_full:
            self._on_room()
        return parts[0] if len(parts) == 1 else b"".join(parts)
