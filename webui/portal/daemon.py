"""The portal's line to the daemon: calls, notices, and the stream that says who is online.

The daemon may restart at any time; `run` comes back to it by itself, and while it is away calls raise
`DaemonUnavailable` at once instead of keeping guests waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from gateway.control.client import ControlError
from webui.portal.model import (
    Client,
    ContractError,
    LoginReply,
    PortalConfig,
    read_client,
    read_config,
    read_login_reply,
    read_theme,
)
from webui.portal.online import OnlineClients

log = logging.getLogger(__name__)

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
Params = dict[str, JsonValue]

CALL_TIMEOUT_S: Final = 5.0  # the daemon answers within a millisecond; more means that something is wrong
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 0.5  # a guest who waits at the login page is worth a connection attempt
_CONFIG_POLL_S: Final = 60.0  # a change that no event announced


class DaemonUnavailable(Exception):
    """The daemon is not there, or not in time; it is worth trying again in a moment."""


class NoLease(Exception):
    """The address is not one that the daemon gave out."""


class ControlPort(Protocol):
    """What is used of `gateway.control.client.ControlClient`."""

    async def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Ask; raises ControlError."""

    def notify(self, method: str, params: Params | None = None) -> bool:
        """Tell, without an answer."""

    def subscribe(self, method: str, params: Params | None = None) -> AsyncIterator[JsonValue]:
        """A stream of events; raises ControlError when it breaks."""

    async def close(self) -> None:
        """Close the connection."""


Connect = Callable[[], Awaitable[ControlPort]]
OnConfig = Callable[[PortalConfig], Awaitable[None]]


class Daemon:
    """The daemon as the portal sees it."""

    def __init__(self, connect: Connect, online: OnlineClients) -> None:
        # Files of the operator's themes that a zone has now, by name and version.
        self.themes: dict[tuple[str, str], dict[str, bytes]] = {}
        self._connect = connect
        self._online = online
        self._port: ControlPort | None = None

    @property
    def available(self) -> bool:
        """Whether there was a connection when it was last used."""
        return self._port is not None

    async def run(self, on_config: OnConfig) -> None:
        """Stay connected for ever; `on_config` is awaited with the configuration at each connection and change."""
        retry_s = _FIRST_RETRY_S
        said = ""
        while True:
            port: ControlPort | None = None
            try:
                port = await self._connect()
                await on_config(await self._fetch_config(port))
                self._port = port
                retry_s = _FIRST_RETRY_S
                said = ""
                log.info("connected to the daemon")
                await self._follow(port, on_config)
                log.warning("the daemon ended the event stream")
            except ControlError as err:
                if err.message != said:
                    log.warning("no daemon code=%s reason=%s", err.code, err.message)
                    said = err.message
            except ContractError as err:
                log.error("daemon and portal are of different versions: %s", err)
            finally:
                self._port = None
                if port is not None:
                    await port.close()
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def _fetch_config(self, port: ControlPort) -> PortalConfig:
        config = read_config(await port.call("portal.config", {}, timeout_s=CALL_TIMEOUT_S))
        wanted = {(zone.theme, zone.theme_version) for zone in config.zones if zone.theme}
        themes = {place: files for place, files in self.themes.items() if place in wanted}
        for name, version in wanted - themes.keys():
            try:
                answer = await port.call("portal.theme", {"theme": name}, timeout_s=CALL_TIMEOUT_S)
                themes[name, version] = read_theme(answer)
            except (ControlError, ContractError) as err:
                log.error("theme not fetched, pages have our own look theme=%s reason=%s", name, err)
        self.themes = themes
        return config

    async def _follow(self, port: ControlPort, on_config: OnConfig) -> None:
        async with asyncio.TaskGroup() as group:
            poll = group.create_task(self._poll_config(port, on_config), name="portal config poll")
            try:
                # The stream begins with everybody who is online, so nothing known from before is needed.
                self._online.clear()
                async for event in port.subscribe("portal.events", {}):
                    if self._take_event(event):
                        await self._refresh(port, on_config)
            except ControlError as err:
                # Not raised: through the group it would come out as a group of exceptions.
                log.warning("the event stream broke code=%s reason=%s", err.code, err.message)
            finally:
                poll.cancel()

    def _take_event(self, event: JsonValue) -> bool:
        """Take one event; True when it says that the configuration changed."""
        if not isinstance(event, dict):
            return False
        clients = event.get("clients")
        for item in clients if isinstance(clients, list) else [event]:
            if isinstance(item, dict) and isinstance(ip := item.get("ip"), str):
                self._online.set(ip, online=item.get("state") == "online")
        return bool(event.get("config"))

    async def _poll_config(self, port: ControlPort, on_config: OnConfig) -> None:
        while True:
            await asyncio.sleep(_CONFIG_POLL_S)
            await self._refresh(port, on_config)

    async def _refresh(self, port: ControlPort, on_config: OnConfig) -> None:
        """Fetch the configuration again; the one that we have stays when that fails."""
        try:
            await on_config(await self._fetch_config(port))
        except ControlError as err:
            log.warning("configuration not fetched code=%s reason=%s", err.code, err.message)
        except ContractError as err:
            log.error("daemon and portal are of different versions: %s", err)

    async def call(self, method: str, params: Params, timeout_s: float = CALL_TIMEOUT_S) -> JsonValue:
        """Ask; raises DaemonUnavailable, NoLease, TimeoutError, or ControlError for what else the daemon refuses."""
        port = self._port
        if port is None:
            raise DaemonUnavailable
        try:
            return await port.call(method, params, timeout_s=timeout_s)
        except ControlError as err:
            if err.code in ("unreachable", "unavailable", "busy"):
                raise DaemonUnavailable from err
            if err.code == "no_lease":
                raise NoLease from err
            if err.code == "timeout":
                raise TimeoutError(err.message) from err
            raise

    def notify(self, method: str, params: Params) -> None:
        """Tell; lost when the daemon is away."""
        if self._port is not None:
            self._port.notify(method, params)

    async def lookup(self, ip: str, page: str = "") -> Client:
        """The client that holds an address; raises as `call`, but DaemonUnavailable for every failure of the daemon.

        `page` says what a client sees that is not online; the daemon puts it into the client's timeline.
        """
        params: Params = {"ip": ip, "page": page} if page else {"ip": ip}
        try:
            client = read_client(await self.call("client.lookup", params))
        except (TimeoutError, ControlError, ContractError) as err:
            log.warning("client not looked up ip=%s reason=%s", ip, err)
            raise DaemonUnavailable from err
        self._online.set(ip, online=client.state.value == "online")
        return client

    async def login(self, params: Params, timeout_s: float) -> LoginReply:
        """Ask to let a client in; raises as `call`, and ContractError."""
        return read_login_reply(await self.call("client.login", params, timeout_s))

    async def logout(self, ip: str) -> bool:
        """End a client's session; False when there was none. Raises NoLease and DaemonUnavailable."""
        try:
            value = await self.call("client.logout", {"ip": ip})
        except (TimeoutError, ControlError) as err:
            raise DaemonUnavailable from err
        self._online.set(ip, online=False)
        return isinstance(value, dict) and value.get("done") is True
