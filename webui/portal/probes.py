"""The questions by which systems find out whether they are online, and the answers that mean yes.

Before login none of these is answered here: a probe is redirected like everything else. After login a late probe, on a
connection that was still redirected, gets exactly what its system expects (matched by path, since vendors use many
hosts).
"""

from __future__ import annotations

from typing import Final

from webui.messages import Response

_APPLE: Final = b"<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>"
_FIREFOX: Final = b'<meta http-equiv="refresh" content="0;url=https://support.mozilla.org/kb/captive-portal"/>'
_KINDLE: Final = (
    b"<html><head><title>Kindle</title></head><body><!--81ce4465-7167-4dcb-835b-dcc9e44c112a--></body></html>"
)
_NINTENDO: Final = b"<html><head><title>HTML Page</title></head><body>This is test.html page</body></html>"
_HTML: Final = "text/html"
_TEXT: Final = "text/plain"

# path -> status, body, content type
_BY_PATH: Final[dict[str, tuple[int, bytes, str]]] = {
    "/generate_204": (204, b"", ""),
    "/gen_204": (204, b"", ""),
    "/captiveportal/generate_204": (204, b"", ""),  # Edge
    "/hotspot-detect.html": (200, _APPLE, _HTML),
    "/library/test/success.html": (200, _APPLE, _HTML),
    "/connecttest.txt": (200, b"Microsoft Connect Test", _TEXT),
    "/ncsi.txt": (200, b"Microsoft NCSI", _TEXT),
    "/success.txt": (200, b"success\n", _TEXT),
    "/canonical.html": (200, _FIREFOX, _HTML),
    "/kindle-wifi/wifistub.html": (200, _KINDLE, _HTML),
    "/kindle-wifi/wifistub-eink.html": (200, _KINDLE, _HTML),
    "/check_network_status.txt": (200, b"NetworkManager is online\n", _TEXT),
    "/nm-check.txt": (200, b"NetworkManager is online\n", _TEXT),
}
# host and path, where the path alone could be anybody's
_BY_HOST: Final[dict[tuple[str, str], tuple[int, bytes, str]]] = {
    ("network-test.debian.org", "/nm"): (200, b"NetworkManager is online\n", _TEXT),
    ("fedoraproject.org", "/static/hotspot.txt"): (200, b"OK", _TEXT),
    ("connectivity-check.ubuntu.com", "/"): (204, b"", ""),
    ("conntest.nintendowifi.net", "/"): (200, _NINTENDO, _HTML),
    ("ctest.cdn.nintendo.net", "/"): (200, _NINTENDO, _HTML),
}
# Not probes, but pages that systems open by themselves; nobody wants to be led back to them.
_OPENED_BY_SYSTEMS: Final = frozenset(
    (("www.msftconnecttest.com", "/redirect"), ("go.microsoft.com", "/fwlink/"), ("captive.apple.com", "/"))
)


def success_answer(host: str, path: str) -> Response | None:
    """What an online client's probe expects, or None when the request is no probe. `host` in lower case, no port."""
    found = _BY_PATH.get(path) or _BY_HOST.get((host.rstrip("."), path))
    if found is None:
        return None
    status, body, content_type = found
    headers = [("Cache-Control", "no-store")]
    if "NetworkManager" in body.decode("ascii") or host.startswith("connectivity-check.ubuntu."):
        headers.append(("X-NetworkManager-Status", "online"))
    # Closed, so that the client's next request takes a new connection, which is no longer redirected.
    return Response(status, body, content_type, headers, close=True)


def is_probe(host: str, path: str) -> bool:
    """Whether a system asked, not a person; such an address is not offered as the way on."""
    return path in _BY_PATH or (host.rstrip("."), path) in _BY_HOST or (host, path) in _OPENED_BY_SYSTEMS
