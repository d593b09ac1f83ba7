"""Past configurations, with who changed them and when, and the change that waits to be confirmed. One thread.

The whole text before and after is kept, compressed: a few kilobytes each, and no chain of differences that could break.
"""

from __future__ import annotations

import json
import zlib
from typing import Final

from gateway.sqlite_file import SqliteFile
from gateway.values import value_class

PENDING: Final = "pending"  # applied, and taken back unless confirmed
APPLIED: Final = "applied"
CONFIRMED: Final = "confirmed"
REVERTED: Final = "reverted"
FAILED: Final = "failed"  # it could not be applied, and the text before it was put back

CHANGES_SCHEMA: Final = """
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_unix REAL NOT NULL,
    who TEXT NOT NULL,
    address TEXT NOT NULL,
    sentences TEXT NOT NULL,  -- JSON list
    state TEXT NOT NULL,
    before BLOB NOT NULL,  -- texts, compressed
    after BLOB NOT NULL,
    boot_id TEXT NOT NULL,  -- of the time below
    confirm_until REAL  -- on the monotonic clock
);
"""


@value_class
class PastChange:
    """One change of the configuration."""

    number: int
    at_unix: float
    who: str
    address: str
    sentences: tuple[str, ...]
    state: str
    before: str
    after: str
    boot_id: str
    confirm_until: float | None


class ChangeStore:
    """The changes in the daemon's file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, change: PastChange, keep: int) -> int:
        """Write a change down, forget all but the newest `keep`, and return its number (not that of `change`)."""
        with self._file.using() as database:
            done = database.execute(
                "INSERT INTO changes (at_unix, who, address, sentences, state, before, after, boot_id, confirm_until) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    change.at_unix,
                    change.who,
                    change.address,
                    json.dumps(change.sentences),
                    change.state,
                    zlib.compress(change.before.encode()),
                    zlib.compress(change.after.encode()),
                    change.boot_id,
                    change.confirm_until,
                ),
            )
            number = done.lastrowid
            assert number is not None
            database.execute("DELETE FROM changes WHERE number <= ? AND state <> ?", (number - keep, PENDING))
            return number

    def set_state(self, number: int, state: str) -> None:
        """Say what became of a change."""
        with self._file.using() as database:
            database.execute("UPDATE changes SET state = ? WHERE number = ?", (state, number))

    def newest(self) -> list[PastChange]:
        """All changes, the newest first."""
        return self._select("1")

    def find(self, number: int) -> PastChange | None:
        """One change."""
        return next(iter(self._select("number = ?", number)), None)

    def pending(self) -> list[PastChange]:
        """Changes that wait to be confirmed, the newest first."""
        return self._select("state = ?", PENDING)

    def _select(self, condition: str, *values: str | int) -> list[PastChange]:
        with self._file.using() as database:
            rows = database.execute(f"SELECT * FROM changes WHERE {condition} ORDER BY number DESC", values)
            return [
                PastChange(
                    number=row["number"],
                    at_unix=row["at_unix"],
                    who=row["who"],
                    address=row["address"],
                    sentences=tuple(json.loads(row["sentences"])),
                    state=row["state"],
                    before=zlib.decompress(row["before"]).decode(),
                    after=zlib.decompress(row["after"]).decode(),
                    boot_id=row["boot_id"],
                    confirm_until=row["confirm_until"],
                )
                for row in rows
            ]
