"""Devices that come back without the login page, because somebody logged in with them not long ago."""

from __future__ import annotations

from typing import Final

from webui.admin.fields import FieldError
from webui.admin.paging import Column, searched
from webui.admin.site import Page, Route
from webui.messages import Response

COLUMNS: Final = (
    Column("MAC address", "mac"),
    Column("User", "username"),
    Column("Zone", "zone"),
    Column("By", "method"),
    Column("Since", "since_unix"),
    Column("Until", "until_unix"),
)


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("GET", "/devices", listing), Route("POST", "/devices/forget", forget, "operator")]


async def listing(page: Page) -> Response:
    """GET /devices: what is remembered, a page at a time."""
    # The latest first.
    return await searched(page, "devices", "Remembered devices", "device", COLUMNS, "")


async def forget(page: Page) -> Response:
    """Let a device log in anew the next time."""
    mac, username = page.form.text("mac"), page.form.text("username")
    if not mac and not username:
        raise FieldError("mac", "Which device?")
    answer = await page.call(
        "devices.forget", mac=mac or None, username=username or None, zone=page.form.text("zone") or None
    )
    return page.redirect("/devices", f"{answer.get('forgotten', 0)} forgotten. Sessions that are online go on.")
