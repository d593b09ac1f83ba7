"""Devices that come back without the login page, because somebody logged in with them not long ago."""

from __future__ import annotations

from typing import Final

from webui.admin.fields import FieldError
from webui.admin.site import Page, Route
from webui.messages import Response

_MAX_SHOWN: Final = 500


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("GET", "/devices", listing), Route("POST", "/devices/forget", forget, "operator")]


async def listing(page: Page) -> Response:
    """GET /devices: what is remembered."""
    search = page.query.text("search", longest=100).casefold()
    rows = [
        row
        for row in (await page.call("devices.list")).get("rows", [])
        if any(search in str(row.get(name) or "").casefold() for name in ("mac", "username", "zone"))
    ]
    return page.render("devices", title="Remembered devices", rows=rows[:_MAX_SHOWN], total=len(rows), search=search)


async def forget(page: Page) -> Response:
    """Let a device log in anew the next time."""
    mac, username = page.form.text("mac"), page.form.text("username")
    if not mac and not username:
        raise FieldError("mac", "Which device?")
    answer = await page.call(
        "devices.forget", mac=mac or None, username=username or None, zone=page.form.text("zone") or None
    )
    return page.redirect("/devices", f"{answer.get('forgotten', 0)} forgotten. Sessions that are online go on.")
