"""What the gate costs per packet: throughput and packets per second next to plain forwarding and to plain NAT.

Run as root: `python -m tests.bench.forwarding [--rounds N] [--seconds S]`. One laboratory, one process sending, four
states of the gateway in turn, several rounds, best of each (other load on the machine only ever slows down):

    plain        forwarding, no nftables, no connection tracking
    nat          connection tracking and masquerade alone
    gate 10      our ruleset with 10 clients online
    gate 10000   our ruleset with 10,000 clients online

Small packets leave a UDP socket by sendmmsg and are dropped and counted as they arrive; the sender's core also does the
forwarding, so packets per second of its time are the inverse of the cost of sending and forwarding together. TCP runs
with the offloads that veth has.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Config, Network, Zone
from gateway.datapath.ruleset import render
from tests.netns.harness import UPLINK, UPLINK4, WEB4, WEB6, Lab

PORT: Final = 9999
STREAM_PORT: Final = 9998
GUEST_PORT: Final = 40000
TCP_FLOOR: Final = 0.93  # of plain forwarding
PACKETS_FLOOR: Final = 0.75  # of connection tracking and NAT alone
STREAMS: Final = 4
SETTLE_S: Final = 0.5  # the kernel frees the elements of the state before in the background


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def blast(sock: socket.socket, seconds: float, size: int = 18) -> None:
    """Send small datagrams on a connected socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    payload = ctypes.create_string_buffer(size)
    vector = _Iovec(ctypes.cast(payload, ctypes.c_void_p), size)
    count = 512
    messages = (_Message * count)()
    for message in messages:
        message.header.iov = ctypes.pointer(vector)
        message.header.iovlen = 1
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        libc.sendmmsg(sock.fileno(), messages, count, 0)


PEER: Final = """
import os, socket, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
block = bytearray(1 << 20)
while True:
    sock, _ = server.accept()
    with sock:
        sends = sock.recv(1) == b"d"
        try:
            while sock.send(block) if sends else sock.recv_into(block):
                pass
        except OSError:
            pass
"""


def stream(sock: socket.socket, seconds: float) -> float:
    """Send on a TCP connection; returns octets per second."""
    block = bytes(1 << 20)
    sent = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        sent += sock.send(block)
    return sent / (time.monotonic() - started)


def drink(sock: socket.socket, seconds: float) -> float:
    """Receive on a TCP connection; returns octets per second."""
    block = bytearray(1 << 20)
    taken = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        taken += sock.recv_into(block)
    return taken / (time.monotonic() - started)


