"""Vouchers at the portal: the form, its refusals in words, the printed link, and what the status page says."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import urlencode

import pytest

from tests.webui.fake_daemon import FakeDaemon, eventually, free_port, running_portal
from tests.webui.wire import Answer, get, post, run
from webui.portal.language import Languages, why_unfit
from webui.portal.preview import PAGES, preview

GUEST = "127.0.0.7"


def fake(**options: object) -> FakeDaemon:
    """A daemon of a zone with vouchers."""
    options = {"methods": ["voucher", "password", "click"], **options}
    return FakeDaemon(free_port(), **options)  # type: ignore[arg-type]  # each test names fields of FakeDaemon


async def use(port: int, code: str, *, lang: str = "en") -> Answer:
    """Fetch the form and send a code."""
    page = await get(port, f"/?lang={lang}", client=GUEST)
    token = re.search(r'name="token" value="([^"]*)"', page.text)
    assert token is not None
    form = {"method": "voucher", "token": token[1], "u": "", "lang": lang, "code": code}
    return await post(port, "/login", urlencode(form).encode(), client=GUEST)


@pytest.mark.parametrize("methods", [["voucher", "password", "click"], ["click", "voucher"], ["voucher"]])
def test_methods_stand_in_the_operators_order_on_one_page(methods: list[str]) -> None:
    """Each has its form, and the page says what to do first."""

    async def story() -> None:
        daemon = fake(methods=methods)
        async with running_portal(daemon):
            page = await get(daemon.port, "/", client=GUEST)
            assert re.findall(r'name="method" value="(\w+)"', page.text) == methods
            assert len(page.body) < 20_000

    run(story())


def test_a_code_goes_to_the_daemon_as_it_was_typed() -> None:
    """Forgiving is the daemon's; the form only takes off blanks around it."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon):
            answer = await use(daemon.port, "  48219-0736 5 ")
            assert answer.status == 303
            (call,) = daemon.called("client.login")
            assert call["method"] == "voucher"
            assert call["code"] == "48219-0736 5"
            status = await get(daemon.port, "/status", client=GUEST)
            assert "<dt>Voucher</dt><dd>3-17</dd>" in status.text
            assert "<dt>Download speed</dt><dd>up to 10 Mbit/s</dd>" in status.text
            assert "<dt>Upload speed</dt><dd>up to 512 kbit/s</dd>" in status.text
            assert 'href="http://status.postern.lan/"' in status.text
            assert "same code again" in status.text
            assert "48219" not in status.text

    run(story())


@pytest.mark.parametrize(
    ("result", "reason", "wait_s", "said"),
    [
        ("reject", "wrong", 0, ["no voucher with this code", "character by character"]),
        ("reject", "wrong", 20, ["no voucher with this code", "wait 20 s"]),
        ("reject", "expired", 0, ["has expired", "Ask the staff"]),
        ("reject", "used_up", 0, ["used up", "Ask the staff"]),
        ("reject", "revoked", 0, ["no longer valid", "Ask the staff"]),
        ("reject", "elsewhere", 0, ["another network", "printed on it"]),
        ("throttled", "throttled", 40, ["Too many attempts", "40 s"]),
        ("limit", "", 0, ["as many devices as it may be", "Log out on another device"]),
    ],
)
def test_every_refusal_says_what_to_do_and_keeps_the_code(
    result: str, reason: str, wait_s: int, said: list[str]
) -> None:
    """In the guest's words; the daemon's own sentence is for operators."""

    async def story() -> None:
        daemon = fake(login_result=result, login_reason=reason, login_wait_s=wait_s, reject_message="3-17: internal")
        async with running_portal(daemon):
            page = await use(daemon.port, "4821907365")
            for words in said:
                assert words in page.text
            assert 'role="alert"' in page.text
            assert 'value="4821907365"' in page.text
            assert "internal" not in page.text

    run(story())


@pytest.mark.parametrize("code", ["", "x" * 65, "1\x002"])
def test_what_cannot_be_a_code_is_not_asked_about(code: str) -> None:
    """The daemon hears nothing of it."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon):
            page = await use(daemon.port, code)
            assert 'role="alert"' in page.text
            assert daemon.called("client.login") == []

    run(story())


def test_a_printed_link_opens_the_login_with_the_code_filled_in() -> None:
    """Escaped, kept over a change of language, and sent by the guest only."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon):
            page = await get(daemon.port, "/?code=48219-07365&u=http://news.example.org/", client=GUEST)
            assert 'value="48219-07365"' in page.text
            assert "code=48219-07365" in page.text.partition('class="languages"')[2]
            assert daemon.called("client.login") == []
            nasty = await get(daemon.port, "/?code=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", client=GUEST)
            assert "<script" not in nasty.text
            assert "&quot;&gt;&lt;script&gt;" in nasty.text

    run(story())


