"""REST: how the gateway is doing, and who asks."""

from __future__ import annotations

from webui.admin.captures_api import captures_health
from webui.admin.rest import ApiCall, ApiRoute, json_response
from webui.admin.schema import anything, array, integer, nullable, record, text

TAG = "System"


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    status = record(
        {"version": text(), "uptime_s": integer(), "zones": array(anything()), "warnings": array(text(longest=10_000))},
        required=("version", "zones", "warnings"),
        more=True,
    )
    whoami = record(
        {
            "name": text(),
            "role": text(),
            "kind": text(),
            "scopes": array(text()),
            "expires_s": nullable({"type": "number"}),
        },
        required=("name", "role", "kind", "scopes"),
    )
    health = record({"status": text("ok, degraded or failing")}, required=("status",), more=True)
    return [
        ApiRoute("GET", "/health", "", health_, "Whether the web interface answers.", TAG, result=health),
        ApiRoute("GET", "/whoami", "read", whoami_, "Who the token belongs to.", TAG, result=whoami),
        ApiRoute("GET", "/status", "read", status_, "The gateway, its zones and warnings.", TAG, result=status),
    ]


async def health_(call: ApiCall) -> object:
    """That we are here, and whether captures can be analysed; strangers learn nothing else."""
    captures = await captures_health(call.app)
    status = "ok" if captures is None else captures["status"]
    return json_response(503 if status == "failing" else 200, {"status": status, "captures": captures})


async def whoami_(call: ApiCall) -> object:
    """The caller."""
    caller = call.caller
    return {
        "name": caller.name,
        "role": caller.role,
        "kind": caller.kind,
        "scopes": sorted(caller.scopes),
        "expires_s": caller.expires_s,
    }


async def status_(call: ApiCall) -> object:
    """The daemon's status."""
    return await call.call("status")
