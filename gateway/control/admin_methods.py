"""What the administration's web interface may call: the way in, and other methods on behalf of who has logged in.

The web process has no power of its own. It hands over the value that the browser or program sent, and the daemon looks
who that is, whether the role and the token's scopes allow the method, and writes down what was changed. What root and
the operators' group change at the socket is written down too, with the name of the system's user.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from gateway import __version__
from gateway.admin.audit import summary_of
from gateway.admin.roles import Acting, refusal
from gateway.admin.service import AdminService, Holder, Opened, Refused
from gateway.config_change import Change, ChangeError, SetOption, apply
from gateway.control import params as read
from gateway.control.accounts_methods import AccountsMethods
from gateway.control.protocol import (
    BAD_PARAMS,
    CONFLICT,
    DENIED,
    INTERNAL,
    UNAUTHENTICATED,
    UNKNOWN_METHOD,
    Answer,
    ControlError,
    JsonValue,
    Params,
)
from gateway.control.server import Access, Caller, Handler, Method
from gateway.system import timezones
from gateway.uci import UciSyntaxError

if TYPE_CHECKING:
    from gateway.daemon import Gateway

LONGEST_PASSWORD: Final = 256
LONGEST_CREDENTIAL: Final = 256
_ZONE_OPTIONS: Final = {"methods": "method"}  # lists are named by one of their items in the file


class AdminMethods:
    """The methods of the web interface, over those of everybody else."""

    def __init__(self, gateway: Gateway, service: AdminService) -> None:
        self._gateway = gateway
        self._service = service
        self._table: dict[str, Method] = {}

    def over(self, table: Mapping[str, Method]) -> dict[str, Method]:
        """The whole table: these methods, and `table` with every change being written down."""
        self._table = self._with_record({**table, **AccountsMethods(self._service).table()})
        return {**self._table, **self.methods()}

    def methods(self) -> dict[str, Method]:
        """All methods of the web interface."""
        web = Access.ADMIN
        return {
            "admin.state": Method(self.state, web),
            "admin.config": Method(self.config, web),
            "admin.setup_check": Method(self.setup_check, web),
            "admin.setup": Method(self.setup, web),
            "admin.login": Method(self.login, web),
            "admin.whoami": Method(self.whoami, web),
            "admin.logout": Method(self.logout, web),
            "admin.call": Method(self.call, web),
            "admin.stream": Method(self.stream, web, stream=True),
            "admin.setup_code": Method(self.setup_code, Access.WRITE),
        }

    # -- before and after a login -----------------------------------------------------------------------------------

    def state(self, caller: Caller, params: Params) -> JsonValue:
        """What the page shows to somebody who has not logged in."""
        read.only(params)
        zones: list[JsonValue] = [zone.name for zone in self._gateway.config.zones]
        return {
            "setup_needed": self._service.setup_needed,
            "version": __version__,
            "hostname": os.uname().nodename,
            "zones": zones,
            "timezone": timezones.current(),
            "now_unix": time.time(),
        }

    def config(self, caller: Caller, params: Params) -> JsonValue:
        """What the web process is configured with."""
        read.only(params)
        admin, metrics = self._gateway.config.admin, self._gateway.config.metrics
        interfaces: list[JsonValue] = list(admin.interfaces)
        return {
            "enabled": admin.enabled,
            "port": admin.port,
            "interfaces": interfaces,
            "guest_interfaces": [zone.interface for zone in self._gateway.config.zones],
            "certificate": admin.certificate,
            "certificate_key": admin.certificate_key,
            "session_idle_s": admin.session_idle,
            "session_lifetime_s": admin.session_lifetime,
            "metrics": {
                "enabled": metrics.enabled,
                "address": str(metrics.listen.address),
                "port": metrics.listen.port,
            },
        }

    def setup_code(self, caller: Caller, params: Params) -> JsonValue:
        """The code that the first administrator needs."""
        read.only(params)
        return {"code": self._service.setup_code()}

    def setup_check(self, caller: Caller, params: Params) -> JsonValue:
        """Whether this is the set-up code; asked before the rest of the first pages is filled in."""
        read.only(params, "code", "address")
        refused = self._service.check_setup_code(
            read.text(params, "code", longest=64), read.text(params, "address", longest=64)
        )
        if refused is not None:
            return _outcome(refused)
        # Told to whoever has the code alone: what was configured before stays unless they choose another.
        zones = self._gateway.config.zones
        methods: dict[str, JsonValue] = {zone.name: [method.value for method in zone.methods] for zone in zones}
        return {"result": "success", "message": "", "methods": methods}

    async def setup(self, caller: Caller, params: Params) -> JsonValue:
        """Make the first administrator, and what else the first page asks for."""
        read.only(params, "code", "name", "password", "timezone", "zone", "address", "agent")
        outcome = await self._service.set_up(
            read.text(params, "code", longest=64),
            read.text(params, "name", longest=64),
            read.text(params, "password", longest=LONGEST_PASSWORD),
            read.text(params, "address", longest=64),
            read.text(params, "agent", ""),
        )
        answer = _outcome(outcome)
        if isinstance(outcome, Opened):
            answer["notes"] = [note async for note in self._set_up_rest(outcome.holder.acting, params)]
        return answer

    async def _set_up_rest(self, acting: Acting, params: Params) -> AsyncIterator[JsonValue]:
        """Time zone and guest network; what cannot be done is a sentence, for the administrator is made already."""
        try:
            timezone = read.text(params, "timezone", None, longest=64)
            if timezone is not None and timezone != timezones.current():
                await self._gateway.system.set_timezone(timezone)
                time.tzset()
                self._service.record(acting.name, "web", acting.address, "system.timezone", f"name={timezone}", "done")
        except ControlError as err:
            yield f"The time zone was not set: {err}"
        try:
            wanted = _zone_changes(params.get("zone"))
            if wanted:
                changes = self._gateway.changes
                text = changes.text()
                fresh = apply(text, wanted)
                if fresh != text:
                    version = changes.version(text)
                    await changes.apply(fresh, version, who=acting.name, address=acting.address, confirm_s=0)
        except (ControlError, ChangeError, UciSyntaxError) as err:
            yield f"The guest network was not set up: {err}"

    async def login(self, caller: Caller, params: Params) -> JsonValue:
        """Check a name and a password, and a second factor where there is one."""
        read.only(params, "name", "password", "totp", "address", "agent")
        outcome = await self._service.log_in(
            read.text(params, "name", longest=256),
            read.text(params, "password", longest=1024),
            read.text(params, "totp", "", longest=64),
            read.text(params, "address", longest=64),
            read.text(params, "agent", ""),
        )
        return _outcome(outcome)

    def whoami(self, caller: Caller, params: Params) -> JsonValue:
        """Who has a session or token."""
        read.only(params, "credential", "address")
        return _holder_row(self._holder(params))

    async def logout(self, caller: Caller, params: Params) -> JsonValue:
        """End a session."""
        read.only(params, "credential")
        return {"done": await self._service.log_out(read.text(params, "credential", longest=LONGEST_CREDENTIAL))}

    # -- on behalf of somebody --------------------------------------------------------------------------------------

    def call(self, caller: Caller, params: Params) -> Answer:
        """Another method, for whoever has the session or token."""
        read.only(params, "credential", "address", "method", "params")
        method, acting = self._allowed(params, touch=True)
        if method.stream:
            raise ControlError(BAD_PARAMS, f"{params['method']} is a stream; ask for it with admin.stream")
        answer = method.handler(_as(caller, acting), _inner(params))
        assert not isinstance(answer, AsyncIterator)
        return answer

    async def stream(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        """Another stream, for as long as the session lasts. An open stream does not keep a session alive."""
        read.only(params, "credential", "address", "method", "params")
        method, acting = self._allowed(params, touch=False)
        if not method.stream:
            raise ControlError(BAD_PARAMS, f"{params['method']} is not a stream; ask for it with admin.call")
        events = method.handler(_as(caller, acting), _inner(params))
        assert isinstance(events, AsyncIterator)
        over = self._service.ended(acting)
        following: asyncio.Future[JsonValue] | None = None
        try:
            while True:
                following = asyncio.ensure_future(_next(events))
                await asyncio.wait((following, over), return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    raise ControlError(UNAUTHENTICATED, "This login has ended; log in again.")
                try:
                    event = following.result()
                except StopAsyncIteration:
                    return
                yield event
        finally:
            self._service.unwatch(acting, over)
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait((following,))
            closing = getattr(events, "aclose", None)
            if closing is not None:
                await closing()

    def _holder(self, params: Params, *, touch: bool = True) -> Holder:
        credential = read.text(params, "credential", longest=LONGEST_CREDENTIAL)
        return self._service.who(credential, read.text(params, "address", longest=64), touch=touch)

    def _allowed(self, params: Params, *, touch: bool) -> tuple[Method, Acting]:
        acting = self._holder(params, touch=touch).acting
        name = read.text(params, "method", longest=64)
        method = self._table.get(name)
        if method is None:
            raise ControlError(UNKNOWN_METHOD, f"there is no method {name!r}")
        why = refusal(acting, name, method.least_role)
        if why is not None:
            self._service.record(acting.name, _via(acting), acting.address, name, "", DENIED)
            raise ControlError(DENIED, why)
        return method, acting

    # -- writing down -----------------------------------------------------------------------------------------------

    def _with_record(self, table: Mapping[str, Method]) -> dict[str, Method]:
        return {
            name: replace(method, handler=partial(self._recorded, name, cast(Handler, method.handler)))
            if method.access == Access.WRITE and not method.stream
            else method
            for name, method in table.items()
        }

    def _recorded(self, name: str, handler: Handler, caller: Caller, params: Params) -> Answer:
        try:
            answer = handler(caller, params)
        except BaseException as err:
            self._record(name, caller, params, _code(err))
            raise
        if answer is None or isinstance(answer, dict | list | str | int | float):
            self._record(name, caller, params, "done")
            return answer
        return self._record_later(name, caller, params, answer)

    async def _record_later(self, name: str, caller: Caller, params: Params, answer: Awaitable[JsonValue]) -> JsonValue:
        try:
            result = await answer
        except BaseException as err:
            self._record(name, caller, params, _code(err))
            raise
        self._record(name, caller, params, "done")
        return result

    def _record(self, name: str, caller: Caller, params: Params, outcome: str) -> None:
        if outcome in (BAD_PARAMS, CONFLICT):
            return  # nothing was changed, and the sentence went to who asked
        acting = caller.acting
        via, address = ("console", "") if acting is None else (_via(acting), acting.address)
        self._service.record(caller.name, via, address, name, summary_of(params), outcome)


def _zone_changes(zone: JsonValue) -> list[Change]:
    """The guest network that the first page asks for; raises ControlError."""
    if zone is None:
        return []
    if not isinstance(zone, dict):
        raise ControlError(BAD_PARAMS, "zone must be an object")
    name = read.text(zone, "name", longest=32)
    changes: list[Change] = []
    for option, value in zone.items():
        if option == "name" or value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in values):
            raise ControlError(BAD_PARAMS, f"zone: {option[:32]} must be a string or a list of strings")
        texts = tuple(str(item) for item in values)
        if option == "uplink":  # without a way to the Internet no zone is accepted
            changes.append(SetOption("network", "", "uplink", texts))
        else:
            changes.append(SetOption("zone", name, _ZONE_OPTIONS.get(option, option), texts))
    return changes


def _code(err: BaseException) -> str:
    return err.code if isinstance(err, ControlError) else INTERNAL


async def _next(events: AsyncIterator[JsonValue]) -> JsonValue:
    return await anext(events)


def _as(caller: Caller, acting: Acting) -> Caller:
    """The web process in the name of an administrator."""
    return replace(caller, name=acting.name, access=Access.READ | Access.WRITE, acting=acting)


def _inner(params: Params) -> Params:
    inner = params.get("params")
    if inner is None:
        return {}
    if not isinstance(inner, dict):
        raise ControlError(BAD_PARAMS, "params must be an object")
    return inner


def _via(acting: Acting) -> str:
    return "token" if acting.kind == "token" else "web"


def _holder_row(holder: Holder) -> dict[str, JsonValue]:
    acting = holder.acting
    scopes: list[JsonValue] = [str(scope) for scope in sorted(acting.scopes)]
    return {
        "name": acting.name,
        "role": acting.role.word,
        "kind": acting.kind,
        "id": acting.id,
        "scopes": scopes,
        "csrf": holder.csrf,
        "expires_s": None if holder.expires_s is None else int(holder.expires_s),
    }


def _outcome(outcome: Opened | Refused) -> dict[str, JsonValue]:
    if isinstance(outcome, Opened):
        return {"result": "success", "message": "", "session": outcome.value, **_holder_row(outcome.holder)}
    refused: dict[str, JsonValue] = {"result": outcome.result, "message": outcome.message}
    if outcome.retry_after_s:
        refused["retry_after_s"] = max(1, round(outcome.retry_after_s))
    return refused
