"""The fields with which limits are typed: a number with its unit, empty for no limit."""

from __future__ import annotations

from typing import Any, Final

from gateway.values import value_class
from webui.admin.daemon import JsonValue
from webui.admin.fields import Fields
from webui.admin.schema import Schema, integer

TIME_UNITS: Final = {"minutes": 60, "hours": 3600, "days": 86400}
SIZE_UNITS: Final = {"MB": 10**6, "GB": 10**9}
RATE_UNITS: Final = {"kbit/s": 10**3, "Mbit/s": 10**6}


@value_class
class LimitField:
    """One limit: its name at the daemon, its label, and the units that it may be typed in."""

    name: str
    label: str
    units: dict[str, int]
    unit: str

    def shown(self, limits: dict[str, Any]) -> tuple[str, str]:
        """Number and unit of a limit as they are typed; an empty number for none."""
        value = limits.get(self.name)
        if not value:
            return "", self.unit
        # The largest unit in which it is a short number.
        for unit, factor in sorted(self.units.items(), key=lambda item: -item[1]):
            if value >= factor:
                return f"{value / factor:.3f}".rstrip("0").rstrip("."), unit
        unit, factor = min(self.units.items(), key=lambda item: item[1])
        return f"{value / factor:.6f}".rstrip("0").rstrip("."), unit


FIELDS: Final = (
    LimitField("session_time_s", "Time online", TIME_UNITS, "hours"),
    LimitField("idle_time_s", "Log out when idle for", TIME_UNITS, "minutes"),
    LimitField("total_bytes", "Data in all", SIZE_UNITS, "GB"),
    LimitField("upload_bytes", "Upload data", SIZE_UNITS, "GB"),
    LimitField("download_bytes", "Download data", SIZE_UNITS, "GB"),
    LimitField("upload_bps", "Upload speed", RATE_UNITS, "Mbit/s"),
    LimitField("download_bps", "Download speed", RATE_UNITS, "Mbit/s"),
)
SCHEMAS: Final[dict[str, Schema]] = {
    "session_time_s": integer("Seconds online.", high=10**9),
    "idle_time_s": integer("Seconds without traffic.", high=10**9),
    "total_bytes": integer("Octets both ways."),
    "upload_bytes": integer("Octets sent by the client."),
    "download_bytes": integer("Octets received by the client."),
    "upload_bps": integer("Bits per second.", high=10**12),
    "download_bps": integer("Bits per second.", high=10**12),
}


def read_limits(form: Fields) -> dict[str, JsonValue]:
    """The limits of a form that has every field; 0 for none. Raises FieldError."""
    return {field.name: form.scaled(field.name, field.units, field.unit) or 0 for field in FIELDS}


def given_limits(form: Fields) -> dict[str, JsonValue]:
    """The limits of a form that are typed; those left empty are left out. Raises FieldError."""
    return {name: value for name, value in read_limits(form).items() if value}
