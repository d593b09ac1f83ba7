"""The portal as phones and browsers meet it, over real sockets against a daemon in memory, with both parsers."""

from __future__ import annotations

import asyncio
import random
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.webui.fake_daemon import PORTAL_NAME, STATUS_NAME, FakeDaemon, eventually, free_port, running_portal
from tests.webui.wire import Answer, get, post, run
from webui.parsing import PARSERS
from webui.portal.model import LoginMethod

both = pytest.mark.parametrize("parser", sorted(PARSERS))
GUEST = "127.0.0.7"


def fake(**options: object) -> FakeDaemon:
    """A daemon whose portal listens on a free port."""
    return FakeDaemon(free_port(), **options)  # type: ignore[arg-type]  # each test names fields of FakeDaemon


def hidden(page: Answer, name: str) -> str:
    """The value of a hidden field."""
    match = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert match is not None, page.text
    return match[1]


async def submit(port: int, client: str = GUEST, headers: str = "", **fields: str) -> Answer:
    """Fill in the login form as a browser does: fetch it, send it back with these fields."""
    page = await get(port, "/", client=client, headers=headers)
    assert page.status == 200
    form = {"method": "password", "token": hidden(page, "token"), "u": "", "lang": hidden(page, "lang"), **fields}
    return await post(port, "/login", urlencode(form).encode(), client=client, headers=headers)


@both
def test_any_strange_host_is_redirected_with_the_address_carried(parser: str) -> None:
    """302, no-store, closed, a body with the same link; GET, HEAD and POST alike; never an RPC."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            port = daemon.port
            answer = await get(port, "/hotspot-detect.html?a=1&b=2", "captive.apple.com", client=GUEST)
            assert (answer.status, answer.closed) == (302, True)
            location = urlsplit(answer.fields["location"])
            assert f"{location.scheme}://{location.netloc}{location.path}" == f"http://127.0.0.1:{port}/"
            assert parse_qs(location.query) == {"u": ["http://captive.apple.com/hotspot-detect.html?a=1&b=2"]}
            assert answer.fields["cache-control"] == "no-store"
            assert answer.fields["connection"] == "close"
            assert answer.fields["content-type"] == "text/html; charset=utf-8"
            assert 200 < len(answer.body) < 1000
            assert answer.fields["location"].replace("&", "&amp;") in answer.text
            posted = await post(port, "/upload", b"x" * 100_000, host="app.example.com", client=GUEST)
            assert (posted.status, posted.closed) == (302, True)
            assert [name for name, _ in daemon.calls] == ["portal.config"]

    run(story())


@both
@pytest.mark.parametrize("path", ["/login", "/", "/status", "/api/v1/status", "/logout", "/static/style.css"])
def test_a_strange_host_with_one_of_our_paths_is_no_call_to_the_portal(parser: str, path: str) -> None:
    """Own names are matched first."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            answer = await get(daemon.port, path, "www.example.com", client=GUEST)
            assert answer.status == 302
            assert "u=http://www.example.com" in answer.fields["location"]

    run(story())


