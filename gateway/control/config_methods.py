"""The configuration as administrators change it: text and options, preview, apply with a way back, history.

Secrets never leave here: they are shown as a mark that stands for "as it is" when the text comes back.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.admin.roles import Role
from gateway.config_apply import ConfigChanges
from gateway.config_change import ChangeError, apply, difference, masked, read_changes
from gateway.config_schema import schema
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, UNAVAILABLE, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.system import timezones
from gateway.system.client import System
from gateway.uci import UciSyntaxError

LONGEST_TEXT: Final = 1 << 19
MAX_CHANGES: Final = 500


class ConfigMethods:
    """The methods, over the changes of one configuration."""

    def __init__(self, changes: ConfigChanges, system: System) -> None:
        self._changes = changes
        self._system = system

    def table(self) -> dict[str, Method]:
        """All of them. What shows or changes the whole file is for administrators."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        administrator = Role.ADMINISTRATOR
        return {
            "config.schema": Method(self.schema, look),
            "config.text": Method(self.text, look, role=administrator),
            "config.preview": Method(self.preview, look, role=administrator),
            "config.apply": Method(self.apply, change),
            "config.confirm": Method(self.confirm, change),
            "config.revert": Method(self.revert, change),
            "config.history": Method(self.history, look, role=administrator),
            "config.past": Method(self.past, look, role=administrator),
            "system.timezones": Method(self.timezones, look),
            "system.timezone": Method(self.timezone, change),
        }

    # -- looking ----------------------------------------------------------------------------------------------------

    def schema(self, caller: Caller, params: Params) -> JsonValue:
        """Every section and option that there is."""
        read.only(params)
        return {"sections": schema()}

    def text(self, caller: Caller, params: Params) -> JsonValue:
        """The file, without its secrets."""
        read.only(params)
        text = self._changes.text()
        return {"text": _masked(text), "version": self._changes.version(text), **self._waiting()}

    async def preview(self, caller: Caller, params: Params) -> JsonValue:
        """What a text, or changes of single options, would change."""
        read.only(params, "text", "changes")
        preview = await self._changes.preview(await asyncio.to_thread(self._wanted, params))
        return {
            "diff": preview.diff,
            "problems": list(preview.problems),
            "changes": list(preview.sentences),
            "cuts_off": preview.cuts_off,
            "version": self._changes.version(self._changes.text()),
        }

    async def history(self, caller: Caller, params: Params) -> JsonValue:
        """Past changes, the newest first."""
        read.only(params)
        rows: list[JsonValue] = [
            {
                "change": one.number,
                "at_unix": one.at_unix,
                "by": one.who,
                "address": one.address,
                "summary": "; ".join(one.sentences) or "comments and layout",
                "state": one.state,
            }
            for one in await self._changes.past()
        ]
        return {"rows": rows, **self._waiting()}

    async def past(self, caller: Caller, params: Params) -> JsonValue:
        """One past change: the text that it made, and what it changed."""
        read.only(params, "change")
        one = await self._changes.one(read.integer(params, "change", low=1))
        return {
            "change": one.number,
            "state": one.state,
            "text": _masked(one.after),
            "diff": await asyncio.to_thread(difference, one.before, one.after),
            "changes": list(one.sentences),
        }

    # -- changing ---------------------------------------------------------------------------------------------------

    async def apply(self, caller: Caller, params: Params) -> JsonValue:
        """Make a text, or changes of single options, the configuration."""
        read.only(params, "text", "changes", "version", "confirm_s")
        version = read.text(params, "version", longest=64)
        confirm_s = read.integer(params, "confirm_s", None, high=3600)
        return await self._apply(caller, await asyncio.to_thread(self._wanted, params), version, confirm_s)

    async def confirm(self, caller: Caller, params: Params) -> JsonValue:
        """Keep a change that waits to be confirmed."""
        read.only(params, "change")
        number = read.integer(params, "change", low=1)
        await self._changes.confirm(number)
        return {"change": number}

    async def revert(self, caller: Caller, params: Params) -> JsonValue:
        """Go back to the text before a change."""
        read.only(params, "change")
        number, within_s = await self._changes.revert(
            read.integer(params, "change", low=1), who=caller.name, address=_address(caller)
        )
        return _applied(number, within_s)

    async def _apply(self, caller: Caller, text: str, version: str, confirm_s: int | None) -> JsonValue:
        number, within_s = await self._changes.apply(
            text, version, who=caller.name, address=_address(caller), confirm_s=confirm_s
        )
        return _applied(number, within_s)

    def _wanted(self, params: Params) -> str:
        """The text that is asked for, whole or by changes to the one that is there."""
        text, rows = read.text(params, "text", None, longest=LONGEST_TEXT), params.get("changes")
        if (text is None) == (rows is None):
            raise ControlError(BAD_PARAMS, "either text or changes must be given")
        if text is not None:
            return text
        if not isinstance(rows, list) or len(rows) > MAX_CHANGES:
            raise ControlError(BAD_PARAMS, f"changes must be a list of at most {MAX_CHANGES} changes")
        try:
            return apply(self._changes.text(), read_changes(rows))
        except (ChangeError, UciSyntaxError) as err:
            raise ControlError(BAD_PARAMS, str(err)) from err

    def _waiting(self) -> dict[str, JsonValue]:
        pending = self._changes.pending
        if pending is None:
            return {"pending": None}
        return {"pending": {"change": pending.number, "by": pending.who, "left_s": int(self._changes.left_s())}}

    # -- time zone --------------------------------------------------------------------------------------------------

    async def timezones(self, caller: Caller, params: Params) -> JsonValue:
        """The time zones of this system, and the one that is set."""
        read.only(params)
        names = await asyncio.to_thread(timezones.names)
        return {"current": timezones.current(), "names": list[JsonValue](names)}

    async def timezone(self, caller: Caller, params: Params) -> JsonValue:
        """Set the system's time zone."""
        read.only(params, "name")
        name = read.text(params, "name", longest=64)
        await self._system.set_timezone(name)
        time.tzset()
        return {"name": name}


def _masked(text: str) -> str:
    try:
        return masked(text)
    except UciSyntaxError as err:
        sentence = f"the file is not UCI, so its secrets cannot be told from the rest: {err}; mend it as root"
        raise ControlError(UNAVAILABLE, sentence) from err


def _address(caller: Caller) -> str:
    return "" if caller.acting is None else caller.acting.address


def _applied(number: int, within_s: int | None) -> dict[str, JsonValue]:
    return {"change": number, "confirm_within_s": within_s}
