"""The listener for Disconnect and CoA on the loopback, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
import uvloop

from gateway.addresses import MacAddress
from gateway.config import Config, Radius
from gateway.radius.dynauth_sockets import DynamicAuthorization
from gateway.radius.packets import SIGNATURE_SLOT, Code, Type, attribute, decode, encode_request, integer_attribute
from gateway.radius.session_keys import SessionKeys
from gateway.session.model import ClientKey, GrantChange
from tests.gateway.radius.build import KEY, SECRET, UNIX, config, server

OTHER = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2b"))
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def settings(port: int) -> Config:
    return config(replace(server(), address=IPv4Address("127.0.0.1")), radius=Radius(coa_port=port))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


class Hub:
    """Two sessions of one user, and orders that take a moment."""

    def __init__(self, port: int) -> None:
        self.done: list[ClientKey] = []
        self.refused: ClientKey | None = None
        self.shell = DynamicAuthorization(
            settings(port),
            self.find,
            self.disconnect,
            self.change,
            time.monotonic,
            lambda: UNIX,
            nas_addresses=lambda: frozenset(),
        )

    def find(self, keys: SessionKeys) -> list[ClientKey]:
        return [KEY, OTHER] if keys.username == "alice" else []

    async def disconnect(self, key: ClientKey) -> tuple[bool, str]:
        await asyncio.sleep(0.02)
        if key == self.refused:
            return False, "the kernel says no"
        self.done.append(key)
        return True, ""

    async def change(self, key: ClientKey, change: GrantChange) -> tuple[bool, str]:
        assert change.limits.session_time_s == 60
        return await self.disconnect(key)


async def ask(port: int, data: bytes, wait_s: float = 5.0) -> bytes | None:
    """Send a request from a connected socket, so that only an answer from the asked address is heard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect(("127.0.0.1", port))
        asking.send(data)
        answered = asyncio.get_running_loop().create_future()

        def read() -> None:
            if not answered.done():
                answered.set_result(asking.recv(4096))

        asyncio.get_running_loop().add_reader(asking, read)
        try:
            async with asyncio.timeout(wait_s):
                answer: bytes = await answered
                return answer
        except TimeoutError:
            return None
        finally:
            asyncio.get_running_loop().remove_reader(asking)


def request(code: Code, *parts: bytes, user: bytes = b"alice") -> bytes:
    attributes = SIGNATURE_SLOT + attribute(Type.USER_NAME, user) + b"".join(parts)
    return encode_request(code, 9, SECRET, attributes)[0]


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_requests_are_answered_when_they_are_done(loop: str) -> None:
    """All sessions that match are ended or changed before the ACK; one refusal makes it a NAK with the reason."""

    async def story() -> None:
        port, moved = free_port(), free_port()
        hub = Hub(port)
        task = asyncio.ensure_future(hub.shell.run())
        await asyncio.sleep(0)
        disconnect = request(Code.DISCONNECT_REQUEST)
        answer = await ask(port, disconnect)
        assert answer is not None
        assert decode(answer).code == Code.DISCONNECT_ACK
        assert hub.done == [KEY, OTHER]
        answer = await ask(port, request(Code.COA_REQUEST, integer_attribute(27, 60)))
        assert answer is not None
        assert decode(answer).code == Code.COA_ACK
        answer = await ask(port, request(Code.DISCONNECT_REQUEST, user=b"bob"))
        assert answer is not None
        assert decode(answer).integer("Error-Cause") == 503
        hub.refused = OTHER
        answer = await ask(port, request(Code.DISCONNECT_REQUEST, attribute(Type.STATE, b"x")))
        assert answer is not None
        assert decode(answer).texts("Reply-Message") == ("the kernel says no",)
        assert await ask(port, disconnect[:-1], 0.1) is None
        assert hub.shell.counters["dropped_malformed"] == 1
        hub.refused = None
        hub.shell.reconfigure(settings(moved))
        answer = await ask(moved, request(Code.DISCONNECT_REQUEST, attribute(Type.STATE, b"y")))
        assert answer is not None
        assert decode(answer).octets("State") == (b"y",)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(story(), 30))


def test_switched_off_it_does_not_listen() -> None:
    """With coa_enabled off the port is free for others."""

    async def story() -> None:
        port = free_port()
        hub = Hub(port)
        off = settings(port)
        hub.shell.reconfigure(replace(off, radius=replace(off.radius, coa_enabled=False)))
        task = asyncio.ensure_future(hub.shell.run())
        await asyncio.sleep(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", port))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
