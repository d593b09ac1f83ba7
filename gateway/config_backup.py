"""Backups of format 1: the configuration as it is, readable, with every secret sealed by a passphrase. Pure.

New backups are of format 2 (`gateway.backup`), which takes its keys and cipher from here; these are still read.

The construction, since the standard library has no cipher: scrypt (RFC 7914, N = 2^15, r = 8, p = 1) makes two keys of
32 octets from the passphrase and a random salt. A secret is padded to whole blocks of 32 octets and combined by
exclusive or with HMAC-SHA256(first key, number of the secret, number of the block): counter mode with a pseudo-random
function, in which no input occurs twice: each backup has its own salt and each secret its own number. HMAC-SHA256
with the second key over the whole file, sealed secrets included, stands at its end (encrypt, then authenticate). The
`openssl` command was not used: routers do not have it, and its `enc` does not authenticate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from itertools import count
from typing import Final

from gateway.config_change import replaced_secrets
from gateway.uci import UciSyntaxError

HEADER: Final = "# Postern backup, format 1, salt "
TRAILER: Final = "# Postern backup, authentication "
SEALED: Final = "sealed:"
SALT_BYTES: Final = 16
BLOCK: Final = 32
SHORTEST_PASSPHRASE: Final = 12
_LOG2_N: Final = 15
_HEADER: Final = re.compile(re.escape(HEADER) + r"([0-9a-f]{32})\n")
_TRAILER: Final = re.compile(re.escape(TRAILER) + r"([0-9a-f]{64})\n\Z")


class BackupError(ValueError):
    """The backup cannot be made or read; the message is a sentence."""


def seal(text: str, passphrase: str, salt: bytes) -> str:
    """The backup of a configuration; `salt` is random. Blocks for a tenth of a second and takes 32 MB."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise BackupError(f"The passphrase is too short; use at least {SHORTEST_PASSPHRASE} characters.")
    encrypting, authenticating = keys(passphrase, salt)
    numbers = count()
    try:
        sealed = replaced_secrets(text, lambda secret: _sealed(secret, encrypting, next(numbers)))
    except UciSyntaxError as err:
        raise BackupError(f"The configuration is not UCI: {err}") from err
    body = f"{HEADER}{salt.hex()}\n{sealed}"
    if not body.endswith("\n"):
        body += "\n"
    return f"{body}{TRAILER}{_tag(body, authenticating)}\n"


def unseal(backup: str, passphrase: str) -> str:
    """The configuration of a backup; raises BackupError when passphrase or file are wrong."""
    header, trailer = _HEADER.match(backup), _TRAILER.search(backup)
    if header is None or trailer is None:
        raise BackupError("This is not a backup of Postern's configuration, or a part of it is missing.")
    encrypting, authenticating = keys(passphrase, bytes.fromhex(header[1]))
    if not hmac.compare_digest(_tag(backup[: trailer.start()], authenticating), trailer[1]):
        raise BackupError("The passphrase is wrong, or the file was changed.")
    try:
        return replaced_secrets(backup[header.end() : trailer.start()], lambda secret: _opened(secret, encrypting))
    except (UciSyntaxError, ValueError) as err:
        raise BackupError(f"The backup cannot be read: {err}") from err


def keys(passphrase: str, salt: bytes) -> tuple[bytes, bytes]:
    """The keys to encrypt and to authenticate with. Blocks for a tenth of a second and takes 32 MB."""
    both = hashlib.scrypt(
        passphrase.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=1 << _LOG2_N,
        r=8,
        p=1,
        maxmem=(128 * 8 << _LOG2_N) + (1 << 20),
        dklen=64,
    )
    return both[:32], both[32:]


def _tag(body: str, key: bytes) -> str:
    return hmac.new(key, body.encode(), hashlib.sha256).hexdigest()


def _sealed(secret: str, key: bytes, number: int) -> str:
    plain = secret.encode()
    padded = len(plain).to_bytes(4, "big") + plain
    padded += bytes(-len(padded) % BLOCK)  # so that the length of a secret is not told
    return f"{SEALED}{number}:{base64.b64encode(combined(padded, key, number)).decode()}"


def _opened(sealed: str, key: bytes) -> str:
    mark, number, data = sealed.split(":", 2)
    if f"{mark}:" != SEALED:
        raise ValueError("a secret in it is not sealed")
    try:
        padded = combined(base64.b64decode(data, validate=True), key, int(number))
    except binascii.Error as err:
        raise ValueError("a sealed secret is damaged") from err
    return padded[4 : 4 + int.from_bytes(padded[:4], "big")].decode()


def combined(data: bytes, key: bytes, number: int) -> bytes:
    """The data under, or from under, the stream of a key for one number; a number is used once with a key."""
    blocks = -(-len(data) // BLOCK)
    prefix, digest = number.to_bytes(8, "big"), hmac.digest
    stream = b"".join([digest(key, prefix + block.to_bytes(8, "big"), "sha256") for block in range(blocks)])
    together = int.from_bytes(data, "big") ^ int.from_bytes(stream[: len(data)], "big")
    return together.to_bytes(len(data), "big")
