"""Vouchers in the accounts' database: batches, finding one by its code, what was used, lists with search and pages.

Every method is one transaction and runs in the accounts' thread. Codes are derived (`codes`), the database has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Final

from gateway.accounts.codes import derive, key_mark, lookup, readings, strong_enough
from gateway.accounts.store import AccountStore
from gateway.accounts.users import AccountError
from gateway.accounts.vouchers import MAX_VOUCHERS, Batch, Voucher, VoucherState, check_batch
from gateway.session.model import Limits, Usage
from gateway.values import value_class

KEY_FACT: Final = "voucher_key"
MAX_DEVICES_LISTED: Final = 64
LEAST_SEARCHED: Final = 3  # characters of a code that a search looks for: fewer are in half of all codes
CHARGES_KEPT_S: Final = 7 * 86400
_LIMITS: Final = tuple(item.name for item in fields(Limits))
_BATCH: Final = tuple(item.name for item in fields(Batch) if item.name not in ("number", "limits"))
_NEVER: Final = 9e18
# The words of `vouchers.state_of`, for choosing rows; a comparison with an absent limit is NULL, which is not true.
_STATE: Final = f"""CASE
    WHEN v.revoked_unix IS NOT NULL THEN 'revoked'
    WHEN min(coalesce(b.expires_unix, {_NEVER}), coalesce(v.first_used_unix + b.validity_s, {_NEVER})) <= :now
        THEN 'expired'
    WHEN v.used_s >= b.session_time_s OR v.used_upload_bytes >= b.upload_bytes
        OR v.used_download_bytes >= b.download_bytes
        OR v.used_upload_bytes + v.used_download_bytes >= b.total_bytes THEN 'used-up'
    WHEN v.first_used_unix IS NULL THEN 'unused'
    ELSE 'active' END"""
_VOUCHER: Final = (
    "SELECT v.number AS voucher, v.first_used_unix, v.revoked_unix, v.used_s, v.used_upload_bytes, "
    "v.used_download_bytes, b.* FROM vouchers v JOIN batches b ON b.number = v.batch"
)


@value_class
class BatchRow:
    """A batch and how many of its vouchers were used, and revoked."""

    batch: Batch
    count: int
    used: int
    revoked: int


@value_class
class Filter:
    """Which vouchers a list has. `search` is part of a code, a MAC address, or a word of the batch's note."""

    batch: int | None = None
    state: VoucherState | None = None
    search: str = ""


