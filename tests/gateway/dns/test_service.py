"""The resolver on real sockets of the loopback interface, asked by dig and by rude clients."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, ip_address
from pathlib import Path

import pytest
import uvloop

from gateway.config import Config, Dns, Endpoint, Zone
from gateway.dns.service import MAX_TCP_PER_CLIENT, TCP_IDLE_S, DnsService
from gateway.dns.sockets import interface_addresses
from tests.gateway.dns.messages import query, rcode_of, response, wire_name

LOOPBACK = ip_address("127.0.0.1")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def free_port() -> int:
    """A port that is free for UDP and TCP just now, from below the range that the kernel gives to clients."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            try:
                udp.bind(("0.0.0.0", port))
                tcp.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


class UdpEnd:
    """A UDP socket on the loop by `add_reader`, as uvloop's own datagram endpoints can keep a loop from closing."""

    def __init__(self, sock: socket.socket, received: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._sock = sock
        self._received = received
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    @classmethod
    def asking(cls, server: str, port: int, received: Callable[[bytes], None]) -> UdpEnd:
        """A client of a server."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((server, port))
        return cls(sock, lambda data, _: received(data))

    def _readable(self) -> None:
        while True:
            try:
                data, address = self._sock.recvfrom(65535)
            except BlockingIOError:
                return
            self._received(data, address)

    def send(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        """Send to the server, or to an address."""
        if address is None:
            self._sock.send(data)
        else:
            self._sock.sendto(data, address)

    def close(self) -> None:
        """Close it."""
        self._loop.remove_reader(self._sock)
        self._sock.close()


@dataclass
class Upstream:
    """A small resolver: every name has an A record; `big.` is truncated by UDP; `silent.` gets no answer."""

    asked: list[bytes] = field(default_factory=list)
    sources: set[int] = field(default_factory=set)
    silent: bool = False
    port: int = 0

    def listen(self, address: str) -> UdpEnd:
        """Answer by UDP."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, self.port))
        end = UdpEnd(sock, lambda data, client: self.datagram(end, data, client))
        return end

    def datagram(self, end: UdpEnd, data: bytes, client: tuple[str, int]) -> None:
        """Answer one datagram."""
        self.sources.add(client[1])
        answer = self.answer(data, udp=True)
        if answer is not None:
            end.send(answer, client)

    def answer(self, data: bytes, *, udp: bool) -> bytes | None:
        """The answer, with whatever EDNS the query had echoed."""
        self.asked.append(data)
        if self.silent or b"\x06silent" in data:
            return None
        end = data.index(b"\0", 12) + 5
        edns, bare = data[end:], data[:10] + b"\0\0" + data[12:end]
        if b"\x03big" in data and udp:
            return response(bare, truncated=True)
        answer = response(bare)
        return answer[:10] + data[10:12] + answer[12:] + edns

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer by TCP, several queries one after the other."""
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), udp=False)
                if answer is not None:
                    writer.write(len(answer).to_bytes(2) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def upstream(address: str = "127.0.0.1") -> AsyncIterator[Upstream]:
    """A running upstream resolver."""
    resolver = Upstream(port=free_port())
    end = resolver.listen(address)
    try:
        server = await asyncio.start_server(resolver.connection, address, resolver.port)
        try:
            yield resolver
        finally:
            server.close()
    finally:
        end.close()


def configuration(*upstreams: Upstream, zones: tuple[Zone, ...] = (), **dns: float) -> Config:
    """One zone on the loopback interface."""
    zone = Zone(name="guest", interface="lo", address=IPv4Interface("127.0.0.77/8"))
    endpoints = tuple(Endpoint(LOOPBACK, one.port) for one in upstreams)
    settings = replace(Dns(upstreams=endpoints, timeout=2.0, client_burst=5000), **dns)  # type: ignore[arg-type]
    return Config(dns=settings, zones=zones or (zone,))


@asynccontextmanager
async def running(service: DnsService) -> AsyncIterator[DnsService]:
    """The service, listening."""
    task = asyncio.create_task(service.run(), name="resolver")
    try:
        await until(lambda: bool(service.status().listening or service.status().problems))
        yield service
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], within_s: float = 8.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def dig(port: int, *arguments: str, server: str = "127.0.0.77") -> str:
    """What dig prints."""
    process = await asyncio.create_subprocess_exec(
        "dig",
        f"@{server}",
        "-p",
        str(port),
        "+tries=1",
        "+time=5",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


async def exchange(port: int, data: bytes, server: str = "127.0.0.77") -> bytes:
    """Send one datagram and wait for the answer."""
    answers: list[bytes] = []
    end = UdpEnd.asking(server, port, answers.append)
    try:
        end.send(data)
        await until(lambda: bool(answers))
        return answers[0]
    finally:
        end.close()


Story = Callable[[], Awaitable[None]]


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story on each event loop that posternd may use."""

    def run_story(story: Story) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await story()

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run_story


def test_dig_is_served_over_udp_and_tcp(run: Callable[[Story], None]) -> None:
    """Foreign names with EDNS and DO, by UDP, TCP and after truncation; own names and canaries; IPv6 too."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above, running(DnsService(configuration(above), time.monotonic, port=port)) as service:
            plain = await dig(port, "www.example.net", "+dnssec", "+nocookie", "+bufsize=1400")
            assert "NOERROR" in plain
            assert "192.0.2.7" in plain
            assert "flags: do; udp: 1400" in plain
            assert "192.0.2.7" in await dig(port, "www.example.net", "+tcp")
            big = await dig(port, "big.example.net", "TXT", "+noedns")
            assert "Truncated, retrying in TCP mode" in big
            assert "NOERROR" in big
            assert "TYPE65" in await dig(port, "www.example.net", "TYPE65")
            assert "127.0.0.77" in await dig(port, "login.postern.lan", "+short")
            assert "127.0.0.77" in await dig(port, "status.postern.lan", "+short", "+tcp")
            nodata = await dig(port, "login.postern.lan", "AAAA")
            assert "status: NOERROR" in nodata
            assert "ANSWER: 0" in nodata
            assert "NXDOMAIN" in await dig(port, "use-application-dns.net")
            assert "NOTIMP" in await dig(port, "+opcode=5", "example.net")
            if any(address.version == 6 for address in interface_addresses("lo")):
                assert "127.0.0.77" in await dig(port, "login.postern.lan", "+short", server="::1")
            counts = service.counts().core
            assert counts.answered_locally["canary"] == 1
            assert counts.queries["guest"] >= 10
            assert counts.dropped == {"not_a_query": 1}

    run(story)


def test_a_thousand_queries_at_once_are_all_answered_from_many_ports(run: Callable[[Story], None]) -> None:
    """Every client gets its own answer under its own id; upstream sees several source ports and scattered ids."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above, running(DnsService(configuration(above), time.monotonic, port=port)):
            answers: dict[bytes, bytes] = {}
            asker = UdpEnd.asking("127.0.0.77", port, lambda data: answers.update({data[:2]: data}))
            for number in range(1000):
                asker.send(query(f"n{number}.example.net", id_=number))
                if number % 100 == 99:  # as many as any receive buffer holds
                    await until(lambda: len(answers) == number + 1)  # noqa: B023 - it is awaited within the turn
            asker.close()
            for number in range(1000):
                assert wire_name(f"n{number}.example.net") in answers[number.to_bytes(2)]
            assert len(above.sources) == 8
            assert len({asked[:2] for asked in above.asked}) > 950

    run(story)


def test_queries_pipelined_on_one_connection_are_all_answered(run: Callable[[Story], None]) -> None:
    """300 queries in one write: more than are let in at once, answered all, local and foreign mixed."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above, running(DnsService(configuration(above), time.monotonic, port=port)):
            reader, writer = await asyncio.open_connection("127.0.0.77", port)
            for number in range(300):
                data = query("login.postern.lan" if number % 3 == 0 else f"n{number}.example", id_=number)
                writer.write(len(data).to_bytes(2) + data)
            writer.write_eof()
            ids = set()
            while frame := await reader.read(2):
                answer = await reader.readexactly(int.from_bytes(frame + await reader.read(2 - len(frame))))
                assert rcode_of(answer) == 0
                ids.add(int.from_bytes(answer[:2]))
            assert ids == set(range(300))
            writer.close()

    run(story)


@pytest.mark.parametrize("rude", [b"\0\x05abcde", b"\xff\xff" + b"x" * 100, b"\0\x0c" + b"\0\1\x81" + bytes(9)])
def test_a_rude_connection_is_cut_and_others_go_on(run: Callable[[Story], None], rude: bytes) -> None:
    """Impossible lengths and responses by TCP close that connection only."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above, running(DnsService(configuration(above), time.monotonic, port=port)) as service:
            reader, writer = await asyncio.open_connection("127.0.0.77", port)
            writer.write(rude)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass  # the other way a cut is felt
            writer.close()
            assert "192.0.2.7" in await dig(port, "example.net", "+tcp", "+short")
            await until(lambda: service.counts().tcp_clients == 0)

    run(story)


def test_silent_connections_are_bounded_and_closed(run: Callable[[Story], None]) -> None:
    """One address holds eight connections at most; silent ones end; half a query does not keep one alive."""

    async def story() -> None:
        port = free_port()
        ahead_s = [0.0]
        service = DnsService(configuration(), lambda: time.monotonic() + ahead_s[0], port=port)
        async with running(service):
            connections = [
                await asyncio.open_connection("127.0.0.77", port, local_addr=("127.0.0.9", 0))
                for _ in range(MAX_TCP_PER_CLIENT + 3)
            ]
            await until(lambda: service.counts().tcp_refused == 3)
            assert service.counts().tcp_clients == MAX_TCP_PER_CLIENT
            for _, writer in connections:
                writer.write(b"\0\x20half")
            ahead_s[0] = TCP_IDLE_S + 1
            service.reconfigure(configuration())
            await until(lambda: service.counts().tcp_clients == 0)
            for _, writer in connections:
                writer.close()

    run(story)


def test_a_client_that_does_not_read_is_cut_off(run: Callable[[Story], None]) -> None:
    """Answers to a client that never reads do not pile up in memory."""

    async def story() -> None:
        port = free_port()
        service = DnsService(configuration(client_burst=10**6, client_rate=10**6), time.monotonic, port=port)
        async with running(service):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.77", port))
                sock.setblocking(False)
                data = query("login.postern.lan")
                frames = (len(data).to_bytes(2) + data) * 100
                loop = asyncio.get_running_loop()

                async def flood() -> None:
                    while True:
                        await loop.sock_sendall(sock, frames)

                with pytest.raises(ConnectionError):
                    await flood()
            await until(lambda: service.counts().tcp_clients == 0)

    run(story)


def test_a_dead_resolver_is_replaced_by_the_next_and_both_dead_means_servfail(run: Callable[[Story], None]) -> None:
    """A closed port is noticed at once, silence after a third of the timeout; the client always gets an answer."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above:
            dead = Upstream(port=free_port())
            async with running(DnsService(configuration(dead, above), time.monotonic, port=port)) as service:
                assert rcode_of(await exchange(port, query("one.example"))) == 0
                above.silent = True
                started = time.monotonic()
                assert rcode_of(await exchange(port, query("two.example"))) == 2
                assert time.monotonic() - started > 1.5, "it waited for the one that keeps silent"
                assert "SERVFAIL" in await dig(port, "three.example", "+tcp")
                assert service.counts().core.upstream_failures[f"127.0.0.1:{dead.port}"] >= 1
                above.silent = False
                await until(lambda: service.counts().core.pending == 0)
                assert rcode_of(await exchange(port, query("four.example"))) == 0

    run(story)


def test_without_a_resolver_foreign_names_fail_at_once_and_ours_work(
    run: Callable[[Story], None], tmp_path: Path
) -> None:
    """An empty resolv.conf is a sentence in the status; one that appears later is followed; we never ask ourselves."""

    async def story() -> None:
        port = free_port()
        resolv_conf = tmp_path / "resolv.conf"
        service = DnsService(configuration(), time.monotonic, port=port, resolv_conf=resolv_conf)
        async with running(service):
            assert rcode_of(await exchange(port, query("example.net"))) == 2
            assert rcode_of(await exchange(port, query("login.postern.lan"))) == 0
            assert "list upstream" in " ".join(service.status().problems)
            resolv_conf.write_text("nameserver 192.0.2.53\n")
            service.reconfigure(configuration())
            await until(lambda: bool(service.status().upstreams))
            assert service.status().upstreams[0].endpoint == Endpoint(ip_address("192.0.2.53"), 53)
            ourselves = Upstream(port=port)
            service.reconfigure(configuration(ourselves))
            await until(lambda: not service.status().upstreams)
            assert rcode_of(await exchange(port, query("example.net"))) == 2

    run(story)


def test_zones_come_and_go_while_it_runs(run: Callable[[Story], None]) -> None:
    """A reload opens new zones, closes removed ones, and names an interface that is missing."""

    async def story() -> None:
        port = free_port()
        first = Zone(name="guest", interface="lo", address=IPv4Interface("127.0.0.77/8"))
        second = Zone(name="hall", interface="lo", address=IPv4Interface("127.0.0.78/8"))
        missing = Zone(name="roof", interface="postern-none0", address=IPv4Interface("10.0.0.1/24"))
        async with running(DnsService(configuration(zones=(first,)), time.monotonic, port=port)) as service:
            service.reconfigure(configuration(zones=(second, missing)))
            await until(lambda: any(zone == "hall" for zone, _ in service.status().listening))
            assert "guest" not in {zone for zone, _ in service.status().listening}
            assert "127.0.0.78" in await dig(port, "login.postern.lan", "+short", server="127.0.0.78")
            assert any("postern-none0" in sentence for sentence in service.status().problems)

    run(story)


def test_a_port_that_is_taken_is_said_and_tried_again(run: Callable[[Story], None]) -> None:
    """Another resolver on our address: a sentence with the remedy, and service as soon as it is gone."""

    async def story() -> None:
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.77", port))
            service = DnsService(configuration(), time.monotonic, port=port)
            async with running(service):
                await until(lambda: any("127.0.0.77" in sentence for sentence in service.status().problems))
                assert "dnsmasq" in " ".join(service.status().problems)
                other.close()
                service.reconfigure(configuration())
                await until(lambda: ("guest", Endpoint(ip_address("127.0.0.77"), port)) in service.status().listening)

    run(story)


def test_when_it_ends_every_socket_is_closed(run: Callable[[Story], None]) -> None:
    """Cancelled in the middle of queries, it leaves no descriptor open."""

    async def story() -> None:
        port = free_port()
        async with upstream() as above:
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir holds a descriptor of its own too
            async with running(DnsService(configuration(above), time.monotonic, port=port)):
                reader, writer = await asyncio.open_connection("127.0.0.77", port)
                data = query("silent.example")
                writer.write(len(data).to_bytes(2) + data)
                await until(lambda: bool(above.asked))
            assert await reader.read() == b""
            writer.close()
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)  # noqa: PTH208 - the upstream's own side

    run(story)
