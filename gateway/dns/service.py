"""The resolver as a service of the daemon: listens in every zone, runs the core, keeps up with the system.

Every two seconds it looks at what may have changed: addresses of the zone interfaces (IPv6 comes and goes; an interface
may have been made again), the system's resolv.conf, connections that are silent. What cannot be opened is a
sentence in `status()` and in the log, and is tried again; the other zones do not notice.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, assert_never

from gateway.config import Config, Endpoint
from gateway.control.protocol import JsonValue
from gateway.dns.events import (
    Action,
    CloseClient,
    CloseLane,
    Complain,
    Counts,
    Event,
    LaneFailed,
    OpenLane,
    QueryReceived,
    ResponseReceived,
    SendAnswer,
    SendQuery,
    Settings,
    SettingsChanged,
    UpstreamsChanged,
    UpstreamStatus,
)
from gateway.dns.names import LocalNames
from gateway.dns.resolv_conf import parse_resolv_conf
from gateway.dns.resolver import Resolver
from gateway.dns.sockets import (
    ListenAddress,
    TcpClient,
    TcpLane,
    UdpLane,
    UdpListener,
    interface_addresses,
    listening_socket,
)
from gateway.dns.upstreams import ReplyPath, SocketAddress
from gateway.values import value_class

LOOK_AROUND_S: Final = 2.0
TCP_IDLE_S: Final = 10.0  # without a query or an answer (RFC 7766 §6.2.3: a few seconds)
MAX_TCP_CLIENTS: Final = 256
MAX_TCP_PER_CLIENT: Final = 8
MAX_TCP_HANDSHAKES: Final = 32  # towards resolvers

log = logging.getLogger(__name__)


@value_class
class DnsStatus:
    """How the resolver is doing, for people."""

    listening: tuple[tuple[str, Endpoint], ...]  # zone and address
    upstreams: tuple[UpstreamStatus, ...]
    problems: tuple[str, ...]  # sentences


@value_class
class ServiceCounts:
    """Totals for the metrics: those of the core, and what the sockets had to drop."""

    core: Counts
    tcp_clients: int
    tcp_refused: int  # connections beyond the bounds
    send_failures: int  # answers that the kernel would not take


@dataclass(slots=True)
class _Listening:
    """What is open at one address."""

    udp_number: int
    tcp_server: asyncio.Server


class DnsService:
    """The resolver for guests; `run()` serves until cancelled."""

    def __init__(
        self,
        config: Config,
        clock: Callable[[], float],
        *,
        port: int = 53,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        """`clock` gives monotonic seconds. Raises ValueError when a name of the configuration is no domain name."""
        self._config = config
        self._clock = clock
        self._port = port
        self._resolv_conf = resolv_conf
        self._resolver = Resolver(_settings(config), secrets.randbits)
        self._resolv_conf_seen: tuple[int, int, int] | None = None
        self._system_upstreams: tuple[Endpoint, ...] = ()
        self._upstreams: tuple[Endpoint, ...] = ()
        self._listening: dict[ListenAddress, _Listening] = {}
        self._problems: dict[str, str] = {}
        self._udp: dict[int, UdpListener] = {}
        self._tcp_clients: dict[int, TcpClient] = {}
        self._tcp_per_client: Counter[str] = Counter()
        self._udp_lanes: dict[int, UdpLane] = {}
        self._tcp_lanes: dict[int, TcpLane] = {}
        self._handshakes: dict[int, asyncio.Task[None]] = {}
        self._next_number = 1
        self._tcp_refused = 0
        self._send_failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._look_now = asyncio.Event()

    async def run(self) -> None:
        """Serve; close every socket when cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    self._look_now.clear()
                    await self._look_around()
                    try:
                        async with asyncio.timeout(LOOK_AROUND_S):
                            await self._look_now.wait()
                    except TimeoutError:
                        pass  # nobody hurried us: time to look again
        finally:
            self._close()

    def reconfigure(self, config: Config) -> None:
        """Follow a new configuration; queries under way are not lost. Raises ValueError like the constructor."""
        settings = _settings(config)
        self._config = config
        self._feed(SettingsChanged(settings))
        self._look_now.set()

    def counts(self) -> ServiceCounts:
        """Totals since the start."""
        return ServiceCounts(self._resolver.counts(), len(self._tcp_clients), self._tcp_refused, self._send_failures)

    def status(self) -> DnsStatus:
        """What is open, whom we ask, what is wrong."""
        listening = tuple((where.zone, Endpoint(where.address, self._port)) for where in self._listening)
        return DnsStatus(listening, self._resolver.upstreams(self._clock()), tuple(self._problems.values()))

    def limiter_state(self) -> dict[str, JsonValue]:
        """The rate limit of clients, for `postern debug rate-limiters`."""
        dns = self._config.dns
        counts = self._resolver.counts()
        return {
            "rate_per_s": dns.client_rate,
            "burst": dns.client_burst,
            "clients": counts.limited_clients,
            "dropped": counts.dropped.get("rate", 0),
            "pending": counts.pending,
            "max_pending": dns.max_pending,
        }

    async def _look_around(self) -> None:
        want = self._wanted_addresses()
        for where in [where for where in self._listening if where not in want]:
            self._close_listening(where)
        problems: dict[str, str] = {}
        for where in want:
            if where in self._listening:
                continue
            try:
                await self._open_listening(where)
            except OSError as err:
                problems[f"{where.zone} {where.address}"] = (
                    f"The resolver cannot listen on {Endpoint(where.address, self._port)} of zone {where.zone!r} "
                    f"(interface {where.interface}): {err.strerror}. {_remedy(err)}"
                )
        for zone in self._config.zones:
            if not any(where.zone == zone.name for where in want):
                problems[zone.name] = (
                    f"The resolver does not listen in zone {zone.name!r}: there is no interface {zone.interface!r}. "
                    "It starts to listen as soon as the interface exists."
                )
        self._choose_upstreams(problems)
        for key, sentence in problems.items():
            if self._problems.get(key) != sentence:
                log.warning("%s", sentence)
        self._problems = problems
        idle_since = self._clock() - TCP_IDLE_S
        for client in [client for client in self._tcp_clients.values() if client.active_at < idle_since]:
            client.close()

    def _wanted_addresses(self) -> dict[ListenAddress, None]:
        want: dict[ListenAddress, None] = {}
        for zone in self._config.zones:
            try:
                index = socket.if_nametoindex(zone.interface)
            except OSError:
                continue
            for address in sorted({zone.address.ip} | interface_addresses(zone.interface), key=str):
                want[ListenAddress(zone.name, zone.interface, index, address)] = None
        return want

    async def _open_listening(self, where: ListenAddress) -> None:
        udp = listening_socket(where, self._port, socket.SOCK_DGRAM)
        try:
            tcp = listening_socket(where, self._port, socket.SOCK_STREAM)
        except OSError:
            udp.close()
            raise
        number = self._number()
        received = partial(self._udp_query, where.zone, number)
        self._udp[number] = UdpListener(udp, self._loop, received)
        try:
            server = await self._loop.create_server(partial(self._tcp_client, where.zone), sock=tcp)
        except BaseException:
            self._udp.pop(number).close()
            tcp.close()
            raise
        self._listening[where] = _Listening(number, server)
        log.info("resolver listens zone=%s address=%s", where.zone, Endpoint(where.address, self._port))

    def _close_listening(self, where: ListenAddress) -> None:
        listening = self._listening.pop(where)
        self._udp.pop(listening.udp_number).close()
        listening.tcp_server.close()

    def _choose_upstreams(self, problems: dict[str, str]) -> None:
        """Follow the configuration or resolv.conf, and never ask ourselves."""
        wanted = self._config.dns.upstreams or self._read_resolv_conf()
        ours = {zone.address.ip for zone in self._config.zones} | {where.address for where in self._listening}
        upstreams = tuple(one for one in wanted if not (one.address in ours and one.port == self._port))
        if not upstreams:
            problems["upstreams"] = (
                "The resolver knows nobody to ask, so guests resolve only the portal's names: name resolvers with "
                f"`list upstream` in `config dns`, or give {self._resolv_conf} a nameserver other than this gateway."
            )
        if upstreams != self._upstreams:
            self._upstreams = upstreams
            self._feed(UpstreamsChanged(upstreams))
            log.info("resolver asks upstreams=%s", ",".join(map(str, upstreams)) or "none")

    def _read_resolv_conf(self) -> tuple[Endpoint, ...]:
        try:
            about = self._resolv_conf.stat()
            seen = (about.st_ino, about.st_size, about.st_mtime_ns)
            if seen != self._resolv_conf_seen:
                self._system_upstreams = parse_resolv_conf(self._resolv_conf.read_text("utf-8", errors="replace"))
                self._resolv_conf_seen = seen
        except OSError:
            self._resolv_conf_seen = None
            self._system_upstreams = ()
        return self._system_upstreams

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _udp_query(self, zone: str, number: int, data: bytes, address: SocketAddress) -> None:
        self._feed(QueryReceived(zone, str(address[0]), ReplyPath(number, address), False, data))

    def _tcp_client(self, zone: str) -> TcpClient:
        return TcpClient(self._tcp_opened, partial(self._tcp_query, zone), self._tcp_closed, self._clock)

    def _tcp_opened(self, client: TcpClient, address: str) -> bool:
        if len(self._tcp_clients) >= MAX_TCP_CLIENTS or self._tcp_per_client[address] >= MAX_TCP_PER_CLIENT:
            self._tcp_refused += 1
            return False
        client.number, client.address = self._number(), address
        self._tcp_clients[client.number] = client
        self._tcp_per_client[address] += 1
        return True

    def _tcp_query(self, zone: str, client: TcpClient, query: bytes) -> None:
        self._feed(QueryReceived(zone, client.address, ReplyPath(client.number), True, query))

    def _tcp_closed(self, client: TcpClient) -> None:
        if self._tcp_clients.pop(client.number, None) is None:
            return  # it was refused at the door
        self._tcp_per_client[client.address] -= 1
        if not self._tcp_per_client[client.address]:
            del self._tcp_per_client[client.address]

    def _feed(self, event: Event) -> None:
        """Tell the core, do what it orders, and see to its deadline."""
        self._perform(self._resolver.receive(event, self._clock()))
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        deadline = self._resolver.deadline()
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.001, deadline - self._clock()), self._tick)

    def _tick(self) -> None:
        # The timer is not moved when its query is answered: looking once too often costs less than moving it each time.
        self._timer = None
        self._perform(self._resolver.tick(self._clock()))
        self._arm()

    def _perform(self, actions: Iterable[Action]) -> None:
        queue = deque(actions)
        while queue:
            action = queue.popleft()
            match action:
                case SendQuery():
                    lane = self._udp_lanes.get(action.lane) or self._tcp_lanes.get(action.lane)
                    if lane is not None:
                        lane.send(action.data)
                case SendAnswer():
                    self._send_answer(action)
                case OpenLane():
                    if not self._open_lane(action):
                        queue.extendleft(
                            reversed(self._resolver.receive(LaneFailed(action.lane, unreachable=True), self._clock()))
                        )
                case CloseLane():
                    self._close_lane(action.lane)
                case CloseClient():
                    client = self._tcp_clients.get(action.reply_to.endpoint)
                    if client is not None:
                        client.close()
                case Complain():
                    log.warning("resolver peer misbehaves source=%s what=%s", action.source, action.what)
                case _:
                    assert_never(action)

    def _send_answer(self, action: SendAnswer) -> None:
        number, address = action.reply_to
        if address is None:
            client = self._tcp_clients.get(number)
            if client is not None:
                client.send(action.data)
            return
        listener = self._udp.get(number)
        if listener is not None and not listener.send(action.data, address):
            self._send_failures += 1

    def _open_lane(self, action: OpenLane) -> bool:
        number = action.lane
        received, lost = partial(self._lane_received, number), partial(self._lane_lost, number)
        if not action.tcp:
            try:
                self._udp_lanes[number] = UdpLane(action.endpoint, self._loop, received, lost)
            except OSError:
                return False
            return True
        if len(self._handshakes) >= MAX_TCP_HANDSHAKES:
            return False
        lane = self._tcp_lanes[number] = TcpLane(received, lost)
        task = self._tasks.create_task(
            lane.connect(action.endpoint, self._config.dns.timeout), name=f"dns-tcp-{number}"
        )
        self._handshakes[number] = task
        task.add_done_callback(lambda _: self._handshakes.pop(number, None))
        return True

    def _lane_received(self, number: int, data: bytes) -> None:
        self._feed(ResponseReceived(number, data))

    def _lane_lost(self, number: int, unreachable: bool) -> None:
        self._close_lane(number)
        self._feed(LaneFailed(number, unreachable))

    def _close_lane(self, number: int) -> None:
        lane = self._udp_lanes.pop(number, None) or self._tcp_lanes.pop(number, None)
        if lane is not None:
            lane.close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number in [*self._udp_lanes, *self._tcp_lanes]:
            self._close_lane(number)
        for client in list(self._tcp_clients.values()):
            client.close()
        for where in list(self._listening):
            self._close_listening(where)


def _settings(config: Config) -> Settings:
    dns = config.dns
    zones = {zone.name: zone.address.ip for zone in config.zones}
    names = LocalNames((dns.portal_name, dns.status_name), zones, dns.local_ttl)
    return Settings(names, dns.timeout, dns.max_pending, dns.client_rate, dns.client_burst)


def _remedy(err: OSError) -> str:
    """What an operator can do about an address that cannot be listened on."""
    if err.errno == errno.EADDRINUSE:
        return "Another resolver has it: take this interface from it (dnsmasq: except-interface), or stop it."
    if err.errno in (errno.EPERM, errno.EACCES):
        return "posternd lacks a capability: start it by its service, which gives NET_RAW and NET_BIND_SERVICE."
    return f"It is tried again every {LOOK_AROUND_S:.0f} seconds."
