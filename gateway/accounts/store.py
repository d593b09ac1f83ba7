"""The users, vouchers and known devices in one SQLite file, owned by the daemon; what is done with users.

Journal mode TRUNCATE with synchronous=FULL: each change is one transaction that a power cut either has or has not. Not
WAL: it needs shared memory mapped for writing, which JFFS2 (the flash of many routers) does not offer, and its extra
files would outlive a copied database; with a handful of writes a day its speed is of no use. A user's login writes
nothing; a voucher's writes its first use, and the end of its session what was used.

A file that SQLite calls damaged is moved aside, never deleted, and an empty one takes its place: the gateway serves
RADIUS and click-through without it, and the operator is told where the old one is. A file that somebody removed is
made anew. One thread uses a store.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from gateway.accounts.users import AccountError, NameTaken, User, check_name, check_user, name_key
from gateway.session.model import Limits

SCHEMA_VERSION: Final = 2
MAX_QUARANTINED: Final = 9
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
_STEPS: Final = (_USERS, _GUESTS)  # what each version of the schema added


class StoreError(Exception):
    """The store cannot be used now; the text is a sentence with the remedy."""


class AccountStore:
    """The database; `open` first, then any method, all in the same thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []  # what an operator must know about the file, in sentences
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def open(self) -> None:
        """Open or make the file; damaged ones are moved aside. Raises StoreError when neither can be done."""
        self.close()
        try:
            try:
                self._connect()
            except sqlite3.DatabaseError as err:
                if isinstance(err, sqlite3.OperationalError):
                    raise
                self._quarantine(err)
                self._connect()
        except (OSError, sqlite3.Error) as err:
            self.close()
            raise StoreError(
                f"The accounts in {self.path} cannot be used: {err}. Local users cannot log in until the state "
                "directory is writable for posternd and has room."
            ) from err

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """The open database within one transaction; SQLite's errors become StoreError."""
        if self._connection is None or self._identity != self._identity_now():
            if self._connection is not None:
                self.notes.append(f"The file of accounts {self.path} was removed or replaced while the gateway ran.")
            self.open()
        assert self._connection is not None
        try:
            with self._connection as database:
                yield database
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as err:
            damaged = isinstance(err, sqlite3.DatabaseError) and not isinstance(err, sqlite3.OperationalError)
            remedy = "Restart posternd, which moves a damaged file aside" if damaged else "Is the file system full?"
            raise StoreError(f"The accounts in {self.path} could not be read or written: {err}. {remedy}.") from err

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _connect(self) -> None:
        # SQLite would make the file readable for all; its journal takes over the mode of the file.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=2.0)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"The accounts in {self.path} were written by a newer Postern (version {version} of the file, this "
                    f"one knows {SCHEMA_VERSION}): upgrade again, or move the file away. Nothing in it was changed."
                )
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its check fails")
            if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise sqlite3.DatabaseError("it is a database of some other program")
            if version < SCHEMA_VERSION:
                steps = "".join(_STEPS[version:])
                connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            connection.execute("SELECT * FROM users, vouchers LIMIT 1")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = self._identity_now()

    def _quarantine(self, why: Exception) -> None:
        """Move the file aside under the first free name; the last name is used again and again."""
        names = [self.path.with_name(f"{self.path.name}.damaged-{number}") for number in range(1, MAX_QUARANTINED + 1)]
        aside = next((name for name in names if not name.exists()), names[-1])
        self.path.replace(aside)
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.exists() and journal.stat().st_size:  # it may hold what a repair needs
            journal.replace(aside.with_name(aside.name + "-journal"))
        self.notes.append(
            f"The file of accounts {self.path} was damaged ({why}) and is kept as {aside}. Local users are gone until "
            "you put back a copy and restart posternd, or add them anew with `postern users add`."
        )


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
