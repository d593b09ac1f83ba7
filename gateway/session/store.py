"""What of a session goes into the journal, and back: plain maps that msgpack can carry.

Records are read by field name with a default for every field that a later version may add, so that an older file is
read by a newer gateway and the other way round. Times are saved as elapsed seconds, because the monotonic clock starts
anew with each boot; within one boot (`boot_id` says so) the exact start is kept, and time went on while we were away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from gateway.addresses import MacAddress
from gateway.session.model import (
    AccountingRecord,
    AccountingStatus,
    AuthenticatedBy,
    ClientKey,
    Counters,
    Grant,
    Limits,
    LoginMethod,
    TerminateCause,
    Usage,
    UsedBefore,
)
from gateway.session.table import Session
from gateway.values import value_class

# Any in this module: a record is whatever msgpack read from a file that may be damaged or of another version; each
# field is given its type here, once.
Record = dict[str, Any]

_LIMITS: Final = tuple(item.name for item in fields(Limits))


class RecordError(ValueError):
    """A saved record cannot be understood; the message says which field."""


@value_class
class SavedSession:
    """A session as it was saved."""

    key: ClientKey
    address: IPv4Address
    number: int
    acct_session_id: str
    method: LoginMethod
    grant: Grant
    limits: Limits
    interim_interval_s: int
    started_at: float  # on the clock of the boot `boot_id`
    elapsed_s: float  # at the time of saving
    started_unix: float | None
    saved_unix: float | None
    boot_id: str
    base: Counters
    counters: Counters
    ipv6_addresses: tuple[IPv6Address, ...]
    ending: TerminateCause | None  # its end was decided and not finished


def save_session(session: Session, now: float, unix: float | None, boot_id: str) -> Record:
    """The record of an online or closing session."""
    assert session.grant is not None
    assert session.method is not None
    address = session.ending.address if session.ending is not None else session.address
    assert address is not None
    grant = session.grant
    return {
        "zone": session.key.zone,
        "mac": bytes(session.key.mac),
        "address": address.packed,
        "number": session.number,
        "id": session.acct_session_id,
        "method": session.method.value,
        "user": grant.username,
        "by": int(grant.authenticated_by),
        "class": list(grant.class_values),
        "cui": grant.chargeable_user_identity,
        "reply": grant.reply_message,
        "url": grant.redirection_url,
        "filters": list(grant.filter_ids),
        "reauth": grant.reauthenticate_at_end,
        "devices": grant.devices,
        "account": grant.account,
        "before": [session.used.seconds, *_pack_counters(session.used.counters)],
        "limits": {name: value for name in _LIMITS if (value := getattr(session.limits, name)) is not None},
        "interim": session.interim_interval_s,
        "started": session.started_at,
        "elapsed": now - session.started_at,
        "started_unix": session.started_unix,
        "saved_unix": unix,
        "boot": boot_id,
        "base": _pack_counters(session.base),
        "used": _pack_counters(session.counters),
        "ipv6": [item.packed for item in session.ipv6_addresses],
        "ending": int(session.ending.cause) if session.ending is not None else None,
    }


def load_session(record: Mapping[str, Any]) -> SavedSession:
    """Read a record of `save_session`; raises RecordError."""
    try:
        limits = Limits(**{name: value for name, value in record["limits"].items() if name in _LIMITS})
        grant = Grant(
            username=record["user"],
            authenticated_by=AuthenticatedBy(record["by"]),
            limits=limits,
            interim_interval_s=record["interim"],
            class_values=tuple(record.get("class", ())),
            chargeable_user_identity=record.get("cui"),
            reply_message=record.get("reply", ""),
            redirection_url=record.get("url", ""),
            filter_ids=tuple(record.get("filters", ())),
            reauthenticate_at_end=record.get("reauth", False),
            devices=record.get("devices"),
            account=record.get("account", ""),
            used=_unpack_used(record.get("before", [0, 0, 0, 0, 0])),
        )
        ending = record.get("ending")
        return SavedSession(
            key=ClientKey(record["zone"], MacAddress(record["mac"])),
            address=IPv4Address(record["address"]),
            number=record["number"],
            acct_session_id=record["id"],
            method=LoginMethod(record["method"]),
            grant=grant,
            limits=limits,
            interim_interval_s=record["interim"],
            started_at=record["started"],
            elapsed_s=record["elapsed"],
            started_unix=record.get("started_unix"),
            saved_unix=record.get("saved_unix"),
            boot_id=record.get("boot", ""),
            base=_unpack_counters(record["base"]),
            counters=_unpack_counters(record["used"]),
            ipv6_addresses=tuple(IPv6Address(item) for item in record.get("ipv6", ())),
            ending=None if ending is None else TerminateCause(ending),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"saved session is not readable: {error!r}") from error


def in_this_boot(saved: SavedSession, boot_id: str, now: float) -> SavedSession:
    """The same session on this boot's clock: exact when it was saved in this boot, else from the time it had used."""
    if saved.boot_id == boot_id and saved.started_at <= now:
        return saved
    values = {item.name: getattr(saved, item.name) for item in fields(SavedSession)}
    return SavedSession(**(values | {"started_at": now - saved.elapsed_s, "boot_id": boot_id}))


