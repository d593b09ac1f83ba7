"""The gate's benchmark: one table, measured in one run on this machine, with peers beside it.

    sudo ./build.sh bench gate [--quick] [--parts dhcp,redirect,login,memory,forwarding]

Everything is measured through the whole gateway (posternd with journal and kernel, postern-web, FreeRADIUS 3.2) in
network namespaces, the load's generator on the same machine. 200,000 connection-tracking entries of other people are
there all the time. Each floor that is missed is named below the table, and the exit code tells (0: all hold).

    dhcp        leases per second by perfdhcp: the whole daemon, kea, dnsmasq, each in turn
    redirect    redirects per second on port 80, from many addresses, next to openNDS
    login       logins per second until the first packet has passed, with 10 and with 10,000 sessions online
    memory      octets per session, time to resume, the daemon at rest
    forwarding  throughput and packets per second as ratios of plain forwarding and of NAT

CPU columns are processor time per operation: they change less with what else runs on the machine than the rates do.
The share of all processors that went to others (kernel threads, other programs) is printed with each row of logins.
Rates at concurrency 8 also depend on how long this machine takes to wake a processor that has halted; both that time
and the rate without any halting are printed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench import dhcp, forwarding, http, opennds
from tests.bench.crowd import address_of
from tests.bench.halting import kept_awake, wake_s
from tests.bench.logins import Kind
from tests.bench.options import read_options
from tests.bench.stage import (
    LoginRun,
    Meter,
    Stage,
    cached_byte_code,
    cpu_s,
    end_by_signal,
    foreign_connections,
    memory,
)

PARTS: Final = ("dhcp", "redirect", "login", "memory", "forwarding")
FOREIGN: Final = 200_000
KEPT: Final = 10  # members that stay online in the first round of logins
AT_REST: Final = 1_000
MANY: Final = 10_000
CONCURRENCIES: Final = (1, 8, 50, 100)


@dataclass(slots=True)
class Report:
    """The rows as they were measured, and what is below its floor."""

    rows: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    def say(self, row: str) -> None:
        """Add a row; it is shown at once on standard error, for a run takes minutes."""
        self.rows.append(row)
        print(f"    {row}", file=sys.stderr)

    def floor(self, what: str, value: float, least: float | None = None, most: float | None = None) -> None:
        """Compare a value with its floor or ceiling."""
        if least is not None and value < least:
            self.below.append(f"{what}: {value:.4g}, floor {least:g}")
        if most is not None and value > most:
            self.below.append(f"{what}: {value:.4g}, at most {most:g}")


@dataclass(slots=True)
class Sizes:
    """How much of everything is done."""

    members: int
    seconds: int
    rest_s: int
    forwarding_rounds: int


WHOLE: Final = Sizes(members=2000, seconds=4, rest_s=30, forwarding_rounds=4)
QUICK: Final = Sizes(members=600, seconds=2, rest_s=6, forwarding_rounds=1)


# -- DHCP -------------------------------------------------------------------------------------------------------------


def measure_dhcp(report: Report, sizes: Sizes) -> None:
    """Leases per second of the whole daemon, of kea and of dnsmasq."""
    report.say(f"{'DHCP (DORA)':<26}{'per s':>9}{'latency':>11}{'CPU/lease':>11}{'memory':>10}  limit")
    rates = {}
    for kind in ("postern", "kea", "dnsmasq"):
        # Namespaces of its own for each: our table and routing rule stay in the kernel when posternd ends.
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as name,
            dhcp.namespaces() as (server, client),
            foreign_connections(server, FOREIGN),
        ):
            directory = Path(name)
            serving = (
                _whole_daemon(server, directory) if kind == "postern" else dhcp.server_process(kind, server, directory)
            )
            with serving as pid:
                best, failed = dhcp.highest_rate(client, pid, dhcp.FIRST_RATE[kind], sizes.seconds)
                resident = memory(pid).resident
        rates[kind] = best.reached
        limit = f"lost {failed.loss:.1%} at {failed.offered:.0f}/s" if failed else "perfdhcp offers no more"
        limit += f"; the server had {best.reached * best.cpu_us / 1e6:.0%} of a core at its best"
        title = "posternd, whole" if kind == "postern" else kind
        report.say(
            f"  {title:<24}{best.reached:>9.0f}{best.latency_ms:>8.2f} ms{best.cpu_us:>8.0f} us"
            f"{resident / 1e6:>7.1f} MB  {limit}"
        )
    report.floor("leases per second, next to kea in the same run", rates["postern"], least=rates["kea"])


@contextlib.contextmanager
def _whole_daemon(netns: str, directory: Path) -> Iterator[int]:
    """posternd with everything on, serving srv0; yields its process id."""
    config = directory / "postern.conf"
    config.write_text(
        f"config postern\n\toption state_dir '{directory}/state'\n\toption run_dir '{directory}'\n"
        f"config network\n\tlist uplink 'lo'\n"
        f"config zone 'bench'\n\toption interface 'srv0'\n\toption address '{dhcp.GATEWAY}'\n"
        # perfdhcp speaks as a relay with an address of its own, which must not be one of the pool's.
        f"\toption pool '{dhcp.POOL}'\n\toption lease_time '{dhcp.LEASE_S}'\n\tlist method 'click'\n"
        f"\tlist relay '{dhcp.RELAY}'\n"
        f"config dhcp\n\toption probe '0'\n\toption new_client_rate '1000000'\n\toption new_client_burst '1000000'\n"
        f"\toption client_rate '1000'\n\toption client_burst '1000'\n"
    )
    with (directory / "posternd.log").open("w") as log:
        command = ["ip", "netns", "exec", netns, sys.executable, "-m", "gateway", str(config)]
        child = subprocess.Popen(command, cwd=dhcp.PROJECT, stdout=log, stderr=log)
    try:
        for _ in range(200):
            if "dhcp listens" in (directory / "posternd.log").read_text():
                break
            if child.poll() is not None:
                raise RuntimeError(f"posternd ended:\n{(directory / 'posternd.log').read_text()}")
            time.sleep(0.1)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# -- redirects --------------------------------------------------------------------------------------------------------


def measure_redirects(report: Report, stage: Stage, sizes: Sizes) -> None:
    """Redirects per second as a phone's probe sees them: port 80 of any host, a new connection each."""
    report.say(
        f"{'Redirects, concurrency 8':<26}{'per s':>9}{'p50':>11}{'p95':>11}{'p99':>11}{'CPU each':>11}{'errors':>8}"
    )
    request = http.probe_request("connectivitycheck.gstatic.com", "/generate_204")
    load = http.Load(
        ("203.0.113.80", 80),
        request,
        keep_alive=False,
        expect=302,
        sources=[address_of(member) for member in range(KEPT, stage.members)],
    )
    pids = {"postern-web": stage.web_pid, "posternd": stage.daemon_pid}
    _redirect_row(report, "postern-web", stage.lab.inside(stage.guest.netns), load, sizes.seconds, pids)
    times = sorted(load.times_s)
    report.floor("redirects per second", len(times) / sizes.seconds, least=5000)
    report.floor("redirects, p95 in ms", http.percentile_ms(times, 0.95), most=10)
    try:
        with opennds.running() as peer, foreign_connections(peer.gateway, FOREIGN):
            load = http.Load(peer.target, request, keep_alive=False, expect=peer.status)
            _redirect_row(report, "openNDS", peer.inside(), load, sizes.seconds, {"openNDS": peer.pid})
    except opennds.Unavailable as why:
        report.say(f"  openNDS was not measured: {why}")


