"""The frame of the administration: sessions, cookies, tokens of forms, roles, headers, errors."""

from __future__ import annotations

import asyncio
import html
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from gateway.control.client import ControlError
from tests.webui.admin.fake_admin import PASSWORD, TOTP, FakeAdmin
from tests.webui.admin.visitor import admin, field_of, logged_in, read_answer
from tests.webui.wire import run
from webui.admin import modules
from webui.admin.site import Path as RoutePath
from webui.admin.site import own_path, read_flash

PASSES = {"Sec-Fetch-Site": "same-origin"}


def test_every_answer_carries_the_security_headers(tmp_path: Path) -> None:
    """Pages, redirects, files, errors, the API and what does not exist."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            paths = ["/", "/login", "/nothing", "/static/nothing", "/api/v1/health", "/api/v1/status", "/api/nothing"]
            logged_in(fake, visitor)
            for path in [*paths, "/clients", "/clients/unknown"]:
                answer = await visitor.get(path)
                policy = answer.header("content-security-policy")
                assert "default-src 'none'" in policy, path
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert answer.header("x-content-type-options") == "nosniff"
                assert answer.header("x-frame-options") == "DENY"
                assert answer.header("cache-control") == "no-store", path
                assert not answer.header("strict-transport-security")

    run(story())


def test_cookies_are_for_this_host_over_tls_and_no_script(tmp_path: Path) -> None:
    """The prefix binds them to the host; SameSite keeps other sites from using them."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, _):
            form = field_of(await visitor.get("/login"), "form")
            answer = await visitor.submit("/login", form=form, name="ada", password=PASSWORD, next="/clients")
            assert (answer.status, answer.header("location")) == (303, "/clients")
            for cookie in answer.cookies():
                assert cookie.startswith("__Host-")
                for word in ("Path=/", "Secure", "HttpOnly", "SameSite=Strict"):
                    assert word in cookie
                assert "Domain" not in cookie

    run(story())


def test_somebody_without_a_session_comes_to_the_login_and_back(tmp_path: Path) -> None:
    """The way back is kept; a script is told with a status instead."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, _):
            answer = await visitor.get("/clients?search=a&page=2")
            assert (answer.status, answer.header("location")) == (303, "/login?next=%2Fclients%3Fsearch%3Da%26page%3D2")
            assert (await visitor.get("/live", accept="text/event-stream")).status == 401
            assert (await visitor.get("/live", x_csrf_token="x")).status == 401

    run(story())


def test_a_form_of_a_session_that_ended_leads_back_to_its_page(tmp_path: Path) -> None:
    """After a login that says why it is asked for; a page elsewhere is never gone back to."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            host = f"127.0.0.1:{visitor.port}"
            pages = {f"https://{host}/users/new?a=b": "/users/new?a=b", "https://evil.example/users": "/", "": "/"}
            for referer, wanted in pages.items():
                logged_in(fake, visitor)
                fake.sessions.clear()
                answer = await visitor.submit("/users/new", {"Referer": referer}, username="x")
                place = urlsplit(answer.header("location"))
                asked = dict(parse_qsl(place.query))
                assert (answer.status, place.path, asked.pop("over")) == (303, "/login", "1")
                assert asked.get("next", "/") == wanted
                assert "nothing was changed" in (await visitor.get(answer.header("location"))).text
            assert not fake.called("users.add")

    run(story())


def test_who_is_logged_in_is_not_asked_to_log_in(tmp_path: Path) -> None:
    """Going back to the set-up or the login page leads on; a session that is over gets the form."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert (await visitor.get("/setup?step=6")).header("location") == "/login"
            answer = await visitor.get("/login?next=%2Fclients")
            assert (answer.status, answer.header("location")) == (303, "/clients")
            assert (await visitor.get("/login?next=%2F%2Fevil.example")).header("location") == "/"
            fake.sessions.clear()
            assert "Log in" in (await visitor.get("/login")).text

    run(story())


@pytest.mark.parametrize("text", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\r\nb", "/é"])
def test_the_way_back_never_leads_to_another_site(text: str) -> None:
    """Whatever a link to the login page says."""
    assert own_path(text) == "/"
    assert own_path("/clients?a=b") == "/clients?a=b"


def test_a_wrong_password_says_so_and_keeps_the_name(tmp_path: Path) -> None:
    """401, no session, and the password is not in the page; waiting is 429."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            form = field_of(await visitor.get("/login"), "form")
            answer = await visitor.submit("/login", form=form, name="<ada>", password="wrong-password")
            assert answer.status == 401
            assert 'value="&lt;ada&gt;"' in answer.text
            assert "wrong-password" not in answer.text
            assert "__Host-postern" not in visitor.jar
            fake.wait_s = 40
            answer = await visitor.submit("/login", form=form, name="ada", password=PASSWORD)
            assert answer.status == 429
            assert "40" in answer.text

    run(story())


