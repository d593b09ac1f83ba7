"""The device itself: what it runs, an upgrade from the bundle to its trial, starting anew, back to the factory's state.

Pages and REST over the same methods (`device.*`). An upgrade is looked at before it is installed: postern-system says
what is in the bundle that was uploaded, or why it is refused, and nothing was written until somebody confirmed that.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from webui.admin.bundles import BODY_LIMIT, DRAIN_BYTES, BundleIntake
from webui.admin.daemon import UNAUTHENTICATED, Answer, ControlError
from webui.admin.live import Changed
from webui.admin.rest import ApiCall, ApiRoute, Problem, asks
from webui.admin.schema import anything, boolean, integer, nullable, number, record, text
from webui.admin.site import Page, Route
from webui.messages import Response
from webui.sse import Event

if TYPE_CHECKING:
    from webui.admin.app import AdminApp

TAG: Final = "Device"
_ROLE: Final = "administrator"
_CHECK_S: Final = 300.0  # a slow card reads a bundle for a minute
_ACT_S: Final = 60.0
_EVERY_S: Final = 1.0
_PHASES: Final = {
    "verifying": "Verifying the bundle",
    "writing": "Writing the new version",
    "proving": "Reading back what was written",
}


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/system", show, _ROLE),
        Route("GET", "/system/live", show_live, _ROLE),
        Route("POST", "/system/bundle", upload, _ROLE, BODY_LIMIT, streams=True, token_in_form=True),
        Route("GET", "/system/upgrade", look, _ROLE),
        Route("POST", "/system/upgrade", install, _ROLE),
        Route("POST", "/system/discard", discard, _ROLE),
        Route("POST", "/system/restart", restart, _ROLE),
        Route("POST", "/system/reset", reset, _ROLE),
    ]


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    scope = "configure"
    status = record(
        {
            "version": text(),
            "build_id": text(),
            "packaging": text("image, debian, openwrt or source"),
            "board": nullable(text()),
            "slot": nullable(text("a or b; null off an image")),
            "start": nullable(text("good or trial")),
            "upgrade": nullable(anything("The last upgrade: state, version, build_id, slot, text.")),
            "hostname": text(),
            "bundle": boolean("A bundle was uploaded and waits."),
            "under_way": nullable(anything("phase, done_bytes, total_bytes of what is being verified or written.")),
            "installing": boolean(),
            "failure": text("Why the last attempt to install was refused; empty when it was not."),
        },
        required=("version", "build_id", "packaging", "hostname", "bundle", "installing", "failure"),
        more=True,
    )
    bundle = record(
        {
            "version": text(),
            "build_id": text(),
            "board": text(),
            "built_unix": number(),
            "size_bytes": integer(),
            "older": boolean("Older than what runs."),
        },
        required=("version", "build_id", "board", "built_unix", "size_bytes", "older"),
    )
    restarting = record({"restarting": boolean()}, required=("restarting",))
    octets = {"type": "string", "format": "binary", "description": "postern-VERSION-BOARD.upgrade"}
    return [
        ApiRoute("GET", "/device", "read", asks("device.status"), "Version, slots, upgrade.", TAG, result=status),
        ApiRoute(
            "POST",
            "/device/bundle",
            scope,
            api_upload,
            "Upload an upgrade bundle: the body itself, or a form with the field `file`. Nothing is installed yet.",
            TAG,
            body=octets,
            consumes=("application/octet-stream", "multipart/form-data"),
            result=record({"size_bytes": integer()}, required=("size_bytes",)),
            status=201,
            streams=True,
            body_limit=BODY_LIMIT,
        ),
        ApiRoute(
            "GET",
            "/device/bundle",
            scope,
            asks("device.check", timeout_s=_CHECK_S),
            "Verify the uploaded bundle and say what is in it; 409 says why it is refused.",
            TAG,
            result=bundle,
        ),
        ApiRoute(
            "DELETE", "/device/bundle", scope, asks("device.discard"), "Remove the uploaded bundle.", TAG, status=204
        ),
        ApiRoute(
            "POST",
            "/device/upgrade",
            scope,
            asks("device.upgrade", wait=False),
            "Install the uploaded bundle and start anew to try it; GET /device says how it goes on.",
            TAG,
            body=record(
                {
                    "older": boolean("Also when it is older than what runs."),
                    "build_id": text("Only if the bundle is of this build.", longest=64),
                }
            ),
            result=record({"started": boolean()}, required=("started",)),
            status=202,
        ),
        ApiRoute(
            "POST",
            "/device/restart",
            scope,
            asks("device.restart", timeout_s=_ACT_S),
            "Start the device anew.",
            TAG,
            result=restarting,
            status=202,
        ),
        ApiRoute(
            "POST",
            "/device/reset",
            scope,
            asks("device.reset", timeout_s=_ACT_S),
            "Remove everything that was set on this device; its name confirms it.",
            TAG,
            body=record({"hostname": text("The device's name.", longest=64)}, required=("hostname",)),
            result=restarting,
            status=202,
        ),
    ]


def _intake(app: AdminApp) -> BundleIntake:
    return app.bundles


def progress_row(status: Answer) -> dict[str, Any] | None:
    """What is under way, in words and percent; None for nothing. Any: values of templates."""
    told = status.get("under_way")
    if not told:
        return None
    total = max(1, int(told["total_bytes"]))
    return {
        "words": _PHASES.get(str(told["phase"]), str(told["phase"])),
        "percent": min(100, 100 * int(told["done_bytes"]) // total),
        "done_bytes": told["done_bytes"],
        "total_bytes": told["total_bytes"],
    }


# -- pages ------------------------------------------------------------------------------------------------------------


async def show(page: Page) -> Response:
    """GET /system: what the device is, and what can be done with it."""
    return await _page(page)


async def _page(page: Page, alert: str = "", status: int = 200) -> Response:
    device = await page.call("device.status")
    intake = _intake(page.app)
    return page.render(
        "system",
        title="System",
        device=device,
        progress=progress_row(device),
        available=intake.available,
        limit_bytes=intake.limit_bytes,
        alert=alert,
        scripts=("system.js",),
        status=status,
    )


async def show_live(page: Page) -> Response:
    """GET /system/live: how far an upgrade is, once a second."""

    async def events() -> AsyncGenerator[Event, None]:
        changed = Changed()
        while True:
            try:
                device = await page.call("device.status")
            except ControlError as err:
                if err.code == UNAUTHENTICATED:
                    yield Event({}, "over")
                    return
                device = {}  # it starts anew, or is busy: what was shown stays
            if device:
                html = page.fragment("system_state", device=device, progress=progress_row(device))
                fresh = changed.of({"upgrade-state": html})
                if fresh:
                    yield Event(fresh, "parts")
            await asyncio.sleep(_EVERY_S)

    return page.live(events())


async def upload(page: Page) -> Response:
    """POST /system/bundle: the form, for browsers without scripts."""
    own = page.caller.csrf

    def token_fits(token: str) -> bool:
        return bool(own) and hmac.compare_digest(token.encode("utf-8", "replace"), own.encode())

    try:
        await _intake(page.app).receive(page.request, token_fits=token_fits)
    except Problem as problem:
        response = page.app.error(problem.status, "The bundle was not taken", problem.detail, page=page)
        response.drain_bytes = DRAIN_BYTES
        return response
    return page.redirect("/system/upgrade")


async def look(page: Page) -> Response:
    """GET /system/upgrade: what is in the bundle, before anything is written."""
    device = await page.call("device.status")
    if not device.get("bundle") or device.get("under_way"):
        return page.redirect("/system")
    try:
        bundle = await page.call("device.check", timeout_s=_CHECK_S)
    except ControlError as err:
        if err.code != "conflict":
            raise
        return page.render("system_upgrade", title="Upgrade", device=device, bundle=None, refusal=err.message)
    return page.render("system_upgrade", title="Upgrade", device=device, bundle=bundle, refusal="")


async def install(page: Page) -> Response:
    """POST /system/upgrade: install what was looked at."""
    if not page.form.flag("confirm"):
        return page.redirect("/system/upgrade", "Nothing was done: confirm first that it may start anew.", "bad")
    await page.call(
        "device.upgrade",
        older=page.form.flag("older"),
        build_id=page.form.required("build_id", "The build", longest=64),
        wait=False,
        timeout_s=_ACT_S,
    )
    return page.redirect("/system", "The upgrade has begun. The device starts anew when it is written.")


async def discard(page: Page) -> Response:
    """Remove a bundle that is not to be installed."""
    await page.call("device.discard")
    return page.redirect("/system", "The bundle was removed. Nothing was changed.")


async def restart(page: Page) -> Response:
    """Start the device anew."""
    if not page.form.flag("confirm"):
        return await _page(page, "Nothing was done: tick the box to confirm that the device may start anew.", 400)
    await page.call("device.restart", timeout_s=_ACT_S)
    return _leaving(page, "The device starts anew", "It is back within a minute or two.")


async def reset(page: Page) -> Response:
    """Back to the factory's state."""
    name = page.form.text("hostname", longest=64)
    try:
        await page.call("device.reset", hostname=name, timeout_s=_ACT_S)
    except ControlError as err:
        if err.code != "conflict":
            raise
        return await _page(page, f"Nothing was removed: {err.message}.", 400)
    return _leaving(
        page,
        "The device starts anew as from the factory",
        "Everything that was set on it is removed. The set-up code is on its console.",
    )


def _leaving(page: Page, title: str, words: str) -> Response:
    return page.render("system_leaving", title=title, words=words)


# -- REST -------------------------------------------------------------------------------------------------------------


async def api_upload(call: ApiCall) -> object:
    """Take a bundle."""
    return {"size_bytes": await _intake(call.app).receive(call.request)}
