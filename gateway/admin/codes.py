"""Codes that people copy by hand: the set-up code and the recovery codes of the second factor. Pure.

32 letters and digits without those that look alike, in groups of four: five bits a character. The set-up code has 16
(80 bits), so that nobody finds it by asking, whatever the limits on attempts; a recovery code has 12 (60 bits).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
SETUP_CHARACTERS: Final = 16
RECOVERY_CHARACTERS: Final = 12
_GROUP: Final = 4


def make_code(random: bytes) -> str:
    """One code of as many characters as there are random octets, such as `7K3M-9QPX-VA4T-CE2H`."""
    letters = "".join(ALPHABET[octet % len(ALPHABET)] for octet in random)  # 256 is a multiple of 32: no bias
    return "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))


def plain(typed: str) -> str:
    """What somebody typed, without case, blanks and dashes."""
    return "".join(typed.split()).replace("-", "").upper()


def same_code(code: str, typed: str) -> bool:
    """Whether what was typed is the code, compared in constant time."""
    return hmac.compare_digest(plain(code).encode(), plain(typed[:64]).encode("utf-8", "replace"))


def digest(code: str) -> str:
    """What is kept of a recovery code: 60 random bits need no slow hash."""
    return hashlib.sha256(b"postern recovery " + plain(code[:64]).encode("utf-8", "replace")).hexdigest()
