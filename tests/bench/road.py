"""One road from a guest to the Internet through a gateway in one state, and what a packet on it costs.

Figures are by processor time: of the thread that sends, which pays for forwarding as well (the kernel forwards in the
sender's system call), and for a stream also of the process at its other end. Wall time also measures who else runs on
the machine; only a stream's rate is taken by it.

Streams use Reno: BBR, which some kernels have as default, sends by a timer at the rate that it has measured, and hides
what a packet costs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import time
from typing import Final

from tests.netns.harness import UPLINK4, WEB4, WEB6, Lab

PORT: Final = 9999
STREAM_PORT: Final = 9998
GUEST_PORT: Final = 40000
BLOCK: Final = 1 << 20
BUFFER: Final = 200_000  # fixed: sizes that the kernel finds for each connection differ more than the rulesets do
WARMING_S: Final = 0.002  # caches after another road was measured

_IP_FREEBIND: Final = 15
_BATCH: Final = 256

# The far end of streams, on the other core: one thread for each connection, whose first octet says who sends.
_PEER: Final = """
import os, socket, sys, threading
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
    server.setsockopt(socket.SOL_SOCKET, name, int(sys.argv[2]))
print("ready", flush=True)
def serve(sock):
    block = bytearray(1 << 20)
    sends = sock.recv(1) == b"d"
    while sock.send(block) if sends else sock.recv_into(block):
        pass
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


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


