"""Administrators, their sessions and tokens, and the audit log in one SQLite file (`admin.db`, mode 0600).

Plain rows in and out; what they mean is in the modules beside. Everything here blocks, and belongs to one thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.accounts.users import name_key
from gateway.admin.administrators import Administrator
from gateway.admin.audit import Entry
from gateway.admin.credentials import Session, Token
from gateway.admin.roles import Role, Scope
from gateway.config_history import CHANGES_SCHEMA, ChangeStore
from gateway.sqlite_file import Contents, SqliteFile

Field = str | int | float | bytes | tuple[str, ...] | None
_COLUMNS: Final = (
    "name",
    "role",
    "password",
    "created_unix",
    "disabled",
    "totp_secret",
    "totp_last_step",
    "recovery",
)
PLACES_KEPT: Final = 300
SLACK: Final = 64  # audit entries beyond the bound before the oldest are deleted, so that not every entry deletes one

_SCHEMA: Final = """
CREATE TABLE administrators (
    key TEXT PRIMARY KEY,  -- the name without case
    name TEXT NOT NULL,
    role INTEGER NOT NULL,
    password TEXT NOT NULL,
    created_unix REAL NOT NULL,
    disabled INTEGER NOT NULL,
    totp_secret BLOB,
    totp_last_step INTEGER NOT NULL,
    recovery TEXT NOT NULL  -- JSON list of digests
) WITHOUT ROWID;
CREATE TABLE sessions (
    digest BLOB PRIMARY KEY,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    boot_id TEXT NOT NULL,  -- times are on the clock of one boot
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    started_unix REAL NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_unix REAL NOT NULL,
    expires_unix REAL
) WITHOUT ROWID;
CREATE TABLE places (  -- from where an administrator has logged in
    owner TEXT NOT NULL,
    place TEXT NOT NULL,
    at_unix REAL NOT NULL,
    PRIMARY KEY (owner, place)
) WITHOUT ROWID;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_unix REAL NOT NULL,
    who TEXT NOT NULL,
    via TEXT NOT NULL,
    address TEXT NOT NULL,
    method TEXT NOT NULL,
    summary TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_CONTENTS: Final = Contents(
    "administrators",
    (_SCHEMA, CHANGES_SCHEMA),
    "Put back a copy and restart posternd, or set the gateway up anew with the code of `postern setup-code`.",
)


