"""The journal: what survives a torn tail, a full disk, a compaction."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import journal as journal_module
from gateway.journal import Change, Journal, JournalError, Key, encode, replay

KEYS = st.one_of(st.text(max_size=8), st.integers(0, 1 << 60), st.tuples(st.text(max_size=4), st.binary(max_size=6)))
VALUES = st.one_of(
    st.none(), st.integers(-5, 5), st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=3)
)
CHANGES = st.lists(st.tuples(st.sampled_from(["session", "lease"]), KEYS, VALUES), max_size=5)


def record(number: int, *changes: Change) -> bytes:
    """A record as the journal writes it."""
    return encode("00000001", number, 0.0, changes)


def opened(path: Path, state: list[Change] | None = None) -> Journal:
    """An open journal over `path`."""
    journal = Journal(path, lambda: state or [], wall_clock=lambda: 1_800_000_000.0)
    journal.open()
    return journal


@given(st.lists(CHANGES, max_size=6))
def test_what_was_appended_is_played_back(rows: list[list[Change]]) -> None:
    """The state is what the changes leave, in order; a value of None removes its key."""
    expected: dict[str, dict[Key, object]] = {}
    for changes in rows:
        for kind, key, value in changes:
            keys = expected.setdefault(kind, {})
            if value is None:
                keys.pop(key, None)
            else:
                keys[key] = value
    data = b"".join(record(number, *changes) for number, changes in enumerate(rows, 1))
    played, offset = replay(data)
    assert offset == len(data)
    assert {kind: keys for kind, keys in played.state.items() if keys} == {k: v for k, v in expected.items() if v}


@given(st.lists(CHANGES, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(
    rows: list[list[Change]], data: st.DataObject
) -> None:
    """Nothing of a torn record is taken, everything before it is."""
    pieces = [record(number, *changes) for number, changes in enumerate(rows, 1)]
    whole = b"".join(pieces)
    cut = data.draw(st.integers(0, len(whole)))
    played, offset = replay(whole[:cut])
    assert replay(whole[:offset])[0].state == played.state
    assert offset <= cut
    ends = [sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)]
    assert offset == max(end for end in ends if end <= cut)
    assert bool(played.notes) == (offset < cut)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    """Garbage is reported, never raised."""
    played, offset = replay(data)
    assert offset == len(data) or played.notes


def test_a_flipped_bit_in_any_octet_is_found() -> None:
    """The check sum covers the whole record, so that no damaged value is ever used."""
    first, second = record(1, ("session", "a", 1)), record(2, ("session", "a", 2))
    for position in range(len(second)):
        damaged = bytearray(second)
        damaged[position] ^= 0x10
        played, offset = replay(first + bytes(damaged))
        assert played.kind("session") == {"a": 1}
        assert offset == len(first)


def test_a_torn_tail_is_cut_off_and_appending_goes_on(tmp_path: Path) -> None:
    """After a crash in the middle of a write the next record follows the last whole one."""
    path = tmp_path / "journal"
    path.write_bytes(record(1, ("session", "a", 1)) + record(2, ("session", "b", 2))[:-3])
    journal = Journal(path, list)
    replayed = journal.open()
    assert replayed.kind("session") == {"a": 1}
    assert "cut off" in replayed.notes[0]
    journal.append([("session", "c", 3)])
    journal.close()
    assert replay(path.read_bytes())[0].kind("session") == {"a": 1, "c": 3}


def test_a_file_that_is_no_journal_is_set_aside(tmp_path: Path) -> None:
    """The gateway starts with nothing rather than not at all, and the file is kept for whoever wants to look."""
    path = tmp_path / "journal"
    path.write_bytes(b"this was never a journal")
    journal = Journal(path, list, wall_clock=lambda: 42.0)
    assert "set aside" in journal.open().notes[0]
    journal.close()
    assert (tmp_path / "journal.damaged-42").read_bytes() == b"this was never a journal"


def test_a_directory_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    """The operator hears which file and what to check."""
    (tmp_path / "state").write_text("a file where a directory should be")
    journal = Journal(tmp_path / "state" / "journal", list)
    with pytest.raises(JournalError, match="check that its directory can be written"):
        journal.open()


@contextmanager
def largest_file(octets: int) -> Iterator[None]:
    """Let this process write no file beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing_and_is_reported(tmp_path: Path) -> None:
    """Records wait in memory while there is no space, and are written in order when there is."""
    path = tmp_path / "journal"
    journal = opened(path)
    journal.append([("session", "a", 1)])
    with largest_file(journal.size_bytes + 10):
        journal.append([("session", "a", 2)])
        journal.append([("session", "b", 1)])
        assert "free some space" in journal.trouble
        assert journal.waiting_records == 2
    assert replay(path.read_bytes())[0].kind("session") == {"a": 1}
    journal.close()
    assert replay(path.read_bytes())[0].kind("session") == {"a": 2, "b": 1}