@both
def test_probes_before_login_are_never_answered_with_success(parser: str) -> None:
    """Whatever the system, it is redirected."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            for host, path in PROBES:
                answer = await get(daemon.port, path, host, client=GUEST)
                assert answer.status == 302, (host, path)

    run(story())


PROBES = {
    ("connectivitycheck.gstatic.com", "/generate_204"): (204, b""),
    ("www.google.com", "/gen_204"): (204, b""),
    ("captive.apple.com", "/hotspot-detect.html"): (200, b"<TITLE>Success</TITLE></HEAD><BODY>Success</BODY>"),
    ("www.apple.com", "/library/test/success.html"): (200, b"Success"),
    ("www.msftconnecttest.com", "/connecttest.txt"): (200, b"Microsoft Connect Test"),
    ("www.msftncsi.com", "/ncsi.txt"): (200, b"Microsoft NCSI"),
    ("detectportal.firefox.com", "/success.txt"): (200, b"success\n"),
    ("detectportal.firefox.com", "/success.txt?ipv4"): (200, b"success\n"),
    ("detectportal.firefox.com", "/canonical.html"): (200, b"https://support.mozilla.org/kb/captive-portal"),
    ("spectrum.s3.amazonaws.com", "/kindle-wifi/wifistub.html"): (200, b"81ce4465-7167-4dcb-835b-dcc9e44c112a"),
    ("nmcheck.gnome.org", "/check_network_status.txt"): (200, b"NetworkManager is online"),
}


@both
def test_late_probes_of_an_online_client_get_what_they_expect(parser: str) -> None:
    """Known from the daemon's stream, without asking it; anything else goes back to where it wanted to go."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser) as portal:
            daemon.set_state(GUEST, "online")
            await eventually(lambda: GUEST in portal.online, "the event arrived")
            for (host, path), (status, body) in PROBES.items():
                answer = await get(daemon.port, path, host, client=GUEST)
                assert (answer.status, answer.closed) == (status, True), (host, path)
                assert body in answer.body
            answer = await get(daemon.port, "/check_network_status.txt", "nmcheck.gnome.org", client=GUEST)
            assert answer.fields["x-networkmanager-status"] == "online"
            answer = await get(daemon.port, "/a?b=c", "www.example.com:8080", client=GUEST)
            assert (answer.status, answer.fields["location"]) == (302, "http://www.example.com:8080/a?b=c")
            assert [name for name, _ in daemon.calls] == ["portal.config"]
            daemon.set_state(GUEST, "held")
            await eventually(lambda: GUEST not in portal.online, "the event arrived")
            assert (await get(daemon.port, "/generate_204", "www.gstatic.com", client=GUEST)).status == 302

    run(story())


@both
def test_a_client_that_was_wrongly_thought_online_does_not_go_round_for_ever(parser: str) -> None:
    """After a few returns the daemon is asked, and the client is sent to the login page."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser) as portal:
            portal.online.set(GUEST, online=True)
            locations = [
                (await get(daemon.port, "/", "www.example.com", client=GUEST)).fields["location"] for _ in range(5)
            ]
            assert locations[:4] == ["http://www.example.com/"] * 4
            assert locations[4].startswith(f"http://127.0.0.1:{daemon.port}/")
            await eventually(lambda: GUEST not in portal.online, "the daemon was asked")

    run(story())


@both
def test_own_names_without_our_port_are_led_to_it(parser: str) -> None:
    """After login port 80 belongs to the Internet; the page must not live there."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            answer = await get(daemon.port, "/status?x=1", STATUS_NAME.upper(), client=GUEST)
            assert (answer.status, answer.closed) == (302, True)
            assert answer.fields["location"] == f"http://{STATUS_NAME}:{daemon.port}/status?x=1"
            page = await get(daemon.port, "/", f"{PORTAL_NAME}:{daemon.port}", client=GUEST)
            assert page.status == 200

    run(story())


