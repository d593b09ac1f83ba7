"""Whatever a web process that was broken into sends, the daemon answers or refuses; it never fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.admin.service import AdminService, Opened
from gateway.config import Config
from gateway.config_apply import ConfigChanges
from gateway.config_loader import Problem, load
from gateway.control.access import Access
from gateway.control.admin_methods import AdminMethods
from gateway.control.config_methods import ConfigMethods
from gateway.control.connection import Method
from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.control.server import Caller
from gateway.system.client import System

TEXT = "config radius\n\toption coa_secret 'long-enough-secret'\n"
# The parameters that methods take, so that values meet the code behind the first check.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "admin.setup": ("code", "name", "password", "timezone", "zone", "address", "agent"),
    "admin.login": ("name", "password", "totp", "address", "agent"),
    "admin.whoami": ("credential", "address"),
    "admin.call": ("credential", "address", "method", "params"),
    "admin.stream": ("credential", "address", "method", "params"),
    "accounts.show": ("name",),
    "accounts.add": ("name", "password", "role"),
    "accounts.change": ("name", "role", "disabled"),
    "accounts.passwd": ("name", "password", "current"),
    "accounts.totp_confirm": ("totp",),
    "accounts.totp_remove": ("name", "current"),
    "accounts.sessions": ("name", "all"),
    "accounts.revoke": ("id", "name"),
    "tokens.create": ("owner", "name", "scopes", "expires_unix"),
    "tokens.revoke": ("id",),
    "audit.list": ("who", "method", "search", "offset", "limit"),
    "config.preview": ("text", "changes"),
    "config.apply": ("text", "changes", "version", "confirm_s"),
    "config.confirm": ("change",),
    "config.revert": ("change",),
    "config.past": ("change",),
}
TEXTS = st.sampled_from(
    [
        *("alice", "viewer", "read", "192.0.2.1", "::1", "status", "config.text", "accounts.list", "radius", "timeout"),
        *("zone", "guest", "admin", "port", "9443", TEXT, "config '", "********", "ä", "\n", "", "pst_x", "a" * 300),
        *("Europe/Paris", "../..", "correct horse battery", "123456", "\ud7ff", "IyBQb3N0ZXJu", "%", "1e9"),
    ]
)
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["section_type", "name", "option", "values", "add", "remove", "methods", "uplink", "secret"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
CALLS = st.lists(
    st.sampled_from(sorted(PARAMETERS)).flatmap(
        lambda method: st.tuples(
            st.just(method), st.dictionaries(st.sampled_from(PARAMETERS[method]), VALUES), st.booleans()
        )
    ),
    min_size=1,
    max_size=12,
)


class QuietSystem(System):
    """A system whose time zone is left alone."""

    async def set_timezone(self, name: str) -> None:
        """Nothing is set."""


async def table_of(directory: Path) -> tuple[AdminService, dict[str, Method], Opened]:
    """The methods of a daemon whose administrator is alice."""
    config = directory / "postern"
    config.write_text(TEXT)
    service = AdminService(Config().admin, 0.001, directory, lambda: 1000.0, "boot")
    await service.start()
    loaded = load(TEXT)

    async def reload() -> tuple[list[str], list[Problem]]:
        return [], []

    system = QuietSystem(config, directory)
    changes = ConfigChanges(
        config,
        service.thread,
        running=lambda: loaded,
        reload=reload,
        not_changeable=lambda _: [],
        write=system.write_config,
        clock=lambda: 1000.0,
        unix_clock=lambda: 1_800_000_000.0,
        boot_id="boot",
    )
    gateway = SimpleNamespace(config=Config(), system=system, changes=changes)
    methods = AdminMethods(cast(Any, gateway), service).over(ConfigMethods(changes, system).table())
    opened = await service.set_up(service.setup_code(), "alice", "correct horse battery", "192.0.2.1", "")
    assert isinstance(opened, Opened)
    return service, methods, opened


async def answer_of(method: Method, caller: Caller, params: Params) -> JsonValue:
    """What a method answers; of a stream the first event."""
    answer = method.handler(caller, params)
    if isinstance(answer, AsyncIterator):
        return await anext(answer, None)
    return await answer if isinstance(answer, Awaitable) else answer


@given(calls=CALLS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_nonsense_is_answered_or_refused(calls: list[tuple[str, Params, bool]], tmp_path_factory: Any) -> None:
    """Any parameters of any method, in any order: a value that JSON can say, or a refusal with a sentence."""

    async def story() -> None:
        service, methods, opened = await table_of(tmp_path_factory.mktemp("nonsense"))
        console = Caller(0, 0, 1, frozenset(), Access.READ | Access.WRITE | Access.ADMIN, "root")
        web = replace(console, name="alice", acting=opened.holder.acting)
        try:
            for name, params, by_web in calls:
                if name in ("admin.call", "admin.stream", "admin.whoami"):
                    params = {**params, "credential": opened.value}
                try:
                    json.dumps(await answer_of(methods[name], web if by_web else console, params))
                except ControlError:
                    pass  # a refusal is an answer
        finally:
            service.close()

    asyncio.run(story())
