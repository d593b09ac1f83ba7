"""Sealed backups: whole and by the right passphrase, or refused before anything is used."""

from __future__ import annotations

import hashlib
import hmac
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backup import sealed
from gateway.backup.sealed import MAGIC, Backup, Heading, seal, unsealed
from gateway.config_backup import BackupError, combined, keys
from gateway.config_backup import seal as seal_format_1

SALT = bytes(range(16))
PASSPHRASE = "a long passphrase"
BACKUP = Backup(
    Heading(2, 1_800_000_000.0, "gate", "0.1.0"),
    {"config": b"config radius_server 'a'\n\toption secret 'hidden-word'\n", "voucher.key": bytes(32), "empty": b""},
)
FILE = seal(BACKUP, PASSPHRASE, SALT)


def test_what_is_sealed_comes_back_and_shows_nothing() -> None:
    """Heading and parts; no name, no secret can be read in the file, and another salt makes another file."""
    assert unsealed(FILE, PASSPHRASE) == BACKUP
    assert b"hidden" not in FILE
    assert b"voucher" not in FILE
    assert b"gate" not in FILE
    other = seal(BACKUP, PASSPHRASE, bytes(16))
    assert other[len(MAGIC) + 16 :] != FILE[len(MAGIC) + 16 :]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, len(FILE) - 1), st.integers(0, 7))
def test_every_flipped_bit_is_found(at: int, bit: int) -> None:
    """In the format, the salt, the body or the authentication."""
    changed = bytearray(FILE)
    changed[at] ^= 1 << bit
    with pytest.raises(BackupError):
        unsealed(bytes(changed), PASSPHRASE)


@pytest.mark.parametrize("size", [0, 10, len(MAGIC), len(MAGIC) + 20, len(FILE) // 2, len(FILE) - 1])
def test_a_file_that_is_cut_is_refused(size: int) -> None:
    """Wherever it ends."""
    with pytest.raises(BackupError):
        unsealed(FILE[:size], PASSPHRASE)


def test_wrong_passphrases_and_foreign_files_are_sentences() -> None:
    """They say what to do."""
    with pytest.raises(BackupError, match="passphrase is wrong"):
        unsealed(FILE, PASSPHRASE + "!")
    with pytest.raises(BackupError, match="not a backup"):
        unsealed(b"\x1f\x8b" * 100, PASSPHRASE)
    with pytest.raises(BackupError, match="newer version"):
        unsealed(b"Postern backup, format 3\n" + FILE[len(MAGIC) :], PASSPHRASE)
    with pytest.raises(BackupError, match="at least 12"):
        seal(BACKUP, "short", SALT)


def test_a_backup_of_the_older_format_is_the_configuration() -> None:
    """It has no heading."""
    text = BACKUP.parts["config"].decode()
    found = unsealed(seal_format_1(text, PASSPHRASE, SALT).encode(), PASSPHRASE)
    assert found == Backup(Heading(1), {"config": text.encode()})
    with pytest.raises(BackupError):
        unsealed(seal_format_1(text, PASSPHRASE, SALT).encode().replace(b"radius", b"radiuS"), PASSPHRASE)


def _signed(body: bytes) -> bytes:
    """A file by somebody who knows the passphrase."""
    encrypting, authenticating = keys(PASSPHRASE, SALT)
    data = MAGIC + SALT + combined(body, encrypting, 0)
    return data + hmac.digest(authenticating, data, hashlib.sha256)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"parts": [["a", 5]], "made_unix": 1, "hostname": "", "version": ""}\nabc',
        b'{"parts": [["a", 1], ["a", 2]], "made_unix": 1, "hostname": "", "version": ""}\nabc',
        b'{"parts": [["a", -1], ["b", 4]], "made_unix": 1, "hostname": "", "version": ""}\nabc',
        b'{"parts": [["a"]], "made_unix": 1, "hostname": "", "version": ""}\nabc',
    ],
)
def test_nonsense_under_the_right_passphrase_is_refused(plain: bytes) -> None:
    """Also by somebody who could make a backup."""
    with pytest.raises(BackupError):
        unsealed(_signed(zlib.compress(plain)), PASSPHRASE)


def test_a_body_that_would_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unpacked to the bound and no further."""
    monkeypatch.setattr(sealed, "MAX_PLAIN_BYTES", 100_000)
    with pytest.raises(BackupError, match="too large"):
        unsealed(_signed(zlib.compress(bytes(10_000_000))), PASSPHRASE)


def test_more_than_a_backup_holds_is_told_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it is needed."""
    monkeypatch.setattr(sealed, "MAX_SEALED_BYTES", 1000)
    noise = hashlib.shake_256(b"x").digest(5000)
    with pytest.raises(BackupError, match="more to save"):
        seal(Backup(BACKUP.heading, {"config": noise}), PASSPHRASE, SALT)
