"""Remembered devices, blocked devices and the operator's own words, in the accounts' database.

Every method is one transaction and runs in the accounts' thread.
"""

from __future__ import annotations

from typing import Any

from gateway.accounts.devices import (
    MAX_BLOCKED,
    MAX_REMEMBERED_PER_USER,
    Block,
    Device,
    pack_grant,
    unpack_grant,
    used_of,
)
from gateway.accounts.store import AccountStore
from gateway.accounts.users import AccountError, name_key
from gateway.addresses import MacAddress
from gateway.session.actions import RememberDevice
from gateway.session.model import ClientKey, LoginMethod


class DeviceStore:
    """The devices of one database."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    def remember(self, action: RememberDevice, unix: float) -> list[ClientKey]:
        """Keep a device that logged in; returns those that went because their user has too many."""
        key, username = action.key, action.grant.username
        with self._store.using() as database:
            database.execute("DELETE FROM devices WHERE until_unix <= ?", (unix,))
            database.execute(
                "INSERT OR REPLACE INTO devices (zone, mac, username, method, grant_json, since_unix, until_unix) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key.zone,
                    str(key.mac),
                    username,
                    action.method.value,
                    pack_grant(action.grant),
                    unix,
                    action.until_unix,
                ),
            )
            if action.method is LoginMethod.CLICK:
                return []  # the user is the device itself
            at_most = action.at_most or MAX_REMEMBERED_PER_USER
            rows = database.execute(
                "SELECT zone, mac FROM devices WHERE username = ? ORDER BY since_unix DESC LIMIT -1 OFFSET ?",
                (username, at_most),
            ).fetchall()
            for row in rows:
                database.execute("DELETE FROM devices WHERE zone = ? AND mac = ?", (row["zone"], row["mac"]))
            return [_key(row) for row in rows]

    def get(self, key: ClientKey) -> Device | None:
        """A remembered device; one whose record cannot be read is none."""
        with self._store.using() as database:
            row = database.execute(
                "SELECT * FROM devices WHERE zone = ? AND mac = ?", (key.zone, str(key.mac))
            ).fetchone()
            return None if row is None else _device(row)

    def devices(self, unix: float) -> list[Device]:
        """All devices whose time is not over, the latest login first."""
        with self._store.using() as database:
            rows = database.execute("SELECT * FROM devices WHERE until_unix > ? ORDER BY since_unix DESC", (unix,))
            return [device for row in rows if (device := _device(row)) is not None]

    def forget(
        self, *, mac: MacAddress | None = None, username: str | None = None, zone: str | None = None
    ) -> list[ClientKey]:
        """Forget the devices that all given words fit; returns them."""
        with self._store.using() as database:
            where = "(?1 IS NULL OR mac = ?1) AND (?2 IS NULL OR username = ?2) AND (?3 IS NULL OR zone = ?3)"
            values = (None if mac is None else str(mac), username, zone)
            keys = [_key(row) for row in database.execute(f"SELECT zone, mac FROM devices WHERE {where}", values)]
            database.execute(f"DELETE FROM devices WHERE {where}", values)
            return keys

    def forget_user(self, username: str) -> list[ClientKey]:
        """Forget the devices of a local user, whatever the case of the name."""
        with self._store.using() as database:
            wanted = name_key(username)
            rows = database.execute("SELECT zone, mac, username FROM devices WHERE method = 'password'").fetchall()
            keys = [_key(row) for row in rows if name_key(row["username"]) == wanted]
            for key in keys:
                database.execute("DELETE FROM devices WHERE zone = ? AND mac = ?", (key.zone, str(key.mac)))
            return keys

    # -- blocked ----------------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        """Block a device, or change its note."""
        with self._store.using() as database:
            count = database.execute("SELECT count(*) FROM blocks").fetchone()[0]
            if count >= MAX_BLOCKED:
                raise AccountError(f"{count} devices are blocked already; unblock some first.")
            row = (block.zone, str(block.mac), block.note, block.created_by, block.created_unix)
            database.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?)", row)

    def unblock(self, mac: MacAddress, zone: str | None) -> int:
        """Let a device in again, in one zone or wherever it was blocked; returns how many blocks went."""
        with self._store.using() as database:
            done = database.execute("DELETE FROM blocks WHERE mac = ?1 AND (?2 IS NULL OR zone = ?2)", (str(mac), zone))
            return done.rowcount

    def blocks(self) -> list[Block]:
        """All blocked devices, the latest first."""
        with self._store.using() as database:
            rows = database.execute("SELECT * FROM blocks ORDER BY created_unix DESC, mac")
            return [
                Block(MacAddress.parse(row["mac"]), row["zone"], row["note"], row["created_by"], row["created_unix"])
                for row in rows
            ]

    # -- words of the operator --------------------------------------------------------------------------------------

    def texts(self) -> dict[str, dict[str, dict[str, str]]]:
        """The operator's sentences: zone (empty for all), language, key."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        with self._store.using() as database:
            for row in database.execute("SELECT * FROM texts ORDER BY zone, language, key"):
                found.setdefault(row["zone"], {}).setdefault(row["language"], {})[row["key"]] = row["text"]
        return found

    def set_text(self, zone: str, language: str, key: str, text: str | None) -> None:
        """Set a sentence, or take ours again."""
        with self._store.using() as database:
            if text is None:
                database.execute("DELETE FROM texts WHERE zone = ? AND language = ? AND key = ?", (zone, language, key))
            else:
                database.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?)", (zone, language, key, text))


# Any: sqlite3 has its door in `store`.


def _key(row: Any) -> ClientKey:
    return ClientKey(row["zone"], MacAddress.parse(row["mac"]))


def _device(row: Any) -> Device | None:
    used = used_of(row["used_s"], row["used_upload_bytes"], row["used_download_bytes"])
    try:
        grant = unpack_grant(row["username"], row["grant_json"], used)
        return Device(_key(row), LoginMethod(row["method"]), grant, row["since_unix"], row["until_unix"], used)
    except ValueError:
        return None
