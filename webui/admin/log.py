"""The log: what happened to whom, searchable, and exported."""

from __future__ import annotations

import json
from typing import Any, Final

from webui.admin import live
from webui.admin.csv_export import attachment, csv_response
from webui.admin.site import Page, Route
from webui.admin.words import iso
from webui.messages import Response
from webui.sse import Event

_SHOWN: Final = 300
_LOOKED_THROUGH: Final = 1000  # what the daemon gives at once
_EVERY_S: Final = 30.0


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/log", show),
        Route("GET", "/log/live", show_live),
        Route("GET", "/log/export", export),
    ]


async def _found(page: Page) -> list[dict[str, Any]]:
    """The latest events that fit, latest first."""
    client = page.query.text("client", longest=200)
    kind = page.query.text("kind", longest=60)
    search = page.query.text("search", longest=200).casefold()
    answer = await page.call("events.list", client=client or None, limit=_LOOKED_THROUGH)
    return [
        row
        for row in reversed(answer.get("rows", []))
        if (not kind or row["kind"] == kind)
        and (not search or any(search in str(row.get(name)).casefold() for name in ("text", "mac", "ip", "kind")))
    ]


async def show(page: Page) -> Response:
    """GET /log: the latest events."""
    rows = await _found(page)
    kinds = sorted({row["kind"] for row in rows} | {page.query.text("kind", longest=60)} - {""})
    return page.render(
        "log",
        title="Log",
        rows=rows[:_SHOWN],
        total=len(rows),
        kinds=kinds,
        search=page.query.text("search", longest=200),
        kind=page.query.text("kind", longest=60),
        client=page.query.text("client", longest=200),
        query=page.request.query,
    )


async def show_live(page: Page) -> Response:
    """GET /log/live: the same, as it grows."""
    changed = live.Changed()

    async def make() -> Event:
        rows = (await _found(page))[:_SHOWN]
        return Event(changed.of({"timeline": page.fragment("timeline", events=rows, named=True)}), "parts")

    return page.live(live.events(page, make, _EVERY_S, page.query.text("client", longest=200) or None))


async def export(page: Page) -> Response:
    """GET /log/export: what was found, as CSV or JSON lines."""
    rows = await _found(page)
    if page.query.text("form") == "json":
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return attachment(lines, "postern-events.jsonl", "application/x-ndjson")
    header = ("time", "zone", "mac", "ip", "kind", "text")
    cells = ((iso(row.get("at_unix")), *(row.get(name) for name in header[1:])) for row in rows)
    return csv_response(header, cells, "postern-events.csv")
