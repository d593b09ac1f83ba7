"""Hashing of passwords by scrypt (RFC 7914), with the cost kept beside each hash and fitted to the box.

Memory is bounded by `MAX_LOG2_N`: 16 MiB, which a box of 256 MB can spare for the one thread that hashes. A faster box
spends its time on repetitions (`p`) instead, a slower one halves `N` until a login takes no longer than it may.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from typing import Final, NamedTuple

MIN_LOG2_N: Final = 10  # 1 MiB: for boxes where even that takes a tenth of a second
MAX_LOG2_N: Final = 14  # 16 MiB
MAX_P: Final = 16
BLOCK_SIZE: Final = 8
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
MAX_PASSWORD_CHARACTERS: Final = 256


class Cost(NamedTuple):
    """Work of one hash: N = 2^log2_n, r = BLOCK_SIZE, p."""

    log2_n: int
    p: int

    def __str__(self) -> str:
        return f"ln={self.log2_n},r={BLOCK_SIZE},p={self.p}"

    @classmethod
    def parse(cls, text: str) -> Cost:
        """Read `ln=14,r=8,p=2`; raises ValueError, also for a cost beyond our bounds."""
        fields = dict(part.split("=", 1) for part in text.split(","))
        if set(fields) != {"ln", "r", "p"} or fields["r"] != str(BLOCK_SIZE):
            raise ValueError(f"{text!r} is not a cost of scrypt such as ln=14,r=8,p=1")
        cost = cls(int(fields["ln"]), int(fields["p"]))
        if not (MIN_LOG2_N <= cost.log2_n <= MAX_LOG2_N and 1 <= cost.p <= MAX_P):
            raise ValueError(f"the cost {text!r} is beyond what this gateway spends on a password")
        return cost


def hash_password(password: str, cost: Cost, salt: bytes) -> str:
    """The text to keep: `$scrypt$ln=14,r=8,p=1$salt$hash`, the last two in base64."""
    digest = _scrypt(password, cost, salt)
    return f"$scrypt${cost}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: str, stored: str) -> bool:
    """Whether `stored` was made from this password; raises ValueError when `stored` is no hash of ours."""
    cost, salt, digest = _parse(stored)
    return hmac.compare_digest(_scrypt(password, cost, salt), digest)


def cost_of(stored: str) -> Cost:
    """The cost that a hash was made with; raises ValueError."""
    return _parse(stored)[0]


def choose_cost(target_s: float, measure: Callable[[Cost], float]) -> Cost:
    """The highest cost that takes at most `target_s`; `measure` tells the seconds of one hash.

    It measures the lowest cost and reckons from there, so that a slow router does not start with a hash of seconds; the
    choice is measured too, because large tables miss the cache.
    """
    lowest_s = max(measure(Cost(MIN_LOG2_N, 1)), 1e-6)
    log2_n = MIN_LOG2_N
    while log2_n < MAX_LOG2_N and lowest_s * 2 ** (log2_n + 1 - MIN_LOG2_N) <= target_s:
        log2_n += 1
    while log2_n > MIN_LOG2_N and measure(Cost(log2_n, 1)) > target_s * 1.25:
        log2_n -= 1
    if log2_n < MAX_LOG2_N:
        return Cost(log2_n, 1)
    return Cost(log2_n, max(1, min(MAX_P, int(target_s / max(measure(Cost(log2_n, 1)), 1e-6)))))


def check_password(password: str) -> None:
    """Raises ValueError with a sentence when this cannot be a password."""
    if not password:
        raise ValueError("The password is empty.")
    if len(password) > MAX_PASSWORD_CHARACTERS:
        raise ValueError(f"The password has {len(password)} characters; {MAX_PASSWORD_CHARACTERS} are accepted.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise ValueError("The password holds a control character, which no login form can send.")


def _parse(stored: str) -> tuple[Cost, bytes, bytes]:
    try:
        empty, scheme, cost, salt, digest = stored.split("$")
        if (empty, scheme) != ("", "scrypt"):
            raise ValueError(f"unknown scheme {scheme!r}")
        return Cost.parse(cost), base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error) as err:
        raise ValueError(f"a stored password hash cannot be read: {err}") from err


def _scrypt(password: str, cost: Cost, salt: bytes) -> bytes:
    # NFC, because keyboards differ in how they compose the same letter (RFC 8265 §4.2.2).
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    memory = 128 * BLOCK_SIZE * (2**cost.log2_n + cost.p + 2)
    return hashlib.scrypt(
        secret, salt=salt, n=2**cost.log2_n, r=BLOCK_SIZE, p=cost.p, maxmem=memory + 65536, dklen=HASH_BYTES
    )
