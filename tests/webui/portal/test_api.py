"""The login API in JSON, as programs use it."""

from __future__ import annotations

import json

import pytest

from tests.webui.fake_daemon import FakeDaemon, free_port, running_portal
from tests.webui.wire import Answer, exchange, get, post, run
from webui.parsing import PARSERS

both = pytest.mark.parametrize("parser", sorted(PARSERS))
GUEST = "127.0.0.7"
GOOD = b'{"username": "alice", "password": "wonderland"}'


async def send(port: int, path: str, body: bytes, headers: str = "", client: str = GUEST) -> Answer:
    """POST JSON."""
    return await post(port, f"/api/v1/{path}", body, "application/json; charset=utf-8", client=client, headers=headers)


@both
def test_a_login_its_status_and_the_logout(parser: str) -> None:
    """The answers and names that the predecessor's clients know."""

    async def story() -> None:
        daemon = FakeDaemon(free_port(), grant={"seconds_left": 60})
        async with running_portal(daemon, parser) as portal:
            assert (await get(daemon.port, "/api/v1/status", client=GUEST)).status == 404
            answer = await send(daemon.port, "login", GOOD)
            assert (answer.status, json.loads(answer.body)) == (200, {"status": "success"})
            assert answer.fields["content-type"] == "application/json"
            cookie = answer.fields["set-cookie"]
            assert cookie.startswith("postern_session=")
            assert "HttpOnly" in cookie
            client = daemon.client(GUEST)
            client.upload_bytes, client.download_bytes = 11, 22
            status = json.loads((await get(daemon.port, "/api/v1/status", client=GUEST)).body)
            assert status.pop("session_uptime_seconds") >= 0
            assert status == {
                "username": "alice",
                "ip": GUEST,
                "mac": "02:00:7f:00:00:07",
                "session_start": 1767225600.0,
                "input_octets": 11,
                "output_octets": 22,
                "seconds_left": 60,
                "bytes_left": None,
            }
            answer = await send(daemon.port, "logout", b"")
            assert (answer.status, json.loads(answer.body)) == (200, {"status": "logged_out"})
            assert (await send(daemon.port, "logout", b"{}")).status == 404
            assert portal.counts.logins == {"uam": 0, "api": 1}

    run(story())


@both
def test_click_through_by_api(parser: str) -> None:
    """With terms these must be accepted explicitly."""

    async def story() -> None:
        daemon = FakeDaemon(free_port(), terms="Be kind.")
        async with running_portal(daemon, parser):
            assert (await send(daemon.port, "login", b'{"method": "click"}')).status == 400
            assert (await send(daemon.port, "login", b'{"method": "click", "accept_terms": true}')).status == 200

    run(story())


@both
@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"users": {}}, 401, "rejected"),
        ({"without_lease": {GUEST}}, 404, "no_session"),
        ({"login_result": "timeout"}, 504, "timeout"),
        ({"login_result": "limit"}, 403, "limit"),
        ({"login_result": "busy"}, 409, "busy"),
        ({"login_result": "forbidden"}, 403, "forbidden"),
        ({"login_result": "error"}, 503, "error"),
        ({"methods": ["click"]}, 403, "forbidden"),
        ({"login_delay_s": 30, "uam": {"login_timeout": 1}}, 504, "timeout"),
    ],
)
def test_each_refusal_has_its_status(parser: str, options: dict[str, object], status: int, error: str) -> None:
    """And a name for programs, and a sentence for people."""

    async def story() -> None:
        daemon = FakeDaemon(free_port(), **options)  # type: ignore[arg-type]  # fields of FakeDaemon
        async with running_portal(daemon, parser):
            answer = await send(daemon.port, "login", GOOD)
            value = json.loads(answer.body)
            assert (answer.status, value["error"]) == (status, error)
            assert value["message"]
            assert "set-cookie" not in answer.fields

    run(story())


@both
def test_wrong_passwords_make_programs_wait_too(parser: str) -> None:
    """429 with Retry-After; the form and the API share the count."""

    async def story() -> None:
        daemon = FakeDaemon(free_port(), uam={"login_attempts": 1, "login_backoff": 30})
        async with running_portal(daemon, parser):
            assert (await send(daemon.port, "login", b'{"username": "alice", "password": "x"}')).status == 401
            answer = await send(daemon.port, "login", GOOD)
            assert answer.status == 429
            assert 1 <= int(answer.fields["retry-after"]) == json.loads(answer.body)["retry_after_s"] <= 30

    run(story())


@both
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"username": 1, "password": "x"}',
        b'{"username": "alice"}',
        b'{"username": "a\\u0000b", "password": "x"}',
        b'{"username": "a\\ud800b", "password": "x"}',
        b'{"username": "alice", "password": "%s"}' % (b"x" * 300),
        b'{"method": ["click"]}',
        b'{"method": "none"}',
        b'{"n": %s}' % (b"9" * 10_000),
    ],
)
def test_bodies_that_are_not_what_is_wanted(parser: str, body: bytes) -> None:
    """400 in JSON, and the daemon hears nothing."""

    async def story() -> None:
        daemon = FakeDaemon(free_port())
        async with running_portal(daemon, parser):
            answer = await send(daemon.port, "login", body)
            assert answer.status == 400
            assert json.loads(answer.body)["error"] == "bad_request"
            assert not daemon.called("client.login")

    run(story())


@both
def test_requests_that_a_browser_could_send_from_elsewhere_are_refused(parser: str) -> None:
    """A form's content types, other origins, cross-site fetches; there is no answer to a preflight."""

    async def story() -> None:
        daemon = FakeDaemon(free_port())
        async with running_portal(daemon, parser):
            port = daemon.port
            for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                assert (await post(port, "/api/v1/login", GOOD, content_type, client=GUEST)).status == 415
            for headers in ("Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"):
                assert (await send(port, "login", GOOD, headers)).status == 403
                assert (await send(port, "logout", b"", headers)).status == 403
            preflight = await exchange(
                port,
                f"OPTIONS /api/v1/login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n"
                "Access-Control-Request-Method: POST\r\n\r\n".encode(),
                client=GUEST,
            )
            assert preflight.status == 405
            assert not any(name.startswith("access-control") for name in preflight.fields)
            assert not daemon.called("client.login")

    run(story())


@both
def test_a_body_over_the_limit_is_refused(parser: str) -> None:
    """1 MiB is the cap, announced or chunked."""

    async def story() -> None:
        daemon = FakeDaemon(free_port())
        async with running_portal(daemon, parser):
            answer = await send(daemon.port, "login", b"x" * ((1 << 20) + 1))
            assert (answer.status, answer.closed) == (413, True)
            assert (await send(daemon.port, "login", b" " * ((1 << 20) - len(GOOD)) + GOOD)).status == 200

    run(story())


@both
def test_while_the_daemon_is_away(parser: str) -> None:
    """503 with Retry-After."""

    async def story() -> None:
        daemon = FakeDaemon(free_port())
        async with running_portal(daemon, parser) as portal:
            daemon.stop()
            while portal.daemon.available:
                await get(daemon.port, "/api/v1/status", client=GUEST)
            for answer in (await send(daemon.port, "login", GOOD), await send(daemon.port, "logout", b"")):
                assert (answer.status, answer.fields["retry-after"]) == (503, "3")

    run(story())
