"""DHCP benchmark: leases per second (DORA) of our server core and shell next to kea and dnsmasq, in one run.

    python -m tests.bench.dhcp [--seconds 4] [--servers postern,kea,dnsmasq] [--profile]

Two namespaces joined by a veth pair; perfdhcp (of kea) plays a relay with 20,000 clients and a /16 pool. For each
server the offered rate rises until 1 % of the exchanges are lost or perfdhcp cannot offer more; the row tells the
highest rate that held, its latency, and the server's CPU time per exchange. Our server runs without the hub: nothing is
journalled, where kea and dnsmasq write their lease files (to a directory in memory). Needs root, kea-dhcp4-server,
kea-admin and dnsmasq-base.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

import uvloop

from gateway.addresses import Ipv4Range
from gateway.config import Dhcp, Zone
from gateway.dhcp.sockets import DhcpService
from gateway.dhcp.v4_server import DhcpServer
from gateway.session.events import LeaseBound, LeaseEnded

PROJECT: Final = Path(__file__).resolve().parents[2]
GATEWAY: Final = IPv4Interface("10.60.0.1/16")
RELAY: Final = IPv4Address("10.60.0.2")
POOL: Final = Ipv4Range(IPv4Address("10.60.1.0"), IPv4Address("10.60.255.250"))
LEASE_S: Final = 3600
CLIENTS: Final = 20_000
LOSS_ALLOWED: Final = 0.01
FIRST_RATE: Final = {"postern": 4000, "kea": 4000, "dnsmasq": 100}

KEA: Final = {
    "Dhcp4": {
        "interfaces-config": {"interfaces": ["srv0"], "dhcp-socket-type": "udp"},
        "multi-threading": {"enable-multi-threading": False},
        "valid-lifetime": LEASE_S,
        "subnet4": [{"subnet": str(GATEWAY.network), "pools": [{"pool": str(POOL)}]}],
        "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stderr"}]}],
    }
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of perfdhcp at one offered rate."""

    wanted: int  # exchanges per second that perfdhcp was told to begin
    offered: float  # that it began
    reached: float  # that were completed
    loss: float  # share of exchanges begun that were not completed
    latency_ms: float  # mean of DISCOVER to OFFER and REQUEST to ACK
    cpu_us: float  # the server's CPU time per complete exchange


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """A server's and a client's namespace, joined by srv0 and cli0."""
    server, client = f"bench-dhcp-{os.getpid()}-s", f"bench-dhcp-{os.getpid()}-c"
    made = []
    try:
        for name in (server, client):
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", server, "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", client)
        _ip("-n", server, "address", "add", str(GATEWAY), "dev", "srv0")
        _ip("-n", client, "address", "add", f"{RELAY}/16", "dev", "cli0")
        _ip("-n", server, "link", "set", "srv0", "up")
        _ip("-n", client, "link", "set", "cli0", "up")
        yield server, client
    finally:
        for name in made:
            _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def server_process(kind: str, netns: str, directory: Path, *, profile: bool = False) -> Iterator[int]:
    """Start one of the servers in the namespace and wait until it holds port 67; yields its process id."""
    environment = {**os.environ, "KEA_PIDFILE_DIR": str(directory), "KEA_LOCKFILE_DIR": "none"}
    if kind == "postern":
        command = [sys.executable, "-m", "tests.bench.dhcp", "--serve"] + (["--profile"] if profile else [])
    elif kind == "kea":
        leases = {"type": "memfile", "persist": True, "name": str(directory / "kea.leases"), "lfc-interval": 0}
        settings = directory / "kea.conf"
        settings.write_text(json.dumps({"Dhcp4": {**KEA["Dhcp4"], "lease-database": leases}}))
        command = ["kea-dhcp4", "-c", str(settings)]
    else:
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=srv0"]
        command += ["--no-ping", "--dhcp-authoritative", f"--dhcp-lease-max={len(POOL)}", "--quiet-dhcp", "--user=root"]
        command += [f"--dhcp-leasefile={directory / 'dnsmasq.leases'}", f"--pid-file={directory / 'dnsmasq.pid'}"]
        command += [f"--dhcp-range={POOL.first},{POOL.last},{GATEWAY.netmask},{LEASE_S}"]
    child = subprocess.Popen(["ip", "netns", "exec", netns, *command], cwd=PROJECT, env=environment)
    try:
        for _ in range(100):
            if child.poll() is not None:
                raise RuntimeError(f"{kind} ended with {child.returncode} instead of serving")
            held = subprocess.run(
                ["ip", "netns", "exec", netns, "ss", "-uln"], capture_output=True, text=True, check=True
            )
            if ":67 " in held.stdout:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{kind} did not open port 67 within 10 s")
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def trial(netns: str, pid: int, rate: int, seconds: int) -> Trial:
    """Offer exchanges at a rate; perfdhcp's report is read for what became of them."""
    before = _cpu_s(pid)
    command = ["perfdhcp", "-4", "-r", str(rate), "-R", str(CLIENTS), "-p", str(seconds), "-W", "500000"]
    command += ["-l", str(RELAY), "-s", "1", str(GATEWAY.ip)]
    done = subprocess.run(["ip", "netns", "exec", netns, *command], capture_output=True, text=True, check=False)
    cpu = _cpu_s(pid) - before
    sent = [int(number) for number in re.findall(r"sent packets: (\d+)", done.stdout)]
    received = [int(number) for number in re.findall(r"received packets: (\d+)", done.stdout)]
    delays = [float(number) for number in re.findall(r"avg delay: ([\d.]+) ms", done.stdout)]
    if len(sent) < 2 or len(received) < 2:
        raise RuntimeError(f"perfdhcp said nothing to read:\n{done.stdout}{done.stderr}")
    complete = received[1]
    latency = sum(delays[:2]) if len(delays) >= 2 else float("nan")
    # perfdhcp's own rate counts the half second in which it only waits for the last answers.
    begun = max(1, sent[0])
    return Trial(rate, begun / seconds, complete / seconds, 1 - complete / begun, latency, cpu / max(1, complete) * 1e6)


