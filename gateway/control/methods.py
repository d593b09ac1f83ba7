"""What operators may call at the control socket (`docs/control-protocol.md` has the shapes).

Each method reads its parameters, asks one room, and answers with plain values. Changes of sessions go through the hub
as events, like everything else that changes a session.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final, cast

from gateway.addresses import MacAddress
from gateway.config_loader import check, interfaces
from gateway.control import listing
from gateway.control import params as read
from gateway.control.capture_methods import CaptureMethods
from gateway.control.doctor_methods import DoctorMethods
from gateway.control.guest_methods import LIMIT_NAMES, GuestMethods
from gateway.control.portal_methods import PortalMethods
from gateway.control.protocol import NOT_FOUND, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.control.system_methods import SystemMethods
from gateway.control.theme_methods import ThemeMethods
from gateway.control.views import SORTS, lease_row, matches, option_rows, session_details, session_row
from gateway.debug import Debugger, resident_bytes
from gateway.platform import platform
from gateway.session.actions import ReadCounters
from gateway.session.events import AuthorizeRequested, LogoutRequested
from gateway.session.model import (
    NO_LIMITS,
    AuthenticatedBy,
    ClientKey,
    Grant,
    Limits,
    SessionState,
    TerminateCause,
)
from gateway.session.table import Session, SessionTable
from gateway.timeline import TimelineEvent

if TYPE_CHECKING:
    from gateway.daemon import Gateway

MAX_ROWS: Final = 1000
SHOWN_EVENTS: Final = 50
KICK_CAUSES: Final = {
    "admin-reset": TerminateCause.ADMIN_RESET,
    "user-request": TerminateCause.USER_REQUEST,
    "nas-request": TerminateCause.NAS_REQUEST,
}


class Methods:
    """The methods of operators, and those of the portal beside them."""

    def __init__(self, gateway: Gateway, csrf_secret: bytes, metrics_text: Callable[[], str]) -> None:
        self._gateway = gateway
        self._metrics_text = metrics_text
        self.portal = PortalMethods(gateway, csrf_secret)
        self._guests = GuestMethods(gateway, self._clients)
        self._debugger = Debugger(gateway.rate_limiters())

    def table(self) -> dict[str, Method]:
        """Every method by its name, with who may call it."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        return {
            "status": Method(self.status, look),
            "sessions.list": Method(self.sessions_list, look),
            "sessions.show": Method(self.sessions_show, look),
            "sessions.kick": Method(self.sessions_kick, change),
            "sessions.authorize": Method(self.sessions_authorize, change),
            "leases.list": Method(self.leases_list, look),
            "leases.release": Method(self.leases_release, change),
            "users.add": Method(self.users_add, change),
            "users.list": Method(self.users_list, look),
            "users.passwd": Method(self.users_passwd, change),
            "users.remove": Method(self.users_remove, change),
            "config.check": Method(self.config_check, look),
            "config.show": Method(self.config_show, look),
            "config.reload": Method(self.config_reload, change),
            "ruleset.print": Method(self.ruleset_print, look),
            "ruleset.check": Method(self.ruleset_check, look),
            "events.list": Method(self.events_list, look),
            "events.follow": Method(self.events_follow, look, stream=True),
            "radius.status": Method(self.radius_status, look),
            "metrics.text": Method(self.metrics_text, look),
            **self._debugger.methods(),
            **CaptureMethods(self._gateway).table(),
            **DoctorMethods(self._gateway).table(),
            **self.portal.table(),
            **self._guests.table(),
            **ThemeMethods(self._gateway).table(),
            **SystemMethods(self._gateway.system).table(),
        }

    # -- the whole --------------------------------------------------------------------------------------------------

    def status(self, caller: Caller, params: Params) -> JsonValue:
        """How the gateway is doing, with warnings in sentences."""
        gateway = self._gateway
        zones: list[JsonValue] = []
        for zone in gateway.config.zones:
            counts = gateway.dhcp.servers[zone.name].counts()
            here = [session for session in gateway.machine.sessions if session.key.zone == zone.name]
            online = sum(session.online for session in here)
            zones.append(
                {
                    "name": zone.name,
                    "interface": zone.interface,
                    "address": str(zone.address),
                    "leases": counts.bound,
                    "pool": counts.pool_size,
                    "online": online,
                    "held": len(here) - online,
                }
            )
        sessions = gateway.machine.sessions
        return {
            **gateway.sources.build(),
            "device": platform(),
            "uptime_s": int(gateway.now() - gateway.started_at),
            "zones": zones,
            "sessions": {"online": sessions.online_count, "total": len(sessions)},
            "radius": self._servers(),
            "datapath": cast(JsonValue, gateway.datapath.status()),
            "journal": {
                "size_bytes": gateway.journal.size_bytes,
                "records": gateway.journal.appended,
                "waiting": gateway.journal.waiting_records,
                "lost": gateway.journal.lost_records,
            },
            "warnings": list(gateway.warnings()),
            "memory_rss_bytes": resident_bytes(),
            **gateway.resources(),
            "clock_set": gateway.hub.unix_offset_s is not None,
        }

    def metrics_text(self, caller: Caller, params: Params) -> JsonValue:
        """The metrics page."""
        return {"text": self._metrics_text()}

    def radius_status(self, caller: Caller, params: Params) -> JsonValue:
        """Servers, and the queue of accounting records."""
        status = self._gateway.radius.status()
        return {"servers": self._servers(), "queue": cast(JsonValue, status["accounting_queue"])}

    def _servers(self) -> JsonValue:
        return cast(JsonValue, self._gateway.radius.status()["servers"])

    # -- sessions ---------------------------------------------------------------------------------------------------

    def sessions_list(self, caller: Caller, params: Params) -> JsonValue:
        """A page of clients."""
        read.only(params, "zone", "state", "search", "sort", "descending", "offset", "limit")
        order = SORTS[str(read.choice(params, "sort", list(SORTS), "ip"))]
        descending = read.flag(params, "descending")
        zone = read.text(params, "zone", None)
        state = read.choice(params, "state", [item.value for item in SessionState], None)
        search = read.text(params, "search", "")
        offset = read.integer(params, "offset", 0)
        limit = read.integer(params, "limit", 100, low=1, high=MAX_ROWS)
        found = [
            session
            for session in self._gateway.machine.sessions
            if zone in (None, session.key.zone)
            and state in (None, session.state.value)
            and (not search or matches(session, search))
        ]
        found.sort(key=order, reverse=descending)
        page = found[offset : offset + limit]
        self._refresh(page)
        now = self._gateway.now()
        return {"total": len(found), "rows": [session_row(session, now) for session in page]}

    def sessions_show(self, caller: Caller, params: Params) -> JsonValue:
        """One client with its limits and its latest events."""
        read.only(params, "client")
        (session,) = self._clients(params)[:1]
        self._refresh([session])
        row = session_details(session, self._gateway.now())
        events = self._gateway.timeline.of_client(session.key, SHOWN_EVENTS)
        row["events"] = [self._event(event) for event in events]
        return row

    async def sessions_kick(self, caller: Caller, params: Params) -> JsonValue:
        """End the sessions of a client or user."""
        read.only(params, "client", "cause")
        cause = KICK_CAUSES[str(read.choice(params, "cause", list(KICK_CAUSES), "admin-reset"))]
        ended = 0
        for session in self._clients(params):
            request_id, answer = self._gateway.hub.request()
            self._gateway.hub.post(LogoutRequested(session.key, request_id, cause, f"operator {caller.name}"))
            ended += (await answer).done
        return {"ended": ended}

    async def sessions_authorize(self, caller: Caller, params: Params) -> JsonValue:
        """Let a client in without asking anybody."""
        read.only(params, "client", "minutes", "username", *LIMIT_NAMES)
        (session,) = self._clients(params)[:1]
        minutes = read.integer(params, "minutes", None, low=1)
        limits = self._limits(params)
        if minutes is not None:
            limits = replace(limits, session_time_s=minutes * 60)
        username = read.text(params, "username", session.key.mac.dashed(), longest=253)
        grant = Grant(username, AuthenticatedBy.LOCAL, limits)
        request_id, answer = self._gateway.hub.login_request()
        self._gateway.hub.post(AuthorizeRequested(session.key, request_id, grant, f"operator {caller.name}"))
        reply = await answer
        return {"result": reply.result.value, "message": reply.message}

    def _clients(self, params: Params) -> list[Session]:
        """The clients that a MAC, an address, a session id or a user name means; raises `not_found` for none."""
        wanted = read.text(params, "client").strip()
        sessions = self._gateway.machine.sessions
        found = list(_by_name(wanted, sessions))
        if not found:
            raise ControlError(NOT_FOUND, f"no client has the MAC, address, session id or user name {wanted!r}")
        return found

    def _refresh(self, sessions: list[Session]) -> None:
        """Read the counters of those that are online now."""
        online = tuple(session.key for session in sessions if session.online)
        if online:
            self._gateway.hub.perform([ReadCounters(online)])

    def _limits(self, params: Params) -> Limits:
        values = {name: read.integer(params, name, None, low=1) for name in LIMIT_NAMES}
        return replace(NO_LIMITS, **values)  # type: ignore[arg-type]  # every name is that of an int | None field

    # -- leases -----------------------------------------------------------------------------------------------------

    def leases_list(self, caller: Caller, params: Params) -> JsonValue:
        """Addresses given out, offered, reserved and set aside."""
        read.only(params, "zone")
        zone = read.text(params, "zone", None)
        now = self._gateway.now()
        rows: list[JsonValue] = []
        for name, server in self._gateway.dhcp.servers.items():
            if zone in (None, name):
                rows.extend(lease_row(row, name, now) for row in server.listing())
        return {"rows": rows}

    def leases_release(self, caller: Caller, params: Params) -> JsonValue:
        """Take a client's address back; its session ends."""
        read.only(params, "client")
        released = sum(self._gateway.dhcp.release(session.key) for session in self._clients(params))
        return {"released": released}

    # -- users ------------------------------------------------------------------------------------------------------

    async def users_add(self, caller: Caller, params: Params) -> JsonValue:
        """Make a local account."""
        read.only(params, "username", "password", "devices", "valid_until_unix", "note", *LIMIT_NAMES)
        await self._gateway.accounts.add_user(
            read.text(params, "username", longest=253),
            read.text(params, "password", longest=128),
            limits=self._limits(params),
            devices=read.integer(params, "devices", None, low=1),
            valid_until_unix=read.number(params, "valid_until_unix", None),
            note=read.text(params, "note", ""),
        )
        return {"username": params["username"]}

    async def users_list(self, caller: Caller, params: Params) -> JsonValue:
        """Local accounts, all or a part."""
        read.only(params, "username", *listing.NAMES)
        username = read.text(params, "username", None)
        users = await self._gateway.accounts.list_users()
        rows = [cast(listing.Row, user.as_row()) for user in users if username in (None, user.name)]
        sorts = ("username", "disabled", "valid_until_unix", "devices", "created_unix")
        return listing.part_of(rows, params, ("username", "note"), sorts)

    async def users_passwd(self, caller: Caller, params: Params) -> JsonValue:
        """Set another password."""
        read.only(params, "username", "password")
        username = read.text(params, "username")
        if not await self._gateway.accounts.set_password(username, read.text(params, "password", longest=128)):
            raise _no_user(username)
        return {"username": username}

    async def users_remove(self, caller: Caller, params: Params) -> JsonValue:
        """Remove an account; its sessions that are online go on, unless they are to end."""
        read.only(params, "username", "end_sessions")
        username = read.text(params, "username")
        if not await self._gateway.accounts.remove_user(username):
            raise _no_user(username)
        ended = await self._guests.user_closed(caller, username, read.flag(params, "end_sessions"), forget=True)
        return {"username": username, "ended": ended}

    # -- configuration and ruleset ----------------------------------------------------------------------------------

    def config_check(self, caller: Caller, params: Params) -> JsonValue:
        """What is wrong with a text, or with the file as it is now."""
        read.only(params, "text")
        path = self._gateway.path
        text = read.text(params, "text", None, longest=1 << 19)
        try:
            if text is None:
                text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return {"problems": [f"{path}: {error}"]}
        return {"problems": [str(problem) for problem in check(text, str(path), interfaces())]}

    def config_show(self, caller: Caller, params: Params) -> JsonValue:
        """The options in force."""
        read.only(params, "effective")
        effective = read.flag(params, "effective")
        rows = option_rows(self._gateway.loaded, effective=effective, filename=str(self._gateway.path))
        return {"rows": list(rows)}

    async def config_reload(self, caller: Caller, params: Params) -> JsonValue:
        """Read the file again and apply what is different."""
        read.only(params)
        changed, problems = await self._gateway.reload()
        return {"changed": list(changed), "problems": [str(problem) for problem in problems]}

    def ruleset_print(self, caller: Caller, params: Params) -> JsonValue:
        """The ruleset as it is loaded."""
        read.only(params)
        return {"text": self._gateway.datapath.ruleset_text()}

    async def ruleset_check(self, caller: Caller, params: Params) -> JsonValue:
        """What nft says of the ruleset, and how the kernel differs from what is wanted."""
        read.only(params)
        return {"problems": list(await self._gateway.datapath.check())}

    # -- events -----------------------------------------------------------------------------------------------------

    def events_list(self, caller: Caller, params: Params) -> JsonValue:
        """The latest events, oldest first, of all clients or of one."""
        read.only(params, "client", "limit")
        limit = read.integer(params, "limit", 100, low=1, high=MAX_ROWS)
        timeline = self._gateway.timeline
        if params.get("client") is None:
            events = timeline.newest(limit)
        else:
            keys = self._keys_of(params)
            # By time alone: what happened at one moment keeps the order in which it was noted.
            found = itertools.chain.from_iterable(timeline.of_client(key, limit) for key in keys)
            events = sorted(found, key=lambda event: event.at)[-limit:]
        return {"rows": [self._event(event) for event in events]}

    async def events_follow(self, caller: Caller, params: Params) -> AsyncIterator[JsonValue]:
        """Events as they happen."""
        read.only(params, "client")
        keys = None if params.get("client") is None else set(self._keys_of(params))
        with self._gateway.timeline.follower(None) as follower:
            async for event in follower:
                if keys is None or event.key in keys:
                    yield self._event(event)

    def _keys_of(self, params: Params) -> list[ClientKey]:
        """The client that is meant, in every zone; one that is gone is found by its MAC only."""
        try:
            mac = MacAddress.parse(read.text(params, "client"))
        except ValueError:
            return [session.key for session in self._clients(params)]
        return [ClientKey(zone.name, mac) for zone in self._gateway.config.zones]

    def _event(self, event: TimelineEvent) -> dict[str, JsonValue]:
        offset = self._gateway.hub.unix_offset_s
        session = self._gateway.machine.sessions.get(event.key)
        return {
            "at_unix": None if offset is None else round(event.at + offset, 3),
            "at": round(event.at, 3),
            "zone": event.key.zone,
            "mac": str(event.key.mac),
            "ip": None if session is None or session.address is None else str(session.address),
            "kind": event.kind,
            "text": event.text,
        }


def _by_name(wanted: str, sessions: SessionTable) -> Iterator[Session]:
    """Clients by address, MAC, session id or user name, whichever the text is."""
    try:
        session = sessions.at_address(IPv4Address(wanted))
        if session is not None:
            yield session
        return
    except ValueError:
        pass  # not an address
    try:
        mac = MacAddress.parse(wanted)
    except ValueError:
        session = sessions.with_id(wanted)
        if session is not None:
            yield session
            return
        found = (sessions.get(key) for key in sessions.of_user(wanted))
        yield from (session for session in found if session is not None)
        return
    yield from (session for session in sessions if session.key.mac == mac)


def _no_user(username: str) -> ControlError:
    return ControlError(NOT_FOUND, f"there is no local account {username!r}")