@both
def test_the_login_page_is_one_small_safe_file(parser: str) -> None:
    """No script, nothing from elsewhere, under 60 KB, with the headers that browsers want; both methods in order."""

    async def story() -> None:
        daemon = fake(methods=["password", "click"], terms="Be kind.\n<b>Really</b>", title='A & "B"')
        async with running_portal(daemon, parser):
            page = await get(daemon.port, "/", client=GUEST)
            assert page.status == 200
            assert len(page.body) < 60_000
            assert "<script" not in page.text
            assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
            assert "A &amp; &quot;B&quot;" in page.text
            assert "&lt;b&gt;Really&lt;/b&gt;" in page.text
            assert page.text.index('value="password"') < page.text.index('value="click"')
            policy = page.fields["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-inline" not in policy
            assert page.fields["x-content-type-options"] == "nosniff"
            assert page.fields["referrer-policy"] == "same-origin"
            assert page.fields["cache-control"] == "no-store"

    run(story())


@both
def test_languages_follow_the_browser_the_zone_and_the_choice(parser: str) -> None:
    """In rising order of weight."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):

            async def language(target: str, accept: str) -> str:
                page = await get(daemon.port, target, client=GUEST, headers=f"Accept-Language: {accept}\r\n")
                match = re.search('<html lang="([^"]+)" dir="ltr">', page.text)
                assert match is not None
                assert page.fields["content-language"] == match[1]
                return match[1]

            assert await language("/", "fr-CA,fr;q=0.9,en;q=0.1") == "fr"
            assert await language("/", "nl, xx;q=nonsense, @@;;,") == "en"
            assert await language("/?lang=fr", "en") == "fr"
            daemon.language = "fr"
            daemon.config_changed()
            await eventually(lambda: len(daemon.called("portal.config")) == 2, "the configuration was fetched")
            await asyncio.sleep(0.05)
            assert await language("/", "en") == "fr"
            assert await language("/?lang=en", "fr") == "en"

    run(story())


@both
def test_the_right_password_leads_to_the_status_page(parser: str) -> None:
    """303 to a page of ours, the wanted address as a link there; the daemon got the credentials and the agent."""

    async def story() -> None:
        daemon = fake(grant={"seconds_left": 3600, "bytes_left": 10_000_000})
        async with running_portal(daemon, parser) as portal:
            answer = await submit(
                daemon.port,
                username=" alice ",
                password="wonderland",
                u="http://news.example.org/today?a=1&b=2",
                headers="User-Agent: Test/1\r\n",
            )
            assert answer.status == 303
            location = answer.fields["location"]
            assert location.startswith(f"http://127.0.0.1:{daemon.port}/status?")
            assert daemon.called("client.login") == [
                {
                    "ip": GUEST,
                    "mac": daemon.clients[GUEST].mac,
                    "method": "password",
                    "username": "alice",
                    "password": "wonderland",
                    "user_agent": "Test/1",
                }
            ]
            assert GUEST in portal.online
            page = await get(daemon.port, location.removeprefix(f"http://127.0.0.1:{daemon.port}"), client=GUEST)
            assert page.status == 200
            assert "You are online" in page.text
            assert 'href="http://news.example.org/today?a=1&amp;b=2"' in page.text
            assert "alice" in page.text
            assert "1 h" in page.text
            assert "10 MB" in page.text
            assert "http-equiv" not in page.text, "it does not reload under a reader"
            assert '<a href="/status?lang=en' in page.text
            # Known to be online: the login page leads there, too.
            again = await get(daemon.port, "/", client=GUEST)
            assert (again.status, again.fields["location"]) == (303, f"http://127.0.0.1:{daemon.port}/status?lang=en")

    run(story())


@both
def test_probes_are_not_offered_as_the_way_on(parser: str) -> None:
    """Nobody wants to continue to connectivitycheck.gstatic.com, nor to a script."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            daemon.set_state(GUEST, "online")
            for url in ("http://connectivitycheck.gstatic.com/generate_204", "javascript:alert(1)", "//evil.example/"):
                page = await get(daemon.port, "/status?" + urlencode({"u": url}), client=GUEST)
                assert "Continue to" not in page.text
            page = await get(daemon.port, "/status?" + urlencode({"u": "http://a.example/?x=<script>"}), client=GUEST)
            assert "Continue to a.example" in page.text
            assert "<script" not in page.text

    run(story())


@both
def test_a_wrong_password_shows_the_servers_message_and_keeps_the_name(parser: str) -> None:
    """Both escaped; the password does not come back."""

    async def story() -> None:
        daemon = fake(reject_message='Sorry <script>alert("x")</script>')
        async with running_portal(daemon, parser) as portal:
            page = await submit(daemon.port, username='bob"><i>', password="sesame-open")
            assert page.status == 200
            assert 'role="alert"' in page.text
            assert "Sorry &lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in page.text
            assert 'value="bob&quot;&gt;&lt;i&gt;"' in page.text
            assert "sesame-open" not in page.text
            assert portal.counts.outcomes == {("uam", "failure"): 1}

    run(story())


@both
def test_click_through_wants_the_terms_accepted(parser: str) -> None:
    """Without the box the page says so; with it the guest is in."""

    async def story() -> None:
        daemon = fake(methods=["click"], terms="Be kind.")
        async with running_portal(daemon, parser):
            refused = await submit(daemon.port, method="click")
            assert (refused.status, daemon.called("client.login")) == (200, [])
            assert "Please accept the terms of use first." in refused.text
            assert (await submit(daemon.port, method="click", accept="1")).status == 303
            assert daemon.called("client.login")[0]["method"] == LoginMethod.CLICK.value

    run(story())


@both
def test_a_method_that_the_zone_does_not_offer_is_refused(parser: str) -> None:
    """A form that was made by hand opens nothing."""

    async def story() -> None:
        daemon = fake(methods=["click"])
        async with running_portal(daemon, parser):
            for method in ("password", "nonsense"):
                page = await submit(daemon.port, method=method, username="alice", password="wonderland")
                assert "not allowed here" in page.text
            assert not daemon.called("client.login")

    run(story())


@both
@pytest.mark.parametrize(
    "fields",
    [
        {"username": "", "password": "x"},
        {"username": "alice", "password": ""},
        {"username": "a" * 254, "password": "x"},
        {"username": "alice", "password": "x" * 254},
        {"username": "a\x00b", "password": "x"},
        {"username": "alice", "password": "x\r\ny"},
    ],
)
def test_credentials_that_cannot_be_are_not_asked_about(parser: str, fields: dict[str, str]) -> None:
    """Empty, too long, with control characters: an error on the page, no question to the daemon."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            page = await submit(daemon.port, **fields)
            assert page.status == 200
            assert 'role="alert"' in page.text
            assert not daemon.called("client.login")

    run(story())


@both
def test_forms_of_others_are_refused(parser: str) -> None:
    """Another site, another client's token, no token: no login, and a fresh form with the name kept."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            port = daemon.port
            for headers in (
                "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: same-site\r\n",
                "Origin: http://evil.example\r\n",
                f"Origin: https://127.0.0.1:{port}\r\n",
                "Origin: http://[\r\n",
            ):
                token = hidden(await get(port, "/", client=GUEST), "token")
                form = urlencode({"method": "click", "token": token}).encode()
                assert (await post(port, "/login", form, client=GUEST, headers=headers)).status == 403
            theirs = hidden(await get(port, "/", client="127.0.0.8"), "token")
            for token in (theirs, "", "0.0", "zz", "1" * 5000, "é.é"):
                fields = {"method": "password", "token": token, "username": "alice", "password": "wonderland"}
                page = await post(port, "/login", urlencode(fields).encode(), client=GUEST)
                assert page.status == 403
                assert 'value="alice"' in page.text
            assert not daemon.called("client.login")
            own = f"Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n"
            assert (await submit(port, headers=own, method="click")).status == 303

    run(story())


@both
def test_a_form_of_the_device_that_had_the_address_before_is_not_taken(parser: str) -> None:
    """The daemon refuses it; whoever has the address now gets a form of its own, with the name kept."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            token = hidden(await get(daemon.port, "/", client=GUEST), "token")
            daemon.clients[GUEST].mac = "02:00:5e:10:77:77"
            fields = {"method": "password", "token": token, "username": "alice", "password": "wonderland"}
            page = await post(daemon.port, "/login", urlencode(fields).encode(), client=GUEST)
            assert (page.status, daemon.clients[GUEST].state) == (403, "held")
            assert 'value="alice"' in page.text
            fields["token"] = hidden(page, "token")
            assert (await post(daemon.port, "/login", urlencode(fields).encode(), client=GUEST)).status == 303

    run(story())


@both
def test_wrong_passwords_make_the_client_wait(parser: str) -> None:
    """After the allowed number: 429, how long to wait, and the daemon is left in peace; the next client is not hit."""

    async def story() -> None:
        daemon = fake(uam={"login_attempts": 3, "login_backoff": 60})
        async with running_portal(daemon, parser):
            for _ in range(2):
                page = await submit(daemon.port, username="alice", password="bad")
                assert "please wait" not in page.text
            page = await submit(daemon.port, username="alice", password="bad")
            assert "Before the next attempt, please wait 1 min" in page.text
            page = await submit(daemon.port, username="alice", password="wonderland")
            assert page.status == 429
            assert 50 <= int(page.fields["retry-after"]) <= 60
            assert "Too many attempts. Please wait" in page.text
            assert 'value="alice"' in page.text
            assert len(daemon.called("client.login")) == 3
            assert (await submit(daemon.port, "127.0.0.9", username="alice", password="wonderland")).status == 303

    run(story())


@both
@pytest.mark.parametrize(
    ("result", "status", "text"),
    [
        ("limit", 200, "Log out on another device"),
        ("timeout", 504, "did not answer in time"),
        ("forbidden", 403, "Please ask the staff"),
        ("error", 503, "could not be opened"),
        ("busy", 200, "You are being connected"),
        ("no_lease", 403, "does not know your device"),
        ("something new", 503, "could not be opened"),
    ],
)
def test_every_other_end_of_a_login_says_what_to_do(parser: str, result: str, status: int, text: str) -> None:
    """One page for each result of the daemon."""

    async def story() -> None:
        daemon = fake(login_result=result)
        async with running_portal(daemon, parser):
            page = await submit(daemon.port, username="alice", password="wonderland")
            assert page.status == status
            assert text in page.text

    run(story())


@both
def test_a_login_that_takes_too_long_ends_with_a_page(parser: str) -> None:
    """Other guests are served meanwhile, and nothing is held up."""

    async def story() -> None:
        daemon = fake(login_delay_s=30, uam={"login_timeout": 1})
        async with running_portal(daemon, parser) as portal:
            slow = [
                asyncio.ensure_future(submit(daemon.port, f"127.0.1.{n}", username="alice", password="wonderland"))
                for n in range(1, 40)
            ]
            await eventually(lambda: len(daemon.called("client.login")) == 39, "all are under way")
            assert (await get(daemon.port, "/", client=GUEST)).status == 200
            assert (await get(daemon.port, "/terms", client=GUEST)).status == 200
            pages = await asyncio.gather(*slow)
            assert {page.status for page in pages} == {504}
            assert portal.counts.outcomes == {("uam", "timeout"): 39}

    run(story())


@both
def test_a_second_tap_on_the_button_is_the_same_login(parser: str) -> None:
    """Both get the answer of the one attempt; other credentials meanwhile are told to wait."""

    async def story() -> None:
        daemon = fake(login_delay_s=0.3)
        async with running_portal(daemon, parser):
            taps = [asyncio.ensure_future(submit(daemon.port, username="alice", password="bad")) for _ in range(2)]
            await eventually(lambda: daemon.called("client.login"), "the first is under way")
            other = await submit(daemon.port, username="carol", password="bad")
            assert "You are being connected" in other.text
            assert all("is not right" in page.text for page in await asyncio.gather(*taps))
            assert len(daemon.called("client.login")) == 1

    run(story())


@both
def test_closing_the_page_does_not_hide_a_wrong_password(parser: str) -> None:
    """An attempt counts even if nobody waits for its answer."""

    async def story() -> None:
        daemon = fake(login_delay_s=0.2, uam={"login_attempts": 1, "login_backoff": 60})
        async with running_portal(daemon, parser) as portal:
            tap = asyncio.ensure_future(submit(daemon.port, username="alice", password="bad"))
            await eventually(lambda: daemon.called("client.login"), "it is under way")
            tap.cancel()
            await eventually(lambda: portal.counts.logins["uam"] == 1, "it was counted")
            assert (await submit(daemon.port, username="alice", password="wonderland")).status == 429

    run(story())


@both
def test_logout_asks_then_ends_the_session(parser: str) -> None:
    """A link only asks; the form needs a token; afterwards the guest is where it began."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser) as portal:
            port = daemon.port
            daemon.set_state(GUEST, "online")
            asked = await get(port, "/logout", client=GUEST)
            assert "Log out?" in asked.text
            tokenless = await post(port, "/logout", b"", client=GUEST)
            assert (tokenless.status, tokenless.fields["location"]) == (303, f"http://127.0.0.1:{port}/logout?lang=en")
            login_token = hidden(await get(port, "/", client="127.0.0.8"), "token")
            await post(port, "/logout", urlencode({"token": login_token}).encode(), client=GUEST)
            assert not daemon.called("client.logout")
            done = await post(port, "/logout", urlencode({"token": hidden(asked, "token")}).encode(), client=GUEST)
            assert done.status == 303
            page = await get(port, urlsplit(done.fields["location"]).path, client=GUEST)
            assert "You are logged out" in page.text
            assert daemon.client(GUEST).state == "held"
            await eventually(lambda: GUEST not in portal.online, "it is no longer known as online")
            # Status and logout now lead to the login page.
            for path in ("/status", "/logout"):
                assert (await get(port, path, client=GUEST)).fields["location"] == "/?lang=en"

    run(story())


@both
def test_a_guest_cannot_look_like_another_by_a_header(parser: str) -> None:
    """Pages know the guest by the connection, whatever proxies' fields say."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            daemon.client("127.0.0.8").username = "alice"
            daemon.set_state("127.0.0.8", "online")
            for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "Remote_Addr", "X_Forwarded_For"):
                for path in ("/status", "/logout"):
                    answer = await get(daemon.port, path, client=GUEST, headers=f"{name}: 127.0.0.8\r\n")
                    assert answer.status == 303, name
            assert {str(params["ip"]) for params in daemon.called("client.lookup")} == {GUEST}

    run(story())


@both
def test_a_stop_does_not_wait_for_a_slow_login(parser: str) -> None:
    """The process ends within its grace, whatever RADIUS does."""

    async def story() -> None:
        daemon = fake(login_delay_s=30)
        async with running_portal(daemon, parser):
            tap = asyncio.ensure_future(submit(daemon.port, username="alice", password="wonderland"))
            await eventually(lambda: daemon.called("client.login"), "it is under way")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await tap

    run(story())


@both
def test_a_daemon_of_another_version_does_not_end_the_portal(parser: str) -> None:
    """The configuration that it had stays."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            daemon.uam = {"max_connections": "many"}
            daemon.config_changed()
            await eventually(lambda: len(daemon.called("portal.config")) == 2, "the configuration was fetched")
            assert (await get(daemon.port, "/", client=GUEST)).status == 200

    run(story())


@both
def test_noise_and_broken_requests_leave_the_portal_alive(parser: str) -> None:
    """Some hundred mutations of real requests, cut, doubled, spliced: each is answered or closed, nothing fails."""
    seeds = [
        b"GET /generate_204 HTTP/1.1\r\nHost: www.gstatic.com\r\nConnection: close\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 31\r\n\r\nmethod=click&token=1.2&u=%%00%%ff",
        b"POST /api/v1/login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"username": "a"\r\n1\r\n}\r\n0\r\n\r\n',
        b"GET /status?u=%%22%%3e&lang=xx HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Language: \xff\r\n\r\n",
    ]

    async def story() -> None:
        dice = random.Random(20260)
        daemon = fake(uam={"read_timeout": 1, "max_connections_per_client": 100})
        async with running_portal(daemon, parser) as portal:

            async def one(number: int) -> None:
                data = bytearray(dice.choice(seeds).replace(b"%d", b"%d" % daemon.port).replace(b"%%", b"%"))
                for _ in range(dice.randrange(1, 6)):
                    place = dice.randrange(len(data))
                    match dice.randrange(4):
                        case 0:
                            data[place] = dice.randrange(256)
                        case 1:
                            del data[place : place + dice.randrange(1, 20)]
                        case 2:
                            data[place:place] = dice.randbytes(dice.randrange(1, 20))
                        case _:
                            data += data[place:]
                    data = data or bytearray(b"\0")
                reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, local_addr=(GUEST, 0))
                writer.write(data)
                writer.write_eof()
                try:
                    answer = await asyncio.wait_for(reader.read(), 10)
                    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (number, bytes(data))
                    assert not answer.startswith(b"HTTP/1.1 500"), (number, bytes(data))
                except ConnectionResetError:
                    pass
                finally:
                    writer.transport.abort()

            for batch in range(20):
                await asyncio.gather(*(one(batch * 20 + number) for number in range(20)))
            assert portal.server.counts.failures == 0
            assert (await get(daemon.port, "/", client="127.0.0.8")).status == 200
            assert not daemon.called("client.login")

    run(story())


