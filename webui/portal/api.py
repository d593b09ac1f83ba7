"""The login API in JSON: `POST /api/v1/login`, `GET /api/v1/status`, `POST /api/v1/logout`.

Only for the requesting client itself, known by its address. A browser cannot send `application/json` to us from
another site without asking first, which we never allow, so no token is needed; `Origin` and `Sec-Fetch-Site` are
checked as well.
"""

from __future__ import annotations

import json
from typing import Final

from webui.messages import Request, Response
from webui.portal.daemon import DaemonUnavailable, JsonValue, NoLease
from webui.portal.desk import Desk
from webui.portal.forms import is_credential
from webui.portal.logins import MAX_CODE_CHARS, MAX_CREDENTIAL_CHARS, Attempt
from webui.portal.model import ONLINE_OUTCOMES, Client, LoginMethod, Outcome, SessionState

JSON_TYPE: Final = "application/json"
COOKIE: Final = "postern_session"
_RETRY_S: Final = 3

# outcome -> status, error name, sentence
_ERRORS: Final[dict[Outcome, tuple[int, str, str]]] = {
    Outcome.REJECT: (401, "rejected", "the user name or the password is not right"),
    Outcome.TIMEOUT: (504, "timeout", "no authentication server answered in time"),
    Outcome.LIMIT: (403, "limit", "too many devices of this account are online, or the network is full"),
    Outcome.BUSY: (409, "busy", "another login of this client is under way"),
    Outcome.NO_LEASE: (404, "no_session", "this address was not given out by the gateway"),
    Outcome.FORBIDDEN: (403, "forbidden", "this client or this way to log in is not allowed here"),
    Outcome.ERROR: (503, "error", "the gate could not be opened"),
    Outcome.THROTTLED: (429, "throttled", "too many wrong passwords or codes"),
    Outcome.UNAVAILABLE: (503, "unavailable", "the gateway is restarting"),
}


async def login(desk: Desk, request: Request) -> Response:
    """POST /api/v1/login with `username` and `password`; with `"method": "voucher"` and `code`; or
    `{"method": "click", "accept_terms": true}`.
    """
    refused = _refuse(desk, request)
    if refused is not None:
        return refused
    try:
        wish = json.loads(request.body)
    except (ValueError, RecursionError):
        return _error(400, "bad_request", "the body is not JSON")
    if not isinstance(wish, dict):
        return _error(400, "bad_request", "the body is not a JSON object")
    try:
        client = await desk.daemon.lookup(request.client)
    except NoLease:
        return _outcome(Outcome.NO_LEASE)
    except DaemonUnavailable:
        return _outcome(Outcome.UNAVAILABLE)
    attempt = _read_attempt(desk, request, client, wish)
    if isinstance(attempt, Response):
        return attempt
    reply = await desk.logins.attempt(attempt)
    if reply.outcome not in ONLINE_OUTCOMES:
        return _outcome(reply.outcome, reply.message, reply.wait_s, reply.reason)
    answer: dict[str, JsonValue] = {"status": "success"}
    if reply.message:
        answer["message"] = reply.message
    if reply.redirection_url:
        answer["redirection_url"] = reply.redirection_url
    response = _json(200, answer)
    # The predecessor's clients expect a cookie. It names the client, and nothing is ever granted for it.
    value = desk.make_token("api", request.client, client.mac)
    response.headers.append(("Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict"))
    return response


