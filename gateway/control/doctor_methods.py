"""`doctor.run`: every check of the gateway and its surroundings, one examination at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control import params as read
from gateway.control.protocol import BUSY, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method

if TYPE_CHECKING:
    from gateway.daemon import Gateway


class DoctorMethods:
    """The one method."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._running = False

    def table(self) -> dict[str, Method]:
        """It looks, and changes nothing."""
        return {"doctor.run": Method(self.run, Access.READ | Access.WRITE)}

    async def run(self, caller: Caller, params: Params) -> JsonValue:
        """Examine; takes four seconds, because other DHCP servers take so long to answer."""
        read.only(params)
        if self._running:
            raise ControlError(BUSY, "an examination is under way; ask again in a few seconds")
        from gateway.doctor.inside import examine_gateway  # rarely wanted, and not small

        self._running = True
        try:
            rows = await examine_gateway(self._gateway)
        finally:
            self._running = False
        return {"rows": [dict[str, JsonValue](row.as_json()) for row in rows]}
