"""Accounts of administrators: one's own means of entry, those of others, and who changed what."""

from __future__ import annotations

from typing import Final

from webui.admin.csv_export import csv_response
from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FieldError
from webui.admin.paging import Column, read_listing
from webui.admin.qr import qr_svg
from webui.admin.site import ROLE_SCOPES, ROLES, SCOPES, Page, Route
from webui.admin.words import iso
from webui.messages import Response

_DAY_S: Final = 86400
_LIFETIMES: Final = (7, 30, 90, 365)  # days of a token
_MAX_PASSWORD: Final = 256
AUDIT_COLUMNS: Final = (
    Column("When"),
    Column("Who"),
    Column("From"),
    Column("What"),
    Column("Outcome"),
)


def routes() -> list[Route]:
    """The routes of this module."""
    administrator = "administrator"
    return [
        Route("GET", "/account", own),
        Route("POST", "/account/password", own_password),
        Route("POST", "/account/totp", totp_begin),
        Route("POST", "/account/totp/confirm", totp_confirm),
        Route("POST", "/account/totp/remove", totp_remove),
        Route("POST", "/account/sessions", end_session),
        Route("POST", "/account/tokens", create_token),
        Route("POST", "/account/tokens/revoke", revoke_token),
        Route("GET", "/accounts", listing, administrator),
        Route("POST", "/accounts", add, administrator),
        Route("POST", "/accounts/change", change, administrator),
        Route("POST", "/accounts/password", password, administrator),
        Route("POST", "/accounts/totp", totp_of_other, administrator),
        Route("POST", "/accounts/remove", remove, administrator),
        Route("GET", "/accounts/audit", audit, administrator),
        Route("GET", "/accounts/audit.csv", audit_csv, administrator),
    ]


# -- one's own --------------------------------------------------------------------------------------------------------


async def own(page: Page) -> Response:
    """GET /account: password, second factor, sessions and tokens of the one who asks."""
    return await _own_page(page)


async def _own_page(page: Page, *, alert: str = "", **shown: object) -> Response:
    sessions = (await page.call("accounts.sessions")).get("rows", [])
    tokens = (await page.call("tokens.list")).get("rows", [])
    account = await page.call("accounts.show")
    values: dict[str, object] = {"token": "", "recovery": (), **shown}
    return page.render(
        "account",
        title="My account",
        account=account,
        sessions=sessions,
        tokens=tokens,
        scopes=[scope for scope in SCOPES if scope in ROLE_SCOPES[page.caller.role]],
        lifetimes=_LIFETIMES,
        alert=alert,
        status=400 if alert else 200,
        **values,
    )


def _said(err: ControlError) -> str:
    """What is shown beside the form; everything that is not about the form is raised on."""
    if err.code not in ("bad_params", "conflict", "denied"):
        raise err
    return err.message


async def own_password(page: Page) -> Response:
    """Change one's own password."""
    form = page.form
    fresh = form.raw("password", longest=_MAX_PASSWORD)
    if fresh != form.raw("again", longest=_MAX_PASSWORD):
        return await _own_page(page, alert="The two new passwords are not the same.")
    try:
        await page.call("accounts.passwd", password=fresh, current=form.raw("current", longest=_MAX_PASSWORD))
    except ControlError as err:
        return await _own_page(page, alert=_said(err))
    return page.redirect("/account", "The password is changed; your other logins are ended.")


async def totp_begin(page: Page) -> Response:
    """Show a secret for an authenticator app."""
    return _totp_page(page, await page.call("accounts.totp_begin"))


def _totp_page(page: Page, answer: Answer, alert: str = "") -> Response:
    return page.render(
        "account_totp",
        title="Second factor",
        secret=answer["secret"],
        uri=answer["uri"],
        qr=qr_svg(str(answer["uri"]), "QR code for an authenticator app"),
        alert=alert,
        status=400 if alert else 200,
    )


async def totp_confirm(page: Page) -> Response:
    """Switch the second factor on."""
    try:
        answer = await page.call("accounts.totp_confirm", totp=page.form.text("code", longest=32).replace(" ", ""))
    except ControlError as err:
        text = _said(err)
        return _totp_page(page, {"secret": page.form.text("secret"), "uri": page.form.text("uri")}, text)
    return await _own_page(page, recovery=answer.get("recovery", ()))


async def totp_remove(page: Page) -> Response:
    """Switch the second factor off."""
    try:
        await page.call("accounts.totp_remove", current=page.form.raw("current", longest=_MAX_PASSWORD))
    except ControlError as err:
        return await _own_page(page, alert=_said(err))
    return page.redirect("/account", "The second factor is off.")


