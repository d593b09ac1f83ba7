"""What concerns the whole device: upgrade, factory reset, starting anew. postern-system does it; this asks.

An upgrade's bundle is put into its place first (`state_dir/upgrade/bundle`), by the command or by the administration
pages, because it is too large for a frame. Writing one takes minutes: it goes on when who asked is gone, and
`device.status` says how far it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import asdict
from typing import Final

from gateway.admin.roles import Role
from gateway.control import params as read
from gateway.control.protocol import CONFLICT, UNAVAILABLE, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.platform import platform
from gateway.system.client import System
from gateway.upgrade import progress

LOG: Final = logging.getLogger(__name__)
UPGRADE_LIMIT_S: Final = 900.0  # a slow card takes minutes for a slot
CHECK_LIMIT_S: Final = 300.0


class SystemMethods:
    """The device as a whole."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._upgrade: asyncio.Task[JsonValue] | None = None
        self._checking = False
        self._failure = ""

    def table(self) -> dict[str, Method]:
        """Every method by its name, with who may call it."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        return {
            "device.status": Method(self.status, look),
            "device.check": Method(self.check, look, role=Role.ADMINISTRATOR),
            "device.upgrade": Method(self.upgrade, change),
            "device.discard": Method(self.discard, change),
            "device.reset": Method(self.reset, change),
            "device.restart": Method(self.restart, change),
        }

    def status(self, caller: Caller, params: Params) -> JsonValue:
        """What this runs on: version, build, slots, the last upgrade and the one under way, the host's name."""
        read.only(params)
        under_way: JsonValue = None
        if self._under_way or self._checking:
            told = progress.told(self._system.run_dir)
            under_way = asdict(told or progress.Progress("verifying", 0, 0))
        return {
            **platform(),
            "hostname": socket.gethostname(),
            "bundle": self._system.bundle.is_file(),
            "under_way": under_way,
            "installing": self._under_way,
            "failure": self._failure,
        }

    async def check(self, caller: Caller, params: Params) -> JsonValue:
        """Verify the bundle that was put into its place, and say what is in it. Nothing is written."""
        read.only(params)
        self._expect_idle()
        self._checking = True
        try:
            return await self._system.ask("check_upgrade", {}, "verify an upgrade", CHECK_LIMIT_S)
        finally:
            self._checking = False

    async def upgrade(self, caller: Caller, params: Params) -> JsonValue:
        """Install the bundle that was put into its place, and start the system anew to try it.

        With `wait` false the answer comes at once, and `device.status` says how it goes on.
        """
        read.only(params, "older", "build_id", "wait")
        wish: Params = {"older": read.flag(params, "older"), "build_id": read.text(params, "build_id", "", longest=64)}
        wait = read.flag(params, "wait", default=True)
        self._expect_idle()
        self._failure = ""
        work = asyncio.create_task(self._install(wish), name="upgrade")
        self._upgrade = work
        # A failure of what nobody waits for is in the status, and has been seen with that.
        work.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(work) if wait else {"started": True}

    async def _install(self, wish: Params) -> JsonValue:
        try:
            story = await self._system.ask("upgrade", wish, "upgrade this device", UPGRADE_LIMIT_S)
        except ControlError as err:
            LOG.warning("the upgrade was not installed reason=%s", err.message)
            self._failure = err.message
            raise
        self._system.bundle.unlink(missing_ok=True)
        return story

    def discard(self, caller: Caller, params: Params) -> JsonValue:
        """Remove a bundle that is not to be installed; the directory is ours, whoever put it there."""
        read.only(params)
        self._expect_idle()
        self._failure = ""
        try:
            self._system.bundle.unlink(missing_ok=True)
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"{self._system.bundle} cannot be removed: {err.strerror}") from err
        return {"done": True}

    async def reset(self, caller: Caller, params: Params) -> JsonValue:
        """Remove everything that was set; the host's name is the confirmation."""
        read.only(params, "hostname")
        name = read.text(params, "hostname")
        if name != socket.gethostname():
            raise ControlError(CONFLICT, f"this device is called {socket.gethostname()}: give that name to confirm")
        self._expect_idle()
        return await self._system.ask("factory_reset", {}, "reset this device")

    async def restart(self, caller: Caller, params: Params) -> JsonValue:
        """Start the system anew."""
        read.only(params)
        self._expect_idle()
        return await self._system.ask("restart", {}, "start the system anew")

    @property
    def _under_way(self) -> bool:
        return self._upgrade is not None and not self._upgrade.done()

    def _expect_idle(self) -> None:
        if self._under_way or self._checking:
            raise ControlError(CONFLICT, "an upgrade is being verified or written; wait until that is done")
