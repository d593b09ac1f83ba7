"""Form tokens: a state-changing form is only accepted from the client that it was made for.

Works without cookies, which a captive-portal sheet may not keep. A token names its purpose, zone and client by an HMAC
and carries its own end; nothing is stored. Times are on the monotonic clock of the machine, so a restart of the portal
or a step of the wall clock invalidates no form; a reboot does, and the guest gets a fresh one with the name filled in.
"""

from __future__ import annotations

import hmac
from typing import Final

from gateway.addresses import MacAddress

LIFETIME_S: Final = 3600  # a sheet may stay open while its owner looks for the password
_DIGEST_DIGITS: Final = 32


def make_token(secret: bytes, purpose: str, zone: str, mac: MacAddress, now: float) -> str:
    """A token for one form of one client, valid for `LIFETIME_S` seconds."""
    end = int(now) + LIFETIME_S
    return f"{end:x}.{_digest(secret, purpose, zone, mac, end)}"


def check_token(token: str, secret: bytes, purpose: str, zone: str, mac: MacAddress, now: float) -> bool:
    """Whether the token was made here for this form and client, and has not expired."""
    end_text, dot, digest = token.partition(".")
    if not dot or len(end_text) > 16 or not digest.isascii() or not end_text.isalnum():
        return False
    try:
        end = int(end_text, 16)
    except ValueError:
        return False
    expected = _digest(secret, purpose, zone, mac, end)
    return hmac.compare_digest(digest, expected) and now < end <= now + LIFETIME_S + 1


def _digest(secret: bytes, purpose: str, zone: str, mac: MacAddress, end: int) -> str:
    # No field can hold NUL, so no two sets of fields give the same text.
    text = f"{purpose}\0{zone}\0{mac}\0{end:x}".encode()
    return hmac.digest(secret, text, "sha256").hex()[:_DIGEST_DIGITS]
