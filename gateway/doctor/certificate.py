"""When a certificate is valid, and what that means for the administration's pages. Pure.

Reads just enough of DER (X.690) to reach the validity of an X.509 certificate (RFC 5280 §4.1): the standard library
tells it only of certificates that it trusts, and ours is made on the device.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from gateway.config import Admin
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

SOON_S: Final = 14 * 86400.0
_SEQUENCE, _VERSION, _UTC_TIME, _GENERAL_TIME = 0x30, 0xA0, 0x17, 0x18
_STAMP: Final = re.compile(r"(\d{2,4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


@value_class
class Validity:
    """From when until when, in Unix time."""

    begins_unix: float
    ends_unix: float


def read_validity(der: bytes) -> Validity:
    """The validity of a certificate in DER; raises ValueError when it is none."""
    start, end = _enter(der, 0, len(der), _SEQUENCE)  # Certificate
    start, end = _enter(der, start, end, _SEQUENCE)  # TBSCertificate
    if der[start : start + 1] == bytes((_VERSION,)):
        start = _skip(der, start, end)
    for _ in range(3):  # serialNumber, signature, issuer
        start = _skip(der, start, end)
    start, end = _enter(der, start, end, _SEQUENCE)
    middle = _skip(der, start, end)
    return Validity(_time(der, start, end), _time(der, middle, end))


def _element(der: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, start and end of the element at `at`."""
    if at + 2 > end:
        raise ValueError("the certificate is cut off")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > end:
            raise ValueError("the certificate has an impossible length")
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > end:
        raise ValueError("the certificate is cut off")
    return tag, start, start + length


def _enter(der: bytes, at: int, end: int, wanted: int) -> tuple[int, int]:
    tag, start, stop = _element(der, at, end)
    if tag != wanted:
        raise ValueError("this is no X.509 certificate")
    return start, stop


def _skip(der: bytes, at: int, end: int) -> int:
    return _element(der, at, end)[2]


def _time(der: bytes, at: int, end: int) -> float:
    tag, start, stop = _element(der, at, end)
    found = _STAMP.fullmatch(der[start:stop].decode("ascii", "replace"))
    if tag not in (_UTC_TIME, _GENERAL_TIME) or found is None:
        raise ValueError("the certificate has no readable validity")
    year, *rest = (int(part) for part in found.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280 §4.1.2.5.1
    month, day, hour, minute, second = rest
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


@value_class
class Served:
    """What the administration's listener showed; `validity` None when none could be reached."""

    where: str
    validity: Validity | None = None
    trouble: str = ""


def judge_administration(admin: Admin, served: Served, now_unix: float) -> Row:
    """Whether the administration's pages are served, with a certificate that browsers can take."""
    check = "administration"
    if not admin.enabled:
        return skipped(check, "Its pages are switched off (option enabled '0' of section admin).")
    if served.validity is None:
        return warn(
            check,
            f"The administration's pages do not answer at {served.where}: {served.trouble}.",
            "Start them: systemctl start postern-admin-web (OpenWrt: opkg install postern-admin; service postern "
            "restart), and read their log; or set option enabled '0' in section admin.",
        )
    if admin.certificate:
        renew = f"Put a new one into {admin.certificate} and {admin.certificate_key}, then restart postern-admin-web."
    else:
        renew = "Restart postern-admin-web, which makes a new one; see that the clock is right."
    left_s = served.validity.ends_unix - now_unix
    if left_s <= 0:
        return fail(check, f"Its certificate expired {_days(-left_s)} ago; browsers refuse it.", renew)
    if now_unix < served.validity.begins_unix:
        return fail(check, "Its certificate is from the future: the clock was or is wrong.", renew)
    if left_s < SOON_S:
        return warn(check, f"Its certificate expires in {_days(left_s)}.", renew)
    return ok(check, f"Its pages answer at {served.where}; the certificate is good for {_days(left_s)} more.")


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.1f} hours"