def _read_attempt(desk: Desk, request: Request, client: Client, wish: dict[str, object]) -> Attempt | Response:
    agent = request.header("user-agent")[:MAX_CREDENTIAL_CHARS]
    try:
        method = LoginMethod(wish.get("method", "password"))
    except ValueError:
        return _error(400, "bad_request", "method is password, voucher or click")
    if method not in desk.zone.methods:
        return _outcome(Outcome.FORBIDDEN)
    if method is LoginMethod.CLICK:
        if desk.zone.terms and wish.get("accept_terms") is not True:
            return _error(400, "terms", "accept_terms must be true")
        return Attempt("api", request.client, client.mac, method, user_agent=agent)
    if method is LoginMethod.VOUCHER:
        code = wish.get("code")
        if not isinstance(code, str) or not code.strip() or len(code) > MAX_CODE_CHARS or not is_credential(code):
            return _error(400, "bad_request", f"code is a text of at most {MAX_CODE_CHARS} characters, and required")
        return Attempt("api", request.client, client.mac, method, user_agent=agent, code=code.strip())
    username, password = wish.get("username"), wish.get("password")
    if not isinstance(username, str) or not isinstance(password, str) or not username or not password:
        return _error(400, "bad_request", "username and password are texts, and required")
    if len(username) > MAX_CREDENTIAL_CHARS or len(password) > MAX_CREDENTIAL_CHARS:
        return _error(400, "bad_request", f"username and password have at most {MAX_CREDENTIAL_CHARS} characters")
    if not is_credential(username) or not is_credential(password):
        return _error(400, "bad_request", "username and password hold no control characters")
    return Attempt("api", request.client, client.mac, method, username, password, agent)


async def status(desk: Desk, request: Request) -> Response:
    """GET /api/v1/status: the requesting client's session; 404 when it has none."""
    try:
        client = await desk.daemon.lookup(request.client)
    except NoLease:
        return _outcome(Outcome.NO_LEASE)
    except DaemonUnavailable:
        return _outcome(Outcome.UNAVAILABLE)
    if client.state is not SessionState.ONLINE:
        return _error(404, "no_session", "this client is not online")
    return _json(
        200,
        {
            "username": client.username,
            "ip": client.ip,
            "mac": str(client.mac),
            "session_start": client.session_start_unix,
            "session_uptime_seconds": max(0, int(desk.clock() - client.online_since_s)),
            "input_octets": client.upload_bytes,  # Input is what the client sent (RFC 2866 §5.3)
            "output_octets": client.download_bytes,
            "seconds_left": client.seconds_left,
            "bytes_left": client.bytes_left,
        },
    )


async def logout(desk: Desk, request: Request) -> Response:
    """POST /api/v1/logout: end the requesting client's session; 404 when it has none."""
    refused = _refuse(desk, request)
    if refused is not None:
        return refused
    try:
        done = await desk.daemon.logout(request.client)
    except NoLease:
        return _outcome(Outcome.NO_LEASE)
    except DaemonUnavailable:
        return _outcome(Outcome.UNAVAILABLE)
    if not done:
        return _error(404, "no_session", "this client is not online")
    return _json(200, {"status": "logged_out"})


def _refuse(desk: Desk, request: Request) -> Response | None:
    if request.media_type != JSON_TYPE:
        return _error(415, "media_type", f"send {JSON_TYPE}")
    if not desk.from_own_page(request) or request.header("origin") == "null":
        return _error(403, "cross_site", "requests from other sites are not taken")
    return None


def _outcome(outcome: Outcome, message: str = "", wait_s: int = 0, reason: str = "") -> Response:
    status_code, name, sentence = _ERRORS[outcome]
    response = _error(status_code, name, message or sentence, wait_s, reason)
    if wait_s or status_code == 503:
        response.headers.append(("Retry-After", str(wait_s or _RETRY_S)))
    return response


def _error(status_code: int, name: str, sentence: str, wait_s: int = 0, reason: str = "") -> Response:
    answer: dict[str, JsonValue] = {"error": name, "message": sentence}
    if reason:
        answer["reason"] = reason
    if wait_s:
        answer["retry_after_s"] = wait_s
    return _json(status_code, answer)


def _json(status_code: int, value: dict[str, JsonValue]) -> Response:
    headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    return Response(status_code, f"{json.dumps(value)}\n".encode(), JSON_TYPE, headers)
