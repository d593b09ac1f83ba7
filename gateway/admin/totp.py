"""The second factor: six digits from a shared secret and the time (RFC 6238 over RFC 4226). Pure.

Steps of 30 s, SHA-1 and six digits, because that is what every authenticator app understands. One step to either side
is accepted for clocks that differ; a step that was used is never accepted again, nor one before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import quote, urlencode

STEP_S: Final = 30
DIGITS: Final = 6
WINDOW: Final = 1  # steps to either side
SECRET_BYTES: Final = 20  # RFC 4226 §4: as long as the hash


def code_at(secret: bytes, step: int) -> str:
    """The code of one step (RFC 4226 §5.3)."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    offset = mac[-1] & 15
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def matching_step(secret: bytes, typed: str, unix: float, last_used: int) -> int | None:
    """The step that `typed` is the code of, later than `last_used`; None when there is none."""
    digits = "".join(typed[:32].split())
    if len(digits) != DIGITS or not digits.isascii() or not digits.isdecimal():
        return None
    now = int(unix) // STEP_S
    found = None
    for step in range(now - WINDOW, now + WINDOW + 1):
        # All are compared, so that the time taken says nothing.
        if hmac.compare_digest(code_at(secret, max(0, step)), digits) and step > last_used and found is None:
            found = step
    return found


def written(secret: bytes) -> str:
    """The secret as a person types it into an app: base32 in groups of four."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def uri(secret: bytes, name: str, issuer: str) -> str:
    """The otpauth URI that goes into a QR code."""
    query = urlencode(
        {"secret": written(secret).replace(" ", ""), "issuer": issuer, "digits": DIGITS, "period": STEP_S},
        quote_via=quote,
    )
    return f"otpauth://totp/{quote(issuer, safe='')}:{quote(name, safe='')}?{query}"
