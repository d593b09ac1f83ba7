"""What is known to be wrong in the kernel: noted by those who find it, taken by the watch."""

from __future__ import annotations

from gateway.addresses import MacAddress
from gateway.datapath.damage import Damage
from gateway.session.model import ClientKey

ALICE, BOB = (ClientKey("guest", MacAddress(bytes((2, 0, 0, 0, 0, last)))) for last in (1, 2))


def test_clients_are_taken_once() -> None:
    """What is noted twice is one client; what was taken is forgotten, and the watch is woken each time."""
    damage = Damage()
    assert not damage
    damage.note((ALICE,))
    damage.note((ALICE, BOB))
    assert damage
    assert damage.look.is_set()
    assert damage.take() == {ALICE, BOB}
    assert not damage
    assert damage.take() == set()


def test_a_doubt_about_the_table_wakes_the_watch_without_a_client() -> None:
    """Then nobody is to be restored, but somebody is to look."""
    damage = Damage()
    damage.note()
    assert damage.look.is_set()
    assert not damage
