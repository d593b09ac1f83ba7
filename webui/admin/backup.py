"""Backup: everything that makes the gateway as a sealed file, and the way back after a look at what it holds.

A backup is handed on to the daemon piece by piece while it is uploaded; it is opened there, and never here.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from webui.admin.config import applied
from webui.admin.csv_export import attachment
from webui.admin.daemon import UNAUTHENTICATED, ControlError
from webui.admin.fields import FieldError
from webui.admin.site import Page, Route
from webui.messages import Response
from webui.multipart import Field, FileBegun, FileData, MultipartError, MultipartReader, boundary_of

_ROLE: Final = "administrator"
_WORK_S: Final = 120.0
_LIMIT: Final = 17_000_000  # the daemon's own bound comes first, with its own words
_PIECE: Final = 500_000
_DRAIN_BYTES: Final = 32 << 20
_LONGEST_PASSPHRASE: Final = 256


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/config/backup", show, _ROLE),
        Route("POST", "/config/backup", save, _ROLE),
        Route("POST", "/config/restore", look, _ROLE, _LIMIT, streams=True, token_in_form=True),
        Route("POST", "/config/restore/apply", restore, _ROLE),
    ]


async def show(page: Page) -> Response:
    """GET /config/backup: save and restore."""
    return _page(page)


def _page(page: Page, alert: str = "", status: int = 200) -> Response:
    return page.render("config_backup", title="Backup", alert=alert, status=status)


async def save(page: Page) -> Response:
    """Everything that makes this gateway, encrypted, as a file."""
    passphrase = page.form.raw("passphrase", longest=_LONGEST_PASSPHRASE)
    if passphrase != page.form.raw("again", longest=_LONGEST_PASSPHRASE):
        return _page(page, "The two passphrases are not the same.", 400)
    answer = await page.call("backup.create", timeout_s=_WORK_S, passphrase=passphrase)
    return attachment(base64.b64decode(answer["data"]), str(answer["name"]), "application/octet-stream")


async def look(page: Page) -> Response:
    """POST /config/restore: take a backup, and say what is in it; nothing is changed yet."""
    try:
        passphrase = await _hand_over(page)
        found = await page.call("backup.preview", timeout_s=_WORK_S, passphrase=passphrase)
    except (FieldError, ControlError, MultipartError) as err:
        if isinstance(err, ControlError) and err.code in (UNAUTHENTICATED, "unreachable", "timeout"):
            raise
        message = f"The form cannot be read: {err}." if isinstance(err, MultipartError) else err.message
        response = _page(page, message, 400)
        response.drain_bytes = _DRAIN_BYTES
        return response
    return page.render("config_restore", title="Restore", found=found)


async def _hand_over(page: Page) -> str:
    """Pass the file on to the daemon; returns the passphrase, which comes before it in the form."""
    assert page.request.stream is not None
    reader = MultipartReader(boundary_of(page.request.header("content-type")))
    own, passphrase = page.caller.csrf, ""
    accepted, chosen, sent, held = False, False, 0, bytearray()
    async for piece in page.request.stream:
        for event in reader.feed(piece):
            match event:
                case Field(name="csrf", value=value):
                    accepted = bool(own) and hmac.compare_digest(value.encode("utf-8", "replace"), own.encode())
                case Field(name="passphrase", value=value):
                    passphrase = value[:_LONGEST_PASSPHRASE]
                case FileBegun() | FileData() if not accepted:
                    raise ControlError("denied", "The form was too old, or was not sent from these pages.")
                case FileBegun(filename=filename):
                    if chosen and filename:
                        raise FieldError("file", "The form holds more than one file.")
                    chosen = chosen or bool(filename)
                case FileData(data=data):
                    held += data
        while len(held) >= _PIECE:
            sent = await _put(page, sent, bytes(held[:_PIECE]))
            del held[:_PIECE]
    if not reader.complete:
        raise FieldError("file", "The form ends in the middle.")
    if not accepted:
        raise ControlError("denied", "The form was too old, or was not sent from these pages.")
    if not chosen or not sent + len(held):
        raise FieldError("file", "Choose the file of a backup first.")
    await _put(page, sent, bytes(held))
    return passphrase


async def _put(page: Page, offset: int, piece: bytes) -> int:
    data = base64.b64encode(piece).decode("ascii")
    await page.call("backup.put", offset=offset, data=data, timeout_s=_WORK_S)
    return offset + len(piece)


async def restore(page: Page) -> Response:
    """Put back what was looked at."""
    if not page.form.flag("confirm"):
        return _page(page, "Nothing was changed: tick the box to confirm.", 400)
    ticket = page.form.required("ticket", "The ticket", longest=64)
    try:
        answer = await page.call("backup.restore", timeout_s=_WORK_S, ticket=ticket)
    except ControlError as err:
        if err.code not in ("not_found", "conflict", "bad_params"):
            raise
        return _page(page, err.message, 400)
    if not answer.get("restarting"):
        return applied(page, answer)
    return page.render("config_restored", title="Restored", within_s=answer.get("confirm_within_s"))
