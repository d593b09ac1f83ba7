"""REST: clients, vouchers, users and devices. Each operation is one method of the daemon, which checks the role."""

from __future__ import annotations

from typing import Final

from webui.admin.limits import SCHEMAS as LIMITS
from webui.admin.rest import ApiRoute, asks
from webui.admin.schema import (
    Schema,
    anything,
    array,
    boolean,
    choice,
    integer,
    nullable,
    number,
    record,
    rows,
    text,
)

CLIENTS, VOUCHERS, USERS, DEVICES = "Clients", "Vouchers", "Users", "Devices"
STATES: Final = ("online", "held", "authenticating", "opening", "closing")
SORTS: Final = ("ip", "hostname", "username", "state", "since", "left", "bytes", "rate", "mac", "zone")

_MAC: Final = text("A MAC address.", longest=20, shortest=12)
_PAGE: Final[dict[str, Schema]] = {
    "offset": integer("Rows to leave out.", high=10**9),
    "limit": integer("Rows at most.", low=1, high=1000),
}
_NOTE: Final = text("For people.", longest=200)
_CLIENT: Final = record(
    {
        "zone": text(),
        "mac": text(),
        "mac_is_random": boolean("The device made the address up for this network."),
        "ip": nullable(text()),
        "hostname": text(),
        "state": choice("", *STATES),
        "username": text(),
        "since_s": nullable(number()),
        "seconds_left": nullable(number()),
        "upload_bytes": integer(),
        "download_bytes": integer(),
    },
    "A device on a guest network.",
    required=("zone", "mac", "state"),
    more=True,
)


def api_routes() -> list[ApiRoute]:
    """The operations of this module."""
    return [*_clients(), *_vouchers(), *_users(), *_devices()]


def _clients() -> list[ApiRoute]:
    listing: dict[str, Schema] = {
        "search": text("Part of a name, address, MAC or user.", longest=200),
        "zone": text(longest=60),
        "state": choice("", *STATES),
        "sort": choice("", *SORTS),
        "descending": boolean(),
        **_PAGE,
    }
    authorize = record({"minutes": integer(low=1, high=10**7), "username": text(shortest=1, longest=253), **LIMITS})
    change = record({"extend_s": integer("Seconds to add.", low=-(2**31), high=2**31), **LIMITS})
    block = record({"mac": _MAC, "zone": text(longest=60), "note": _NOTE}, required=("mac",))
    return [
        ApiRoute(
            "GET",
            "/clients",
            "read",
            asks("sessions.list"),
            "Devices on the guest networks.",
            CLIENTS,
            query=listing,
            result=rows(_CLIENT, total=integer()),
        ),
        ApiRoute(
            "GET",
            "/clients/{client}",
            "read",
            asks("sessions.show"),
            "One device, by MAC, address or user.",
            CLIENTS,
            result=_CLIENT,
        ),
        ApiRoute(
            "POST",
            "/clients/{client}/kick",
            "operate",
            asks("sessions.kick"),
            "End its session.",
            CLIENTS,
            body=record({"cause": choice("", "admin-reset", "user-request", "nas-request")}),
            result=record({"ended": integer()}, required=("ended",)),
        ),
        ApiRoute(
            "POST",
            "/clients/{client}/authorize",
            "operate",
            asks("sessions.authorize"),
            "Let it in without a login.",
            CLIENTS,
            body=authorize,
        ),
        ApiRoute(
            "POST",
            "/clients/{client}/limits",
            "operate",
            asks("sessions.change"),
            "Change the limits of a live session; 0 is no limit.",
            CLIENTS,
            body=change,
        ),
        ApiRoute(
            "GET",
            "/blocked",
            "read",
            asks("clients.blocked"),
            "Devices that get nothing.",
            CLIENTS,
            result=rows(anything()),
        ),
        ApiRoute("POST", "/blocked", "operate", asks("clients.block"), "Block a device.", CLIENTS, body=block),
        ApiRoute(
            "DELETE",
            "/blocked/{mac}",
            "operate",
            asks("clients.unblock"),
            "Let a device in again.",
            CLIENTS,
            query={"zone": text(longest=60)},
            path_schemas={"mac": _MAC},
        ),
        ApiRoute(
            "GET",
            "/leases",
            "read",
            asks("leases.list"),
            "Addresses that are given out.",
            CLIENTS,
            query={"zone": text(longest=60)},
            result=rows(anything()),
        ),
    ]


