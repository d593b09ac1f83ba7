"""A laboratory of network namespaces: guests behind a bridge, a gateway, and a small Internet.

    guest 1 ──┐
    guest 2 ──┼── br-guest [gateway] wan0 ── eth0 [internet]
    guest n ──┘

`Lab` is a context manager. Everything in it lives in namespaces whose names carry our process id, so that labs run next
to each other; leaving the lab ends what runs in its namespaces, and nothing else, and removes them also when building
failed half-way. The lab puts no policy on the gateway: no address on the bridge, no forwarding, no rule; that is the
work of what is tested. `Lab(plain=True)` does it, for measuring and for looking at the lab itself.

Addresses (documentation prefixes, RFC 5737 and RFC 3849; benchmark prefix for the link, RFC 2544):

    gateway, guest side   10.41.0.1/24      2001:db8:41::1/64   (the second zone has 10.42, :42:, and so on)
    gateway, uplink       198.18.0.2/24     2001:db8:18::2/64
    internet              198.18.0.1/24     2001:db8:18::1/64
    its web server        203.0.113.80      2001:db8:113::80    (all of 203.0.113.0/24 and 2001:db8:113::/64 answer)
    its resolver          203.0.113.53      2001:db8:113::53
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from gateway.addresses import MacAddress

WEB4: Final = IPv4Address("203.0.113.80")
WEB6: Final = IPv6Address("2001:db8:113::80")
RESOLVER4: Final = IPv4Address("203.0.113.53")
RESOLVER6: Final = IPv6Address("2001:db8:113::53")
UPLINK4: Final = IPv4Address("198.18.0.2")
UPLINK6: Final = IPv6Address("2001:db8:18::2")
INTERNET4: Final = IPv4Address("198.18.0.1")
INTERNET6: Final = IPv6Address("2001:db8:18::1")
UPLINK: Final = "wan0"

PROJECT: Final = Path(__file__).resolve().parents[2]
INTERNET_PROGRAM: Final = Path(__file__).with_name("internet.py")

_CLONE_NEWNET: Final = 0x40000000
_serial = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class GuestZone:
    """One guest network of the gateway: a bridge and its prefixes."""

    index: int
    bridge: str

    @property
    def address(self) -> IPv4Interface:
        """The gateway's IPv4 address and prefix in this zone."""
        return IPv4Interface(f"10.{41 + self.index}.0.1/24")

    @property
    def address6(self) -> IPv6Address:
        """The gateway's IPv6 address in this zone; its prefix is a /64."""
        return IPv6Address(f"2001:db8:{41 + self.index}::1")


@dataclass(slots=True)
class Guest:
    """One client: a namespace with one interface, `eth0`, on a port of the zone's bridge."""

    netns: str
    mac: MacAddress
    port: str  # the other end, in the gateway's namespace
    zone: GuestZone
    address: IPv4Address | None = None  # set by hand; None while nothing or DHCP gave one
    address6: IPv6Address | None = None