def restore_into(session: Session, saved: SavedSession, now: float) -> None:
    """Fill a held session with what was saved; its state is the machine's to set."""
    session.number = saved.number
    session.acct_session_id = saved.acct_session_id
    session.method = saved.method
    session.grant = saved.grant
    session.limits = saved.limits
    session.interim_interval_s = saved.interim_interval_s
    session.started_at = min(saved.started_at, now)
    session.started_unix = saved.started_unix
    session.base = saved.base
    session.counters = saved.counters
    session.ipv6_addresses = saved.ipv6_addresses


def save_usage(usage: Usage) -> Record:
    """The journal's form of what an ended session used."""
    return {
        "zone": usage.key.zone,
        "mac": bytes(usage.key.mac),
        "account": usage.account,
        "time": usage.seconds,
        "used": _pack_counters(usage.counters),
        "back": usage.comes_back,
    }


def load_usage(acct_session_id: str, record: Mapping[str, Any]) -> Usage:
    """Read a record of `save_usage`; raises RecordError."""
    try:
        key = ClientKey(record["zone"], MacAddress(record["mac"]))
        counters = _unpack_counters(record["used"])
        return Usage(acct_session_id, key, record["account"], int(record["time"]), counters, bool(record["back"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"saved usage is not readable: {error!r}") from error


def save_accounting(record: AccountingRecord) -> Record:
    """The journal's form of an accounting record."""
    return {
        "status": int(record.status),
        "id": record.acct_session_id,
        "event_unix": record.event_unix,
        "zone": record.zone,
        "mac": None if record.mac is None else bytes(record.mac),
        "address": None if record.address is None else record.address.packed,
        "ipv6": [item.packed for item in record.ipv6_addresses],
        "number": record.client_number,
        "user": record.username,
        "by": int(record.authenticated_by),
        "class": list(record.class_values),
        "cui": record.chargeable_user_identity,
        "time": record.session_time_s,
        "used": _pack_counters(record.counters),
        "cause": None if record.terminate_cause is None else int(record.terminate_cause),
    }


def load_accounting(record_id: int, record: Mapping[str, Any]) -> AccountingRecord:
    """Read a record of `save_accounting`; raises RecordError."""
    try:
        mac, address, cause = record["mac"], record["address"], record["cause"]
        return AccountingRecord(
            record_id=record_id,
            status=AccountingStatus(record["status"]),
            acct_session_id=record["id"],
            event_unix=record["event_unix"],
            zone=record["zone"],
            mac=None if mac is None else MacAddress(mac),
            address=None if address is None else IPv4Address(address),
            ipv6_addresses=tuple(IPv6Address(item) for item in record["ipv6"]),
            client_number=record["number"],
            username=record["user"],
            authenticated_by=AuthenticatedBy(record["by"]),
            class_values=tuple(record["class"]),
            chargeable_user_identity=record["cui"],
            session_time_s=record["time"],
            counters=_unpack_counters(record["used"]),
            terminate_cause=None if cause is None else TerminateCause(cause),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"saved accounting record is not readable: {error!r}") from error


def _pack_counters(counters: Counters) -> list[int]:
    return [counters.upload_bytes, counters.upload_packets, counters.download_bytes, counters.download_packets]


def _unpack_used(values: list[int]) -> UsedBefore:
    return UsedBefore(int(values[0]), _unpack_counters(values[1:]))


def _unpack_counters(values: list[int]) -> Counters:
    upload_bytes, upload_packets, download_bytes, download_packets = values
    return Counters(int(upload_bytes), int(upload_packets), int(download_bytes), int(download_packets))