def test_the_second_factor_is_asked_without_writing_the_password_down(tmp_path: Path) -> None:
    """A ticket stands for it; a wrong code leaves another try, a right one spends it."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(totp={"ada"})) as (_, visitor, _):
            form = field_of(await visitor.get("/login"), "form")
            answer = await visitor.submit("/login", form=form, name="ada", password=PASSWORD, next="/log")
            ticket = field_of(answer, "ticket")
            assert PASSWORD not in answer.text
            assert "__Host-postern" not in visitor.jar
            wrong = await visitor.submit("/login/code", form=form, ticket=ticket, code="000000")
            assert wrong.status == 401
            right = await visitor.submit("/login/code", form=form, ticket=ticket, code=f"{TOTP[:3]} {TOTP[3:]}")
            assert (right.status, right.header("location")) == (303, "/log")
            again = await visitor.submit("/login/code", form=form, ticket=ticket, code=TOTP)
            assert again.status == 400

    run(story())


def test_the_login_form_is_taken_from_our_own_page_only(tmp_path: Path) -> None:
    """Nobody is logged in under another's name by a foreign page."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            bare = await visitor.submit("/login", form="", name="ada", password=PASSWORD)
            form = field_of(await visitor.get("/login"), "form")
            wrong = await visitor.submit("/login", form="x" * 32, name="ada", password=PASSWORD)
            for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
                foreign = await visitor.submit("/login", headers, form=form, name="ada", password=PASSWORD)
                assert foreign.status == 400
            assert (bare.status, wrong.status) == (400, 400)
            assert not fake.called("admin.login")

    run(story())


def test_a_change_needs_the_token_of_the_session(tmp_path: Path) -> None:
    """Missing, another session's, or from another site: refused, and nothing is asked of the daemon."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(3)
            logged_in(fake, visitor)
            other = f"csrf-of-{fake.log_in('otto')}"
            path = f"/clients/{fake.world.clients[0]['mac']}/kick"
            for fields in ({}, {"csrf": ""}, {"csrf": other}):
                assert (await visitor.submit(path, **fields)).status == 403
            assert (await visitor.submit(path, {"Sec-Fetch-Site": "cross-site"}, csrf=visitor.csrf)).status == 403
            assert (await visitor.submit(path, {"Origin": "https://evil.example"}, csrf=visitor.csrf)).status == 403
            assert not fake.called("sessions.kick")
            assert (await visitor.submit(path, PASSES, csrf=visitor.csrf)).status == 303
            assert len(fake.called("sessions.kick")) == 1

    run(story())


def test_every_form_of_every_page_is_protected(tmp_path: Path) -> None:
    """Without a token no POST route does anything but refuse."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(3)
            logged_in(fake, visitor)
            for route in modules.routes():
                if route.method == "POST":
                    path = re.sub(r"\{\w+\}", "1", route.path)
                    answer = await visitor.submit(path, count="1")
                    assert answer.status == 403, route.path
            allowed = {"admin.whoami", "admin.state", "admin.config"}
            assert {method for method, _ in fake.calls} <= allowed

    run(story())


def test_roles_open_what_they_are_for(tmp_path: Path) -> None:
    """A viewer looks, and sees no button that would be refused."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(30)
            logged_in(fake, visitor, "vera")
            page = await visitor.get("/clients")
            assert page.status == 200
            assert "/kick" not in page.text
            assert 'href="/accounts"' not in page.text
            assert (await visitor.get("/accounts")).status == 403
            assert (await visitor.post(f"/clients/{fake.world.clients[0]['mac']}/kick")).status == 403
            logged_in(fake, visitor, "otto")
            assert "/kick" in (await visitor.get("/clients")).text
            assert (await visitor.get("/config/text")).status == 403
            assert not fake.called("sessions.kick")

    run(story())


def test_a_session_that_ended_is_forgotten(tmp_path: Path) -> None:
    """The next page is the login page, and the cookie is removed."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.sessions.clear()
            answer = await visitor.get("/clients")
            assert answer.header("location").startswith("/login")
            assert "__Host-postern" not in visitor.jar

    run(story())


