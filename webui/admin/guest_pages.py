"""The look and the words of the guests' pages: themes uploaded, looked at, given to zones; sentences replaced.

A theme is looked at here before guests see it, filled in by the very code of the portal, in a sandbox.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from gateway.control.client import ControlError
from webui.admin.daemon import Answer
from webui.admin.fields import FieldError
from webui.admin.site import Page, Route
from webui.messages import Response
from webui.multipart import Field, FileData, MultipartError, MultipartReader, boundary_of
from webui.portal.language import Language, Languages, why_unfit
from webui.portal.preview import PAGES, preview

MAX_UPLOAD_BYTES: Final = 720 << 10  # a theme of 700 KB, and the form around it
_LEAST_READ: Final = ("decimal_mark", "unit_", "time_")  # shown after the sentences
_ROLE: Final = "administrator"
_WORDS: Final = {
    "login": "login",
    "login_failed": "a login that failed",
    "status": "status",
    "logout": "logout",
    "logged_out": "after the logout",
    "terms": "terms of use",
    "moment": "one moment",
    "no_lease": "no address",
}


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/pages", overview),
        Route("GET", "/pages/preview", show),
        Route("POST", "/pages/theme", choose, _ROLE),
        Route("POST", "/pages/upload", upload, _ROLE, MAX_UPLOAD_BYTES, token_in_form=True),
        Route("POST", "/pages/remove", remove, _ROLE),
        Route("GET", "/pages/words", words),
        Route("POST", "/pages/words", change, _ROLE),
    ]


async def overview(page: Page) -> Response:
    """GET /pages: which zone has which theme, and the themes."""
    answer = await page.call("themes.list")
    return page.render(
        "guest_pages",
        title="Guest pages",
        looks=answer.get("rows", []),
        zones=answer.get("zones", {}),
        pages=_WORDS,
        languages=Languages().all,
    )


async def show(page: Page) -> Response:
    """GET /pages/preview: one page of the portal in a theme, with made-up values."""
    name, wanted = page.query.text("theme", longest=64), page.query.text("page", longest=32) or PAGES[0]
    if wanted not in PAGES:
        raise FieldError("page", f"There is no page {wanted!r}.")
    try:
        files = _files(await page.call("themes.preview", theme=name)) if name else {}
        own = _own(await page.call("themes.texts"), page.query.text("zone", longest=64))
        return preview(wanted, files, page.query.text("lang", longest=16) or "en", own)
    except (ValueError, KeyError) as err:
        return page.app.error(400, "This theme cannot be shown", f"{err}. Upload it again.", page=page)


async def choose(page: Page) -> Response:
    """Give a zone a theme, or our own look again."""
    zone, name = page.form.text("zone", longest=64), page.form.text("theme", longest=64)
    if name:
        await page.call("themes.activate", zone=zone, theme=name)
        return page.redirect("/pages", f"Guests of {zone} see the theme {name} now.")
    await page.call("themes.reset", zone=zone)
    return page.redirect("/pages", f"Guests of {zone} see the usual look again.")


async def upload(page: Page) -> Response:
    """POST /pages/upload: a theme as zip, in a plain form."""
    fields, archive = _read_form(page)
    own = page.caller.csrf
    if not own or not hmac.compare_digest(fields.get("csrf", "").encode("utf-8", "replace"), own.encode()):
        text = "The form was too old, or was not sent from these pages. Nothing was changed; please try again."
        return page.app.error(403, "Not accepted", text, page=page)
    if not archive:
        raise FieldError("file", "Choose a zip file with the theme.")
    name = fields.get("theme", "").strip().lower()
    try:
        await page.call("themes.store", theme=name, data=base64.b64encode(archive).decode("ascii"), timeout_s=30.0)
    except ControlError as err:
        if err.code != "bad_params":
            raise
        return page.render("guest_theme_refused", title="The theme was not taken", status=400, said=err.message)
    return page.redirect("/pages", f"The theme {name} is here. Look at it, then give it to a zone.")


async def remove(page: Page) -> Response:
    """Remove a theme; zones that have it go back to our look."""
    name = page.form.text("theme", longest=64)
    await page.call("themes.remove", theme=name)
    return page.redirect("/pages", f"The theme {name} is removed.")


async def words(page: Page) -> Response:
    """GET /pages/words: every sentence of the pages in one language, ours and the operator's."""
    language, zone = _language(page.query.text("lang", longest=16)), page.query.text("zone", longest=64)
    search = page.query.text("search", longest=100).casefold()
    zones = [item["name"] for item in (await page.call("status")).get("zones", [])]
    texts = (await page.call("themes.texts")).get("texts", {})
    own = texts.get(zone, {}).get(language.code, {})
    rows = [
        {"key": key, "ours": text, "own": own.get(key, "")}
        for key, text in language.texts.items()
        if not key.startswith("_") and (not search or search in f"{key} {text} {own.get(key, '')}".casefold())
    ]
    rows.sort(key=lambda row: row["key"].startswith(_LEAST_READ))
    return page.render(
        "guest_words",
        title="Words of the guest pages",
        rows=rows,
        language=language,
        languages=Languages().all,
        zone=zone,
        zones=zones,
        search=search,
    )


async def change(page: Page) -> Response:
    """Replace a sentence, or take ours again when the field was emptied."""
    form = page.form
    language, zone, key = _language(form.text("lang", longest=16)), form.text("zone"), form.text("key", longest=64)
    text = form.text("text", longest=2000)
    english = _language("en")
    if text and (why_not := why_unfit(english.texts, key, text)):
        raise FieldError("text", f"This sentence does not fit: {why_not}.")
    await page.call("themes.text", zone=zone or None, language=language.code, key=key, text=text or None)
    where = f"/pages/words?lang={language.code}" + (f"&zone={zone}" if zone.isalnum() else "")
    return page.redirect(where, "Guests read it from now on." if text else "Our own sentence is back.")


def _language(code: str) -> Language:
    languages = Languages()
    found = languages.get(code) or languages.get("en")
    assert found is not None
    return found


def _files(answer: Answer) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(data, validate=True) for name, data in answer.get("files", {}).items()}
    except binascii.Error:
        raise ValueError("a file of the theme is damaged") from None


def _own(answer: Answer, zone: str) -> tuple[tuple[str, str, str], ...]:
    """The operator's sentences as the portal has them: those for all zones, then those of one."""
    texts = answer.get("texts", {})
    return tuple(
        (language, key, text)
        for scope in dict.fromkeys(("", zone))
        for language, own in texts.get(scope, {}).items()
        for key, text in own.items()
    )


def _read_form(page: Page) -> tuple[dict[str, str], bytes]:
    """The fields and the one file of a form; raises FieldError for what is no such form."""
    fields: dict[str, str] = {}
    pieces: list[bytes] = []
    try:
        reader = MultipartReader(boundary_of(page.request.header("content-type")))
        for event in reader.feed(page.request.body):
            if isinstance(event, Field):
                fields.setdefault(event.name, event.value)
            elif isinstance(event, FileData):
                pieces.append(event.data)
    except MultipartError as err:
        raise FieldError("file", f"The upload could not be read: {err}.") from None
    if not reader.complete:
        raise FieldError("file", "The upload ended too early.")
    return fields, b"".join(pieces)
