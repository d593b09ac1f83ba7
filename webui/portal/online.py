"""Which client addresses are online, as the daemon pushed it; lets the redirect decide without asking.

Pure state. It may be wrong for a moment after a change, or for longer if an event was lost: a client that is said to be
online, yet is sent back to us again and again, is doubted, so that its browser does not go round for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MAX_CLIENTS: Final = 65536  # as many as the daemon may have sessions
_BOUNCES: Final = 4
_BOUNCE_WINDOW_S: Final = 10.0


@dataclass(slots=True)
class _Bounces:
    since: float = 0.0
    count: int = 0


class OnlineClients:
    """A bounded set of addresses."""

    def __init__(self) -> None:
        self._clients: dict[str, _Bounces | None] = {}

    def set(self, ip: str, *, online: bool) -> None:
        """Take what the daemon says about one client."""
        self._clients.pop(ip, None)
        if online:
            if len(self._clients) >= _MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]
            self._clients[ip] = None

    def __contains__(self, ip: object) -> bool:
        return ip in self._clients

    def __len__(self) -> int:
        return len(self._clients)

    def clear(self) -> None:
        """Forget all: a new daemon tells everything again."""
        self._clients.clear()

    def bounced(self, ip: str, now: float) -> bool:
        """Note that an online client was sent back to where it came from; True when that happened too often."""
        if ip not in self._clients:
            return False
        bounces = self._clients[ip]
        if bounces is None or now - bounces.since > _BOUNCE_WINDOW_S:
            bounces = self._clients[ip] = _Bounces(since=now)
        bounces.count += 1
        return bounces.count > _BOUNCES
