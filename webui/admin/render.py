"""Templates and static files of the administration, read once.

Templates are Bottle's SimpleTemplate: `{{value}}` is escaped, `{{!value}}` is for markup that our own code made. They
format and repeat; what is shown is decided by the page that fills them in. A static file's name carries the hash of
its content, so that browsers keep it for ever and never show an old one.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any, Final

from bottle import SimpleTemplate

from webui.messages import Request, Response

_WEBUI: Final = Path(__file__).parent.parent
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
_COMPRESSED: Final = (".css", ".js", ".svg")
_PREFIX: Final = "/static/"


class Markup(str):
    """Text that is html already, made by our own code."""

    __slots__ = ()


class Templates:
    """Every template of a directory, by its file name without `.html`."""

    def __init__(self, folder: Path = _WEBUI / "templates" / "admin", **shared: object) -> None:
        """`shared` are names that every template may use. Raises OSError or SyntaxError for a broken template."""
        self._folder = folder
        self._shared = shared
        self._templates: dict[str, Any] = {}  # Any: Bottle has no types
        for path in sorted(folder.glob("*.html")):
            template = SimpleTemplate(path.read_text("utf-8"), name=path.name, lookup=[str(folder)])
            template.co  # noqa: B018 - compiles now, so that a fault shows at the start
            self._templates[path.stem] = template

    def render(self, name: str, values: dict[str, object]) -> Markup:
        """Fill in a template; raises KeyError for an unknown one, NameError for a value that was not given."""
        return Markup(self._templates[name].render({**self._shared, **values}))


class StaticFiles:
    """The files of a directory under names that change with their content."""

    def __init__(self, folder: Path = _WEBUI / "static" / "admin") -> None:
        """Read everything; raises OSError."""
        self._files: dict[str, tuple[str, str, bytes, bytes | None]] = {}  # path -> ETag, type, content, compressed
        self._paths: dict[str, str] = {}
        for file in sorted(folder.iterdir()):
            kind = _MEDIA_TYPES.get(file.suffix)
            if kind is None:
                continue
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            path = f"{_PREFIX}{file.stem}.{digest}{file.suffix}"
            packed = gzip.compress(content, 9, mtime=0) if file.suffix in _COMPRESSED else None
            self._files[path] = (f'"{digest}"', kind, content, packed)
            self._paths[file.name] = path

    def path(self, name: str) -> str:
        """Where a file is served; raises KeyError for a name that there is not."""
        return self._paths[name]

    def answer(self, request: Request) -> Response | None:
        """The file that a request asks for; None when there is none of that name."""
        found = self._files.get(request.path)
        if found is None:
            return None
        etag, kind, content, packed = found
        headers = [
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("ETag", etag),
            ("Vary", "Accept-Encoding"),
        ]
        if etag in request.header("if-none-match"):
            return Response(304, b"", "", headers)
        if packed is not None and "gzip" in request.header("accept-encoding"):
            headers.append(("Content-Encoding", "gzip"))
            content = packed
        return Response(200, content, kind, headers)
