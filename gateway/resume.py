"""What becomes of saved sessions at start: which go on, which have ended while nobody looked. Pure.

Order of a start: leases are restored and reported to the session core; then the saved sessions are sorted here; then
the kernel is brought to what is wanted; then the core takes the sessions back with what the kernel counted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.dhcp.leases import LeaseRecord
from gateway.journal import Key
from gateway.session.machine import SessionMachine
from gateway.session.model import AccountingRecord, TerminateCause, Usage
from gateway.session.store import RecordError, SavedSession, in_this_boot, load_accounting, load_session, load_usage
from gateway.values import value_class


@value_class
class Lost:
    """A saved session that cannot go on."""

    saved: SavedSession
    cause: TerminateCause
    reason: str


@dataclass(slots=True)
class Plan:
    """What to do with what was saved."""

    resumed: list[SavedSession] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # records that could not be read


def sort_out(
    records: Mapping[Key, Any],
    machine: SessionMachine,
    *,
    now: float,
    unix: float | None,
    boot_id: str,
    max_age_s: int,
) -> Plan:
    """Decide for each saved session; client numbers of those that go on are claimed. Any: what msgpack read."""
    plan = Plan()
    for key, record in records.items():
        try:
            saved = in_this_boot(load_session(record), boot_id, now)
        except RecordError as error:
            plan.notes.append(f"session {key!r} is left out: {error}")
            continue
        lost = _why_lost(saved, machine, record.get("boot") == boot_id, unix, max_age_s)
        if lost is not None:
            plan.lost.append(lost)
            continue
        number = machine.claim(saved.number)
        if number is None:
            plan.lost.append(Lost(saved, TerminateCause.NAS_ERROR, "there was no client number left after a restart"))
            continue
        plan.resumed.append(saved if number == saved.number else replace(saved, number=number))
    return plan


def _why_lost(
    saved: SavedSession, machine: SessionMachine, same_boot: bool, unix: float | None, max_age_s: int
) -> Lost | None:
    """Why a session cannot go on; None when it can."""
    if saved.ending is not None:
        return Lost(saved, saved.ending, "its end was decided before a restart")
    if not same_boot and unix is not None and saved.saved_unix is not None and unix - saved.saved_unix > max_age_s:
        return Lost(saved, TerminateCause.NAS_REBOOT, "the gateway was off for too long")
    session = machine.sessions.get(saved.key)
    if session is None or session.address != saved.address:
        return Lost(saved, TerminateCause.LOST_CARRIER, "its address was given back or ran out during a restart")
    return None


def stamped(record: Mapping[str, Any], now: float, unix: float | None, boot_id: str) -> dict[str, Any]:
    """A lease's record with the time at which its remaining seconds hold."""
    return {"lease": dict(record), "at": now, "unix": unix, "boot": boot_id}


def lease_records(
    records: Mapping[Key, Any], *, now: float, unix: float | None, boot_id: str
) -> tuple[list[LeaseRecord], list[str]]:
    """The saved leases with what remains of them now, and sentences on those not readable.

    Within one boot time went on; over a reboot it did by the wall clock, when that was set both times and is plausible.
    """
    found, notes = [], []
    for key, record in records.items():
        try:
            lease = LeaseRecord.from_record(record["lease"])
            away_s = 0.0
            if record["boot"] == boot_id:
                away_s = now - record["at"]
            elif unix is not None and record["unix"] is not None:
                away_s = unix - record["unix"]
            found.append(replace(lease, remaining_s=lease.remaining_s - max(0.0, away_s)))
        except (KeyError, TypeError, ValueError) as error:
            notes.append(f"lease {key!r} is left out: {error}")
    return found, notes


def accounting_records(records: Mapping[Key, Any]) -> tuple[list[AccountingRecord], list[str]]:
    """The accounting records that nobody has answered for, oldest first, and sentences on those not readable."""
    found, notes = [], []
    for key, record in records.items():
        try:
            if not isinstance(key, int):
                raise RecordError("its key is not a number")
            found.append(load_accounting(key, record))
        except RecordError as error:
            notes.append(f"accounting record {key!r} is left out: {error}")
    return sorted(found, key=lambda record: record.record_id), notes


def usage_records(records: Mapping[Key, Any]) -> tuple[list[Usage], list[str]]:
    """What ended sessions used and nobody has written down, and sentences on those not readable."""
    found, notes = [], []
    for key, record in records.items():
        try:
            found.append(load_usage(str(key), record))
        except RecordError as error:
            notes.append(f"usage of session {key!r} is left out: {error}")
    return found, notes
