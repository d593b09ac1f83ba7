"""Sessions, leases and options as rows of plain values. Pure functions; times left and used are seconds from `now`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from gateway.config import Config, Secret
from gateway.config_loader import REPEATED, SINGLE, Loaded, option_fields, option_name
from gateway.control.protocol import JsonValue
from gateway.dhcp.listing import AddressRow
from gateway.session.table import Session
from gateway.session.usage import rates_bps, remaining_bytes


def _address(session: Session) -> tuple[str, int, bytes]:
    return (session.key.zone, int(session.address or 0), session.key.mac)


def _octets(session: Session) -> int:
    return session.counters.upload_bytes + session.counters.download_bytes


_LIKE_AN_ADDRESS: Final = re.compile(r"[0-9.]+")
_MAC_MARKS: Final = {ord(mark): None for mark in ":-."}
_HEX: Final = frozenset("0123456789abcdef")

# What `sessions.list` can be ordered by; clients that have no such value come last in ascending order.
SORTS: Final[Mapping[str, Callable[[Session], Any]]] = {
    "ip": _address,
    "zone": _address,
    "mac": lambda session: session.key,
    "hostname": lambda session: (not session.hostname, session.hostname.casefold()),
    "username": lambda session: (session.grant is None, session.grant.username.casefold() if session.grant else ""),
    "state": lambda session: (session.state.value, *_address(session)),
    "since": lambda session: (session.grant is None, session.started_at),
    "left": lambda session: (session.ends_at is None, session.ends_at or 0.0),
    "bytes": _octets,
    "upload": lambda session: session.counters.upload_bytes,
    "download": lambda session: session.counters.download_bytes,
    "rate": lambda session: sum(rates_bps(session)),
}


def session_row(session: Session, now: float) -> dict[str, JsonValue]:
    """One client, as `sessions list` shows it."""
    started = session.grant is not None
    limits = session.limits
    used = session.counters
    rate_up_bps, rate_down_bps = rates_bps(session)
    return {
        "zone": session.key.zone,
        "mac": str(session.key.mac),
        "mac_is_random": session.key.mac.is_random,
        "ip": None if session.address is None else str(session.address),
        "ipv6": [str(address) for address in session.ipv6_addresses],
        "hostname": session.hostname,
        "state": session.state.value,
        "username": session.grant.username if session.grant else "",
        "method": session.method.value if session.method else "",
        "session_id": session.acct_session_id,
        "client_number": session.number,
        "since_s": max(0, int(now - session.started_at)) if started else None,
        "session_start_unix": session.started_unix if started else None,
        "seconds_left": None if session.ends_at is None else max(0, int(session.ends_at - now)),
        "idle_s": max(0, int(now - session.active_at)) if session.online else None,
        "upload_bytes": used.upload_bytes,
        "download_bytes": used.download_bytes,
        "rate_up_bps": rate_up_bps,
        "rate_down_bps": rate_down_bps,
        "bytes_left": remaining_bytes(session) if started else None,
        "idle_limit_s": limits.idle_time_s if started else None,
    }


def session_details(session: Session, now: float) -> dict[str, JsonValue]:
    """One client with everything that is known of it, as `sessions show` and the portal's status page use it."""
    row = session_row(session, now)
    grant = session.grant
    row["limits"] = {name: value for name, value in asdict(session.limits).items() if value is not None}
    row["reply_message"] = grant.reply_message if grant else ""
    row["redirection_url"] = grant.redirection_url if grant else ""
    row["filter_ids"] = list(grant.filter_ids) if grant else []
    row["class_count"] = len(grant.class_values) if grant else 0
    row["lease_expires_in_s"] = max(0, int(session.lease_expires_at - now))
    row["interim_interval_s"] = session.interim_interval_s
    row["upload_packets"] = session.counters.upload_packets
    row["download_packets"] = session.counters.download_packets
    return row


def lease_row(row: AddressRow, zone: str, now: float) -> dict[str, JsonValue]:
    """One address, as `leases list` shows it."""
    return {
        "zone": zone,
        "ip": str(row.address),
        "mac": None if row.mac is None else str(row.mac),
        "hostname": row.hostname,
        "client_id": row.client_id.hex(":"),
        "expires_in_s": None if row.until is None else max(0, int(row.until - now)),
        "state": row.state,
    }


def matches(session: Session, search: str) -> bool:
    """Whether a client's row holds a text that an operator typed; MACs in any spelling."""
    wanted = search.casefold()
    if wanted in session.hostname.casefold() or wanted in session.acct_session_id:
        return True
    if session.grant is not None and wanted in session.grant.username.casefold():
        return True
    # Writing ten thousand addresses takes longer than everything else here, so only where they could fit.
    if _LIKE_AN_ADDRESS.fullmatch(wanted) and wanted in str(session.address):
        return True
    digits = wanted.translate(_MAC_MARKS)
    return bool(digits) and _HEX.issuperset(digits) and digits in session.key.mac.hex()


def option_rows(loaded: Loaded, *, effective: bool, filename: str) -> Iterator[dict[str, JsonValue]]:
    """Every option, its value and its origin; only those of the file unless `effective`. Secrets are hidden."""
    config = loaded.config
    for kind, (attribute, section_class) in SINGLE.items():
        yield from _rows(loaded, kind, "", section_class, getattr(config, attribute), effective, filename)
    for kind, (attribute, section_class) in REPEATED.items():
        for section in _repeated(config, attribute):
            yield from _rows(loaded, kind, section.name, section_class, section, effective, filename)


def _repeated(config: Config, attribute: str) -> tuple[Any, ...]:
    holder = config.radius if attribute == "servers" else config
    sections: tuple[Any, ...] = getattr(holder, attribute)
    return sections


def _rows(
    loaded: Loaded, kind: str, name: str, section_class: type[Any], section: Any, effective: bool, filename: str
) -> Iterator[dict[str, JsonValue]]:
    for item in option_fields(section_class):
        option = option_name(item)
        line = loaded.origins.get((kind, name, option))
        if line is None and not effective:
            continue
        yield {
            "section": kind,
            "name": name,
            "option": option,
            "value": written(getattr(section, item.name)),
            "source": "default" if line is None else f"{filename}:{line}",
            "unit": item.metadata["unit"],
            "doc": item.metadata["doc"],
        }


def written(value: Any) -> str:
    """A value as it stands in the file; Any, because it is whatever type the option has."""
    if isinstance(value, Secret):
        return "…" if value else ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return " ".join(written(item) for item in value)
    if value is None:
        return ""
    return str(getattr(value, "value", value))
