"""Users: local accounts of guests, made, changed, disabled, removed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from webui.admin import limits
from webui.admin.daemon import ControlError, JsonValue
from webui.admin.fields import FieldError, Fields
from webui.admin.paging import Column, searched
from webui.admin.site import Page, Route, segment
from webui.messages import Response

_MAX_PASSWORD: Final = 256
COLUMNS: Final = (
    Column("User", "username"),
    Column("State", "disabled"),
    Column("Valid until", "valid_until_unix"),
    Column("Devices", "devices", "number"),
    Column("Note"),
    Column("Made", "created_unix"),
)


def routes() -> list[Route]:
    """The routes of this module."""
    operator = "operator"
    return [
        Route("GET", "/users", listing),
        Route("GET", "/users/new", new, operator),
        Route("POST", "/users/new", create, operator),
        Route("GET", "/users/{name}", show, operator),
        Route("POST", "/users/{name}", change, operator),
        Route("POST", "/users/{name}/password", password, operator),
        Route("POST", "/users/{name}/disable", disable, operator),
        Route("POST", "/users/{name}/remove", remove, operator),
    ]


async def listing(page: Page) -> Response:
    """GET /users: the accounts that fit the search, a page at a time."""
    return await searched(page, "users", "Users", "user", COLUMNS, "username")


async def new(page: Page) -> Response:
    """GET /users/new: the form for an account."""
    return _form(page)


def _form(page: Page, alert: str = "") -> Response:
    shown = [
        (field, page.form.text(field.name), page.form.text(f"{field.name}_unit") or field.unit)
        for field in limits.FIELDS
    ]
    return page.render(
        "user_new", title="New user", given=page.form, fields=shown, alert=alert, status=400 if alert else 200
    )


def _until(page: Page, form: Fields) -> float:
    """A day and time of the form on the clock of the gateway's place, as seconds since 1970; 0 for none."""
    text = form.text("valid_until", longest=40)
    if not text:
        return 0
    try:
        return datetime.fromisoformat(text).replace(tzinfo=page.zone).timestamp()
    except (ValueError, OverflowError):
        raise FieldError("valid_until", f"{text!r} is no day and time") from None


async def create(page: Page) -> Response:
    """Make an account."""
    form = page.form
    try:
        name = form.required("username", "The user name", longest=253)
        params: dict[str, JsonValue] = {
            "username": name,
            "password": form.raw("password", longest=_MAX_PASSWORD),
            "devices": form.integer("devices", low=1, high=1000),
            "valid_until_unix": _until(page, form) or None,
            "note": form.text("note", longest=200) or None,
            **limits.given_limits(form),
        }
        await page.call("users.add", params)
    except FieldError as err:
        return _form(page, err.message)
    except ControlError as err:
        if err.code not in ("bad_params", "conflict"):
            raise
        return _form(page, err.message)
    return page.redirect(f"/users/{segment(name)}", f"{name} can log in now.")


async def _one(page: Page) -> dict[str, Any]:
    name = page.params["name"]
    rows: list[dict[str, Any]] = (await page.call("users.list", username=name)).get("rows", [])
    if rows:
        return rows[0]
    raise ControlError("not_found", f"There is no user {name}.")


async def show(page: Page) -> Response:
    """GET /users/{name}: one account, its devices and its sessions."""
    row = await _one(page)
    name = row["username"]
    devices = (await page.call("devices.list", username=name)).get("rows", [])
    online = [
        found
        for found in (await page.call("sessions.list", search=name, limit=100)).get("rows", [])
        if found["username"] == name
    ]
    given = row.get("limits") or row
    until = row.get("valid_until_unix")
    return page.render(
        "user",
        title=name,
        row=row,
        devices=devices,
        online=online,
        fields=[(field, *field.shown(given)) for field in limits.FIELDS],
        until=datetime.fromtimestamp(until, page.zone).strftime("%Y-%m-%dT%H:%M") if until else "",
    )


def _here(page: Page) -> str:
    return f"/users/{segment(page.params['name'])}"


async def change(page: Page) -> Response:
    """Set everything of an account but its password."""
    form = page.form
    await page.call(
        "users.change",
        limits.read_limits(form),
        username=page.params["name"],
        devices=form.integer("devices", 0, low=0, high=1000),
        valid_until_unix=_until(page, form),
        note=form.text("note", longest=200),
    )
    return page.redirect(_here(page), "Changed. It holds from the next login on.")


async def password(page: Page) -> Response:
    """Set another password."""
    fresh = page.form.raw("password", longest=_MAX_PASSWORD)
    if not fresh:
        raise FieldError("password", "A password is missing.")
    await page.call("users.passwd", username=page.params["name"], password=fresh)
    return page.redirect(_here(page), "The password is changed.")


async def disable(page: Page) -> Response:
    """Disable an account and end its sessions, or enable it again."""
    off = page.form.flag("disabled")
    await page.call("users.change", username=page.params["name"], disabled=off, end_sessions=off)
    return page.redirect(_here(page), "Disabled; its sessions are ended." if off else "Enabled.")


async def remove(page: Page) -> Response:
    """Remove an account and end its sessions."""
    await page.call("users.remove", username=page.params["name"], end_sessions=True)
    return page.redirect("/users", f"{page.params['name']} is removed.")