class Road:
    """A laboratory whose gateway is in one state; measure each way as often as you like."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        guest, internet = lab.guest.netns, lab.internet
        for netns, port in ((internet, PORT), (guest, GUEST_PORT)):
            # Small packets end where they arrive, before the receiver's own stack costs anything.
            drop = "table netdev d { chain c { type filter hook ingress device eth0 priority 0; udp dport %d drop; }\n}"
            lab.run(netns, ["nft", "-f", "-"], stdin=drop % port)
            for name, value in (("tcp_congestion_control", "reno"), ("tcp_slow_start_after_idle", "0")):
                lab.run(netns, ["sh", "-c", f"echo {value} >/proc/sys/net/ipv4/{name}"])
        peer = lab.popen(internet, [sys.executable, "-c", _PEER, str(STREAM_PORT), str(BUFFER)])
        assert peer.stdout is not None
        peer.stdout.readline()
        self._peer_clock = ~peer.pid << 3 | 2  # CPUCLOCK_SCHED of a process: exact, also while it runs
        self._blast = _Blast()
        self._datagrams: dict[str, socket.socket] = {}
        self._streams: dict[str, socket.socket] = {}
        self._loops: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._counters: dict[str, int] = {}
        self._iperf_is_there = False
        self._connect(guest, internet)

    def close(self) -> None:
        """Close every socket."""
        for sock in (*self._datagrams.values(), *self._streams.values()):
            sock.close()
        for pair in self._loops.values():
            for sock in pair:
                sock.close()
        for descriptor in self._counters.values():
            os.close(descriptor)

    def packets(self, way: str, seconds: float) -> float:
        """Small packets per second of processor time: `up`, `up6` or `down`."""
        sock = self._datagrams[way]
        receiver = "guest" if way == "down" else "internet"
        self._blast.run(sock, WARMING_S)
        before, started = self._arrived(receiver), time.thread_time()
        self._blast.run(sock, seconds)
        spent = time.thread_time() - started
        return (self._arrived(receiver) - before) / spent

    def stream(self, way: str, seconds: float) -> tuple[float, float]:
        """Octets of a TCP stream `up` or `down` between two processes, each on its core.

        Per second, and per second of processor time of both: the first is what a user sees on a quiet machine, the
        second hardly depends on what else runs.
        """
        sock, block = self._streams[way], bytearray(BLOCK)
        _pump(sock, block, way, WARMING_S)
        began, started, peer = time.monotonic(), time.thread_time(), time.clock_gettime(self._peer_clock)
        octets = _pump(sock, block, way, seconds)
        spent = time.thread_time() - started + time.clock_gettime(self._peer_clock) - peer
        return octets / (time.monotonic() - began), octets / spent

    def loop(self, way: str, seconds: float) -> float:
        """Octets per second of processor time, with both ends in one thread: nobody waits, and nobody is woken."""
        sender, receiver = self._loops[way]
        source, sink = bytes(BLOCK), bytearray(BLOCK)
        _turn_over(sender, receiver, source, sink, WARMING_S)
        started = time.thread_time()
        octets = _turn_over(sender, receiver, source, sink, seconds)
        return octets / (time.thread_time() - started)

    def iperf(self, way: str, seconds: float) -> tuple[float, float]:
        """Octets of iperf3's stream, as anybody would measure: a new connection, buffers and cores as the kernel likes.

        Per second, and per second of processor time of both ends.
        """
        lab = self._lab
        if not self._iperf_is_there:
            server = lab.popen(lab.internet, ["iperf3", "--server", "--bind", str(WEB4), "--forceflush"])
            assert server.stdout is not None
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 does not listen"
            self._iperf_is_there = True
        words = ["iperf3", "--client", str(WEB4), "--time", f"{seconds:g}", "--congestion", "reno", "--json"]
        done = lab.run(lab.guest.netns, words if way == "up" else [*words, "--reverse"], timeout_s=seconds + 30)
        end = json.loads(done.stdout)["end"]
        rate = end["sum_received"]["bits_per_second"] / 8
        cores = (end["cpu_utilization_percent"]["host_total"] + end["cpu_utilization_percent"]["remote_total"]) / 100
        return rate, rate / cores

    def _connect(self, guest: str, internet: str) -> None:
        lab = self._lab
        with lab.inside(internet):
            self._counters["internet"] = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
            server = _buffered(socket.create_server(("0.0.0.0", 0)))
        with lab.inside(guest):
            self._counters["guest"] = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
            for way, family, target in (("up", socket.AF_INET, WEB4), ("up6", socket.AF_INET6, WEB6)):
                self._datagrams[way] = socket.socket(family, socket.SOCK_DGRAM)
                self._datagrams[way].connect((str(target), PORT))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opening:
                opening.bind(("0.0.0.0", GUEST_PORT))
                opening.sendto(b"a flow that `down` answers", (str(WEB4), PORT))
            for way in ("up", "down"):
                self._streams[way] = _stream_to(STREAM_PORT)
                self._streams[way].sendall(way[:1].encode())
                near = _stream_to(server.getsockname()[1])
                far, (translated, _) = server.accept()
                near.setblocking(False)
                far.setblocking(False)
                self._loops[way] = (near, far) if way == "up" else (far, near)
        server.close()
        with lab.inside(internet):
            down = self._datagrams["down"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            down.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the address is only routed here
            down.bind((str(WEB4), PORT))
            down.connect((str(UPLINK4) if translated == str(UPLINK4) else str(lab.guest.address), GUEST_PORT))

    def _arrived(self, end: str) -> int:
        for line in os.pread(self._counters[end], 4096, 0).decode().splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == "eth0":
                return int(rest.split()[1])
        raise AssertionError("eth0 is missing")


def _buffered(sock: socket.socket) -> socket.socket:
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, name, BUFFER)
    return sock


def _stream_to(port: int) -> socket.socket:
    sock = _buffered(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sock.settimeout(5)
    sock.connect((str(WEB4), port))
    return sock


class _Blast:
    """Sends small datagrams on connected sockets, many with each system call."""

    def __init__(self, size: int = 18) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._payload = ctypes.create_string_buffer(size)
        vector = _Iovec(ctypes.cast(self._payload, ctypes.c_void_p), size)
        self._messages = (_Message * _BATCH)()
        for message in self._messages:
            message.header.iov = ctypes.pointer(vector)
            message.header.iovlen = 1

    def run(self, sock: socket.socket, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._libc.sendmmsg(sock.fileno(), self._messages, _BATCH, 0)


def _pump(sock: socket.socket, block: bytearray, way: str, seconds: float) -> int:
    """Send or receive for so long; returns octets."""
    octets = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        octets += sock.send(block) if way == "up" else sock.recv_into(block)
    return octets


def _turn_over(sender: socket.socket, receiver: socket.socket, source: bytes, sink: bytearray, seconds: float) -> int:
    """Send as much as is taken, then receive it, and so on; returns octets received."""
    octets = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):  # the window is full
            sender.send(source)
        with contextlib.suppress(BlockingIOError):  # all that was sent has arrived
            while True:
                octets += receiver.recv_into(sink)
    return octets
