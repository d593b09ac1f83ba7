"""What operators may call about guests: vouchers, devices, blocked clients, and changes of accounts and live sessions.

Codes of vouchers are means of entry, so lists of them take the right to change. A limit of 0 or null takes the limit
away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from gateway.accounts.codes import DEFAULT_LENGTH, LONGEST, grouped
from gateway.accounts.devices import Block
from gateway.accounts.users import MAX_NOTE_CHARACTERS, AccountError
from gateway.accounts.voucher_store import BatchRow, Filter
from gateway.accounts.vouchers import MAX_COUNT, Batch, Voucher, VoucherState, parse_id, state_of
from gateway.admin.roles import Role
from gateway.control import listing
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.control.views import session_row
from gateway.session.events import ChangeRequested, LogoutRequested
from gateway.session.model import (
    NO_LIMITS,
    AuthenticatedBy,
    ClientKey,
    GrantChange,
    Limits,
    TerminateCause,
)
from gateway.session.table import Session

if TYPE_CHECKING:
    from gateway.daemon import Gateway

LIMIT_NAMES: Final = (
    "session_time_s",
    "idle_time_s",
    "upload_bytes",
    "download_bytes",
    "total_bytes",
    "upload_bps",
    "download_bps",
)
MAX_ROWS: Final = 10_000  # of vouchers: a whole batch, for printing


class GuestMethods:
    """The methods, over the rooms of a gateway; `clients` finds the sessions that a parameter `client` means."""

    def __init__(self, gateway: Gateway, clients: Callable[[Params], list[Session]]) -> None:
        self._gateway = gateway
        self._clients = clients

    def table(self) -> dict[str, Method]:
        """All methods about guests."""
        look, change, operator = Access.READ | Access.WRITE, Access.WRITE, Role.OPERATOR
        return {
            "vouchers.create": Method(self.vouchers_create, change, role=operator),
            "vouchers.batches": Method(self.vouchers_batches, look),
            "vouchers.list": Method(self.vouchers_list, change, role=operator),
            "vouchers.revoke": Method(self.vouchers_revoke, change, role=operator),
            "vouchers.remove": Method(self.vouchers_remove, change, role=operator),
            "users.change": Method(self.users_change, change, role=operator),
            "sessions.change": Method(self.sessions_change, change, role=operator),
            "clients.block": Method(self.clients_block, change, role=operator),
            "clients.unblock": Method(self.clients_unblock, change, role=operator),
            "clients.blocked": Method(self.clients_blocked, look),
            "devices.list": Method(self.devices_list, look),
            "devices.forget": Method(self.devices_forget, change, role=operator),
        }

    # -- vouchers ---------------------------------------------------------------------------------------------------

    async def vouchers_create(self, caller: Caller, params: Params) -> JsonValue:
        """Make a batch of vouchers."""
        read.only(
            params,
            "count",
            "length",
            "alphabet",
            "devices",
            "validity_s",
            "expires_unix",
            "note",
            "zone",
            *LIMIT_NAMES,
        )
        alphabet = str(read.choice(params, "alphabet", list(DEFAULT_LENGTH), "digits"))
        zone = read.text(params, "zone", "")
        self._check_zone(zone)
        batch = Batch(
            number=0,
            salt=b"",
            alphabet=alphabet,
            length=read.integer(params, "length", DEFAULT_LENGTH[alphabet], low=1, high=LONGEST),
            created_unix=0.0,
            created_by=caller.name,
            note=read.text(params, "note", "", longest=MAX_NOTE_CHARACTERS),
            zone=zone,
            devices=read.integer(params, "devices", 1, low=0) or None,
            validity_s=read.integer(params, "validity_s", None, low=1),
            expires_unix=read.number(params, "expires_unix", None),
            limits=self._limits(params),
        )
        count = read.integer(params, "count", low=1, high=MAX_COUNT)
        batch, made = await self._gateway.guests.create(batch, count)
        return {
            "batch": batch.number,
            "count": len(made),
            "codes": [grouped(code) for _, code in made],
            "login_url": self._login_url(),
        }

    async def vouchers_batches(self, caller: Caller, params: Params) -> JsonValue:
        """All batches with their counts, the latest first."""
        read.only(params)
        rows = await self._gateway.guests.with_vouchers(lambda store, unix: store.batches())
        return {"rows": [_batch_row(row) for row in rows], "login_url": self._login_url()}

    async def vouchers_list(self, caller: Caller, params: Params) -> JsonValue:
        """A page of vouchers with their codes."""
        read.only(params, "batch", "search", "state", "offset", "limit")
        state = read.choice(params, "state", [item.value for item in VoucherState], None)
        chosen = Filter(
            batch=read.integer(params, "batch", None, low=1),
            state=None if state is None else VoucherState(state),
            search=read.text(params, "search", "", longest=64).strip(),
        )
        offset = read.integer(params, "offset", 0)
        limit = read.integer(params, "limit", 100, low=1, high=MAX_ROWS)
        total, found = await self._gateway.guests.with_vouchers(
            lambda store, unix: store.listing(chosen, unix, offset, limit)
        )
        unix = self._gateway.unix()
        rows: list[JsonValue] = [self._voucher_row(voucher, code, devices, unix) for voucher, code, devices in found]
        return {"total": total, "rows": rows, "login_url": self._login_url()}

    async def vouchers_revoke(self, caller: Caller, params: Params) -> JsonValue:
        """Make a voucher, or all of a batch, good for nothing."""
        read.only(params, "batch", "id", "end_sessions")
        batch, number = self._place(params)
        names = await self._gateway.guests.with_vouchers(lambda store, unix: store.revoke(batch, number, unix))
        if not names:
            await self._must_exist(batch, number)
        ended = 0
        if read.flag(params, "end_sessions"):
            keys = [key for name in names for key in self._gateway.machine.sessions.of_user(name)]
            ended = await self._end(keys, caller)
        return {"revoked": len(names), "ended": ended}

    async def vouchers_remove(self, caller: Caller, params: Params) -> JsonValue:
        """Remove a batch wholly, with what its vouchers used; their sessions end."""
        read.only(params, "batch")
        batch = read.integer(params, "batch", low=1)
        if not await self._gateway.guests.with_vouchers(lambda store, unix: store.remove(batch)):
            raise ControlError(NOT_FOUND, f"there is no batch {batch}")
        prefix = f"voucher-{batch}-"
        online = self._gateway.machine.sessions.online()
        keys = [session.key for session in online if session.grant and session.grant.account.startswith(prefix)]
        return {"batch": batch, "ended": await self._end(keys, caller)}

    def _place(self, params: Params) -> tuple[int, int | None]:
        batch, name = read.integer(params, "batch", None, low=1), read.text(params, "id", None)
        if (batch is None) == (name is None):
            raise ControlError(BAD_PARAMS, "give either batch (a whole one) or id (one voucher, such as 3-17)")
        if batch is not None:
            return batch, None
        try:
            return parse_id(str(name))
        except AccountError as err:
            raise ControlError(BAD_PARAMS, str(err)) from None

    async def _must_exist(self, batch: int, number: int | None) -> None:
        chosen = Filter(batch=batch)
        total, _ = await self._gateway.guests.with_vouchers(lambda store, unix: store.listing(chosen, unix, 0, 1))
        if number is not None:
            found = await self._gateway.guests.with_vouchers(lambda store, unix: store.get(batch, number))
            total = int(found is not None)
        if not total:
            what = f"batch {batch}" if number is None else f"voucher {batch}-{number}"
            raise ControlError(NOT_FOUND, f"there is no {what}")

    def _voucher_row(self, voucher: Voucher, code: str, devices: list[str], unix: float | None) -> JsonValue:
        sessions = self._gateway.machine.sessions
        online = [session for key in sessions.of_user(voucher.name) if (session := sessions.get(key)) is not None]
        now = self._gateway.now()
        return {
            "id": voucher.id,
            "code": grouped(code),
            "batch": voucher.batch.number,
            "state": state_of(voucher, unix).value,
            "first_used_unix": voucher.first_used_unix,
            "ends_unix": voucher.ends_unix,
            "devices": [*devices],
            "online": len(online),
            "used_s": voucher.used_s + sum(int(now - session.started_at) for session in online),
            "upload_bytes": voucher.upload_bytes + sum(session.counters.upload_bytes for session in online),
            "download_bytes": voucher.download_bytes + sum(session.counters.download_bytes for session in online),
            "note": voucher.batch.note,
        }

    def _login_url(self) -> str:
        """What stands before a code in the link of a printed voucher."""
        return f"http://{self._gateway.config.dns.portal_name}/?code="

    def _check_zone(self, name: str) -> None:
        known = [zone.name for zone in self._gateway.config.zones]
        if name and name not in known:
            raise ControlError(BAD_PARAMS, f"there is no zone {name!r}; there are: {', '.join(known) or 'none'}")

    def _limits(self, params: Params) -> Limits:
        values = {name: read.integer(params, name, None, low=0) or None for name in LIMIT_NAMES}
        return replace(NO_LIMITS, **values)  # type: ignore[arg-type]  # every name is that of an int | None field

    # -- accounts and live sessions -----------------------------------------------------------------------------------

    async def users_change(self, caller: Caller, params: Params) -> JsonValue:
        """Change a local account; what is not named stays."""
        read.only(params, "username", "disabled", "devices", "valid_until_unix", "note", "end_sessions", *LIMIT_NAMES)
        username = read.text(params, "username", longest=253)
        user = await self._gateway.accounts.user(username)
        if user is None:
            raise ControlError(NOT_FOUND, f"there is no local account {username!r}")
        user = replace(
            user,
            limits=replace(user.limits, **_given(params, LIMIT_NAMES)),  # type: ignore[arg-type]  # of int | None fields
            devices=_given(params, ("devices",)).get("devices", user.devices),
        )
        if "valid_until_unix" in params:
            user = replace(user, valid_until_unix=read.number(params, "valid_until_unix", None) or None)
        if "note" in params:
            user = replace(user, note=read.text(params, "note", ""))
        if "disabled" in params:
            user = replace(user, disabled=read.flag(params, "disabled"))
        if not await self._gateway.accounts.change_user(user):
            raise ControlError(NOT_FOUND, f"there is no local account {username!r}")
        ended = await self.user_closed(caller, user.name, read.flag(params, "end_sessions"), forget=user.disabled)
        return {**cast(dict[str, JsonValue], user.as_row()), "ended": ended}

    async def user_closed(self, caller: Caller, username: str, end_sessions: bool, *, forget: bool) -> int:
        """After a change of a local account: its devices come back no more, its sessions end if that is wanted."""
        if forget:
            keys = await self._gateway.guests.with_devices(lambda store, unix: store.forget_user(username))
            self._gateway.forget_devices(keys)
        if not end_sessions:
            return 0
        sessions = self._gateway.machine.sessions
        found = (sessions.get(key) for key in sessions.of_user(username))
        local = [
            session.key
            for session in found
            if session is not None and session.grant and session.grant.authenticated_by is AuthenticatedBy.LOCAL
        ]
        return await self._end(local, caller)

    async def sessions_change(self, caller: Caller, params: Params) -> JsonValue:
        """Change the limits of live sessions; `extend_s` moves their end."""
        read.only(params, "client", "extend_s", *LIMIT_NAMES)
        extend_s = read.integer(params, "extend_s", 0, low=-(1 << 31), high=1 << 31)
        given = _given(params, LIMIT_NAMES)
        sessions = [session for session in self._clients(params) if session.online]
        if not sessions:
            raise ControlError(CONFLICT, "this client is not online; there is nothing to change")
        if not given and not extend_s:
            raise ControlError(BAD_PARAMS, f"give what is to change: extend_s, {', '.join(LIMIT_NAMES)}")
        changed = 0
        for session in sessions:
            change = _change(session, given, extend_s)
            request_id, answer = self._gateway.hub.request()
            self._gateway.hub.post(ChangeRequested(session.key, request_id, change, f"operator {caller.name}"))
            changed += (await answer).done
        return {**session_row(sessions[0], self._gateway.now()), "changed": changed}

    async def _end(self, keys: Iterable[ClientKey], caller: Caller) -> int:
        ended = 0
        for key in keys:
            request_id, answer = self._gateway.hub.request()
            cause = TerminateCause.ADMIN_RESET
            self._gateway.hub.post(LogoutRequested(key, request_id, cause, f"operator {caller.name}"))
            ended += (await answer).done
        return ended

    # -- devices ----------------------------------------------------------------------------------------------------

    async def clients_block(self, caller: Caller, params: Params) -> JsonValue:
        """Give a device nothing any more: no address, no portal, no way out; its session ends."""
        read.only(params, "mac", "zone", "note")
        mac, zone = read.mac(params, "mac"), read.text(params, "zone", "")
        self._check_zone(zone)
        note = read.text(params, "note", "", longest=MAX_NOTE_CHARACTERS)
        if mac.is_multicast:
            raise ControlError(BAD_PARAMS, f"{mac} is a group address; no device has it")
        online = sum(session.key.mac == mac for session in self._gateway.machine.sessions.online())
        await self._gateway.guests.block(Block(mac, zone, note, caller.name))
        await self._gateway.apply_blocks()
        return {"mac": str(mac), "zone": zone, "ended": online}

    async def clients_unblock(self, caller: Caller, params: Params) -> JsonValue:
        """Let a blocked device in again."""
        read.only(params, "mac", "zone")
        mac = read.mac(params, "mac")
        count = await self._gateway.guests.unblock(mac, read.text(params, "zone", None))
        if not count:
            raise ControlError(
                NOT_FOUND, f"{mac} is not blocked by clients.block (a zone's option block_mac is in the configuration)"
            )
        await self._gateway.apply_blocks()
        return {"mac": str(mac), "unblocked": count}

    def clients_blocked(self, caller: Caller, params: Params) -> JsonValue:
        """Devices that are blocked, by operators and by the configuration."""
        read.only(params)
        rows: list[JsonValue] = [
            {
                "mac": str(block.mac),
                "zone": block.zone,
                "note": block.note,
                "created_by": block.created_by,
                "created_unix": block.created_unix,
                "source": "operator",
            }
            for block in self._gateway.guests.blocks
        ]
        for zone in self._gateway.config.zones:
            for mac in zone.block_macs:
                rows.append({"mac": str(mac), "zone": zone.name, "note": "", "source": "configuration"})
        return {"rows": rows}

    async def devices_list(self, caller: Caller, params: Params) -> JsonValue:
        """Devices that come back without the page, the latest login first; all or a part."""
        read.only(params, "username", "zone", *listing.NAMES)
        username, zone = read.text(params, "username", None), read.text(params, "zone", None)
        devices = await self._gateway.guests.with_devices(lambda store, unix: store.devices(unix))
        rows: list[listing.Row] = [
            {
                "zone": device.key.zone,
                "mac": str(device.key.mac),
                "username": device.grant.username,
                "method": device.method.value,
                "since_unix": device.since_unix,
                "until_unix": device.until_unix,
            }
            for device in devices
            if username in (None, device.grant.username) and zone in (None, device.key.zone)
        ]
        sorts = ("mac", "username", "zone", "method", "since_unix", "until_unix")
        return listing.part_of(rows, params, ("mac", "username", "zone"), sorts)

    async def devices_forget(self, caller: Caller, params: Params) -> JsonValue:
        """Have devices log in again the next time; sessions that are online go on."""
        read.only(params, "mac", "username", "zone")
        mac, username = read.mac(params, "mac", None), read.text(params, "username", None)
        zone = read.text(params, "zone", None)
        if mac is None and username is None and zone is None:
            raise ControlError(BAD_PARAMS, "give mac, username or zone; what fits all of them is forgotten")
        keys = await self._gateway.guests.with_devices(
            lambda store, unix: store.forget(mac=mac, username=username, zone=zone)
        )
        self._gateway.forget_devices(keys)
        return {"forgotten": len(keys)}


def _given(params: Params, names: Iterable[str]) -> dict[str, int | None]:
    """The whole numbers among the parameters; 0 and null stand for no limit."""
    return {name: read.integer(params, name, None, low=0) or None for name in names if name in params}


def _change(session: Session, given: dict[str, int | None], extend_s: int) -> GrantChange:
    """The change of a session: what is given, and its end moved, whichever clock that is on."""
    values: dict[str, int | float | None] = dict(given)
    if extend_s and session.limits.session_time_s is not None and "session_time_s" not in given:
        values["session_time_s"] = max(1, session.limits.session_time_s + extend_s)
    if extend_s and session.limits.terminate_unix is not None:
        values["terminate_unix"] = session.limits.terminate_unix + extend_s
    limits = replace(NO_LIMITS, **values)  # type: ignore[arg-type]  # names and types are those of the fields
    return GrantChange(limits, frozenset(values))


def _batch_row(row: BatchRow) -> JsonValue:
    batch = row.batch
    limits: dict[str, JsonValue] = {
        name: value for name in LIMIT_NAMES if (value := getattr(batch.limits, name)) is not None
    }
    return {
        "batch": batch.number,
        "created_unix": batch.created_unix,
        "created_by": batch.created_by,
        "count": row.count,
        "used": row.used,
        "revoked": row.revoked,
        "note": batch.note,
        "zone": batch.zone,
        "alphabet": batch.alphabet,
        "length": batch.length,
        "validity_s": batch.validity_s,
        "expires_unix": batch.expires_unix,
        "devices": batch.devices,
        "limits": limits,
    }
