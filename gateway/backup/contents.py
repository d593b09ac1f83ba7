"""What a backup holds, gathered from the state directory, and whether what one holds could be put back.

In it: the configuration, users with vouchers and known devices (a consistent copy by SQLite's own backup) and the key
that their codes come from, administrators with their tokens, themes, and the certificates of its pages: the one made
on this device, and the operator's.
Not in it: sessions of guests and administrators, leases, the log of who changed what, past configurations, captures.
Everything here blocks; each database is copied in the thread that owns it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from gateway.accounts.codes import KEY_BYTES
from gateway.accounts.guests import KEY_FILE
from gateway.accounts.store import AccountStore
from gateway.admin.store import AdminStore
from gateway.config_backup import BackupError
from gateway.sqlite_file import StoreError
from gateway.values import value_class

ACCOUNTS: Final = "accounts.sqlite"
ADMINISTRATORS: Final = "admin.db"
CERTIFICATE: Final = "device.crt"
CERTIFICATE_KEY: Final = "device.key"
OPERATORS_CERTIFICATE: Final = "operator.crt"
OPERATORS_KEY: Final = "operator.key"
THEMES: Final = "themes"
_THEME_FILE: Final = re.compile(r"themes/[a-z0-9][a-z0-9_-]{0,31}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CERTIFICATES: Final = ((CERTIFICATE, CERTIFICATE_KEY), (OPERATORS_CERTIFICATE, OPERATORS_KEY))
_KNOWN: Final = frozenset(
    {"config", ACCOUNTS, ADMINISTRATORS, KEY_FILE, *(name for one in _CERTIFICATES for name in one)}
)
# Tables of the administrators' file that a backup carries; the rest belongs to the box and its time.
_CARRIED: Final = ("administrators", "tokens")
_LEFT_OUT: Final = ("sessions", "places", "audit", "changes", "facts")


@value_class
class Summary:
    """What is in a backup, in numbers and names."""

    administrators: tuple[str, ...]
    tokens: int
    users: int
    batches: int
    vouchers: int
    devices: int
    themes: tuple[str, ...]
    certificate: bool
    operators_certificate: bool


def accounts_copy(store: AccountStore, place: Path) -> bytes:
    """A consistent copy of the accounts, in their thread; raises StoreError or OSError. `place` is ours."""
    path = place / ACCOUNTS
    store.copy_to(path)
    return _taken(path)


def administrators_copy(store: AdminStore, place: Path) -> bytes:
    """A copy of the administrators and tokens alone; in their thread. Raises StoreError, OSError."""
    path = place / ADMINISTRATORS
    store.copy_to(path)
    with closing(sqlite3.connect(path)) as copy:
        for table in _LEFT_OUT:
            copy.execute(f"DELETE FROM {table}")
        copy.commit()
        copy.execute("VACUUM")
    return _taken(path)


def files(state_dir: Path) -> dict[str, bytes]:
    """The parts that are files: key and themes. Raises OSError."""
    found = {}
    if (state_dir / KEY_FILE).is_file():
        found[KEY_FILE] = (state_dir / KEY_FILE).read_bytes()
    for path in sorted((state_dir / THEMES).glob("*/*")):
        name = f"{THEMES}/{path.parent.name}/{path.name}"
        if _THEME_FILE.fullmatch(name) and path.is_file():
            found[name] = path.read_bytes()
    return found


def merged_administrators(store: AdminStore, given: bytes, place: Path) -> Path:
    """This box's own file with the administrators and tokens of a backup, and nobody logged in; in the thread.

    A backup without administrators leaves those of the box. The file is left in `place`. Raises as above, BackupError.
    """
    theirs, path = place / "given.db", place / ADMINISTRATORS
    theirs.write_bytes(given)
    _usable_administrators(theirs)
    store.copy_to(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("ATTACH ? AS given", (str(theirs),))
        if database.execute("SELECT count(*) FROM given.administrators").fetchone()[0]:
            for table in _CARRIED:
                database.execute(f"DELETE FROM {table}")
                database.execute(f"INSERT INTO {table} SELECT * FROM given.{table}")
        for table in ("sessions", "places"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    theirs.unlink()
    return path


def look(parts: dict[str, bytes], place: Path) -> Summary:
    """What the parts of a backup hold; raises BackupError for what this version could not put back."""
    unknown = [name for name in parts if name not in _KNOWN and not _THEME_FILE.fullmatch(name)]
    if unknown:
        raise BackupError(f"The backup holds {unknown[0][:60]!r}, which this version does not know; upgrade first.")
    if KEY_FILE in parts and len(parts[KEY_FILE]) != KEY_BYTES:
        raise BackupError("The key of the vouchers in the backup is damaged.")
    if any((certificate in parts) != (key in parts) for certificate, key in _CERTIFICATES):
        raise BackupError("The backup has half a certificate.")
    administrators, tokens = _administrators(parts, place)
    users, batches, vouchers, devices = _accounts(parts, place)
    return Summary(
        administrators=administrators,
        tokens=tokens,
        users=users,
        batches=batches,
        vouchers=vouchers,
        devices=devices,
        themes=tuple(_themes(parts)),
        certificate=CERTIFICATE in parts,
        operators_certificate=OPERATORS_CERTIFICATE in parts,
    )


def _administrators(parts: dict[str, bytes], place: Path) -> tuple[tuple[str, ...], int]:
    if ADMINISTRATORS not in parts:
        return (), 0
    path = place / ADMINISTRATORS
    path.write_bytes(parts[ADMINISTRATORS])
    try:
        _usable_administrators(path)
        with closing(sqlite3.connect(path)) as database:
            names = tuple(row[0] for row in database.execute("SELECT name FROM administrators ORDER BY key"))
            return names, _count(database, "tokens")
    finally:
        _clear(path)


def _accounts(parts: dict[str, bytes], place: Path) -> tuple[int, int, int, int]:
    if ACCOUNTS not in parts:
        return 0, 0, 0, 0
    path = place / ACCOUNTS
    path.write_bytes(parts[ACCOUNTS])
    try:
        usable_accounts(path)
        with closing(sqlite3.connect(path)) as database:
            users, batches, vouchers, devices = (
                _count(database, table) for table in ("users", "batches", "vouchers", "devices")
            )
            return users, batches, vouchers, devices
    finally:
        _clear(path)


def usable_accounts(path: Path) -> None:
    """Bring a file of accounts to this version's tables; raises BackupError when it is none."""
    _usable(AccountStore(path), "accounts")


def _usable_administrators(path: Path) -> None:
    _usable(AdminStore(path), "administrators")


def _usable(store: AccountStore | AdminStore, what: str) -> None:
    try:
        store.open()
        if store.notes:  # it was moved aside, and an empty one took its place
            raise BackupError(f"The {what} in the backup are damaged.")
    except StoreError as err:
        raise BackupError(f"The {what} in the backup cannot be used here: {err}") from err
    finally:
        store.close()


def _themes(parts: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[1] for name in parts if name.startswith(f"{THEMES}/")})


def _count(database: sqlite3.Connection, table: str) -> int:
    count: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def _taken(path: Path) -> bytes:
    try:
        return path.read_bytes()
    finally:
        _clear(path)


def _clear(path: Path) -> None:
    for one in (path, path.with_name(f"{path.name}-journal"), *path.parent.glob(f"{path.name}.damaged-*")):
        one.unlink(missing_ok=True)
