"""What a voucher is: what its batch grants, what is left of it, and whether it lets somebody in. Pure.

A voucher's name (`voucher-3-17`: batch 3, number 17) is what sessions, accounting and lists show; its code is a secret
and is never logged. Time and octets are the voucher's, not the session's: what was used under it, on whichever device,
is gone. Two clocks can run: `validity_s` from the first use by the calendar, and `session_time_s` only while online.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import fields, replace
from enum import Enum
from typing import Final

from gateway.accounts.codes import ALPHABETS, LONGEST, SHORTEST
from gateway.accounts.users import MAX_NOTE_CHARACTERS, NO_LIMITS, AccountError
from gateway.session.model import NOTHING, AuthenticatedBy, Counters, Grant, Limits, UsedBefore
from gateway.values import value_class

MAX_COUNT: Final = 10_000  # vouchers of one batch
MAX_VOUCHERS: Final = 200_000
MAX_DEVICES: Final = 1000
LONGEST_SPAN_S: Final = 10 * 366 * 86400
_NAME: Final = re.compile(r"voucher-([1-9][0-9]{0,8})-([1-9][0-9]{0,8})")
_ID: Final = re.compile(r"([1-9][0-9]{0,8})-([1-9][0-9]{0,8})")


class VoucherState(Enum):
    """Where a voucher stands."""

    UNUSED = "unused"
    ACTIVE = "active"
    USED_UP = "used-up"
    EXPIRED = "expired"
    REVOKED = "revoked"


@value_class
class Batch:
    """Vouchers that were made together, and what each of them grants. Times are Unix seconds."""

    number: int
    salt: bytes
    alphabet: str
    length: int
    created_unix: float
    created_by: str = ""
    note: str = ""
    zone: str = ""  # empty: good in every zone
    devices: int | None = 1  # online at once
    validity_s: int | None = None  # from the first use
    expires_unix: float | None = None
    limits: Limits = NO_LIMITS


@value_class
class Voucher:
    """One voucher and what was used under it by sessions that have ended."""

    batch: Batch
    number: int
    first_used_unix: float | None = None
    revoked_unix: float | None = None
    used_s: int = 0
    upload_bytes: int = 0
    download_bytes: int = 0

    @property
    def id(self) -> str:
        """As operators name it."""
        return f"{self.batch.number}-{self.number}"

    @property
    def name(self) -> str:
        """The user name of its sessions."""
        return f"voucher-{self.id}"

    @property
    def ends_unix(self) -> float | None:
        """When it is over by the calendar; None when that is open."""
        ends = [self.batch.expires_unix] if self.batch.expires_unix is not None else []
        if self.batch.validity_s is not None and self.first_used_unix is not None:
            ends.append(self.first_used_unix + self.batch.validity_s)
        return min(ends, default=None)


def parse_id(text: str) -> tuple[int, int]:
    """Batch and number of `3-17`, also of `voucher-3-17`; raises AccountError."""
    match = _ID.fullmatch(text.strip()) or _NAME.fullmatch(text.strip())
    if match is None:
        raise AccountError(f"{text[:40]!r} is not a voucher's id such as 3-17 (batch 3, number 17)")
    return int(match[1]), int(match[2])


def named(username: str) -> tuple[int, int] | None:
    """Batch and number of the voucher whose sessions have this user name; None for the name of a user."""
    match = _NAME.fullmatch(username)
    return None if match is None else (int(match[1]), int(match[2]))


def check_batch(batch: Batch, count: int) -> None:
    """Raises AccountError for values that make no sense; the sentence says what would be accepted."""
    if not 1 <= count <= MAX_COUNT:
        raise AccountError(f"count is {count}; a batch has 1 to {MAX_COUNT} vouchers.")
    if batch.alphabet not in ALPHABETS:
        raise AccountError(f"alphabet is {batch.alphabet!r}; it is digits or letters.")
    shortest = SHORTEST[batch.alphabet]
    if not shortest <= batch.length <= LONGEST:
        raise AccountError(f"length is {batch.length}; codes of {batch.alphabet} have {shortest} to {LONGEST}.")
    if batch.devices is not None and not 1 <= batch.devices <= MAX_DEVICES:
        raise AccountError(f"devices is {batch.devices}; it is 1 to {MAX_DEVICES}, or left out for no limit.")
    if batch.validity_s is not None and not 60 <= batch.validity_s <= LONGEST_SPAN_S:
        raise AccountError(f"validity_s is {batch.validity_s}; it is at least a minute (60) and at most ten years.")
    if batch.expires_unix is not None and not (
        math.isfinite(batch.expires_unix) and batch.created_unix < batch.expires_unix < 1e11
    ):
        raise AccountError("expires_unix is not a time to come; give a date after today, or leave it out.")
    for item in fields(Limits):
        value = getattr(batch.limits, item.name)
        if value is not None and not isinstance(value, str) and not 1 <= value < 1 << 63:
            raise AccountError(f"{item.name} is {value}; it must be a number from 1, or be left out for no limit.")
    if len(batch.note) > MAX_NOTE_CHARACTERS:
        raise AccountError(f"The note has {len(batch.note)} characters; at most {MAX_NOTE_CHARACTERS} are accepted.")
    if any(unicodedata.category(character) == "Cs" for character in batch.note):
        raise AccountError("The note holds half of a character (a lone surrogate).")


def state_of(voucher: Voucher, unix: float | None) -> VoucherState:
    """Where a voucher stands; `unix` is None while the clock was never set, and then nothing expires."""
    if voucher.revoked_unix is not None:
        return VoucherState.REVOKED
    ends = voucher.ends_unix
    if ends is not None and unix is not None and unix >= ends:
        return VoucherState.EXPIRED
    if _used_up(voucher):
        return VoucherState.USED_UP
    return VoucherState.UNUSED if voucher.first_used_unix is None else VoucherState.ACTIVE


def _used_up(voucher: Voucher) -> bool:
    limits = voucher.batch.limits
    pairs = (
        (limits.session_time_s, voucher.used_s),
        (limits.upload_bytes, voucher.upload_bytes),
        (limits.download_bytes, voucher.download_bytes),
        (limits.total_bytes, voucher.upload_bytes + voucher.download_bytes),
    )
    return any(limit is not None and used >= limit for limit, used in pairs)


def why_refused(voucher: Voucher, zone: str, unix: float | None) -> str:
    """The reason, as the portal knows it, why a voucher does not let in; empty when it does."""
    if voucher.batch.zone not in ("", zone):
        return "elsewhere"
    state = state_of(voucher, unix)
    return "" if state in (VoucherState.UNUSED, VoucherState.ACTIVE) else state.value.replace("-", "_")


def grant_of(voucher: Voucher, unix: float | None) -> Grant:
    """What a session under the voucher may use. Time and octets that it does not limit are not limited by the zone.

    While the clock was never set, the calendar cannot end it: then the session itself lasts no longer than the
    validity.
    """
    limits = voucher.batch.limits
    session_time_s = limits.session_time_s or 0
    if unix is None and voucher.batch.validity_s is not None:
        session_time_s = min(session_time_s or voucher.batch.validity_s, voucher.batch.validity_s)
    return Grant(
        voucher.name,
        AuthenticatedBy.LOCAL,
        replace(
            limits,
            session_time_s=session_time_s,
            total_bytes=limits.total_bytes or 0,
            terminate_unix=voucher.ends_unix,
        ),
        devices=voucher.batch.devices,
        account=voucher.name,
        used=UsedBefore(voucher.used_s, replace(NOTHING, **_octets(voucher))),
    )


def _octets(voucher: Voucher) -> dict[str, int]:
    return {"upload_bytes": voucher.upload_bytes, "download_bytes": voucher.download_bytes}


def counters_of(voucher: Voucher) -> Counters:
    """What was used under the voucher by sessions that have ended."""
    return replace(NOTHING, **_octets(voucher))
