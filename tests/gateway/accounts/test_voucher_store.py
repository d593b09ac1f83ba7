"""Vouchers in the database: found by code only, counted once, listed in pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounts.codes import grouped
from gateway.accounts.store import AccountStore
from gateway.accounts.users import AccountError
from gateway.accounts.voucher_store import Filter, VoucherStore
from gateway.accounts.vouchers import Batch, VoucherState, state_of
from gateway.addresses import MacAddress
from gateway.session.model import ClientKey, Counters, Limits, Usage

KEY = bytes(range(32))
UNIX = 1_800_000_000.0
BATCH = Batch(0, bytes(16), "digits", 10, UNIX, note="bar 50% off")
CLIENT = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2a"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoucherStore]:
    """An empty store."""
    accounts = AccountStore(tmp_path / "accounts.sqlite")
    accounts.open()
    yield VoucherStore(accounts, KEY)
    accounts.close()


def usage(session_id: str, seconds: int = 10, octets: int = 100, *, back: bool = False) -> Usage:
    """What a session under a voucher used."""
    return Usage(session_id, CLIENT, "voucher-1-1", seconds, Counters(octets, 1, 2 * octets, 1), back)


def test_a_voucher_is_found_by_its_code_as_typed(store: VoucherStore) -> None:
    """Grouped, without groups, with blanks; another code finds nothing."""
    batch, made = store.create(BATCH, 3)
    for number, code in made:
        for typed in (code, grouped(code), f" {code[:3]} {code[3:]}"):
            found = store.find(typed)
            assert found is not None
            assert (found.batch, found.number) == (batch, number)
    assert store.find("0000000000") is None
    assert store.find("nothing") is None


def test_the_database_holds_no_code(store: VoucherStore, tmp_path: Path) -> None:
    """Whoever steals the file has no voucher."""
    _, made = store.create(BATCH, 5)
    content = (tmp_path / "accounts.sqlite").read_bytes()
    for _, code in made:
        assert code.encode() not in content
        assert grouped(code).encode() not in content


def test_codes_come_again_from_the_key_alone(store: VoucherStore) -> None:
    """A list shows the codes that were printed."""
    batch, made = store.create(BATCH, 5)
    _, rows = store.listing(Filter(batch=batch.number), UNIX, 0, 10)
    assert [(voucher.number, code) for voucher, code, _ in rows] == made


def test_a_number_whose_code_exists_is_passed_over(store: VoucherStore) -> None:
    """Two vouchers never have one code; here two batches have the same salt, and thus the same codes."""
    _, first = store.create(BATCH, 2)
    _, second = store.create(BATCH, 2)
    assert [number for number, _ in first] == [1, 2]
    assert [number for number, _ in second] == [3, 4]


def test_another_key_is_noticed(store: VoucherStore) -> None:
    """A database that was restored without its key says so."""
    assert store.check_key()
    assert store.check_key()
    assert not VoucherStore(store._store, bytes(32)).check_key()


def test_use_is_counted_once_however_often_it_is_written(store: VoucherStore) -> None:
    """A journal that is replayed takes nobody's time twice."""
    store.create(BATCH, 1)
    for _ in range(3):
        store.charge([(usage("a-1"), (1, 1)), (usage("a-2", 5, 50), (1, 1))], UNIX)
    found = store.get(1, 1)
    assert found is not None
    assert (found.used_s, found.upload_bytes, found.download_bytes) == (15, 150, 300)


def test_the_first_use_is_the_first_only(store: VoucherStore) -> None:
    """Validity runs from it, whichever device comes later."""
    store.create(replace(BATCH, validity_s=3600), 1)
    first = store.get(1, 1)
    assert first is not None
    assert store.begin(first, "02:00:5e:10:00:01", None).first_used_unix is None, "the clock was never set"
    assert store.begin(first, "02:00:5e:10:00:01", UNIX).first_used_unix == UNIX
    again = store.get(1, 1)
    assert again is not None
    assert store.begin(again, "02:00:5e:10:00:02", UNIX + 50).first_used_unix == UNIX
    _, rows = store.listing(Filter(), UNIX, 0, 10)
    assert rows[0][2] == ["02:00:5e:10:00:02", "02:00:5e:10:00:01"]


