"""REST: configuration, events, history, health, administrators, tokens and the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from webui.admin.daemon import ControlError
from webui.admin.rest import ApiCall, ApiRoute, asks
from webui.admin.schema import (
    Schema,
    anything,
    array,
    boolean,
    choice,
    integer,
    number,
    record,
    rows,
    text,
)
from webui.admin.site import ROLES, SCOPES
from webui.sse import Event

CONFIG, EVENTS, SYSTEM, ACCOUNTS = "Configuration", "Events", "System", "Accounts"
_SLOW_S: Final = 60.0
_FILE: Final = 80_000  # characters: as JSON it fits API_LIMIT_BYTES however it is escaped; files in use have 5,000
_SERIES: Final = ("online", "upload_bytes", "download_bytes", "logins", "failures", "memory_bytes", "load")

_CHANGE: Final = record(
    {
        "section_type": text(shortest=1, longest=60),
        "name": text(longest=60),
        "option": text(shortest=1, longest=60),
        "values": array(text(longest=2000), most=100),
        "add": boolean(),
        "remove": boolean(),
    },
    "One option set (no values: back to the default), or a section added or removed.",
    required=("section_type",),
)
_WISH: Final[dict[str, Schema]] = {
    "text": text("The whole file; a secret's mark stands for what is there.", longest=_FILE),
    "changes": array(_CHANGE, "Or single changes.", most=200),
}


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    return [*_config(), *_events(), *_system(), *_accounts()]


def _config() -> list[ApiRoute]:
    configure = "configure"
    number_ = {"change": integer(low=1, high=10**9)}
    confirm = integer("Taken back unless confirmed within this time; 0 is never.", high=3600)
    return [
        ApiRoute(
            "GET",
            "/config",
            "read",
            asks("config.show"),
            "Options and their values.",
            CONFIG,
            query={"effective": boolean("Defaults too.")},
            result=rows(anything()),
        ),
        ApiRoute("GET", "/config/schema", "read", asks("config.schema"), "What can be configured.", CONFIG),
        ApiRoute(
            "GET",
            "/config/text",
            configure,
            asks("config.text"),
            "The file, secrets as marks.",
            CONFIG,
            result=record({"text": text(longest=10**7), "version": text()}, required=("text", "version"), more=True),
        ),
        ApiRoute(
            "POST",
            "/config/preview",
            configure,
            asks("config.preview", timeout_s=_SLOW_S),
            "What a change would do.",
            CONFIG,
            body=record(_WISH),
        ),
        ApiRoute(
            "POST",
            "/config/apply",
            configure,
            asks("config.apply", timeout_s=_SLOW_S),
            "Change it.",
            CONFIG,
            body=record(
                {**_WISH, "version": text("As /config/text gave it.", longest=64), "confirm_s": confirm},
                required=("version",),
            ),
        ),
        ApiRoute(
            "GET",
            "/config/changes",
            configure,
            asks("config.history"),
            "Past changes.",
            CONFIG,
            result=rows(anything()),
        ),
        ApiRoute(
            "GET",
            "/config/changes/{change}",
            configure,
            asks("config.past"),
            "One past change.",
            CONFIG,
            path_schemas=number_,
        ),
        ApiRoute(
            "POST",
            "/config/changes/{change}/confirm",
            configure,
            asks("config.confirm"),
            "Keep a change that waits to be confirmed.",
            CONFIG,
            path_schemas=number_,
        ),
        ApiRoute(
            "POST",
            "/config/changes/{change}/revert",
            configure,
            asks("config.revert", timeout_s=_SLOW_S),
            "Go back to before a change.",
            CONFIG,
            path_schemas=number_,
        ),
        ApiRoute(
            "POST",
            "/config/reload",
            configure,
            asks("config.reload", timeout_s=_SLOW_S),
            "Read the file again.",
            CONFIG,
        ),
    ]


def _events() -> list[ApiRoute]:
    client = text("MAC, address, session or user.", shortest=1, longest=253)
    return [
        ApiRoute(
            "GET",
            "/events",
            "read",
            asks("events.list"),
            "What happened, oldest first.",
            EVENTS,
            query={"client": client, "limit": integer(low=1, high=1000)},
            result=rows(anything()),
        ),
        ApiRoute(
            "GET",
            "/events/stream",
            "read",
            follow,
            "What happens, as server-sent events.",
            EVENTS,
            query={"client": client},
            produces="text/event-stream",
        ),
    ]


async def follow(call: ApiCall) -> object:
    """The daemon's events as they come; the stream ends with the token."""

    async def events() -> AsyncGenerator[Event, None]:
        try:
            async for event in call.stream("events.follow", client=call.query.get("client")):
                yield Event(event, str(event.get("kind") or "event"))
        except ControlError as err:
            yield Event({"code": err.code, "detail": err.message}, "over")

    return call.live(events())