@both
def test_a_device_without_lease_is_told_to_reconnect(parser: str) -> None:
    """On every page, in words."""

    async def story() -> None:
        daemon = fake(without_lease={GUEST})
        async with running_portal(daemon, parser):
            for path in ("/", "/status", "/logout"):
                page = await get(daemon.port, path, client=GUEST)
                assert page.status == 403
                assert "does not know your device" in page.text

    run(story())


@both
def test_while_the_daemon_restarts_guests_are_asked_to_wait(parser: str) -> None:
    """Redirects go on, pages say one moment with Retry-After, and all is well when it is back."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser) as portal:
            token = hidden(await get(daemon.port, "/", client=GUEST), "token")
            daemon.set_state("127.0.0.8", "online")
            daemon.stop()
            await eventually(lambda: not portal.daemon.available, "the portal noticed")
            assert (await get(daemon.port, "/generate_204", "www.gstatic.com", client=GUEST)).status == 302
            form = urlencode({"method": "click", "token": token}).encode()
            for page in (
                await get(daemon.port, "/", client=GUEST),
                await get(daemon.port, "/status", client=GUEST),
                await post(daemon.port, "/login", form, client=GUEST),
            ):
                assert page.status == 503
                assert page.fields["retry-after"] == "3"
                assert "One moment" in page.text
            daemon.reachable = True
            await eventually(lambda: portal.daemon.available, "the portal came back")
            assert (await post(daemon.port, "/login", form, client=GUEST)).status == 303
            await eventually(lambda: "127.0.0.8" in portal.online, "who was online is known again")

    run(story())


@both
def test_a_daemon_that_goes_during_a_login_leaves_a_page(parser: str) -> None:
    """Not a broken connection."""

    async def story() -> None:
        daemon = fake(login_delay_s=30)
        async with running_portal(daemon, parser):
            tap = asyncio.ensure_future(submit(daemon.port, username="alice", password="wonderland"))
            await eventually(lambda: daemon.called("client.login"), "it is under way")
            daemon.stop()
            page = await tap
            assert (page.status, "One moment" in page.text) == (503, True)

    run(story())


@both
def test_listeners_follow_the_configuration(parser: str) -> None:
    """Another port is listened on after a reload, the old one no longer; bounds change, too."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser) as portal:
            old = daemon.port
            daemon.port = free_port()
            daemon.uam = {"max_connections": 77}
            daemon.config_changed()
            await eventually(lambda: portal.places == [("127.0.0.1", daemon.port)], "the listener moved")
            assert portal.server.limits.max_connections == 77
            assert (await get(daemon.port, "/", client=GUEST)).status == 200
            with pytest.raises(OSError):
                await get(old, "/", client=GUEST)

    run(story())


