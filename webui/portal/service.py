"""The portal as a whole: a listener per zone, kept as the daemon's configuration wants them, and its numbers pushed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from webui.listener import Listener
from webui.portal.counts import PortalCounts
from webui.portal.daemon import CALL_TIMEOUT_S, Connect, Daemon, DaemonUnavailable, JsonValue
from webui.portal.desk import Desk
from webui.portal.language import Languages
from webui.portal.logins import Logins
from webui.portal.model import Client, PortalConfig, Zone
from webui.portal.notes import NoteLimiter
from webui.portal.online import OnlineClients
from webui.portal.pages import Pages
from webui.portal.site import Site
from webui.portal.theme import Theme
from webui.server import HttpServer, ServerLimits
from webui.wsgi import ThreadedWsgi

log = logging.getLogger(__name__)

_PUSH_S: Final = 5.0
_LISTEN_RETRY_S: Final = 1.0
_PAGE_GRACE_S: Final = 2.0
_IP_FREEBIND: Final = 15  # linux/in.h; lets us listen before the zone's interface has its address

Place = tuple[str, int]  # address and port
Look = tuple[str, str, tuple[tuple[str, str, str], ...]]  # theme, its version, the operator's sentences


class PortalService:
    """Everything that `postern-web --role portal` runs."""

    def __init__(self, connect: Connect, parser: str, group: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds; tasks run in `group`. Raises OSError or ValueError for a broken theme."""
        self.counts = PortalCounts()
        self.online = OnlineClients()
        self.daemon = Daemon(connect, self.online)
        self.server = HttpServer(ServerLimits(), parser, group)
        self._clock = clock
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._pages: dict[Look, Pages] = {("", "", ()): Pages(Theme(), Languages())}
        self._logins = Logins(self.daemon, self.online, self.counts, group, clock)
        self._notes = NoteLimiter()
        self._pool = ThreadedWsgi()
        self._wanted: dict[Place, Desk] = {}
        self._listening: dict[Place, tuple[Listener, Site]] = {}
        self._failed: set[Place] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to connect to the daemon; listeners follow when it has told the configuration."""
        self._tasks = [
            self._group.create_task(self.daemon.run(self.apply), name="portal daemon"),
            self._group.create_task(self._push(), name="portal numbers"),
            self._group.create_task(self._keep_listening(), name="portal listeners"),
        ]

    @property
    def places(self) -> list[Place]:
        """Where the portal listens now."""
        return list(self._listening)

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let what is under way be answered for `grace_s` seconds, then end everything."""
        for listener, _ in self._listening.values():
            listener.close()
        await self.server.stop(grace_s)
        self._logins.stop()
        await self._pool.close(_PAGE_GRACE_S)
        for task in self._tasks:
            task.cancel()

    async def apply(self, config: PortalConfig) -> None:
        """Make the listeners and bounds as a configuration wants them; the same one again changes nothing."""
        uam = config.uam
        self.server.set_limits(
            ServerLimits(
                read_timeout_s=uam.read_timeout,
                write_timeout_s=uam.write_timeout,
                idle_timeout_s=uam.idle_timeout,
                max_connections=uam.max_connections,
                max_connections_per_client=uam.max_connections_per_client,
                rate=uam.rate_limit if uam.rate_limit_enabled else None,
                rate_burst=uam.rate_limit_burst,
                rate_cleanup_interval_s=uam.rate_limit_cleanup_interval,
            )
        )
        self._logins.set_bounds(uam.login_attempts, uam.login_backoff, uam.login_timeout)
        looks = {_look(zone) for zone in config.zones}
        self._pages = {look: pages for look, pages in self._pages.items() if look in looks or not any(look)}
        self._wanted = {(str(zone.address), zone.port): self._desk(config, zone) for zone in config.zones}
        for place in [place for place in self._listening if place not in self._wanted]:
            listener, _ = self._listening.pop(place)
            listener.close()
            log.info("no longer listening address=%s port=%d", *place)
        for place, (_, site) in self._listening.items():
            site.set_desk(self._wanted[place])
        self._listen_where_missing()

    def _desk(self, config: PortalConfig, zone: Zone) -> Desk:
        return Desk(zone, config, self.daemon, self._logins, self._pages_of(zone), self._notes, self._clock)

    def _pages_of(self, zone: Zone) -> Pages:
        """The pages in the look and words of a zone; in our own look where the theme cannot be used."""
        look = _look(zone)
        files = self.daemon.themes.get((zone.theme, zone.theme_version), {})
        if zone.theme and not files:
            look = ("", "", zone.texts)  # asked for again with the next configuration
        if look not in self._pages:
            try:
                theme = Theme(files)
            except (ValueError, KeyError) as err:
                log.error("theme cannot be used, pages have our own look theme=%s reason=%s", zone.theme, err)
                theme = Theme()
            self._pages[look] = Pages(theme, Languages(own=zone.texts))
        return self._pages[look]

    def _listen_where_missing(self) -> None:
        for place, desk in list(self._wanted.items()):
            if place in self._listening:
                continue
            try:
                sock = _bind(place)
            except OSError as err:
                if place not in self._failed:
                    log.warning("cannot listen address=%s port=%d reason=%s; trying on", *place, err)
                    self._failed.add(place)
                continue
            site = Site(desk, self.online, self.counts, self._pool, self._group, self._lookup)
            self._listening[place] = (Listener(self.server, sock, site), site)
            self._failed.discard(place)
            log.info("listening zone=%s address=%s port=%d", desk.zone.name, *place)

    async def _keep_listening(self) -> None:
        while True:
            await asyncio.sleep(_LISTEN_RETRY_S)
            if len(self._listening) < len(self._wanted):
                self._listen_where_missing()

    def _lookup(self, ip: str) -> Client:
        """`Daemon.lookup` for the threads of the pages."""
        future = asyncio.run_coroutine_threadsafe(self.daemon.lookup(ip), self._loop)
        try:
            return future.result(CALL_TIMEOUT_S + 1)
        except TimeoutError as err:
            future.cancel()
            raise DaemonUnavailable from err

    async def _push(self) -> None:
        while True:
            await asyncio.sleep(_PUSH_S)
            self.daemon.notify("portal.metrics", self.numbers())

    def numbers(self) -> dict[str, JsonValue]:
        """All counts since the start, as the daemon takes them with `portal.metrics`."""
        counts, served = self.counts, self.server.counts
        return {
            "logins": [{"type": kind, "count": count} for kind, count in counts.logins.items()],
            "login_outcomes": [
                {"type": kind, "status": status, "count": count} for (kind, status), count in counts.outcomes.items()
            ],
            "login_duration_seconds": [{"type": kind, **counts.durations[kind].as_json()} for kind in counts.durations],
            "redirects": counts.redirects,
            "probes_answered": counts.probes_answered,
            "http_requests": served.requests,
            "http_bad_requests": served.bad_requests,
            "http_rate_limited": served.rate_limited,
            "http_refused_connections": served.refused_connections,
            "http_timeouts": served.timeouts,
            "http_failures": served.failures,
            "http_connections": len(self.server.connections),
        }


def _look(zone: Zone) -> Look:
    return zone.theme, zone.theme_version, zone.texts


def _bind(place: Place) -> socket.socket:
    """A listening socket at an address that need not exist yet; raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind(place)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
