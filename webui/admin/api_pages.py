"""REST: the look and the words of the guests' pages. Each operation is one method of the daemon, which checks roles."""

from __future__ import annotations

from typing import Final

from webui.admin.rest import ApiRoute, asks
from webui.admin.schema import Schema, anything, array, integer, record, rows, text

PAGES: Final = "Guest pages"
_MAX_ARCHIVE_CHARACTERS: Final = 960_000  # base64 of 700 KB
_BODY_LIMIT: Final = 1 << 20
_NAME: Final = text("Small letters, digits, - and _.", shortest=1, longest=32)
_ZONE: Final[dict[str, Schema]] = {"zone": text(shortest=1, longest=32)}
_THEME: Final = record(
    {
        "theme": text(),
        "version": text("Another whenever the files are."),
        "size_bytes": integer(),
        "files": array(text()),
        "zones": array(text()),
    },
    "A theme.",
    required=("theme", "version"),
    more=True,
)


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    return [*_themes(), *_words()]


def _themes() -> list[ApiRoute]:
    name: dict[str, Schema] = {"theme": _NAME}
    archive = record(
        {"data": text("Base64 of a zip archive.", shortest=1, longest=_MAX_ARCHIVE_CHARACTERS)}, required=("data",)
    )
    return [
        ApiRoute(
            "GET",
            "/themes",
            "read",
            asks("themes.list"),
            "Themes, and which zone has which.",
            PAGES,
            result=rows(_THEME, zones=anything()),
        ),
        ApiRoute(
            "GET", "/themes/{theme}", "read", asks("themes.preview"), "The files of a theme.", PAGES, path_schemas=name
        ),
        ApiRoute(
            "PUT",
            "/themes/{theme}",
            "configure",
            asks("themes.store", timeout_s=30.0),
            "Keep a theme, after it was checked.",
            PAGES,
            body=archive,
            result=_THEME,
            path_schemas=name,
            body_limit=_BODY_LIMIT,
        ),
        ApiRoute(
            "DELETE",
            "/themes/{theme}",
            "configure",
            asks("themes.remove"),
            "Remove a theme; its zones go back to the usual look.",
            PAGES,
            path_schemas=name,
        ),
        ApiRoute(
            "PUT",
            "/zones/{zone}/theme",
            "configure",
            asks("themes.activate"),
            "Give a zone a theme.",
            PAGES,
            body=record(name, required=("theme",)),
            path_schemas=_ZONE,
        ),
        ApiRoute(
            "DELETE",
            "/zones/{zone}/theme",
            "configure",
            asks("themes.reset"),
            "Give a zone the usual look.",
            PAGES,
            path_schemas=_ZONE,
        ),
    ]


def _words() -> list[ApiRoute]:
    sentence = record(
        {
            "zone": text("Without it: every zone.", longest=32),
            "language": text("Such as en.", shortest=2, longest=16),
            "key": text("The name of a text.", shortest=1, longest=64),
            "text": text("Without it: our own sentence again.", longest=2000),
        },
        required=("language", "key"),
    )
    return [
        ApiRoute("GET", "/texts", "read", asks("themes.texts"), "The sentences that stand in for ours.", PAGES),
        ApiRoute(
            "PUT",
            "/texts",
            "configure",
            asks("themes.text"),
            "Replace a sentence of the guests' pages.",
            PAGES,
            body=sentence,
        ),
    ]
