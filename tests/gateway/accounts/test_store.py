"""The file of users: what it keeps, and what becomes of a damaged one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.accounts.store import AccountStore
from gateway.accounts.users import AccountError, NameTaken, User
from gateway.session.model import Limits
from gateway.sqlite_file import MAX_QUARANTINED, StoreError

FULL = User(
    "Alice",
    Limits(60, 30, 1, 2, 2**40, 8000, 9000, 2e9, "staff"),
    devices=3,
    valid_until_unix=2.1e9,
    disabled=True,
    note="room 12",
    created_unix=1.7e9,
)


@pytest.fixture
def store(tmp_path: Path) -> AccountStore:
    """An open, empty store."""
    store = AccountStore(tmp_path / "accounts.sqlite")
    store.open()
    return store


def test_a_user_comes_back_as_it_was_kept(store: AccountStore) -> None:
    """Every field, in another connection too, whatever the case of the name."""
    store.add(FULL, "hash")
    store.close()
    again = AccountStore(store.path)
    again.open()
    assert again.find("aLICE") == (FULL, "hash")
    assert again.users() == (FULL,)
    assert again.notes == []
    again.close()


def test_names_are_taken_whatever_their_case(store: AccountStore) -> None:
    """A second spelling of the same name is refused and changes nothing."""
    store.add(User("alice"), "one")
    with pytest.raises(NameTaken, match="already"):
        store.add(User("ALICE"), "two")
    assert store.find("alice") == (User("alice"), "one")


def test_changes_reach_the_one_user_they_name(store: AccountStore) -> None:
    """Policy, password, removal; False for a name that nobody has."""
    store.add(User("alice"), "one")
    store.add(User("bob"), "two")
    assert store.change(replace(FULL, name="ALICE"))
    assert store.find("alice") == (replace(FULL, name="alice", created_unix=0.0), "one")
    assert store.set_password("Bob", "three")
    assert not store.set_password("bob", "four", instead_of="two")
    assert store.find("bob") == (User("bob"), "three")
    assert store.remove("alice")
    assert [user.name for user in store.users()] == ["bob"]
    assert [store.remove("alice"), store.change(User("alice")), store.set_password("alice", "x")] == [False] * 3


@pytest.mark.parametrize("name", ["", "x" * 10_000, "a\0b", "\ud800", "'; DROP TABLE users; --"])
def test_hostile_names_find_nobody(store: AccountStore, name: str) -> None:
    """What a guest types never reaches SQL, nor raises."""
    store.add(User("alice"), "hash")
    assert store.find(name) is None
    assert len(store.users()) == 1


def test_a_bad_value_is_refused_before_the_file_is_touched(store: AccountStore) -> None:
    """AccountError, and no user."""
    with pytest.raises(AccountError):
        store.add(User("alice", devices=-1), "hash")
    assert store.users() == ()


def test_only_the_daemon_may_read_the_file(store: AccountStore) -> None:
    """Hashes are nobody else's business."""
    assert store.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_kept_aside_and_an_empty_one_takes_its_place(tmp_path: Path, content: bytes) -> None:
    """The operator is told where the old one is; service goes on."""
    path = tmp_path / "accounts.sqlite"
    path.write_bytes(content)
    store = AccountStore(path)
    store.open()
    store.add(User("alice"), "hash")
    assert (tmp_path / "accounts.sqlite.damaged-1").read_bytes() == content
    assert "damaged-1" in store.notes[0]
    assert "postern users add" in store.notes[0]


def test_damage_in_the_middle_is_found_at_start(tmp_path: Path) -> None:
    """Overwritten pages fail the check instead of losing users silently."""
    path = tmp_path / "accounts.sqlite"
    store = AccountStore(path)
    store.open()
    for number in range(200):
        store.add(User(f"user{number}", note="x" * 200), "hash" * 20)
    store.close()
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 : 4096 * 8] = b"\xa5" * (4096 * 5)
    path.write_bytes(octets)
    store.open()
    assert store.users() == ()
    assert len(store.notes) == 1


def test_damaged_files_are_bounded(tmp_path: Path) -> None:
    """A box that damages its file at every start does not fill its flash."""
    path = tmp_path / "accounts.sqlite"
    for _ in range(MAX_QUARANTINED + 3):
        path.write_bytes(b"damaged " * 600)
        store = AccountStore(path)
        store.open()
        store.close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == MAX_QUARANTINED


def test_a_file_that_vanishes_is_made_anew(store: AccountStore) -> None:
    """Somebody removed it while the gateway ran: said, and new users are not lost in a file without a name."""
    store.add(User("alice"), "hash")
    store.path.unlink()
    store.add(User("bob"), "hash")
    store.close()
    store.open()
    assert [user.name for user in store.users()] == ["bob"]
    assert "removed" in store.notes[0]


def test_a_directory_that_is_missing_is_a_sentence_and_mends_itself(tmp_path: Path) -> None:
    """No state directory: StoreError with the path; once it is there, the store works."""
    store = AccountStore(tmp_path / "state" / "accounts.sqlite")
    with pytest.raises(StoreError, match="cannot be used"):
        store.open()
    with pytest.raises(StoreError, match="writable"):
        store.users()
    (tmp_path / "state").mkdir()
    assert store.users() == ()


def test_a_file_of_a_newer_postern_is_not_touched(tmp_path: Path) -> None:
    """A rolled-back gateway says so and leaves the users as they are."""
    path = tmp_path / "accounts.sqlite"
    AccountStore(path).open()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer Postern"):
        AccountStore(path).open()
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_kept_aside(tmp_path: Path) -> None:
    """A foreign file in our place is not filled with our tables."""
    path = tmp_path / "accounts.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    store = AccountStore(path)
    store.open()
    assert store.users() == ()
    assert "other program" in store.notes[0]


def test_a_change_cut_by_a_crash_is_undone(store: AccountStore, tmp_path: Path) -> None:
    """The rollback journal beside a copied file belongs to it: half a transaction leaves nothing behind."""
    store.add(User("alice"), "hash")
    with sqlite3.connect(store.path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA cache_size = 1")
        database.execute("PRAGMA cache_spill = 1")
        database.execute("BEGIN")
        for number in range(200):
            database.execute("INSERT INTO facts VALUES (?, ?)", (str(number), "x" * 2000))
        crashed = tmp_path / "crashed.sqlite"
        crashed.write_bytes(store.path.read_bytes())
        journal = store.path.with_name(store.path.name + "-journal").read_bytes()
        (tmp_path / "crashed.sqlite-journal").write_bytes(journal)
        database.execute("ROLLBACK")
    database.close()
    assert len(journal) > 0
    after = AccountStore(crashed)
    after.open()
    assert after.notes == []
    assert after.users() == (User("alice"),)
    assert after.fact("0") is None
