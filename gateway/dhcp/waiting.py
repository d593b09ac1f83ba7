"""Newcomers that were turned away for want of an address, and so are known when they ask again.

Pure state. In a flood of DISCOVERs from ever new MACs, what tells a real client is that it repeats itself (RFC 2131
§4.1): it comes back after seconds under the same MAC. An address that is short then goes to one that has asked before.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.dhcp.leases import OFFER_PATIENCE_S

MEMORY_S: Final = 120.0
"""Longer than the longest pause of a client that repeats itself (64 s, RFC 2131 §4.1)."""

CLIENTS_KEPT: Final = 16384
"""Half a minute of newcomers at the default limit; those that were turned away first are forgotten first."""


class TurnedAway:
    """Who was turned away, and since when it has been asking."""

    def __init__(self, keep: int = CLIENTS_KEPT) -> None:
        self._keep = keep
        self._since: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, client: bytes, now: float) -> None:
        """The client got nothing now; the first time counts."""
        since = self._since.get(client)
        if since is not None and now - since <= MEMORY_S:
            return
        self._since[client] = now
        self._since.move_to_end(client)
        if len(self._since) > self._keep:
            self._since.popitem(last=False)

    def has_waited(self, client: bytes, now: float) -> bool:
        """Whether the client was turned away before, long enough ago that this is no burst."""
        since = self._since.get(client)
        return since is not None and OFFER_PATIENCE_S <= now - since <= MEMORY_S
