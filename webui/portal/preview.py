"""Pages of a theme with made-up values, for the operator who wants to see it before guests do. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from gateway.addresses import MacAddress
from webui.messages import Response
from webui.portal.language import Languages
from webui.portal.model import Client, LoginMethod, LoginReply, Outcome, SessionState, Zone
from webui.portal.pages import Pages, Visit
from webui.portal.theme import MEDIA_TYPES, Theme

PAGES: Final = ("login", "login_failed", "status", "logout", "logged_out", "terms", "moment", "no_lease")
_ZONE: Final = Zone(
    name="guest",
    address=IPv4Address("10.41.0.1"),
    network=IPv4Network("10.41.0.0/24"),
    port=3990,
    methods=(LoginMethod.VOUCHER, LoginMethod.PASSWORD, LoginMethod.CLICK),
    title="Welcome",
    terms="These are the terms of use of this network.",
    ssid="Guests",
)
_CLIENT: Final = Client(
    zone="guest",
    mac=MacAddress(b"\x02\x00\x5e\x10\x00\x2a"),
    ip="10.41.0.20",
    state=SessionState.ONLINE,
    username="voucher-3-17",
    seconds_left=5400,
    upload_bytes=21_000_000,
    download_bytes=380_000_000,
    bytes_left=1_600_000_000,
    download_bps=10_000_000,
    upload_bps=2_000_000,
    method="voucher",
)


def preview(
    page: str, files: Mapping[str, bytes], language: str = "en", own: tuple[tuple[str, str, str], ...] = ()
) -> Response:
    """One of PAGES in a theme (no files: our own), in a language, with the operator's sentences.

    The theme's files are put into the page, so that it can be shown from anywhere, and in a sandbox: its forms are sent
    nowhere. Raises KeyError for another page, ValueError for a theme that cannot be used.
    """
    pages = Pages(Theme(_inlined(files)), Languages(own=own))
    visit = Visit(_ZONE, pages.languages.get(language) or pages.languages.choose(language))
    refused = pages.refused_login(visit.language, LoginMethod.VOUCHER, LoginReply(Outcome.REJECT, reason="wrong"))
    made = {
        "login": lambda: pages.login(visit, "preview"),
        "login_failed": lambda: pages.login(visit, "preview", alert=refused),
        "status": lambda: pages.status(visit, _CLIENT, "preview", "http://status.postern.lan/", 600.0),
        "logout": lambda: pages.logout(visit, "preview"),
        "logged_out": lambda: pages.logged_out(visit),
        "terms": lambda: pages.terms(visit),
        "moment": lambda: pages.moment(visit),
        "no_lease": lambda: pages.no_lease(visit),
    }
    response = made[page]()
    policy = f"{pages.theme.content_security_policy}; font-src data:; sandbox".replace("form-action 'self'; ", "")
    kept = [(name, value) for name, value in response.headers if name != "Content-Security-Policy"]
    response.headers = [*kept, ("Content-Security-Policy", f"{policy}; form-action 'none'")]
    return response


def _inlined(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files, with `data:` in place of the addresses of those that are images and fonts."""
    out = dict(files)
    for name, data in files.items():
        media_type = MEDIA_TYPES.get(Path(name).suffix, "")
        if not media_type.startswith(("image/", "font/")):
            continue
        url = f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
        for page, content in out.items():
            if page.endswith((".html", ".css")):
                out[page] = content.replace(f"/static/{name}".encode(), url.encode())
    return out
