"""The login page, which is composed once and carries the values of each visit."""

from __future__ import annotations

import html
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from tests.webui.fake_daemon import FakeDaemon
from webui.portal.language import Languages
from webui.portal.model import Zone, read_config
from webui.portal.pages import Pages, Visit
from webui.portal.theme import Markup, Theme

PAGES = Pages(Theme(), Languages())
ZONE: Zone = read_config(FakeDaemon(3990).config()).zones[0]
ENGLISH = PAGES.languages.choose("en")
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def shown(visit: Visit, token: str = "a-token", alert: str = "", username: str = "") -> str:
    """The body of the login page."""
    body = PAGES.login(visit, token, alert=Markup(alert), username=username).body
    assert isinstance(body, bytes)
    return body.decode()


def test_each_visit_has_its_own_values() -> None:
    """Nothing of a guest is left in the page of the next one."""
    first = shown(Visit(ZONE, ENGLISH, "http://one.example/"), "token-one", "<p>alert-one</p>", "user-one")
    second = shown(Visit(ZONE, ENGLISH, "http://two.example/"), "token-two", "", "user-two")
    for name in ("token", "user"):
        assert f"{name}-one" in first
        assert f"{name}-two" in second
    assert "<p>alert-one</p>" in first
    assert "-one" not in second
    assert "one.example" not in second


def test_zones_and_languages_have_pages_of_their_own() -> None:
    """A page that was composed for one is not shown to the other."""
    french = PAGES.languages.choose("fr")
    assert 'lang="en"' in shown(Visit(ZONE, ENGLISH))
    assert 'lang="fr"' in shown(Visit(ZONE, french))
    assert "u=http" not in shown(Visit(ZONE, ENGLISH))
    assert "u=http%3A%2F%2Fa.example" in shown(Visit(ZONE, ENGLISH, "http://a.example"))


@given(TEXT, TEXT)
def test_values_are_escaped(username: str, url: str) -> None:
    """What a guest sends stays text: escaped in html, percent-encoded in links, and never read as a mark of ours."""
    for name in (username, "\0token\0", "%00alert%00"):
        body = shown(Visit(ZONE, ENGLISH, url), "a-token", "", name)
        assert f'value="{html.escape(name, quote=True)}"' in body
        if url:
            assert f'value="{html.escape(url, quote=True)}"' in body
            assert f"&amp;u={quote(url, safe='')}" in body
