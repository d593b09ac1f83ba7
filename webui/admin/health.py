"""Health: what the doctor finds, in sentences with the way to mend it."""

from __future__ import annotations

from typing import Final

from webui.admin.daemon import ControlError
from webui.admin.site import Page, Route
from webui.messages import Response

_DOCTOR_S: Final = 60.0
_ORDER: Final = {"fail": 0, "warn": 1, "ok": 2, "skipped": 3}


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("GET", "/health", show)]


async def show(page: Page) -> Response:
    """GET /health: run every check now."""
    try:
        rows = (await page.call("doctor.run", timeout_s=_DOCTOR_S)).get("rows", [])
        problem = ""
    except ControlError as err:
        if err.code not in ("unavailable", "busy", "unknown_method"):
            raise
        rows, problem = [], err.message
    rows.sort(key=lambda row: _ORDER.get(row["state"], 4))
    counts = {state: sum(row["state"] == state for row in rows) for state in _ORDER}
    status = await page.call("status")
    return page.render("health", title="Health", rows=rows, counts=counts, problem=problem, state=status)
