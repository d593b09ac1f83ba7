"""The administration's line to the daemon: every call carries who it is made for, and the daemon decides.

Nothing is cached and nothing is decided here: a session that was revoked is refused at its next call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from gateway.control.client import ControlError

__all__ = ["AdminDaemon", "Answer", "ControlError", "JsonValue", "Params"]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
Params = dict[str, JsonValue]
# Any, because answers go into templates and JSON as they are; their shapes are in docs/control-protocol.md.
Answer = dict[str, Any]

CALL_TIMEOUT_S: Final = 15.0
UNAUTHENTICATED: Final = "unauthenticated"  # the code of a session or token that is missing, unknown or over


class ControlPort(Protocol):
    """What is used of `gateway.control.client.ControlClient`."""

    async def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Ask; raises ControlError."""

    def subscribe(self, method: str, params: Params | None = None) -> AsyncIterator[JsonValue]:
        """A stream of events; raises ControlError when it breaks."""

    async def close(self) -> None:
        """Close the connection."""


class AdminDaemon:
    """The daemon as the administration sees it; every call raises ControlError when it is refused or not answered."""

    def __init__(self, port: ControlPort) -> None:
        self._port = port

    async def ask(self, method: str, params: Params, timeout_s: float = CALL_TIMEOUT_S) -> Answer:
        """One of the administration's own methods (`admin.login` …)."""
        return answer_of(await self._port.call(method, params, timeout_s))

    async def call(
        self, credential: str, address: str, method: str, params: Params, timeout_s: float = CALL_TIMEOUT_S
    ) -> Answer:
        """A control method on behalf of whoever holds `credential`, asked from `address`."""
        wrapped: Params = {"credential": credential, "address": address, "method": method, "params": params}
        return answer_of(await self._port.call("admin.call", wrapped, timeout_s))

    async def stream(self, credential: str, address: str, method: str, params: Params) -> AsyncIterator[Answer]:
        """A stream of the daemon on behalf of whoever holds `credential`; ends with `unauthenticated` when it ends."""
        wrapped: Params = {"credential": credential, "address": address, "method": method, "params": params}
        async for event in self._port.subscribe("admin.stream", wrapped):
            yield answer_of(event)

    async def close(self) -> None:
        """Close the connection."""
        await self._port.close()


def answer_of(value: JsonValue) -> Answer:
    """An answer as an object; methods without a result give an empty one."""
    return value if isinstance(value, dict) else {}
