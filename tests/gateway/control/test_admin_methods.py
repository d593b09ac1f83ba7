"""On whose behalf the administration's web interface calls, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.admin.roles import Role
from gateway.admin.service import AdminService
from gateway.config import Config
from gateway.control.admin_methods import AdminMethods
from gateway.control.client import ControlClient
from gateway.control.protocol import (
    BAD_PARAMS,
    DENIED,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNKNOWN_METHOD,
    ControlError,
    JsonValue,
    Params,
)
from gateway.control.server import Access, Caller, ControlServer, Method
from tests.gateway.control.conftest import serving

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


class Room:
    """Methods of each kind."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.ended = 0

    def table(self) -> dict[str, Method]:
        """All of them."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        return {
            "status": Method(self.note, look),
            "secrets.show": Method(self.note, look, role=Role.ADMINISTRATOR),
            "vouchers.create": Method(self.later, change, role=Role.OPERATOR),
            "config.apply": Method(self.note, change),
            "config.break": Method(self.fail, change),
            "client.login": Method(self.note, Access.PORTAL | Access.WRITE),
            "events.follow": Method(self.count, look, stream=True),
        }

    def note(self, caller: Caller, params: Params) -> JsonValue:
        self.callers.append(caller)
        return "done"

    async def later(self, caller: Caller, params: Params) -> JsonValue:
        await asyncio.sleep(0)
        return self.note(caller, params)

    async def fail(self, caller: Caller, params: Params) -> JsonValue:
        await asyncio.sleep(0)
        raise ControlError(NOT_FOUND, "there is none")

    async def count(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        try:
            number = 0
            while params.get("until") is None or number < cast(int, params["until"]):
                yield number
                number += 1
                await asyncio.sleep(0.01)
        finally:
            self.ended += 1


class Web:
    """The web process at the socket of a daemon that has a room and an administration."""

    def __init__(self, client: ControlClient, service: AdminService, room: Room) -> None:
        self.client = client
        self.service = service
        self.room = room
        self.credential = ""

    async def ask(self, method: str, /, **params: JsonValue) -> Any:
        """A method of the web's own."""
        return await self.client.call(method, params)

    async def act(self, method: str, /, **params: JsonValue) -> Any:
        """A method on behalf of who has logged in."""
        return await self.ask(
            "admin.call", credential=self.credential, address=HERE, method=method, params=cast(JsonValue, params)
        )

    async def log_in(self, name: str) -> None:
        """Be this administrator from now on."""
        answer = await self.ask("admin.login", name=name, password=PASSWORD, address=HERE)
        self.credential = answer["session"]

    async def refusal(self, method: str, /, **params: JsonValue) -> str:
        """The code of a refusal."""
        with pytest.raises(ControlError) as caught:
            await self.act(method, **params)
        return caught.value.code

    async def written(self) -> list[tuple[str, str, str, str]]:
        """Who did what, and what became of it, the latest first."""
        _, entries = await self.service.audit.page(who="", method="", search="", offset=0, limit=100)
        return [(entry.who, entry.via, entry.method, entry.outcome) for entry in entries]


@asynccontextmanager
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    """A web process, and alice who has set the gateway up."""
    service = AdminService(Config().admin, 0.005, tmp_path, lambda: 1000.0, "boot")
    await service.start()
    room = Room()
    gateway = SimpleNamespace(config=Config())
    methods = AdminMethods(cast(Any, gateway), service).over(room.table())
    path = tmp_path / "control.sock"
    try:
        async with serving(ControlServer(path, methods, socket_group=None)):
            one = Web(await ControlClient.connect(path), service, room)
            try:
                answer = await one.ask(
                    "admin.setup", code=service.setup_code(), name="alice", password=PASSWORD, address=HERE
                )
                one.credential = answer["session"]
                yield one
            finally:
                await one.client.close()
    finally:
        service.close()


