"""What the guests' portal may call: its configuration, one client at a time, and the stream of who is online.

A client is always named by the address that its connection came from; the portal cannot ask about, log in or log out
anybody by name or MAC.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final, cast

from gateway.control import params as read
from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.session.actions import ReadCounters, ReplyLogin, ReplyRequest
from gateway.session.events import DeviceReturned, LoginRequested, LogoutRequested
from gateway.session.model import (
    ClientKey,
    Credentials,
    LoginMethod,
    PapCredentials,
    SessionState,
    TerminateCause,
    VoucherCode,
)
from gateway.session.table import Session
from gateway.session.usage import remaining_bytes

if TYPE_CHECKING:
    from gateway.daemon import Gateway

NO_LEASE: Final = "no_lease"
LONGEST_NAME: Final = 253  # what one RADIUS attribute carries (RFC 2865 §5)
LONGEST_PASSWORD: Final = 128  # RFC 2865 §5.2
LONGEST_CODE: Final = 128  # more than any code with separators; what is longer is no typing error
FOLLOWER_EVENTS: Final = 4096  # changes that the portal may leave unread before it must begin anew
TOGETHER_S: Final = 0.01  # how long a change waits for others, to be told with them
EVENTS_TOGETHER: Final = 256
LOGIN_METHODS: Final = {method.value: method for method in LoginMethod}
NOTE_KINDS: Final = ("probe", "redirect", "page")
_ON_THE_WAY_IN: Final = (SessionState.ONLINE, SessionState.AUTHENTICATING, SessionState.OPENING)


class PortalMethods:
    """The methods, over the rooms of a gateway."""

    def __init__(self, gateway: Gateway, csrf_secret: bytes) -> None:
        self._gateway = gateway
        self._csrf_secret = csrf_secret
        self._followers: set[asyncio.Queue[dict[str, JsonValue]]] = set()
        self.figures: dict[str, JsonValue] = {}  # what the portal counted, as it last said
        gateway.hub.watchers.append(self._client_changed)

    def table(self) -> dict[str, Method]:
        """All methods of the portal."""
        return {
            "portal.config": Method(self.config, Access.PORTAL | Access.WRITE),
            "portal.theme": Method(self.theme, Access.PORTAL | Access.WRITE),
            "portal.events": Method(self.events, Access.PORTAL | Access.WRITE, stream=True),
            "portal.metrics": Method(self.metrics, Access.PORTAL | Access.WRITE),
            "client.lookup": Method(self.lookup, Access.PORTAL | Access.WRITE),
            "client.login": Method(self.login, Access.PORTAL | Access.WRITE),
            "client.logout": Method(self.logout, Access.PORTAL | Access.WRITE),
            "client.note": Method(self.note, Access.PORTAL | Access.WRITE),
        }

    @property
    def connected(self) -> bool:
        """Whether a portal follows our events now."""
        return bool(self._followers)

    # -- configuration and changes ----------------------------------------------------------------------------------

    def config(self, caller: Caller, params: Params) -> JsonValue:
        """Everything that the portal is configured with."""
        config = self._gateway.config
        uam = asdict(config.uam)
        zones: list[JsonValue] = [
            {
                "name": zone.name,
                "interface": zone.interface,
                "address": str(zone.address.ip),
                "prefix": zone.address.network.prefixlen,
                "port": config.uam.port,
                "methods": [method.value for method in zone.methods],
                "title": zone.title,
                "terms": zone.terms,
                "ssid": zone.ssid,
                "redirect_url": zone.redirect_url,
                "remember": zone.remember,
                **self._look(zone.name),
            }
            for zone in config.zones
        ]
        return {
            "portal_name": config.dns.portal_name,
            "status_name": config.dns.status_name,
            "csrf_secret": self._csrf_secret.hex(),
            "uam": uam,
            "zones": zones,
        }

    def _look(self, zone: str) -> dict[str, JsonValue]:
        """Theme and sentences of a zone; its own sentences go before those for all zones."""
        texts: dict[str, dict[str, str]] = {}
        for scope in ("", zone):
            for language, own in self._gateway.guests.texts.get(scope, {}).items():
                texts.setdefault(language, {}).update(own)
        theme, version = self._gateway.themes.active(zone)
        return {"theme": theme, "theme_version": version, "texts": cast(JsonValue, texts)}

    async def theme(self, caller: Caller, params: Params) -> JsonValue:
        """The files of a theme."""
        read.only(params, "theme")
        files = await self._gateway.themes.files(read.text(params, "theme", longest=64))
        return {"files": {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}}

    async def events(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        """First everybody who is online, then each change: {"ip", "state"}, or {"config": true}.

        Changes that come soon after each other are one event: {"clients": [...]} in their order, and "config" with it.
        """
        queue: asyncio.Queue[dict[str, JsonValue]] = asyncio.Queue(FOLLOWER_EVENTS)
        self._followers.add(queue)
        try:
            online: list[JsonValue] = [
                {"ip": str(session.address), "state": session.state.value}
                for session in self._gateway.machine.sessions.online()
            ]
            yield {"clients": online}
            while True:
                first = await queue.get()
                if queue.empty():
                    await asyncio.sleep(TOGETHER_S)
                events = [first]
                while len(events) < EVENTS_TOGETHER and not queue.empty():
                    events.append(queue.get_nowait())
                yield _together(events)
        finally:
            self._followers.discard(queue)

    def configuration_changed(self) -> None:
        """Tell the portal to fetch its configuration again."""
        self._publish({"config": True})

    def _client_changed(self, key: ClientKey) -> None:
        session = self._gateway.machine.sessions.get(key)
        if session is None or not self._followers:
            return
        # Of a session that ends with its lease, the address that it had; somebody else may have it next.
        address = session.address if session.ending is None else session.ending.address
        if address is not None:
            self._publish({"ip": str(address), "state": session.state.value})

    def _publish(self, event: dict[str, JsonValue]) -> None:
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()  # the oldest; a portal that is so far behind asks about clients one by one
            queue.put_nowait(event)

    def metrics(self, caller: Caller, params: Params) -> JsonValue:
        """Take the portal's cumulative counts."""
        self.figures = params
        return None

    # -- one client -------------------------------------------------------------------------------------------------

    def lookup(self, caller: Caller, params: Params) -> JsonValue:
        """Who has an address, and how the session stands, with counters read now.

        With `page`, what the portal shows to a client that is not online goes into its timeline.
        """
        session = self._session(params)
        page = read.text(params, "page", "")
        if session.online:
            self._gateway.hub.perform([ReadCounters((session.key,))])
        answer: Params = {
            "zone": session.key.zone,
            "mac": str(session.key.mac),
            "ip": str(session.address),
            "state": session.state.value,
        }
        grant = session.grant
        if grant is not None:
            now = self._gateway.now()
            answer |= {
                "username": grant.username,
                "session_id": session.acct_session_id,
                # On the machine's plain monotonic clock, which the portal has too; ours runs through suspend.
                "online_since_s": time.monotonic() - max(0.0, now - session.started_at),
                "session_start_unix": session.started_unix,
                "seconds_left": None if session.ends_at is None else max(0, int(session.ends_at - now)),
                "upload_bytes": session.counters.upload_bytes,
                "download_bytes": session.counters.download_bytes,
                "bytes_left": remaining_bytes(session),
                "upload_bps": session.limits.upload_bps,
                "download_bps": session.limits.download_bps,
                "method": session.method.value if session.method else "",
                "reply_message": grant.reply_message,
                "redirection_url": grant.redirection_url,
            }
        if page and session.state not in _ON_THE_WAY_IN:
            self._noted(session, "page", page)  # after the answer: a remembered device may come back by it
        return answer

    def login(self, caller: Caller, params: Params) -> Awaitable[JsonValue]:
        """Let a client in, if somebody vouches for it; as slow as RADIUS is.

        With `mac`, whom the form was made for: refused when the address is another device's by now.
        """
        session = self._session(params)
        if read.mac(params, "mac", session.key.mac) != session.key.mac:
            raise ControlError(NO_LEASE, f"{session.address} is another device's now")
        method = LOGIN_METHODS[str(read.choice(params, "method", LOGIN_METHODS))]
        credentials: Credentials | VoucherCode | None = None
        if method is LoginMethod.VOUCHER:
            credentials = VoucherCode(read.text(params, "code", longest=LONGEST_CODE))
        if method is LoginMethod.PASSWORD:
            username = read.text(params, "username", longest=LONGEST_NAME)
            password = read.text(params, "password", longest=LONGEST_PASSWORD)
            credentials = PapCredentials(username, password)
        answer: asyncio.Future[JsonValue] = asyncio.get_running_loop().create_future()
        request_id = self._gateway.hub.answer_login(partial(self._answer_login, answer))
        self._gateway.hub.post(LoginRequested(session.key, request_id, method, credentials))
        return answer

    def _answer_login(self, answer: asyncio.Future[JsonValue], login: ReplyLogin) -> None:
        if answer.done():
            return
        session = self._gateway.machine.sessions.get(login.key)
        left = None
        if session is not None and session.online and session.ends_at is not None:
            left = max(0, int(session.ends_at - self._gateway.now()))
        answer.set_result(
            {
                "result": login.result.value,
                "message": login.message,
                "redirection_url": login.redirection_url,
                "seconds_left": left,
                "reason": login.reason,
                "wait_s": math.ceil(login.wait_s),
            }
        )

    def logout(self, caller: Caller, params: Params) -> Awaitable[JsonValue]:
        """End the session of a client."""
        session = self._session(params)
        request_id, reply = self._gateway.hub.request()
        answer: asyncio.Future[JsonValue] = asyncio.get_running_loop().create_future()
        reply.add_done_callback(lambda done: _answer_request(done, answer))
        self._gateway.hub.post(LogoutRequested(session.key, request_id, TerminateCause.USER_REQUEST, "the guest"))
        return answer

    def note(self, caller: Caller, params: Params) -> JsonValue:
        """Put what the portal saw into the client's timeline."""
        session = self._session(params)
        kind = str(read.choice(params, "kind", NOTE_KINDS))
        text = read.text(params, "text", "")
        self._noted(session, kind, text)
        return None

    def _noted(self, session: Session, kind: str, text: str) -> None:
        """What a client did at the portal; one that is remembered may come back by it."""
        self._gateway.timeline.add(self._gateway.now(), session.key, kind, text)
        if session.state is SessionState.HELD and session.key in self._gateway.machine.remembered:
            self._gateway.hub.post(DeviceReturned(session.key))

    def _session(self, params: Params) -> Session:
        address = read.ipv4(params, "ip")
        assert isinstance(address, IPv4Address)
        session = self._gateway.machine.sessions.at_address(address)
        if session is None:
            raise ControlError(NO_LEASE, f"{address} is not an address that this gateway gave out")
        return session


def _together(events: list[dict[str, JsonValue]]) -> JsonValue:
    """Several changes as one event."""
    if len(events) == 1:
        return events[0]
    clients: list[JsonValue] = [event for event in events if "ip" in event]
    together: dict[str, JsonValue] = {"clients": clients} if clients else {}
    if len(clients) < len(events):
        together["config"] = True
    return together


def _answer_request(reply: asyncio.Future[ReplyRequest], answer: asyncio.Future[JsonValue]) -> None:
    if not answer.done() and not reply.cancelled():
        result = reply.result()
        answer.set_result({"done": result.done, "reason": result.reason})
