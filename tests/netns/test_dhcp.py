"""The DHCP room on a real bridge with real clients: dhclient, udhcpc, squatters, forgers, relays, lost interfaces.

Our core and shell run in a thread inside the gateway's namespace; the hub is a list of facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.addresses import Ipv4Range
from gateway.config import Dhcp, Zone
from gateway.dhcp.sockets import DhcpService
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound, LeaseEnded
from gateway.session.model import ClientKey
from tests.netns.harness import Guest, Lab, wait_for

pytestmark = pytest.mark.root

POOL = Ipv4Range.parse("10.41.0.10-10.41.0.29")
SETTINGS = Dhcp(probe=True, probe_timeout=0.1)

# What a client's own script does, without touching the machine's resolver file; it also writes down what it was told.
DHCLIENT_SCRIPT = """#!/bin/sh
echo "$reason $new_ip_address $new_subnet_mask $new_routers $new_domain_name_servers $new_domain_name" >> {log}
case $reason in
    PREINIT) ip link set dev "$interface" up ;;
    BOUND|RENEW|REBIND|REBOOT) ip address replace "$new_ip_address/24" dev "$interface" ;;
    EXPIRE|FAIL|RELEASE|STOP) ip address flush dev "$interface" scope global ;;
esac
exit 0
"""
UDHCPC_SCRIPT = """#!/bin/sh
echo "$1 $ip $subnet $router $dns $domain" >> {log}
[ "$1" = bound ] && ip address replace "$ip/24" dev "$interface"
exit 0
"""


@dataclass
class Running:
    """The service in its thread."""

    service: DhcpService
    facts: list[LeaseBound | LeaseEnded]
    loop: asyncio.AbstractEventLoop | None = None
    failure: list[BaseException] = field(default_factory=list)

    @property
    def core(self) -> DhcpServer:
        """The server of the only zone."""
        return self.service.servers["guest"]

    def ask(self, question: Callable[[], Any]) -> Any:
        """Call something in the service's thread; Any, because it returns what the question returns."""
        answered = threading.Event()
        answer: list[Any] = []

        def run() -> None:
            answer.append(question())
            answered.set()

        assert self.loop is not None
        self.loop.call_soon_threadsafe(run)
        assert answered.wait(5)
        return answer[0]

    def bound(self) -> list[LeaseBound]:
        """The leases that the hub heard of."""
        return [fact for fact in self.facts if isinstance(fact, LeaseBound)]


@contextlib.contextmanager
def serving(
    lab: Lab, factory: Callable[[], asyncio.AbstractEventLoop], *, open_at_once: bool = True
) -> Iterator[Running]:
    """Run the service in the gateway's namespace until the caller is done."""
    facts: list[LeaseBound | LeaseEnded] = []
    zone = Zone(
        name="guest",
        interface=lab.zones[0].bridge,
        address=lab.zones[0].address,
        pool=POOL,
        relays=(IPv4Address("10.41.0.5"),),
    )
    running = Running(DhcpService([DhcpServer(zone, SETTINGS)], facts.append, time.monotonic), facts)
    tasks: list[asyncio.Task[None]] = []

    async def serve() -> None:
        running.loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await running.service.run()
        except asyncio.CancelledError:
            pass

    def thread() -> None:
        try:
            with lab.inside(lab.gateway), asyncio.Runner(loop_factory=factory) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001  shown by the fixture, which would hang without it
            running.failure.append(error)

    worker = threading.Thread(target=thread, name="dhcp")
    worker.start()
    try:
        assert wait_for(lambda: tasks and (not open_at_once or running.service.listening["guest"])), running.failure
        yield running
    finally:
        if running.loop is not None and worker.is_alive():
            running.loop.call_soon_threadsafe(tasks[0].cancel)
        worker.join(5)
        assert not running.failure, running.failure
        assert not worker.is_alive()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests on a bridge."""
    with Lab(name="dhcp", guests_wanted=2) as made:
        made.run(made.gateway, ["ip", "address", "add", str(made.zones[0].address), "dev", made.zones[0].bridge])
        yield made


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def dhcp(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Running]:
    """The service, on both event loops."""
    with serving(lab, request.param) as running:
        yield running


def script(path: Path, text: str) -> tuple[str, Path]:
    """Write a client's script; its name, and the file it writes to."""
    log = path.with_suffix(".log")
    path.write_text(text.format(log=log))
    path.chmod(0o755)
    return str(path), log