def _vouchers() -> list[ApiRoute]:
    create = record(
        {
            "count": integer("How many.", low=1, high=1000),
            "alphabet": choice("", "digits", "letters"),
            "length": integer("Characters of a code: 8 to 20 digits, or 6 to 20 letters.", low=6, high=20),
            "devices": integer("Devices per voucher; 0 is any number.", high=1000),
            "validity_s": integer("Seconds from first use.", low=60, high=10 * 366 * 86400),
            "expires_unix": number("Good until, seconds since 1970."),
            "note": _NOTE,
            "zone": text(longest=60),
            **LIMITS,
        },
        required=("count",),
    )
    made = record(
        {"batch": integer(), "count": integer(), "codes": array(text())}, required=("batch", "codes"), more=True
    )
    which: dict[str, Schema] = {
        "batch": integer(low=1, high=10**9),
        "search": text(longest=64),
        "state": choice("", "unused", "active", "used-up", "expired", "revoked"),
        **_PAGE,
    }
    batch = {"batch": integer(low=1, high=10**9)}
    ends = record({"end_sessions": boolean("End the sessions of these vouchers too.")})
    return [
        ApiRoute(
            "GET",
            "/voucher-batches",
            "read",
            asks("vouchers.batches"),
            "Batches of vouchers.",
            VOUCHERS,
            result=rows(anything()),
        ),
        ApiRoute(
            "POST",
            "/voucher-batches",
            "operate",
            asks("vouchers.create", timeout_s=60.0),
            "Make vouchers.",
            VOUCHERS,
            body=create,
            result=made,
            status=201,
        ),
        ApiRoute(
            "POST",
            "/voucher-batches/{batch}/revoke",
            "operate",
            asks("vouchers.revoke"),
            "Make a batch good for nothing.",
            VOUCHERS,
            body=ends,
            path_schemas=batch,
        ),
        ApiRoute(
            "DELETE",
            "/voucher-batches/{batch}",
            "operate",
            asks("vouchers.remove"),
            "Remove a batch; its sessions end.",
            VOUCHERS,
            path_schemas=batch,
        ),
        ApiRoute(
            "GET",
            "/vouchers",
            "operate",
            asks("vouchers.list"),
            "Single vouchers with their codes.",
            VOUCHERS,
            query=which,
            result=rows(anything(), total=integer()),
        ),
        ApiRoute(
            "POST",
            "/vouchers/{id}/revoke",
            "operate",
            asks("vouchers.revoke"),
            "Make a voucher good for nothing.",
            VOUCHERS,
            body=ends,
            path_schemas={"id": text("Such as 3-17.", shortest=1, longest=40)},
        ),
    ]


def _part(*sorts: str) -> dict[str, Schema]:
    """What a listing takes that is searched, sorted and cut by the daemon."""
    return {
        "search": text("Words that must occur.", longest=200),
        "sort": choice("", *sorts),
        "descending": boolean(),
        "offset": integer(high=10_000_000),
        "limit": integer("All without one.", low=1, high=1000),
    }


def _users() -> list[ApiRoute]:
    common: dict[str, Schema] = {
        "devices": integer("Devices at once; 0 is any number.", high=1000),
        "valid_until_unix": number("Seconds since 1970; 0 is no end."),
        "note": _NOTE,
        **LIMITS,
    }
    password = text("The password.", shortest=1, longest=256)
    create = record(
        {"username": text(shortest=1, longest=253), "password": password, **common}, required=("username", "password")
    )
    create["properties"] = {**create["properties"], "devices": integer("Devices at once.", low=1, high=1000)}
    change = record({**common, "disabled": boolean(), "end_sessions": boolean()})
    name = {"username": text(shortest=1, longest=253)}
    user = record({"username": text()}, required=("username",), more=True)
    return [
        ApiRoute(
            "GET",
            "/users",
            "read",
            asks("users.list"),
            "Local accounts of guests.",
            USERS,
            query=_part("username", "disabled", "valid_until_unix", "devices", "created_unix"),
            result=rows(user),
        ),
        ApiRoute(
            "POST",
            "/users",
            "operate",
            asks("users.add"),
            "Make an account.",
            USERS,
            body=create,
            result=user,
            status=201,
        ),
        ApiRoute(
            "PATCH",
            "/users/{username}",
            "operate",
            asks("users.change"),
            "Change an account; what is not named stays.",
            USERS,
            body=change,
            path_schemas=name,
            result=user,
        ),
        ApiRoute(
            "PUT",
            "/users/{username}/password",
            "operate",
            asks("users.passwd"),
            "Set a password.",
            USERS,
            body=record({"password": password}, required=("password",)),
            path_schemas=name,
        ),
        ApiRoute(
            "DELETE",
            "/users/{username}",
            "operate",
            asks("users.remove"),
            "Remove an account.",
            USERS,
            query={"end_sessions": boolean("End its sessions too.")},
            path_schemas=name,
        ),
    ]


def _devices() -> list[ApiRoute]:
    which: dict[str, Schema] = {"username": text(longest=253), "zone": text(longest=60)}
    forget = record({"mac": _MAC, "username": text(shortest=1, longest=253), "zone": text(longest=60)})
    return [
        ApiRoute(
            "GET",
            "/devices",
            "read",
            asks("devices.list"),
            "Devices that come back without the login page.",
            DEVICES,
            query={**which, **_part("mac", "username", "zone", "method", "since_unix", "until_unix")},
            result=rows(anything()),
        ),
        ApiRoute(
            "POST",
            "/devices/forget",
            "operate",
            asks("devices.forget"),
            "Have devices log in anew the next time.",
            DEVICES,
            body=forget,
        ),
    ]
