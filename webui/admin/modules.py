"""Which modules the administration is made of. A page is added by its module here, and by a line in `NAV`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webui.admin import (
    accounts,
    api_gateway,
    api_guests,
    api_pages,
    api_system,
    backup,
    captures,
    captures_api,
    clients,
    config,
    dashboard,
    devices,
    guest_pages,
    health,
    log,
    own,
    report,
    system,
    users,
    vouchers,
)
from webui.admin.rest import ApiRoute
from webui.admin.site import NavEntry, Route

_PAGES: Final = (
    dashboard,
    clients,
    vouchers,
    users,
    devices,
    guest_pages,
    captures,
    report,
    config,
    backup,
    health,
    log,
    system,
    accounts,
    own,
)
_API: Final = (api_system, api_guests, api_pages, api_gateway, captures_api, system)

NAV: Final = (
    NavEntry("/", "Dashboard", "dashboard"),
    NavEntry("/clients", "Clients", "clients"),
    NavEntry("/vouchers", "Vouchers", "vouchers"),
    NavEntry("/users", "Users", "users"),
    NavEntry("/devices", "Devices", "devices"),
    NavEntry("/pages", "Guest pages", "themes"),
    NavEntry("/captures", "Captures", "captures", "operator"),
    NavEntry("/config", "Configuration", "config"),
    NavEntry("/health", "Health", "health"),
    NavEntry("/log", "Log", "log"),
    NavEntry("/system", "System", "system", "administrator"),
    NavEntry("/accounts", "Accounts", "accounts", "administrator"),
)


def routes() -> Iterator[Route]:
    """Every page and form."""
    for module in _PAGES:
        yield from module.routes()


def api_routes() -> Iterator[ApiRoute]:
    """Every operation of the REST API."""
    for module in _API:
        yield from module.api_routes()
