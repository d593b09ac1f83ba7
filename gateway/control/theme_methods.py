"""What operators may call about the look and the words of the guests' pages."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final, cast

from gateway.admin.roles import Role
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.themes.contract import MAX_ARCHIVE_BYTES
from gateway.themes.service import ThemeRow

if TYPE_CHECKING:
    from gateway.daemon import Gateway

MAX_SENTENCE: Final = 2000
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})?")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ThemeMethods:
    """The methods, over the rooms of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def table(self) -> dict[str, Method]:
        """All methods about themes and texts."""
        look, change, role = Access.READ | Access.WRITE, Access.WRITE, Role.ADMINISTRATOR
        return {
            "themes.list": Method(self.themes_list, look),
            "themes.preview": Method(self.themes_preview, look),
            "themes.store": Method(self.themes_store, change, role=role),
            "themes.remove": Method(self.themes_remove, change, role=role),
            "themes.activate": Method(self.themes_activate, change, role=role),
            "themes.reset": Method(self.themes_reset, change, role=role),
            "themes.texts": Method(self.themes_texts, look),
            "themes.text": Method(self.themes_text, change, role=role),
        }

    def themes_list(self, caller: Caller, params: Params) -> JsonValue:
        """All themes, and which zone has which."""
        read.only(params)
        themes = self._gateway.themes
        zones = {zone.name: themes.active(zone.name)[0] for zone in self._gateway.config.zones}
        return {"rows": [_row(row, zones) for row in themes.rows()], "zones": cast(JsonValue, zones)}

    async def themes_preview(self, caller: Caller, params: Params) -> JsonValue:
        """The files of a theme; a web process fills them in as the portal would."""
        read.only(params, "theme")
        files = await self._gateway.themes.files(read.text(params, "theme", longest=64))
        return {"files": {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}}

    async def themes_store(self, caller: Caller, params: Params) -> JsonValue:
        """Keep an uploaded theme, after it has been checked."""
        read.only(params, "theme", "data")
        text = read.text(params, "data", longest=MAX_ARCHIVE_BYTES * 4 // 3 + 16)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ControlError(BAD_PARAMS, "data is not base64 of a zip archive") from None
        row = await self._gateway.themes.store(read.text(params, "theme", longest=64), data)
        return _row(row, {zone.name: self._gateway.themes.active(zone.name)[0] for zone in self._gateway.config.zones})

    async def themes_remove(self, caller: Caller, params: Params) -> JsonValue:
        """Remove a theme; zones that have it go back to the usual look."""
        read.only(params, "theme")
        name = read.text(params, "theme", longest=64)
        await self._gateway.themes.remove(name)
        return {"theme": name}

    async def themes_activate(self, caller: Caller, params: Params) -> JsonValue:
        """Give a zone a theme."""
        read.only(params, "zone", "theme")
        zone, name = self._zone(params), read.text(params, "theme", longest=64)
        await self._gateway.themes.choose(zone, name)
        return {"zone": zone, "theme": name}

    async def themes_reset(self, caller: Caller, params: Params) -> JsonValue:
        """Give a zone the usual look again."""
        read.only(params, "zone")
        zone = self._zone(params)
        await self._gateway.themes.choose(zone, "")
        return {"zone": zone, "theme": ""}

    def themes_texts(self, caller: Caller, params: Params) -> JsonValue:
        """The operator's own sentences: zone (empty for all), language, key."""
        read.only(params)
        return {"texts": cast(JsonValue, self._gateway.guests.texts)}

    async def themes_text(self, caller: Caller, params: Params) -> JsonValue:
        """Set a sentence of the pages, or take ours again when none is given."""
        read.only(params, "zone", "language", "key", "text")
        zone = self._zone(params) if params.get("zone") else ""
        language, key = read.text(params, "language", longest=16), read.text(params, "key", longest=64)
        if not _LANGUAGE.fullmatch(language) or not _KEY.fullmatch(key):
            raise ControlError(
                BAD_PARAMS, "language is a code such as en, and key the name of a text such as login_lead"
            )
        text = read.text(params, "text", None, longest=MAX_SENTENCE)
        await self._gateway.guests.set_text(zone, language, key, text)
        self._gateway.methods.portal.configuration_changed()
        return {"zone": zone, "language": language, "key": key, "text": text}

    def _zone(self, params: Params) -> str:
        name = read.text(params, "zone", longest=64)
        known = [zone.name for zone in self._gateway.config.zones]
        if name not in known:
            raise ControlError(BAD_PARAMS, f"there is no zone {name!r}; there are: {', '.join(known) or 'none'}")
        return name


def _row(row: ThemeRow, zones: dict[str, str]) -> JsonValue:
    return {
        "theme": row.name,
        "version": row.version,
        "size_bytes": row.size_bytes,
        "files": [*row.files],
        "zones": [zone for zone, theme in zones.items() if theme == row.name],
    }
