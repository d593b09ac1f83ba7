"""A gate for tests: `Datapath` in a laboratory's gateway, driven step by step from the test, without the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, TypeVar

from gateway.config import Config, Garden, Network, Zone
from gateway.datapath.datapath import Datapath, DatapathAction
from gateway.session.actions import AllowTraffic, BindAddress, DenyTraffic, ReadCounters
from gateway.session.events import CountersRead, Event, TrafficDenied
from gateway.session.model import ClientKey, Counters
from tests.netns.harness import UPLINK, Guest, Lab

_Result = TypeVar("_Result")
ZONES = ("guest", "staff")


def zone_of(lab: Lab, index: int = 0, **options: Any) -> Zone:
    """The zone of the laboratory's bridge; `options` are fields of Zone, hence Any."""
    home = lab.zones[index]
    return Zone(name=ZONES[index], interface=home.bridge, address=home.address, **options)


def config_of(lab: Lab, *, gardens: Sequence[Garden] = (), **options: Any) -> Config:
    """A configuration for every bridge of the laboratory."""
    return Config(
        network=Network(uplinks=(UPLINK,)),
        zones=tuple(zone_of(lab, index, **options) for index in range(len(lab.zones))),
        gardens=tuple(gardens),
    )


class Gate:
    """A datapath on an event loop of its own, which runs while the test asks for something."""

    def __init__(self, lab: Lab, config: Config) -> None:
        self.lab = lab
        self.config = config
        self.events: list[Event] = []
        self.kept: dict[ClientKey, Counters] = {}
        self._loop = asyncio.new_event_loop()
        self._watching: asyncio.Task[None] | None = None
        self.datapath = self._do(self._make())

    async def _make(self) -> Datapath:
        return Datapath(self.config, self.events.append, time.monotonic)

    def start(self, wanted: Sequence[AllowTraffic] = (), bindings: Sequence[BindAddress] = ()) -> Gate:
        """Start the datapath and its watchers."""
        self.kept = self._do(self.datapath.start(wanted, bindings))
        self._watching = self._loop.create_task(self.datapath.run(), name="watch")
        return self

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        with self.lab.inside(self.lab.gateway):
            return self._loop.run_until_complete(work)

    def perform(self, action: DatapathAction) -> None:
        """Perform an action on the event loop."""

        async def run() -> None:
            self.datapath.perform(action)

        self._do(run())

    def let_run(self, seconds: float) -> None:
        """Let the watchers work."""
        self._do(asyncio.sleep(seconds))

    def until(self, condition: Any, timeout_s: float = 5) -> bool:
        """Let the watchers work until the condition holds."""

        async def run() -> bool:
            deadline = time.monotonic() + timeout_s
            while not condition():
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(0.01)
            return True

        return self._do(run())

    def check(self) -> list[str]:
        """What `postern ruleset check` would say."""
        return self._do(self.datapath.check())

    def reconfigure(self, config: Config) -> None:
        """Go over to another configuration."""
        self._do(self.datapath.reconfigure(config))

    def teardown(self) -> None:
        """Remove everything."""
        self._do(self.datapath.teardown())

    def close(self) -> None:
        """End the datapath as a stopped daemon would, leaving the kernel as it is."""

        async def run() -> None:
            if self._watching is not None:
                self._watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._watching
            await self.datapath.close()

        if not self._loop.is_closed():
            self._do(run())
            self._loop.close()

    # Orders about one guest

    def bind(self, guest: Guest) -> None:
        """Say that DHCP gave the guest its address."""
        self.perform(BindAddress(key_of(guest), address_of(guest)))

    def login(self, guest: Guest, number: int = 1, lifetime_s: int | None = 600) -> None:
        """Open the gate for a guest."""
        self.perform(allow(guest, number, lifetime_s))

    def logout(self, guest: Guest, number: int = 1) -> Counters:
        """Shut the gate for a guest and return its final counters."""
        self.perform(DenyTraffic(key_of(guest), address_of(guest), number))
        for event in reversed(self.events):
            if isinstance(event, TrafficDenied) and event.key == key_of(guest):
                return event.counters
        raise AssertionError(f"no TrafficDenied in {self.events}")

    def logout_later(self, guest: Guest, number: int = 1) -> Counters:
        """As `logout`, where the answer takes a while."""
        self.perform(DenyTraffic(key_of(guest), address_of(guest), number))
        found: list[Counters] = []

        def answered() -> bool:
            found.extend(event.counters for event in self.events if isinstance(event, TrafficDenied))
            return bool(found)

        assert self.until(answered)
        return found[-1]

    def perform_sweep(self) -> None:
        """Begin the sweep of retired numbers before its time."""

        async def run() -> None:
            self.datapath.sweep_soon()

        self._do(run())

    def counters(self, guest: Guest) -> Counters:
        """Read the guest's counters."""
        self.perform(ReadCounters((key_of(guest),)))
        last = next(event for event in reversed(self.events) if isinstance(event, CountersRead))
        return dict(last.readings)[key_of(guest)]

    def nft(self, script: str) -> None:
        """Do to the gateway's ruleset what another tool might do."""
        self.lab.run(self.lab.gateway, ["nft", "-f", "-"], stdin=script)


