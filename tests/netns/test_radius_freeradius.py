"""Against a real FreeRADIUS 3.2 and its radclient: logins, accounting, outages, Disconnect and CoA.

All but one test run on the loopback and need no root; the last one starts the server in a namespace of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from random import SystemRandom

import pytest
import uvloop

from gateway.addresses import MacAddress
from gateway.config import Config, Radius, RadiusServer, Secret, Zone
from gateway.radius.dynauth_sockets import DynamicAuthorization
from gateway.radius.session_keys import SessionFacts, SessionKeys, matches
from gateway.radius.sockets import RadiusClient
from gateway.session.actions import SendAccessRequest
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected, Event
from gateway.session.model import (
    AccountingRecord,
    AccountingStatus,
    ChapCredentials,
    ClientKey,
    Counters,
    Credentials,
    GrantChange,
    PapCredentials,
    TerminateCause,
)
from tests.netns.freeradius import FreeRadius, radclient, user_entry

SECRET = "testing123"
MAC = MacAddress.parse("02:00:5e:10:00:2a")
ADDRESS = IPv4Address("10.41.0.20")
KEY = ClientKey("guest", MAC)
LOOPBACK = IPv4Address("127.0.0.1")
LIMIT_S = 60.0

USERS = (
    user_entry(
        "alice",
        "wonderland",
        "Session-Timeout := 3600",
        "Acct-Interim-Interval := 120",
        'Class := "gold"',
        'Mikrotik-Rate-Limit := "1M/5M"',
        "ChilliSpot-Max-Input-Octets := 1000",
        "Mikrotik-Total-Limit := 5",
        "Mikrotik-Total-Limit-Gigawords := 1",
        'WISPr-Redirection-URL := "https://example.com/welcome"',
    )
    + 'mallory Auth-Type := Reject\n\tReply-Message := "Your ticket has expired."\n\n'
    + user_entry("DEFAULT", "secret")
)


def free_port() -> int:
    """A UDP port that nobody uses at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server_at(workdir: Path, *, signs: bool = True) -> FreeRadius:
    return FreeRadius(
        workdir,
        USERS,
        {"127.0.0.1": SECRET},
        auth_port=free_port(),
        acct_port=free_port(),
        message_authenticator=signs,
    )


@pytest.fixture
def freeradius(tmp_path: Path) -> Iterator[FreeRadius]:
    """A running FreeRADIUS that signs its answers."""
    with server_at(tmp_path) as server:
        yield server


def config(server: FreeRadius, radius: Radius | None = None, *, policy: str = "auto", secret: str = SECRET) -> Config:
    configured = RadiusServer(
        name="one",
        address=LOOPBACK,
        secret=Secret(secret),
        auth_port=server.auth_port,
        acct_port=server.acct_port,
        require_message_authenticator=policy,
    )
    zone = Zone(name="guest", interface="br-guest", ssid="Cafe")
    return Config(radius=replace(radius or Radius(), servers=(configured,)), zones=(zone,))


def login(login_id: int, credentials: Credentials | None = None) -> SendAccessRequest:
    return SendAccessRequest(
        KEY, login_id, credentials or PapCredentials("alice", "wonderland"), ADDRESS, 7, f"67a1b2c3-{login_id:08x}"
    )


def record(
    record_id: int, status: AccountingStatus, session: str, counters: Counters | None = None
) -> AccountingRecord:
    return AccountingRecord(
        record_id,
        status,
        session,
        time.time(),
        zone="guest",
        mac=MAC,
        address=ADDRESS,
        client_number=7,
        username="alice",
        class_values=(b"gold",),
        session_time_s=60,
        counters=counters or Counters(),
        terminate_cause=TerminateCause.IDLE_TIMEOUT if status is AccountingStatus.STOP else None,
    )


