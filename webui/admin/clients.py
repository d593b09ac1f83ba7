"""Clients: who is on the guest networks, in a table that stays true, and what can be done with one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from webui.admin import limits, live
from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FieldError
from webui.admin.paging import Column, Listing, read_listing
from webui.admin.site import Page, Route, segment
from webui.messages import Response
from webui.sse import Event

STATES: Final = ("online", "held", "authenticating", "opening", "closing")
COLUMNS: Final = (
    Column("Client", "hostname"),
    Column("Address", "ip"),
    Column("User", "username"),
    Column("State", "state"),
    Column("Since", "since", "number"),
    Column("Left", "left", "number"),
    Column("Data", "bytes", "number"),
    Column("Speed", "rate", "number"),
)
_KEPT: Final = ("search", "zone", "state")
_EVERY_S: Final = 5.0
_DETAIL_EVERY_S: Final = 2.0
_SHOWN_EVENTS: Final = 200


def routes() -> list[Route]:
    """The routes of this module."""
    operator = "operator"
    return [
        Route("GET", "/clients", table),
        Route("GET", "/clients/live", table_live),
        Route("GET", "/clients/blocked", blocked),
        Route("POST", "/clients/blocked", block, operator),
        Route("POST", "/clients/unblock", unblock, operator),
        Route("GET", "/clients/{client}", detail),
        Route("GET", "/clients/{client}/live", detail_live),
        Route("POST", "/clients/{client}/kick", kick, operator),
        Route("POST", "/clients/{client}/extend", extend, operator),
        Route("POST", "/clients/{client}/limits", change_limits, operator),
        Route("POST", "/clients/{client}/authorize", authorize, operator),
        Route("POST", "/clients/{client}/block", block, operator),
    ]


# -- the table --------------------------------------------------------------------------------------------------------


def _listing(page: Page) -> Listing:
    return read_listing("/clients", page.query, COLUMNS, "ip", *_KEPT)


async def _rows(page: Page, listing: Listing) -> Answer:
    kept = dict(listing.kept)
    return await page.call(
        "sessions.list",
        search=kept["search"] or None,
        zone=kept["zone"] or None,
        state=kept["state"] if kept["state"] in STATES else None,
        sort=listing.sort,
        descending=listing.descending or None,
        offset=listing.offset,
        limit=listing.size,
    )


def row_id(row: dict[str, Any]) -> str:
    """The id of a client's row; Any, as rows are JSON objects."""
    return f"client-{row['zone']}-{str(row['mac']).replace(':', '')}"


async def table(page: Page) -> Response:
    """GET /clients: one page of the table."""
    listing = _listing(page)
    answer = await _rows(page, listing)
    zones = (await page.call("status")).get("zones", [])
    return page.render(
        "clients",
        title="Clients",
        rows=answer["rows"],
        total=answer["total"],
        listing=listing,
        kept=dict(listing.kept),
        columns=COLUMNS,
        zones=[zone["name"] for zone in zones],
        states=STATES,
        row_id=row_id,
        live=page.request.target.replace("/clients", "/clients/live", 1),
    )


async def table_live(page: Page) -> Response:
    """GET /clients/live: the same page of the table, whenever it changes."""
    listing = _listing(page)
    changed = live.Changed()

    async def make() -> Event:
        answer = await _rows(page, listing)
        html = {row_id(row): page.fragment("client_row", row=row, row_id=row_id) for row in answer["rows"]}
        parts = {"total": page.fragment("client_total", total=answer["total"])}
        return Event({"order": list(html), "rows": changed.of(html), "parts": parts}, "rows")

    return page.live(live.events(page, make, _EVERY_S))


# -- one client -------------------------------------------------------------------------------------------------------


