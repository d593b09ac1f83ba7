"""The client's shell on the loopback, with a small RADIUS server of the test's own, on both event loops."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random, SystemRandom

import pytest
import uvloop

from gateway.addresses import MacAddress
from gateway.config import Config, Radius, RadiusServer, Secret
from gateway.radius.packets import Code, decode
from gateway.radius.sockets import RadiusClient
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected, Event
from gateway.session.model import AccountingStatus
from tests.gateway.radius.build import GATEWAY_MAC, SECRET, UNIX, answer, config, login, record

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
LIMIT_S = 20.0


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Run a coroutine on each kind of event loop, for a bounded time."""

    def runner(story: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(LIMIT_S):
                await story

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as made:
            made.run(bounded())

    return runner


class Responder:
    """A server that accepts alice, rejects others, answers all accounting, and remembers what it saw.

    Before every answer it sends `noise` datagrams of rubbish and one forgery.
    """

    def __init__(self, port: int = 0, *, silent: bool = False, noise: int = 0) -> None:
        self.port = port
        self._silent = silent
        self._noise = noise
        self._random = Random(8)
        self.seen: list[bytes] = []

    async def __aenter__(self) -> Responder:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        data, source = self._socket.recvfrom(4096)
        self.seen.append(data)
        if self._silent:
            return
        packet = decode(data)
        if packet.code == Code.ACCOUNTING_REQUEST:
            reply = answer(data, Code.ACCOUNTING_RESPONSE, sign=False)
        elif packet.texts("User-Name") == ("alice",):
            reply = answer(data, Code.ACCESS_ACCEPT)
        else:
            reply = answer(data, Code.ACCESS_REJECT)
        for _ in range(self._noise):
            self._socket.sendto(self._random.randbytes(self._random.randrange(1, 5000)), source)
        self._socket.sendto(reply[:-1] + b"?", source)
        self._socket.sendto(reply, source)


def free_port() -> int:
    """A UDP port that nobody uses at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def local(name: str, port: int, priority: int = 10) -> RadiusServer:
    return RadiusServer(
        name=name,
        address=IPv4Address("127.0.0.1"),
        secret=Secret(SECRET.decode()),
        auth_port=port,
        acct_port=port,
        priority=priority,
    )


class Hub:
    """What the daemon is to the client: it takes events and finished records."""

    def __init__(self, settings: Config) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.done: list[int] = []
        self.batches = 0
        self.learned = 0
        self.client = RadiusClient(
            settings,
            self.events.put_nowait,
            time.monotonic,
            lambda: UNIX,
            SystemRandom(),
            accounting_done=self.finished,
            zone_mac=self.zone_mac,
            learned_changed=self.learn,
        )

    def finished(self, record_ids: list[int]) -> None:
        self.done += record_ids
        self.batches += 1

    def learn(self) -> None:
        self.learned += 1

    def zone_mac(self, _zone: str) -> MacAddress | None:
        return GATEWAY_MAC

    async def __aenter__(self) -> Hub:
        self._task = asyncio.ensure_future(self.client.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


def test_a_login_and_its_accounting(run: Callable[[Awaitable[None]], None]) -> None:
    """Accept, reject, Start and Stop travel there and back; forged answers in between change nothing."""

    async def story() -> None:
        async with Responder() as server, Hub(config(local("one", server.port))) as hub:
            hub.client.send_access_request(login(1))
            assert isinstance(await hub.events.get(), AccessAccepted)
            hub.client.send_access_request(replace(login(2), credentials=replace(login(2).credentials, username="eve")))
            assert isinstance(await hub.events.get(), AccessRejected)
            hub.client.queue_accounting(record(1))
            hub.client.queue_accounting(record(2, AccountingStatus.STOP))
            assert await hub.client.drain(5.0)
            assert hub.done == [1, 2]
            assert hub.learned == 1
            assert hub.client.snapshot().learned == {"one@127.0.0.1"}
            assert hub.client.nas_addresses() == {IPv4Address("127.0.0.1")}
            statuses = [decode(data).integer("Acct-Status-Type") for data in server.seen[2:]]
            assert statuses == [1, 2]
            status = hub.client.status()
            assert "testing123" not in json.dumps(status)
            (auth, _) = hub.client.channels()
            assert auth.tallies.requests == {"accept": 1, "reject": 1}
            assert auth.tallies.refused["authenticator"] >= 1

    run(story())


def test_more_logins_at_once_than_a_socket_has_identifiers(run: Callable[[Awaitable[None]], None]) -> None:
    """300 logins under way together are all answered, and so are their records, in few batches."""

    async def story() -> None:
        async with Responder() as server, Hub(config(local("one", server.port))) as hub:
            for number in range(300):
                hub.client.send_access_request(login(number))
            events = [await hub.events.get() for _ in range(300)]
            assert all(isinstance(event, AccessAccepted) for event in events)
            for number in range(300):
                hub.client.queue_accounting(record(number, session=f"s{number}"))
            assert await hub.client.drain(10.0)
            assert sorted(hub.done) == list(range(300))
            assert hub.batches < 100

    run(story())


def test_a_closed_port_fails_over_at_once(run: Callable[[Awaitable[None]], None]) -> None:
    """ICMP unreachable from the first server sends the login to the second without waiting for the timeout."""

    async def story() -> None:
        dead = free_port()
        async with Responder() as server, Hub(config(local("dead", dead, 1), local("one", server.port, 2))) as hub:
            began = time.monotonic()
            hub.client.send_access_request(login(1))
            assert isinstance(await hub.events.get(), AccessAccepted)
            assert time.monotonic() - began < 3.0

    run(story())


def test_a_server_that_was_away_is_heard_again(run: Callable[[Awaitable[None]], None]) -> None:
    """After its port was closed for several requests, answers from the same port reach us on the same sockets."""

    async def story() -> None:
        port = free_port()
        radius = Radius(timeout=0.1, retries=2, circuit_breaker_failure_threshold=100)
        async with Hub(config(local("one", port), radius=radius)) as hub:
            for number in range(3):
                hub.client.send_access_request(login(number))
                assert isinstance(await hub.events.get(), AccessFailed)
            async with Responder(port):
                for number in range(3, 6):
                    hub.client.send_access_request(login(number))
                    assert isinstance(await hub.events.get(), AccessAccepted)

    run(story())


def test_silence_ends_in_a_sentence(run: Callable[[Awaitable[None]], None]) -> None:
    """A silent server is asked again, then given up; records stay for later, and nothing is logged that is secret."""

    async def story() -> None:
        radius = Radius(timeout=0.1, retries=1, circuit_breaker_failure_threshold=1)
        async with (
            Responder(silent=True) as server,
            Hub(config(local("one", server.port), radius=radius)) as hub,
        ):
            hub.client.send_access_request(login(1))
            failed = await hub.events.get()
            assert isinstance(failed, AccessFailed)
            assert "did not answer 2 request(s)" in failed.reason
            assert len(server.seen) == 2
            assert server.seen[0] == server.seen[1]
            hub.client.queue_accounting(record(5))
            assert not await hub.client.drain(0.05)
            assert hub.client.queue_length() == 1
            assert hub.client.snapshot().records == (record(5),)
            assert hub.done == []

    run(story())


def test_what_comes_before_run_is_not_lost(run: Callable[[Awaitable[None]], None]) -> None:
    """Restored records and early orders go out when the client starts, the restored ones with their delay."""

    async def story() -> None:
        async with Responder() as server:
            hub = Hub(config(local("one", server.port)))
            hub.client.restore([replace(record(3), event_unix=UNIX - 100)], ["one@127.0.0.1"])
            hub.client.queue_accounting(record(4, session="s4"))
            hub.client.send_access_request(login(1))
            async with hub:
                assert isinstance(await hub.events.get(), AccessAccepted)
                assert await hub.client.drain(5.0)
            assert sorted(hub.done) == [3, 4]
            delays = {decode(data).integer("Acct-Delay-Time") for data in server.seen}
            assert delays == {None, 100}
            assert hub.learned == 0

    run(story())


def test_reconfiguration_moves_to_another_server(run: Callable[[Awaitable[None]], None]) -> None:
    """After a reload the new server is asked, also for what was under way."""

    async def story() -> None:
        async with (
            Responder(silent=True) as silent,
            Responder() as server,
            Hub(config(local("one", silent.port))) as hub,
        ):
            hub.client.send_access_request(login(1))
            hub.client.queue_accounting(record(1))
            hub.client.reconfigure(config(local("one", server.port)))
            assert isinstance(await hub.events.get(), AccessAccepted)
            assert await hub.client.drain(5.0)

    run(story())


def test_a_cancelled_login_is_not_posted(run: Callable[[Awaitable[None]], None]) -> None:
    """Nothing is posted for a login that nobody waits for."""

    async def story() -> None:
        async with Responder() as server, Hub(config(local("one", server.port))) as hub:
            hub.client.send_access_request(login(1))
            hub.client.cancel(1)
            hub.client.send_access_request(login(2))
            event = await hub.events.get()
            assert isinstance(event, AccessAccepted)
            assert event.login_id == 2
            assert hub.events.empty()

    run(story())


def test_no_secret_is_ever_logged(run: Callable[[Awaitable[None]], None], caplog: pytest.LogCaptureFixture) -> None:
    """Neither password nor shared secret is in any log line, at any level, whatever goes wrong."""

    async def story() -> None:
        radius = Radius(timeout=0.05, retries=0, circuit_breaker_failure_threshold=1)
        async with (
            Responder(silent=True) as silent,
            Responder() as server,
            Hub(config(local("silent", silent.port, 1), local("one", server.port, 2), radius=radius)) as hub,
        ):
            for number in range(3):
                hub.client.send_access_request(login(number))
                assert isinstance(await hub.events.get(), AccessAccepted)

    with caplog.at_level(logging.DEBUG):
        run(story())
    assert "left alone" in caplog.text
    assert "dropped" in caplog.text
    for secret in ("wonderland", "testing123"):
        assert secret not in caplog.text


def test_garbage_on_the_wire_is_survived(run: Callable[[Awaitable[None]], None]) -> None:
    """A server that sends rubbish with every answer is still understood."""

    async def story() -> None:
        async with Responder(noise=20) as noisy, Hub(config(local("one", noisy.port))) as hub:
            for number in range(20):
                hub.client.send_access_request(login(number))
                assert isinstance(await hub.events.get(), AccessAccepted)

    run(story())