class Gateway:
    """A RADIUS client with the hub's side of it, running in the background."""

    def __init__(self, settings: Config) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.done: list[int] = []
        self.client = RadiusClient(
            settings,
            self.events.put_nowait,
            time.monotonic,
            time.time,
            SystemRandom(),
            accounting_done=self.done.extend,
            zone_mac=lambda _zone: MacAddress.parse("02:00:5e:00:00:01"),
            learned_changed=lambda: None,
        )

    async def __aenter__(self) -> Gateway:
        self._task = asyncio.ensure_future(self.client.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task

    async def ask(self, action: SendAccessRequest) -> Event:
        self.client.send_access_request(action)
        return await self.events.get()


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await story

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_pap_chap_and_their_refusal(freeradius: FreeRadius) -> None:
    """Both protocols are accepted with all attributes, wrong passwords and refused users rejected with the message."""

    async def story() -> None:
        async with Gateway(config(freeradius, policy="require")) as gateway:
            accepted = await gateway.ask(login(1))
            assert isinstance(accepted, AccessAccepted), accepted
            grant = accepted.grant
            assert grant.limits.session_time_s == 3600
            assert grant.limits.upload_bytes == 1000
            assert grant.limits.total_bytes == (1 << 32) + 5
            assert (grant.limits.upload_bps, grant.limits.download_bps) == (1_000_000, 5_000_000)
            assert grant.interim_interval_s == 120
            assert grant.class_values == (b"gold",)
            assert grant.redirection_url == "https://example.com/welcome"
            assert isinstance(await gateway.ask(login(2, PapCredentials("alice", "wrong"))), AccessRejected)
            refused = await gateway.ask(login(3, PapCredentials("mallory", "x")))
            assert isinstance(refused, AccessRejected)
            assert refused.message == "Your ticket has expired."
            wrong = ChapCredentials("alice", 1, b"r" * 16, b"c" * 16)
            assert isinstance(await gateway.ask(login(4, wrong)), AccessRejected)
        async with Gateway(config(freeradius, Radius(protocol="chap"))) as gateway:
            assert isinstance(await gateway.ask(login(5)), AccessAccepted)

    run(story())


def test_a_server_that_does_not_sign(tmp_path: Path) -> None:
    """Its answers pass with a standing warning by policy auto, and with require the failure says what is missing."""

    async def story(server: FreeRadius) -> None:
        async with Gateway(config(server)) as gateway:
            assert isinstance(await gateway.ask(login(1)), AccessAccepted)
            servers = gateway.client.status()["servers"]
            assert isinstance(servers, list)
            assert "CVE-2024-3596" in servers[0]["warning"]
        async with Gateway(config(server, Radius(timeout=0.2, retries=0), policy="require")) as gateway:
            failed = await gateway.ask(login(2))
            assert isinstance(failed, AccessFailed)
            assert "answered without Message-Authenticator" in failed.reason

    with server_at(tmp_path, signs=False) as server:
        run(story(server))


def test_a_server_that_demands_signatures(tmp_path: Path) -> None:
    """A server that ignores unsigned requests answers ours."""

    async def story(server: FreeRadius) -> None:
        async with Gateway(config(server)) as gateway:
            assert isinstance(await gateway.ask(login(1)), AccessAccepted)

    server = server_at(tmp_path)
    server.require_message_authenticator = True
    with server:
        run(story(server))


def test_the_wrong_secret_lets_nobody_in(freeradius: FreeRadius) -> None:
    """With another secret on our side no answer is believed."""

    async def story() -> None:
        settings = config(freeradius, Radius(timeout=0.2, retries=0), secret="another-one")
        async with Gateway(settings) as gateway:
            assert isinstance(await gateway.ask(login(1)), AccessFailed)

    run(story())


def test_accounting_is_written_down_as_it_was(freeradius: FreeRadius) -> None:
    """Start, Interim and Stop arrive in order with gigawords, cause and the values to echo."""

    async def story() -> None:
        async with Gateway(config(freeradius)) as gateway:
            total = Counters((3 << 32) + 5, 11, (1 << 32) - 1, 12)
            gateway.client.queue_accounting(record(1, AccountingStatus.START, "s1"))
            await gateway.client.drain(5.0)
            gateway.client.queue_accounting(record(2, AccountingStatus.INTERIM, "s1", Counters(1, 2, 3, 4)))
            await gateway.client.drain(5.0)
            gateway.client.queue_accounting(record(3, AccountingStatus.STOP, "s1", total))
            assert await gateway.client.drain(5.0)
            assert gateway.done == [1, 2, 3]

    run(story())
    start, interim, stop = freeradius.wait_for_records(3)
    assert [one["Acct-Status-Type"] for one in (start, interim, stop)] == ["Start", "Interim-Update", "Stop"]
    assert {one["Acct-Session-Id"] for one in (start, interim, stop)} == {"s1"}
    assert (stop["Acct-Input-Octets"], stop["Acct-Input-Gigawords"]) == ("5", "3")
    assert (stop["Acct-Output-Octets"], stop["Acct-Output-Gigawords"]) == ("4294967295", "0")
    assert (stop["Acct-Input-Packets"], stop["Acct-Output-Packets"]) == ("11", "12")
    assert stop["Acct-Terminate-Cause"] == "Idle-Timeout"
    assert stop["Class"] == "0x676f6c64"
    assert stop["Called-Station-Id"] == "02-00-5E-00-00-01:Cafe"
    assert stop["NAS-IP-Address"] == "127.0.0.1"
    assert interim["Acct-Input-Octets"] == "1"


def test_nothing_is_lost_while_the_server_is_away(freeradius: FreeRadius) -> None:
    """Users come and go while it is stopped; when it is back it holds a Start and a Stop of each, once."""

    async def story() -> None:
        async with Gateway(config(freeradius)) as gateway:
            freeradius.stop()
            for number in range(30):
                gateway.client.queue_accounting(record(2 * number, AccountingStatus.START, f"s{number}"))
                gateway.client.queue_accounting(
                    record(2 * number + 1, AccountingStatus.STOP, f"s{number}", Counters(number, 1, 2, 3))
                )
            await asyncio.sleep(0.5)
            assert gateway.done == []
            await asyncio.to_thread(freeradius.start)
            assert await gateway.client.drain(30.0)

    run(story())
    seen = [(one["Acct-Session-Id"], one["Acct-Status-Type"]) for one in freeradius.wait_for_records(60)]
    assert sorted(seen) == sorted((f"s{number}", status) for number in range(30) for status in ("Start", "Stop"))


def test_a_hung_server_gets_identical_repetitions(freeradius: FreeRadius) -> None:
    """A server that hung and then reads several copies of a record writes down one."""

    async def story() -> None:
        async with Gateway(config(freeradius)) as gateway:
            freeradius.pause()
            gateway.client.queue_accounting(record(1, AccountingStatus.START, "s1"))
            await asyncio.sleep(2.5)
            freeradius.resume()
            assert await gateway.client.drain(20.0)

    run(story())
    time.sleep(0.2)
    assert len(freeradius.records()) == 1


def test_status_server_revives_a_stopped_server(freeradius: FreeRadius) -> None:
    """After the breaker opened, answers to Status-Server close it again without any login being spent."""

    async def story() -> None:
        radius = Radius(timeout=0.2, retries=0, circuit_breaker_failure_threshold=1, circuit_breaker_timeout=0.3)
        async with Gateway(config(freeradius, radius)) as gateway:
            freeradius.stop()
            assert isinstance(await gateway.ask(login(1)), AccessFailed)
            began = time.monotonic()
            failed = await gateway.ask(login(2))
            assert isinstance(failed, AccessFailed)
            assert time.monotonic() - began < 0.15  # at once
            await asyncio.to_thread(freeradius.start)
            (auth, _) = gateway.client.channels()
            while auth.breaker.state.value != "closed":
                await asyncio.sleep(0.05)
            assert auth.answers_status
            assert auth.tallies.requests["accept"] == 0
            assert isinstance(await gateway.ask(login(3)), AccessAccepted)

    run(story())


def test_a_burst_of_logins(freeradius: FreeRadius) -> None:
    """600 logins at once, more than two sockets can hold, are all accepted."""

    async def story() -> None:
        async with Gateway(config(freeradius)) as gateway:
            for number in range(600):
                gateway.client.send_access_request(login(number))
            events = [await gateway.events.get() for _ in range(600)]
            assert all(isinstance(event, AccessAccepted) for event in events)

    run(story())


class Sessions:
    """A hub with one live session, which takes orders."""

    def __init__(self) -> None:
        self.facts = SessionFacts("67a1b2c3-0000002a", "alice", MAC, ADDRESS, (), 7, "br-guest", None)
        self.disconnected: list[ClientKey] = []
        self.changes: list[GrantChange] = []
        self.refusal = ""

    def find(self, keys: SessionKeys) -> list[ClientKey]:
        return [KEY] if matches(keys, self.facts) else []

    async def disconnect(self, key: ClientKey) -> tuple[bool, str]:
        await asyncio.sleep(0.01)
        self.disconnected.append(key)
        return not self.refusal, self.refusal

    async def change(self, _key: ClientKey, change: GrantChange) -> tuple[bool, str]:
        await asyncio.sleep(0.01)
        self.changes.append(change)
        return not self.refusal, self.refusal


def test_disconnect_and_coa_by_radclient(freeradius: FreeRadius) -> None:
    """radclient ends and changes a session, and is told why when it cannot."""
    port = free_port()
    sessions = Sessions()
    session = 'Acct-Session-Id = "67a1b2c3-0000002a"'

    def ask(kind: str, *attributes: str, secret: str = SECRET) -> tuple[str, str]:
        answer = radclient(f"127.0.0.1:{port}", kind, secret, attributes, retries=1, timeout_s=1)
        return answer.code, answer.text

    async def story() -> None:
        shell = DynamicAuthorization(
            config(freeradius, Radius(coa_port=port)),
            sessions.find,
            sessions.disconnect,
            sessions.change,
            time.monotonic,
            time.time,
            nas_addresses=lambda: frozenset({LOOPBACK}),
        )
        task = asyncio.ensure_future(shell.run())
        await asyncio.sleep(0)

        async def told(kind: str, *attributes: str, secret: str = SECRET) -> tuple[str, str]:
            return await asyncio.to_thread(ask, kind, *attributes, secret=secret)

        code, _ = await told("disconnect", session, "User-Name = alice", "Message-Authenticator = 0x00")
        assert code == "Disconnect-ACK"
        assert sessions.disconnected == [KEY]
        code, text = await told("disconnect", session, "User-Name = bob")
        assert code == "Disconnect-NAK"
        assert "Session-Context-Not-Found" in text
        code, text = await told("disconnect", "NAS-Identifier = another", session)
        assert "NAS-Identification-Mismatch" in text
        code, text = await told("disconnect", 'Reply-Message = "bye"')
        assert "Missing-Attribute" in text
        code, _ = await told("coa", session, "Session-Timeout = 60", 'Mikrotik-Rate-Limit = "1M/2M"')
        assert code == "CoA-ACK"
        assert sessions.changes[0].changed == {"session_time_s", "upload_bps", "download_bps"}
        code, text = await told("coa", session, "Session-Timeout = 60", "Framed-MTU = 1400")
        assert code == "CoA-NAK"
        assert "Unsupported-Attribute" in text
        sessions.refusal = "the kernel says no"
        code, text = await told("disconnect", 'Calling-Station-Id = "02:00:5e:10:00:2a"')
        assert code == "Disconnect-NAK"
        assert "the kernel says no" in text
        code, _ = await told("disconnect", session, secret="wrong-secret")
        assert code == ""
        assert shell.counters["dropped_authenticator"] >= 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace of this test with its loopback up."""
    name = f"radius-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.root
def test_the_server_runs_in_a_namespace(namespace: str, tmp_path: Path) -> None:
    """The helper starts FreeRADIUS inside a namespace, where radclient reaches it and nobody outside does."""
    with FreeRadius(tmp_path, USERS, {"127.0.0.1": SECRET}, namespace=namespace) as server:
        attributes = ("User-Name = alice", "User-Password = wonderland")
        assert radclient("127.0.0.1", "auth", SECRET, attributes, namespace=namespace).code == "Access-Accept"
        outside = radclient(f"127.0.0.1:{server.auth_port}", "auth", SECRET, attributes, retries=1, timeout_s=1)
        assert outside.code == ""
