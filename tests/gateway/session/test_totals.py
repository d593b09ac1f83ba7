"""What all sessions carried together, which outlives each of them."""

from __future__ import annotations

from gateway.session.events import CountersRead, LogoutRequested, TrafficDenied
from gateway.session.model import Counters, TerminateCause
from tests.gateway.session.life import ALICE, BOB, Life


def test_what_sessions_carried_adds_up_over_their_ends() -> None:
    """Each octet once, whether it was read while they were online or at their end; a reading that runs back is none."""
    life = Life()
    life.online(ALICE)
    life.online(BOB)
    life.send(CountersRead(((ALICE, Counters(100, 1, 1000, 1)), (BOB, Counters(10, 1, 20, 1)))))
    life.send(CountersRead(((ALICE, Counters(50, 1, 500, 1)),)))
    life.send(CountersRead(((ALICE, Counters(150, 1, 1500, 1)),)))
    assert (life.machine.upload_bytes, life.machine.download_bytes) == (160, 1520)
    life.send(LogoutRequested(ALICE, 9, TerminateCause.USER_REQUEST, "guest"))
    life.send(TrafficDenied(ALICE, Counters(200, 1, 2000, 1)))
    assert (life.machine.upload_bytes, life.machine.download_bytes) == (210, 2020)
    life.online(ALICE)
    life.send(CountersRead(((ALICE, Counters(5, 1, 5, 1)),)))
    assert (life.machine.upload_bytes, life.machine.download_bytes) == (215, 2025)
