"""The control socket for programs on an event loop: many requests at once over one connection.

A call made after the connection was lost (the daemon was restarted) connects anew; requests that were under way when it
was lost fail with `unreachable` and are not repeated here, because the caller alone knows whether that would be right.
`SyncControlClient` for programs without a loop is found in `blocking`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple, cast

from gateway.control import protocol
from gateway.control.blocking import SyncControlClient, connection_error
from gateway.control.protocol import ControlError, FrameBuffer, FrameError, JsonValue, Params

__all__ = ["ControlClient", "ControlError", "SyncControlClient"]

MAX_PENDING: Final = 8192  # requests waiting for their answers; more is a fault of the caller
MAX_EVENTS: Final = 2048  # events of one subscription that its consumer has not taken yet
MAX_UNSENT_BYTES: Final = 4 << 20  # notices are dropped beyond it, requests refused
CONNECT_TIMEOUT_S: Final = 5.0
ANSWERS_PER_TURN: Final = 2  # given to their callers before these act on them
NOTICE_DELAY_S: Final = 0.05  # how long a notice may wait for others, or for a request, to be written with it


class ControlClient:
    """A pipelined client for one event loop. Make it with `connect`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: _Link | None = None
        self._closed = False
        self._connecting = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path) -> ControlClient:
        """Connect to the daemon at `path`; raises ControlError(unreachable or denied) with what to do."""
        client = cls(path)
        await client._connected()
        return client

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; a call makes one where there is none."""
        return self._link is not None and not self._link.lost

    async def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Ask and wait for the answer; raises ControlError. Cancelling the caller cancels the request.

        Connecting, where that is needed, takes from the time too.
        """
        link = self._link
        if link is None or link.lost:
            loop = asyncio.get_running_loop()
            began = loop.time()
            link = await self._connected()
            timeout_s = max(0.0, timeout_s - (loop.time() - began))
        return await link.call(method, params or {}, timeout_s)

    def notify(self, method: str, params: Params | None = None) -> bool:
        """Tell without waiting; False (and nothing sent) when there is no connection or the daemon does not read."""
        return self._link is not None and self._link.notify(method, params or {})

    async def subscribe(self, method: str, params: Params | None = None) -> AsyncIterator[JsonValue]:
        """The events of a stream until it ends; leaving the loop (and closing the generator) ends it at the daemon."""
        link = self._link
        if link is None or link.lost:
            link = await self._connected()
        subscription = link.subscribe(method, params or {})
        try:
            while (event := await subscription.next()) is not _END:
                assert not isinstance(event, _End)
                yield event
        finally:
            link.unsubscribe(subscription)

    async def close(self) -> None:
        """Close the connection; requests under way fail."""
        self._closed = True
        if self._link is not None:
            self._link.close()
            await self._link.gone.wait()

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self._closed:
                raise ControlError(protocol.UNREACHABLE, "this client was closed")
            if self._link is not None and not self._link.lost:
                return self._link
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, self._link = await loop.create_unix_connection(_Link, os.fspath(self._path))
            except TimeoutError:
                text = f"posternd does not accept connections at {self._path}; it may be overloaded"
                raise ControlError(protocol.UNREACHABLE, text) from None
            except OSError as err:
                raise connection_error(self._path, err) from None
            return self._link


class _End:
    """Type of the marker that a stream has ended."""


_END: Final = _End()


class _Subscription:
    """Events between the connection and their consumer."""

    __slots__ = ("_events", "_failure", "_waiter", "done", "id")

    def __init__(self, request_id: int) -> None:
        self.id = request_id
        self.done = False  # the daemon will send nothing more
        self._events: deque[JsonValue] = deque()
        self._failure: ControlError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: JsonValue) -> bool:
        """Keep an event; False when there are too many."""
        if len(self._events) >= MAX_EVENTS:
            return False
        self._events.append(event)
        self._wake()
        return True

    def finish(self, failure: ControlError | None) -> None:
        self.done = True
        self._failure = failure
        self._wake()

    async def next(self) -> JsonValue | _End:
        while not self._events:
            if self.done:
                if self._failure is not None:
                    raise self._failure
                return _END
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Pending(NamedTuple):
    """A request that waits for its answer."""

    future: asyncio.Future[JsonValue]
    method: str
    timeout_s: float
    deadline: float  # on the loop's clock


