"""Who the administrators are: in memory for every click, in the file for the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from gateway.accounts.users import name_key
from gateway.admin.administrators import MAX_ADMINISTRATORS, Administrator, check_new_name, check_new_password
from gateway.admin.roles import Role
from gateway.admin.store import Field
from gateway.admin.thread import AdminThread
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, ControlError

MEANWHILE: Final = "Somebody else has set the gateway up meanwhile; log in."


class Roster:
    """The administrators by key. What cannot be done raises ControlError with a sentence."""

    def __init__(self, thread: AdminThread, unix_clock: Callable[[], float]) -> None:
        self._thread = thread
        self._unix = unix_clock
        self._by_key: dict[str, Administrator] = {}
        self._changing = asyncio.Lock()  # one at a time looks who is there and changes it

    def load(self, people: Iterable[Administrator]) -> None:
        """Take what the file has."""
        self._by_key = {one.key: one for one in people}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Administrator]:
        """All of them by name."""
        return iter([one for _, one in sorted(self._by_key.items())])

    def get(self, key: str) -> Administrator | None:
        """One of them by key."""
        return self._by_key.get(key)

    def find(self, name: str) -> Administrator:
        """One of them by name."""
        one = self._by_key.get(name_key(name))
        if one is None:
            raise ControlError(NOT_FOUND, f"there is no administrator {name[:64]!r}")
        return one

    def name_of(self, key: str) -> str:
        """The name of an account, also of one that is gone."""
        one = self._by_key.get(key)
        return key if one is None else one.name

    async def add(self, name: str, password: str, role: Role, *, first: bool = False) -> Administrator:
        """Make an administrator; `first`: only if there is none."""
        name = name.strip()
        try:
            check_new_name(name)
        except ValueError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        self._expect_free(name)
        one = Administrator(name, role, await self._hashed(password, name), self._unix())
        async with self._changing:
            if first and self._by_key:
                raise ControlError(CONFLICT, MEANWHILE)
            self._expect_free(name)
            await self._thread.ask(partial(self._thread.store.add_administrator, one))
            self._by_key[one.key] = one
        return one

    async def change(self, one: Administrator, role: Role | None, disabled: bool | None) -> bool:
        """Change a role, or switch an account off or on; False when that is how it is already."""
        wanted: dict[str, Field] = {"role": role, "disabled": disabled}
        changes = {name: value for name, value in wanted.items() if value not in (None, getattr(one, name))}
        if not changes:
            return False
        async with self._changing:
            self._leave_one(one, _with(one, changes))
            await self._keep(one, changes)
        return True

    async def remove(self, one: Administrator) -> None:
        """Remove an administrator, in the file with all sessions and tokens."""
        async with self._changing:
            self._leave_one(one, None)
            await self._thread.ask(partial(self._thread.store.remove_administrator, one.name))
            self._by_key.pop(one.key, None)

    async def set_password(self, one: Administrator, password: str) -> None:
        """Set a password."""
        await self._keep(one, {"password": await self._hashed(password, one.name)})

    async def set_factor(self, one: Administrator, secret: bytes | None, step: int, recovery: tuple[str, ...]) -> None:
        """Set a second factor, or none."""
        await self._keep(one, {"totp_secret": secret, "totp_last_step": step, "recovery": recovery})

    def use_up(self, one: Administrator, changes: Mapping[str, Field]) -> None:
        """Note that a code was used: here at once, so that a second use is refused from now on; in the file soon."""
        self._by_key[one.key] = _with(one, changes)
        self._thread.later(partial(self._thread.store.change_administrator, one.key, changes))

    async def _keep(self, one: Administrator, changes: Mapping[str, Field]) -> None:
        """Change fields in the file and then here; others may change other fields meanwhile."""
        await self._thread.ask(partial(self._thread.store.change_administrator, one.key, changes))
        current = self._by_key.get(one.key)
        if current is not None:
            self._by_key[one.key] = _with(current, changes)

    async def _hashed(self, password: str, name: str) -> str:
        try:
            check_new_password(password, name)
        except ValueError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        return await self._thread.hashed(password)

    def _expect_free(self, name: str) -> None:
        if name_key(name) in self._by_key:
            raise ControlError(CONFLICT, f"There is an administrator {name!r} already.")
        if len(self._by_key) >= MAX_ADMINISTRATORS:
            raise ControlError(CONFLICT, f"There are {MAX_ADMINISTRATORS} administrators already; remove one first.")

    def _leave_one(self, old: Administrator, new: Administrator | None) -> None:
        """Somebody must stay who may do everything."""
        others = (one for one in self._by_key.values() if one.key != old.key)
        if any(_can_do_all(one) for one in others) or not _can_do_all(old) or (new is not None and _can_do_all(new)):
            return
        raise ControlError(CONFLICT, f"{old.name} is the last one with the role administrator; make another one first.")


def _can_do_all(one: Administrator) -> bool:
    return one.role is Role.ADMINISTRATOR and not one.disabled


def _with(one: Administrator, changes: Mapping[str, Field]) -> Administrator:
    return replace(one, **changes)  # type: ignore[arg-type]  # they are fields of Administrator
