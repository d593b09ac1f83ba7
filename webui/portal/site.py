"""One zone's portal as a listener serves it: whose host is asked, then which page (rules 1.1 and 1.2 of the portal).

Own names come first: a stranger's host with a path such as /login is not a call to the portal. The way of a stranger's
request needs no question to the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from socket import inet_aton
from typing import Final

from webui.app import Lookup, make_app
from webui.messages import MAX_BODY_BYTES, Endpoint, Handler, Request, Response, plain, refused
from webui.portal import api, forms
from webui.portal.counts import PortalCounts
from webui.portal.daemon import DaemonUnavailable, NoLease
from webui.portal.desk import Desk
from webui.portal.online import OnlineClients
from webui.portal.probes import is_probe, success_answer
from webui.portal.redirect import host_and_target, original_url, redirect, split_port, to_portal
from webui.wsgi import ThreadedWsgi

_MAX_DOUBTED: Final = 64
_BOTTLE_PATHS: Final = ("/status", "/logged-out", "/terms")


class Site:
    """The application of one listener; `set_desk` gives it another configuration while it serves."""

    def __init__(
        self,
        desk: Desk,
        online: OnlineClients,
        counts: PortalCounts,
        pool: ThreadedWsgi,
        group: asyncio.TaskGroup,
        lookup: Lookup,
    ) -> None:
        self._online = online
        self._counts = counts
        self._pool = pool
        self._group = group
        self._lookup = lookup
        self._doubted: set[str] = set()
        self.set_desk(desk)

    def set_desk(self, desk: Desk) -> None:
        """Serve by this configuration from now on."""
        self._desk = desk
        self._own_names = desk.own_names
        self._origin = desk.zone.origin
        self._network, self._mask = int(desk.zone.network.network_address), int(desk.zone.network.netmask)
        app = make_app(desk, self._lookup)

        def page(request: Request) -> Awaitable[Response]:
            return self._pool.run(app, request)

        def native(handler: Callable[[Desk, Request], Awaitable[Response]]) -> Handler:
            return lambda request: handler(desk, request)

        bottle = Endpoint(page)
        self._endpoints: dict[str, dict[str, Endpoint]] = {
            "/": {"GET": Endpoint(native(forms.show_login))},
            "/login": {
                "GET": Endpoint(native(forms.show_login)),
                "POST": Endpoint(native(forms.login), forms.FORM_LIMIT_BYTES),
            },
            "/logout": {"GET": bottle, "POST": Endpoint(native(forms.logout), forms.FORM_LIMIT_BYTES)},
            "/api/v1/login": {"POST": Endpoint(native(api.login), MAX_BODY_BYTES)},
            "/api/v1/status": {"GET": Endpoint(native(api.status))},
            "/api/v1/logout": {"POST": Endpoint(native(api.logout), MAX_BODY_BYTES)},
            **{path: {"GET": bottle} for path in _BOTTLE_PATHS},
        }
        self._files = bottle

    refusal = staticmethod(refused)

    def route(self, request: Request) -> Response | Endpoint:
        """Decide by the head of a request."""
        host, target = host_and_target(request)
        name, port = split_port(host)
        path = target.partition("?")[0]
        if name.rstrip(".") not in self._own_names:
            return self._strangers(request, host, name, target, path)
        zone = self._desk.zone
        # As `IPv4Address in IPv4Network`, for a tenth of the time.
        if int.from_bytes(inet_aton(request.client), "big") & self._mask != self._network:
            return plain(403, "the portal answers clients of its own network only", close=True)
        if port != zone.port and request.method in ("GET", "HEAD"):
            # Port 80 leads here only until login; a page that stays must be under the port that stays.
            return redirect(302, f"http://{name}:{zone.port}{target}", close=True)
        request.target = target
        return self._own(request, path)

    def _own(self, request: Request, path: str) -> Response | Endpoint:
        methods = self._endpoints.get(path)
        if methods is None:
            if path.startswith("/static/") and request.method in ("GET", "HEAD"):
                return self._files
            if path.startswith("/api/") or request.method not in ("GET", "HEAD"):
                return plain(404, "no such page")
            return self._desk.pages.not_found(self._desk.visit({}, request.header("accept-language")))
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            response = plain(405, "method not allowed")
            allowed = [*methods, "HEAD"] if "GET" in methods else [*methods]
            response.headers.append(("Allow", ", ".join(allowed)))
            return response
        return endpoint

    def _strangers(self, request: Request, host: str, name: str, target: str, path: str) -> Response:
        ip = request.client
        url = original_url(host, target)
        if ip in self._online:
            answer = success_answer(name, path)
            if answer is not None:
                self._counts.probes_answered += 1
                return answer
            if url and not self._online.bounced(ip, self._desk.clock()):
                return redirect(302, url, close=True)
            self._doubt(ip)
        self._counts.redirects += 1
        if self._desk.daemon.available:
            self._desk.note(ip, "probe" if is_probe(name, path) else "redirect", url)
        return to_portal(self._origin, url)

    def _doubt(self, ip: str) -> None:
        """Ask the daemon whether a client is online that keeps coming back; the answer corrects `online`."""
        if ip in self._doubted or len(self._doubted) >= _MAX_DOUBTED:
            return
        self._doubted.add(ip)
        self._group.create_task(self._settle(ip), name="portal doubt")

    async def _settle(self, ip: str) -> None:
        try:
            await self._desk.daemon.lookup(ip)
        except NoLease:
            self._online.set(ip, online=False)
        except DaemonUnavailable:
            pass  # it is asked again at the next return
        finally:
            self._doubted.discard(ip)
