"""What a session may still use, and when a limit could be reached. Pure functions of a session."""

from __future__ import annotations

from typing import Final

from gateway.session.model import Counters
from gateway.session.table import Session

# The kernel closes the gate by itself this much after we should have done it.
KERNEL_MARGIN_S: Final = 60
# A quota is looked at when it could be used up at the fastest rate, but not more often than this.
QUOTA_LOOK_S: Final = 1.0


def ends_at(session: Session, unix_offset_s: float | None) -> float | None:
    """The end by session time or by the wall clock, whichever is earlier; a clock that was never set ends nothing."""
    limits, ends = session.limits, []
    if limits.session_time_s is not None:
        ends.append(session.started_at + limits.session_time_s - session.beside_s)
    if limits.terminate_unix is not None and unix_offset_s is not None:
        ends.append(limits.terminate_unix - unix_offset_s)
    return min(ends, default=None)


def kernel_lifetime_s(end: float | None, now: float) -> int | None:
    """Seconds until the kernel closes the gate by itself; None when the session has no end."""
    return None if end is None else max(1, int(end - now) + KERNEL_MARGIN_S)


def idle_ends_at(session: Session) -> float | None:
    """When the idle time is over if the client sends nothing more."""
    idle = session.limits.idle_time_s
    return None if idle is None else session.active_at + idle


def remaining_bytes(session: Session) -> int | None:
    """Octets until the first quota is used up; None without a quota."""
    limits, used, beside = session.limits, session.counters, session.beside
    remaining = []
    if limits.upload_bytes is not None:
        remaining.append(limits.upload_bytes - used.upload_bytes - beside.upload_bytes)
    if limits.download_bytes is not None:
        remaining.append(limits.download_bytes - used.download_bytes - beside.download_bytes)
    if limits.total_bytes is not None:
        both = used.upload_bytes + used.download_bytes + beside.upload_bytes + beside.download_bytes
        remaining.append(limits.total_bytes - both)
    return max(0, min(remaining)) if remaining else None


def quota_look_at(session: Session, link_rate_bps: int) -> float | None:
    """When the smallest remaining quota could be used up, at the fastest that the zone's link can be."""
    remaining = remaining_bytes(session)
    return None if remaining is None else session.read_at + max(QUOTA_LOOK_S, remaining * 8 / link_rate_bps)


def quota_used_up(session: Session) -> str:
    """Which quota is used up, in a word; empty when none is."""
    limits, used, beside = session.limits, session.counters, session.beside
    upload_bytes = used.upload_bytes + beside.upload_bytes
    download_bytes = used.download_bytes + beside.download_bytes
    if limits.upload_bytes is not None and upload_bytes >= limits.upload_bytes:
        return "upload"
    if limits.download_bytes is not None and download_bytes >= limits.download_bytes:
        return "download"
    if limits.total_bytes is not None and upload_bytes + download_bytes >= limits.total_bytes:
        return "total"
    return ""


def rates_bps(session: Session) -> tuple[int, int]:
    """Upload and download in bit/s between the last two readings of the counters; 0 before there were two."""
    span_s = session.read_at - session.earlier_at
    if not session.online or span_s <= 0 or session.earlier_at < session.started_at:
        return 0, 0
    new, old = session.counters, session.earlier
    upload, download = new.upload_bytes - old.upload_bytes, new.download_bytes - old.download_bytes
    return round(upload * 8 / span_s), round(download * 8 / span_s)


def not_less(known: Counters, read: Counters) -> Counters:
    """Counters never run backwards, whatever happened to the kernel's."""
    if read.upload_bytes >= known.upload_bytes and read.download_bytes >= known.download_bytes:
        return read
    return Counters(
        max(known.upload_bytes, read.upload_bytes),
        max(known.upload_packets, read.upload_packets),
        max(known.download_bytes, read.download_bytes),
        max(known.download_packets, read.download_packets),
    )
