"""Voucher codes: how they look, how a typed one is read, and how they are made from a key. Pure.

A code is a number of one alphabet's characters: digits, or letters without those that are taken for others (I, L, O),
and without vowels, so that no code spells a word. It is derived from the device's key by HMAC (RFC 2104) with the
batch's salt and the voucher's number. The database keeps another HMAC of it, by which a typed code is found; without
the key it prints no code, and with the key the operator can print a sheet again.

What a guest types is forgiven: case, blanks, dashes and dots, digits of other scripts, and look-alikes (an O for a
zero).
"""

from __future__ import annotations

import hmac
import unicodedata
from typing import Final

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
LOOKUP_BYTES: Final = 16
DIGITS: Final = "0123456789"
LETTERS: Final = "BCDFGHJKMNPQRSTVWXYZ"
ALPHABETS: Final = {"digits": DIGITS, "letters": LETTERS}
DEFAULT_LENGTH: Final = {"digits": 10, "letters": 8}
SHORTEST: Final = {"digits": 8, "letters": 6}
LONGEST: Final = 20
MAX_TYPED: Final = 64  # characters that a guest may type: the longest code with a separator after each
# So many codes must exist for each voucher that is valid, or guessing becomes worth while (`guessing` bounds the rate).
SPARSENESS: Final = 100_000

_SEPARATORS: Final = frozenset(" -_./:,'")
_AS_DIGITS: Final = str.maketrans("OQDILSZB", "00011528")
_AS_LETTERS: Final = str.maketrans("258", "ZSB")


def derive(key: bytes, salt: bytes, number: int, alphabet: str, length: int) -> str:
    """The code of a voucher: the same for the same key, batch salt and number. `alphabet` is a name of ALPHABETS."""
    characters = ALPHABETS[alphabet]
    # 256 bits against at most 20 characters: what the remainder prefers is far below anything that can be noticed.
    value = int.from_bytes(
        hmac.digest(key, b"postern voucher code\0" + salt + number.to_bytes(8, "big"), "sha256"), "big"
    )
    code = []
    for _ in range(length):
        value, index = divmod(value, len(characters))
        code.append(characters[index])
    return "".join(code)


def lookup(key: bytes, code: str) -> bytes:
    """Under which octets the database knows a code (as `derive` made it or `readings` read it)."""
    return hmac.digest(key, b"postern voucher lookup\0" + code.encode(), "sha256")[:LOOKUP_BYTES]


def key_mark(key: bytes) -> str:
    """What tells whether a database was filled with this key, and nothing else about it."""
    return hmac.digest(key, b"postern voucher key", "sha256")[:8].hex()


def readings(typed: str) -> list[str]:
    """The codes that a typed text can mean, at most one of each alphabet; none when it cannot be a code at all."""
    if len(typed) > MAX_TYPED:
        return []
    text = "".join(map(_plain, unicodedata.normalize("NFKC", typed))).upper()
    meant = ((text.translate(_AS_DIGITS), DIGITS), (text.translate(_AS_LETTERS), LETTERS))
    return [code for code, characters in meant if code and set(code) <= set(characters)]


def _plain(character: str) -> str:
    if character in _SEPARATORS or unicodedata.category(character) in ("Pd", "Zs", "Cf", "Cc"):
        return ""
    digit = unicodedata.digit(character, None)
    return character if digit is None else str(digit)


def grouped(code: str) -> str:
    """The code as it is printed, in groups that the eye can hold: `48219-07365`, `BKRT-XWMD`."""
    size = next((size for size in (4, 5, 3) if len(code) % size == 0), 4)
    return "-".join(code[start : start + size] for start in range(0, len(code), size))


def strong_enough(alphabet: str, length: int, vouchers: int) -> bool:
    """Whether so many valid vouchers are few among all codes of this kind."""
    return int(len(ALPHABETS[alphabet]) ** length) >= SPARSENESS * vouchers