def test_programs_log_in_by_voucher_too() -> None:
    """The JSON interface says the reason as a word."""

    async def story() -> None:
        daemon = fake()
        async with running_portal(daemon):
            body = json.dumps({"method": "voucher", "code": "48219-07365"}).encode()
            answer = await post(daemon.port, "/api/v1/login", body, "application/json", client=GUEST)
            assert answer.status == 200
        daemon = fake(login_result="reject", login_reason="used_up")
        async with running_portal(daemon):
            answer = await post(daemon.port, "/api/v1/login", body, "application/json", client=GUEST)
            assert answer.status == 401
            assert json.loads(answer.text)["reason"] == "used_up"
            empty = json.dumps({"method": "voucher", "code": " "}).encode()
            assert (await post(daemon.port, "/api/v1/login", empty, "application/json", client=GUEST)).status == 400

    run(story())


def test_a_theme_and_the_operators_sentences_dress_the_pages() -> None:
    """Fetched over the control socket, in place of ours where there are some; gone with the configuration."""
    sheet = b".card { border: 3px dotted }"
    logo = b"\x89PNG\r\n\x1a\n"

    async def story() -> None:
        daemon = fake(theme="sea", theme_files={"style.css": sheet, "logo.png": logo})
        daemon.texts = {"en": {"login_lead": "Ahoy!", "network": "{nonsense}", "no_such": "x"}}
        async with running_portal(daemon):
            page = await get(daemon.port, "/", client=GUEST)
            assert sheet.decode() in page.text
            assert "Ahoy!" in page.text
            assert "Network: Guest WiFi" in page.text, "a sentence that does not fit leaves ours"
            assert "sha256-" in page.fields["content-security-policy"]
            image = await get(daemon.port, "/static/logo.png", client=GUEST)
            assert (image.body, image.fields["content-type"]) == (logo, "image/png")
            assert "sandbox" in image.fields["content-security-policy"]
            daemon.theme, daemon.texts = "", {}
            daemon.config_changed()
            await eventually(lambda: not daemon.connections or daemon.called("portal.config")[1:], "fetched again")
            for _ in range(50):
                page = await get(daemon.port, "/", client=GUEST)
                if "Ahoy!" not in page.text:
                    break
            assert sheet.decode() not in page.text

    run(story())


def test_a_theme_that_cannot_be_had_leaves_our_own_look() -> None:
    """Guests log in whatever an operator uploaded."""

    async def story() -> None:
        daemon = fake(theme="gone")
        async with running_portal(daemon):
            assert (await get(daemon.port, "/", client=GUEST)).status == 200
        daemon = fake(theme="bad", theme_files={"layout.html": b"\xff"})
        async with running_portal(daemon):
            assert (await get(daemon.port, "/", client=GUEST)).status == 200

    run(story())


@pytest.mark.parametrize(
    ("key", "text", "fits"),
    [
        ("login_lead", "Hello", True),
        ("network", "Net {name}", True),
        ("network", "Net", True),
        ("network", "{other}", False),
        ("network", "{name.__class__}", False),
        ("network", "{name!r}", False),
        ("network", "{name:>99999999}", False),
        ("network", "{", False),
        ("network", "{}", False),
        ("_direction", "rtl", False),
        ("nothing", "x", False),
    ],
)
def test_a_sentence_must_fit_its_place(key: str, text: str, fits: bool) -> None:
    """Only the placeholders of that text, and nothing that looks into values."""
    english = Languages().get("en")
    assert english is not None
    assert (why_unfit(english.texts, key, text) == "") is fits


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("language", ["en", "fr", "de", "es"])
def test_every_page_can_be_looked_at_before_guests_do(page: str, language: str) -> None:
    """In each language, whole, small, with one heading and a language of its own."""
    answer = preview(page, {}, language)
    assert isinstance(answer.body, bytes)
    text = answer.body.decode()
    assert text.startswith("<!DOCTYPE html>")
    assert f'<html lang="{language}" dir="ltr">' in text
    assert text.count("<h1>") == 1
    assert "$" not in text
    assert len(answer.body) < 60_000


def test_the_files_of_a_theme_are_base64_on_the_wire() -> None:
    """What the fake says is what the daemon says."""
    daemon = fake(theme_files={"style.css": b"p {}"})
    assert daemon.theme_answer() == {"files": {"style.css": base64.b64encode(b"p {}").decode()}}
