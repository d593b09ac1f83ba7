"""Remembered and blocked devices, as values. Pure.

A remembered device has logged in at the page and comes back without it for as long as its zone says, with what was
left. It is known by its MAC address alone, which can be copied: whoever does that gets what that device has left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Config
from gateway.session.model import AuthenticatedBy, ClientKey, Counters, Grant, Limits, LoginMethod, UsedBefore
from gateway.values import value_class

MAX_REMEMBERED_PER_USER: Final = 32  # where the user has no bound of devices
MAX_BLOCKED: Final = 10_000  # each is an element of the packet filter


@value_class
class Device:
    """A device that may come back. Times are Unix seconds; `used` is since its login, by sessions that have ended."""

    key: ClientKey
    method: LoginMethod
    grant: Grant  # as it was given at the login
    since_unix: float
    until_unix: float
    used: UsedBefore


@value_class
class Block:
    """A device that gets nothing in a zone (in every zone when that is empty)."""

    mac: MacAddress
    zone: str = ""
    note: str = ""
    created_by: str = ""
    created_unix: float = 0.0


def pack_grant(grant: Grant) -> str:
    """What is kept of a grant, as JSON: enough to give it again, without what was used."""
    return json.dumps(
        {
            "by": int(grant.authenticated_by),
            "limits": {name: value for name, value in asdict(grant.limits).items() if value is not None},
            "interim": grant.interim_interval_s,
            "class": [value.hex() for value in grant.class_values],
            "cui": None if grant.chargeable_user_identity is None else grant.chargeable_user_identity.hex(),
            "reply": grant.reply_message,
            "url": grant.redirection_url,
            "filters": list(grant.filter_ids),
            "devices": grant.devices,
            "account": grant.account,
        },
        separators=(",", ":"),
    )


def unpack_grant(username: str, text: str, used: UsedBefore) -> Grant:
    """Read what `pack_grant` wrote; raises ValueError, also for what another version wrote."""
    try:
        tree = json.loads(text)
        known = {item.name for item in fields(Limits)}
        return Grant(
            username,
            AuthenticatedBy(tree["by"]),
            Limits(**{name: value for name, value in tree["limits"].items() if name in known}),
            interim_interval_s=tree["interim"],
            class_values=tuple(bytes.fromhex(value) for value in tree["class"]),
            chargeable_user_identity=None if tree["cui"] is None else bytes.fromhex(tree["cui"]),
            reply_message=tree["reply"],
            redirection_url=tree["url"],
            filter_ids=tuple(tree["filters"]),
            devices=tree["devices"],
            account=tree["account"],
            used=used,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise ValueError(f"the grant of a remembered device cannot be read: {err!r}") from err


def used_of(seconds: int, upload_bytes: int, download_bytes: int) -> UsedBefore:
    """Usage as the database has it."""
    return UsedBefore(seconds, Counters(upload_bytes=upload_bytes, download_bytes=download_bytes))


def with_blocks(config: Config, blocks: Iterable[Block]) -> Config:
    """The configuration with the blocked devices in every zone where they are blocked."""
    more: Mapping[str, set[MacAddress]] = {zone.name: set() for zone in config.zones}
    for block in blocks:
        for name, macs in more.items():
            if block.zone in ("", name):
                macs.add(block.mac)
    zones = tuple(
        replace(zone, block_macs=tuple(sorted({*zone.block_macs, *more[zone.name]}))) if more[zone.name] else zone
        for zone in config.zones
    )
    return replace(config, zones=zones)
