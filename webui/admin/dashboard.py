"""The first page: who is online, what flows, and what needs attention."""

from __future__ import annotations

from webui.admin.site import Page, Route
from webui.messages import Response


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("GET", "/", dashboard)]


async def dashboard(page: Page) -> Response:
    """The dashboard."""
    return page.render("dashboard", title="Dashboard", status=200, state=await page.call("status"))
