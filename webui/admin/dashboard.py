"""The first page: who is online, what flows, and what needs attention; live."""

from __future__ import annotations

from typing import Any, Final

from webui.admin import charts, live
from webui.admin.daemon import Answer, ControlError
from webui.admin.site import Page, Route
from webui.admin.words import rate
from webui.messages import Response
from webui.sse import Event

_EVERY_S: Final = 3.0
_CHART_EVERY_S: Final = 60.0
_SPAN_S: Final = 86400
_HOUR_S: Final = 3600


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("GET", "/", dashboard), Route("GET", "/live", dashboard_live)]


async def dashboard(page: Page) -> Response:
    """GET /: the dashboard."""
    past = await _past(page)
    drawn = _charts(page, past)
    return page.render("dashboard", title="Dashboard", now=await _now(page), charts=drawn)


async def dashboard_live(page: Page) -> Response:
    """GET /live: its parts as they change."""
    changed = live.Changed()
    drawn_at = page.app.clock()
    drawn: dict[str, str] = {}

    async def make() -> Event:
        nonlocal drawn_at, drawn
        parts = {"now": page.fragment("dashboard_now", now=await _now(page))}
        if page.app.clock() - drawn_at >= _CHART_EVERY_S:
            drawn_at = page.app.clock()
            drawn = {name: str(chart) for name, chart in _charts(page, await _past(page)).items() if chart}
        return Event(changed.of({**parts, **drawn}), "parts")

    return page.live(live.events(page, make, _EVERY_S))


async def _now(page: Page) -> dict[str, Any]:
    """The numbers of this moment; Any, as rows are JSON objects."""
    status = await page.call("status")
    zones = status.get("zones", [])
    memory_total, memory_free = status.get("memory_total_bytes"), status.get("memory_available_bytes")
    disk_total, disk_free = status.get("disk_total_bytes"), status.get("disk_free_bytes")
    return {
        "status": status,
        "zones": zones,
        "online": status.get("sessions", {}).get("online", 0),
        "held": sum(zone.get("held", 0) for zone in zones),
        "radius": status.get("radius", []),
        "warnings": status.get("warnings", []),
        "memory": (memory_total - memory_free, memory_total) if memory_total and memory_free is not None else None,
        "disk": (disk_total - disk_free, disk_total) if disk_total and disk_free is not None else None,
        "rate_up_bps": status.get("rate_up_bps"),
        "rate_down_bps": status.get("rate_down_bps"),
    }


async def _past(page: Page) -> Answer:
    """The last 24 hours; nothing when the gateway keeps none."""
    try:
        return await page.call("history.read", span_s=_SPAN_S)
    except ControlError as err:
        if err.code in ("unavailable", "unknown_method", "not_found"):
            return {}
        raise


def hourly(values: charts.Values, step_s: float) -> list[float | None]:
    """Sums over each hour, the last one ending with the series."""
    per_hour = max(1, round(_HOUR_S / step_s))
    found: list[float | None] = []
    for end in range(len(values), 0, -per_hour):
        part = [value for value in values[max(0, end - per_hour) : end] if value is not None]
        found.append(sum(part) if part else None)
    return found[::-1]


def per_second(octets: charts.Values, step_s: float) -> list[float | None]:
    """Octets of each step as bits per second."""
    return [None if value is None else value * 8 / step_s for value in octets]


def _charts(page: Page, past: Answer) -> dict[str, str]:
    series: dict[str, charts.Values] = past.get("series") or {}
    start, step_s, zone = past.get("first_unix") or 0.0, float(past.get("step_s") or 60), page.zone
    if not any(value is not None for values in series.values() for value in values):
        return {"traffic": "", "people": "", "logins": ""}
    traffic = (
        ("down", per_second(series.get("download_bytes", ()), step_s)),
        ("up", per_second(series.get("upload_bytes", ()), step_s)),
    )
    label = "Traffic of the last 24 hours"
    by_hour = hourly(series.get("logins", ()), step_s)
    end = start + step_s * len(series.get("logins", ()))
    return {
        "traffic": charts.lines(traffic, start, step_s, zone, rate, label, "traffic"),
        "people": charts.lines(
            (("down", series.get("online", ())),),
            start,
            step_s,
            zone,
            lambda value: f"{value:g}",
            "Clients online in the last 24 hours",
            "people",
            least=2.0,
        ),
        "logins": charts.bars(
            by_hour, end - _HOUR_S * len(by_hour), _HOUR_S, zone, "Logins in each of the last 24 hours", "logins"
        ),
    }
