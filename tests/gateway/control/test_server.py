"""The control server and its client, over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.control import protocol
from gateway.control.client import ControlClient
from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.control.server import Access, Bounds, Caller, ControlServer, Method, Roles, access_of
from tests.gateway.control.conftest import RawPeer, RunOnLoop, serving


class Gate:
    """Methods of each kind. What waits, waits for `open`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting: asyncio.Future[JsonValue] | None = None
        self.noted: list[JsonValue] = []
        self.cancelled = 0
        self.cleaned_up = 0

    def methods(self) -> dict[str, Method]:
        return {
            "echo": Method(self.echo, Access.READ),
            "note": Method(self.note, Access.WRITE),
            "slow": Method(self.slow, Access.READ),
            "promise": Method(self.promise, Access.READ),
            "refuse": Method(self.refuse, Access.READ),
            "refuse later": Method(self.refuse_later, Access.READ),
            "break": Method(self.fail, Access.READ),
            "break later": Method(self.fail_later, Access.READ),
            "odd": Method(self.odd, Access.READ),
            "big": Method(self.big, Access.READ),
            "count": Method(self.count, Access.READ, stream=True),
            "flood": Method(self.flood, Access.READ, stream=True),
            "forever": Method(self.forever, Access.READ, stream=True),
            "break stream": Method(self.fail_stream, Access.READ, stream=True),
            "portal.only": Method(self.echo, Access.PORTAL),
        }

    def echo(self, caller: Caller, params: Params) -> JsonValue:
        return params.get("value")

    def note(self, caller: Caller, params: Params) -> JsonValue:
        self.noted.append(params.get("value"))
        return None

    async def slow(self, caller: Caller, params: Params) -> JsonValue:
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    def promise(self, caller: Caller, params: Params) -> asyncio.Future[JsonValue]:
        self.waiting = asyncio.get_running_loop().create_future()
        return self.waiting

    def refuse(self, caller: Caller, params: Params) -> JsonValue:
        raise ControlError(protocol.NOT_FOUND, "there is none")

    async def refuse_later(self, caller: Caller, params: Params) -> JsonValue:
        await asyncio.sleep(0)
        raise ControlError(protocol.NOT_FOUND, "there is none")

    def fail(self, caller: Caller, params: Params) -> JsonValue:
        raise ZeroDivisionError("our own fault")

    async def fail_later(self, caller: Caller, params: Params) -> JsonValue:
        await asyncio.sleep(0)
        raise ZeroDivisionError("our own fault")

    def odd(self, caller: Caller, params: Params) -> JsonValue:
        return {"not a number": float("nan")}

    def big(self, caller: Caller, params: Params) -> JsonValue:
        return "x" * protocol.MAX_REPLY_BYTES

    async def count(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        for number in range(3):
            yield number

    async def flood(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        try:
            while True:
                yield "x" * 10_000
        finally:
            self.cleaned_up += 1

    async def forever(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            self.cleaned_up += 1

    async def fail_stream(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        yield 1
        raise ZeroDivisionError("our own fault")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def until(condition: object) -> None:
    """Let the loop run until a condition (a function) holds."""
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came about")


async def code_of(client: ControlClient, method: str, params: Params | None = None) -> str:
    """The error code that a call gets."""
    with pytest.raises(ControlError) as refusal:
        await client.call(method, params)
    return refusal.value.code


def make(path: Path, gate: Gate, **bounds: float) -> ControlServer:
    return ControlServer(path, gate.methods(), socket_group=None, bounds=Bounds(**bounds))  # type: ignore[arg-type]


def test_all_kinds_of_answers(path: Path, run_on_loop: RunOnLoop) -> None:
    """Values, coroutines, futures and streams are answered; refusals keep their code and sentence."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            client = await ControlClient.connect(path)
            values: tuple[JsonValue, ...] = (None, True, 7, 1.5, "é\n", [1, [2]], {"a": {"b": None}})
            for value in values:
                assert await client.call("echo", {"value": value}) == value
            gate.open.set()
            assert await client.call("slow") == "done"
            promised = asyncio.ensure_future(client.call("promise"))
            await until(lambda: gate.waiting)
            assert gate.waiting is not None
            gate.waiting.set_result({"kept": True})
            assert await promised == {"kept": True}
            assert [event async for event in client.subscribe("count")] == [0, 1, 2]
            for method in ("refuse", "refuse later"):
                with pytest.raises(ControlError, match="there is none") as refusal:
                    await client.call(method)
                assert refusal.value.code == protocol.NOT_FOUND
            await client.close()

    run_on_loop(conversation())


def test_our_faults_end_one_request_only(path: Path, run_on_loop: RunOnLoop, caplog: pytest.LogCaptureFixture) -> None:
    """A method that breaks is answered as internal, logged with its trace, and everything else goes on."""

    async def conversation() -> None:
        async with serving(make(path, Gate())) as server:
            client = await ControlClient.connect(path)
            for method in ("break", "break later", "odd"):
                assert await code_of(client, method) == protocol.INTERNAL
            events = client.subscribe("break stream")
            assert await anext(events) == 1
            with pytest.raises(ControlError) as refusal:
                await anext(events)
            assert refusal.value.code == protocol.INTERNAL
            assert await code_of(client, "big") == protocol.TOO_LARGE
            assert await client.call("echo", {"value": "alive"}) == "alive"
            assert server.counters.errors[protocol.INTERNAL] == 4
            await client.close()

    with caplog.at_level(logging.ERROR):
        run_on_loop(conversation())
    assert sum("ZeroDivisionError" in (record.exc_text or "") for record in caplog.records) == 3


def test_notices_are_done_and_not_answered(path: Path, run_on_loop: RunOnLoop) -> None:
    """A notice is performed; neither its result nor its refusal comes back."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            client = await ControlClient.connect(path)
            assert client.notify("note", {"value": 1})
            for method in ("refuse", "break", "slow", "count", "nonsense"):
                client.notify(method)
            assert await client.call("note", {"value": 2}) is None
            assert gate.noted == [1, 2]
            await client.close()
            assert not client.notify("note", {"value": 3})

    run_on_loop(conversation())


def test_requests_are_answered_as_they_finish(path: Path, run_on_loop: RunOnLoop) -> None:
    """A slow request holds up nobody, and each answer reaches the one who asked."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            client = await ControlClient.connect(path)
            slow = asyncio.ensure_future(client.call("slow"))
            answers = await asyncio.gather(*(client.call("echo", {"value": number}) for number in range(1000)))
            assert answers == list(range(1000))
            assert not slow.done()
            gate.open.set()
            assert await slow == "done"
            await client.close()

    run_on_loop(conversation())


def test_many_requests_at_once_do_not_keep_others_waiting(path: Path, run_on_loop: RunOnLoop) -> None:
    """Requests that came in one piece are answered in their order, and in between whoever else asks."""

    async def conversation() -> None:
        answered: list[JsonValue] = []

        def work(caller: Caller, params: Params) -> JsonValue:
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass
            return params.get("value")

        methods = Gate().methods() | {"work": Method(work, Access.READ)}
        async with serving(ControlServer(path, methods, socket_group=None)):
            busy, other = await ControlClient.connect(path), await ControlClient.connect(path)

            async def ask(client: ControlClient, value: int) -> None:
                answered.append(await client.call("work", {"value": value}))

            async with asyncio.TaskGroup() as group:
                for value in range(60):
                    group.create_task(ask(busy, value))
                group.create_task(ask(other, -1))
            assert [value for value in answered if value != -1] == list(range(60))
            assert answered.index(-1) < 40
            await busy.close()
            await other.close()

    run_on_loop(conversation())


def test_what_was_answered_before_the_end_is_answered(path: Path, run_on_loop: RunOnLoop) -> None:
    """Answers that arrive together with the end of the connection reach those who asked."""

    async def conversation() -> None:
        async def answer_all_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = [
                json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))
                for _ in range(20)
            ]
            writer.write(b"".join(protocol.result_frame(request["id"], "here") for request in asked))
            writer.close()

        server = await asyncio.start_unix_server(answer_all_and_leave, path)
        async with server:
            client = await ControlClient.connect(path)
            answers = await asyncio.gather(*(client.call("echo") for _ in range(20)))
            assert answers == ["here"] * 20
            await client.close()

    run_on_loop(conversation())


def test_hostile_frames_hurt_only_their_sender(
    path: Path, run_on_loop: RunOnLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Nonsense is answered with an error; framing that is lost closes that connection; others notice nothing."""

    async def conversation() -> None:
        async with serving(make(path, Gate())) as server:
            neighbour = await ControlClient.connect(path)
            peer = await RawPeer.connect(path)
            for body in (b"", b"not json", b"[" * 100_000, b"[]", b'{"id":1}', b'{"id":2,"method":"nonsense"}'):
                peer.send(body)
                error = json.loads(await peer.receive())["error"]
                assert error["message"]
                assert error["code"] in (protocol.BAD_FRAME, protocol.BAD_REQUEST, protocol.UNKNOWN_METHOD)
            peer.send(b'{"id":"x","method":"echo","params":{"value":5}}')
            assert json.loads(await peer.receive()) == {"id": "x", "result": 5}
            peer.writer.write(b"GET / HTTP/1.1\r\nHost: postern\r\n\r\n")
            assert json.loads(await peer.receive())["error"]["code"] == protocol.FRAME_TOO_LONG
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await peer.receive()
            await peer.close()
            assert await neighbour.call("echo", {"value": "unharmed"}) == "unharmed"
            assert server.counters.errors[protocol.BAD_FRAME] == 4
            await until(lambda: server.connections == 1)
            await neighbour.close()

    with caplog.at_level(logging.WARNING, "gateway.control"):
        run_on_loop(conversation())
    # Four bad frames from one user within a minute: one line, not four.
    assert sum("code=bad_frame" in record.getMessage() for record in caplog.records) <= 1


def test_random_octets_never_end_the_server(path: Path, run_on_loop: RunOnLoop) -> None:
    """Seeded noise, cut anywhere, on many connections: the server answers its neighbour afterwards."""
    import random

    noise = random.Random(20260131)

    async def conversation() -> None:
        async with serving(make(path, Gate())) as server:
            for _ in range(60):
                peer = await RawPeer.connect(path)
                frame = b'{"id":%d,"method":"%s","params":{"value":[1]}}' % (
                    noise.randrange(9),
                    noise.choice([b"echo", b"slow", b"count", b"flood", b"break"]),
                )
                octets = bytearray(len(frame).to_bytes(4, "big") + frame) * noise.randrange(1, 5)
                for _ in range(noise.randrange(4)):
                    octets[noise.randrange(len(octets))] = noise.randrange(256)
                peer.writer.write(bytes(octets[: noise.randrange(1, len(octets) + 1)]))
                await asyncio.sleep(0.001)
                await peer.close()
            client = await ControlClient.connect(path)
            assert await client.call("echo", {"value": 1}) == 1
            await client.close()
            await until(lambda: server.connections == 0)

    run_on_loop(conversation())


def test_a_peer_that_leaves_ends_what_ran_for_it(path: Path, run_on_loop: RunOnLoop) -> None:
    """Coroutines and streams of a peer that is gone are cancelled; a promised future may still be kept."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)) as server:
            peer = await RawPeer.connect(path)
            for number, method in enumerate((b"slow", b"forever", b"promise")):
                peer.send(b'{"id":%d,"method":"%s"}' % (number, method))
            assert json.loads(await peer.receive()) == {"id": 1, "event": "begun"}
            await until(lambda: gate.waiting)
            await peer.close()
            await until(lambda: gate.cancelled == 1 and gate.cleaned_up == 1)
            assert gate.waiting is not None
            assert not gate.waiting.cancelled()
            gate.waiting.set_result("too late")
            await until(lambda: server.connections == 0)

    run_on_loop(conversation())


def test_cancelling_ends_requests_and_streams(path: Path, run_on_loop: RunOnLoop) -> None:
    """A caller that stops waiting, and one that leaves a stream's loop, end the work at the daemon."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            client = await ControlClient.connect(path)
            with pytest.raises(ControlError) as refusal:
                await client.call("slow", timeout_s=0.01)
            assert refusal.value.code == protocol.TIMEOUT
            await until(lambda: gate.cancelled == 1)
            waiting = asyncio.ensure_future(client.call("slow"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await until(lambda: gate.cancelled == 2)
            events = client.subscribe("forever")
            assert await anext(events) == "begun"
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator
            await until(lambda: gate.cleaned_up == 1)
            assert await client.call("echo", {"value": 1}) == 1
            await client.close()

    run_on_loop(conversation())


def test_a_request_that_comes_with_its_cancellation_leaves_its_place(path: Path, run_on_loop: RunOnLoop) -> None:
    """As after a stall, when both lie in the socket; else a connection would fill up with what is long over."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate, requests_per_connection=2)):
            reader, writer = await asyncio.open_unix_connection(path)
            for _ in range(5):
                for method in ("slow", "forever"):
                    writer.write(protocol.request_frame(7, method, {}) + protocol.cancel_frame(7))
                    codes: list[str] = []
                    while not codes or codes[-1] == "event":
                        frame = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                        codes.append(next(key for key in ("event", "end", "error") if key in json.loads(frame)))
                    assert codes[-1] == ("error" if method == "slow" else "end")
            assert gate.cancelled == 5
            writer.write(protocol.request_frame(8, "slow", {}))
            writer.close()  # what was asked with the last breath ends as well
            await until(lambda: gate.cancelled == 6)

    run_on_loop(conversation())


def test_requests_under_way_are_bounded(path: Path, run_on_loop: RunOnLoop) -> None:
    """Beyond the bound a request is refused as busy; what is answered at once still is."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate, requests_per_connection=2, portal_requests_per_connection=2)):
            client = await ControlClient.connect(path)
            waiting = [asyncio.ensure_future(client.call("slow")) for _ in range(2)]
            await asyncio.sleep(0.01)
            for method in ("slow", "promise", "forever"):
                if method == "forever":
                    with pytest.raises(ControlError, match="under way"):
                        await anext(client.subscribe(method))
                else:
                    assert await code_of(client, method) == protocol.BUSY
            assert await client.call("echo", {"value": 1}) == 1
            gate.open.set()
            assert await asyncio.gather(*waiting) == ["done", "done"]
            await client.close()

    run_on_loop(conversation())


def test_an_id_under_way_cannot_be_used_again(path: Path, run_on_loop: RunOnLoop) -> None:
    """Two requests of one id would get each other's answers; the second is refused without touching the first."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            peer = await RawPeer.connect(path)
            peer.send(b'{"id":5,"method":"slow"}')
            peer.send(b'{"id":5,"method":"echo"}')
            refusal = json.loads(await peer.receive())
            assert (refusal["id"], refusal["error"]["code"]) == (None, protocol.BAD_REQUEST)
            gate.open.set()
            assert json.loads(await peer.receive()) == {"id": 5, "result": "done"}
            await peer.close()

    run_on_loop(conversation())


def test_connections_of_one_user_are_bounded(path: Path, run_on_loop: RunOnLoop) -> None:
    """Beyond the bound a connection gets the reason and is closed; when one closes, there is room again."""

    async def conversation() -> None:
        async with serving(make(path, Gate(), connections_per_uid=2)) as server:
            first, second = await ControlClient.connect(path), await ControlClient.connect(path)
            assert await first.call("echo", {"value": 1}) == 1
            third = await ControlClient.connect(path)
            assert await code_of(third, "echo") in (protocol.TOO_MANY_CONNECTIONS, protocol.UNREACHABLE)
            await until(lambda: server.counters.refused == 1)
            await second.close()
            await until(lambda: server.connections == 1)
            assert await third.call("echo", {"value": "room again"}) == "room again"
            await first.close()
            await third.close()

    run_on_loop(conversation())


def test_a_subscriber_that_does_not_read_is_dropped(path: Path, run_on_loop: RunOnLoop) -> None:
    """Its stream waits at a bound, then ends with an error; others notice nothing."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate, subscriber_patience_s=0.05)) as server:
            peer = await RawPeer.connect(path)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the transport of a socket
            peer.send(b'{"id":1,"method":"flood"}')
            neighbour = await ControlClient.connect(path)
            await until(lambda: gate.cleaned_up == 1)
            assert server.counters.errors[protocol.TOO_SLOW] == 1
            (waiting,) = (one for one in server._office.connections if one._write_paused)
            assert waiting._transport.get_write_buffer_size() < 400_000
            assert await neighbour.call("echo", {"value": 1}) == 1
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            while "event" in (message := json.loads(await peer.receive())):
                pass
            assert message["error"]["code"] == protocol.TOO_SLOW
            await peer.close()
            await neighbour.close()

    run_on_loop(conversation())


def test_a_peer_that_reads_no_answers_is_left_waiting(path: Path, run_on_loop: RunOnLoop) -> None:
    """Requests without end whose answers are not read fill neither the daemon's memory nor its time."""

    async def conversation() -> None:
        async with serving(make(path, Gate())) as server:
            peer = await RawPeer.connect(path)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            value = b'{"id":1,"method":"echo","params":{"value":"' + b"x" * 1000 + b'"}}'
            for _ in range(5000):
                peer.send(value)
            await until(lambda: any(one._write_paused for one in server._office.connections))
            (stuck,) = server._office.connections
            neighbour = await ControlClient.connect(path)
            assert await neighbour.call("echo", {"value": 1}) == 1
            assert stuck._transport.get_write_buffer_size() < 1_000_000
            assert len(stuck._frames) < 1_000_000
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(5000):
                assert len(await peer.receive()) > 1000
            await peer.close()
            await neighbour.close()

    run_on_loop(conversation())


def test_the_client_connects_anew(path: Path, run_on_loop: RunOnLoop) -> None:
    """When the daemon is restarted, requests under way fail, and the next call goes to the new one."""

    async def conversation() -> None:
        gate = Gate()
        async with serving(make(path, gate)):
            client = await ControlClient.connect(path)
            waiting = asyncio.ensure_future(client.call("slow"))
            events = client.subscribe("forever")
            assert await anext(events) == "begun"
        with pytest.raises(ControlError) as refusal:
            await waiting
        assert refusal.value.code in (protocol.UNREACHABLE, protocol.CANCELLED)
        with pytest.raises((ControlError, StopAsyncIteration)):
            await anext(events)
        assert await code_of(client, "echo") == protocol.UNREACHABLE
        async with serving(make(path, Gate())):
            assert await client.call("echo", {"value": "again"}) == "again"
            await client.close()
            assert await code_of(client, "echo") == protocol.UNREACHABLE

    run_on_loop(conversation())


def test_the_socket_is_for_its_group_only(path: Path, run_on_loop: RunOnLoop) -> None:
    """The socket has mode 0660 from its first moment, and is gone when the daemon ends."""

    async def conversation() -> None:
        async with serving(make(path, Gate())):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert not path.exists()

    run_on_loop(conversation())


def test_a_stale_socket_is_replaced(path: Path) -> None:
    """What a killed daemon left behind is replaced, a living daemon is not, nor is a file that is no socket."""
    first = make(path, Gate())
    first.bind()
    with pytest.raises(ControlError, match="another posternd answers"):
        make(path, Gate()).bind()
    assert first._listener is not None
    first._listener.close()
    second = make(path, Gate())
    second.bind()
    assert second._listener is not None
    second._listener.close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(ControlError, match="not a socket"):
        make(path, Gate()).bind()
    assert path.read_text() == "precious"


def test_an_impossible_path_is_named(tmp_path: Path) -> None:
    """A path that no socket can have is a sentence, not an errno."""
    with pytest.raises(ControlError, match="longer than 107 octets"):
        make(tmp_path / ("x" * 120), Gate()).bind()


def test_the_socket_keeps_our_group_when_the_named_one_does_not_exist(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A system without group postern still gets a control socket, and a line in the log."""
    server = ControlServer(path, {}, socket_group="no-such-group-here")
    with caplog.at_level(logging.WARNING):
        server.bind()
    assert "no such group" in caplog.text
    assert path.stat().st_gid == os.getegid()
    assert server._listener is not None
    server._listener.close()


ALL = Access.READ | Access.WRITE | Access.PORTAL | Access.ADMIN


def test_access_follows_users_and_groups() -> None:
    """Root and the daemon's own user may do all; groups give what they are for; the portal's user only its list."""
    names = [entry.gr_name for entry in grp.getgrall()[:7]]
    gids = [grp.getgrnam(name).gr_gid for name in names]
    portal, web = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
    roles = Roles(
        (names[1], "no-such-group"),
        (names[2],),
        (names[3],),
        (portal.pw_name, "no-such-user"),
        (names[4],),
        (web.pw_name,),
    )
    stranger = 4_000_000_000
    none = frozenset({stranger})
    assert access_of(0, 0, frozenset(), roles) == ALL
    assert access_of(os.geteuid(), stranger, none, roles) == ALL
    assert access_of(stranger, stranger, none, roles) == Access(0)
    assert access_of(stranger, stranger, frozenset({gids[1]}), roles) == Access.READ
    assert access_of(stranger, stranger, frozenset({gids[2]}), roles) == Access.READ | Access.WRITE
    assert access_of(stranger, stranger, frozenset({gids[1], gids[3]}), roles) == Access.READ | Access.PORTAL
    # The portal has to be in the socket's group to reach it; that must not give it eyes.
    every_group = frozenset(gids)
    assert access_of(portal.pw_uid, portal.pw_gid, every_group, roles) == Access.PORTAL
    assert access_of(stranger, gids[3], every_group, roles) == Access.PORTAL
    # So has the administration's web interface, which acts only for those who have logged in there.
    assert access_of(web.pw_uid, web.pw_gid, every_group, roles) == Access.ADMIN
    assert access_of(stranger, gids[4], every_group, roles) == Access.ADMIN
    assert access_of(stranger, stranger, frozenset({gids[1], gids[4]}), roles) == Access.READ | Access.ADMIN


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A socket's path that any user can reach, unlike pytest's own directories."""
    with tempfile.TemporaryDirectory(prefix="postern-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "control.sock"


_PEER_SCRIPT = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
for method in sys.argv[2:]:
    body = b'{"id":1,"method":"%s","params":{"value":"ok"}}' % method.encode()
    try:
        peer.sendall(len(body).to_bytes(4, "big") + body)
    except OSError:
        pass
    head = peer.recv(4, socket.MSG_WAITALL)
    print(peer.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL).decode())
"""


@pytest.mark.root
def test_peers_of_other_users_get_their_groups_access(public_path: Path, run_on_loop: RunOnLoop) -> None:
    """The kernel's word counts: a reader reads, a writer writes, the portal has its list, a stranger has nothing."""
    reading, writing = grp.getgrgid(2), grp.getgrgid(3)
    roles = Roles((reading.gr_name,), (writing.gr_name,), ("no-such-group",), ("nobody",))
    methods = ("echo", "note", "portal.only")

    async def ask(uid: int, groups: list[int]) -> list[str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", _PEER_SCRIPT, str(public_path), *methods],
            user=uid,
            group=uid,
            extra_groups=groups,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines() if line]
        return [answer["error"]["code"] if "error" in answer else "ok" for answer in answers]

    async def conversation() -> None:
        server = ControlServer(public_path, Gate().methods(), roles, socket_group=None)
        async with serving(server):
            public_path.chmod(0o666)  # so that only the roles are tested, not the socket's mode
            nobody = pwd.getpwnam("nobody").pw_uid
            assert await ask(31_000, [reading.gr_gid]) == ["ok", "denied", "denied"]
            assert await ask(31_000, [writing.gr_gid]) == ["ok", "ok", "denied"]
            assert await ask(nobody, [reading.gr_gid, writing.gr_gid]) == ["denied", "denied", "ok"]
            assert (await ask(31_000, []))[:1] == ["denied"]
            assert server.counters.refused == 1

    run_on_loop(conversation())


def test_a_peer_that_never_finishes_a_frame_costs_only_itself(path: Path, run_on_loop: RunOnLoop) -> None:
    """Half a frame waits for its other half, and goes when its connection goes."""

    async def conversation() -> None:
        async with serving(make(path, Gate())) as server:
            half = socket.socket(socket.AF_UNIX)
            half.connect(str(path))
            half.sendall((500_000).to_bytes(4, "big") + b"{" * 1000)
            client = await ControlClient.connect(path)
            assert await client.call("echo", {"value": 1}) == 1
            assert server.connections == 2
            half.close()
            await until(lambda: server.connections == 1)
            await client.close()

    run_on_loop(conversation())
