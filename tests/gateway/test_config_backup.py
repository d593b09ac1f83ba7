"""Backups: readable but for their secrets, whole or refused."""

from __future__ import annotations

import pytest

from gateway.config_backup import BackupError, seal, unseal

TEXT = "config radius_server 'a'\n\toption address '192.0.2.1'\n\toption secret 'naïve secret'  # theirs\n"
SALT = bytes(range(16))
PASSPHRASE = "a long passphrase"


def test_a_backup_is_the_file_with_its_secrets_sealed() -> None:
    """It comes back to the letter; two backups of one file differ in their salt and so in everything sealed."""
    backup = seal(TEXT, PASSPHRASE, SALT)
    assert "naïve" not in backup
    assert "option address '192.0.2.1'" in backup
    assert unseal(backup, PASSPHRASE) == TEXT
    other = seal(TEXT, PASSPHRASE, bytes(16))
    assert other.splitlines()[3] != backup.splitlines()[3]


def test_the_same_secret_twice_does_not_look_the_same() -> None:
    """Nor does its length show."""
    text = "".join(f"config radius_server '{name}'\n\toption secret '{secret}'\n" for name, secret in
                   (("a", "12345678"), ("b", "12345678"), ("c", "x" * 20)))  # fmt: skip
    sealed = [line.split(":", 2)[2] for line in seal(text, PASSPHRASE, SALT).splitlines() if "sealed:" in line]
    assert len(set(sealed)) == 3
    assert len({len(item) for item in sealed}) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda backup: backup.replace("192.0.2.1", "192.0.2.9"),
        lambda backup: backup.replace("sealed:0:", "sealed:1:"),
        lambda backup: backup[:-3] + "00\n",
        lambda backup: backup.replace("salt 00", "salt ff"),
    ],
)
def test_a_backup_that_was_changed_is_refused(damage: object) -> None:
    """Before anything in it is used."""
    assert callable(damage)
    with pytest.raises(BackupError, match=r"was changed|not a backup"):
        unseal(damage(seal(TEXT, PASSPHRASE, SALT)), PASSPHRASE)


def test_a_wrong_passphrase_or_another_file_is_a_sentence() -> None:
    """As is a passphrase that anybody guesses."""
    with pytest.raises(BackupError, match="passphrase is wrong"):
        unseal(seal(TEXT, PASSPHRASE, SALT), PASSPHRASE + "!")
    for text in ("", TEXT, "\0" * 100):
        with pytest.raises(BackupError, match="not a backup"):
            unseal(text, PASSPHRASE)
    with pytest.raises(BackupError, match="at least 12"):
        seal(TEXT, "short", SALT)
    with pytest.raises(BackupError, match="not UCI"):
        seal("config '", PASSPHRASE, SALT)
