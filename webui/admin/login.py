"""Login with its second factor, and what every form of somebody without a session is made of.

The daemon checks everything and counts the attempts. Between the password and the code of the second factor, both wait
here for two minutes under a random name, so that the password is never written into a page.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from gateway.values import value_class
from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FORM_TYPE, FieldError, Fields
from webui.admin.site import SESSION_COOKIE, cookie, own_path, read_cookies, same_origin
from webui.messages import Request, Response

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

LIMIT_BYTES: Final = 16 << 10
FORM_COOKIE: Final = "__Host-postern-form"
_PENDING_S: Final = 120.0
_MAX_PENDING: Final = 100
MAX_PASSWORD: Final = 1024

AnonymousHandler = Callable[["AdminApp", Request], Awaitable[Response]]


@value_class
class Pending:
    """A password that was right, waiting for its second factor."""

    name: str
    password: str
    onward: str
    until: float


class PendingLogins:
    """Logins between their two factors, each for two minutes; the oldest goes when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pending: dict[str, Pending] = {}

    def put(self, name: str, password: str, onward: str) -> str:
        """Keep a login; returns its ticket."""
        now = self._clock()
        self._pending = {ticket: one for ticket, one in self._pending.items() if one.until > now}
        while len(self._pending) >= _MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        ticket = secrets.token_urlsafe(18)
        self._pending[ticket] = Pending(name, password, onward, now + _PENDING_S)
        return ticket

    def get(self, ticket: str) -> Pending | None:
        """The login of a ticket, if it still waits."""
        found = self._pending.get(ticket)
        return found if found is not None and found.until > self._clock() else None

    def drop(self, ticket: str) -> None:
        """Forget a login; twice is once."""
        self._pending.pop(ticket, None)


def anonymous_routes() -> dict[tuple[str, str], AnonymousHandler]:
    """What needs no session."""
    return {
        ("GET", "/login"): show_login,
        ("POST", "/login"): log_in,
        ("POST", "/login/code"): second_factor,
    }


async def to_login(app: AdminApp, request: Request) -> Response:
    """The way to the login page for somebody without a session, who then comes back to where they wanted."""
    if request.header("accept").startswith("text/event-stream") or request.header("x-csrf-token"):
        return Response(401, b"log in first\n", "text/plain; charset=utf-8")  # a script asks: its page reloads
    had_session = SESSION_COOKIE in read_cookies(request)
    asked = {}
    target = own_path(request.target) if request.method == "GET" else form_page(request)
    if target != "/":
        asked["next"] = target
    if had_session and request.method != "GET":
        asked["over"] = "1"
    headers = [("Location", f"/login?{urlencode(asked)}" if asked else "/login")]
    if had_session:
        headers.append(("Set-Cookie", cookie(SESSION_COOKIE, "", max_age_s=0)))
    return Response(303, b"", "", headers)


def form_page(request: Request) -> str:
    """The page of ours that a form was sent from."""
    origin, page = f"https://{request.header('host')}", request.header("referer")
    return own_path(page.removeprefix(origin)) if page.startswith(f"{origin}/") else "/"


def _form_token(request: Request) -> tuple[str, list[str]]:
    """The token for a form of somebody without a session, and the cookie to set with it."""
    known = read_cookies(request).get(FORM_COOKIE, "")
    if 20 <= len(known) <= 64:
        return known, []
    fresh = secrets.token_urlsafe(24)
    return fresh, [cookie(FORM_COOKIE, fresh)]


def read_form(request: Request) -> Fields:
    """The form of somebody without a session; raises FieldError when it is not from our page."""
    fields = Fields(request.body.decode("utf-8", "replace")) if request.media_type == FORM_TYPE else Fields()
    known = read_cookies(request).get(FORM_COOKIE, "")
    if (
        not known
        or not secrets.compare_digest(known.encode(), fields.text("form").encode())
        or not same_origin(request)
    ):
        raise FieldError("", "The form was too old; please try again. (This page needs cookies.)")
    return fields


def show_form(
    app: AdminApp, request: Request, template: str, values: dict[str, object], *, status: int = 200
) -> Response:
    """A page with a form for somebody without a session."""
    token, cookies = _form_token(request)
    response = app.page(template, {"form": token, **values}, request=request, status=status)
    response.headers.extend(("Set-Cookie", value) for value in cookies)
    return response


# -- login ------------------------------------------------------------------------------------------------------------


