"""The portal's methods: what its stream of online clients says, whom it may let in, what it notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from gateway.control.portal_methods import PortalMethods
from gateway.control.protocol import ControlError, Params
from gateway.control.server import Caller
from gateway.session.actions import SaveSession
from gateway.session.events import Event, LeaseBound, LeaseEnded, LoginRequested, LogoutRequested
from gateway.session.model import ClientKey, LoginMethod, TerminateCause
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


def portal_of(life: Life) -> tuple[PortalMethods, list[tuple[str, str]], list[Event]]:
    """The portal's methods over the clients of a life, what they note, and what they post."""
    notes: list[tuple[str, str]] = []
    posted: list[Event] = []
    gateway = SimpleNamespace(
        machine=life.machine,
        hub=SimpleNamespace(
            watchers=[], post=posted.append, perform=lambda actions: None, answer_login=lambda answer: 7
        ),
        timeline=SimpleNamespace(add=lambda at, key, kind, text: notes.append((kind, text))),
        now=lambda: life.now,
    )
    return PortalMethods(cast("Gateway", gateway), b"secret"), notes, posted


def test_what_a_client_is_shown_is_noted_with_the_question_about_it() -> None:
    """Of a client that is held; who is online is led on and sees no login page."""
    life = Life()
    life.lease(ALICE)
    life.online(BOB)
    portal, notes, _ = portal_of(life)
    for key in (ALICE, BOB):
        portal.lookup(cast(Caller, None), {"ip": str(address_of(key)), "page": "login page shown"})
        portal.lookup(cast(Caller, None), {"ip": str(address_of(key))})
    assert notes == [("page", "login page shown")]


def test_a_form_that_was_made_for_another_device_lets_nobody_in() -> None:
    """The address went to somebody else meanwhile: to that device it is no login."""
    life = Life()
    life.lease(ALICE)
    portal, _, posted = portal_of(life)

    async def story() -> None:
        wish: Params = {"ip": str(address_of(ALICE)), "method": "click"}
        with pytest.raises(ControlError, match="another device"):
            portal.login(cast(Caller, None), wish | {"mac": str(BOB.mac)})
        assert posted == []
        portal.login(cast(Caller, None), wish | {"mac": str(ALICE.mac)})
        portal.login(cast(Caller, None), wish)

    asyncio.run(story())
    assert posted == [LoginRequested(ALICE, 7, LoginMethod.CLICK, None)] * 2


def test_changes_that_come_together_are_one_event() -> None:
    """Ten thousand clients that come back at once do not wake the portal ten thousand times; the order is kept."""
    life = Life()
    life.online(ALICE)
    life.online(BOB)
    ends = [LogoutRequested(key, None, TerminateCause.USER_REQUEST, "the guest") for key in (BOB, ALICE)]
    closing = [{"ip": str(address_of(key)), "state": "closing"} for key in (BOB, ALICE)]
    assert told(life, *ends) == [{"clients": closing}]
