"""One SQLite file: made, brought up to date, quarantined, refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.sqlite_file import MAX_QUARANTINED, Contents, SqliteFile, StoreError

ONE = Contents("sheep", ("CREATE TABLE sheep (name TEXT PRIMARY KEY)",), "Count them anew.")
TWO = Contents(
    "sheep", (*ONE.schema, "ALTER TABLE sheep ADD COLUMN wool INTEGER NOT NULL DEFAULT 7"), "Count them anew."
)


def opened(path: Path, contents: Contents = ONE) -> SqliteFile:
    """A file that is open."""
    file = SqliteFile(path, contents)
    file.open()
    return file


def add(file: SqliteFile, name: str) -> None:
    """One row."""
    with file.using() as database:
        database.execute("INSERT INTO sheep (name) VALUES (?)", (name,))


def names(file: SqliteFile) -> list[str]:
    """All rows."""
    with file.using() as database:
        return [row["name"] for row in database.execute("SELECT name FROM sheep ORDER BY name")]


def test_an_older_file_is_brought_up_to_date_and_a_newer_one_refused(tmp_path: Path) -> None:
    """Rows stay; whoever went back to an older version is told, and nothing is changed."""
    path = tmp_path / "sheep.db"
    file = opened(path)
    add(file, "dolly")
    file.close()
    newer = opened(path, TWO)
    with newer.using() as database:
        assert tuple(database.execute("SELECT name, wool FROM sheep").fetchone()) == ("dolly", 7)
    newer.close()
    with pytest.raises(StoreError, match=r"newer Postern.*upgrade again"):
        opened(path)
    assert names(opened(path, TWO)) == ["dolly"]


def test_a_use_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error within takes back what was done before it."""
    file = opened(tmp_path / "sheep.db")
    add(file, "dolly")

    def add_two() -> None:
        with file.using() as database:
            database.execute("INSERT INTO sheep VALUES ('shaun')")
            database.execute("INSERT INTO sheep VALUES ('dolly')")

    with pytest.raises(StoreError) as caught:
        add_two()
    assert not caught.value.temporary
    assert names(file) == ["dolly"]


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    """Under names of its own, of which there are not endlessly many."""
    path = tmp_path / "sheep.db"
    for _ in range(MAX_QUARANTINED + 3):
        path.write_bytes(content)
        file = opened(path)
        assert names(file) == []
        assert "Count them anew." in file.notes[0]
        file.close()
    assert len(list(tmp_path.glob("sheep.db.damaged-*"))) == MAX_QUARANTINED


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Also after a copy was put back that everybody could read."""
    path = tmp_path / "sheep.db"
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    """And said to be so."""
    file = opened(tmp_path / "sheep.db")
    add(file, "dolly")
    (tmp_path / "sheep.db").unlink()
    assert names(file) == []
    assert "was removed" in file.notes[0]


def test_a_directory_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    """Trying again may help."""
    with pytest.raises(StoreError, match="state directory writable") as caught:
        opened(tmp_path / "none" / "sheep.db")
    assert caught.value.temporary
    assert not list(tmp_path.iterdir())
