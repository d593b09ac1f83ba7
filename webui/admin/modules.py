"""Which modules the administration is made of. A page is added by its module here, and by a line in `NAV`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webui.admin import api_system, captures_api, dashboard, own
from webui.admin.rest import ApiRoute
from webui.admin.site import NavEntry, Route

_PAGES: Final = (dashboard, own)
_API: Final = (api_system, captures_api)

NAV: Final = (NavEntry("/", "Dashboard", "dashboard"),)


def routes() -> Iterator[Route]:
    """Every page and form."""
    for module in _PAGES:
        yield from module.routes()


def api_routes() -> Iterator[ApiRoute]:
    """Every operation of the REST API."""
    for module in _API:
        yield from module.api_routes()
