"""What a theme consists of: which files it may have, and what each template must show. Pure.

A template that lacks a needed placeholder would take something from guests that they cannot do without: the form's
token, the reason why a login failed, the way to log out. The rest may be left out.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Placeholders(NamedTuple):
    """The placeholders of a template: those that it must have, and those that it may have besides."""

    needed: frozenset[str]
    free: frozenset[str]


def _of(needed: str, free: str = "") -> Placeholders:
    return Placeholders(frozenset(needed.split()), frozenset(free.split()))


TEMPLATES: Final = {
    "accept": _of("text"),
    "action": _of("href label"),
    "alert": _of("text details"),
    "click": _of("token url lang accept button", "form_label"),
    "detail": _of("text"),
    "implied": _of("text"),
    "language_current": _of("name", "code"),
    "language_link": _of("href name", "code"),
    "layout": _of("lang direction title style refresh content", "network languages languages_label"),
    "link": _of("href label"),
    "login": _of("alert terms methods", "heading lead"),
    "logout": _of("token lang button", "heading text back"),
    "message": _of("heading text details actions"),
    "or": _of("", "text"),
    "password": _of("token url lang username username_label password_label implied button", "form_label note"),
    "refresh": _of("seconds url"),
    "row": _of("label value"),
    "row_meter": _of("label value", "part"),
    "status": _of("heading rows logout token lang details", "lead way_on bookmark"),
    "terms": _of("label text"),
    "terms_link": _of("label lang"),
    "terms_page": _of("text lang", "title back"),
    "voucher": _of("token url lang code code_label implied button", "form_label code_hint"),
}
STYLE: Final = "style.css"
ASSET_TYPES: Final = (".svg", ".png", ".jpg", ".jpeg", ".ico", ".webp", ".woff2")
IGNORED_TYPES: Final = (".txt", ".md")  # a licence, a note: not kept
MAX_ARCHIVE_BYTES: Final = 700_000
MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 700_000
MAX_TOTAL_BYTES: Final = 2_000_000
MAX_RATIO: Final = 100
# A page is its layout, its forms and the sheet in one: with these bounds it stays under 60 KB.
MAX_TEMPLATE_BYTES: Final = 8_000
MAX_STYLE_BYTES: Final = 24_000
