"""The soak: logins and logouts for half an hour; the daemon and the portal must end with the memory that they had.

    sudo ./build.sh soak [SECONDS]

Half of a crowd stays online, the other half logs in and out without end, at a pace that leaves the machine air; half
way FreeRADIUS is stopped and started. Who stays sends a packet each minute, which must come back: a quarter of an hour
without one ends a session, and rightly. Memory is looked at after every round. After a sixth of the time (five of
thirty minutes) it must not grow any more: the median of the last sixth may be two percent above that of the second
sixth, or half a megabyte. A run of less than five minutes shows that the soak works; there four megabytes are allowed,
for the ring of events still fills.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Final

from tests.bench.logins import Kind
from tests.bench.stage import Stage, cached_byte_code, end_by_signal, memory

MEMBERS: Final = 1000
STAYING: Final = 500
SHARE: Final = 6  # parts of the time
SHORT_S: Final = 300.0
ROUND: Final = 250  # members that log in, then out, in one round
PAUSE_S: Final = 1.0
PACKETS_EVERY_S: Final = 60.0  # from those who stay


def soak(seconds: float) -> int:
    """Run, print a line from time to time, and tell whether memory stayed."""
    samples: dict[str, list[tuple[float, int]]] = {"posternd": [], "postern-web": []}
    logins = failures = rounds = packets = 0
    with Stage(MEMBERS) as stage:
        stage.load(Kind.API, 8, 0, STAYING)
        pids = {"posternd": stage.daemon_pid, "postern-web": stage.web_pid}
        started = time.monotonic()
        told = 0.0
        packets_at = started
        outage_at = started + seconds / 2
        while (now := time.monotonic()) - started < seconds:
            first = STAYING + rounds % 2 * ROUND
            for kind in (Kind.FORM if rounds % 3 else Kind.API, Kind.LOGOUT):
                run = stage.load(kind, 8, first, ROUND)
                logins += run.outcome.done if kind is not Kind.LOGOUT else 0
                failures += run.failed
                for why, times in run.outcome.failures.items():
                    print(f"  {times} times: {why}", flush=True)
            rounds += 1
            if now >= packets_at:
                packets_at = now + PACKETS_EVERY_S
                run = stage.load(Kind.PACKET, 50, 0, STAYING)
                packets += run.outcome.done
                failures += run.failed
                for why, times in run.outcome.failures.items():
                    print(f"  {times} times, of those who stay: {why}", flush=True)
            if now > outage_at:
                outage_at = float("inf")
                stage.radius.stop()
                stage.radius.start()
            time.sleep(PAUSE_S)
            for name, pid in pids.items():
                samples[name].append((now - started, memory(pid).resident))
            if now - told > 30:
                told = now
                sizes = ", ".join(f"{name} {rows[-1][1] / 1e6:.1f} MB" for name, rows in samples.items())
                print(f"{now - started:6.0f} s  {logins} logins, {failures} failed; {sizes}", flush=True)
        online = stage.online()
    verdict = failures == 0 and online == STAYING
    print(
        f"{logins} logins and logouts, {failures} failed, {online} online at the end (wanted {STAYING}); "
        f"{packets} packets of theirs came back"
    )
    for name, rows in samples.items():
        early = statistics.median(_between(rows, seconds / SHARE, 2 * seconds / SHARE))
        late = statistics.median(_between(rows, seconds - seconds / SHARE, seconds))
        allowed = max(0.02 * early, 512 << 10) if seconds >= SHORT_S else 4 << 20
        held = late - early <= allowed
        verdict = verdict and held
        print(
            f"{name}: {early / 1e6:.2f} MB after a sixth of the time, {late / 1e6:.2f} MB at the end "
            f"({'held' if held else 'has grown'}; {allowed / 1e6:.2f} MB allowed)"
        )
    return 0 if verdict else 1


def _between(rows: list[tuple[float, int]], begin: float, end: float) -> list[int]:
    """The samples of a span of time; the nearest one where a short run has none in it."""
    found = [size for at, size in rows if begin <= at < end]
    return found or [min(rows, key=lambda row: abs(row[0] - (begin + end) / 2))[1]]


def main() -> int:
    """Soak for as long as the first argument says."""
    if os.geteuid() != 0:
        print("the soak makes network namespaces: run it as root", file=sys.stderr)
        return 2
    end_by_signal()
    with cached_byte_code():
        return soak(float(sys.argv[1]) if len(sys.argv) > 1 else 1800.0)


if __name__ == "__main__":
    sys.exit(main())