class AdminStore:
    """The rows; `open` first, all in one thread. Every method raises StoreError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _CONTENTS)
        self.changes = ChangeStore(self._file)  # of the configuration

    @property
    def notes(self) -> list[str]:
        """What an operator must know about the file, in sentences."""
        return self._file.notes

    def open(self) -> None:
        """Open or make the file; a damaged one is moved aside."""
        self._file.open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def copy_to(self, path: Path) -> None:
        """Make a file with everything as it is at one moment; raises StoreError or OSError."""
        self._file.copy_to(path)

    # -- administrators ---------------------------------------------------------------------------------------------

    def administrators(self) -> list[Administrator]:
        """All of them by name."""
        with self._file.using() as database:
            return [
                Administrator(
                    name=row["name"],
                    role=Role(row["role"]),
                    password=row["password"],
                    created_unix=row["created_unix"],
                    disabled=bool(row["disabled"]),
                    totp_secret=row["totp_secret"],
                    totp_last_step=row["totp_last_step"],
                    recovery=tuple(json.loads(row["recovery"])),
                )
                for row in database.execute("SELECT * FROM administrators ORDER BY key")
            ]

    def add_administrator(self, one: Administrator) -> None:
        """Add an administrator."""
        row = {name: _column(getattr(one, name)) for name in _COLUMNS} | {"key": one.key}
        names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._file.using() as database:
            database.execute(f"INSERT INTO administrators ({names}) VALUES ({marks})", row)

    def change_administrator(self, key: str, changes: Mapping[str, Field]) -> None:
        """Set some fields and leave the others, which may be about to be set by somebody else."""
        assert changes.keys() <= set(_COLUMNS)
        assignments = ", ".join(f"{name} = :{name}" for name in changes)
        row = {name: _column(value) for name, value in changes.items()}
        with self._file.using() as database:
            database.execute(f"UPDATE administrators SET {assignments} WHERE key = :key", row | {"key": key})

    def remove_administrator(self, name: str) -> None:
        """Remove an administrator with all sessions, tokens and known places."""
        with self._file.using() as database:
            database.execute("DELETE FROM administrators WHERE key = ?", (name_key(name),))
            for table in ("sessions", "tokens", "places"):
                database.execute(f"DELETE FROM {table} WHERE owner = ?", (name_key(name),))

    # -- sessions and tokens ----------------------------------------------------------------------------------------

    def sessions(self, boot_id: str) -> list[Session]:
        """The sessions of this boot; those of earlier ones are deleted, for their times mean nothing now."""
        with self._file.using() as database:
            database.execute("DELETE FROM sessions WHERE boot_id <> ?", (boot_id,))
            return [
                Session(
                    id=row["id"],
                    digest=row["digest"],
                    owner=row["owner"],
                    started_at=row["started_at"],
                    seen_at=row["seen_at"],
                    address=row["address"],
                    agent=row["agent"],
                    started_unix=row["started_unix"],
                )
                for row in database.execute("SELECT * FROM sessions")
            ]

    def put_session(self, one: Session, boot_id: str) -> None:
        """Add or replace a session."""
        with self._file.using() as database:
            database.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    one.digest,
                    one.id,
                    one.owner,
                    boot_id,
                    one.started_at,
                    one.seen_at,
                    one.started_unix,
                    one.address,
                    one.agent,
                ),
            )

    def remove_sessions(self, digests: list[bytes]) -> None:
        """Remove sessions."""
        with self._file.using() as database:
            database.executemany("DELETE FROM sessions WHERE digest = ?", [(digest,) for digest in digests])

    def tokens(self) -> list[Token]:
        """All tokens."""
        with self._file.using() as database:
            return [
                Token(
                    id=row["id"],
                    digest=row["digest"],
                    owner=row["owner"],
                    name=row["name"],
                    scopes=frozenset(Scope(word) for word in row["scopes"].split()),
                    created_unix=row["created_unix"],
                    expires_unix=row["expires_unix"],
                )
                for row in database.execute("SELECT * FROM tokens ORDER BY created_unix")
            ]

    def add_token(self, one: Token) -> None:
        """Add a token."""
        with self._file.using() as database:
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    one.id,
                    one.digest,
                    one.owner,
                    one.name,
                    " ".join(sorted(one.scopes)),
                    one.created_unix,
                    one.expires_unix,
                ),
            )

    def remove_token(self, token_id: str) -> None:
        """Remove a token."""
        with self._file.using() as database:
            database.execute("DELETE FROM tokens WHERE id = ?", (token_id,))

    # -- places -----------------------------------------------------------------------------------------------------

    def places(self) -> list[tuple[str, str]]:
        """Owner and place of earlier logins."""
        with self._file.using() as database:
            return [tuple(row) for row in database.execute("SELECT owner, place FROM places ORDER BY at_unix")]

    def add_place(self, owner: str, place: str, at_unix: float) -> None:
        """Remember a place; beyond a bound the oldest is forgotten."""
        with self._file.using() as database:
            database.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (owner, place, at_unix))
            database.execute(
                "DELETE FROM places WHERE (owner, place) NOT IN "
                "(SELECT owner, place FROM places ORDER BY at_unix DESC LIMIT ?)",
                (PLACES_KEPT,),
            )

    # -- audit ------------------------------------------------------------------------------------------------------

    def add_entry(self, entry: Entry, keep: int) -> None:
        """Write an entry; far beyond `keep` the oldest are deleted."""
        with self._file.using() as database:
            database.execute(
                "INSERT INTO audit (at_unix, who, via, address, method, summary, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (entry.at_unix, entry.who, entry.via, entry.address, entry.method, entry.summary, entry.outcome),
            )
            oldest, newest = database.execute("SELECT min(number), max(number) FROM audit").fetchone()
            if newest - oldest >= keep + SLACK:
                database.execute("DELETE FROM audit WHERE number <= ?", (newest - keep,))

    def entries(
        self, *, who: str = "", method: str = "", search: str = "", offset: int = 0, limit: int = 100
    ) -> tuple[int, list[Entry]]:
        """How many entries match, and a page of them, newest first. `method` is the beginning of a method's name."""
        wanted, values = ["1"], []
        for column, text in (("who", who), ("method", method), ("summary", search)):
            if text:
                pattern = _escaped(text)
                wanted.append(f"{column} LIKE ? ESCAPE '!'")
                values.append({"who": pattern, "method": f"{pattern}%", "summary": f"%{pattern}%"}[column])
        condition = " AND ".join(wanted)
        with self._file.using() as database:
            total = database.execute(f"SELECT count(*) FROM audit WHERE {condition}", values).fetchone()[0]
            rows = database.execute(
                f"SELECT * FROM audit WHERE {condition} ORDER BY number DESC LIMIT ? OFFSET ?", [*values, limit, offset]
            )
            names = ("at_unix", "who", "via", "address", "method", "summary", "outcome")
            return total, [Entry(*(row[name] for name in names)) for row in rows]

    # -- facts ------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        """A value that is kept beside."""
        with self._file.using() as database:
            row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row["value"])

    def keep_fact(self, name: str, value: str | None) -> None:
        """Keep such a value, or forget it."""
        with self._file.using() as database:
            if value is None:
                database.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _column(value: Field) -> str | int | float | bytes | None:
    """A field of an administrator as SQLite keeps it."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _escaped(text: str) -> str:
    """Text for LIKE, in which nothing stands for anything else."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