def test_logging_out_ends_the_session_at_the_daemon(tmp_path: Path) -> None:
    """And removes the cookie."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert (await visitor.post("/logout")).status == 303
            assert not fake.sessions
            assert "__Host-postern" not in visitor.jar

    run(story())


def test_a_daemon_that_is_away_makes_a_page_that_comes_back(tmp_path: Path) -> None:
    """503 with Retry-After and a refresh; the API says it in JSON."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            token = fake.token("read")
            fake.reachable = False
            answer = await visitor.get("/clients")
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            assert 'http-equiv="refresh"' in answer.text
            assert (await visitor.get("/login")).status == 503
            api = await visitor.get("/api/v1/status", Authorization=f"Bearer {token}")
            assert (api.status, api.header("content-type")) == (503, "application/problem+json")

    run(story())


def test_refusals_of_the_daemon_are_told_in_its_words(tmp_path: Path) -> None:
    """As a page with the status that fits, escaped; a fault of ours tells nothing."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.failures["users.list"] = ControlError("conflict", "<b>not now</b>")
            answer = await visitor.get("/users")
            assert answer.status == 409
            assert "&lt;b&gt;not now&lt;/b&gt;" in answer.text
            fake.failures["users.list"] = ControlError("internal", "it broke")
            assert (await visitor.get("/users")).status == 500

    run(story())


def test_messages_for_the_next_page_are_shown_once_and_escaped(tmp_path: Path) -> None:
    """They travel in a cookie, which is removed when it was read."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(2)
            logged_in(fake, visitor)
            await visitor.post("/users/new", username="<i>bob</i>", password="x")
            assert "__Host-postern-flash" in visitor.jar
            page = await visitor.get("/users")
            assert "&lt;i&gt;bob&lt;/i&gt; can log in now." in page.text
            assert "__Host-postern-flash" not in visitor.jar

    run(story())


@pytest.mark.parametrize("value", ["", "x", "bm90IGpzb24", "W10", "WyJvZGQiLCAieCJd", "x" * 5000, "é"])
def test_a_message_cookie_that_is_none_is_left_out(value: str) -> None:
    """Anything may stand in a cookie."""
    assert read_flash(value) is None


def test_files_have_the_hash_of_their_content_in_their_name(tmp_path: Path) -> None:
    """Kept for ever, compressed where that is asked for, and 304 for who has it."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, _):
            page = await visitor.get("/login")
            found = re.search(r'href="(/static/admin\.[0-9a-f]{16}\.css)"', page.text)
            assert found
            plain = await visitor.get(found[1])
            assert "immutable" in plain.header("cache-control")
            packed = await visitor.get(found[1], accept_encoding="gzip")
            assert packed.header("content-encoding") == "gzip"
            assert len(packed.body) < len(plain.body) / 2
            same = await visitor.get(found[1], if_none_match=plain.header("etag"))
            assert same.status == 304
            assert (await visitor.get("/static/admin.0000000000000000.css")).status == 404
            assert (await visitor.get("/static/..%2fapp.py")).status == 404

    run(story())


def test_methods_that_a_path_does_not_have_are_named(tmp_path: Path) -> None:
    """405 with Allow, for pages and the API."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, _):
            page = await visitor.ask("DELETE", "/clients")
            assert (page.status, page.header("allow")) == (405, "GET")
            api = await visitor.ask("DELETE", "/api/v1/status")
            assert (api.status, api.header("allow")) == (405, "GET")
            assert api.json["status"] == 405

    run(story())


def test_a_path_with_a_parameter_takes_one_segment_and_text_only() -> None:
    """No slash, and no escapes that are not UTF-8."""
    path = RoutePath.of("/clients/{client}/kick")
    assert path.match("/clients/02%3A00/kick") == {"client": "02:00"}
    assert path.match("/clients/a%2Fb/kick") == {"client": "a/b"}
    for text in ("/clients//kick", "/clients/a/b/kick", "/clients/%ff/kick", "/clients/a/kick/"):
        assert path.match(text) is None