def test_a_file_that_has_grown_is_rewritten_while_appending_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction keeps what lives, and what is appended while it runs."""
    monkeypatch.setattr(journal_module, "COMPACT_AT_LEAST_BYTES", 20_000)
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.01)
    path = tmp_path / "journal"
    living: dict[str, int] = {}

    async def scenario() -> Journal:
        journal = Journal(path, lambda: [("session", key, value) for key, value in list(living.items())])
        journal.open()
        task = asyncio.create_task(journal.run())
        for number in range(3000):
            key = f"client {number % 50}"
            living[key] = number
            journal.append([("session", key, number)])
            if number % 10 == 0:
                await asyncio.sleep(0)
        for _ in range(200):
            if journal.compactions:
                break
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        journal.close()
        return journal

    journal = asyncio.run(scenario())
    assert journal.compactions >= 1
    assert replay(path.read_bytes())[0].kind("session") == living
    assert not path.with_name("journal.new").exists()


def test_a_rewriting_that_is_cut_short_leaves_nothing_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was appended before and meanwhile is in the file that stays."""
    monkeypatch.setattr(journal_module, "COMPACT_AT_LEAST_BYTES", 1000)
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.001)
    monkeypatch.setattr(journal_module, "SLICE_CHANGES", 1)
    path = tmp_path / "journal"
    beside = path.with_name("journal.new")
    living = {f"client {number}": number for number in range(2000)}

    async def scenario() -> None:
        journal = Journal(path, lambda: [("session", key, value) for key, value in living.items()])
        journal.open()
        task = asyncio.create_task(journal.run())
        journal.append([("session", key, number) for key, number in living.items()])
        while not beside.exists():
            await asyncio.sleep(0)
        living["late"] = 1
        journal.append([("session", "late", 1)])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert journal.compactions == 0
        journal.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert not beside.exists()
    assert replay(path.read_bytes())[0].kind("session") == living


def test_sequence_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """Whoever follows from a number on misses nothing and sees nothing twice."""
    path = tmp_path / "journal"
    first = opened(path)
    first.append([("meta", "a", 1)])
    first.append([("meta", "a", 2)])
    first.close()
    second = Journal(path, list)
    replayed = second.open()
    second.append([("meta", "a", 3)])
    second.close()
    assert replayed.sequence == 2
    assert replay(path.read_bytes())[0].sequence == 3


def test_trouble_is_told_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that refuses to sync or a directory that cannot be synced is said, and taken back when it works again."""
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.001)
    monkeypatch.setattr(journal_module, "COMPACT_AT_LEAST_BYTES", 1000)
    works = True
    fsync, fdatasync = os.fsync, os.fdatasync

    def maybe(really: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            if not works and not (really is fsync and stat.S_ISREG(os.fstat(descriptor).st_mode)):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            really(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", maybe(fsync))
    monkeypatch.setattr(os, "fdatasync", maybe(fdatasync))
    path = tmp_path / "j"

    async def story() -> None:
        nonlocal works
        journal = opened(path, [("meta", "a", 1)])
        task = asyncio.create_task(journal.run())
        works = False
        journal.append([("meta", "a", bytes(4000))])
        while journal.compactions < 1:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert "storage may be failing" in journal.trouble
        journal.append([("meta", "b", 2)])  # after the rewriting: it goes into the file that is there now
        works = True
        journal.append([("meta", "c", 3)])
        while journal.trouble:
            await asyncio.sleep(0.001)
        task.cancel()
        journal.close()
        played, _ = replay(path.read_bytes())
        assert played.kind("meta") == {"a": 1, "b": 2, "c": 3}

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_gateway_that_is_restarted_often_compacts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts at the start is what is alive in the file, not how large it has become."""
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.001)
    monkeypatch.setattr(journal_module, "COMPACT_AT_LEAST_BYTES", 1000)
    path = tmp_path / "j"

    async def life() -> int:
        journal = opened(path, [("meta", "a", 1)])
        task = asyncio.create_task(journal.run())
        journal.append([("meta", "a", 1)])
        async with asyncio.timeout(30):
            while path.stat().st_size > 1000:
                await asyncio.sleep(0.001)
        task.cancel()
        journal.close()
        return journal.compactions

    path.write_bytes(b"".join(record(number, ("meta", "a", 1)) for number in range(1, 500)))
    assert asyncio.run(life()) == 1