def highest_rate(netns: str, pid: int, first: int, seconds: int) -> tuple[Trial, Trial | None]:
    """The best trial with less than 1 % loss, and the first one that failed (None: perfdhcp was the limit)."""
    trial(netns, pid, first, seconds)  # every client gets its first lease; not counted
    best: Trial | None = None
    failed: Trial | None = None
    rate = first
    for _ in range(14):
        result = trial(netns, pid, rate, seconds)
        print(f"    offered {result.offered:8.0f}/s  lost {result.loss:6.2%}", file=sys.stderr)
        if result.loss >= LOSS_ALLOWED:
            failed = result
        elif best is None or result.reached > best.reached:
            best = result
        if result.loss < LOSS_ALLOWED and result.offered < 0.9 * rate:
            break  # nothing is lost, yet no more is offered: the generator's limit
        low = best.wanted if best else 0
        if failed is None:
            rate = int(rate * 1.3)
        elif failed.wanted - low <= max(20, low // 12):
            break
        else:
            rate = (low + failed.wanted) // 2
    if best is None:
        raise RuntimeError("no rate was served without loss")
    return best, failed


async def serve() -> None:
    """Our server without the hub, on srv0; refusal of new clients is opened wide, for perfdhcp invents them all."""
    settings = Dhcp(new_client_rate=1e6, new_client_burst=10**6, client_rate=100, client_burst=1000)
    zone = Zone(name="bench", interface="srv0", address=GATEWAY, pool=POOL, lease_time=LEASE_S, relays=(RELAY,))
    facts = 0

    def post(fact: LeaseBound | LeaseEnded) -> None:
        nonlocal facts
        facts += 1

    loop = asyncio.get_running_loop()
    service = DhcpService([DhcpServer(zone, settings)], post, time.monotonic)
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await service.run()
    except asyncio.CancelledError:
        print(f"    posted {facts} facts; {service.servers['bench'].counts()}", file=sys.stderr)


def main() -> None:
    """Measure and print one table, or be the server in its namespace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="length of one trial")
    parser.add_argument("--servers", default="postern,kea,dnsmasq", help="which to measure")
    parser.add_argument("--serve", action="store_true", help="be our server on srv0 (used by the benchmark itself)")
    parser.add_argument("--profile", action="store_true", help="print where our server spends its time")
    options = parser.parse_args()
    if options.serve:
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
        if options.profile:
            profile.disable()
            profile.print_stats("tottime")
        return
    missing = [tool for tool in ("perfdhcp", "kea-dhcp4", "dnsmasq") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"the benchmark needs {', '.join(missing)}: apt-get install kea-dhcp4-server kea-admin dnsmasq-base")
    rows = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, namespaces() as (server, client):
        for kind in options.servers.split(","):
            print(f"  {kind}", file=sys.stderr)
            with server_process(kind, server, Path(directory), profile=options.profile) as pid:
                best, failed = highest_rate(client, pid, FIRST_RATE[kind], options.seconds)
                memory = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
            limit = f"lost {failed.loss:.1%} at {failed.offered:.0f}/s" if failed else "perfdhcp could not offer more"
            rows.append((kind, best, limit, memory))
    print(f"{'server':<10}{'DORA/s':>9}{'lost':>8}{'latency':>11}{'CPU/DORA':>11}{'memory':>10}  limit")
    for kind, best, limit, memory in rows:
        print(
            f"{kind:<10}{best.reached:>9.0f}{best.loss:>8.2%}{best.latency_ms:>8.2f} ms"
            f"{best.cpu_us:>8.0f} us{memory / 1024:>7.1f} MB  {limit}"
        )
    if load > 0.5:
        print(
            f"The machine was busy (load {load:.1f} on {os.cpu_count()} cores): compare the rows with each other only."
        )


if __name__ == "__main__":
    main()
