"""Catalogues, their choice, and how numbers are said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from webui.portal.language import Languages
from webui.portal.theme import Markup, Theme

LOCALES = sorted((Path(__file__).parents[3] / "webui" / "locale").glob("*.json"))


def test_every_catalogue_has_every_text_with_the_same_placeholders() -> None:
    """A language that we deliver is whole."""
    trees = {path.stem: json.loads(path.read_text("utf-8")) for path in LOCALES}
    assert {"en", "fr"} <= set(trees)
    for code, tree in trees.items():
        assert list(tree) == list(trees["en"]), code
        for key, text in tree.items():
            assert re.findall(r"\{\w+\}", text) == re.findall(r"\{\w+\}", trees["en"][key]), (code, key)


def test_every_text_is_used() -> None:
    """No catalogue carries what no page says."""
    sources = "".join(path.read_text("utf-8") for path in (Path(__file__).parents[3] / "webui" / "portal").glob("*.py"))
    english = json.loads(LOCALES[[path.stem for path in LOCALES].index("en")].read_text("utf-8"))
    assert [key for key in english if not re.search(f"""["']{key}["']""", sources)] == []


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("FR-ch", "fr"),
        ("nl,fr;q=0.5", "fr"),
        ("en;q=0.1,fr;q=0.2", "fr"),
        ("fr;q=0", "en"),
        ("*", "en"),
        ("fr;q=2", "en"),
        (",;q=,fr;;", "en"),
        ("x" * 10_000 + ",fr", "en"),
    ],
)
def test_the_language_of_a_browser(accept: str, code: str) -> None:
    """By quality; English when nothing fits."""
    assert Languages().choose(accept).code == code


@pytest.mark.parametrize(
    ("octets", "english", "french"),
    [
        (0, "0 bytes", "0 octets"),
        (999, "999 bytes", "999 octets"),
        (1000, "1.0 kB", "1,0 ko"),
        (1_400_000, "1.4 MB", "1,4 Mo"),
        (14_000_000, "14 MB", "14 Mo"),
        (999_960, "1.0 MB", "1,0 Mo"),
        (5_000_000_000_000_000, "5000 TB", "5000 To"),
    ],
)
def test_sizes(octets: int, english: str, french: str) -> None:
    """Powers of 1000, as data plans count."""
    languages = Languages()
    en, fr = languages.get("en"), languages.get("fr")
    assert en is not None
    assert fr is not None
    assert (en.size(octets), fr.size(octets)) == (english, french)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (90, "1 min 30 s"),
        (120, "2 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    """The two largest units."""
    english = Languages().get("en")
    assert english is not None
    assert english.duration(seconds) == text


def test_a_language_is_added_by_a_file(tmp_path: Path) -> None:
    """Right to left included; missing texts are English; a broken file is named."""
    for path in LOCALES:
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    (tmp_path / "ar.json").write_text('{"_name": "العربية", "_direction": "rtl", "password": "كلمة السر"}', "utf-8")
    arabic = Languages(tmp_path).choose("ar")
    assert (arabic.direction, arabic.say("password"), arabic.say("login_button")) == ("rtl", "كلمة السر", "Log in")
    (tmp_path / "xx.json").write_text('{"password": "x"}', "utf-8")
    with pytest.raises(ValueError, match=r"xx\.json: _name and _direction"):
        Languages(tmp_path)


def test_a_theme_escapes_all_but_markup() -> None:
    """A value is text unless it was made as html."""
    theme = Theme()
    assert theme.render("detail", text='<a b="c">&') == "<p>&lt;a b=&quot;c&quot;&gt;&amp;</p>\n"
    assert theme.render("detail", text=Markup("<b>")) == "<p><b></p>\n"
    with pytest.raises(KeyError):
        theme.render("detail")


def test_sentences_from_right_to_left_turn_the_page() -> None:
    """An operator who puts Arabic in the place of a language gets pages that are read from the right."""
    arabic = ("es", "login_lead", "سجّل الدخول لاستخدام الإنترنت."), ("es", "network", "الشبكة: {name}")
    languages = Languages(own=(*arabic, ("fr", "login_lead", "Entrez, שלום.")))
    assert [languages.choose(code).direction for code in ("es", "fr", "en")] == ["rtl", "ltr", "ltr"]
