"""The first start: from the setup code to a summary, in steps that need no script, in the languages of the portal.

What was typed waits here between the steps, under the random name of the form's cookie, so that no password is ever
written into a page. Only whoever gave the right code has something waiting, so nobody else can fill the place up.
The daemon counts the attempts at the code, and checks it again at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FieldError, Fields
from webui.admin.login import FORM_COOKIE, MAX_PASSWORD, read_form, show_form, status_of, why
from webui.admin.site import SESSION_COOKIE, cookie, flash_cookie, read_cookies
from webui.messages import Request, Response
from webui.portal.language import Language, Languages

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

STEPS: Final = ("code", "you", "time", "guests", "login", "summary")
METHODS: Final = ("click", "voucher", "password")
_LOCALE: Final = Path(__file__).parent.parent / "locale" / "setup"
_LANGUAGE_COOKIE: Final = "__Host-postern-language"
_WAITS_S: Final = 3600.0
_MAX_WAITING: Final = 20
_LEAST_PASSWORD: Final = 12
_ZONE_FIELDS: Final = ("name", "interface", "ssid", "address", "uplink")


@dataclass(slots=True)
class Draft:
    """What was typed so far. `reached` is the furthest step that may be looked at, `configured` what zones have now."""

    until: float
    values: dict[str, str] = field(default_factory=dict)
    methods: list[str] = field(default_factory=list)
    configured: dict[str, list[str]] = field(default_factory=dict)
    password: str = ""
    reached: int = 1


class Drafts:
    """Set-ups under way; the oldest goes when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._drafts: dict[str, Draft] = {}

    def begin(self, name: str, code: str) -> Draft:
        """Begin, or go on with what waits under this name."""
        draft = self.get(name)
        if draft is None:
            while len(self._drafts) >= _MAX_WAITING:
                del self._drafts[next(iter(self._drafts))]
            draft = self._drafts[name] = Draft(self._clock() + _WAITS_S)
        draft.values["code"] = code
        return draft

    def get(self, name: str) -> Draft | None:
        """What waits under a name."""
        found = self._drafts.get(name)
        if found is not None and found.until <= self._clock():
            del self._drafts[name]
            return None
        return found

    def drop(self) -> None:
        """The gateway is set up: nobody's draft is good for anything."""
        self._drafts.clear()


class Untaken(Exception):
    """A field is not as it should be; the text is one of the catalogue's."""


AnonymousHandler = Callable[["AdminApp", Request], Awaitable[Response]]
_languages = Languages(_LOCALE)


def anonymous_routes() -> dict[tuple[str, str], AnonymousHandler]:
    """What needs no session."""
    return {("GET", "/setup"): show, ("POST", "/setup"): take}


def language_of(request: Request) -> Language:
    """The language that was chosen here, or the one that the browser asks for."""
    chosen = Fields(request.query).text("lang", longest=10) or read_cookies(request).get(_LANGUAGE_COOKIE, "")
    return _languages.get(chosen) or _languages.choose(request.header("accept-language"))


async def show(app: AdminApp, request: Request) -> Response:
    """GET /setup?step=N: one step, while there is no administrator."""
    state = await _state(app)
    if isinstance(state, Response):
        return state
    query = Fields(request.query)
    try:
        step = query.integer("step", 1, low=1, high=len(STEPS)) or 1
    except FieldError:
        step = 1
    response = _page(app, request, state, step)
    if query.text("lang", longest=10):
        response.headers.append(("Set-Cookie", cookie(_LANGUAGE_COOKIE, language_of(request).code)))
    return response


async def _state(app: AdminApp) -> Answer | Response:
    """What the daemon says of this gateway, or where to go when there is an administrator already."""
    try:
        state = await app.daemon.ask("admin.state", {})
    except ControlError as err:
        return app.unreachable(err)
    return state if state.get("setup_needed") else _to("/login")


def _page(app: AdminApp, request: Request, state: Answer, step: int, alert: str = "", status: int = 200) -> Response:
    draft = app.setting_up.get(read_cookies(request).get(FORM_COOKIE, ""))
    step = min(step, draft.reached if draft is not None else 1)
    language = language_of(request)
    values: dict[str, object] = {
        "title": language.say("title"),
        "lang": language.code,
        "skip": language.say("skip"),
        "say": language.say,
        "languages": _languages.all,
        "step": step,
        "name": STEPS[step - 1],
        "steps": STEPS,
        "draft": draft or Draft(0.0),
        "zones": state.get("zones") or [],
        "timezone": state.get("timezone") or "UTC",
        "alert": alert,
    }
    return show_form(app, request, "setup", values, status=status)