def run(story: Any) -> None:
    """A story takes no longer than 30 s."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(bounded())


def test_a_method_is_called_in_the_name_of_who_has_logged_in(tmp_path: Path) -> None:
    """The method sees the administrator, not the web process."""

    async def story() -> None:
        async with web(tmp_path) as one:
            assert await one.act("config.apply") == "done"
            (caller,) = one.room.callers
            assert caller.name == "alice"
            assert caller.acting is not None
            assert (caller.acting.role, caller.acting.address) == (Role.ADMINISTRATOR, HERE)
            state = await one.ask("admin.state")
            assert (state["setup_needed"], state["zones"]) == (False, [])
            assert (await one.ask("admin.config"))["port"] == 8443

    run(story)


def test_roles_are_looked_at_for_every_method(tmp_path: Path) -> None:
    """A viewer looks; what is refused is written down; what belongs to the portal is nobody's."""

    async def story() -> None:
        async with web(tmp_path) as one:
            await one.act("accounts.add", name="victor", password=PASSWORD, role="viewer")
            await one.act("accounts.add", name="olga", password=PASSWORD, role="operator")
            assert await one.refusal("client.login") == DENIED
            assert await one.refusal("admin.login") == UNKNOWN_METHOD
            await one.log_in("olga")
            assert await one.act("vouchers.create") == "done"
            assert await one.refusal("config.apply") == DENIED
            await one.log_in("victor")
            assert await one.act("status") == "done"
            for method in ("secrets.show", "vouchers.create", "config.apply", "accounts.list", "audit.list"):
                assert await one.refusal(method) == DENIED
            assert ("victor", "web", "config.apply", "denied") in await one.written()
            assert await one.refusal("accounts.passwd", name="olga", password=PASSWORD) == DENIED
            assert await one.refusal("accounts.passwd", password=PASSWORD) == BAD_PARAMS  # the current one is missing
            await one.act("accounts.passwd", password=PASSWORD + "!", current=PASSWORD)

    run(story)


def test_what_changes_something_is_written_down_wherever_it_came_from(tmp_path: Path) -> None:
    """From the web with name and outcome, from the socket as the system's user; looking is not."""

    async def story() -> None:
        async with web(tmp_path) as one:
            await one.act("status")
            await one.act("config.apply", text="secret stuff")
            assert await one.refusal("config.break") == NOT_FOUND
            await one.client.call("vouchers.create", {"count": 3})
            written = await one.written()
            assert written[0][1:] == ("console", "vouchers.create", "done")
            assert written[1:] == [
                ("alice", "web", "config.break", "not_found"),
                ("alice", "web", "config.apply", "done"),
                ("alice", "web", "admin.setup", "done"),
            ]
            rows = (await one.act("audit.list", method="config."))["rows"]
            assert [row["summary"] for row in rows] == ["", "text=(12)"]

    run(story)


def test_without_a_login_nothing_is_called(tmp_path: Path) -> None:
    """The code tells the web process to show the login page."""

    async def story() -> None:
        async with web(tmp_path) as one:
            await one.ask("admin.logout", credential=one.credential)
            for credential in (one.credential, "", "pst_x", "x" * 200, "ä"):
                one.credential = credential
                assert await one.refusal("status") == UNAUTHENTICATED
            assert one.room.callers == []

    run(story)


def test_a_token_is_bound_by_its_scopes(tmp_path: Path) -> None:
    """It reads where it may read, and makes no further token."""

    async def story() -> None:
        async with web(tmp_path) as one:
            made = await one.act("tokens.create", name="monitoring", scopes=["read"])
            (row,) = (await one.act("tokens.list"))["rows"]
            assert made["token"] not in str(row)
            one.credential = made["token"]
            holder = await one.ask("admin.whoami", credential=one.credential, address=HERE)
            assert (holder["kind"], holder["scopes"], holder["csrf"]) == ("token", ["read"], "")
            assert await one.act("status") == "done"
            for method in ("config.apply", "vouchers.create", "tokens.create", "tokens.list", "accounts.sessions"):
                assert await one.refusal(method) == DENIED

    run(story)


