"""The portal's methods: what its stream of online clients says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from gateway.control.portal_methods import PortalMethods
from gateway.control.server import Caller
from gateway.session.actions import SaveSession
from gateway.session.events import Event, LeaseBound, LeaseEnded, LogoutRequested
from gateway.session.model import ClientKey, TerminateCause
from tests.gateway.session.life import ALICE, BOB, Life, address_of

if TYPE_CHECKING:
    from gateway.daemon import Gateway


def told(life: Life, event: Event) -> list[object]:
    """What a portal that follows is told when an event happens."""
    watchers: list[Callable[[ClientKey], None]] = []
    gateway = SimpleNamespace(machine=life.machine, hub=SimpleNamespace(watchers=watchers))
    portal = PortalMethods(cast("Gateway", gateway), b"secret")

    async def story() -> list[object]:
        events = portal.events(cast(Caller, None), {})
        assert "clients" in cast(dict[str, object], await anext(events))
        actions = life.send(event)
        for action in actions:
            if isinstance(action, SaveSession):
                for watch in watchers:
                    watch(action.key)
        found: list[object] = []
        try:
            while True:
                found.append(await asyncio.wait_for(anext(events), 0.05))
        except TimeoutError:
            return found

    return asyncio.run(story())


def test_a_session_that_ends_is_told_with_its_address() -> None:
    """Also when the address is gone, or another, by the time the portal is told: somebody else may get it next."""
    for event in (
        LogoutRequested(ALICE, None, TerminateCause.USER_REQUEST, "the guest"),
        LeaseEnded(ALICE, address_of(ALICE), "expired"),
        LeaseBound(ALICE, address_of(BOB), 5000.0),
    ):
        life = Life()
        life.online(ALICE)
        assert told(life, event) == [{"ip": str(address_of(ALICE)), "state": "closing"}], event