def _redirect_row(
    report: Report,
    name: str,
    inside: contextlib.AbstractContextManager[None],
    load: http.Load,
    seconds: float,
    pids: dict[str, int],
) -> None:
    with inside:
        load.run(8, 0.5)
        meter = Meter(pids | {"generator": os.getpid()})
        took = load.run(8, seconds)
        shares = meter.shares({})
    times = sorted(load.times_s)
    p50, p95, p99 = (http.percentile_ms(times, share) for share in (0.5, 0.95, 0.99))
    each = shares.cpu_s(name) / max(1, len(times)) * 1e6
    report.say(
        f"  {name:<24}{len(times) / took:>9.0f}{p50:>8.2f} ms{p95:>8.2f} ms{p99:>8.2f} ms{each:>8.0f} us"
        f"{load.errors:>8}"
    )
    of_load = shares.cpu_s("generator") / max(1, len(times)) * 1e6
    report.say(f"      {shares.limit()}")
    report.say(f"      a request costs its asker {of_load:.0f} us: the kernel's share of connecting, both ends of it")


# -- logins -----------------------------------------------------------------------------------------------------------

_PROCESSES: Final = ("posternd", "postern-web", "freeradius", "generator")
_LOGIN_HEAD: Final = (
    f"{'per s':>7}{'p50':>10}{'p95':>10}{'RADIUS p95':>12}{'failed':>8}  "
    f"{'CPU us per login: posternd':>26}{'web':>6}{'radius':>8}{'load':>6}{'others':>8}"
)


