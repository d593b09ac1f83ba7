"""The control methods `events.list` and `events.follow`: the timeline for people.

The hub says how a client's name is resolved and what the wall clock is; nothing about sessions is known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from gateway.control import params as read
from gateway.control.protocol import JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.session.model import ClientKey
from gateway.timeline import Timeline, TimelineEvent

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 10_000
MAX_CLIENT: Final = 253  # characters: the longest user name


@dataclass(frozen=True, slots=True)
class EventMethods:
    """The two methods over one timeline."""

    timeline: Timeline
    resolve: Callable[[str], ClientKey]  # MAC, address, session id or user -> client; raises ControlError(not_found)
    address_of: Callable[[ClientKey], IPv4Address | None]  # the client's address now
    unix_offset_s: Callable[[], float | None]  # unix time = monotonic time + offset; None while the clock is unset

    def methods(self) -> dict[str, Method]:
        """What the daemon adds to its control methods."""
        return {
            "events.list": Method(self.last, Access.READ),
            "events.follow": Method(self.follow, Access.READ, stream=True),
        }

    def last(self, caller: Caller, params: Params) -> JsonValue:
        """{"client"?, "limit"?} -> {"rows": [...]}, oldest first."""
        key, limit = self._read(params)
        return {"rows": [self.row(event) for event in self._newest(key, limit)]}

    def follow(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        """{"client"?, "limit"?} -> the last `limit` events, then each one as it happens, without a gap between."""
        key, limit = self._read(params)
        return self._follow(key, limit)

    def row(self, event: TimelineEvent) -> JsonValue:
        """One event as the protocol has it."""
        offset = self.unix_offset_s()
        address = self.address_of(event.key)
        return {
            "at_unix": None if offset is None else round(event.at + offset, 3),
            "at": round(event.at, 3),
            "zone": event.key.zone,
            "mac": str(event.key.mac),
            "ip": None if address is None else str(address),
            "kind": event.kind,
            "text": event.text,
        }

    async def _follow(self, key: ClientKey | None, limit: int) -> AsyncIterator[JsonValue]:
        with self.timeline.follower(key) as follower:  # before the past is read, so that nothing falls between
            for event in self._newest(key, limit):
                yield self.row(event)
            async for event in follower:
                yield self.row(event)

    def _newest(self, key: ClientKey | None, limit: int) -> list[TimelineEvent]:
        return self.timeline.newest(limit) if key is None else self.timeline.of_client(key, limit)

    def _read(self, params: Params) -> tuple[ClientKey | None, int]:
        read.only(params, "client", "limit")
        client = read.text(params, "client", None, longest=MAX_CLIENT)
        limit = read.integer(params, "limit", DEFAULT_LIMIT, low=0, high=MAX_LIMIT)
        return (None if client is None else self.resolve(client)), limit
