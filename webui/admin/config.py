"""Configuration: forms made from the daemon's own description, a look at the difference, a change that undoes itself.

Nothing is applied that was not shown as a difference first. A change that could cut its author off is taken back by the
daemon unless it is confirmed from here in time.
"""

from __future__ import annotations

import json
from typing import Any, Final

from webui.admin.daemon import Answer, ControlError, JsonValue
from webui.admin.fields import FieldError, Fields
from webui.admin.site import Page, Route, segment
from webui.messages import Response

_ADMIN: Final = "administrator"
_APPLY_S: Final = 60.0
_TEXT_LIMIT: Final = 700_000  # octets of configuration that fit a frame to the daemon
_TEXT_BODY: Final = 3 << 20
SECRET_MARK: Final = "…"

Change = dict[str, JsonValue]


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/config", sections),
        Route("GET", "/config/section/{type}", section),
        Route("POST", "/config/section/{type}", review_section, _ADMIN),
        Route("GET", "/config/text", text, _ADMIN),
        Route("POST", "/config/text", review_text, _ADMIN, body_limit=_TEXT_BODY),
        Route("POST", "/config/apply", apply, _ADMIN, body_limit=_TEXT_BODY),
        Route("GET", "/config/change/{change}", changed, _ADMIN),
        Route("POST", "/config/change/{change}", decide, _ADMIN),
        Route("GET", "/config/history", history, _ADMIN),
        Route("GET", "/config/history/{change}", past, _ADMIN),
        Route("POST", "/config/timezone", timezone, _ADMIN),
    ]


# -- forms ------------------------------------------------------------------------------------------------------------


async def _schema(page: Page) -> list[dict[str, Any]]:
    """The description of every section; Any, as rows are JSON objects."""
    found: list[dict[str, Any]] = (await page.call("config.schema")).get("sections", [])
    return found


async def _values(page: Page) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Every option's row by section, name and option."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in (await page.call("config.show", effective=True)).get("rows", []):
        found.setdefault((row["section"], row.get("name") or ""), {})[row["option"]] = row
    return found


async def sections(page: Page) -> Response:
    """GET /config: what can be configured."""
    values = await _values(page)
    schema = await _schema(page)
    names = {one["type"]: sorted(name for kind, name in values if kind == one["type"]) for one in schema}
    set_here = {key: sum(row["source"] != "default" for row in options.values()) for key, options in values.items()}
    zones = await page.call("system.timezones")
    return page.render(
        "config",
        title="Configuration",
        schema=schema,
        names=names,
        set_here=set_here,
        timezones=zones.get("names", []),
        timezone=zones.get("current", ""),
    )


async def _one(page: Page) -> tuple[dict[str, Any], str, dict[str, dict[str, Any]]]:
    """The section that is meant: its description, its name, its values."""
    for one in await _schema(page):
        if one["type"] == page.params["type"]:
            name = (page.form.text("_name", longest=60) or page.query.text("name", longest=60)).strip()
            if one["repeated"] and not name:
                raise FieldError("_name", "The section needs a name.")
            return one, name, (await _values(page)).get((one["type"], name), {})
    raise ControlError("not_found", f"There is no section {page.params['type']}.")


async def section(page: Page) -> Response:
    """GET /config/section/{type}: the form of one section."""
    described, name, values = await _one(page)
    return page.render(
        "config_section",
        title=f"{described['type']} {name}".strip(),
        section=described,
        name=name,
        values=values,
        exists=bool(values),
        alert="",
    )


def changes_of(form: Fields, described: dict[str, Any], name: str, values: dict[str, Any]) -> list[JsonValue]:
    """What a section's form changes; a field that says what holds already changes nothing. Any: JSON objects."""
    found: list[JsonValue] = []
    for option in described["options"]:
        key = option["name"]
        if f"o.{key}" not in form:
            continue
        typed = form.raw(f"o.{key}", longest=20_000)
        wanted = [line.strip() for line in typed.split("\n") if line.strip()] if option.get("list") else [typed.strip()]
        wanted = [value for value in wanted if value]
        row = values.get(key, {})
        is_set = bool(row) and row.get("source") != "default"
        held = str(row.get("value", ""))
        if option.get("kind") == "secret" and wanted in ([], [SECRET_MARK]):
            continue  # what was not typed anew stays
        now = (held.split() if option.get("list") else [held] if held else []) if is_set else []
        if wanted != now:
            values_: list[JsonValue] = [*wanted]
            change: Change = {"section_type": described["type"], "name": name, "option": key, "values": values_}
            found.append(change)
    return found


async def review_section(page: Page) -> Response:
    """Look at what a section's form would change."""
    described, name, values = await _one(page)
    if page.form.flag("remove"):
        changes: list[JsonValue] = [{"section_type": described["type"], "name": name, "remove": True}]
    else:
        changes = changes_of(page.form, described, name, values)
    if not changes:
        back = f"/config/section/{segment(described['type'])}?name={segment(name)}"
        return page.redirect(back, "Nothing was changed.", "bad")
    return await _review(page, {"changes": changes})


