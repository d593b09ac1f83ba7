"""The box itself: clock, disk, memory, connection tracking, neighbours, and the processes beside the daemon. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.config import Config
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

EARLIEST_UNIX: Final = 1_735_689_600.0  # 2025-01-01: a clock before this was never set
LATEST_UNIX: Final = 4_102_444_800.0  # 2100-01-01
BEAT_LATE_S: Final = 30.0
_MB: Final = 1_000_000


@value_class
class Clock:
    """The wall clock; times in Unix time."""

    now_unix: float
    newest_file_unix: float | None  # of the state directory: time does not go back behind it
    kept: bool | None  # whether something keeps it right (NTP), as the kernel says; None where nobody says


@value_class
class Disk:
    """The file system of the state directory."""

    path: str
    total_bytes: int
    free_bytes: int
    trouble: str = ""  # why nothing can be written there


@value_class
class Tables:
    """Bounds of the kernel and what is used of them; None where this system does not say."""

    connections: int | None
    connections_most: int | None
    neighbours_most: int | None  # gc_thresh3


@value_class
class Worker:
    """The analysis worker."""

    has_spool: bool
    beat_age_s: float | None = None  # None: it never ran
    trouble: str = ""


def judge_clock(clock: Clock) -> Row:
    """Certificates, vouchers and accounting go by the wall clock."""
    check = "clock"
    remedy = "Let NTP set it: connect the uplink and enable systemd-timesyncd, chrony or (OpenWrt) sysntpd."
    if not EARLIEST_UNIX <= clock.now_unix < LATEST_UNIX:
        return fail(check, "The clock was never set: certificates, vouchers and accounting have wrong times.", remedy)
    if clock.newest_file_unix is not None and clock.newest_file_unix > clock.now_unix + 300:
        behind_h = (clock.newest_file_unix - clock.now_unix) / 3600
        text = f"The clock is {behind_h:.1f} hours behind what was written here before: it went back, or was ahead."
        return fail(check, text, remedy)
    if clock.kept is False:
        return warn(check, "The clock is set, but the kernel says that nothing keeps it right.", remedy)
    return ok(check, "The clock is set.")


def judge_disk(disk: Disk) -> Row:
    """What must survive a restart is written there."""
    check = "disk"
    free = f"{disk.free_bytes / _MB:,.0f} of {disk.total_bytes / _MB:,.0f} MB of {disk.path} are free"
    if disk.trouble:
        return fail(
            check,
            f"Nothing can be written to {disk.path}: {disk.trouble}. Nothing would survive a restart.",
            "Free space, mount it writable, or let the directory belong to posternd's user; option state_dir moves it.",
        )
    remedy = "Delete old captures and logs, or let option state_dir name a larger disk."
    if disk.free_bytes < 4 * _MB:
        return fail(check, f"The disk is full: {free}.", remedy)
    if disk.free_bytes < 20 * _MB or disk.free_bytes < 0.05 * disk.total_bytes:
        return warn(check, f"The disk is nearly full: {free}.", remedy)
    return ok(check, f"{free}, and can be written.")


def judge_memory(total_bytes: int, available_bytes: int) -> Row:
    """What programs can still take."""
    check = "memory"
    if not total_bytes:
        return skipped(check, "This system does not say how much memory it has.")
    text = f"{available_bytes / _MB:,.0f} of {total_bytes / _MB:,.0f} MB are available"
    remedy = "Stop what is not needed, lower max_sessions, or switch the analysis worker off on a small box."
    if available_bytes < 8 * _MB:
        return fail(check, f"Memory is used up: {text}.", remedy)
    if available_bytes < 24 * _MB or available_bytes < 0.05 * total_bytes:
        return warn(check, f"Memory is short: {text}.", remedy)
    return ok(check, f"{text}.")


def judge_connections(tables: Tables) -> Row:
    """Connection tracking: when it is full, new connections of everybody are dropped."""
    check = "connection tracking"
    count, most = tables.connections, tables.connections_most
    if count is None or not most:
        return skipped(check, "This system does not say how many connections it follows.")
    text = f"{count} of {most} connections are followed"
    remedy = f"Raise it: sysctl -w net.netfilter.nf_conntrack_max={most * 4}, and write that into /etc/sysctl.d."
    if count >= 0.95 * most:
        return fail(check, f"The table is full: {text}; new connections are dropped.", remedy)
    if count >= 0.8 * most:
        return warn(check, f"The table is nearly full: {text}.", remedy)
    return ok(check, f"{text}.")


def judge_neighbours(config: Config, tables: Tables, pool_sizes: Sequence[int]) -> Row:
    """The neighbour table must hold every guest."""
    check = "neighbour table"
    most = tables.neighbours_most
    if most is None:
        return skipped(check, "The bound of the neighbour table is not visible here (in a network namespace).")
    wanted = min(config.performance.max_sessions, sum(pool_sizes)) if pool_sizes else config.performance.max_sessions
    if most < wanted:
        return warn(
            check,
            f"The kernel remembers {most} neighbours at most, and {wanted} guests may come: beyond that it forgets "
            "guests who are online.",
            f"Raise it: sysctl -w net.ipv4.neigh.default.gc_thresh3={2 * wanted}, the same for ipv6, and write both "
            "into /etc/sysctl.d.",
        )
    return ok(check, f"The kernel remembers {most} neighbours, enough for {wanted} guests.")


def judge_worker(worker: Worker) -> Row:
    """Captures are analysed by a process of their own."""
    check = "analysis worker"
    remedy = "Start it: systemctl start postern-worker (OpenWrt: service postern restart), and read its log."
    if not worker.has_spool:
        return skipped(check, "There is no spool for captures here; nothing is analysed on this box.")
    if worker.trouble:
        return skipped(check, f"Its sign of life could not be read: {worker.trouble}.")
    if worker.beat_age_s is None:
        return warn(check, "It has never run; captures wait.", remedy)
    if worker.beat_age_s > BEAT_LATE_S:
        return warn(check, f"It was last heard of {worker.beat_age_s:.0f} s ago; captures wait.", remedy)
    return ok(check, "It is alive.")


def judge_system(needed: bool, trouble: str) -> Row:
    """postern-system does what needs root for a daemon without root."""
    check = "postern-system"
    if not trouble:
        return ok(check, "It answers.")
    if not needed:
        return skipped(check, "It does not run, and posternd can do by itself what it is for.")
    return warn(
        check,
        f"It does not answer ({trouble}): configuration and time zone cannot be changed from the pages.",
        "Start it: systemctl start postern-system.",
    )