@dataclass(slots=True)
class Lab:
    """Namespaces for one test; use as a context manager, as root."""

    name: str = "lab"
    guests_wanted: int = 1
    zones_wanted: int = 1
    static: bool = False  # give guests static addresses and routes, as if DHCP and RA had
    plain: bool = False  # make the gateway a plain router: addresses and forwarding, no gate
    guests: list[Guest] = field(default_factory=list)
    zones: list[GuestZone] = field(default_factory=list)
    _stem: str = ""
    _namespaces: list[str] = field(default_factory=list)
    _children: list[subprocess.Popen[Any]] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """Name of the gateway's namespace."""
        return f"{self._stem}-gw"

    @property
    def internet(self) -> str:
        """Name of the Internet's namespace."""
        return f"{self._stem}-inet"

    @property
    def guest(self) -> Guest:
        """The first guest."""
        return self.guests[0]

    def __enter__(self) -> Lab:
        self._stem = f"{self.name[:24]}-{os.getpid()}-{next(_serial)}"
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the lab and remove its namespaces; may be called twice."""
        for child in self._children:
            _end(child)
        self._children.clear()
        for netns in self._namespaces:
            # Daemons that left their parent (dhclient) are found by their namespace, which is ours alone.
            listed = subprocess.run(["ip", "netns", "pids", netns], capture_output=True, text=True, check=False)
            for pid in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", netns], capture_output=True, check=False)
            shutil.rmtree(f"/etc/netns/{netns}", ignore_errors=True)
        self._namespaces.clear()

    def run(
        self,
        netns: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 20,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace to its end; raises CalledProcessError with its output when `check`."""
        done = subprocess.run(
            ["ip", "netns", "exec", netns, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            input=stdin,
            cwd=PROJECT,
        )
        if check and done.returncode:
            text = f"{' '.join(argv)} in {netns} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise AssertionError(text)
        return done

    def popen(
        self,
        netns: str,
        argv: Sequence[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.STDOUT,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in a namespace; it is ended with the lab."""
        child = subprocess.Popen(
            ["ip", "netns", "exec", netns, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            cwd=PROJECT,
            env=env,
        )
        self._children.append(child)
        return child

    def python(self, netns: str, code: str, *args: str, check: bool = True, timeout_s: float = 20) -> str:
        """Run a piece of Python in a namespace and return what it printed."""
        return self.run(netns, [sys.executable, "-c", code, *args], check=check, timeout_s=timeout_s).stdout

    def stop(self, child: subprocess.Popen[Any]) -> None:
        """End one child that `popen` started."""
        _end(child)
        if child in self._children:
            self._children.remove(child)

    def start_internet(self) -> subprocess.Popen[str]:
        """Start the Internet's web, DNS and echo servers (`internet.py`) and wait until they listen."""
        child = self.popen(self.internet, [sys.executable, str(INTERNET_PROGRAM)])
        assert child.stdout is not None
        line = child.stdout.readline()
        if line.strip() != "ready":
            rest = child.stdout.read()
            raise AssertionError(f"the Internet's servers did not start: {line}{rest}")
        return child

    @contextlib.contextmanager
    def inside(self, netns: str) -> Iterator[None]:
        """Put the calling thread into a namespace: sockets, threads and children made meanwhile belong to it."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as home,
            Path(f"/run/netns/{netns}").open("rb") as there,
        ):
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def add_zone(self) -> GuestZone:
        """Add a guest network: its bridge in the gateway, without an address unless the lab is plain."""
        index = len(self.zones)
        zone = GuestZone(index, "br-guest" if index == 0 else f"br-guest{index + 1}")
        lines = [
            f"link add {zone.bridge} type bridge forward_delay 0 mcast_snooping 0",
            f"link set {zone.bridge} address 02:00:5e:00:{index:02x}:01 up",
            f"address add {zone.address6}/64 dev {zone.bridge} nodad",
        ]
        if self.plain:
            lines.append(f"address add {zone.address} dev {zone.bridge}")
        self._ip(self.gateway, lines)
        self._ip(self.internet, [f"route add 2001:db8:{41 + index}::/64 via {UPLINK6}"])
        self.zones.append(zone)
        return zone

    def add_guest(self, zone: GuestZone | None = None, *, mac: MacAddress | None = None) -> Guest:
        """Add a client on a port of its own; with `static` addresses when the lab says so."""
        home = zone or self.zones[0]
        number = len(self.guests) + 1
        netns = f"{self._stem}-g{number}"
        own = mac or MacAddress(bytes((2, 0, 0x5E, 0x10, home.index, number)))
        guest = Guest(netns, own, f"port{number}", home)
        self._make_namespace(netns)
        resolv = Path(f"/etc/netns/{netns}/resolv.conf")
        resolv.parent.mkdir(parents=True, exist_ok=True)
        resolv.write_text(f"nameserver {home.address.ip}\n")
        self._ip(
            self.gateway,
            [
                f"link add {guest.port} type veth peer name eth0 address {own} netns {netns}",
                f"link set {guest.port} master {home.bridge} up",
            ],
        )
        self._ip(netns, ["link set eth0 up"])
        self.guests.append(guest)
        if self.static:
            self.give_address(guest, IPv4Address(int(home.address.network.network_address) + 9 + number))
        return guest

    def give_address(self, guest: Guest, address: IPv4Address) -> None:
        """Set a guest's addresses and default routes by hand; the IPv6 address ends like the IPv4 one."""
        zone = guest.zone
        guest.address = address
        guest.address6 = IPv6Address(f"2001:db8:{41 + zone.index}::{int(address) & 0xFF:x}")
        self._ip(
            guest.netns,
            [
                "address flush dev eth0 scope global",
                f"address add {address}/{zone.address.network.prefixlen} dev eth0",
                f"route replace default via {zone.address.ip}",
                f"address add {guest.address6}/64 dev eth0 nodad",
                f"route replace default via {zone.address6}",
            ],
        )

    def _build(self) -> None:
        for netns in (self.gateway, self.internet):
            self._make_namespace(netns)
        self._ip(
            self.gateway,
            [
                f"link add {UPLINK} type veth peer name eth0 netns {self.internet}",
                f"address add {UPLINK4}/24 dev {UPLINK}",
                f"address add {UPLINK6}/64 dev {UPLINK} nodad",
                f"link set {UPLINK} up",
                f"route add default via {INTERNET4}",
                f"route add default via {INTERNET6}",
            ],
        )
        self._ip(
            self.internet,
            [
                f"address add {INTERNET4}/24 dev eth0",
                f"address add {INTERNET6}/64 dev eth0 nodad",
                "link set eth0 up",
                # Every address of these prefixes is ours, so that "any web site" needs no list.
                "route add local 203.0.113.0/24 dev lo",
                "route add local 2001:db8:113::/64 dev lo",
                # Datagram servers bind to single addresses, which IPv6 wants to be real ones.
                f"address add {WEB6}/128 dev lo nodad",
                f"address add {RESOLVER6}/128 dev lo nodad",
            ],
        )
        for _ in range(self.zones_wanted):
            self.add_zone()
        for _ in range(self.guests_wanted):
            self.add_guest()
        if self.plain:
            script = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
            self.run(self.gateway, ["sh", "-c", script])
            self._ip(self.internet, [f"route add 10.{41 + zone.index}.0.0/24 via {UPLINK4}" for zone in self.zones])
        self._await_ipv6()

    def _await_ipv6(self) -> None:
        """Wait until all interfaces have joined their multicast groups: the kernel looks at carriers once a second.

        Before that the first neighbour solicitation is lost, and with it the first second of IPv6.
        """
        places = [(self.gateway, UPLINK), (self.internet, "eth0")]
        places += [(self.gateway, zone.bridge) for zone in self.zones if any(g.zone is zone for g in self.guests)]
        places += [(guest.netns, "eth0") for guest in self.guests]

        def ready(netns: str, device: str) -> bool:
            with self.inside(netns):
                lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
            return any(line.startswith("fe80") and line.split()[-1] == device for line in lines)

        for netns, device in places:
            wait_for(lambda netns=netns, device=device: ready(netns, device), timeout_s=3)

    def _make_namespace(self, netns: str) -> None:
        subprocess.run(["ip", "netns", "add", netns], check=True)
        self._namespaces.append(netns)
        # Without duplicate address detection an IPv6 address can be used at once.
        script = "for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done; ip link set lo up"
        self.run(netns, ["sh", "-c", script])

    def _ip(self, netns: str, lines: Sequence[str]) -> None:
        subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True)


def wait_for(condition: Any, *, timeout_s: float = 5, every_s: float = 0.02) -> bool:
    """Call `condition` until it is true or the time is over; returns whether it became true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def _end(child: subprocess.Popen[Any]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