async def show_login(app: AdminApp, request: Request) -> Response:
    """GET /login: the form; the set-up page while there is no administrator, and the way on for who is logged in."""
    try:
        state = await app.daemon.ask("admin.state", {})
    except ControlError as err:
        return app.unreachable(err)
    if state.get("setup_needed"):
        return Response(303, b"", "", [("Location", "/setup")])
    query = Fields(request.query)
    onward = own_path(query.text("next", "/"))
    if await _is_logged_in(app, request):
        return Response(303, b"", "", [("Location", onward)])
    alert = "Your login was over, so nothing was changed. Log in, and try again." if query.text("over") else ""
    return _login_page(app, request, onward=onward, alert=alert)


async def _is_logged_in(app: AdminApp, request: Request) -> bool:
    credential = read_cookies(request).get(SESSION_COOKIE, "")
    if not credential:
        return False
    try:
        await app.daemon.ask("admin.whoami", {"credential": credential, "address": request.client})
    except ControlError:  # the session is over, or the daemon is gone just now: the form is the way on
        return False
    return True


def _login_page(
    app: AdminApp, request: Request, *, onward: str, name: str = "", alert: str = "", status: int = 200
) -> Response:
    values: dict[str, object] = {"title": "Log in", "name": name, "alert": alert, "onward": onward}
    return show_form(app, request, "login", values, status=status)


def _code_page(app: AdminApp, request: Request, ticket: str, alert: str = "", status: int = 200) -> Response:
    return show_form(
        app, request, "login_code", {"title": "Second factor", "ticket": ticket, "alert": alert}, status=status
    )


async def log_in(app: AdminApp, request: Request) -> Response:
    """POST /login: name and password."""
    try:
        form = read_form(request)
        onward = own_path(form.text("next", "/"))
        name = form.required("name", "The name", longest=100)
        password = form.raw("password", longest=MAX_PASSWORD)
    except FieldError as err:
        return _login_page(app, request, onward="/", alert=err.message, status=400)
    try:
        answer = await _try(app, request, name, password, None)
    except ControlError as err:
        return _refused(app, request, err, onward, name)
    result = answer.get("result")
    if result == "totp":
        return _code_page(app, request, app.pending.put(name, password, onward))
    if result == "success":
        return _logged_in(answer, onward)
    return _login_page(app, request, onward=onward, name=name, alert=why(answer), status=status_of(answer))


async def second_factor(app: AdminApp, request: Request) -> Response:
    """POST /login/code: the six digits."""
    try:
        form = read_form(request)
        ticket = form.text("ticket", longest=100)
        code = form.text("code", longest=64).replace(" ", "")
    except FieldError as err:
        return _login_page(app, request, onward="/", alert=err.message, status=400)
    pending = app.pending.get(ticket)
    if pending is None:
        return _login_page(app, request, onward="/", alert="That took too long; please start again.", status=400)
    try:
        answer = await _try(app, request, pending.name, pending.password, code)
    except ControlError as err:
        return _refused(app, request, err, pending.onward, pending.name)
    if answer.get("result") == "success":
        app.pending.drop(ticket)
        return _logged_in(answer, pending.onward)
    return _code_page(app, request, ticket, why(answer), status_of(answer))


async def _try(app: AdminApp, request: Request, name: str, password: str, code: str | None) -> Answer:
    params: dict[str, JsonValue] = {
        "name": name,
        "password": password,
        "address": request.client,
        "agent": request.header("user-agent")[:200],
    }
    if code is not None:
        params["totp"] = code
    return await app.daemon.ask("admin.login", params)


def _refused(app: AdminApp, request: Request, err: ControlError, onward: str, name: str) -> Response:
    if err.code in ("unreachable", "timeout"):
        return app.unreachable(err)
    return _login_page(app, request, onward=onward, name=name, alert=err.message, status=400)


def why(answer: Answer) -> str:
    """What to say of an attempt that did not succeed."""
    message = str(answer.get("message") or "")
    if answer.get("result") == "wait":
        return message or f"Too many attempts. Please wait {int(answer.get('retry_after_s') or 1)} seconds."
    return message or "Name, password or code are not right."


def status_of(answer: Answer) -> int:
    """The status of such an answer."""
    return 429 if answer.get("result") == "wait" else 401


def _logged_in(answer: Answer, onward: str) -> Response:
    headers = [("Location", onward), ("Set-Cookie", cookie(SESSION_COOKIE, str(answer.get("session", ""))))]
    return Response(303, b"", "", headers)