def measure_logins(
    report: Report, stage: Stage, first: int, count: int, existing: int
) -> dict[tuple[Kind, int], LoginRun]:
    """Logins of each kind at each concurrency, everybody logged out again in between."""
    report.say(f"{f'Logins, {existing} online':<26}{_LOGIN_HEAD}")
    runs = {}
    for kind in (Kind.FORM, Kind.API):
        for concurrency in CONCURRENCIES:
            members = max(200, count // 4) if concurrency == 1 else count
            run = stage.load(kind, concurrency, first, members)
            runs[kind, concurrency] = run
            title = f"{'page and form' if kind is Kind.FORM else '/api/v1/login'}, {concurrency}"
            each = [run.shares.cpu_s(name) / max(1, run.outcome.done) * 1e6 for name in _PROCESSES]
            p50, p95 = (run.quantile_s(share) * 1e3 for share in (0.5, 0.95))
            report.say(
                f"  {title:<24}{run.per_second:>7.0f}{p50:>7.1f} ms{p95:>7.1f} ms{run.radius_p95_s * 1e3:>9.1f} ms"
                f"{run.failed:>8}  {each[0]:>26.0f}{each[1]:>6.0f}{each[2]:>8.0f}{each[3]:>6.0f}"
                f"{run.shares.others / (os.cpu_count() or 1):>8.0%}"
            )
            for why, times in run.outcome.failures.items():
                report.say(f"      {times} times: {why}")
            out = stage.load(Kind.LOGOUT, 8, first, members)
            if out.failed:
                report.say(f"      logging out failed: {out.outcome.failures}")
        for concurrency in (8, 100):
            report.say(f"      {concurrency} at once, {runs[kind, concurrency].shares.limit()}")
        _say_awake(report, stage, kind, first, count)
    return runs


def _say_awake(report: Report, stage: Stage, kind: Kind, first: int, count: int) -> None:
    """The same at concurrency 8 with processors that never halt: what of the time was waking them. Not judged."""
    with kept_awake():
        run = stage.load(kind, 8, first, count)
        out = stage.load(Kind.LOGOUT, 8, first, count)
    failed = run.failed + out.failed
    report.say(
        f"      8 at once, no processor allowed to halt: {run.per_second:.0f} per s, "
        f"p50 {run.quantile_s(0.5) * 1e3:.1f} ms, p95 {run.quantile_s(0.95) * 1e3:.1f} ms, {failed} failed"
    )


def _judge_logins(report: Report, runs: dict[tuple[Kind, int], LoginRun], existing: int) -> None:
    hundred = runs[Kind.API, 100]
    for kind, title in ((Kind.FORM, "page and form"), (Kind.API, "/api/v1/login")):
        eight = runs[kind, 8]
        what = f"{title}, concurrency 8, {existing} online"
        report.floor(f"logins per second, {what}", eight.per_second, least=500)
        report.floor(f"p95 of a login in ms, {what}", eight.quantile_s(0.95) * 1e3, most=50)
    report.floor(f"logins per second (goal), concurrency 100, {existing} online", hundred.per_second, least=1000)
    report.floor(f"RADIUS p95 in ms (goal), concurrency 100, {existing} online", hundred.radius_p95_s * 1e3, most=100)
    report.floor(f"failed logins, {existing} online", sum(run.failed for run in runs.values()), most=0)


# -- memory, rest, resume ---------------------------------------------------------------------------------------------


def measure_rest(report: Report, sizes: Sizes) -> None:
    """A daemon with 1,000 clients, all online, and nothing to do."""
    with Stage(AT_REST) as stage, foreign_connections(stage.lab.gateway, FOREIGN):
        stage.load(Kind.API, 8, 0, AT_REST)
        online = stage.online()
        time.sleep(1.0)
        before = cpu_s(stage.daemon_pid)
        time.sleep(sizes.rest_s)
        share = (cpu_s(stage.daemon_pid) - before) / sizes.rest_s
        now = memory(stage.daemon_pid)
        web = memory(stage.web_pid)
    report.say(
        f"At rest, {online} online: posternd {share:.2%} of a core, {now.resident / 1e6:.1f} MB resident "
        f"({now.anonymous / 1e6:.1f} anonymous, {now.files / 1e6:.1f} of files, shared with other Pythons); "
        f"postern-web {web.resident / 1e6:.1f} MB"
    )
    report.floor("the daemon at rest, percent of a core", share * 100, most=1)
    report.floor("the daemon's resident memory at rest in MB", now.resident / 1e6, most=45)


def measure_memory(report: Report, stage: Stage, leases: int) -> None:
    """Octets per session, everything that a client needs of the daemon included."""
    now = memory(stage.daemon_pid)
    online = stage.online()
    lease = (stage.leased.resident - stage.empty.resident) / leases
    session = (now.resident - stage.leased.resident) / online
    report.say(
        f"Memory at {online} online: {now.resident / 1e6:.1f} MB; {lease:.0f} octets per lease and {session:.0f} more "
        f"per session: {lease + session:.0f} per client (CoovaChilli: 13,800)"
    )
    report.floor("octets of daemon memory per session, its lease included", lease + session, most=4096)


def measure_resume(report: Report, stage: Stage) -> None:
    """SIGKILL and start with all sessions, with the kernel's table kept and with it gone."""
    for without_table in (False, True):
        listed, passes = stage.restart(without_table=without_table)
        what = "kernel's table gone" if without_table else "kernel's table kept"
        report.say(
            f"Resume of {stage.online()} sessions after SIGKILL, {what}: all listed after {listed:.2f} s, "
            f"a client's packet passes after {passes:.2f} s"
        )
        report.floor(f"seconds to resume, {what}", max(listed, passes), most=3)


def _whole_gateway(report: Report, parts: set[str], sizes: Sizes) -> None:
    """Redirects, logins, memory: what one running gateway shows."""
    leases = MANY + sizes.members
    with Stage(leases) as stage, foreign_connections(stage.lab.gateway, FOREIGN):
        report.say(f"{leases} leases by a DHCP client in the crowd: {leases / stage.lease_seconds:.0f} per second")
        if "redirect" in parts:
            measure_redirects(report, stage, sizes)
        few: dict[tuple[Kind, int], LoginRun] = {}
        if "login" in parts:
            report.say(
                f"Waking a process on a processor that has halted takes {wake_s() * 1e6:.0f} us here; "
                "a login is some fourteen messages, each of which does that when nothing else is under way"
            )
            stage.load(Kind.API, 8, 0, KEPT)
            stage.load(Kind.API, 50, KEPT, sizes.members)  # warm up
            stage.load(Kind.LOGOUT, 8, KEPT, sizes.members)
            few = measure_logins(report, stage, KEPT, sizes.members, KEPT)
            _judge_logins(report, few, KEPT)
        if "login" in parts or "memory" in parts:
            there = stage.online()
            filling = stage.load(Kind.API, 50, there, MANY - there)
            report.say(f"From {there} to {stage.online()} online: {filling.per_second:.0f} logins per second")
        if "memory" in parts:
            measure_memory(report, stage, leases)
        if "login" in parts:
            many = measure_logins(report, stage, MANY, sizes.members, MANY)
            _judge_logins(report, many, MANY)
            _compare(report, few[Kind.API, 8], many[Kind.API, 8])
        if "memory" in parts:
            measure_resume(report, stage)


def _compare(report: Report, few: LoginRun, many: LoginRun) -> None:
    """How flat logins are in the number of sessions."""
    costs = [run.shares.cpu_s("posternd") / run.outcome.done for run in (few, many)]
    report.say(
        f"From {KEPT} to {MANY} sessions, /api/v1/login, 8 at once: rate times {many.per_second / few.per_second:.2f}, "
        f"posternd's CPU per login times {costs[1] / costs[0]:.2f}"
    )


# -- forwarding -------------------------------------------------------------------------------------------------------


def measure_forwarding(report: Report, sizes: Sizes) -> None:
    """What the gate costs per packet; its own table."""
    best = forwarding.measure(sizes.forwarding_rounds, 0.7)
    for row in forwarding.table(best):
        report.say(row)
    tcp, packets = forwarding.worst(best)
    report.floor("TCP throughput, gate over plain forwarding", tcp, least=forwarding.TCP_FLOOR)
    report.floor("small packets, gate over NAT alone", packets, least=forwarding.PACKETS_FLOOR)


def main() -> int:
    """Measure and print."""
    parts, quick = read_options(__doc__, PARTS)
    missing = [
        tool for tool in ("perfdhcp", "kea-dhcp4", "dnsmasq", "freeradius", "conntrack") if not shutil.which(tool)
    ]
    if missing:
        print(f"missing: {', '.join(missing)}; run ./build.sh bench gate, which installs them", file=sys.stderr)
        return 2
    end_by_signal()
    sizes = QUICK if quick else WHOLE
    load = os.getloadavg()[0]
    report = Report()
    with cached_byte_code():
        if "dhcp" in parts:
            measure_dhcp(report, sizes)
        if parts & {"redirect", "login", "memory"}:
            _whole_gateway(report, parts, sizes)
        if "memory" in parts:
            measure_rest(report, sizes)
        if "forwarding" in parts:
            measure_forwarding(report, sizes)
    print(f"postern bench gate: {os.cpu_count()} cores, load generator included, {FOREIGN} foreign connections tracked")
    if load > 0.5:
        print(f"(the machine was busy with other things at the start, load {load:.1f}: rates are too low)")
    print("\n".join(report.rows))
    print("below the floor:" if report.below else "every floor holds")
    for line in report.below:
        print(f"  {line}")
    return 1 if report.below else 0


if __name__ == "__main__":
    sys.exit(main())
