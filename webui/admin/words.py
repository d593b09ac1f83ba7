"""Numbers and times as people read them, for templates. Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_BYTE_STEPS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_BIT_STEPS = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"))

_SPELLED = {
    word.lower(): word
    for word in (
        *("API", "ARP", "CoA", "DHCP", "DNS", "FQDN", "HTTP", "HTTPS", "ICMP", "ID", "IP", "IPv4", "IPv6", "MAC"),
        *("MTU", "NAS", "NAT", "NTP", "RADIUS", "SSID", "TCP", "TLS", "TTL", "UAM", "UDP", "URL", "VLAN", "WISPr"),
    )
}


def option_label(name: str) -> str:
    """The name of an option of the configuration in words: `Lease time`, `RADIUS secret`."""
    words = " ".join(_SPELLED.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


def _scaled(value: float, steps: tuple[tuple[float, str], ...], base: str) -> str:
    for step, unit in steps:
        if value >= step * 0.9995:
            number = value / step
            return f"{number:.0f} {unit}" if number >= 99.5 else f"{number:.1f} {unit}"
    return f"{value:.0f} {base}"


def size(count: float | None) -> str:
    """Octets: `1.5 MB`; a dash for what is not known."""
    return "–" if count is None else _scaled(count, _BYTE_STEPS, "B")


def rate(bps: float | None) -> str:
    """Bits per second: `2.0 Mbit/s`; a dash for what is not known."""
    return "–" if bps is None else _scaled(bps, _BIT_STEPS, "bit/s")


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: `2 d 4 h`, `1 h 05 min`, `42 s`; a dash for what is not known."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60:02} s" if whole < 600 and whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60:02} min" if whole % 3600 >= 60 else "")
    return f"{whole // 86400} d" + (f" {whole % 86400 // 3600} h" if whole % 86400 >= 3600 else "")


def zone_of(name: str) -> tzinfo:
    """A time zone by its name; UTC for one that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def moment(unix: float | None, zone: tzinfo, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time of day and year in a zone; a dash for what is not known."""
    if unix is None:
        return "–"
    try:
        return datetime.fromtimestamp(unix, zone).strftime(form)
    except (ValueError, OverflowError, OSError):
        return "–"


def iso(unix: float | None) -> str:
    """A time for programs (RFC 3339, UTC); empty for what is not known."""
    return moment(unix, UTC, "%Y-%m-%dT%H:%M:%SZ") if unix is not None else ""


def plural(count: int, one: str, many: str = "") -> str:
    """`1 client`, `2 clients`, `10 000 clients`."""
    return f"{count:,}".replace(",", "\u202f") + f" {one if count == 1 else many or one + 's'}"