@both
def test_the_timeline_hears_of_each_kind_at_most_once_in_five_seconds(parser: str) -> None:
    """Probe, redirect and page; a burst of requests is one line."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            for _ in range(3):
                await get(daemon.port, "/generate_204", "www.gstatic.com", client=GUEST)
                await get(daemon.port, "/feed", "app.example.com", client=GUEST)
                await get(daemon.port, "/", client=GUEST)
            notes = [params for method, params in daemon.notices if method == "client.note"]
            assert [(note["kind"], note["text"]) for note in notes] == [
                ("probe", "http://www.gstatic.com/generate_204"),
                ("redirect", "http://app.example.com/feed"),
                ("page", "login page shown, language en"),
            ]

    run(story())


@both
def test_what_does_not_exist_and_what_is_not_allowed(parser: str) -> None:
    """404 as a page for people, 405 with Allow, 415 for forms that are none."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon, parser):
            port = daemon.port
            missing = await get(port, "/wp-admin/", client=GUEST)
            assert (missing.status, "Page not found" in missing.text) == (404, True)
            assert (await get(port, "/static/../app.py", client=GUEST)).status == 404
            assert (await get(port, "/static/%2e%2e%2fapp.py", client=GUEST)).status == 404
            style = await get(port, "/static/style.css", client=GUEST)
            assert (style.status, style.fields["content-type"]) == (200, "text/css; charset=utf-8")
            refused = await post(port, "/status", b"", client=GUEST)
            assert (refused.status, refused.fields["allow"]) == (405, "GET, HEAD")
            assert (await post(port, "/login", b"{}", "application/json", client=GUEST)).status == 415

    run(story())


@both
def test_clients_of_other_networks_get_no_pages(parser: str) -> None:
    """A listener answers its zone only; the kernel refuses others already, this is the second lock."""

    async def story() -> None:
        daemon = fake(prefix=24)
        async with running_portal(daemon, parser):
            assert (await get(daemon.port, "/", client="127.0.0.9")).status == 200
            assert (await get(daemon.port, "/", client="127.0.7.9")).status == 403

    run(story())