def test_live_pages_send_what_changed_and_end_with_the_session(tmp_path: Path) -> None:
    """A client that is logged out elsewhere changes its row within a moment; a session that ends closes the stream."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, service):
            fake.world.populate(5)
            logged_in(fake, visitor)
            reader, writer = await visitor.connect()
            cookie = f"__Host-postern={visitor.jar['__Host-postern']}"
            head = f"GET /clients/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")

            async def event() -> tuple[str, dict[str, object]]:
                text = ""
                while "data: " not in text:
                    text = (await reader.readuntil(b"\n\n")).decode()
                name = text.partition("event: ")[2].partition("\n")[0]
                return name, json.loads(text.partition("data: ")[2].partition("\n")[0])

            name, first = await event()
            assert name == "rows"
            assert len(list(first["order"])) == 5  # type: ignore[call-overload]
            row = next(row for row in fake.world.clients if row["state"] == "online")
            row["state"] = "held"
            fake.tell({"kind": "gate_closed"})
            name, second = await asyncio.wait_for(event(), 3)
            rows = second["rows"]
            assert isinstance(rows, dict)
            assert list(rows) == [f"client-guests-{row['mac'].replace(':', '')}"]
            assert service.app.streams.open == 1
            fake.sessions.clear()
            fake.tell({"kind": "whatever"})
            name, _ = await asyncio.wait_for(event(), 3)
            assert name == "over"
            writer.close()
            for _ in range(100):
                if not service.app.streams.open:
                    break
                await asyncio.sleep(0.02)
            assert not service.app.streams.open
            assert not fake.events

    run(story())


def test_who_was_not_quick_enough_looks_at_their_change_again(tmp_path: Path) -> None:
    """Two change the configuration: the second loses nothing, and sees what it does to what the first left."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            reviews = [await visitor.post("/config/text", text=f"config postern\n# of {who}\n") for who in "ab"]
            forms = [{key: html.unescape(field_of(one, key)) for key in ("version", "wish")} for one in reviews]
            assert (await visitor.post("/config/apply", **forms[0])).status == 303
            again = await visitor.post("/config/apply", **forms[1])
            assert (again.status, again.text.count("changed meanwhile")) == (409, 1)
            assert "-# of a" in again.text
            form = {key: html.unescape(field_of(again, key)) for key in ("version", "wish")}
            assert (await visitor.post("/config/apply", **form)).status == 303
            assert "# of b" in fake.world.text

    run(story())


def test_a_refused_form_leads_back_to_its_page(tmp_path: Path) -> None:
    """With the navigation of who is logged in."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            referer = {"Referer": f"https://127.0.0.1:{visitor.port}/clients/blocked"}
            answer = await visitor.submit("/clients/nonsense/block", referer, csrf=visitor.csrf)
            assert answer.status >= 400
            assert 'href="/clients/blocked">Back</a>' in answer.text
            assert '<nav id="nav"' in answer.text

    run(story())


def test_a_client_shows_what_its_state_has(tmp_path: Path) -> None:
    """The end by the clock is a date; who waits at the login page has no session to tell of."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.populate(20)
            for state in ("online", "held"):
                row = next(row for row in fake.world.clients if row["state"] == state)
                text = (await visitor.get(f"/clients/{row['mac']}")).text
                assert ("<dt>Limit: terminate</dt><dd>2026-01-01 " in text) == (state == "online")
                assert ("<dt>Time left</dt>" in text) == (state == "online")

    run(story())


def test_hostile_names_are_escaped_on_every_page(tmp_path: Path) -> None:
    """Host names, notes, user names and browsers come from strangers."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(40)
            logged_in(fake, visitor)
            paths = ["/", "/clients", "/clients/blocked", "/vouchers", "/vouchers/list", "/vouchers/2/sheet", "/users"]
            paths += ["/devices", "/log", "/health", "/config", "/account", "/accounts", "/accounts/audit"]
            paths += [f"/clients/{row['mac']}" for row in fake.world.clients[:8]]
            seen = 0
            for path in paths:
                answer = await visitor.get(path)
                assert answer.status == 200, path
                assert "<b>\"'" not in answer.text, path
                assert "<b>&quot;" not in answer.text
                assert " style=" not in answer.text, f"{path}: the policy forbids styles in elements"
                assert "<script>" not in answer.text
                assert not re.search(r"\son\w+=", answer.text)
                seen += "&lt;b&gt;&quot;" in answer.text
            assert seen > 8

    run(story())


def test_plain_http_gets_no_answer_and_old_tls_is_refused(tmp_path: Path) -> None:
    """The port speaks TLS 1.2 and later only."""
    import ssl

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", visitor.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in await reader.read(100)
            writer.close()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", visitor.port, ssl=context)
            assert (await visitor.get("/login")).status == 200

    run(story())


def test_an_open_connection_that_closes_early_hurts_nobody(tmp_path: Path) -> None:
    """A browser that goes away in the middle of a stream leaves nothing behind."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, service):
            logged_in(fake, visitor)
            for _ in range(5):
                reader, writer = await visitor.connect()
                cookie = f"__Host-postern={visitor.jar['__Host-postern']}"
                writer.write(f"GET /live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
                await reader.readuntil(b"retry")
                writer.transport.abort()
            for _ in range(200):
                if not service.app.streams.open:
                    break
                await asyncio.sleep(0.02)
            assert service.app.streams.open == 0
            answer = await visitor.get("/clients")
            assert answer.status == 200

    run(story())


def test_answers_are_read_whole() -> None:
    """The reader of these tests itself."""

    async def story() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nok")
        answer = await read_answer(reader)
        assert (answer.status, answer.body, answer.cookies()) == (200, b"ok", ["a=b"])

    run(story())
