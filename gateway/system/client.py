"""posternd's way to what needs root: by itself where it may, through postern-system where not.

A posternd that runs as root, or that may write the file, does it itself; so the gateway works on a box without
postern-system. Else postern-system is asked, and when it is not there the sentence says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path
from typing import Final

from gateway.control.blocking import SyncControlClient
from gateway.control.client import ControlClient
from gateway.control.protocol import DENIED, UNAVAILABLE, UNREACHABLE, ControlError, JsonValue, Params
from gateway.system.files import may_replace
from gateway.system.verbs import BUNDLE, VERBS, Place

TIMEOUT_S: Final = 30.0
LOG: Final = logging.getLogger(__name__)


class System:
    """The verbs, for the daemon. Every method raises ControlError with a sentence."""

    def __init__(self, config: Path, run_dir: Path) -> None:
        self._place = Place(config, run_dir=run_dir)
        self._socket = run_dir / "system.sock"

    @property
    def run_dir(self) -> Path:
        """Where the socket is, and what postern-system says of its progress."""
        return self._place.run_dir

    @property
    def bundle(self) -> Path:
        """Where an upgrade is put."""
        return self._place.root / BUNDLE

    async def write_config(self, text: str) -> None:
        """Replace the configuration file, atomically, with the owner and mode that it has."""
        if may_replace(self._place.config):
            await self._myself("write_config", {"text": text})
        else:
            await self.ask("write_config", {"text": text}, f"write {self._place.config}")

    async def set_timezone(self, name: str) -> None:
        """Set the system's time zone."""
        if os.access("/etc", os.W_OK | os.X_OK):  # not even for root where systemd keeps /etc read-only for posternd
            await self._myself("timezone", {"name": name})
        else:
            await self.ask("timezone", {"name": name}, "set the time zone")

    async def read_certificate(self, *, operator: bool = False) -> tuple[str, str] | None:
        """The certificate made on this device, or the operator's, and its key; None without one that may be read."""
        answer: JsonValue
        params: Params = {"operator": operator}
        try:
            if os.access(self._place.admin_web_dir, os.R_OK | os.X_OK):
                answer = await asyncio.to_thread(VERBS["read_certificate"], self._place, params)
            else:
                answer = await self.ask("read_certificate", params, "read the certificate")
        except ControlError as err:
            LOG.warning("the certificate is left out of the backup reason=%s", err.message)
            return None
        found = answer if isinstance(answer, dict) else {}
        certificate, key = found.get("certificate"), found.get("key")
        return (certificate, key) if isinstance(certificate, str) and isinstance(key, str) else None

    async def ask(self, verb: str, params: Params, what: str, timeout_s: float = TIMEOUT_S) -> JsonValue:
        """Have postern-system do something; `what` completes the sentence that posternd may not."""
        try:
            client = await ControlClient.connect(self._socket)
            try:
                return await client.call(verb, params, timeout_s)
            finally:
                await client.close()
        except ControlError as err:
            if err.code not in (UNREACHABLE, DENIED):
                raise
            raise ControlError(
                UNAVAILABLE,
                f"posternd may not {what} itself, and postern-system, which does it for posternd, does not answer at "
                f"{self._socket}: start it (systemctl start postern-system), or make the change as root",
            ) from err

    async def _myself(self, verb: str, params: Params) -> None:
        # In a thread: a flash that is being written may take its time to sync.
        await asyncio.to_thread(partial(VERBS[verb], self._place, params))


class StartingSystem:
    """The same before the event loop runs: what a restore writes outside the state directory. Raises ControlError."""

    def __init__(self, config: Path, run_dir: Path) -> None:
        self._place = Place(config, run_dir=run_dir)

    def write_config(self, text: str) -> None:
        """Replace the configuration."""
        self._do("write_config", {"text": text}, may_replace(self._place.config))

    def write_certificate(self, certificate: str, key: str, *, operator: bool = False) -> None:
        """Replace the certificate that was made on this device, or the copy of the operator's."""
        own = os.access(self._place.admin_web_dir, os.W_OK | os.X_OK)
        self._do("write_certificate", {"certificate": certificate, "key": key, "operator": operator}, own)

    def _do(self, verb: str, params: Params, own: bool) -> None:
        if own or os.geteuid() == 0:
            VERBS[verb](self._place, params)
            return
        with SyncControlClient(self._place.run_dir / "system.sock") as helper:
            helper.call(verb, params, TIMEOUT_S)
