"""One connection at the control socket: requests in, answers out, everything bounded.

A handler that returns a value answers within the read of its request; one that returns a future answers when that is
done, without a task; a coroutine gets a task. What a peer does wrong is answered with an error of the protocol,
counted, and logged once per user, kind and minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from gateway.admin.roles import Role
from gateway.control import protocol
from gateway.control.access import Access, Caller, Roles, denial, identify
from gateway.control.protocol import Answer, ControlError, FrameBuffer, FrameError, JsonValue, Params, Request
from gateway.log import once_per_minute
from gateway.values import value_class

LOG: Final = logging.getLogger(__name__)

_FRAMES_PER_TURN: Final = 64  # requests of one connection handled before others get their turn
_TURN_S: Final = 0.0005  # how long answers wait for those to other requests that came with theirs
_AHEAD_BYTES: Final = 65536  # unhandled requests after which no more are read
_BATCH_BYTES: Final = 65536  # answers gathered before they are handed to the transport
_WRITE_HIGH_BYTES: Final = 262144  # unread answers after which a connection's requests and streams are left waiting
_FAULT: Final = "the gateway failed to do this; its log says why"

Handler = Callable[[Caller, Params], Answer]
StreamHandler = Callable[[Caller, Params], AsyncIterator[JsonValue]]


@value_class
class Method:
    """One method: its handler, who may call it, and whether it answers with a stream of events.

    `role` is the least role of administrators who call it through the web interface, where it is not what `access`
    says by itself: viewers look, administrators change, and what belongs to a web process alone is nobody's.
    """

    handler: Handler | StreamHandler
    access: Access
    stream: bool = False
    role: Role | None = None

    @property
    def least_role(self) -> Role | None:
        """The least role that an administrator needs; None when the method is not for administrators."""
        if self.role is not None:
            return self.role
        if self.access & Access.READ:
            return Role.VIEWER
        return Role.ADMINISTRATOR if self.access == Access.WRITE else None


@value_class
class Bounds:
    """What one peer may take up at once."""

    connections: int = 512  # all users
    connections_per_uid: int = 64
    requests_per_connection: int = 64  # under way, that is not answered at once
    portal_requests_per_connection: int = 2048  # a web process has everybody who waits on one connection
    subscriber_patience_s: float = 10.0  # how long a subscription waits for its subscriber to read


class ControlCounters:
    """What happened at the socket since the start, for metrics."""

    __slots__ = ("accepted", "calls", "errors", "refused")

    def __init__(self) -> None:
        self.accepted = 0  # connections
        self.refused = 0  # connections
        self.calls = 0  # requests and notices that named a method
        self.errors: Counter[str] = Counter()  # by error code


@dataclass(slots=True)
class Office:
    """What all connections of one server share."""

    methods: Mapping[str, Method]
    roles: Roles
    bounds: Bounds
    counters: ControlCounters = field(default_factory=ControlCounters)
    connections: set[Connection] = field(default_factory=set)
    per_uid: Counter[int] = field(default_factory=Counter)
    tasks: asyncio.TaskGroup | None = None  # while the server runs

    def admit(self, connection: Connection, caller: Caller) -> ControlError | None:
        """Count a new connection in, or say why not."""
        if not caller.access:
            text = (
                f"user {caller.name} has no access to the gateway: run the command as root, or join group "
                f"{_first(self.roles.read_groups)} to look or {_first(self.roles.write_groups)} to change"
            )
            return ControlError(protocol.DENIED, text)
        if len(self.connections) >= self.bounds.connections:
            return ControlError(protocol.TOO_MANY_CONNECTIONS, f"{len(self.connections)} connections are open already")
        if self.per_uid[caller.uid] >= self.bounds.connections_per_uid:
            text = f"user {caller.name} has {self.per_uid[caller.uid]} connections open already"
            return ControlError(protocol.TOO_MANY_CONNECTIONS, text)
        self.connections.add(connection)
        self.per_uid[caller.uid] += 1
        self.counters.accepted += 1
        return None

    def release(self, connection: Connection, caller: Caller) -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.per_uid[caller.uid] -= 1
            if not self.per_uid[caller.uid]:
                del self.per_uid[caller.uid]


class Connection(asyncio.Protocol):
    """One peer. Answers of one turn are gathered and written together."""

    __slots__ = (
        "_caller",
        "_closing",
        "_flush_awaited",
        "_frames",
        "_in_turn",
        "_limit",
        "_loop",
        "_office",
        "_out",
        "_out_bytes",
        "_permitted",
        "_reading_paused",
        "_running",
        "_transport",
        "_turn_awaited",
        "_writable",
        "_write_paused",
    )

    _transport: asyncio.Transport
    _caller: Caller

    def __init__(self, office: Office) -> None:
        self._office = office
        self._loop = asyncio.get_running_loop()
        self._frames = FrameBuffer(protocol.MAX_REQUEST_BYTES)
        self._running: dict[Hashable, asyncio.Future[JsonValue] | asyncio.Task[None]] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._limit = 0
        self._permitted: set[str] = set()  # methods that this caller was found to be allowed
        self._in_turn = False
        self._flush_awaited = False  # a flush is called soon
        self._write_paused = False
        self._writable: asyncio.Future[None] | None = None  # what streams wait for while writing is paused
        self._reading_paused = False
        self._turn_awaited = False  # the next turn comes soon
        self._closing = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is; refuse whoever may do nothing."""
        # A cast, because uvloop's transports have Transport's methods without being its subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._caller = identify(self._transport, self._office.roles)
        bounds = self._office.bounds
        web = self._caller.may(Access.PORTAL | Access.ADMIN)
        self._limit = bounds.portal_requests_per_connection if web else bounds.requests_per_connection
        refusal = self._office.admit(self, self._caller)
        if refusal is not None:
            self._office.counters.refused += 1
            self._wrong(None, refusal.code, refusal.message)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: what runs for it as a task is cancelled; futures belong to the handler and stay."""
        self._closing = True
        self._office.release(self, self._caller)
        for work in tuple(self._running.values()):
            if isinstance(work, asyncio.Task):
                self._loop.call_soon(work.cancel)  # begun first, as in `_cancel`
        self._running.clear()
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        """Octets arrived."""
        if not self._closing:
            self._frames.feed(data)
            if not self._turn_awaited:
                self._turn()

    def pause_writing(self) -> None:
        """The peer does not read its answers: its further requests wait."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The peer read its answers."""
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self._reading_paused:
            self._turn()

    def close(self) -> None:
        """Send what is gathered and close."""
        self._flush()
        self._closing = True
        self._transport.close()

    # Requests.

    def _turn(self) -> None:
        """Handle the frames that are here, up to a bound; the rest waits in the buffer and the kernel."""
        self._turn_awaited = False
        if self._closing:
            return
        drained = False
        over_at = time.perf_counter() + _TURN_S
        self._in_turn = True
        for _ in range(_FRAMES_PER_TURN):
            try:
                body = self._frames.take()
                if body is None:
                    drained = True
                    break
                self._handle(protocol.parse_request(body))
            except FrameError as err:
                self._wrong(None, err.code, err.message)
                if err.fatal:
                    self.close()
            if self._out_bytes >= _BATCH_BYTES:
                self._flush()
            if self._write_paused or self._closing or time.perf_counter() > over_at:
                break
        self._in_turn = False
        self._flush()
        if self._transport.is_closing():
            return
        if drained:
            if self._reading_paused:
                self._reading_paused = False
                self._transport.resume_reading()
            return
        if not self._reading_paused and (self._write_paused or len(self._frames) > _AHEAD_BYTES):
            self._reading_paused = True
            self._transport.pause_reading()
        if not self._write_paused and not self._turn_awaited:
            self._turn_awaited = True
            self._loop.call_soon(self._turn)

    def _handle(self, request: Request) -> None:
        request_id = request.id
        if request.cancel:
            self._cancel(request_id)
            return
        if request_id in self._running:
            self._wrong(None, protocol.BAD_REQUEST, f"id {request_id!r} is under way already")
            return
        method = self._office.methods.get(request.method)
        if method is None:
            self._wrong(request_id, protocol.UNKNOWN_METHOD, f"there is no method {request.method[:64]!r}")
            return
        if request.method not in self._permitted:
            if not self._caller.access & method.access:
                self._wrong(request_id, protocol.DENIED, denial(self._caller, request.method, method.access))
                return
            self._permitted.add(request.method)
        self._office.counters.calls += 1
        if method.stream:
            self._start_stream(request, method)
            return
        try:
            answer = method.handler(self._caller, request.params)
        except ControlError as err:
            self._refuse(request_id, err)
        except Exception:  # noqa: BLE001 - a fault in one method must not end the daemon; it is logged with its trace
            self._fault(request_id, request.method)
        else:
            if answer is None or isinstance(answer, dict | list | str | int | float):
                self._reply(request_id, request.method, answer)
            else:
                assert isinstance(answer, Awaitable)
                self._wait_for(request, answer)

    def _wait_for(self, request: Request, answer: Awaitable[JsonValue]) -> None:
        """Answer when `answer` is there. A notice, which has no id, is waited for under one that no peer can choose."""
        key: Hashable = request.id if request.id is not None else object()
        if len(self._running) >= self._limit:
            if isinstance(answer, Coroutine):
                answer.close()  # it never began
            text = f"{self._limit} requests are under way on this connection; wait for answers"
            self._wrong(request.id, protocol.BUSY, text)
            return
        if isinstance(answer, asyncio.Future):
            self._running[key] = answer
            answer.add_done_callback(partial(self._future_done, key, request))
            return
        self._spawn(key, self._answer_later(key, request, answer), request.method)

    def _future_done(self, key: Hashable, request: Request, answer: asyncio.Future[JsonValue]) -> None:
        if self._running.pop(key, None) is None:  # the peer is gone or has cancelled
            if not answer.cancelled():
                answer.exception()  # taken note of: nobody is left to tell
            return
        if answer.cancelled():
            self._wrong(request.id, protocol.CANCELLED, f"{request.method} was cancelled")
            return
        error = answer.exception()
        if error is None:
            self._reply(request.id, request.method, answer.result())
        elif isinstance(error, ControlError):
            self._refuse(request.id, error)
        else:
            LOG.error("control method failed method=%s", request.method, exc_info=error)
            self._wrong(request.id, protocol.INTERNAL, _FAULT)

    async def _answer_later(self, key: Hashable, request: Request, answer: Awaitable[JsonValue]) -> None:
        try:
            result = await answer
        except ControlError as err:
            self._refuse(request.id, err)
        except asyncio.CancelledError:
            self._wrong(request.id, protocol.CANCELLED, f"{request.method} was cancelled")
            raise
        except Exception:  # noqa: BLE001 - as above
            self._fault(request.id, request.method)
        else:
            self._reply(request.id, request.method, result)
        finally:
            self._running.pop(key, None)

    def _start_stream(self, request: Request, method: Method) -> None:
        if request.id is None:
            self._wrong(None, protocol.BAD_REQUEST, f"{request.method} is a stream and needs an id")
            return
        if len(self._running) >= self._limit:
            self._wrong(request.id, protocol.BUSY, f"{self._limit} requests are under way on this connection")
            return
        try:
            events = method.handler(self._caller, request.params)
        except ControlError as err:
            self._refuse(request.id, err)
            return
        assert isinstance(events, AsyncIterator)
        self._spawn(request.id, self._stream(request.id, request.method, events), request.method)

    async def _stream(self, request_id: int | str, name: str, events: AsyncIterator[JsonValue]) -> None:
        count = 0
        try:
            async for event in events:
                self._send(protocol.event_frame(request_id, event))
                count += 1
                if self._write_paused and not await self._reads_again():
                    self._wrong(
                        request_id, protocol.TOO_SLOW, f"the events of {name} are not read; the stream is ended"
                    )
                    return
                if count % _FRAMES_PER_TURN == 0:
                    await asyncio.sleep(0)  # a generator that never waits must not keep others from their turn
            self._send(protocol.end_frame(request_id))
        except ControlError as err:
            self._refuse(request_id, err)
        except asyncio.CancelledError:
            self._send(protocol.end_frame(request_id))
            raise
        except Exception:  # noqa: BLE001 - as above
            self._fault(request_id, name)
        finally:
            self._running.pop(request_id, None)
            await self._close_events(name, events)

    async def _reads_again(self) -> bool:
        """Wait until the peer has read what it was sent; False when that takes too long."""
        if self._writable is None:
            self._writable = self._loop.create_future()
        done, _ = await asyncio.wait((self._writable,), timeout=self._office.bounds.subscriber_patience_s)
        return bool(done)

    async def _close_events(self, name: str, events: AsyncIterator[JsonValue]) -> None:
        """Let the generator undo what it set up; its faults stay here, as those of any method."""
        if isinstance(events, AsyncGenerator):
            try:
                await events.aclose()
            except Exception:  # noqa: BLE001 - as above
                self._fault(None, name)

    def _spawn(self, key: Hashable, work: Coroutine[None, None, None], name: str) -> None:
        assert self._office.tasks is not None
        self._running[key] = self._office.tasks.create_task(work, name=f"control {name}")

    def _cancel(self, request_id: int | str | None) -> None:
        """End what runs under this id; an id that is not under way was answered in the meantime."""
        work = self._running.get(request_id) if request_id is not None else None
        if work is None:
            return
        if isinstance(work, asyncio.Task):
            # Not at once: when both came together the task has not begun, and one that is cancelled before it begins
            # never reaches its `finally`: its place would stay taken and its answer would not come.
            self._loop.call_soon(work.cancel)
            return
        assert request_id is not None
        self._running.pop(request_id)
        self._wrong(request_id, protocol.CANCELLED, "the request was cancelled; what it began may still happen")

    # Answers.

    def _reply(self, request_id: int | str | None, name: str, result: JsonValue) -> None:
        if request_id is None:
            return
        try:
            frame = protocol.result_frame(request_id, result)
        except (TypeError, ValueError, RecursionError):
            self._fault(request_id, name)
            return
        if len(frame) > protocol.MAX_REPLY_BYTES:
            text = f"the answer has {len(frame)} octets; ask for less at once (offset and limit)"
            self._wrong(request_id, protocol.TOO_LARGE, text)
            return
        self._send(frame)

    def _refuse(self, request_id: int | str | None, err: ControlError) -> None:
        """A handler said no: counted, but nothing for the log."""
        self._office.counters.errors[err.code] += 1
        if request_id is not None:
            self._send(protocol.error_frame(request_id, err.code, err.message))

    def _wrong(self, request_id: int | str | None, code: str, message: str) -> None:
        """The peer did something wrong: answered, counted, and logged once per user and minute."""
        self._office.counters.errors[code] += 1
        once_per_minute(
            ("control", self._caller.uid, code),
            LOG,
            logging.DEBUG if code == protocol.CANCELLED else logging.WARNING,
            "control request refused user=%s pid=%d code=%s reason=%s",
            self._caller.name,
            self._caller.pid,
            code,
            message,
        )
        self._send(protocol.error_frame(request_id, code, message))

    def _fault(self, request_id: int | str | None, name: str) -> None:
        self._office.counters.errors[protocol.INTERNAL] += 1
        LOG.exception("control method failed method=%s", name)
        if request_id is not None:
            self._send(protocol.error_frame(request_id, protocol.INTERNAL, _FAULT))

    def _send(self, frame: bytes) -> None:
        if self._closing:
            return
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._in_turn:
            return
        if self._out_bytes >= _BATCH_BYTES:
            self._flush()
        elif not self._flush_awaited:
            # With what else is answered now: a write costs more than what is written, and wakes the peer.
            self._flush_awaited = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_awaited = False
        if self._out and not self._closing:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0


def _first(names: tuple[str, ...]) -> str:
    return names[0] if names else "(none)"
