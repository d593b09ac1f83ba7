"""One SQLite file of the daemon: opened safely, quarantined when it is damaged, one transaction per use.

Journal mode TRUNCATE with synchronous=FULL: a change is there or not after a power cut, and it needs no shared memory,
which flash file systems of routers lack. A file that SQLite calls damaged is moved aside, never deleted, and an empty
one takes its place. A file that somebody removed is made anew. One thread uses a file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from gateway.values import value_class

MAX_QUARANTINED: Final = 9


class StoreError(Exception):
    """The file cannot be used now; the text is a sentence with the remedy. `temporary`: trying again may help."""

    def __init__(self, sentence: str, *, temporary: bool = True) -> None:
        super().__init__(sentence)
        self.temporary = temporary


@value_class
class Contents:
    """What a file holds: its statements by version of the schema, and the words for people."""

    what: str  # "administrators"
    schema: tuple[str, ...]  # statements that lead from each version to the next, beginning with an empty file
    remedy: str  # what becomes of it when it is lost
    probe: str = ""  # a statement that fails when the tables are not those of the schema


class SqliteFile:
    """The file; `open` first, then `using`, all in one thread. `notes` are sentences for the operator."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self.notes: list[str] = []
        self._contents = contents
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def open(self) -> None:
        """Open or make the file; a damaged one is moved aside. Raises StoreError when neither can be done."""
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
                f"The {self._contents.what} in {self.path} cannot be used: {err}. Make the state directory writable "
                "for posternd, with some room."
            ) from err

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """The database within one transaction; SQLite's errors become StoreError."""
        if self._connection is None or self._identity != self._identity_now():
            if self._connection is not None:
                self.notes.append(f"The file {self.path} was removed or replaced while the gateway ran.")
            self.open()
        assert self._connection is not None
        try:
            with self._connection as database:
                yield database
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as err:
            temporary = isinstance(err, sqlite3.OperationalError)
            remedy = "Is the file system full?" if temporary else "Restart posternd, which moves a damaged file aside."
            sentence = f"The {self._contents.what} in {self.path} could not be read or written: {err}. {remedy}"
            raise StoreError(sentence, temporary=temporary) from err

    def copy_to(self, path: Path) -> None:
        """Make a file with everything as it is at one moment, by SQLite's own backup; raises StoreError or OSError."""
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path)) as copy, self.using() as database:
            database.backup(copy)

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _connect(self) -> None:
        # SQLite would make the file readable for all; its journal takes over the mode of the file.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Sessions of a browser, hashes of passwords: nobody else's to read, also when a copy was put back carelessly.
        self.path.chmod(0o600)
        connection = sqlite3.connect(self.path, timeout=2.0)
        try:
            connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode = TRUNCATE", "synchronous = FULL", "trusted_schema = OFF"):
                connection.execute(f"PRAGMA {pragma}")
            newest = len(self._contents.schema)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise StoreError(
                    f"The {self._contents.what} in {self.path} were written by a newer Postern (version {version} of "
                    f"the file, this one knows {newest}): upgrade again, or move the file away. Nothing was changed."
                )
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its check fails")
            if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise sqlite3.DatabaseError("it is a database of some other program")
            for done, statements in enumerate(self._contents.schema[version:], version + 1):
                connection.executescript(f"BEGIN; {statements}; PRAGMA user_version = {done}; COMMIT;")
            if self._contents.probe:
                connection.execute(self._contents.probe)
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
            f"The file of {self._contents.what} {self.path} was damaged ({why}) and is kept as {aside}. "
            f"{self._contents.remedy}"
        )
