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


def told(life: Life, *events: Event) -> list[object]:
    """What a portal that follows is told when these events happen at once."""
    watchers: list[Callable[[ClientKey], None]] = []
    gateway = SimpleNamespace(machine=life.machine, hub=SimpleNamespace(watchers=watchers))
    portal = PortalMethods(cast("Gateway", gateway), b"secret")

    async def story() -> list[object]:
        stream = portal.events(cast(Caller, None), {})
        assert "clients" in cast(dict[str, object], await anext(stream))
        for action in [action for event in events for action in life.send(event)]:
            if isinstance(action, SaveSession):
                for watch in watchers:
                    watch(action.key)
        found: list[object] = []
        try:
            while True:
                found.append(await asyncio.wait_for(anext(stream), 0.05))
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


def test_changes_that_come_together_are_one_event() -> None:
    """Ten thousand clients that come back at once do not wake the portal ten thousand times; the order is kept."""
    life = Life()
    life.online(ALICE)
    life.online(BOB)
    ends = [LogoutRequested(key, None, TerminateCause.USER_REQUEST, "the guest") for key in (BOB, ALICE)]
    closing = [{"ip": str(address_of(key)), "state": "closing"} for key in (BOB, ALICE)]
    assert told(life, *ends) == [{"clients": closing}]
