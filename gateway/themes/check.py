"""Holds the files of a theme against what a page for guests may be. Pure: files in, sentences out.

Nothing of a theme ever runs. The portal's Content-Security-Policy forbids scripts, inline handlers and everything from
elsewhere in any case; what would be dead because of it is refused here, with a word that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from string import Template
from typing import Final

from gateway.themes.contract import (
    ASSET_TYPES,
    MAX_STYLE_BYTES,
    MAX_TEMPLATE_BYTES,
    STYLE,
    TEMPLATES,
)

_BANNED: Final = frozenset(
    {"script", "iframe", "frame", "frameset", "object", "embed", "applet", "base", "portal", "foreignobject"}
)
_URL_ATTRIBUTES: Final = frozenset({"href", "src", "action", "formaction", "poster", "xlink:href", "srcset", "data"})
_FORM_ACTIONS: Final = ("/login", "/logout")
_DANGEROUS_URL: Final = re.compile(r"(?:javascript|vbscript|data\s*:\s*(?!image/))", re.IGNORECASE)
_ELSEWHERE: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_REFRESH: Final = "$seconds;url=$url"
_UNQUOTED: Final = re.compile(r"=\s*\$")
_PLACEHOLDER: Final = re.compile(r"\$\{?[a-z_]+\}?")
_CSS_URL: Final = re.compile(r"url\(\s*['\"]?\s*([^'\")\s]+)", re.IGNORECASE)
_CSS_CODE: Final = re.compile(r"expression\s*\(|behavior\s*:|-moz-binding", re.IGNORECASE)
_MAGIC: Final = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".ico": (b"\x00\x00\x01\x00",),
    ".webp": (b"RIFF",),
    ".woff2": (b"wOF2",),
}


def problems_of(files: Mapping[str, bytes]) -> list[str]:
    """Everything that is wrong with a theme, in sentences that name the file."""
    found: list[str] = []
    for name, data in sorted(files.items()):
        found += [f"{name}: {sentence}" for sentence in _problems(name, data)]
    if not files:
        found.append("the theme is empty; put in a style.css, a layout.html or any of the other templates")
    return found


def _problems(name: str, data: bytes) -> Iterator[str]:
    stem, dot, ending = name.rpartition(".")
    if name == STYLE:
        yield from _style(data)
    elif ending == "html":
        if stem not in TEMPLATES:
            yield f"is no template; there are: {', '.join(f'{known}.html' for known in sorted(TEMPLATES))}"
        else:
            yield from _template(stem, data)
    elif f"{dot}{ending}" in ASSET_TYPES:
        yield from _asset(f"{dot}{ending}", data)
    else:
        yield f"is of a type that pages do not use; there are html, style.css, {', '.join(ASSET_TYPES)}"


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _template(stem: str, data: bytes) -> Iterator[str]:
    text = _text(data)
    if text is None:
        yield "is not UTF-8 text"
        return
    if len(data) > MAX_TEMPLATE_BYTES:
        yield f"has {len(data)} octets; a template has at most {MAX_TEMPLATE_BYTES}"
    template = Template(text)
    if not template.is_valid():
        yield "has a $ that begins no placeholder; write $$ for a dollar sign"
        return
    names, known = set(template.get_identifiers()), TEMPLATES[stem]
    for name in sorted(names - known.needed - known.free):
        yield f"has the placeholder ${name}, which is not one of this template: {_listed(known.needed | known.free)}"
    for name in sorted(known.needed - names):
        yield f"lacks ${name}, without which guests could not go on"
    yield from _Reader(stem).problems(text)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names))


def _style(data: bytes) -> Iterator[str]:
    text = _text(data)
    if text is None:
        yield "is not UTF-8 text"
        return
    if len(data) > MAX_STYLE_BYTES:
        yield f"has {len(data)} octets; it travels in every page and has at most {MAX_STYLE_BYTES}"
    if "</" in text or "<!--" in text:
        yield "holds html, which would end the sheet"
    if "@import" in text.lower():
        yield "imports another sheet, which is not loaded; put its rules here"
    if _CSS_CODE.search(text) or ("\\" in _CSS_URL.sub("", text) and re.search(r"\\0*(?:6[19]|4[19])", text)):
        yield "holds code (expression, behavior, binding) or hides letters behind escapes"
    for url in _CSS_URL.findall(text):
        if not url.startswith(("/static/", "data:image/", "#")):
            yield f"loads {url[:60]!r}; before login only files of the theme are there: url(/static/NAME)"


def _asset(ending: str, data: bytes) -> Iterator[str]:
    if ending == ".svg":
        text = _text(data)
        if text is None:
            yield "is not UTF-8 text"
        elif "<!entity" in text.lower():
            yield "defines entities; save it as plain SVG"
        else:
            yield from _Reader("svg").problems(text)
    elif not data.startswith(_MAGIC[ending]):
        yield "is not what its name says"


class _Reader(HTMLParser):
    """Walks through html or SVG and notes what a page may not have."""

    def __init__(self, template: str) -> None:
        super().__init__(convert_charrefs=True)
        self._template = template
        self._found: list[str] = []
        self._in_style = False

    def problems(self, text: str) -> list[str]:
        self.feed(text)
        self.close()
        if self._template == "layout" and not text.lstrip().lower().startswith("<!doctype html>"):
            self._found.append("does not begin with <!DOCTYPE html>")
        return self._found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BANNED:
            self._found.append(f"has <{tag}>, and nothing of a theme may run or frame anything")
        if tag == "style":
            self._in_style = True
        if _UNQUOTED.search(_QUOTED.sub('""', self.get_starttag_text() or "")):
            self._found.append(f'has a placeholder without quotes in <{tag}>; write name="$placeholder"')
        values = {name: value or "" for name, value in attrs}
        reloads = self._template == "refresh" and values.get("content") == _REFRESH
        if tag == "meta" and "http-equiv" in values and not reloads:
            self._found.append("has <meta http-equiv>; $refresh is what reloads a page")
        if tag == "link" and values.get("rel", "").lower() not in ("icon", "apple-touch-icon"):
            self._found.append("has <link>, which loads nothing here; style.css is put in by $style")
        if tag == "form" and values.get("action") not in _FORM_ACTIONS:
            self._found.append(f"has a form that is not sent to {' or '.join(_FORM_ACTIONS)}")
        for name, value in values.items():
            self._attribute(tag, name, value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style and self._template != "svg" and data.strip() not in ("$style", "${style}", ""):
            self._found.append("has a sheet of its own; put it into style.css")

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on"):
            self._found.append(f"has the handler {name} in <{tag}>, and nothing of a theme may run")
        elif name == "style" and self._template != "svg":
            self._found.append(f"has a style attribute in <{tag}>, which browsers ignore here; put it into style.css")
        elif name == "formaction":
            self._found.append(f"has formaction in <{tag}>; forms are sent where their action says")
        elif name in _URL_ATTRIBUTES:
            squeezed = re.sub(r"[\s\x00-\x1f]", "", value)
            if squeezed == "data:,":
                return  # nothing: keeps browsers from asking for an icon
            if _DANGEROUS_URL.match(squeezed):
                self._found.append(f"has code in the address of <{tag}>")
            elif squeezed.startswith("$") and squeezed not in ("$href", "${href}"):
                self._found.append(f"has {_PLACEHOLDER.match(squeezed) and squeezed!r} as an address in <{tag}>")
            elif tag != "a" and name != "action" and _ELSEWHERE.match(squeezed):
                self._found.append(
                    f"loads {value[:60]!r} in <{tag}>; before login only files of the theme are there: /static/NAME"
                )
