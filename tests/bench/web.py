"""The web's benchmark: one table, measured in one run on this machine, with a peer beside it.

    sudo ./build.sh bench web [--quick] [--parts splash,memory,upload,latency,overhead,users,queue]

Everything is measured through the whole gateway in network namespaces, each process with the user and rights of its
service, the load's generator on the same machine. Each floor is printed with what it says of it; the exit code tells
whether all were reached (0) or not (1).

    splash      login pages per second from many addresses, next to openNDS; the first octet at a steady rate
    memory      of each web process at rest, and what an upload of a gigabyte adds
    upload      100 MB on loopback, over TLS
    latency     of live progress, from the worker's file to the browser's event
    overhead    of an analysis by the web over the same by the command
    users       ten administrators for five minutes, with locust
    queue       twenty users at a full queue for ten minutes

`--quick` measures the same with less of everything, the last two for half a minute each.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import splash, web_captures, web_users
from tests.bench.options import read_options
from tests.bench.rows import Row, table, tell
from tests.bench.stage import end_by_signal
from tests.bench.web_stage import WebStage

PARTS: Final = ("splash", "memory", "upload", "latency", "overhead", "users", "queue")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything is done."""

    splash_s: float
    large_mb: int
    rounds: int
    long_packets: int
    users_s: int
    queue_s: int


WHOLE: Final = Sizes(splash_s=10, large_mb=1000, rounds=9, long_packets=1_000_000, users_s=300, queue_s=600)
QUICK: Final = Sizes(splash_s=3, large_mb=300, rounds=2, long_packets=300_000, users_s=30, queue_s=30)


def measure(parts: set[str], sizes: Sizes) -> list[Row]:
    """The rows of the chosen parts, in the order of PARTS."""
    rows: list[Row] = []
    limit_mb = 2 * sizes.large_mb
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        folder = Path(name)
        with WebStage(upload_limit_mb=limit_mb, quota_mb=2 * limit_mb) as stage:
            every: dict[str, Callable[[], list[Row]]] = {
                "memory": lambda: web_captures.memory(stage, folder, sizes.large_mb),
                "splash": lambda: splash.measure(stage, sizes.splash_s),
                "upload": lambda: web_captures.upload(stage, folder, sizes.rounds),
                "latency": lambda: web_captures.latency(stage),
                "overhead": lambda: web_captures.overhead(stage, folder, sizes.rounds, sizes.long_packets),
                "users": lambda: web_users.with_locust(stage, folder, sizes.users_s),
                "queue": lambda: web_users.at_a_full_queue(stage, sizes.queue_s),
            }
            for part in every:  # memory at rest first, before anything else was asked
                if part in parts:
                    found = every[part]()
                    tell(found)
                    rows += found
    return rows


def main() -> int:
    """Measure and print."""
    parts, quick = read_options(__doc__, PARTS)
    end_by_signal()
    load = os.getloadavg()[0]
    rows = measure(parts, QUICK if quick else WHOLE)
    missed = [row for row in rows if not row.reached]
    print(f"postern bench web: {os.cpu_count()} cores, load generator included")
    if load > 0.5:
        print(f"(the machine was busy with other things at the start, load {load:.1f}: rates are too low)")
    print(table(rows))
    print(
        f"{len(missed)} missed: {'; '.join(row.what.strip() for row in missed)}" if missed else "every floor is reached"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