def dhclient(lab: Lab, guest: Guest, directory: Path, *flags: str) -> list[str]:
    """Run dhclient once; the last line that its script was told: reason, address, mask, router, resolver, domain."""
    assert shutil.which("dhclient"), "apt-get install isc-dhcp-client"
    name, log = script(directory / f"dhclient-{guest.port}", DHCLIENT_SCRIPT)
    files = ["-lf", str(directory / f"{guest.port}.leases"), "-pf", str(directory / f"{guest.port}.pid")]
    lab.run(
        guest.netns, ["dhclient", "-4", "-1", "-cf", "/dev/null", "-sf", name, *files, *flags, "eth0"], timeout_s=40
    )
    return log.read_text().splitlines()[-1].split()


def udhcpc(lab: Lab, guest: Guest, directory: Path, *flags: str) -> list[str]:
    """Run udhcpc once; the last line that its script was told."""
    assert shutil.which("udhcpc"), "apt-get install udhcpc"
    name, log = script(directory / f"udhcpc-{guest.port}", UDHCPC_SCRIPT)
    lab.run(guest.netns, ["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", name, *flags], timeout_s=40)
    return log.read_text().splitlines()[-1].split()


def test_dhclient_gets_remembers_and_releases(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """The whole life of a lease with ISC's client: bound, taken up again after a restart of the client, released."""
    told = dhclient(lab, lab.guest, tmp_path)
    assert told == ["BOUND", "10.41.0.10", "255.255.255.0", "10.41.0.1", "10.41.0.1", "postern.lan"]
    key = ClientKey("guest", lab.guest.mac)
    (fact,) = dhcp.bound()
    assert (fact.key, fact.address, fact.renewed) == (key, IPv4Address("10.41.0.10"), False)
    dhclient(lab, lab.guest, tmp_path, "-x")
    assert dhclient(lab, lab.guest, tmp_path)[:2] == ["REBOOT", "10.41.0.10"]
    assert dhcp.bound()[-1].renewed
    dhclient(lab, lab.guest, tmp_path, "-r")
    assert wait_for(lambda: LeaseEnded(key, IPv4Address("10.41.0.10"), "released") in dhcp.facts)


@pytest.mark.parametrize("flags", [(), ("-B",), ("-C",), ("-r", "10.41.0.17"), ("-x", "hostname:handy")], ids=str)
def test_udhcpc_gets_an_address(lab: Lab, dhcp: Running, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """BusyBox's client by unicast, by broadcast, without identifier, with a wish, with a name."""
    expected = "10.41.0.17" if "-r" in flags else "10.41.0.10"
    told = udhcpc(lab, lab.guest, tmp_path, *flags)
    assert told == ["bound", expected, "255.255.255.0", "10.41.0.1", "10.41.0.1", "postern.lan"]
    assert dhcp.bound()[-1].hostname == ("handy" if "-x" in flags else "")


def test_both_clients_at_once_get_different_addresses(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """Two guests, two clients, two addresses; both can reach the gateway with them."""
    addresses = {dhclient(lab, lab.guests[0], tmp_path)[1], udhcpc(lab, lab.guests[1], tmp_path)[1]}
    assert len(addresses) == 2
    for guest in lab.guests:
        lab.run(guest.netns, ["ping", "-c", "1", "-W", "2", "10.41.0.1"])


def test_a_squatted_address_is_not_offered(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """A guest that took the first address by hand answers our probe: set aside, and the client gets another."""
    lab.give_address(lab.guests[1], IPv4Address("10.41.0.10"))
    assert udhcpc(lab, lab.guests[0], tmp_path)[1] == "10.41.0.11"
    assert dhcp.ask(lambda: dhcp.core.counts().quarantined) == 1


def test_a_client_that_lost_our_memory_keeps_its_address(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """It answers the probe for its own address itself, which is no conflict."""
    lab.give_address(lab.guest, IPv4Address("10.41.0.14"))
    assert udhcpc(lab, lab.guest, tmp_path, "-r", "10.41.0.14")[1] == "10.41.0.14"


RENEW = """
import socket, sys
from gateway.dhcp.v4_codec import *
from ipaddress import IPv4Address
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 68))
s.settimeout(3)
mac, address = bytes.fromhex(sys.argv[1]), int(IPv4Address(sys.argv[2]))
s.connect(("10.41.0.1", 67))
s.send(encode(Message(Op.REQUEST, MessageType.REQUEST, 77, mac + bytes(10), ciaddr=address)))
print(decode(s.recv(2000)).kind.name)
"""


def test_a_renewal_by_unicast_is_acknowledged(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """An ordinary UDP socket of the client, connected to us, gets its answer and no "port unreachable"."""
    address = udhcpc(lab, lab.guest, tmp_path)[1]
    answer = lab.python(lab.guest.netns, RENEW, lab.guest.mac.hex(), address)
    assert answer.strip() == "ACK"
    assert dhcp.bound()[-1].renewed


FORGE = """
import socket, sys
from gateway.dhcp.v4_codec import *
from ipaddress import IPv4Address
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
victim, address = bytes.fromhex(sys.argv[1]), int(IPv4Address(sys.argv[2]))
options = {54: bytes((10, 41, 0, 1)), 50: address.to_bytes(4, "big")}
for kind in (MessageType.RELEASE, MessageType.DECLINE, MessageType.REQUEST):
    message = Message(Op.REQUEST, kind, 1, victim + bytes(10), ciaddr=address, options=options)
    s.sendto(encode(message), ("10.41.0.1", 67))
"""


def test_a_forger_cannot_end_anothers_lease(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """Messages in another's name are known by the frame that brought them."""
    address = udhcpc(lab, lab.guests[0], tmp_path)[1]
    lab.give_address(lab.guests[1], IPv4Address("10.41.0.200"))
    lab.python(lab.guests[1].netns, FORGE, lab.guests[0].mac.hex(), address)
    assert wait_for(lambda: dhcp.ask(lambda: dhcp.core.counts().refusals.get("foreign_mac", 0)) == 3)
    assert not [fact for fact in dhcp.facts if isinstance(fact, LeaseEnded)]


GARBAGE = """
import random, socket
source = random.Random(1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
head = bytes((1, 1, 6, 0)) + bytes(232) + bytes((99, 130, 83, 99))
for n in range(400):
    start = source.choice((b"", head, head + bytes((53, 1, 1))))
    s.sendto(start + source.randbytes(source.randrange(900)), ("10.41.0.1", 67))
s.sendto(bytes(60000), ("10.41.0.1", 67))
"""


def test_garbage_is_counted_and_others_are_served(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """Random octets, giants in fragments: the next client gets its lease as if nothing had been."""
    lab.give_address(lab.guests[1], IPv4Address("10.41.0.200"))
    lab.python(lab.guests[1].netns, GARBAGE)
    assert udhcpc(lab, lab.guests[0], tmp_path)[0] == "bound"
    refused = dhcp.ask(lambda: dict(dhcp.core.counts().refusals))
    assert refused["malformed"] > 100


RELAY = """
import socket, sys
from gateway.dhcp.v4_codec import *
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.41.0.5", 67))
s.settimeout(3)
giaddr = int.from_bytes(bytes((10, 41, 0, 5)), "big")
options = {82: bytes((1, 4)) + b"port"}
chaddr = bytes((2, 0, 0, 0, 0, 7)) + bytes(10)
message = Message(Op.REQUEST, MessageType.DISCOVER, 9, chaddr, giaddr=giaddr, options=options)
s.sendto(encode(message), ("10.41.0.1", 67))
octets, sender = s.recvfrom(2000)
reply = decode(octets)
print(reply.kind.name, sender[0], sender[1], reply.options[82] == options[82])
"""


def test_a_relay_is_answered_on_its_server_port(lab: Lab, dhcp: Running) -> None:
    """giaddr is one of the zone's relays: the offer comes from our address and port, option 82 in it."""
    lab.give_address(lab.guest, IPv4Address("10.41.0.5"))
    assert lab.python(lab.guest.netns, RELAY).split() == ["OFFER", "10.41.0.1", "67", "True"]


def test_the_interface_may_go_and_come_back(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """Down and up, and deleted and made anew: served again each time, leases kept."""
    bridge = lab.zones[0].bridge
    first = udhcpc(lab, lab.guest, tmp_path)[1]
    lab.run(lab.gateway, ["ip", "link", "set", bridge, "down"])
    assert wait_for(lambda: not dhcp.service.listening["guest"])
    lab.run(lab.gateway, ["ip", "link", "set", bridge, "up"])
    assert wait_for(lambda: dhcp.service.listening["guest"])
    assert udhcpc(lab, lab.guest, tmp_path)[1] == first
    lab.run(lab.gateway, ["ip", "link", "delete", bridge])
    assert wait_for(lambda: not dhcp.service.listening["guest"])
    for words in (
        f"link add {bridge} type bridge forward_delay 0",
        f"link set {bridge} up",
        f"address add {lab.zones[0].address} dev {bridge}",
        f"link set {lab.guest.port} master {bridge}",
    ):
        lab.run(lab.gateway, ["ip", *words.split()])
    assert wait_for(lambda: dhcp.service.listening["guest"])
    assert udhcpc(lab, lab.guest, tmp_path)[1] == first
    assert len(dhcp.bound()) == 3
    assert dhcp.bound()[-1].renewed


def test_another_server_on_the_port_is_waited_out(lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Port 67 taken: one line that says what to do, and service as soon as it is free."""
    with lab.inside(lab.gateway):
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("0.0.0.0", 67))
    with other, serving(lab, asyncio.new_event_loop, open_at_once=False) as dhcp:
        assert wait_for(lambda: "another DHCP server has port 67" in caplog.text)
        assert not dhcp.service.listening["guest"]
        other.close()
        assert wait_for(lambda: dhcp.service.listening["guest"])
        assert udhcpc(lab, lab.guest, tmp_path)[0] == "bound"
    assert caplog.text.count("another DHCP server") == 1


def test_an_operator_ends_a_lease_and_a_reload_keeps_the_others(lab: Lab, dhcp: Running, tmp_path: Path) -> None:
    """Release by key posts the fact; a reload with a zone more keeps leases, one with the zone gone ends them."""
    first, second = (udhcpc(lab, guest, tmp_path)[1] for guest in lab.guests)
    key = ClientKey("guest", lab.guests[0].mac)
    assert dhcp.ask(lambda: dhcp.service.release(key)) is True
    assert dhcp.ask(lambda: dhcp.service.release(key)) is False
    assert dhcp.ask(lambda: dhcp.service.release(ClientKey("nowhere", key.mac))) is False
    assert dhcp.facts[-1] == LeaseEnded(key, IPv4Address(first), "removed")
    zone = dhcp.core.zone
    more = lab.add_zone()
    staff = Zone(name="staff", interface=more.bridge, address=more.address)
    dhcp.ask(lambda: dhcp.service.reconfigure([zone, staff], SETTINGS, ()))
    assert wait_for(lambda: dhcp.service.listening == {"guest": True, "staff": True})
    assert udhcpc(lab, lab.guests[1], tmp_path)[1] == second
    guest = lab.add_guest(more)
    assert udhcpc(lab, guest, tmp_path)[1] == "10.42.0.2"
    dhcp.ask(lambda: dhcp.service.reconfigure([staff], SETTINGS, ()))
    assert dhcp.facts[-1] == LeaseEnded(ClientKey("guest", lab.guests[1].mac), IPv4Address(second), "removed")
    assert dict(dhcp.service.listening) == {"staff": True}


UNPRIVILEGED = """
import asyncio, os, sys, time
from ipaddress import IPv4Interface
from gateway.config import Dhcp, Zone
from gateway.dhcp.sockets import DhcpService
from gateway.dhcp.v4_server import DhcpServer

async def main():
    zone = Zone(name="guest", interface=sys.argv[1], address=IPv4Interface("10.41.0.1/24"))
    service = DhcpService([DhcpServer(zone, Dhcp())], lambda fact: None, time.monotonic)
    task = asyncio.ensure_future(service.run())
    await asyncio.sleep(0.2)
    print(os.getuid(), dict(service.listening))
    task.cancel()

asyncio.run(main())
"""


def test_two_capabilities_are_enough(lab: Lab) -> None:
    """Without root, with CAP_NET_RAW and CAP_NET_BIND_SERVICE, the sockets open."""
    capabilities = "+net_raw,+net_bind_service"
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", f"-all,{capabilities}"]
    command += ["--inh-caps", f"-all,{capabilities}", "--ambient-caps", f"-all,{capabilities}"]
    command += [sys.executable, "-c", UNPRIVILEGED, lab.zones[0].bridge]
    assert lab.run(lab.gateway, command).stdout.split(maxsplit=1) == ["65534", "{'guest': True}\n"]
