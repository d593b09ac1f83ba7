"""A theme: a directory of html files with `$placeholders`, a style sheet, and files to be served as they are.

Templates decide nothing. Every value is escaped when it is put in, unless it is `Markup`, which only this module and
`pages` make. The style sheet travels inside each page, so that a page is one request; its hash in the
Content-Security-Policy lets exactly that sheet through.
"""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from string import Template
from typing import Final

_WEBUI: Final = Path(__file__).parent.parent
_STYLE: Final = "style.css"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
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
        self, templates: Path = _WEBUI / "templates" / "portal", static: Path = _WEBUI / "static" / "portal"
    ) -> None:
        """Read everything; raises OSError for what cannot be read."""
        self._templates = {path.stem: Template(path.read_text("utf-8")) for path in sorted(templates.glob("*.html"))}
        self.files = {
            path.name: (_MEDIA_TYPES[path.suffix], path.read_bytes())
            for path in sorted(static.iterdir())
            if path.suffix in _MEDIA_TYPES
        }
        style = (static / _STYLE).read_text("utf-8")
        if "</" in style:
            raise ValueError(f"{static / _STYLE}: `</` would end the sheet inside a page")
        self.style = Markup(style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
        self.content_security_policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
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
