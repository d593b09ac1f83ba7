"""The pages of the login that wait for somebody else: native handlers, so that no thread is held meanwhile."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from gateway.addresses import MacAddress
from webui.messages import Request, Response, plain
from webui.portal.daemon import DaemonUnavailable, NoLease
from webui.portal.desk import Desk, Fields, parse_fields
from webui.portal.logins import MAX_CODE_CHARS, MAX_CREDENTIAL_CHARS, Attempt
from webui.portal.model import (
    ONLINE_OUTCOMES,
    LoginMethod,
    LoginReply,
    Outcome,
    SessionState,
)
from webui.portal.pages import Visit
from webui.portal.redirect import redirect

FORM_LIMIT_BYTES: Final = 16 << 10
FORM_TYPE: Final = "application/x-www-form-urlencoded"
_NOT_IN_CREDENTIALS: Final = re.compile("[\\x00-\\x1f\\x7f\\ufffd\\ud800-\\udfff]")
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
    page = f"login page shown, language {visit.language.code}" if desk.is_news(request.client, "page") else ""
    try:
        client = await desk.daemon.lookup(request.client, page)
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
            return desk.pages.login(visit, desk.make_token("login", request.client, client.mac))


async def login(desk: Desk, request: Request) -> Response:
    """POST /login: try to log in; 303 to the status page, or the form again with what to do."""
    fields = form_fields(request)
    visit = desk.visit(fields, request.header("accept-language"))
    refused = refuse_form(desk, request, visit)
    if refused is not None:
        return refused
    username = fields.get("username", "").strip()
    if fields.get("method") == LoginMethod.VOUCHER.value:
        visit = replace(visit, code=fields.get("code", "").strip()[:MAX_CODE_CHARS])
    mac = desk.read_token("login", request.client, fields.get("token", ""))
    if mac is None:
        return await _expired(desk, request, visit, username)
    attempt = _read_attempt(desk, request, mac, fields, username)
    if isinstance(attempt, str):
        return _again(desk, request, visit, mac, username, attempt)
    reply = await desk.logins.attempt(attempt)
    if reply.outcome is Outcome.NO_LEASE:
        return await _expired(desk, request, visit, username, mac)  # another device has the address now, or nobody
    return _answer(desk, request, visit, attempt, reply)


async def _expired(
    desk: Desk, request: Request, visit: Visit, username: str, refused: MacAddress | None = None
) -> Response:
    """The answer to a form that is not, or no longer, this client's: a fresh one with the name kept.

    `refused` is the device for which the daemon found no lease.
    """
    try:
        client = await desk.daemon.lookup(request.client)
    except NoLease:
        return desk.pages.no_lease(visit)
    except DaemonUnavailable:
        return desk.pages.moment(visit)
    if client.mac == refused:
        return desk.pages.no_lease(visit)
    if client.state is SessionState.ONLINE:
        return redirect(303, desk.location(request, f"/status{visit.query()}"))
    return _again(desk, request, visit, client.mac, username, "error_expired", 403)


def _again(
    desk: Desk, request: Request, visit: Visit, mac: MacAddress, username: str, error: str, status: int = 200
) -> Response:
    """The form once more, with what is wrong."""
    token = desk.make_token("login", request.client, mac)
    alert = desk.pages.alert(visit.language, error)
    return desk.pages.login(visit, token, alert=alert, username=username[:MAX_CREDENTIAL_CHARS], status=status)


def _read_attempt(desk: Desk, request: Request, mac: MacAddress, fields: Fields, username: str) -> Attempt | str:
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
        return Attempt("uam", request.client, mac, method, user_agent=agent)
    if method is LoginMethod.VOUCHER:
        code = fields.get("code", "").strip()
        if not code:
            return "error_code_missing"
        if len(code) > MAX_CODE_CHARS or not is_credential(code):
            return "error_code"
        return Attempt("uam", request.client, mac, method, user_agent=agent, code=code)
    password = fields.get("password", "")
    if not username or not password:
        return "error_missing"
    if len(username) > MAX_CREDENTIAL_CHARS or len(password) > MAX_CREDENTIAL_CHARS:
        return "error_too_long"
    if not is_credential(username) or not is_credential(password):
        return "error_reject"
    return Attempt("uam", request.client, mac, method, username, password, agent)


def is_credential(text: str) -> bool:
    """Whether a text can be a user name or password: no control characters, nothing that was not UTF-8."""
    return _NOT_IN_CREDENTIALS.search(text) is None


def _answer(desk: Desk, request: Request, visit: Visit, attempt: Attempt, reply: LoginReply) -> Response:
    if reply.outcome in ONLINE_OUTCOMES:
        # A real navigation to a page of ours: the phone then probes, and closes its sheet by itself.
        return redirect(303, desk.location(request, f"/status{visit.query()}"))
    match reply.outcome:
        case Outcome.UNAVAILABLE:
            return desk.pages.moment(visit)
        case Outcome.BUSY:
            return desk.pages.being_connected(visit)
        case _:
            return desk.pages.login(
                visit,
                desk.make_token("login", request.client, attempt.mac),
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
        if desk.read_token("logout", request.client, fields.get("token", "")) != client.mac:
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
