"""What a route of the REST API is made of: method, path, scope, schemas, and the call that its handler gets.

A REST module exposes `api_routes() -> list[ApiRoute]`; `webui.admin.modules` lists the modules. The schemas check
every request before the handler sees it and make the OpenAPI document. A handler returns what becomes the JSON body,
or a Response of its own; a ControlError or Problem becomes `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from gateway.values import value_class
from webui.admin.daemon import CALL_TIMEOUT_S, Answer, ControlError, JsonValue, Params
from webui.admin.schema import Schema, anything
from webui.admin.site import Caller
from webui.messages import Request, Response
from webui.sse import FULL_RETRY_S, TOO_MANY, Event

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

API_LIMIT_BYTES: Final = 1 << 20
PREFIX: Final = "/api/v1"
PROBLEM_TYPE: Final = "application/problem+json"

# How a refusal of the daemon is told in HTTP.
STATUS_OF_CODE: Final = {
    "bad_params": 400,
    "bad_request": 400,
    "unauthenticated": 401,
    "denied": 403,
    "not_found": 404,
    "no_lease": 404,
    "unknown_method": 404,
    "conflict": 409,
    "too_large": 413,
    "frame_too_long": 413,
    "too_slow": 503,
    "busy": 503,
    "unavailable": 503,
    "unreachable": 503,
    "cancelled": 503,
    "too_many_connections": 503,
    "timeout": 504,
}
_TITLES: Final = {
    400: "The request is wrong",
    401: "Log in first",
    403: "Not allowed",
    404: "Not found",
    405: "Not with this method",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Wrong kind of content",
    422: "The content cannot be used",
    429: "Too many requests",
    500: "A fault of the gateway",
    503: "Not now",
    504: "No answer in time",
    507: "No room left",
}
_RETRY_S: Final = 5


class Problem(Exception):
    """A refusal that the client is told, with further members of the problem document by keyword."""

    def __init__(self, status: int, detail: str, *, code: str = "", retry_after_s: int = 0, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.retry_after_s = retry_after_s
        self.more = more


ApiHandler = Callable[["ApiCall"], Awaitable[object]]


@value_class
class ApiRoute:
    """One operation. `path` follows /api/v1 and may hold `{name}` for one segment.

    `scope` is what a token must have; empty for what anybody may ask. `query` and `body` are checked; unknown
    parameters are refused. `produces` is the type of the answer when it is not JSON, `consumes` that of the body; with
    `streams` the handler takes the body from `call.request.stream`. `errors` are statuses of refusals beyond the usual.
    """

    method: str
    path: str
    scope: str
    handler: ApiHandler
    summary: str
    tag: str
    query: dict[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    result: Schema = field(default_factory=anything)
    status: int = 200
    path_schemas: dict[str, Schema] = field(default_factory=dict)
    produces: str = "application/json"
    consumes: tuple[str, ...] = ("application/json",)
    streams: bool = False
    body_limit: int = API_LIMIT_BYTES


class ApiCall:
    """One request to the REST API by somebody who may make it."""

    def __init__(
        self, app: AdminApp, request: Request, caller: Caller | None, credential: str, params: dict[str, str]
    ) -> None:
        self.app = app
        self.request = request
        self.params = params
        self.typed: dict[str, Any] = {}  # path parameters; Any: of the type that the schema says, which was checked
        self.query: dict[str, Any] = {}
        self.body: dict[str, Any] = {}
        self._caller = caller
        self._credential = credential

    @property
    def caller(self) -> Caller:
        """Who calls; there is nobody for routes without a scope, whose handlers do not ask."""
        assert self._caller is not None
        return self._caller

    async def call(
        self, method: str, params: Params | None = None, /, *, timeout_s: float = CALL_TIMEOUT_S, **more: JsonValue
    ) -> Answer:
        """Ask the daemon on the caller's behalf; parameters that are None are left out. Raises ControlError."""
        given: Params = {name: value for name, value in {**(params or {}), **more}.items() if value is not None}
        return await self.app.daemon.call(self._credential, self.request.client, method, given, timeout_s)

    def stream(self, method: str, **params: JsonValue) -> AsyncIterator[Answer]:
        """A stream of the daemon on the caller's behalf; raises ControlError when it breaks."""
        given: Params = {name: value for name, value in params.items() if value is not None}
        return self.app.daemon.stream(self._credential, self.request.client, method, given)

    async def check(self) -> None:
        """Whether the login still holds, for what goes on long after it was looked at; raises ControlError when not."""
        await self.app.daemon.ask("admin.whoami", {"credential": self._credential, "address": self.request.client})

    def live(self, events: AsyncGenerator[Event, None]) -> Response:
        """Answer with a stream of events (bounded, with heartbeat); raises Problem when there are too many."""
        if self.app.streams.full:
            raise Problem(503, TOO_MANY, code="busy", retry_after_s=FULL_RETRY_S)
        return self.app.streams.answer(events)


def asks(method: str, *, timeout_s: float = CALL_TIMEOUT_S, **fixed: JsonValue) -> ApiHandler:
    """A handler that passes everything that was given on to a method of the daemon, and its answer back."""

    async def handler(call: ApiCall) -> object:
        return await call.call(method, {**call.query, **call.body, **call.typed, **fixed}, timeout_s=timeout_s)

    return handler


def json_response(status: int, value: object, content_type: str = "application/json") -> Response:
    """A JSON document."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(status, body, content_type, [("Cache-Control", "no-store")])


def problem_response(problem: Problem) -> Response:
    """A refusal as RFC 9457 wants it."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status, "Refused"),
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    if problem.code:
        document["code"] = problem.code
    response = json_response(problem.status, document, PROBLEM_TYPE)
    if problem.status == 401:
        response.headers.append(("WWW-Authenticate", 'Bearer realm="postern"'))
    if problem.status == 503 or problem.retry_after_s:
        response.headers.append(("Retry-After", str(problem.retry_after_s or _RETRY_S)))
    return response


def problem_of(error: ControlError) -> Problem:
    """A refusal of the daemon in HTTP's words."""
    status = STATUS_OF_CODE.get(error.code, 500)
    return Problem(status, error.message, code=error.code)