async def detail(page: Page) -> Response:
    """GET /clients/{client}: everything that is known of one client."""
    name = page.params["client"]
    try:
        row: Answer | None = await page.call("sessions.show", client=name)
    except ControlError as err:
        if err.code != "not_found":
            raise
        row = None
    events = await page.call("events.list", client=str(row["mac"]) if row else name, limit=_SHOWN_EVENTS)
    if row is None and not events.get("rows"):
        raise ControlError("not_found", f"There is no client {name} now, and nothing is remembered of it.")
    shown = [(field, *field.shown((row or {}).get("limits", {}))) for field in limits.FIELDS]
    return page.render(
        "client",
        title=(row or {}).get("hostname") or name,
        client=name,
        row=row,
        events=list(reversed(events.get("rows", []))),
        fields=shown,
    )


async def detail_live(page: Page) -> Response:
    """GET /clients/{client}/live: its facts and its timeline, whenever they change."""
    name = page.params["client"]
    changed = live.Changed()

    async def make() -> Event:
        row = await page.call("sessions.show", client=name)
        past = await page.call("events.list", client=str(row["mac"]), limit=_SHOWN_EVENTS)
        parts = {
            "facts": page.fragment("client_facts", row=row),
            "timeline": page.fragment("timeline", events=list(reversed(past.get("rows", []))), named=False),
        }
        return Event(changed.of(parts), "parts")

    async def until_gone() -> AsyncGenerator[Event, None]:
        async for event in live.events(page, make, _DETAIL_EVERY_S, name):
            if event.data or event.name != "parts":
                yield event

    return page.live(until_gone())


def _back(page: Page) -> str:
    """Where a form came from: the table (with its search) or the client's own page."""
    back = page.form.text("back", longest=500)
    if back.startswith("/clients?") or back == "/clients":
        return back
    return f"/clients/{segment(page.params['client'])}"


async def kick(page: Page) -> Response:
    """End the client's session."""
    ended = (await page.call("sessions.kick", client=page.params["client"])).get("ended", 0)
    if not ended:
        return page.redirect(_back(page), "The client was not online.", "bad")
    return page.redirect(_back(page), "Logged out.")


async def extend(page: Page) -> Response:
    """Give the client more time."""
    seconds = page.form.scaled("time", limits.TIME_UNITS, "minutes", high=10**8)
    if not seconds:
        raise FieldError("time", "How much longer? A time is missing.")
    await page.call("sessions.change", client=page.params["client"], extend_s=seconds)
    return page.redirect(_back(page), "The session was made longer.")


async def change_limits(page: Page) -> Response:
    """Set every limit of a session; they hold at once."""
    await page.call("sessions.change", limits.read_limits(page.form), client=page.params["client"])
    return page.redirect(_back(page), "The new limits hold from now on.")


async def authorize(page: Page) -> Response:
    """Let a client in without a login."""
    minutes = page.form.integer("minutes", low=1, high=10**6)
    answer = await page.call("sessions.authorize", client=page.params["client"], minutes=minutes)
    if answer.get("result") in ("success", "already"):
        return page.redirect(_back(page), "The client is online.")
    return page.redirect(_back(page), f"Not let in: {answer.get('message') or answer.get('result')}", "bad")


# -- blocked devices --------------------------------------------------------------------------------------------------


async def blocked(page: Page) -> Response:
    """GET /clients/blocked: devices that get nothing."""
    answer = await page.call("clients.blocked")
    return page.render("blocked", title="Blocked devices", rows=answer.get("rows", []))


async def block(page: Page) -> Response:
    """Block a device, by the form of the list or that of a client."""
    mac = page.params.get("client") or page.form.required("mac", "The MAC address")
    zone: JsonValue = page.form.text("zone") or None
    note: JsonValue = page.form.text("note", longest=200) or None
    answer = await page.call("clients.block", mac=mac, zone=zone, note=note)
    return page.redirect("/clients/blocked", f"{answer.get('mac', mac)} is blocked.")


async def unblock(page: Page) -> Response:
    """Let a device in again."""
    mac = page.form.required("mac", "The MAC address")
    await page.call("clients.unblock", mac=mac, zone=page.form.text("zone") or None)
    return page.redirect("/clients/blocked", f"{mac} is no longer blocked.")
