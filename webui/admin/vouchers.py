"""Vouchers: batches made, listed, printed with QR codes, exported and revoked."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from webui.admin import limits
from webui.admin.csv_export import csv_response
from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FieldError, Fields
from webui.admin.paging import Column, read_listing
from webui.admin.qr import qr_svg
from webui.admin.site import Page, Route
from webui.admin.words import duration, iso, rate, size
from webui.messages import Response

STATES: Final = ("unused", "active", "used-up", "expired", "revoked")
ALPHABETS: Final = ("digits", "letters")
MAX_COUNT: Final = 1000
LENGTHS: Final = {"digits": (8, 20), "letters": (6, 20)}  # of a code; the daemon has the last word
_PAGE: Final = 1000  # what the daemon gives at once
_MAX_EXPORT: Final = 100_000
_MAX_SHEET: Final = 1000
VALIDITY_UNITS: Final = {"hours": 3600, "days": 86400, "weeks": 604800}
COLUMNS: Final = (
    Column("Code"),
    Column("State"),
    Column("First used"),
    Column("Ends"),
    Column("Devices"),
    Column("Data", "", "number"),
)


def routes() -> list[Route]:
    """The routes of this module."""
    operator = "operator"
    return [
        Route("GET", "/vouchers", batches),
        Route("GET", "/vouchers/new", new, operator),
        Route("POST", "/vouchers/new", create, operator),
        Route("GET", "/vouchers/list", listing, operator),
        Route("POST", "/vouchers/revoke", revoke, operator),
        Route("POST", "/vouchers/remove", remove, operator),
        Route("GET", "/vouchers/{batch}/sheet", sheet, operator),
        Route("GET", "/vouchers/{batch}/csv", export, operator),
    ]


def grants(batch: dict[str, Any]) -> list[str]:
    """What a batch gives, in words; Any, as rows are JSON objects."""
    given = batch.get("limits") or {}
    found = []
    if batch.get("validity_s"):
        found.append(f"{duration(batch['validity_s'])} from first use")
    if given.get("session_time_s"):
        found.append(f"{duration(given['session_time_s'])} online")
    if given.get("total_bytes"):
        found.append(f"{size(given['total_bytes'])}")
    for name, word in (("download", "down"), ("upload", "up")):
        if given.get(f"{name}_bytes"):
            found.append(f"{size(given[f'{name}_bytes'])} {word}")
        if given.get(f"{name}_bps"):
            found.append(f"{rate(given[f'{name}_bps'])} {word}")
    devices = batch.get("devices")
    found.append(f"{devices} {'device' if devices == 1 else 'devices'}" if devices else "any number of devices")
    return found


async def batches(page: Page) -> Response:
    """GET /vouchers: all batches."""
    answer = await page.call("vouchers.batches")
    return page.render("vouchers", title="Vouchers", rows=answer.get("rows", []), grants=grants)


async def new(page: Page) -> Response:
    """GET /vouchers/new: the form for a batch."""
    return await _form(page)


async def _form(page: Page, alert: str = "") -> Response:
    zones = [zone["name"] for zone in (await page.call("status")).get("zones", [])]
    shown = [
        (field, page.form.text(field.name), page.form.text(f"{field.name}_unit") or field.unit)
        for field in limits.FIELDS
    ]
    return page.render(
        "voucher_new",
        title="New vouchers",
        given=page.form,
        fields=shown,
        zones=zones,
        alert=alert,
        units=VALIDITY_UNITS,
        lengths=LENGTHS,
        today=datetime.fromtimestamp(page.app.wall(), page.zone).date().isoformat(),
        status=400 if alert else 200,
    )


async def create(page: Page) -> Response:
    """Make a batch and show its sheet."""
    form = page.form
    try:
        devices = form.integer("devices", 1, low=0, high=1000)
        params: dict[str, JsonValue] = {
            "count": form.integer("count", 10, low=1, high=MAX_COUNT),
            "alphabet": form.choice("alphabet", ALPHABETS, "digits"),
            "length": _length(form),
            "devices": devices,
            "validity_s": form.scaled("validity", VALIDITY_UNITS, "days", high=10**9) or None,
            "expires_unix": _end_of(form.text("expires", longest=20), page),
            "note": form.text("note", longest=200) or None,
            "zone": form.text("zone") or None,
            **limits.given_limits(form),
        }
    except FieldError as err:
        return await _form(page, err.message)
    try:
        answer = await page.call("vouchers.create", params, timeout_s=60.0)
    except ControlError as err:
        if err.code != "bad_params":
            raise
        return await _form(page, err.message)
    return page.redirect(f"/vouchers/list?batch={answer['batch']}", f"{answer['count']} vouchers are made.")


def _length(form: Fields) -> int | None:
    """The length of the codes, as the alphabet allows it; None for the usual one."""
    alphabet = form.choice("alphabet", ALPHABETS, "digits")
    low, high = LENGTHS[alphabet]
    try:
        return form.integer("length", low=low, high=high)
    except FieldError:
        raise FieldError("length", f"The length of the code: {low} to {high} {alphabet} are possible.") from None


def _end_of(text: str, page: Page) -> float | None:
    """The end of a day at the gateway, as Unix time; None for no day."""
    if not text:
        return None
    try:
        after = date.fromisoformat(text) + timedelta(days=1)
        unix = datetime(after.year, after.month, after.day, tzinfo=page.zone).timestamp()
    except (ValueError, OverflowError):
        raise FieldError("expires", f"The last day: a date such as 2030-12-31 is wanted, not {text!r}.") from None
    if unix <= page.app.wall():
        raise FieldError("expires", "The last day is over already.")
    return unix


async def listing(page: Page) -> Response:
    """GET /vouchers/list: single vouchers, of one batch or of all."""
    shown = read_listing("/vouchers/list", page.query, COLUMNS, "", "batch", "search", "state")
    kept = dict(shown.kept)
    batch = page.query.integer("batch", low=1)
    state = kept["state"] if kept["state"] in STATES else None
    answer = await page.call(
        "vouchers.list",
        batch=batch,
        search=kept["search"] or None,
        state=state,
        offset=shown.offset,
        limit=shown.size,
    )
    return page.render(
        "voucher_list",
        title=f"Vouchers of batch {batch}" if batch else "All vouchers",
        rows=answer["rows"],
        total=answer["total"],
        listing=shown,
        kept=kept,
        columns=COLUMNS,
        states=STATES,
        batch=batch,
    )


async def revoke(page: Page) -> Response:
    """Revoke one voucher or a batch."""
    voucher, batch = page.form.text("id"), page.form.integer("batch", low=1)
    of = page.form.integer("of", low=1)
    ends = page.form.flag("end_sessions") or None
    if voucher:
        answer = await page.call("vouchers.revoke", id=voucher, end_sessions=ends)
    else:
        answer = await page.call("vouchers.revoke", batch=batch, end_sessions=ends)
    text = f"{answer.get('revoked', 0)} revoked, {answer.get('ended', 0)} sessions ended."
    return page.redirect(f"/vouchers/list?batch={of}" if of else "/vouchers", text)


async def remove(page: Page) -> Response:
    """Remove a batch with everything that is known of it."""
    batch = page.form.integer("batch", low=1)
    await page.call("vouchers.remove", batch=batch)
    return page.redirect("/vouchers", f"Batch {batch} is removed.")


async def of_batch(page: Page, batch: int, state: str | None, most: int) -> Answer:
    """Every voucher of a batch, as `vouchers.list` gives them, `most` at most."""
    rows: list[dict[str, Any]] = []  # Any: JSON objects
    while True:
        answer = await page.call("vouchers.list", batch=batch, state=state, offset=len(rows), limit=_PAGE)
        rows += answer["rows"]
        if not answer["rows"] or len(rows) >= min(answer["total"], most):
            return {**answer, "rows": rows[:most]}


async def sheet(page: Page) -> Response:
    """GET /vouchers/{batch}/sheet: slips to print and cut, each with a QR code that opens the login."""
    number = _number(page)
    found = [row for row in (await page.call("vouchers.batches")).get("rows", []) if row["batch"] == number]
    answer = await of_batch(page, number, None if page.query.flag("all") else "unused", _MAX_SHEET)
    url = str(answer.get("login_url") or "")

    def slips() -> list[dict[str, object]]:
        return [
            {
                "code": row["code"],
                "qr": qr_svg(url + quote(row["code"].replace(" ", "").replace("-", "")), f"QR code of {row['code']}")
                if url
                else "",
            }
            for row in answer["rows"]
        ]

    made = await asyncio.to_thread(slips)  # a thousand take half a second, in which others want answers
    return page.render(
        "voucher_sheet",
        title=f"Vouchers {number}",
        slips=made,
        batch=found[0] if found else {"batch": number},
        gives=grants(found[0]) if found else [],
        address=url.partition("?")[0].removeprefix("http://").rstrip("/"),
        ssid=page.query.text("ssid", longest=64),
    )


def _number(page: Page) -> int:
    text = page.params["batch"]
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise FieldError("batch", "There is no such batch.")
    return int(text)


async def export(page: Page) -> Response:
    """GET /vouchers/{batch}/csv: a batch for a spreadsheet or a printer's program."""
    number = _number(page)
    answer = await of_batch(page, number, None, _MAX_EXPORT)
    header = ("code", "state", "batch", "first used", "ends", "devices", "upload bytes", "download bytes", "note")
    rows = (
        (
            row["code"],
            row["state"],
            row["batch"],
            iso(row.get("first_used_unix")),
            iso(row.get("ends_unix")),
            " ".join(row.get("devices") or ()),
            row.get("upload_bytes"),
            row.get("download_bytes"),
            row.get("note", ""),
        )
        for row in answer["rows"]
    )
    return csv_response(header, rows, f"vouchers-{number}.csv")