class Bench:
    """The laboratory and its measurements."""

    def __init__(self, lab: Lab, seconds: float) -> None:
        self.lab = lab
        self.seconds = seconds
        zone = Zone(name="guest", interface="br-guest", address=lab.zones[0].address)
        self.config = Config(network=Network(uplinks=(UPLINK,)), zones=(zone,))
        self.drops = (
            "table netdev drops { chain c { type filter hook ingress device eth0 priority 0; udp dport %d drop; }\n}"
        )
        lab.run(lab.internet, ["nft", "-f", "-"], stdin=self.drops % PORT)
        lab.run(lab.guest.netns, ["nft", "-f", "-"], stdin=self.drops % GUEST_PORT)

    def plain(self) -> None:
        """No ruleset at all."""
        self._load("flush ruleset\n")

    def nat(self) -> None:
        """Connection tracking and masquerade."""
        hook = "type nat hook postrouting priority srcnat;"
        self._load(
            "flush ruleset\n"
            f'table inet nat {{ chain c {{ {hook} meta nfproto ipv4 oifname "{UPLINK}" masquerade; }}\n}}\n'
        )

    def gate(self, clients: int) -> None:
        """Our ruleset with so many clients online, the measuring guest among them."""
        guest = self.lab.guest
        auth4, auth6, bind, numbers = [], [], [], []
        for number in range(1, clients + 1):
            if number == 1:
                mac, address = guest.mac, guest.address
            else:
                mac = MacAddress((0x020000000000 + number).to_bytes(6, "big"))
                address = IPv4Address(int(IPv4Address("10.50.0.0")) + number)
            auth4.append(f"{mac} . {address} timeout 3600s : {number}")
            auth6.append(f"{mac} timeout 3600s : {number}")
            bind.append(f"{mac} . {address}")
            numbers.append(str(number))
        text = "flush ruleset\n" + render(self.config)
        filling = (
            ("auth4_guest", auth4),
            ("auth6_guest", auth6),
            ("bind4_guest", bind),
            ("up", numbers),
            ("down", numbers),
        )
        for name, elements in filling:
            text += f"add element inet postern {name} {{ {', '.join(elements)} }}\n"
        self._load(text)

    def _load(self, text: str) -> None:
        self.lab.run(self.lab.gateway, ["nft", "-f", "-"], stdin=text)
        time.sleep(SETTLE_S)

    def packets_up(self) -> float:
        """Small packets per second from the guest."""
        return self._packets(socket.AF_INET, (str(WEB4), PORT))

    def packets_up6(self) -> float:
        """The same by IPv6."""
        return self._packets(socket.AF_INET6, (str(WEB6), PORT))

    def _packets(self, family: socket.AddressFamily, target: tuple[str, int]) -> float:
        with self.lab.inside(self.lab.guest.netns), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(target)
            blast(sock, 0.05)
            return self._rate(sock, self.lab.internet)

    def _rate(self, sock: socket.socket, receiver: str) -> float:
        """Packets that arrived per second of the sender's processor time, which pays for forwarding them as well.

        Processor time, because another process on the core would otherwise be taken for a slow ruleset.
        """
        before = self._arrived(receiver)
        started = time.thread_time()
        blast(sock, self.seconds)
        return (self._arrived(receiver) - before) / (time.thread_time() - started)

    def packets_down(self) -> float:
        """Small packets per second to the guest, answering a flow that the guest began."""
        guest = self.lab.guest
        with self.lab.inside(guest.netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opening:
            opening.bind(("0.0.0.0", GUEST_PORT))
            opening.sendto(b"hello", (str(WEB4), PORT))
        translated = self.lab.run(self.lab.gateway, ["nft", "list", "tables"]).stdout.strip()
        target = str(UPLINK4) if translated else str(guest.address)
        with self.lab.inside(self.lab.internet), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the address is only routed here
            sock.bind((str(WEB4), PORT))
            sock.connect((target, GUEST_PORT))
            blast(sock, 0.05)
            return self._rate(sock, guest.netns)

    def tcp_up(self) -> float:
        """Octets per second of one TCP stream from the guest."""
        return self._stream(b"u", stream)

    def tcp_down(self) -> float:
        """Octets per second of one TCP stream to the guest."""
        return self._stream(b"d", drink)

    def _stream(self, way: bytes, run: Callable[[socket.socket, float], float]) -> float:
        target = (str(WEB4), STREAM_PORT)
        # Several short tries: which batches of segments a connection settles into differs more than the rulesets do.
        best = 0.0
        for _ in range(STREAMS):
            with self.lab.inside(self.lab.guest.netns), socket.create_connection(target, timeout=5) as sock:
                sock.sendall(way)
                run(sock, 0.05)
                best = max(best, run(sock, self.seconds / 3))
        return best

    def _arrived(self, netns: str) -> int:
        with self.lab.inside(netns):
            for line in open("/proc/thread-self/net/dev"):  # noqa: SIM115, PTH123 - read within the namespace
                name, _, rest = line.partition(":")
                if name.strip() == "eth0":
                    return int(rest.split()[1])
        raise AssertionError("eth0 is missing")


def _turned(states: dict[str, Callable[[], None]], turn: int) -> list[tuple[str, Callable[[], None]]]:
    """The states in another order each round: none is always measured first."""
    items = list(states.items())
    return items[turn % len(items) :] + items[: turn % len(items)]


Figures = dict[tuple[str, str], float]  # (state, measure) -> octets or packets per second
_STATES: Final = ("plain", "nat", "gate 10", "gate 10000")
_MEASURES: Final = ("packets up", "packets down", "packets up v6", "tcp up", "tcp down")


def measure(rounds: int, seconds: float) -> Figures:
    """The best of some rounds, for every state and measure."""
    best: Figures = {}
    processors = os.sched_getaffinity(0)
    with Lab("bench", static=True, plain=True) as lab:
        peer = lab.popen(lab.internet, [sys.executable, "-c", PEER, str(STREAM_PORT)])
        assert peer.stdout is not None
        peer.stdout.readline()
        # Both ends on a core of their own: where the scheduler puts them would decide more than the ruleset does.
        os.sched_setaffinity(0, {min(processors)})
        try:
            bench = Bench(lab, seconds)
            states: dict[str, Callable[[], None]] = dict(
                zip(_STATES, (bench.plain, bench.nat, lambda: bench.gate(10), lambda: bench.gate(10_000)), strict=True)
            )
            takes = (bench.packets_up, bench.packets_down, bench.packets_up6, bench.tcp_up, bench.tcp_down)
            for turn in range(rounds):
                for state, prepare in _turned(states, turn):
                    prepare()
                    for name, take in zip(_MEASURES, takes, strict=True):
                        best[state, name] = max(best.get((state, name), 0.0), take())
        finally:
            os.sched_setaffinity(0, processors)
    return best


def table(best: Figures) -> list[str]:
    """The figures as lines, each with its ratio to plain forwarding."""
    lines = [f"{'Forwarding':14}" + "".join(f"{state:>22}" for state in _STATES)]
    for name in _MEASURES:
        line = f"{name:14}"
        for state in _STATES:
            value = best[state, name]
            shown = f"{value * 8 / 1e9:.1f} Gbit/s" if name.startswith("tcp") else f"{value / 1e3:.0f} kpps"
            ratio = value / best["plain", name]
            line += f"{f'{shown}  {ratio:.2f}':>22}"
        lines.append(line)
    tcp, packets = worst(best)
    lines.append(f"TCP, gate over plain: {tcp:.2f} at worst (floor {TCP_FLOOR})")
    lines.append(f"small packets, gate over NAT alone: {packets:.2f} at worst (floor {PACKETS_FLOOR})")
    return lines


def worst(best: Figures) -> tuple[float, float]:
    """The smallest ratios: TCP of the gate to plain forwarding, small packets of the gate to NAT alone."""
    gates, ways = ("gate 10", "gate 10000"), ("up", "down")
    tcp = min(best[gate, f"tcp {way}"] / best["plain", f"tcp {way}"] for gate in gates for way in ways)
    packets = min(best[gate, f"packets {way}"] / best["nat", f"packets {way}"] for gate in gates for way in ways)
    return tcp, packets


def main() -> int:
    """Measure, print one table, and tell whether the floors hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.7)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("this bench builds network namespaces: run it as root", file=sys.stderr)
        return 2
    best = measure(arguments.rounds, arguments.seconds)
    print("\n".join(table(best)))
    tcp, packets = worst(best)
    return 0 if tcp >= TCP_FLOOR and packets >= PACKETS_FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
