"""The daemon's end of the control socket: who may call what, and the calls themselves.

One `Method` per name is given at construction; this module knows none of them. A handler that returns a value answers
within the read of its request; one that returns a future answers when that is done, without a task; a coroutine gets a
task. Everything is bounded: connections per user, requests under way per connection, the time for which a subscriber
may leave its events unread. What a peer does wrong is answered with an error of the protocol, counted, and logged once
per user and minute.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import pwd
import socket
import stat
import struct
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import partial
from pathlib import Path
from typing import Final, cast

from gateway.control import protocol
from gateway.control.protocol import Answer, ControlError, FrameBuffer, FrameError, JsonValue, Params, Request
from gateway.log import once_per_minute

LOG: Final = logging.getLogger(__name__)

SO_PEERGROUPS: Final = getattr(socket, "SO_PEERGROUPS", 59)  # Linux 4.13; Python has no name for it
_PEERCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MAX_PEER_GROUPS_BYTES: Final = 1024  # what getsockopt of Python takes: 256 groups
_BACKLOG: Final = 128
_FRAMES_PER_TURN: Final = 64  # requests of one connection handled before others get their turn
_BATCH_BYTES: Final = 65536  # answers gathered before they are handed to the transport
_WRITE_HIGH_BYTES: Final = 262144  # unread answers after which a connection's requests and streams are left waiting
_MAX_PATH: Final = 107  # sun_path, less its final NUL


class Access(Flag):
    """What a caller may do. A method names the one it needs, or several of which one is enough."""

    READ = auto()  # look: group postern
    WRITE = auto()  # change: root, the daemon's own user, group postern-admin
    PORTAL = auto()  # what the guests' portal needs and nothing else: user postern-portal


@dataclass(frozen=True, slots=True)
class Roles:
    """Which groups and users have which access. Names that the system does not know give nothing to anybody.

    The portal's user (and whoever has the portal's group as primary group) gets PORTAL alone, whatever other groups it
    is in: it has to be in the socket's group to reach the socket at all.
    """

    read_groups: tuple[str, ...] = ("postern",)
    write_groups: tuple[str, ...] = ("postern-admin",)
    portal_groups: tuple[str, ...] = ("postern-portal",)
    portal_users: tuple[str, ...] = ("postern-portal",)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, as the kernel said when the connection was made."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]
    access: Access
    name: str  # the user's name, or "uid 1000" when it has none

    def may(self, access: Access) -> bool:
        """Whether one of the kinds of access in `access` is the caller's."""
        return bool(self.access & access)