def test_a_stream_ends_with_the_login(tmp_path: Path) -> None:
    """Whoever was logged out sees no further event, and what the stream had set up is undone."""

    async def story() -> None:
        async with web(tmp_path) as one:
            params: Params = {"credential": one.credential, "address": HERE, "method": "events.follow", "params": {}}
            seen: list[JsonValue] = []

            async def follow() -> None:
                async for event in one.client.subscribe("admin.stream", params):
                    seen.append(event)
                    if len(seen) == 3:
                        await one.ask("admin.logout", credential=one.credential)

            with pytest.raises(ControlError) as caught:
                await follow()
            assert caught.value.code == UNAUTHENTICATED
            assert seen[:3] == [0, 1, 2]
            assert one.room.ended == 1
            with pytest.raises(ControlError, match="log in"):
                async for _ in one.client.subscribe("admin.stream", params):
                    pass

    run(story)


def test_a_stream_that_ends_by_itself_ends(tmp_path: Path) -> None:
    """And a stream is not called, nor a method followed."""

    async def story() -> None:
        async with web(tmp_path) as one:
            params: Params = {"credential": one.credential, "address": HERE}
            stream = one.client.subscribe("admin.stream", {**params, "method": "events.follow", "params": {"until": 2}})
            assert [event async for event in stream] == [0, 1]
            assert one.room.ended == 1
            assert await one.refusal("events.follow") == BAD_PARAMS
            with pytest.raises(ControlError, match="ask for it with admin"):
                async for _ in one.client.subscribe("admin.stream", {**params, "method": "status"}):
                    pass
            assert not one.service._watchers

    run(story)


def test_sessions_are_seen_and_revoked_by_their_owner(tmp_path: Path) -> None:
    """Of others by administrators only."""

    async def story() -> None:
        async with web(tmp_path) as one:
            await one.act("accounts.add", name="victor", password=PASSWORD)
            alices = one.credential
            await one.log_in("victor")
            await one.log_in("victor")
            rows = (await one.act("accounts.sessions"))["rows"]
            assert [row["name"] for row in rows] == ["victor", "victor"]
            assert sum(row["current"] for row in rows) == 1
            assert await one.refusal("accounts.sessions", name="alice") == DENIED
            own = await one.act("accounts.show")
            assert (own["name"], own["totp"], own["sessions"]) == ("victor", False, 2)
            assert await one.refusal("accounts.show", name="alice") == DENIED
            assert await one.refusal("accounts.sessions", all=True) == DENIED
            assert (await one.act("accounts.revoke"))["ended"] == 1  # the other one
            victors, one.credential = one.credential, alices
            everybody = (await one.act("accounts.sessions", all=True))["rows"]
            assert sorted(row["name"] for row in everybody) == ["alice", "victor"]
            foreign = next(row["id"] for row in everybody if row["name"] == "victor")
            own = next(row["id"] for row in everybody if row["name"] == "alice")
            one.credential = victors
            assert (await one.act("accounts.revoke", id=own))["ended"] == 0
            one.credential = alices
            assert (await one.act("accounts.revoke", id=foreign))["ended"] == 1
            one.credential = victors
            assert await one.refusal("status") == UNAUTHENTICATED

    run(story)


def test_root_at_the_socket_brings_a_lost_owner_back(tmp_path: Path) -> None:
    """A password and a second factor are reset without the old ones."""

    async def story() -> None:
        async with web(tmp_path) as one:
            begun = await one.act("accounts.totp_begin")
            assert begun["uri"].startswith("otpauth://totp/Postern:alice?secret=")
            assert await one.refusal("accounts.totp_confirm", totp="abc") == BAD_PARAMS
            assert (await one.ask("accounts.totp_remove", name="alice"))["removed"] is False
            await one.ask("accounts.passwd", name="Alice", password="another long password")
            assert await one.refusal("status") == UNAUTHENTICATED
            with pytest.raises(ControlError):
                await one.ask("accounts.totp_begin")
            with pytest.raises(ControlError):
                await one.ask("accounts.passwd", password="another long password")

    run(story)