async def take(app: AdminApp, request: Request) -> Response:
    """POST /setup: take one step, back or on; the last one makes the first administrator."""
    language = language_of(request)
    state = await _state(app)
    if isinstance(state, Response):
        return state
    try:
        form = read_form(request)
        step = form.integer("step", 1, low=1, high=len(STEPS)) or 1
    except FieldError:
        return _page(app, request, state, 1, language.say("expired"), 400)
    name = read_cookies(request).get(FORM_COOKIE, "")
    draft = app.setting_up.get(name)
    if step > 1 and (draft is None or step > draft.reached):
        return _page(app, request, state, 1, language.say("expired"), 400)
    try:
        if step == 1:
            return await _check_code(app, request, state, form)
        assert draft is not None
        if form.text("go") == "back":
            return _to(f"/setup?step={step - 1}")
        if STEPS[step - 1] == "summary":
            return await _finish(app, request, state, draft)
        _keep(draft, STEPS[step - 1], form)
    except FieldError as err:
        return _page(app, request, state, step, err.message, 400)
    except Untaken as err:
        return _page(app, request, state, step, language.say(str(err)), 400)
    except ControlError as err:
        if err.code in ("unreachable", "timeout"):
            return app.unreachable(err)
        return _page(app, request, state, step, err.message, 400)
    draft.reached = max(draft.reached, step + 1)
    return _to(f"/setup?step={step + 1}")


async def _check_code(app: AdminApp, request: Request, state: Answer, form: Fields) -> Response:
    code = form.text("code", longest=64)
    if not code:
        raise Untaken("code_missing")
    answer = await app.daemon.ask("admin.setup_check", {"code": code, "address": request.client})
    if answer.get("result") != "success":
        return _page(app, request, state, 1, _refusal(language_of(request), answer), status_of(answer))
    draft = app.setting_up.begin(read_cookies(request)[FORM_COOKIE], code)
    draft.configured = {
        str(zone): [method for method in METHODS if method in methods]
        for zone, methods in (answer.get("methods") or {}).items()
    }
    draft.reached = max(draft.reached, 2)
    return _to("/setup?step=2")


def _refusal(language: Language, answer: Answer) -> str:
    if answer.get("result") == "wait":
        return language.say("wait", n=int(answer.get("retry_after_s") or 1))
    return language.say("code_wrong")


def _keep(draft: Draft, step: str, form: Fields) -> None:
    """Take the fields of a step; raises Untaken or FieldError."""
    if step == "you":
        name, password = form.text("name", longest=100), form.raw("password", longest=MAX_PASSWORD)
        if not name:
            raise Untaken("name_missing")
        draft.values["name"] = name
        again = form.raw("again", longest=MAX_PASSWORD)
        if password or again or not draft.password:
            if len(password) < _LEAST_PASSWORD:
                raise Untaken("password_short")
            if password != again:
                raise Untaken("password_unequal")
            draft.password = password
    elif step == "time":
        draft.values["timezone"] = form.text("timezone", longest=64)
    elif step == "guests":
        for key in _ZONE_FIELDS:
            draft.values[f"zone_{key}"] = form.text(f"zone_{key}", longest=200)
    else:
        draft.methods = [method for method in METHODS if method in form.all("method")]


async def _finish(app: AdminApp, request: Request, state: Answer, draft: Draft) -> Response:
    answer = await app.daemon.ask("admin.setup", _params(draft, request), timeout_s=60.0)
    if not answer.get("session"):
        return _page(app, request, state, len(STEPS), why(answer), status_of(answer))
    app.setting_up.drop()
    response = _to("/welcome")
    response.headers.append(("Set-Cookie", cookie(SESSION_COOKIE, str(answer["session"]))))
    if answer.get("notes"):
        response.headers.append(("Set-Cookie", flash_cookie("bad", " ".join(f"{note}." for note in answer["notes"]))))
    return response


def _params(draft: Draft, request: Request) -> dict[str, JsonValue]:
    params: dict[str, JsonValue] = {
        "code": draft.values["code"],
        "name": draft.values["name"],
        "password": draft.password,
        "address": request.client,
        "agent": request.header("user-agent")[:200],
    }
    if draft.values.get("timezone"):
        params["timezone"] = draft.values["timezone"]
    zone: dict[str, JsonValue] = {key: value for key in _ZONE_FIELDS if (value := draft.values.get(f"zone_{key}", ""))}
    if draft.methods and draft.methods != draft.configured.get(str(zone.get("name"))):
        zone["methods"] = list[JsonValue](draft.methods)
    if zone.get("name") and len(zone) > 1:
        params["zone"] = zone
    return params


def _to(path: str) -> Response:
    return Response(303, b"", "", [("Location", path)])