Handler = Callable[[Caller, Params], Answer]
StreamHandler = Callable[[Caller, Params], AsyncIterator[JsonValue]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its handler, who may call it, and whether it answers with a stream of events."""

    handler: Handler | StreamHandler
    access: Access
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer may take up at once."""

    connections: int = 512  # all users
    connections_per_uid: int = 64
    requests_per_connection: int = 64  # under way, that is not answered at once
    portal_requests_per_connection: int = 2048  # the portal has every guest's login on one connection
    subscriber_patience_s: float = 10.0  # how long a subscription waits for its subscriber to read


class ControlCounters:
    """What happened at the socket since the start, for metrics."""

    __slots__ = ("accepted", "calls", "errors", "refused")

    def __init__(self) -> None:
        self.accepted = 0  # connections
        self.refused = 0  # connections
        self.calls = 0  # requests and notices that named a method
        self.errors: Counter[str] = Counter()  # by error code


class ControlServer:
    """The listening socket and its connections.

    `bind()` makes the socket (and raises OSError or ControlError when it cannot), `run()` serves until it is cancelled.
    Between the two, connections wait in the kernel.
    """

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, Method],
        roles: Roles | None = None,
        *,
        socket_group: str | None = "postern",
        bounds: Bounds | None = None,
    ) -> None:
        self._path = path
        self._methods = dict(methods)
        self._roles = Roles() if roles is None else roles
        self._socket_group = socket_group
        self._bounds = Bounds() if bounds is None else bounds
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._connections: set[_Connection] = set()
        self._per_uid: Counter[int] = Counter()
        self._tasks: asyncio.TaskGroup | None = None
        self.counters = ControlCounters()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def bind(self) -> None:
        """Make the socket with mode 0660 and its group; a stale one of the same name is replaced.

        Raises ControlError(conflict) when another daemon answers there or something else than a socket is in the way,
        OSError when the directory does not allow it.
        """
        if len(os.fsencode(self._path)) > _MAX_PATH:
            raise ControlError(
                protocol.CONFLICT, f"the control socket's path {self._path} is longer than {_MAX_PATH} octets"
            )
        _remove_stale(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            before = os.umask(0o117)  # the socket must never be open to others, not even for a moment
            try:
                listener.bind(os.fspath(self._path))
            finally:
                os.umask(before)
            self._give_to_group()
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        status = self._path.stat()
        self._inode = (status.st_dev, status.st_ino)
        self._listener = listener
        self._warn_of_missing_names()

    async def run(self) -> None:
        """Serve until cancelled; then close every connection and remove the socket."""
        if self._listener is None:
            self.bind()
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                server = await loop.create_unix_server(partial(_Connection, self), sock=self._listener)
                try:
                    await loop.create_future()  # cancellation is the only way to stop
                finally:
                    server.close()
                    for connection in tuple(self._connections):
                        connection.close()
        finally:
            self._listener.close()
            self._listener = None
            self._remove_own_socket()

    def _give_to_group(self) -> None:
        if self._socket_group is None:
            return
        try:
            os.chown(self._path, -1, grp.getgrnam(self._socket_group).gr_gid)
        except (KeyError, PermissionError) as err:
            # Without the group only root and the daemon's own user reach the socket: safe, so not fatal.
            LOG.warning(
                "control socket keeps the daemon's own group path=%s group=%s reason=%s",
                self._path,
                self._socket_group,
                "no such group" if isinstance(err, KeyError) else "not permitted",
            )

    def _warn_of_missing_names(self) -> None:
        roles = self._roles
        for name in {*roles.read_groups, *roles.write_groups, *roles.portal_groups}:
            if _gid_of(name) is None:
                LOG.info("group does not exist, so nobody has its access to the control socket group=%s", name)

    def _remove_own_socket(self) -> None:
        try:
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._inode:
                self._path.unlink()
        except OSError as err:
            LOG.info("control socket could not be removed path=%s reason=%s", self._path, err)

    # What connections need of the server.

    def _admit(self, connection: _Connection, caller: Caller) -> ControlError | None:
        """Count a new connection in, or say why not."""
        if not caller.access:
            text = (
                f"user {caller.name} has no access to the gateway: run the command as root, or join group "
                f"{_first(self._roles.read_groups)} to look or {_first(self._roles.write_groups)} to change"
            )
            return ControlError(protocol.DENIED, text)
        if len(self._connections) >= self._bounds.connections:
            return ControlError(protocol.TOO_MANY_CONNECTIONS, f"{len(self._connections)} connections are open already")
        if self._per_uid[caller.uid] >= self._bounds.connections_per_uid:
            text = f"user {caller.name} has {self._per_uid[caller.uid]} connections open already"
            return ControlError(protocol.TOO_MANY_CONNECTIONS, text)
        self._connections.add(connection)
        self._per_uid[caller.uid] += 1
        self.counters.accepted += 1
        return None

    def _release(self, connection: _Connection, caller: Caller) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._per_uid[caller.uid] -= 1
            if not self._per_uid[caller.uid]:
                del self._per_uid[caller.uid]


class _Connection(asyncio.Protocol):
    """One peer. Answers of one turn are gathered and written together."""

    __slots__ = (
        "_caller",
        "_closing",
        "_frames",
        "_in_turn",
        "_limit",
        "_loop",
        "_out",
        "_out_bytes",
        "_reading_paused",
        "_running",
        "_server",
        "_transport",
        "_writable",
        "_write_paused",
    )

    _transport: asyncio.Transport
    _caller: Caller

    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._frames = FrameBuffer(protocol.MAX_REQUEST_BYTES)
        self._running: dict[Hashable, asyncio.Future[JsonValue] | asyncio.Task[None]] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._limit = 0
        self._in_turn = False
        self._write_paused = False
        self._writable: asyncio.Future[None] | None = None  # what streams wait for while writing is paused
        self._reading_paused = False
        self._closing = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is; refuse whoever may do nothing."""
        # A cast, because uvloop's transports have Transport's methods without being its subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._caller = _identify(self._transport, self._server._roles)
        bounds = self._server._bounds
        portal = self._caller.may(Access.PORTAL)
        self._limit = bounds.portal_requests_per_connection if portal else bounds.requests_per_connection
        refusal = self._server._admit(self, self._caller)
        if refusal is not None:
            self._server.counters.refused += 1
            self._wrong(None, refusal.code, refusal.message)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: what runs for it as a task is cancelled; futures belong to the handler and stay."""
        self._closing = True
        self._server._release(self, self._caller)
        for work in tuple(self._running.values()):
            if isinstance(work, asyncio.Task):
                work.cancel()
        self._running.clear()
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        """Octets arrived."""
        if not self._closing:
            self._frames.feed(data)
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
        if self._closing:
            return
        drained = False
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
            if self._write_paused or self._closing:
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
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        if not self._write_paused:
            self._loop.call_soon(self._turn)

    def _handle(self, request: Request) -> None:
        request_id = request.id
        if request.cancel:
            self._cancel(request_id)
            return
        if request_id in self._running:
            self._wrong(None, protocol.BAD_REQUEST, f"id {request_id!r} is under way already")
            return
        method = self._server._methods.get(request.method)
        if method is None:
            self._wrong(request_id, protocol.UNKNOWN_METHOD, f"there is no method {request.method[:64]!r}")
            return
        if not self._caller.access & method.access:
            self._wrong(request_id, protocol.DENIED, _denial(self._caller, request.method, method.access))
            return
        self._server.counters.calls += 1
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
        done, _ = await asyncio.wait((self._writable,), timeout=self._server._bounds.subscriber_patience_s)
        return bool(done)

    async def _close_events(self, name: str, events: AsyncIterator[JsonValue]) -> None:
        """Let the generator undo what it set up; its faults stay here, as those of any method."""
        if isinstance(events, AsyncGenerator):
            try:
                await events.aclose()
            except Exception:  # noqa: BLE001 - as above
                self._fault(None, name)

    def _spawn(self, key: Hashable, work: Coroutine[None, None, None], name: str) -> None:
        assert self._server._tasks is not None
        self._running[key] = self._server._tasks.create_task(work, name=f"control {name}")

    def _cancel(self, request_id: int | str | None) -> None:
        """End what runs under this id; an id that is not under way was answered in the meantime."""
        work = self._running.get(request_id) if request_id is not None else None
        if work is None:
            return
        if isinstance(work, asyncio.Task):
            work.cancel()
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
        self._server.counters.errors[err.code] += 1
        if request_id is not None:
            self._send(protocol.error_frame(request_id, err.code, err.message))

    def _wrong(self, request_id: int | str | None, code: str, message: str) -> None:
        """The peer did something wrong: answered, counted, and logged once per user and minute."""
        self._server.counters.errors[code] += 1
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
        self._server.counters.errors[protocol.INTERNAL] += 1
        LOG.exception("control method failed method=%s", name)
        if request_id is not None:
            self._send(protocol.error_frame(request_id, protocol.INTERNAL, _FAULT))

    def _send(self, frame: bytes) -> None:
        if self._closing:
            return
        if self._in_turn:
            self._out.append(frame)
            self._out_bytes += len(frame)
        else:
            self._transport.write(frame)

    def _flush(self) -> None:
        if self._out and not self._closing:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0


_FAULT: Final = "the gateway failed to do this; its log says why"


def _identify(transport: asyncio.Transport, roles: Roles) -> Caller:
    """The peer's credentials, taken by the kernel at connect() (unix(7)): a later setuid does not change them."""
    # A duplicate, because uvloop's own socket object does not return whole buffers from getsockopt.
    peer = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    try:
        pid, uid, gid = _PEERCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
        try:
            raw = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MAX_PEER_GROUPS_BYTES)
        except OSError as err:  # ERANGE: more groups than fit; the primary group still counts
            LOG.warning("supplementary groups of a control peer could not be read uid=%d reason=%s", uid, err)
            raw = b""
    finally:
        peer.close()
    groups = frozenset(struct.unpack(f"{len(raw) // 4}I", raw)) | {gid}
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Caller(uid, gid, pid, groups, access_of(uid, gid, groups, roles), name)


