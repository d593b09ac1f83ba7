"""What a page of the administration is made of: its routes, who looks at it, and how it calls and answers.

A page module exposes `routes() -> list[Route]`; `webui.admin.modules` lists the modules. A handler gets a `Page`: who
calls (already looked up), path parameters, query and form (its CSRF token already checked), `call` to ask the daemon
on the caller's behalf, and `render` and `redirect` to answer. A ControlError that a handler lets through becomes a page
that says it; a FieldError becomes one that says which field is wrong.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import field
from datetime import tzinfo
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from gateway.values import value_class
from webui.admin.daemon import CALL_TIMEOUT_S, Answer, JsonValue, Params
from webui.admin.fields import Fields
from webui.messages import Request, Response
from webui.sse import Event

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

ROLES: Final = ("viewer", "operator", "administrator")  # each may what those before it may
SCOPES: Final = ("read", "operate", "captures", "configure")
ROLE_SCOPES: Final = {
    "viewer": frozenset(("read",)),
    "operator": frozenset(("read", "operate", "captures")),
    "administrator": frozenset(SCOPES),
}
FORM_LIMIT_BYTES: Final = 256 << 10
SESSION_COOKIE: Final = "__Host-postern"
FLASH_COOKIE: Final = "__Host-postern-flash"
THEME_COOKIE: Final = "__Host-postern-theme"
THEMES: Final = ("auto", "light", "dark")
_MAX_FLASH: Final = 600


@value_class
class Caller:
    """Who holds a credential, as the daemon says."""

    name: str
    role: str
    kind: str  # session or token
    scopes: frozenset[str]
    csrf: str
    expires_s: float | None = None

    def may(self, role: str) -> bool:
        """Whether the caller's role is at least `role`."""
        return self.role in ROLES and ROLES.index(self.role) >= ROLES.index(role)


def read_caller(answer: Answer) -> Caller:
    """The answer of `admin.whoami`; sessions have the scopes of their role, tokens those they were given."""
    role = str(answer.get("role", ""))
    allowed = ROLE_SCOPES.get(role, frozenset())
    kind = str(answer.get("kind", "session"))
    scopes = frozenset(answer.get("scopes") or ()) & allowed if kind == "token" else allowed
    expires = answer.get("expires_s")
    return Caller(
        str(answer.get("name", "")),
        role,
        kind,
        scopes,
        str(answer.get("csrf", "")),
        float(expires) if isinstance(expires, int | float) else None,
    )


PageHandler = Callable[["Page"], Awaitable[Response]]


@value_class
class Route:
    """One page or form. `path` may hold `{name}` for one segment; `role` is the least role that gets an answer.

    With `streams` the handler takes the body from `page.request.stream`; the CSRF token is then in the header
    X-CSRF-Token, and so it is for every body that is not a form. With `token_in_form` the handler finds it in the form
    that streams by, and checks it before anything is done.
    """

    method: str
    path: str
    handler: PageHandler
    role: str = "viewer"
    body_limit: int = FORM_LIMIT_BYTES
    streams: bool = False
    token_in_form: bool = False


@value_class
class NavEntry:
    """A line of the navigation."""

    path: str
    label: str
    icon: str
    role: str = "viewer"


@value_class
class Path:
    """A path with `{name}` segments, ready to match."""

    pattern: re.Pattern[str] = field(compare=False)
    text: str

    @classmethod
    def of(cls, text: str) -> Path:
        """Read a path."""
        parts = re.split(r"\{(\w+)\}", text)
        expression = "".join(
            re.escape(part) if number % 2 == 0 else f"(?P<{part}>[^/]+)" for number, part in enumerate(parts)
        )
        return cls(re.compile(expression), text)

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters when a path as sent matches; None when not, also for escapes that are no UTF-8."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        try:
            return {name: unquote(value, errors="strict") for name, value in found.groupdict().items()}
        except UnicodeDecodeError:
            return None


class Page:
    """One request of somebody who is logged in."""

    def __init__(
        self, app: AdminApp, request: Request, caller: Caller, credential: str, params: dict[str, str], query: Fields
    ) -> None:
        self.app = app
        self.request = request
        self.caller = caller
        self.params = params
        self.query = query
        self.form = Fields()
        self._credential = credential
        self._cookies: list[str] = []

    @property
    def cookies(self) -> list[str]:
        """Set-Cookie values of the answer."""
        return self._cookies

    @property
    def zone(self) -> tzinfo:
        """The time zone in which times are shown."""
        return self.app.zone

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

    async def log_out(self) -> None:
        """End the caller's session at the daemon."""
        await self.app.daemon.ask("admin.logout", {"credential": self._credential})

    def fragment(self, template: str, **values: object) -> str:
        """A piece of a page."""
        return self.app.templates.render(template, {**self.app.template_values(self), **values})

    def render(self, template: str, *, title: str, status: int = 200, **values: object) -> Response:
        """A whole page."""
        return self.app.page(template, {"title": title, **values}, page=self, status=status)

    def redirect(self, to: str, flash: str = "", kind: str = "good") -> Response:
        """Go on to a page of ours (303) after a form, with a message shown there once."""
        if flash:
            self._cookies.append(flash_cookie(kind, flash))
        return Response(303, b"", "", [("Location", to)])

    def set_cookie(self, value: str) -> None:
        """Add a Set-Cookie to the answer."""
        self._cookies.append(value)

    async def check(self) -> None:
        """Whether the login still holds, for what goes on long after it was looked at; raises ControlError when not."""
        await self.app.daemon.ask("admin.whoami", {"credential": self._credential, "address": self.request.client})

    def live(self, events: AsyncGenerator[Event, None]) -> Response:
        """Answer with a stream of events (bounded, with heartbeat)."""
        return self.app.streams.answer(events)


def cookie(name: str, value: str, *, max_age_s: int | None = None) -> str:
    """A cookie that only we, only over TLS, and only our own pages get; 0 seconds removes it."""
    age = "" if max_age_s is None else f"; Max-Age={max_age_s}"
    return f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}"


def read_cookies(request: Request) -> dict[str, str]:
    """The cookies of a request; of repeated names the first."""
    found: dict[str, str] = {}
    for part in request.header("cookie").replace(", ", "; ").split(";"):
        name, equals, value = part.strip().partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def flash_cookie(kind: str, text: str) -> str:
    """A message for the next page, kept by the browser meanwhile."""
    packed = json.dumps([kind, text[:_MAX_FLASH]], ensure_ascii=False).encode()
    return cookie(FLASH_COOKIE, base64.urlsafe_b64encode(packed).decode().rstrip("="), max_age_s=60)


def read_flash(value: str) -> tuple[str, str] | None:
    """Kind (good, bad) and text of a message; None for anything else."""
    if not value or len(value) > 4 * _MAX_FLASH:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except ValueError:
        return None
    match found:
        case [("good" | "bad") as kind, str(text)]:
            return kind, text
        case _:
            return None


def own_path(text: str, default: str = "/") -> str:
    """A path to go on to after login, when it is one of ours and nothing else; `//host` and `/\\host` are others'."""
    if not text.startswith("/") or text.startswith(("//", "/\\")) or not text.isascii() or not text.isprintable():
        return default
    return text


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def same_origin(request: Request) -> bool:
    """Whether a browser says that the request comes from our own pages; programs say nothing, and that passes."""
    site = request.header("sec-fetch-site")
    if site not in ("", "same-origin", "none"):
        return False
    origin = request.header("origin")
    return not origin or origin == f"https://{request.header('host')}"
