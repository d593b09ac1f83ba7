"""A theme: html files with `$placeholders`, a style sheet, and files to be served as they are.

An operator's theme has any of these files, and ours stand in for the rest; the daemon has checked them
(`gateway/themes`). Templates decide nothing. Every value is escaped when it is put in, unless it is `Markup`, which
only this module and `pages` make. The style sheet travels inside each page, so that a page is one request; its hash in
the Content-Security-Policy lets exactly that sheet through.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

_WEBUI: Final = Path(__file__).parent.parent
_STYLE: Final = "style.css"
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".ico": "image/x-icon",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


class Markup(str):
    """Text that is html already."""

    __slots__ = ()


class Theme:
    """The templates and files of one theme, read once."""

    def __init__(
        self,
        own: Mapping[str, bytes] | None = None,
        templates: Path = _WEBUI / "templates" / "portal",
        static: Path = _WEBUI / "static" / "portal",
    ) -> None:
        """Read everything; `own` are the operator's files by name. Raises OSError or ValueError for a broken theme."""
        files = {path.name: path.read_bytes() for path in (*templates.glob("*.html"), *static.iterdir())}
        files |= own or {}
        self._templates = {
            name.removesuffix(".html"): Template(data.decode("utf-8"))
            for name, data in sorted(files.items())
            if name.endswith(".html")
        }
        self.files = {
            name: (media_type, data)
            for name, data in sorted(files.items())
            if (media_type := MEDIA_TYPES.get(Path(name).suffix)) is not None
        }
        style = files[_STYLE].decode("utf-8")
        if "</" in style:
            raise ValueError(f"{_STYLE}: `</` would end the sheet inside a page")
        self.style = Markup(style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
        self.content_security_policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; font-src 'self'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )

    def render(self, template: str, **values: str) -> Markup:
        """Fill in a template; raises KeyError for a placeholder without a value."""
        return Markup(
            self._templates[template].substitute(
                {
                    name: value if isinstance(value, Markup) else html.escape(value, quote=True)
                    for name, value in values.items()
                }
            )
        )


def joined(pieces: list[Markup]) -> Markup:
    """Several pieces of html as one."""
    return Markup("\n".join(pieces))
