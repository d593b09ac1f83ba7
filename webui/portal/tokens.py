"""Form tokens: a state-changing form is only accepted from the client that it was made for.

Works without cookies, which a captive-portal sheet may not keep. A token says when it ends and for which device it was
made, and proves with an HMAC that we said so of this form, zone and address; nothing is stored. So a form is read
without asking the daemon who sent it: the daemon is told whom it was made for, and refuses when that is somebody else
by now. Times are on the monotonic clock of the machine, so a restart of the portal
or a step of the wall clock invalidates no form; a reboot does, and the guest gets a fresh one with the name filled in.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import Final

from gateway.addresses import MacAddress

LIFETIME_S: Final = 3600  # a sheet may stay open while its owner looks for the password
_DIGEST_DIGITS: Final = 32
_TOKEN: Final = re.compile(rf"(([0-9a-f]{{1,16}})\.([0-9a-f]{{12}}))\.([0-9a-f]{{{_DIGEST_DIGITS}}})")


def make_token(secret: bytes, purpose: str, zone: str, ip: str, mac: MacAddress, now: float) -> str:
    """A token for one form of the device `mac` at the address `ip`, valid for `LIFETIME_S` seconds."""
    head = f"{int(now) + LIFETIME_S:x}.{mac.hex()}"
    return f"{head}.{_digest(secret, purpose, zone, ip, head)}"


def read_token(token: str, secret: bytes, purpose: str, zone: str, ip: str, now: float) -> MacAddress | None:
    """The device that a token was made for; None unless it is ours, for this form and address, and has not expired."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    head, end, mac, digest = found.groups()
    if not hmac.compare_digest(digest, _digest(secret, purpose, zone, ip, head)):
        return None
    return MacAddress(bytes.fromhex(mac)) if now < int(end, 16) <= now + LIFETIME_S + 1 else None


def _digest(secret: bytes, purpose: str, zone: str, ip: str, head: str) -> str:
    # No field can hold NUL, so no two sets of fields give the same text.
    proof = _keyed(secret).copy()
    proof.update(f"{purpose}\0{zone}\0{ip}\0{head}".encode())
    return proof.hexdigest()[:_DIGEST_DIGITS]


@lru_cache(4)
def _keyed(secret: bytes) -> hmac.HMAC:
    return hmac.new(secret, digestmod="sha256")  # to begin takes longer than the rest
