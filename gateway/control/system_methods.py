"""What concerns the whole device: upgrade, factory reset, starting anew. postern-system does it; this asks.

An upgrade's bundle is put into its place first (`state_dir/upgrade/bundle`), by the command or by the administration
pages, because it is too large for a frame.
"""

from __future__ import annotations

import socket
from typing import Final

from gateway.control import params as read
from gateway.control.protocol import CONFLICT, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.platform import platform
from gateway.system.client import System

UPGRADE_LIMIT_S: Final = 900.0  # a slow card takes minutes for a slot


class SystemMethods:
    """The device as a whole."""

    def __init__(self, system: System) -> None:
        self._system = system

    def table(self) -> dict[str, Method]:
        """Every method by its name, with who may call it."""
        return {
            "device.status": Method(self.status, Access.READ | Access.WRITE),
            "device.upgrade": Method(self.upgrade, Access.WRITE),
            "device.reset": Method(self.reset, Access.WRITE),
            "device.restart": Method(self.restart, Access.WRITE),
        }

    def status(self, caller: Caller, params: Params) -> JsonValue:
        """What this runs on: version, build, slots, the last upgrade, the host's name."""
        read.only(params)
        return {**platform(), "hostname": socket.gethostname()}

    async def upgrade(self, caller: Caller, params: Params) -> JsonValue:
        """Install the bundle that was put into its place, and start the system anew to try it."""
        read.only(params, "older")
        older = read.flag(params, "older")
        return await self._system.ask("upgrade", {"older": older}, "upgrade this device", UPGRADE_LIMIT_S)

    async def reset(self, caller: Caller, params: Params) -> JsonValue:
        """Remove everything that was set; the host's name is the confirmation."""
        read.only(params, "hostname")
        name = read.text(params, "hostname")
        if name != socket.gethostname():
            raise ControlError(CONFLICT, f"this device is called {socket.gethostname()}: give that name to confirm")
        return await self._system.ask("factory_reset", {}, "reset this device")

    async def restart(self, caller: Caller, params: Params) -> JsonValue:
        """Start the system anew."""
        read.only(params)
        return await self._system.ask("restart", {}, "start the system anew")
