"""The answer to a request for any host but our own: 302 to the portal, with the address that was asked for.

The hot path: most requests that a portal sees are the background traffic of apps. Pure functions.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from webui.messages import Request, Response
from webui.portal.probes import is_probe

MAX_ORIGINAL_URL: Final = 1024  # a longer one is carried without its path
_HOST: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,252})(?::[0-9]{1,5})?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_ABSOLUTE: Final = re.compile(r"(?i:https?)://([^/?]*)(.*)")
# No character of these needs an entity in html, and none ends a query's value.
_QUERY_SAFE: Final = "/:?=,;@!*~()"


def host_and_target(request: Request) -> tuple[str, str]:
    """The Host (lower case, with its port) and the target in origin-form; the absolute form decides over Host."""
    target = request.target
    if target.startswith("/"):
        return request.headers.get("host", "").lower(), target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:  # "*"
        return request.headers.get("host", "").lower(), "/"
    rest = match[2]
    return match[1].lower(), rest if rest.startswith("/") else f"/{rest}"


def split_port(host: str) -> tuple[str, int]:
    """Host and port; 80 when none is named, -1 when it is not a number that we read."""
    name, colon, port = host.partition(":")
    if not colon:
        return name, 80
    return name, int(port) if _PORT.fullmatch(port) else -1


def original_url(host: str, target: str) -> str:
    """The address that the client asked for; empty when its Host is no host."""
    if not _HOST.fullmatch(host):
        return ""
    url = f"http://{host}{target}"
    return url if len(url) <= MAX_ORIGINAL_URL else f"http://{host}/"


def to_portal(origin: str, url: str) -> Response:
    """302 to the portal at `origin`; `url` is carried as the parameter `u`.

    The body holds the same link, for clients that do not follow, and is larger than the few octets that Android takes
    for a failure.
    """
    location = f"{origin}/?u={quote(url, safe=_QUERY_SAFE)}" if url else f"{origin}/"
    return redirect(302, location, close=True)


def redirect(status: int, location: str, *, close: bool = False) -> Response:
    """A redirect that nobody may keep; `location` must be percent-encoded where a URL must be."""
    href = location.replace("&", "&amp;").replace('"', "%22").replace("<", "%3C").replace("'", "%27")
    body = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Log in to the network</title></head>'
        f'<body><p>To use this network, please go to <a href="{href}">the login page</a>.</p></body></html>\n'
    )
    headers = [("Location", location), ("Cache-Control", "no-store")]
    return Response(status, body.encode("ascii", "replace"), "text/html; charset=utf-8", headers, close)


def way_on(url: str) -> str:
    """`url` if a page may offer it as the way on, else nothing: http or https, a real host, and no system's probe."""
    if not url or len(url) > MAX_ORIGINAL_URL or any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url):
        return ""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or "\\" in url:
        return ""
    return "" if is_probe(host.lower(), unquote(parts.path) or "/") else url


def host_of(url: str) -> str:
    """The host of a URL that `way_on` let through, for people to read."""
    return urlsplit(url).hostname or ""