def access_of(uid: int, gid: int, groups: frozenset[int], roles: Roles) -> Access:
    """What a peer with these ids may do. Names are looked up each time: a group made later holds from then on."""
    if uid in (0, os.geteuid()):
        return Access.READ | Access.WRITE | Access.PORTAL
    portal_gids = _gids(roles.portal_groups)
    if uid in _uids(roles.portal_users) or gid in portal_gids:
        return Access.PORTAL
    access = Access(0)
    if groups & _gids(roles.read_groups):
        access |= Access.READ
    if groups & _gids(roles.write_groups):
        access |= Access.READ | Access.WRITE
    if groups & portal_gids:
        access |= Access.PORTAL
    return access


def _gids(names: Iterable[str]) -> frozenset[int]:
    return frozenset(gid for gid in map(_gid_of, names) if gid is not None)


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _uids(names: Iterable[str]) -> frozenset[int]:
    found = []
    for name in names:
        try:
            found.append(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue  # a user that does not exist is nobody
    return frozenset(found)


def _first(names: tuple[str, ...]) -> str:
    return names[0] if names else "(none)"


def _denial(caller: Caller, method: str, access: Access) -> str:
    if access & Access.READ:
        return f"user {caller.name} may not call {method}: run it as root, or join group postern"
    if access & Access.WRITE:
        return f"user {caller.name} may not call {method}: run it as root, or join group postern-admin"
    return f"user {caller.name} may not call {method}: it is for the portal"


def _remove_stale(path: Path) -> None:
    """Make room for our socket; what answers there, or is no socket, stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        text = f"{path} is in the way and is not a socket: move it, or set another run_dir"
        raise ControlError(protocol.CONFLICT, text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        outcome = probe.connect_ex(os.fspath(path))
    if outcome == errno.ECONNREFUSED:
        path.unlink()
        return
    if outcome == errno.ENOENT:
        return
    text = f"another posternd answers at {path}: stop it first (systemctl stop postern), or set another run_dir"
    raise ControlError(protocol.CONFLICT, text)
