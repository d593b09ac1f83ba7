"""What the gate's benchmark and the soak run on: a laboratory with the whole gateway, a FreeRADIUS and a crowd.

`Stage` is a context manager. It measures what processes cost by reading /proc, and knows the pid of everything in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import ControlError
from tests.bench.crowd import LARGEST, POOL, lease_all, settle, widen
from tests.bench.logins import ECHO, PASSWORD, Kind, Outcome, user_of
from tests.netns.freeradius import FreeRadius, user_entry
from tests.netns.harness import INTERNET4, UPLINK4, Guest, Lab
from tests.netns.hotspot import Hotspot

SECRET: Final = "a-secret-for-the-benchmark"
TICKS: Final = os.sysconf("SC_CLK_TCK")
_FULL_CORE: Final = 0.9
_NEARLY_ALL_BUSY: Final = 0.1  # idle share of all cores; the rest of a busy machine is lost between turns
CONNTRACK_LIMIT: Final = Path("/proc/sys/net/netfilter/nf_conntrack_max")

# Rates that one crowd behind one interface would exceed, and room for all sessions; the rest is as shipped.
ZONE: Final = f"\toption pool '{POOL}'\n\tlist auth 'radius'\n"
SECTIONS: Final = f"""
config radius_server 'bench'
\toption address '{INTERNET4}'
\toption secret '{SECRET}'
config performance
\toption max_sessions '{LARGEST}'
config dhcp
\toption probe '0'
\toption new_client_rate '100000'
\toption new_client_burst '100000'
"""

# Echoes datagrams as cheaply as Python can: it shares the machine with what is measured.
ECHO_SERVER: Final = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
sock.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    data, sender = sock.recvfrom(64)
    sock.sendto(data, sender)
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's resident memory, octets."""

    anonymous: int
    files: int

    @property
    def resident(self) -> int:
        """Both together: VmRSS."""
        return self.anonymous + self.files


@dataclass(frozen=True, slots=True)
class Shares:
    """Who had the machine's processors during a measurement; 1.0 is one core all the time."""

    seconds: float
    cores: dict[str, float]  # by process
    others: float  # the kernel's threads, and programs that are not ours
    idle: float

    def cpu_s(self, name: str) -> float:
        """Processor time of one process."""
        return self.cores[name] * self.seconds

    def limit(self) -> str:
        """What bound the rate, in words: a process that fills its core, all cores together, or waiting."""
        everybody = {**self.cores, "others": self.others}
        used = ", ".join(f"{name} {share:.0%}" for name, share in sorted(everybody.items(), key=lambda one: -one[1]))
        full = [name for name, share in self.cores.items() if share >= _FULL_CORE]
        if full:
            binds = f"{' and '.join(full)}: one core full"
        elif self.idle <= _NEARLY_ALL_BUSY * (self.idle + sum(everybody.values())):
            binds = "the processors together"
        else:
            binds = "waiting for each other, not work"
        return f"the limit is {binds} (of a core: {used}; idle {self.idle:.0%})"