async def text(page: Page) -> Response:
    """GET /config/text: the whole file."""
    answer = await page.call("config.text")
    return page.render(
        "config_text", title="Configuration as text", text=answer["text"], version=answer["version"], problems=()
    )


async def review_text(page: Page) -> Response:
    """Look at what another text would change."""
    typed = page.form.raw("text", longest=_TEXT_LIMIT)
    return await _review(page, {"text": typed}, page.form.text("version", longest=200))


async def _review(page: Page, wish: dict[str, JsonValue], version: str = "", alert: str = "") -> Response:
    """The difference that a wish makes, and the button that applies it; `alert` says why it is looked at again."""
    preview = await page.call("config.preview", wish, timeout_s=_APPLY_S)
    return page.render(
        "config_review",
        title="Review the change",
        preview=preview,
        lines=diff_lines(str(preview.get("diff", ""))),
        wish=json.dumps(wish, ensure_ascii=False),
        version=version or preview["version"],
        alert=alert,
        status=409 if alert else 400 if preview.get("problems") else 200,
    )


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """Lines of a unified difference with the class of each."""
    kinds = {"+": "add", "-": "del", "@": "hunk"}
    return [
        ("hunk" if line.startswith(("+++", "---")) else kinds.get(line[:1], "same"), line) for line in diff.split("\n")
    ]


async def apply(page: Page) -> Response:
    """Apply what was looked at."""
    try:
        wish = json.loads(page.form.raw("wish", longest=_TEXT_LIMIT * 2))
    except ValueError:
        wish = None
    if not isinstance(wish, dict) or not set(wish) <= {"text", "changes"}:
        raise FieldError("wish", "What was to be applied did not arrive whole.")
    version = page.form.text("version", longest=200)
    try:
        answer = await page.call("config.apply", wish, timeout_s=_APPLY_S, version=version)
    except ControlError as err:
        if err.code != "conflict":
            raise
        # Somebody else was quicker: the same wish is looked at once more, against what they left.
        return await _review(page, wish, alert=err.message)
    return applied(page, answer)


def applied(page: Page, answer: Answer) -> Response:
    """On to where a change is confirmed, if it waits for that."""
    if answer.get("confirm_within_s"):
        return page.redirect(f"/config/change/{segment(str(answer['change']))}")
    return page.redirect("/config", "Applied.")


# -- a change that waits for its confirmation -------------------------------------------------------------------------


async def _row(page: Page) -> dict[str, Any]:
    """The change that is meant, with the time that is left to confirm it; Any, as rows are JSON objects."""
    answer = await page.call("config.history")
    pending = answer.get("pending") or {}
    for row in answer.get("rows", []):
        if str(row["change"]) == page.params["change"]:
            left_s = pending.get("left_s") if pending.get("change") == row["change"] else None
            return {**row, "left_s": left_s}
    raise ControlError("not_found", f"There is no change {page.params['change']}.")


async def changed(page: Page) -> Response:
    """GET /config/change/{change}: keep it, or take it back."""
    row = await _row(page)
    return page.render("config_change", title="Keep the change?", row=row)


async def decide(page: Page) -> Response:
    """Confirm a change, or take it back."""
    number = _number(page)
    if page.form.text("decision") == "confirm":
        await page.call("config.confirm", change=number)
        return page.redirect("/config", "The change stays.")
    answer = await page.call("config.revert", timeout_s=_APPLY_S, change=number)
    if answer.get("confirm_within_s"):
        return applied(page, answer)
    return page.redirect("/config/history", "The change is taken back.")


def _number(page: Page) -> int:
    text_ = page.params["change"]
    if not text_.isascii() or not text_.isdigit() or len(text_) > 15:
        raise ControlError("not_found", "There is no such change.")
    return int(text_)


async def history(page: Page) -> Response:
    """GET /config/history: every change with who and when."""
    answer = await page.call("config.history")
    return page.render("config_history", title="Changes", rows=answer.get("rows", []), pending=answer.get("pending"))


async def past(page: Page) -> Response:
    """GET /config/history/{change}: one change."""
    row = await _row(page)
    answer = await page.call("config.past", change=_number(page))
    return page.render(
        "config_past",
        title="A past change",
        row=row,
        lines=diff_lines(str(answer.get("diff", ""))),
        text=answer["text"],
    )


# -- time zone --------------------------------------------------------------------------------------------------------


async def timezone(page: Page) -> Response:
    """Set the gateway's time zone."""
    name = page.form.required("timezone", "The time zone", longest=100)
    await page.call("system.timezone", name=name, timeout_s=_APPLY_S)
    return page.redirect("/config", f"The gateway's time is that of {name} now.")