class _Link(asyncio.Protocol):
    """One connection. What is said within one turn of the loop is written together, in the order in which it was said.

    A write costs more than what is written, here and at the daemon, which each one wakes.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = FrameBuffer(protocol.MAX_REPLY_BYTES)
        self._pending: dict[int, _Pending] = {}
        # One for all requests, set for the earliest that it has seen: nearly every request is over long before.
        self._timer: asyncio.TimerHandle | None = None
        self._subscriptions: dict[int, _Subscription] = {}
        self._next_id = 0
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._flush_handle: asyncio.Handle | None = None
        self._flush_is_soon = False
        self._reason: ControlError | None = None  # why the daemon closed, if it said so
        self._more_awaited = False  # frames that arrived are taken soon
        self.lost = False
        self.gone = asyncio.Event()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports have Transport's methods without being its subclass.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        while self._more_awaited:
            self._take_some()  # what was answered before the end is answered
        self.lost = True
        self._forget_unsent()
        failure = self._reason or ControlError(
            protocol.UNREACHABLE, "posternd closed the connection (it may be restarting)"
        )
        for request in self._pending.values():
            if not request.future.done():
                request.future.set_exception(ControlError(failure.code, failure.message))
        for subscription in self._subscriptions.values():
            subscription.finish(ControlError(failure.code, failure.message))
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._subscriptions.clear()
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        if not self._more_awaited:
            self._take_some()

    def _take_some(self) -> None:
        """Take frames until some callers have their answers; then these act, and the rest is taken.

        A loop writes what its tasks have said when it has run all that were ready. With many answers in one read, the
        first client would wait until the pages of all others are made, and the daemon would have nothing to do.
        """
        self._more_awaited = False
        answered = 0
        try:
            while answered < ANSWERS_PER_TURN:
                body = self._frames.take()
                if body is None:
                    return
                answered += self._take(protocol.decode(body))
        except FrameError as err:
            self._reason = ControlError(protocol.INTERNAL, f"the daemon's frame could not be read: {err}")
            self.close()
            return
        self._more_awaited = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._more_awaited:
            self._take_some()

    def close(self) -> None:
        self._flush()
        self.lost = True
        self._transport.close()

    # Called by ControlClient.

    async def call(self, method: str, params: Params, timeout_s: float) -> JsonValue:
        request_id = self._request(method, params)
        future: asyncio.Future[JsonValue] = self._loop.create_future()
        deadline = self._loop.time() + timeout_s
        self._pending[request_id] = _Pending(future, method, timeout_s, deadline)
        if self._timer is None or deadline < self._timer.when():
            self._wake_at(deadline)
        try:
            return await future
        except asyncio.CancelledError:
            if self._pending.pop(request_id, None) is not None:
                self._say(protocol.cancel_frame(request_id))
            raise

    def notify(self, method: str, params: Params) -> bool:
        if self.lost or self._is_full():
            return False
        self._say(protocol.request_frame(None, method, params), soon=False)
        return True

    def subscribe(self, method: str, params: Params) -> _Subscription:
        subscription = _Subscription(self._request(method, params))
        self._subscriptions[subscription.id] = subscription
        return subscription

    def unsubscribe(self, subscription: _Subscription) -> None:
        if self._subscriptions.pop(subscription.id, None) is not None and not subscription.done and not self.lost:
            self._say(protocol.cancel_frame(subscription.id))

    def _request(self, method: str, params: Params) -> int:
        if len(self._pending) >= MAX_PENDING or self._is_full():
            raise ControlError(protocol.BUSY, "too many requests wait for posternd")
        self._next_id += 1
        self._say(protocol.request_frame(self._next_id, method, params))
        return self._next_id

    def _is_full(self) -> bool:
        return self._unsent_bytes + self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    def _say(self, frame: bytes, *, soon: bool = True) -> None:
        """Write a frame with what else is said in this turn or, unless `soon`, a little later."""
        if self.lost:
            return
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        if self._flush_handle is None or (soon and not self._flush_is_soon):
            if self._flush_handle is not None:
                self._flush_handle.cancel()
            self._flush_is_soon = soon
            self._flush_handle = (
                self._loop.call_soon(self._flush) if soon else self._loop.call_later(NOTICE_DELAY_S, self._flush)
            )

    def _flush(self) -> None:
        frames = self._unsent
        if frames and not self.lost:
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        self._forget_unsent()

    def _forget_unsent(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._unsent = []
        self._unsent_bytes = 0

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        """End the requests whose time is over."""
        self._timer = None
        now = self._loop.time()
        # uvloop's timers count whole milliseconds and may come a little early.
        for request_id in [number for number, request in self._pending.items() if request.deadline <= now + 0.001]:
            future, method, timeout_s, _ = self._pending.pop(request_id)
            if not future.done():
                text = f"posternd did not answer {method} within {timeout_s:g} s"
                future.set_exception(ControlError(protocol.TIMEOUT, text))
                self._say(protocol.cancel_frame(request_id))
        if self._pending:
            self._wake_at(min(request.deadline for request in self._pending.values()))

    def _take(self, message: dict[str, JsonValue]) -> bool:
        """Take one message; True when somebody waited for it."""
        request_id = message.get("id")
        if request_id is None:
            self._reason = protocol.error_of(message)  # it concerns the connection, which the daemon may close now
            return False
        if not isinstance(request_id, int):
            return False  # not one of ours
        request = self._pending.pop(request_id, None)
        if request is not None:
            if not request.future.done():
                error = protocol.error_of(message)
                if error is None:
                    request.future.set_result(message.get("result"))
                else:
                    request.future.set_exception(error)
            return True
        subscription = self._subscriptions.get(request_id)
        if subscription is None:
            return False  # answered after its caller stopped waiting
        error = protocol.error_of(message)
        if error is not None or message.get("end") is True:
            del self._subscriptions[request_id]
            subscription.finish(error)
        elif not subscription.put(message.get("event")):
            del self._subscriptions[request_id]
            self._say(protocol.cancel_frame(request_id))
            subscription.finish(
                ControlError(protocol.TOO_SLOW, f"{MAX_EVENTS} events wait to be taken; the stream is ended")
            )
        return False