class Meter:
    """Measures `Shares` from its making on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}
        self._machine = _machine_s()
        self._began = time.perf_counter()

    def shares(self, more_s: Mapping[str, float]) -> Shares:
        """What was used since; `more_s` is the processor time of processes that have ended meanwhile."""
        seconds = time.perf_counter() - self._began
        spent = {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()} | dict(more_s)
        busy, total = (now - then for now, then in zip(_machine_s(), self._machine, strict=True))
        others = max(0.0, busy - sum(spent.values()))
        return Shares(
            seconds, {name: used / seconds for name, used in spent.items()}, others / seconds, (total - busy) / seconds
        )


@dataclass(frozen=True, slots=True)
class LoginRun:
    """One load of logins: what came of it and what it cost."""

    outcome: Outcome
    shares: Shares
    radius_p95_s: float

    @property
    def per_second(self) -> float:
        """Completed per second."""
        return self.outcome.done / self.outcome.seconds

    @property
    def failed(self) -> int:
        """Members that were not served."""
        return sum(self.outcome.failures.values())

    def quantile_s(self, share: float) -> float:
        """The time that `share` of all did not exceed."""
        times = sorted(self.outcome.times_s)
        return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


@dataclass(slots=True)
class Stage:
    """The laboratory with everything in it; `members` guests have leases when it is entered."""

    members: int
    log_level: str = "info"
    lab: Lab = field(init=False)
    guest: Guest = field(init=False)
    hotspot: Hotspot = field(init=False)
    radius: FreeRadius = field(init=False)
    lease_seconds: float = 0.0
    empty: Memory = Memory(0, 0)  # the daemon before the first lease
    leased: Memory = Memory(0, 0)  # and with every member's lease
    _echo_pid: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            self.lab = stack.enter_context(Lab("bench-gate", guests_wanted=0))
            self.guest = widen(self.lab)
            self.hotspot = Hotspot(self.lab, zone_options=ZONE, sections=SECTIONS, log_level=self.log_level)
            stack.enter_context(self.hotspot)
            users = "".join(
                user_entry(user_of(member), PASSWORD, "Session-Timeout := 14400", 'Class := "bench"')
                for member in range(self.members)
            )
            self.radius = stack.enter_context(
                FreeRadius(
                    self.hotspot.directory,
                    users,
                    {str(UPLINK4): SECRET},
                    namespace=self.lab.internet,
                    detail=False,
                    threads=8,
                )
            )
            echo = self.lab.popen(self.lab.internet, [sys.executable, "-c", ECHO_SERVER, ECHO[0], str(ECHO[1])])
            assert echo.stdout is not None
            echo.stdout.readline()
            self._echo_pid = echo.pid
            settle(self.lab, self.guest, self.members)
            time.sleep(1.5)  # what the start left is given back
            self.empty = memory(self.daemon_pid)
            self.lease_seconds = lease_all(self.lab, self.guest, self.members)["seconds"]
            self.leased = memory(self.daemon_pid)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def daemon_pid(self) -> int:
        """posternd's process id."""
        assert self.hotspot.daemon is not None
        return self.hotspot.daemon.pid

    @property
    def web_pid(self) -> int:
        """postern-web's process id."""
        assert self.hotspot.web is not None
        return self.hotspot.web.pid

    def load(self, kind: Kind, concurrency: int, first: int, count: int) -> LoginRun:
        """Have members log in or out, and see what it cost."""
        pids = {
            "posternd": self.daemon_pid,
            "postern-web": self.web_pid,
            "freeradius": self.radius.pid,
            "echo": self._echo_pid,
        }
        words = [sys.executable, "-m", "tests.bench.logins", kind.value, str(concurrency), str(first), str(count)]
        generator = self.lab.popen(self.guest.netns, words, stdin=subprocess.PIPE, stderr=None)
        assert generator.stdout is not None
        assert generator.stdin is not None
        generator.stdout.readline()
        meter = Meter(pids)  # not before: what its start takes is no part of a login
        generator.stdin.write("\n")
        generator.stdin.flush()
        line = generator.stdout.readline()
        if not line:
            raise AssertionError(f"the load ended with {generator.wait(10)} and no outcome")
        outcome = Outcome(**json.loads(line))
        shares = meter.shares({"generator": outcome.cpu_s})
        generator.communicate(timeout=10)
        p95 = self.radius_p95_s() if kind in (Kind.API, Kind.FORM) else 0.0
        return LoginRun(outcome, shares, p95)

    def radius_p95_s(self) -> float:
        """The 95th percentile of the daemon's recent exchanges about logins."""
        servers: Any = self.ask("radius.status")  # Any: one of the daemon's JSON answers
        return max((row["rtt_p95_s"] or 0.0 for row in _rows(servers) if row["purpose"] == "auth"), default=0.0)

    def ask(self, method: str) -> Any:
        """An answer of the daemon; Any, because each method has its own shape."""
        client = SyncControlClient(self.hotspot.socket)
        try:
            return client.call(method)
        finally:
            client.close()

    def online(self) -> int:
        """Sessions that are online."""
        return int(self.ask("status")["sessions"]["online"])

    def echo_passes(self, member_address: str, limit_s: float) -> bool:
        """Whether a datagram from a member comes back from the Internet."""
        with (
            self.lab.inside(self.guest.netns),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            contextlib.suppress(OSError),
        ):
            sock.bind((member_address, 0))
            sock.settimeout(limit_s)
            sock.sendto(b"\xff\xff\xff\xff", ECHO)
            return bool(sock.recv(64))
        return False

    def restart(self, *, without_table: bool = False) -> tuple[float, float]:
        """Kill the daemon with SIGKILL and start it; seconds until it lists everybody, and until a member passes.

        With `without_table` the kernel's table is deleted meanwhile, as a reboot does: all of it must be made anew.
        """
        wanted = self.online()
        daemon = self.hotspot.daemon
        assert daemon is not None
        daemon.kill()
        daemon.wait()
        if without_table:
            self.lab.run(self.lab.gateway, ["nft", "delete", "table", "inet", "postern"])
        started = time.monotonic()
        log = (self.hotspot.directory / "posternd.log").open("a")
        with log:
            self.hotspot.daemon = self.lab.popen(
                self.lab.gateway,
                [sys.executable, "-m", "gateway", str(self.hotspot.config_path)],
                stdout=log,
                stderr=log,
            )
        passes_after = listed_after = 0.0
        while not listed_after or not passes_after:
            if time.monotonic() - started > 60:
                raise AssertionError(f"not back after 60 s:\n{self.hotspot.log()[-4000:]}")
            if not passes_after and self.echo_passes("10.41.128.0", 0.05):
                passes_after = time.monotonic() - started
            with contextlib.suppress(ControlError, OSError):
                if not listed_after and self.online() >= wanted:
                    listed_after = time.monotonic() - started
            time.sleep(0.03)
        return listed_after, passes_after


