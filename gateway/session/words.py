"""What the timeline says about a session, in words for people. Pure functions."""

from __future__ import annotations

from gateway.session.table import Session
from gateway.session.usage import remaining_bytes


def duration(seconds: float) -> str:
    """Seconds in words, short."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def data(octets: int) -> str:
    """Octets in words, short."""
    if octets < 1000:
        return f"{octets} B"
    for step, unit in ((10**9, "GB"), (10**6, "MB")):
        if octets >= step:
            return f"{octets / step:.1f} {unit}"
    return f"{octets / 1000:.1f} kB"


def enough_devices(devices: int) -> str:
    """Why one more device of a user is refused."""
    if devices == 1:
        return "another device of this user is online; log it out first"
    return f"{devices} devices of this user are online already; log one out first"


def after_colon(message: str) -> str:
    """A message that may be absent, behind what it explains; its lines become one."""
    return f": {' '.join(message.split())}" if message else ""


def limits_in_words(session: Session, now: float) -> str:
    """What a session that was let through may use."""
    parts = []
    if session.ends_at is not None:
        parts.append(f"{duration(session.ends_at - now)} left")
    remaining = remaining_bytes(session)
    if remaining is not None:
        parts.append(f"{data(remaining)} left")
    if session.limits.idle_time_s is not None:
        parts.append(f"idle at most {duration(session.limits.idle_time_s)}")
    return ", ".join(parts) or "without limits"


def usage_in_words(session: Session, now: float) -> str:
    """What a session has used."""
    used = session.counters
    return f"{duration(now - session.started_at)}, {data(used.upload_bytes)} up, {data(used.download_bytes)} down"
