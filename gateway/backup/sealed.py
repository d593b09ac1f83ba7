"""A sealed backup: named parts, compressed, encrypted and authenticated under a passphrase. Pure.

Format 2: the line `Postern backup, format 2`, a salt of 16 octets, the sealed body, and HMAC-SHA256 of all before it.
The keys and the cipher are those of format 1 (`gateway.config_backup`, where they are reasoned): scrypt, HMAC-SHA256 in
counter mode, encrypt then authenticate. Nothing of a file is used before its authentication was checked, and a body
that would unpack to more than the bound is refused. The body is zlib over a line of JSON (the heading and the parts'
names and sizes) and the parts' octets one after the other.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping
from typing import Final

from gateway.config_backup import SALT_BYTES, SHORTEST_PASSPHRASE, BackupError, combined, keys, unseal
from gateway.values import value_class

MAGIC: Final = b"Postern backup, format 2\n"
MAX_SEALED_BYTES: Final = 16_000_000
MAX_PLAIN_BYTES: Final = 64_000_000
CONFIG: Final = "config"  # the part that a backup of format 1 is
_OLD_MAGIC: Final = b"# Postern backup, format 1, "
_FAMILY: Final = b"Postern backup, format "
_TAG_BYTES: Final = 32
_MAX_HEAD: Final = 1 << 20


@value_class
class Heading:
    """Where and when a backup was made; the last three are unknown for one of format 1."""

    format: int
    made_unix: float | None = None
    hostname: str = ""
    version: str = ""


@value_class
class Backup:
    """A backup that was opened."""

    heading: Heading
    parts: dict[str, bytes]


def seal(backup: Backup, passphrase: str, salt: bytes) -> bytes:
    """The file; `salt` is 16 random octets. Raises BackupError. Blocks for some tenths of a second."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise BackupError(f"The passphrase is too short; use at least {SHORTEST_PASSPHRASE} characters.")
    head = {
        "made_unix": backup.heading.made_unix,
        "hostname": backup.heading.hostname,
        "version": backup.heading.version,
        "parts": [[name, len(content)] for name, content in backup.parts.items()],
    }
    plain = json.dumps(head).encode() + b"\n" + b"".join(backup.parts.values())
    body = zlib.compress(plain, 6)
    if len(plain) > MAX_PLAIN_BYTES or len(body) > MAX_SEALED_BYTES - 100:
        raise BackupError(
            f"There is more to save than a backup holds ({len(body) // 1_000_000} of {MAX_SEALED_BYTES // 1_000_000} "
            "MB): remove old vouchers or themes, or copy the state directory by hand."
        )
    encrypting, authenticating = keys(passphrase, salt)
    sealed = MAGIC + salt + combined(body, encrypting, 0)
    return sealed + hmac.digest(authenticating, sealed, hashlib.sha256)


def unsealed(data: bytes, passphrase: str) -> Backup:
    """What is in a file of this or the older format; raises BackupError when passphrase or file are wrong."""
    if data.startswith(_OLD_MAGIC):
        try:
            text = unseal(data.decode(), passphrase)
        except UnicodeDecodeError as err:
            raise BackupError("The passphrase is wrong, or the file was changed.") from err
        return Backup(Heading(1), {CONFIG: text.encode()})
    if not data.startswith(MAGIC):
        if data.startswith(_FAMILY):
            raise BackupError("This backup was made by a newer version of Postern; upgrade first.")
        raise BackupError("This is not a backup of Postern, or its beginning is missing.")
    if not len(MAGIC) + SALT_BYTES + _TAG_BYTES < len(data) <= MAX_SEALED_BYTES:
        raise BackupError("This backup is cut off, or too large to be one.")
    salt = data[len(MAGIC) : len(MAGIC) + SALT_BYTES]
    encrypting, authenticating = keys(passphrase, salt)
    if not hmac.compare_digest(hmac.digest(authenticating, data[:-_TAG_BYTES], hashlib.sha256), data[-_TAG_BYTES:]):
        raise BackupError("The passphrase is wrong, or the file was changed or cut off.")
    return _read(combined(data[len(MAGIC) + SALT_BYTES : -_TAG_BYTES], encrypting, 0))


def _read(body: bytes) -> Backup:
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(body, MAX_PLAIN_BYTES)
        if not unpacker.eof:
            raise ValueError("it is too large")
        line = plain.find(b"\n", 0, _MAX_HEAD)
        head: Mapping[str, object] = json.loads(plain[:line])
        listed = head["parts"]
        assert isinstance(listed, list)
        parts: dict[str, bytes] = {}
        at = line + 1
        for name, size in listed:
            if not isinstance(size, int) or size < 0:
                raise ValueError("its parts do not add up")
            parts[str(name)] = plain[at : at + size]
            at += size
        if at != len(plain) or len(parts) != len(listed):
            raise ValueError("its parts do not add up")
        made = head["made_unix"]
        heading = Heading(
            2, float(made) if isinstance(made, int | float) else None, str(head["hostname"]), str(head["version"])
        )
    except (ValueError, KeyError, TypeError, AssertionError, zlib.error) as err:  # ours, by its authentication
        raise BackupError(f"The backup cannot be read: {err}") from err
    return Backup(heading, parts)