def _rows(status: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = status["servers"]
    return rows


def cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _machine_s() -> tuple[float, float]:
    """Processor time of the whole machine that was used, and all there was."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS, sum(fields) / TICKS


def memory(pid: int) -> Memory:
    """Resident memory of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem"):
            found[name] = int(value.split()[0]) << 10
    return Memory(found["RssAnon"], found["RssFile"] + found["RssShmem"])


def end_by_signal() -> None:
    """Have SIGTERM unwind the program: namespaces and the kernel's limits are put back then, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def cached_byte_code() -> Iterator[None]:
    """Have Python keep its byte code, as installed packages do: compiling at each start takes time and memory."""
    former = {name: os.environ.pop(name, None) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        Path(directory).chmod(0o777)  # the portal has a user of its own
        try:
            for name in ("gateway.daemon", "webui.app"):
                subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            yield
        finally:
            del os.environ["PYTHONPYCACHEPREFIX"]
            os.environ.update({name: value for name, value in former.items() if value is not None})


@contextlib.contextmanager
def foreign_connections(netns: str, count: int) -> Iterator[int]:
    """Fill a namespace's connection tracking with so many entries of other people; yields how many there are.

    The kernel's limit is one for the machine: it is raised meanwhile and put back.
    """
    limit = int(CONNTRACK_LIMIT.read_text())
    CONNTRACK_LIMIT.write_text(str(max(limit, count + 300_000)))
    try:
        lines = []
        for number in range(count):
            source = f"100.{64 + number // 65536 % 64}.{number >> 8 & 255}.{number & 255}"
            words = f"-I -p udp -s {source} -d 192.0.2.{number % 250 + 1} --sport {1024 + number % 60000} --dport 443"
            lines.append(f"{words} --timeout 3600 --status SEEN_REPLY,ASSURED")
        subprocess.run(
            ["ip", "netns", "exec", netns, "conntrack", "-R", "-"],
            input="\n".join(lines) + "\n",
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        counted = subprocess.run(
            ["ip", "netns", "exec", netns, "conntrack", "-C"], capture_output=True, text=True, check=True
        )
        yield int(counted.stdout)
    finally:
        CONNTRACK_LIMIT.write_text(str(limit))