def test_lists_are_searched_and_paged(store: VoucherStore) -> None:
    """By part of a code, MAC, id and note; a percent sign is a character like any other."""
    batch, made = store.create(BATCH, 30)
    store.create(replace(BATCH, note="terrace", salt=b"\1" * 16), 2)
    first = store.get(batch.number, 7)
    assert first is not None
    store.begin(first, "02:00:5e:10:00:2a", UNIX)

    def found(search: str) -> list[str]:
        return [voucher.id for voucher, _, _ in store.listing(Filter(search=search), UNIX, 0, 100)[1]]

    assert "1-3" in found(made[2][1][2:9])
    assert found(grouped(made[2][1])) == ["1-3"]
    assert found("5e:10:00:2a") == ["1-7"]
    assert found("2-1") == ["2-1"]
    assert found("terr") == ["2-1", "2-2"]
    assert len(found("50%")) == 30
    assert found("5_%") == []
    total, rows = store.listing(Filter(batch=1), UNIX, 28, 10)
    assert total == 30
    assert [voucher.number for voucher, _, _ in rows] == [29, 30]
    assert [voucher.number for voucher, _, _ in store.listing(Filter(state=VoucherState.ACTIVE), UNIX, 0, 9)[1]] == [7]


def test_revoking_says_which_were_not_before(store: VoucherStore) -> None:
    """Their sessions may have to end."""
    store.create(BATCH, 3)
    assert store.revoke(1, 2, UNIX) == ["voucher-1-2"]
    assert store.revoke(1, None, UNIX) == ["voucher-1-1", "voucher-1-3"]
    assert store.revoke(1, None, UNIX) == []
    (row,) = store.batches()
    assert (row.count, row.used, row.revoked) == (3, 0, 3)


def test_a_removed_batch_is_gone_and_its_number_never_comes_again(store: VoucherStore) -> None:
    """Accounting of old sessions names it."""
    store.create(BATCH, 2)
    assert store.remove(1)
    assert not store.remove(1)
    assert store.create(BATCH, 1)[0].number == 2


def test_codes_that_could_be_guessed_are_not_made(store: VoucherStore) -> None:
    """What is there already counts."""
    store.create(replace(BATCH, length=8), 900)
    with pytest.raises(AccountError, match="greater length"):
        store.create(replace(BATCH, length=8), 101)
    assert store.batches()[0].count == 900


def test_a_database_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    """Users of an older Postern stay, and vouchers can be made."""
    path = tmp_path / "accounts.sqlite"
    accounts = AccountStore(path)
    accounts.open()
    accounts.close()
    with sqlite3.connect(path) as database:
        for table in ("batches", "vouchers", "voucher_devices", "charges", "devices", "blocks", "texts"):
            database.execute(f"DROP TABLE {table}")
        database.execute("INSERT INTO facts VALUES ('hash_cost', 'ln=14,r=8,p=1')")
        database.execute("PRAGMA user_version = 1")
    database.close()
    accounts = AccountStore(path)
    accounts.open()
    assert not accounts.notes
    assert accounts.fact("hash_cost") == "ln=14,r=8,p=1"
    assert VoucherStore(accounts, KEY).create(BATCH, 1)[0].number == 1
    accounts.close()


_budget = st.one_of(st.none(), st.integers(1, 20))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    limits=st.tuples(_budget, _budget, _budget, _budget),
    used=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
    validity=st.one_of(st.none(), st.integers(60, 90)),
    expires=st.one_of(st.none(), st.integers(1, 120)),
    first=st.one_of(st.none(), st.integers(0, 60)),
    revoked=st.booleans(),
    now=st.integers(0, 150),
)
def test_rows_are_chosen_by_the_state_that_the_policy_says(
    store: VoucherStore,
    limits: tuple[int | None, ...],
    used: tuple[int, int, int],
    validity: int | None,
    expires: int | None,
    first: int | None,
    revoked: bool,
    now: int,
) -> None:
    """The database's words for a state and the policy's are the same."""
    time_s, upload, download, total = limits
    budget = Limits(session_time_s=time_s, upload_bytes=upload, download_bytes=download, total_bytes=total)
    batch = replace(BATCH, validity_s=validity, expires_unix=None if expires is None else UNIX + expires, limits=budget)
    made, ((number, _),) = store.create(batch, 1)
    item = store.get(made.number, number)
    assert item is not None
    if first is not None:
        store.begin(item, "02:00:5e:10:00:01", UNIX + first)
    seconds, up, down = used
    spent = Usage(f"s-{made.number}", CLIENT, item.name, seconds, Counters(up, 0, down, 0), False)
    store.charge([(spent, (made.number, number))], UNIX)
    if revoked:
        store.revoke(made.number, number, UNIX)
    item = store.get(made.number, number)
    assert item is not None
    state = state_of(item, UNIX + now)
    for wanted in VoucherState:
        total_found, _ = store.listing(Filter(batch=made.number, state=wanted), UNIX + now, 0, 1)
        assert total_found == (wanted is state)