class VoucherStore:
    """The vouchers of one database; `key` derives their codes."""

    def __init__(self, store: AccountStore, key: bytes) -> None:
        self._store = store
        self._key = key

    def check_key(self) -> bool:
        """Whether the vouchers were made with this key; an empty database takes it as its own."""
        mark = key_mark(self._key)
        known = self._store.fact(KEY_FACT)
        if known is None:
            self._store.keep_fact(KEY_FACT, mark)
        return known in (None, mark)

    def create(self, batch: Batch, count: int) -> tuple[Batch, list[tuple[int, str]]]:
        """Make a batch (its `number` is chosen here) with vouchers; returns it with their numbers and codes."""
        check_batch(batch, count)
        with self._using() as database:
            there, alike = database.execute(
                "SELECT count(*), coalesce(sum(b.alphabet = ? AND b.length = ?), 0) FROM vouchers v "
                "JOIN batches b ON b.number = v.batch WHERE v.revoked_unix IS NULL",
                (batch.alphabet, batch.length),
            ).fetchone()
            if there + count > MAX_VOUCHERS:
                raise AccountError(f"There are {there} vouchers; {MAX_VOUCHERS} are kept at most. Remove old batches.")
            if not strong_enough(batch.alphabet, batch.length, alike + count):
                raise AccountError(
                    f"Codes of {batch.length} {batch.alphabet} are too short for {alike + count} vouchers: they could "
                    "be guessed. Give a greater length."
                )
            row: dict[str, Any] = {name: getattr(batch, name) for name in _BATCH}
            row |= {name: getattr(batch.limits, name) for name in _LIMITS}
            marks = ", ".join(f":{name}" for name in row)
            done = database.execute(f"INSERT INTO batches ({', '.join(row)}) VALUES ({marks})", row)
            batch = replace(batch, number=int(done.lastrowid))
            made: list[tuple[int, str]] = []
            number = 0
            while len(made) < count:
                number += 1
                code = self.code(batch, number)
                taken = database.execute(
                    "INSERT OR IGNORE INTO vouchers (batch, number, lookup) VALUES (?, ?, ?)",
                    (batch.number, number, lookup(self._key, code)),
                )
                if taken.rowcount:  # else another voucher has that very code; this number stays without one
                    made.append((number, code))
            return batch, made

    def code(self, batch: Batch, number: int) -> str:
        """The code of a voucher."""
        return derive(self._key, batch.salt, number, batch.alphabet, batch.length)

    def find(self, typed: str) -> Voucher | None:
        """The voucher whose code was typed."""
        with self._using() as database:
            for code in readings(typed):
                row = database.execute(f"{_VOUCHER} WHERE v.lookup = ?", (lookup(self._key, code),)).fetchone()
                if row is not None:
                    return _voucher(row)
        return None

    def get(self, batch: int, number: int) -> Voucher | None:
        """The voucher of a name."""
        with self._using() as database:
            row = database.execute(f"{_VOUCHER} WHERE v.batch = ? AND v.number = ?", (batch, number)).fetchone()
            return None if row is None else _voucher(row)

    def begin(self, voucher: Voucher, mac: str, unix: float | None) -> Voucher:
        """A session begins: note the device, and the first use if it is that and the clock is set."""
        if unix is None:
            return voucher
        with self._using() as database:
            place = (voucher.batch.number, voucher.number)
            database.execute(
                "INSERT INTO voucher_devices VALUES (?1, ?2, ?3, ?4) "
                "ON CONFLICT (batch, number, mac) DO UPDATE SET last_unix = ?4",
                (*place, mac, unix),
            )
            if voucher.first_used_unix is None:
                database.execute(
                    "UPDATE vouchers SET first_used_unix = ? WHERE batch = ? AND number = ?", (unix, *place)
                )
                voucher = replace(voucher, first_used_unix=unix)
            return voucher

    def charge(self, usages: list[tuple[Usage, tuple[int, int] | None]], unix: float) -> None:
        """Write what sessions used to their vouchers and devices; one that was written already changes nothing."""
        with self._using() as database:
            for usage, place in usages:
                known = database.execute("INSERT OR IGNORE INTO charges VALUES (?, ?)", (usage.acct_session_id, unix))
                if not known.rowcount:
                    continue
                used = (usage.seconds, usage.counters.upload_bytes, usage.counters.download_bytes)
                adding = (
                    "used_s = used_s + ?, used_upload_bytes = used_upload_bytes + ?, "
                    "used_download_bytes = used_download_bytes + ?"
                )
                if place is not None:
                    database.execute(f"UPDATE vouchers SET {adding} WHERE batch = ? AND number = ?", (*used, *place))
                device = (usage.key.zone, str(usage.key.mac))
                if usage.comes_back:
                    database.execute(f"UPDATE devices SET {adding} WHERE zone = ? AND mac = ?", (*used, *device))
                else:
                    database.execute("DELETE FROM devices WHERE zone = ? AND mac = ?", device)
            database.execute("DELETE FROM charges WHERE at_unix < ?", (unix - CHARGES_KEPT_S,))

    def batches(self) -> list[BatchRow]:
        """All batches, the latest first."""
        with self._using() as database:
            rows = database.execute(
                "SELECT b.*, count(v.number) AS vouchers, count(v.first_used_unix) AS used, "
                "count(v.revoked_unix) AS revoked FROM batches b LEFT JOIN vouchers v ON v.batch = b.number "
                "GROUP BY b.number ORDER BY b.number DESC"
            )
            return [BatchRow(_batch(row), row["vouchers"], row["used"], row["revoked"]) for row in rows]

    def listing(
        self, chosen: Filter, unix: float | None, offset: int, limit: int
    ) -> tuple[int, list[tuple[Voucher, str, list[str]]]]:
        """How many vouchers a filter chooses, and a page of them with code and devices; the latest batch first."""
        values: dict[str, Any] = {"now": 0 if unix is None else unix, "offset": offset, "limit": limit}
        where = ["1"]
        if chosen.batch is not None:
            where.append("v.batch = :batch")
            values["batch"] = chosen.batch
        if chosen.state is not None:
            where.append(f"{_STATE} = :state")
            values["state"] = chosen.state.value
        with self._using() as database:
            if chosen.search:
                database.create_function("code", 4, self._code_of, deterministic=True)
                where.append(
                    "(code(b.salt, v.number, b.alphabet, b.length) LIKE :code "
                    "OR code(b.salt, v.number, b.alphabet, b.length) LIKE :other "
                    "OR b.note LIKE :text ESCAPE '\\' OR v.batch || '-' || v.number = :id "
                    "OR EXISTS (SELECT 1 FROM voucher_devices d WHERE d.batch = v.batch AND d.number = v.number "
                    "AND d.mac LIKE :text ESCAPE '\\'))"
                )
                codes = [f"%{code}%" for code in readings(chosen.search) if len(code) >= LEAST_SEARCHED]
                escaped = "".join(f"\\{char}" if char in "%_\\" else char for char in chosen.search.strip())
                values |= {"code": codes[0] if codes else "", "other": codes[-1] if codes else ""}
                values |= {"text": f"%{escaped}%", "id": chosen.search.strip().removeprefix("voucher-")}
            condition = " AND ".join(where)
            total = database.execute(
                f"SELECT count(*) FROM vouchers v JOIN batches b ON b.number = v.batch WHERE {condition}", values
            ).fetchone()[0]
            rows = database.execute(
                f"{_VOUCHER} WHERE {condition} ORDER BY v.batch DESC, v.number LIMIT :limit OFFSET :offset", values
            ).fetchall()
            found = [_voucher(row) for row in rows]
            return int(total), [(item, self.code(item.batch, item.number), _devices(database, item)) for item in found]

    def revoke(self, batch: int, number: int | None, unix: float) -> list[str]:
        """Revoke a voucher, or all of a batch; returns the names of those that were not revoked before."""
        with self._using() as database:
            which = "batch = ?1 AND (?2 IS NULL OR number = ?2) AND revoked_unix IS NULL"
            rows = database.execute(f"SELECT number FROM vouchers WHERE {which}", (batch, number)).fetchall()
            database.execute(f"UPDATE vouchers SET revoked_unix = ?3 WHERE {which}", (batch, number, unix))
            return [f"voucher-{batch}-{row['number']}" for row in rows]

    def remove(self, batch: int) -> bool:
        """Remove a batch wholly; False when there is none."""
        with self._using() as database:
            database.execute("DELETE FROM voucher_devices WHERE batch = ?", (batch,))
            database.execute("DELETE FROM vouchers WHERE batch = ?", (batch,))
            return bool(database.execute("DELETE FROM batches WHERE number = ?", (batch,)).rowcount)

    def _code_of(self, salt: bytes, number: int, alphabet: str, length: int) -> str:
        return derive(self._key, salt, number, alphabet, length)

    @contextmanager
    def _using(self) -> Iterator[Any]:
        # Any: sqlite3 has its door in `store`.
        with self._store.using() as database:
            yield database


def _batch(row: Any) -> Batch:
    limits = Limits(**{name: row[name] for name in _LIMITS})
    return Batch(row["number"], limits=limits, **{name: row[name] for name in _BATCH})


def _voucher(row: Any) -> Voucher:
    used = (row["used_s"], row["used_upload_bytes"], row["used_download_bytes"])
    return Voucher(_batch(row), row["voucher"], row["first_used_unix"], row["revoked_unix"], *used)


def _devices(database: Any, voucher: Voucher) -> list[str]:
    rows = database.execute(
        "SELECT mac FROM voucher_devices WHERE batch = ? AND number = ? ORDER BY last_unix DESC LIMIT ?",
        (voucher.batch.number, voucher.number, MAX_DEVICES_LISTED),
    )
    return [str(row["mac"]) for row in rows]
