"""What a theme may hold: everything that shows, nothing that runs or comes from elsewhere."""

from __future__ import annotations

from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.themes.check import problems_of
from gateway.themes.contract import STYLE, TEMPLATES

PROJECT = Path(__file__).resolve().parents[3]
OURS = {path.name: path.read_bytes() for path in (PROJECT / "webui" / "templates" / "portal").glob("*.html")}
LAYOUT = OURS["layout.html"].decode()


def test_our_own_files_are_a_theme() -> None:
    """Whoever begins with a copy of them has something that is taken, with nothing left out of the contract."""
    style = (PROJECT / "webui" / "static" / "portal" / STYLE).read_bytes()
    assert problems_of({**OURS, STYLE: style}) == []
    assert {name.removesuffix(".html") for name in OURS} == set(TEMPLATES)
    for name, known in TEMPLATES.items():
        assert set(Template(OURS[f"{name}.html"].decode()).get_identifiers()) == known.needed | known.free, name


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("<SCRIPT src=/static/x.js>", "<script>"),
        ("<iframe src='/x'></iframe>", "<iframe>"),
        ("<object data='/x'></object>", "<object>"),
        ("<base href='/x'>", "<base>"),
        ("<p onclick='x()'>", "handler onclick"),
        ("<svg/onload=alert(1)>", "handler onload"),
        ("<img src=x oneRRor=y>", "handler onerror"),
        ("<a href='javascript:x()'>", "code in the address"),
        ("<a href=' java\nscript:x()'>", "code in the address"),
        ("<a href='data:text/html,x'>", "code in the address"),
        ("<img src='https://tracker.example/x.png'>", "loads"),
        ("<img src='//tracker.example/x.png'>", "loads"),
        ("<p style='color:red'>", "style attribute"),
        ("<style>p{}</style>", "sheet of its own"),
        ("<meta http-equiv='refresh' content='0;url=//evil'>", "http-equiv"),
        ("<link rel='stylesheet' href='/static/x.css'>", "<link>"),
        ("<form action='https://evil.example/'>", "not sent to /login"),
        ("<form>", "not sent to /login"),
        ("<button formaction='//evil'>", "formaction"),
        ("<p class=$title>", "without quotes"),
        ("<a href='$content'>", "as an address"),
        ("$nonsense", "not one of this template"),
        ("$ 5", "$$"),
    ],
)
def test_what_would_run_or_load_is_refused_with_the_reason(piece: str, said: str) -> None:
    """One bad piece in a good layout is one sentence that names the file."""
    found = problems_of({"layout.html": LAYOUT.replace("$content", f"$content{piece}").encode()})
    assert found
    assert all(sentence.startswith("layout.html: ") for sentence in found)
    assert any(said in sentence for sentence in found), found


def test_what_guests_cannot_do_without_must_be_there() -> None:
    """A login form without its token would never let anybody in."""
    page = OURS["password.html"].replace(b"$token", b"")
    (sentence,) = problems_of({"password.html": page})
    assert "lacks $token" in sentence
    assert problems_of({"password.html": OURS["password.html"].replace(b"$note", b"")}) == []


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("p { color: red } </style><script>", "html"),
        ("@import '/static/other.css';", "imports"),
        ("p { background: url(https://tracker.example/x.png) }", "loads"),
        ("p { background: url('//tracker.example/x') }", "loads"),
        ("p { width: expression(alert(1)) }", "code"),
        ("p { behavior: url(/static/x.htc) }", "code"),
        ("p { }" + " " * 24_000, "at most"),
    ],
)
def test_a_sheet_that_loads_or_ends_is_refused(sheet: str, said: str) -> None:
    """It travels within each page."""
    assert any(said in sentence for sentence in problems_of({STYLE: sheet.encode()}))


def test_a_sheet_may_use_the_themes_own_files() -> None:
    """Images and fonts of the theme, and small ones within the sheet."""
    sheet = b"p { background: url(/static/a.png) } q { background: url('data:image/png;base64,AA==') }"
    assert problems_of({STYLE: sheet, "a.png": b"\x89PNG\r\n\x1a\n"}) == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("logo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>", "<script>"),
        ("logo.svg", b"<svg onload='x'/>", "handler"),
        ("logo.svg", b"<svg><foreignObject/></svg>", "foreignobject"),
        ("logo.svg", b"<!DOCTYPE svg [<!ENTITY a 'b'>]><svg/>", "entities"),
        ("logo.svg", b"<svg><a xlink:href='javascript:x'/></svg>", "code"),
        ("logo.png", b"<html>", "not what its name says"),
        ("logo.gif", b"GIF89a", "type that pages do not use"),
        ("x.js", b"alert(1)", "type that pages do not use"),
        ("x.php", b"<?php", "type that pages do not use"),
        ("admin.html", b"", "no template"),
        ("layout.html", b"\xff\xfe", "UTF-8"),
    ],
)
def test_files_are_what_their_names_say(name: str, data: bytes, said: str) -> None:
    """And of a type that a page uses."""
    assert any(said in sentence for sentence in problems_of({name: data}))


def test_a_drawing_is_welcome() -> None:
    """Plain SVG has styles and gradients of its own."""
    drawing = b"<svg xmlns='http://www.w3.org/2000/svg'><style>p{}</style><path style='fill:red' d='M0 0'/></svg>"
    assert problems_of({"logo.svg": drawing}) == []


@given(st.sampled_from(["layout.html", "login.html", "style.css", "a.svg"]), st.binary(max_size=200))
def test_any_octets_end_in_sentences(name: str, data: bytes) -> None:
    """No file of a stranger raises."""
    assert all(sentence.startswith(name) for sentence in problems_of({name: data}))