def _system() -> list[ApiRoute]:
    return [
        ApiRoute(
            "GET",
            "/health/checks",
            "read",
            asks("doctor.run", timeout_s=_SLOW_S),
            "Everything that the doctor checks.",
            SYSTEM,
            result=rows(anything()),
        ),
        ApiRoute(
            "GET",
            "/activity",
            "read",
            history,
            "The last 24 hours.",
            SYSTEM,
            query={
                "series": choice("One of them; without it: all.", *_SERIES),
                "span_s": integer(low=60, high=86400),
                "step_s": integer(low=60, high=86400),
            },
        ),
        ApiRoute("GET", "/radius", "read", asks("radius.status"), "RADIUS servers and the accounting queue.", SYSTEM),
        ApiRoute("GET", "/timezones", "read", asks("system.timezones"), "Time zones, and the one that is set.", SYSTEM),
        ApiRoute(
            "PUT",
            "/timezone",
            "configure",
            asks("system.timezone", timeout_s=_SLOW_S),
            "Set the time zone.",
            SYSTEM,
            body=record({"name": text(shortest=1, longest=64)}, required=("name",)),
        ),
    ]


async def history(call: ApiCall) -> object:
    """The ring of the last 24 hours."""
    series = call.query.get("series")
    return await call.call(
        "history.read",
        series=[series] if series else None,
        span_s=call.query.get("span_s"),
        step_s=call.query.get("step_s"),
    )


def _accounts() -> list[ApiRoute]:
    configure = "configure"
    password = text(shortest=1, longest=256)
    name = {"name": text(shortest=1, longest=64)}
    role = choice("", *ROLES)
    token = record(
        {
            "name": text("What it is for.", shortest=1, longest=64),
            "scopes": array(choice("", *SCOPES), most=4, least=1),
            "expires_unix": number("Seconds since 1970."),
        },
        required=("name", "scopes"),
    )
    return [
        ApiRoute(
            "GET",
            "/accounts",
            configure,
            asks("accounts.list"),
            "Administrators. Accounts and tokens take a login; a token is refused.",
            ACCOUNTS,
            result=rows(anything()),
        ),
        ApiRoute(
            "POST",
            "/accounts",
            configure,
            asks("accounts.add"),
            "Make an administrator.",
            ACCOUNTS,
            body=record({**name, "password": password, "role": role}, required=("name", "password", "role")),
            status=201,
        ),
        ApiRoute(
            "PATCH",
            "/accounts/{name}",
            configure,
            asks("accounts.change"),
            "Change role or state.",
            ACCOUNTS,
            body=record({"role": role, "disabled": boolean()}),
            path_schemas=name,
        ),
        ApiRoute(
            "DELETE",
            "/accounts/{name}",
            configure,
            asks("accounts.remove"),
            "Remove an administrator.",
            ACCOUNTS,
            path_schemas=name,
        ),
        ApiRoute("GET", "/tokens", "read", asks("tokens.list"), "One's own tokens.", ACCOUNTS, result=rows(anything())),
        ApiRoute(
            "POST",
            "/tokens",
            "read",
            asks("tokens.create"),
            "Make a token; its value is told once.",
            ACCOUNTS,
            body=token,
            status=201,
        ),
        ApiRoute(
            "DELETE",
            "/tokens/{id}",
            "read",
            asks("tokens.revoke"),
            "Revoke a token.",
            ACCOUNTS,
            path_schemas={"id": text(shortest=1, longest=32)},
        ),
        ApiRoute(
            "GET",
            "/audit",
            configure,
            asks("audit.list"),
            "Who changed what, newest first.",
            ACCOUNTS,
            query={
                "who": text(longest=64),
                "method": text(longest=64),
                "search": text(longest=100),
                "offset": integer(high=10**9),
                "limit": integer(low=1, high=1000),
            },
            result=rows(anything(), total=integer()),
        ),
    ]
