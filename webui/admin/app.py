"""The administration as a listener serves it: who calls, whether they may, and the headers that every answer carries.

Every handler is native and asynchronous, because every page waits for the daemon. Templates are Bottle's; its request
handling is not used here, so that there is one way through this side.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo
from functools import partial
from typing import Final, TypeVar

from webui.admin import login, modules, openapi, setup, words
from webui.admin.bundles import PLACE, BundleIntake
from webui.admin.capture_desk import CaptureDesk
from webui.admin.daemon import UNAUTHENTICATED, AdminDaemon, ControlError
from webui.admin.fields import FORM_TYPE, FieldError, Fields
from webui.admin.render import StaticFiles, Templates
from webui.admin.rest import (
    PREFIX,
    STATUS_OF_CODE,
    ApiCall,
    ApiRoute,
    Problem,
    json_response,
    problem_of,
    problem_response,
)
from webui.admin.schema import PATH_TEXT, from_query, problems
from webui.admin.site import (
    FLASH_COOKIE,
    SESSION_COOKIE,
    THEME_COOKIE,
    THEMES,
    Caller,
    NavEntry,
    Page,
    Path,
    Route,
    cookie,
    read_caller,
    read_cookies,
    read_flash,
    same_origin,
    segment,
)
from webui.messages import Endpoint, Request, RequestError, Response, plain, refused
from webui.sse import Streams

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS: Final = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not no-referrer: with it a form's own POST would carry `Origin: null` (Fetch standard).
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), usb=()"),
    # No Strict-Transport-Security: with the certificate made on the device it would lock the operator out.
)
_SAFE: Final = ("GET", "HEAD")
_TITLES: Final = {403: "Not allowed", 404: "Not found", 409: "Conflict", 413: "Too large", 503: "Not now"}

Answering = Callable[[Request], Awaitable[Response]]
Found = TypeVar("Found", Route, ApiRoute)


class AdminApp:
    """The application of the administration's listener."""

    def __init__(self, daemon: AdminDaemon, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds, `wall` the time of day. Raises OSError, SyntaxError: a broken template."""
        self.daemon = daemon
        self.version = ""  # of the gateway; told by it
        self.clock = clock
        self.wall = wall
        self.zone: tzinfo = UTC
        self.hostname = ""
        self.streams = Streams()
        self.captures: CaptureDesk | None = None  # set by the service where there is a spool
        self.bundles = BundleIntake(PLACE)
        self.pending = login.PendingLogins(clock)
        self.setting_up = setup.Drafts(clock)
        self.static = StaticFiles()
        self.templates = Templates(
            static=self.static.path,
            size=words.size,
            rate=words.rate,
            duration=words.duration,
            option_label=words.option_label,
            plural=words.plural,
            iso=words.iso,
            seg=segment,
        )
        self._nav: tuple[NavEntry, ...] = modules.NAV
        self._anonymous = login.anonymous_routes() | setup.anonymous_routes()
        self._pages: list[tuple[Path, dict[str, Route]]] = []
        for route in modules.routes():
            _slot(self._pages, route.path)[route.method] = route
        self._api: list[tuple[Path, dict[str, ApiRoute]]] = []
        api_routes = [*modules.api_routes(), self._document_route()]
        for operation in api_routes:
            _slot(self._api, PREFIX + operation.path)[operation.method] = operation
        self._document = openapi.document(api_routes)

    def _document_route(self) -> ApiRoute:
        async def handler(call: ApiCall) -> object:
            return self._document

        return ApiRoute("GET", "/openapi.json", "", handler, "This document.", "API")

    @property
    def document(self) -> dict[str, object]:
        """The OpenAPI document."""
        return self._document

    # -- routing ----------------------------------------------------------------------------------------------------

    def route(self, request: Request) -> Response | Endpoint:
        """Decide by the head of a request."""
        path = request.path
        if path.startswith("/static/"):
            answer = self.static.answer(request) if request.method in _SAFE else None
            return self._secured(answer or plain(404, "no such file"))
        method = "GET" if request.method == "HEAD" else request.method
        if path.startswith("/api/"):
            return self._route_api(request, path, method)
        handler = self._anonymous.get((method, path))
        if handler is not None:
            return Endpoint(self._answering(partial(handler, self)), 0 if method == "GET" else login.LIMIT_BYTES)
        for pattern, by_method in self._pages:
            params = pattern.match(path)
            if params is None:
                continue
            route = by_method.get(method)
            if route is None:
                return self._secured(_not_allowed(list(by_method)))
            limit = 0 if method == "GET" else route.body_limit
            return Endpoint(self._answering(partial(self._page, route, params)), limit, route.streams)
        return Endpoint(self._answering(self._not_found))

    def _route_api(self, request: Request, path: str, method: str) -> Response | Endpoint:
        for pattern, by_method in self._api:
            params = pattern.match(path)
            if params is None:
                continue
            route = by_method.get(method)
            if route is None:
                response = problem_response(Problem(405, f"{path} takes {', '.join(by_method)}"))
                response.headers.append(("Allow", ", ".join(by_method)))
                return self._secured(response)
            limit = route.body_limit if route.body is not None else 0
            if int(request.header("content-length") or 0) > limit and not route.streams:
                return self._secured(problem_response(Problem(413, f"A body may have {limit} octets at most.")))
            return Endpoint(self._answering(partial(self._operation, route, params)), limit, route.streams)
        return self._secured(problem_response(Problem(404, "there is no such path in the API")))

    def refusal(self, path: str, status: int, reason: str, retry_after_s: int | None = None) -> Response:
        """What the server itself refuses: a problem document for programs, a short text for everybody else."""
        if path.startswith("/api/"):
            code = {429: "busy", 413: "too_large", 408: "timeout", 500: "internal"}.get(status, "bad_request")
            sentence = f"{reason[:1].upper()}{reason[1:]}."
            return self._secured(
                problem_response(Problem(status, sentence, code=code, retry_after_s=retry_after_s or 0))
            )
        return self._secured(refused(path, status, reason, retry_after_s))

    def _answering(self, work: Answering) -> Answering:
        """A handler whose every answer carries the security headers, and whose faults are ours to tell."""

        async def answer(request: Request) -> Response:
            try:
                response = await work(request)
            except RequestError:
                raise  # what was sent is not a request; the server tells it
            except Exception:
                log.exception("a page failed client=%s path=%s", request.client, request.path)
                if request.path.startswith("/api/"):
                    response = problem_response(Problem(500, "the gateway's log says more", code="internal"))
                else:
                    response = self.error(500, "That went wrong here", "The gateway's log says more.")
            return self._secured(response)

        return answer

    def _secured(self, response: Response) -> Response:
        have = {name.lower() for name, _ in response.headers}
        response.headers.extend((name, value) for name, value in SECURITY_HEADERS if name.lower() not in have)
        if "cache-control" not in have:
            response.headers.append(("Cache-Control", "no-store"))
        return response

    # -- pages ------------------------------------------------------------------------------------------------------

    async def _page(self, route: Route, params: dict[str, str], request: Request) -> Response:
        cookies = read_cookies(request)
        credential = cookies.get(SESSION_COOKIE, "")
        if not credential:
            return await login.to_login(self, request)
        page: Page | None = None
        try:
            caller = await self._whoami(request, credential)
            query = Fields(request.query)
            page = Page(self, request, caller, credential, params, query)
            response = self._refusal(route, page) or await route.handler(page)
            for value in page.cookies:
                response.headers.append(("Set-Cookie", value))
        except ControlError as err:
            if err.code == UNAUTHENTICATED:
                return await login.to_login(self, request)
            if err.code in ("unreachable", "timeout"):
                return self.unreachable(err)
            status = STATUS_OF_CODE.get(err.code, 500)
            return self.error(status, _TITLES.get(status, "That did not work"), err.message, page=page)
        except FieldError as err:
            return self.error(400, "Please correct the form", err.message, page=page)
        if cookies.get(FLASH_COOKIE) and isinstance(response.body, bytes) and response.status == 200:
            response.headers.append(("Set-Cookie", cookie(FLASH_COOKIE, "", max_age_s=0)))
        return response

    async def _whoami(self, request: Request, credential: str) -> Caller:
        return read_caller(await self.daemon.ask("admin.whoami", {"credential": credential, "address": request.client}))

    def _refusal(self, route: Route, page: Page) -> Response | None:
        """The answer to what a page must not be asked; reads the form of what may."""
        request, caller = page.request, page.caller
        if caller.kind != "session" or not caller.may(route.role):
            text = f"This page is for {route.role}s; you are {caller.name}, a {caller.role}."
            return self.error(403, "Not allowed", text, page=page)
        if request.method in _SAFE:
            return None
        if route.token_in_form and request.media_type == "multipart/form-data" and same_origin(request):
            return None
        if request.media_type == FORM_TYPE and not route.streams:
            page.form = Fields(request.body.decode("utf-8", "replace"))
        token = page.form.text("csrf") or request.header("x-csrf-token")
        if not same_origin(request) or not _same(token, caller.csrf):
            text = "The form was too old, or was not sent from these pages. Nothing was changed; please try again."
            return self.error(403, "Not accepted", text, page=page)
        return None

    async def _not_found(self, request: Request) -> Response:
        return self.error(404, "No such page", "The address is wrong, or the page is gone.")

    def template_values(self, page: Page | None, request: Request | None = None) -> dict[str, object]:
        """What every template may use."""
        asked = page.request if page is not None else request
        cookies = read_cookies(asked) if asked is not None else {}
        theme = cookies.get(THEME_COOKIE, "auto")
        caller = page.caller if page is not None else None
        path = asked.path if asked is not None else ""
        return {
            "caller": caller,
            "csrf": caller.csrf if caller is not None else "",
            "nav": [] if caller is None else [entry for entry in self._nav if caller.may(entry.role)],
            "here": path,
            "theme": theme if theme in THEMES else "auto",
            "themes": THEMES,
            "flash": read_flash(cookies.get(FLASH_COOKIE, "")) if page is not None else None,
            "hostname": self.hostname,
            "version": self.version,
            "when": lambda unix: words.moment(unix, self.zone),
            "now_unix": self.wall(),
        }

    def page(
        self,
        template: str,
        values: dict[str, object],
        *,
        page: Page | None = None,
        request: Request | None = None,
        status: int = 200,
    ) -> Response:
        """A whole page, for somebody or, with `request` alone, for anybody."""
        body = self.templates.render(template, {**self.template_values(page, request), **values})
        return Response(status, body.encode("utf-8", "replace"), "text/html; charset=utf-8")

    def error(self, status: int, title: str, text: str, *, page: Page | None = None) -> Response:
        """A page that says what went wrong."""
        back = login.form_page(page.request) if page is not None and page.request.method not in _SAFE else "/"
        return self.page("error", {"title": title, "text": text, "retry_s": 0, "back": back}, page=page, status=status)

    def unreachable(self, err: ControlError) -> Response:
        """The daemon is restarting or gone; the page comes back by itself."""
        text = f"{err.message}. Guests who are online stay online meanwhile; this page tries again by itself."
        response = self.page(
            "error", {"title": "The gateway does not answer", "text": text, "retry_s": 5, "back": "/"}, status=503
        )
        response.headers.append(("Retry-After", "5"))
        return response

    # -- REST -------------------------------------------------------------------------------------------------------

    async def _operation(self, route: ApiRoute, params: dict[str, str], request: Request) -> Response:
        try:
            call = await self._api_call(route, params, request)
            result = await route.handler(call)
        except Problem as problem:
            return problem_response(problem)
        except ControlError as err:
            return problem_response(problem_of(err))
        except FieldError as err:
            return problem_response(Problem(400, err.message))
        if isinstance(result, Response):
            return result
        return Response(204) if route.status == 204 else json_response(route.status, result)

    async def _api_call(self, route: ApiRoute, params: dict[str, str], request: Request) -> ApiCall:
        """Who calls, and whether they may; then what they said. Raises Problem."""
        caller, credential = None, ""
        if route.scope:
            kind, _, credential = request.header("authorization").partition(" ")
            bearer = kind.lower() == "bearer" and bool(credential)
            if not bearer:
                credential = read_cookies(request).get(SESSION_COOKIE, "")
            if not credential or (kind and not bearer):
                raise Problem(401, "send a token as `Authorization: Bearer TOKEN`", code=UNAUTHENTICATED)
            caller = await self._whoami(request, credential.strip())
            if not bearer and request.method not in _SAFE:  # a browser sends cookies by itself
                token = request.header("x-csrf-token")
                if not same_origin(request) or not _same(token, caller.csrf):
                    raise Problem(403, "with a cookie, X-CSRF-Token is needed", code="denied")
            if route.scope not in caller.scopes:
                raise Problem(403, f"this needs the scope {route.scope!r}", code="denied")
        call = ApiCall(self, request, caller, credential.strip(), params)
        wrong: list[str] = []
        for name, text in params.items():
            schema = route.path_schemas.get(name, PATH_TEXT)
            call.typed[name] = from_query(schema, text)
            wrong += problems(schema, call.typed[name], name)
        asked = Fields(request.query)
        for name in asked.names:
            if name not in route.query:
                wrong.append(f"{name[:40]}: is not known; accepted: {', '.join(route.query) or 'nothing'}")
            else:
                call.query[name] = from_query(route.query[name], asked.all(name)[0])
                wrong += problems(route.query[name], call.query[name], name)
        if route.body is not None and not route.streams and "application/json" in route.consumes:
            call.body = _json_body(route, request)
            wrong += problems(route.body, call.body)
        if wrong:
            raise Problem(400, "; ".join(wrong), code="bad_params", problems=wrong)
        return call


def _json_body(route: ApiRoute, request: Request) -> dict[str, object]:
    if not request.body and not (route.body or {}).get("required"):
        return {}
    if request.media_type != "application/json":
        raise Problem(415, "send application/json")
    try:
        found = json.loads(request.body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise Problem(400, f"the body is not JSON: {err}", code="bad_params") from None
    if not isinstance(found, dict):
        raise Problem(400, "the body: an object is wanted", code="bad_params")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _slot(table: list[tuple[Path, dict[str, Found]]], path: str) -> dict[str, Found]:
    """The methods of a path; paths without parameters come first, so that `/users/new` is no user."""
    for known, by_method in table:
        if known.text == path:
            return by_method
    by_method = {}
    table.append((Path.of(path), by_method))
    table.sort(key=lambda entry: entry[0].text.count("{"))
    return by_method


def _same(one: str, other: str) -> bool:
    return bool(other) and hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _not_allowed(methods: list[str]) -> Response:
    response = plain(405, "method not allowed")
    response.headers.append(("Allow", ", ".join(methods)))
    return response