async def end_session(page: Page) -> Response:
    """End one login, or all but this one."""
    answer = await page.call("accounts.revoke", id=page.form.text("id") or None)
    back = "/accounts" if page.form.text("back") == "/accounts" else "/account"
    return page.redirect(back, f"{answer.get('ended', 0)} logins ended.")


async def create_token(page: Page) -> Response:
    """Make a token; its value is shown once."""
    form = page.form
    try:
        days = form.integer("days", low=0, high=3650)
        params: dict[str, JsonValue] = {
            "name": form.required("name", "What the token is for", longest=64),
            "scopes": [scope for scope in form.all("scope") if scope in SCOPES],
            "expires_unix": page.app.wall() + days * _DAY_S if days else None,
        }
        answer = await page.call("tokens.create", params)
    except FieldError as err:
        return await _own_page(page, alert=err.message)
    except ControlError as err:
        return await _own_page(page, alert=_said(err))
    return await _own_page(page, token=str(answer["token"]))


async def revoke_token(page: Page) -> Response:
    """Make a token good for nothing."""
    await page.call("tokens.revoke", id=page.form.text("id"))
    return page.redirect("/account", "The token is revoked.")


# -- everybody's ------------------------------------------------------------------------------------------------------


async def listing(page: Page) -> Response:
    """GET /accounts: who may come in here."""
    return await _listing(page)


async def _listing(page: Page, alert: str = "") -> Response:
    rows = (await page.call("accounts.list")).get("rows", [])
    sessions = (await page.call("accounts.sessions", all=True)).get("rows", [])
    return page.render(
        "accounts",
        title="Accounts",
        rows=rows,
        sessions=sessions,
        roles=ROLES,
        alert=alert,
        given=page.form,
        status=400 if alert else 200,
    )


async def add(page: Page) -> Response:
    """Make an account."""
    form = page.form
    try:
        name = form.required("name", "The name", longest=64)
        secret = form.raw("password", longest=_MAX_PASSWORD)
        await page.call("accounts.add", name=name, password=secret, role=form.choice("role", ROLES, "viewer"))
    except FieldError as err:
        return await _listing(page, err.message)
    except ControlError as err:
        return await _listing(page, _said(err))
    return page.redirect("/accounts", f"{name} can log in now.")


async def change(page: Page) -> Response:
    """Change a role, or switch an account off or on."""
    form = page.form
    disabled = form.flag("disabled") if "disabled" in form else None
    role = form.choice("role", ROLES) if "role" in form else None
    await page.call("accounts.change", name=form.text("name"), role=role, disabled=disabled)
    return page.redirect("/accounts", "Changed.")


async def password(page: Page) -> Response:
    """Set somebody else's password."""
    try:
        fresh = page.form.raw("password", longest=_MAX_PASSWORD)
        await page.call("accounts.passwd", name=page.form.text("name"), password=fresh)
    except ControlError as err:
        return await _listing(page, _said(err))
    return page.redirect("/accounts", "The password is changed and every login of the account ended.")


async def totp_of_other(page: Page) -> Response:
    """Switch off the second factor of somebody who lost it."""
    await page.call("accounts.totp_remove", name=page.form.text("name"))
    return page.redirect("/accounts", "The second factor is off.")


async def remove(page: Page) -> Response:
    """Remove an account."""
    name = page.form.text("name")
    await page.call("accounts.remove", name=name)
    return page.redirect("/accounts", f"{name} is removed.")


# -- the audit log ----------------------------------------------------------------------------------------------------


async def audit(page: Page) -> Response:
    """GET /accounts/audit: who changed what."""
    listing_ = read_listing("/accounts/audit", page.query, AUDIT_COLUMNS, "", "who", "search")
    kept = dict(listing_.kept)
    answer = await page.call(
        "audit.list",
        who=kept["who"] or None,
        search=kept["search"] or None,
        offset=listing_.offset,
        limit=listing_.size,
    )
    return page.render(
        "audit",
        title="Audit log",
        rows=answer["rows"],
        total=answer["total"],
        listing=listing_,
        kept=kept,
        columns=AUDIT_COLUMNS,
    )


async def audit_csv(page: Page) -> Response:
    """GET /accounts/audit.csv: the latest thousand entries."""
    answer = await page.call("audit.list", limit=1000)
    header = ("time", "who", "via", "address", "method", "summary", "outcome")
    cells = ((iso(row["at_unix"]), *(row.get(name) for name in header[1:])) for row in answer["rows"])
    return csv_response(header, cells, "postern-audit.csv")
