"""The users, vouchers and known devices in one SQLite file, owned by the daemon; what is done with users.

How the file is opened, kept and moved aside when it is damaged is `sqlite_file`'s. A user's login writes nothing; a
voucher's writes its first use, and the end of its session what was used. The gateway serves RADIUS and click-through
without the file, and the operator is told where the old one is. One thread uses a store.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from gateway.accounts.users import AccountError, NameTaken, User, check_name, check_user, name_key
from gateway.session.model import Limits
from gateway.sqlite_file import Contents, SqliteFile

_LIMITS: Final = tuple(item.name for item in fields(Limits))
_COLUMNS: Final = ("name", "devices", "valid_until_unix", "disabled", "note", "created_unix", *_LIMITS)
_LIMIT_COLUMNS: Final = """
    session_time_s INTEGER, idle_time_s INTEGER,
    upload_bytes INTEGER, download_bytes INTEGER, total_bytes INTEGER,
    upload_bps INTEGER, download_bps INTEGER,
    terminate_unix REAL,
    role TEXT
"""
_USERS: Final = f"""
CREATE TABLE users (
    key TEXT PRIMARY KEY,  -- the name without case
    name TEXT NOT NULL,
    password TEXT NOT NULL,  -- hash with its cost and salt
    devices INTEGER,
    valid_until_unix REAL,
    disabled INTEGER NOT NULL,
    note TEXT NOT NULL,
    created_unix REAL NOT NULL,
    {_LIMIT_COLUMNS}
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_GUESTS: Final = f"""
CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: sheets of a removed batch may still be about
    salt BLOB NOT NULL,
    alphabet TEXT NOT NULL,
    length INTEGER NOT NULL,
    created_unix REAL NOT NULL,
    created_by TEXT NOT NULL,
    note TEXT NOT NULL,
    zone TEXT NOT NULL,
    devices INTEGER,
    validity_s INTEGER,
    expires_unix REAL,
    {_LIMIT_COLUMNS}
);
CREATE TABLE vouchers (
    batch INTEGER NOT NULL REFERENCES batches (number),
    number INTEGER NOT NULL,
    lookup BLOB NOT NULL,  -- HMAC of the code
    first_used_unix REAL,
    revoked_unix REAL,
    used_s INTEGER NOT NULL DEFAULT 0,
    used_upload_bytes INTEGER NOT NULL DEFAULT 0,
    used_download_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX vouchers_by_lookup ON vouchers (lookup);
CREATE TABLE voucher_devices (
    batch INTEGER NOT NULL, number INTEGER NOT NULL, mac TEXT NOT NULL, last_unix REAL NOT NULL,
    PRIMARY KEY (batch, number, mac)
) WITHOUT ROWID;
CREATE TABLE charges (session_id TEXT PRIMARY KEY, at_unix REAL NOT NULL) WITHOUT ROWID;  -- lately; none is taken twice
CREATE TABLE devices (
    zone TEXT NOT NULL,
    mac TEXT NOT NULL,
    username TEXT NOT NULL,
    method TEXT NOT NULL,
    grant_json TEXT NOT NULL,
    since_unix REAL NOT NULL,
    until_unix REAL NOT NULL,
    used_s INTEGER NOT NULL DEFAULT 0,
    used_upload_bytes INTEGER NOT NULL DEFAULT 0,
    used_download_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (zone, mac)
) WITHOUT ROWID;
CREATE TABLE blocks (
    zone TEXT NOT NULL,  -- empty: every zone
    mac TEXT NOT NULL,
    note TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_unix REAL NOT NULL,
    PRIMARY KEY (zone, mac)
) WITHOUT ROWID;
CREATE TABLE texts (
    zone TEXT NOT NULL, language TEXT NOT NULL, key TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (zone, language, key)
) WITHOUT ROWID;
"""
_CONTENTS: Final = Contents(
    "accounts",
    (_USERS, _GUESTS),
    "Local users are gone until you put back a copy and restart posternd, or add them anew with `postern users add`.",
    probe="SELECT * FROM users, vouchers LIMIT 1",
)
SCHEMA_VERSION: Final = len(_CONTENTS.schema)


class AccountStore:
    """The database; `open` first, then any method, all in the same thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SqliteFile(path, _CONTENTS)
        self.notes = self._file.notes  # what an operator must know about the file, in sentences

    def open(self) -> None:
        """Open or make the file; damaged ones are moved aside. Raises StoreError when neither can be done."""
        self._file.open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, user: User, password_hash: str) -> None:
        """Add a user; raises AccountError when the name is taken or a value makes no sense."""
        check_user(user)
        row = _row(user) | {"key": name_key(user.name), "password": password_hash}
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        with self.using() as database:
            try:
                database.execute(f"INSERT INTO users ({names}) VALUES ({marks})", row)
            except sqlite3.IntegrityError as err:
                raise NameTaken(f"There is a user {user.name!r} already (upper and lower case are the same).") from err

    def change(self, user: User) -> bool:
        """Set everything of a user but name, password and time of creation; False when there is none."""
        check_user(user)
        row = {name: value for name, value in _row(user).items() if name not in ("name", "created_unix")}
        assignments = ", ".join(f"{name} = :{name}" for name in row)
        with self.using() as database:
            done = database.execute(
                f"UPDATE users SET {assignments} WHERE key = :key", row | {"key": name_key(user.name)}
            )
            return done.rowcount == 1

    def set_password(self, name: str, password_hash: str, *, instead_of: str | None = None) -> bool:
        """Set the hash, if it still is `instead_of` where that is given; False when nothing was changed."""
        with self.using() as database:
            done = database.execute(
                "UPDATE users SET password = ?1 WHERE key = ?2 AND (?3 IS NULL OR password = ?3)",
                (password_hash, name_key(name), instead_of),
            )
            return done.rowcount == 1

    def remove(self, name: str) -> bool:
        """Remove a user; False when there is none."""
        with self.using() as database:
            return database.execute("DELETE FROM users WHERE key = ?", (name_key(name),)).rowcount == 1

    def find(self, name: str) -> tuple[User, str] | None:
        """A user and its password's hash; None when there is none, also for what cannot be a name."""
        try:
            check_name(name)
        except AccountError:
            return None
        with self.using() as database:
            row = database.execute("SELECT * FROM users WHERE key = ?", (name_key(name),)).fetchone()
            return None if row is None else (_user(row), str(row["password"]))

    def users(self) -> tuple[User, ...]:
        """All users by name."""
        with self.using() as database:
            return tuple(_user(row) for row in database.execute("SELECT * FROM users ORDER BY key"))

    def fact(self, name: str) -> str | None:
        """A value that the gateway keeps beside the users."""
        with self.using() as database:
            row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row["value"])

    def keep_fact(self, name: str, value: str) -> None:
        """Keep such a value."""
        with self.using() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def copy_to(self, path: Path) -> None:
        """Make a file with everything as it is at one moment; raises StoreError or OSError."""
        self._file.copy_to(path)

    def using(self) -> AbstractContextManager[sqlite3.Connection]:
        """The open database within one transaction; SQLite's errors become StoreError."""
        return self._file.using()


def _row(user: User) -> dict[str, Any]:  # Any: what SQLite takes
    row: dict[str, Any] = {name: getattr(user.limits, name) for name in _LIMITS}
    return row | {name: getattr(user, name) for name in _COLUMNS if name not in _LIMITS}


def _user(row: sqlite3.Row) -> User:
    limits = Limits(**{name: row[name] for name in _LIMITS})
    return User(
        row["name"],
        limits,
        row["devices"],
        row["valid_until_unix"],
        bool(row["disabled"]),
        row["note"],
        row["created_unix"],
    )
