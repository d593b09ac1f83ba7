"""The pages of the login that wait for somebody else: native handlers, so that no thread is held meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from webui.messages import Request, Response, plain
from webui.portal.daemon import DaemonUnavailable, NoLease
from webui.portal.desk import Desk, Fields, parse_fields
from webui.portal.logins import MAX_CODE_CHARS, MAX_CREDENTIAL_CHARS, Attempt
from webui.portal.model import (
    ONLINE_OUTCOMES,
    Client,
    LoginMethod,
    LoginReply,
    Outcome,
    SessionState,
)
from webui.portal.pages import Visit
from webui.portal.redirect import redirect

FORM_LIMIT_BYTES: Final = 16 << 10
FORM_TYPE: Final = "application/x-www-form-urlencoded"
# A wrong password stays 200: some phones' sheets show nothing of an error's body.
_STATUS: Final = {
    Outcome.REJECT: 200,
    Outcome.LIMIT: 200,
    Outcome.FORBIDDEN: 403,
    Outcome.THROTTLED: 429,
    Outcome.TIMEOUT: 504,
}


async def show_login(desk: Desk, request: Request) -> Response:
    """GET /: the login page, or where the client stands already."""
    visit = desk.visit(parse_fields(request.query), request.header("accept-language"))
    try:
        client = await desk.daemon.lookup(request.client)
    except NoLease:
        return desk.pages.no_lease(visit)
    except DaemonUnavailable:
        return desk.pages.moment(visit)
    match client.state:
        case SessionState.ONLINE:
            return redirect(303, desk.location(request, f"/status{visit.query()}"))
        case SessionState.AUTHENTICATING | SessionState.OPENING:
            return desk.pages.being_connected(visit)
        case _:
            desk.note(request.client, "page", f"login page shown, language {visit.language.code}")
            return desk.pages.login(visit, desk.make_token("login", client.mac))


async def login(desk: Desk, request: Request) -> Response:
    """POST /login: try to log in; 303 to the status page, or the form again with what to do."""
    fields = form_fields(request)
    visit = desk.visit(fields, request.header("accept-language"))
    refused = refuse_form(desk, request, visit)
    if refused is not None:
        return refused
    try:
        client = await desk.daemon.lookup(request.client)
    except NoLease:
        return desk.pages.no_lease(visit)
    except DaemonUnavailable:
        return desk.pages.moment(visit)
    if client.state is SessionState.ONLINE:
        return redirect(303, desk.location(request, f"/status{visit.query()}"))
    username = fields.get("username", "").strip()
    if fields.get("method") == LoginMethod.VOUCHER.value:
        visit = replace(visit, code=fields.get("code", "").strip()[:MAX_CODE_CHARS])

    def again(error: str, status: int = 200) -> Response:
        token = desk.make_token("login", client.mac)
        alert = desk.pages.alert(visit.language, error)
        return desk.pages.login(visit, token, alert=alert, username=username[:MAX_CREDENTIAL_CHARS], status=status)

    if not desk.check_token("login", client.mac, fields.get("token", "")):
        return again("error_expired", 403)
    attempt = _read_attempt(desk, request, client, fields, username)
    if isinstance(attempt, str):
        return again(attempt)
    reply = await desk.logins.attempt(attempt)
    return _answer(desk, request, visit, client, attempt, reply)


def _read_attempt(desk: Desk, request: Request, client: Client, fields: Fields, username: str) -> Attempt | str:
    """The attempt that a form asks for, or the key of what is wrong with the form."""
    try:
        method = LoginMethod(fields.get("method", ""))
    except ValueError:
        return "error_forbidden"
    if method not in desk.zone.methods:
        return "error_forbidden"
    agent = request.header("user-agent")[:MAX_CREDENTIAL_CHARS]
    if method is LoginMethod.CLICK:
        if desk.zone.terms and fields.get("accept") != "1":
            return "error_terms"
        return Attempt("uam", request.client, client.mac, method, user_agent=agent)
    if method is LoginMethod.VOUCHER:
        code = fields.get("code", "").strip()
        if not code:
            return "error_code_missing"
        if len(code) > MAX_CODE_CHARS or not is_credential(code):
            return "error_code"
        return Attempt("uam", request.client, client.mac, method, user_agent=agent, code=code)
    password = fields.get("password", "")
    if not username or not password:
        return "error_missing"
    if len(username) > MAX_CREDENTIAL_CHARS or len(password) > MAX_CREDENTIAL_CHARS:
        return "error_too_long"
    if not is_credential(username) or not is_credential(password):
        return "error_reject"
    return Attempt("uam", request.client, client.mac, method, username, password, agent)


def is_credential(text: str) -> bool:
    """Whether a text can be a user name or password: no control characters, nothing that was not UTF-8."""
    return not any(char < " " or char == "\x7f" or char == "\ufffd" or "\ud800" <= char <= "\udfff" for char in text)


def _answer(
    desk: Desk, request: Request, visit: Visit, client: Client, attempt: Attempt, reply: LoginReply
) -> Response:
    if reply.outcome in ONLINE_OUTCOMES:
        # A real navigation to a page of ours: the phone then probes, and closes its sheet by itself.
        return redirect(303, desk.location(request, f"/status{visit.query()}"))
    match reply.outcome:
        case Outcome.NO_LEASE:
            return desk.pages.no_lease(visit)
        case Outcome.UNAVAILABLE:
            return desk.pages.moment(visit)
        case Outcome.BUSY:
            return desk.pages.being_connected(visit)
        case _:
            return desk.pages.login(
                visit,
                desk.make_token("login", client.mac),
                alert=desk.pages.refused_login(visit.language, attempt.method, reply),
                username=attempt.username,
                status=_STATUS.get(reply.outcome, 503),
                retry_after_s=reply.wait_s,
            )


async def logout(desk: Desk, request: Request) -> Response:
    """POST /logout: end the session."""
    fields = form_fields(request)
    visit = desk.visit(fields, request.header("accept-language"))
    refused = refuse_form(desk, request, visit)
    if refused is not None:
        return refused
    try:
        client = await desk.daemon.lookup(request.client)
        if not desk.check_token("logout", client.mac, fields.get("token", "")):
            # Expired or not ours: ask, with a fresh form.
            return redirect(303, desk.location(request, f"/logout{visit.query()}"))
        await desk.daemon.logout(request.client)
    except NoLease:
        return desk.pages.no_lease(visit)
    except DaemonUnavailable:
        return desk.pages.moment(visit)
    return redirect(303, desk.location(request, f"/logged-out{visit.query()}"))


def form_fields(request: Request) -> Fields:
    """The fields of a form's body; none when it is not one."""
    if request.media_type != FORM_TYPE:
        return {}
    return parse_fields(request.body.decode("utf-8", "replace"))


def refuse_form(desk: Desk, request: Request, visit: Visit) -> Response | None:
    """The answer to a form that is not ours to take, or None."""
    if not desk.from_own_page(request):
        return desk.pages.refused_origin(visit)
    if request.media_type != FORM_TYPE:
        return plain(415, f"send a form as {FORM_TYPE}")
    return None