def key_of(guest: Guest) -> ClientKey:
    """The guest's key."""
    return ClientKey(ZONES[guest.zone.index], guest.mac)


def address_of(guest: Guest) -> IPv4Address:
    """The guest's address."""
    assert guest.address is not None
    return guest.address


def allow(guest: Guest, number: int = 1, lifetime_s: int | None = 600) -> AllowTraffic:
    """The order to open the gate for a guest."""
    return AllowTraffic(key_of(guest), address_of(guest), number, lifetime_s)


@contextlib.contextmanager
def open_lab(
    name: str, *, guests: int = 1, zones: int = 1, gardens: Sequence[Garden] = (), start: bool = True, **options: Any
) -> Iterator[tuple[Lab, Gate]]:
    """A laboratory with the Internet's servers, static guests whose addresses are bound, and a gate."""
    with Lab(name, guests_wanted=guests, zones_wanted=zones, static=True) as lab:
        lab.start_internet()
        gate = Gate(lab, config_of(lab, gardens=gardens, **options))
        try:
            if start:
                gate.start(bindings=[BindAddress(key_of(guest), address_of(guest)) for guest in lab.guests])
            yield lab, gate
        finally:
            gate.close()


def narrower(config: Config, **options: Any) -> Config:
    """The configuration with other options in its first zone."""
    return replace(config, zones=(replace(config.zones[0], **options), *config.zones[1:]))


def connect(lab: Lab, netns: str, target: object, port: int, *, timeout_s: float = 1.5) -> str:
    """Try a TCP connection from a namespace: "open", "reset", "refused" (by ICMP) or "silence"."""
    try:
        open_tcp(lab, netns, target, port, timeout_s=timeout_s).close()
    except ConnectionRefusedError:
        return "reset"
    except TimeoutError:
        return "silence"
    except OSError as error:
        if error.errno not in (errno.EHOSTUNREACH, errno.EACCES, errno.ENETUNREACH):
            raise
        return "refused"
    return "open"


def open_tcp(lab: Lab, netns: str, target: object, port: int, *, timeout_s: float = 1.5) -> socket.socket:
    """A TCP connection from a namespace."""
    with lab.inside(netns):
        return socket.create_connection((str(target), port), timeout=timeout_s)


def ask_udp(
    lab: Lab, netns: str, target: object, port: int, data: bytes, *, timeout_s: float = 1.0, source_port: int = 0
) -> bytes | str:
    """Send a datagram from a namespace, from any port or the one given: the answer, "refused" or "silence"."""
    family = socket.AF_INET6 if ":" in str(target) else socket.AF_INET
    with lab.inside(netns):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(timeout_s)
        try:
            sock.bind(("", source_port))
            sock.connect((str(target), port))
            sock.send(data)
            return sock.recv(65535)
        except TimeoutError:
            return "silence"
        except OSError:
            return "refused"


def listen(lab: Lab, stack: contextlib.ExitStack, netns: str, port: int, *, answer: bytes = b"") -> None:
    """Listen on a TCP and UDP port of every address in a namespace; connections get `answer` for whatever they send."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with lab.inside(netns):
            server = socket.socket(family)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
        for sock in (server, datagrams):
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            stack.callback(sock.close)
        server.listen(16)
        for target in (_answer_stream, _answer_datagrams):
            work = threading.Thread(
                target=target, args=(server if target is _answer_stream else datagrams, answer), daemon=True
            )
            work.start()
            stack.callback(work.join, 2)
            stack.callback(_wake, server if target is _answer_stream else datagrams)


def _wake(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _answer_stream(server: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer_connection, args=(connection, answer), daemon=True).start()


def _answer_connection(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        while connection.recv(4096):
            connection.sendall(answer)


def _answer_datagrams(sock: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            _data, peer = sock.recvfrom(4096)
            if peer is None:
                return
            sock.sendto(answer, peer)
