"""Which identifier is used when."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.radius.identifiers import PER_SOCKET, REST_S, Identifiers, identifier_of, socket_of


def test_one_socket_serves_until_its_identifiers_are_used_up() -> None:
    """256 requests fit on a socket, in order from a random first one; the next opens another."""
    made = Identifiers(2, Random(4))
    slots = [made.take(0.0) for _ in range(PER_SOCKET)]
    assert made.sockets == 1
    assert len(set(slots)) == PER_SOCKET
    assert slots[0] != 0
    following = made.take(0.0)
    assert following is not None
    assert (socket_of(following), made.sockets) == (1, 2)


def test_nothing_is_given_out_twice_and_there_is_an_end() -> None:
    """When all sockets are full there is no slot, until one is set free."""
    made = Identifiers(2, Random(4))
    slots = [slot for slot in (made.take(0.0) for _ in range(2 * PER_SOCKET)) if slot is not None]
    assert len(set(slots)) == 2 * PER_SOCKET
    assert made.take(0.0) is None
    made.release(slots[7])
    assert made.take(0.0) == slots[7]


def test_a_used_identifier_rests_while_others_are_free() -> None:
    """An identifier used a moment ago is not used again while another socket may be opened; later it is."""
    made = Identifiers(2, Random(4))
    for _ in range(PER_SOCKET):
        slot = made.take(0.0)
        assert slot is not None
        made.sent(slot, 0.0)
        made.release(slot)
    fresh = made.take(1.0)
    assert fresh is not None
    assert socket_of(fresh) == 1
    again = Identifiers(2, Random(4))
    for _ in range(PER_SOCKET):
        slot = again.take(0.0)
        assert slot is not None
        again.sent(slot, 0.0)
        again.release(slot)
    assert again.take(REST_S) is not None
    assert again.sockets == 1


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=600), st.integers(0, 99))
def test_slots_in_use_are_always_distinct(takes: list[bool], seed: int) -> None:
    """Whatever the order of taking and releasing, no slot is in use twice and identifiers fit in an octet."""
    made = Identifiers(1, Random(seed))
    used: list[int] = []
    for now, take in enumerate(takes):
        if take:
            slot = made.take(float(now))
            if slot is None:
                assert len(used) == PER_SOCKET
                continue
            assert slot not in used
            assert 0 <= identifier_of(slot) < 256
            made.sent(slot, float(now))
            used.append(slot)
        elif used:
            made.release(used.pop(0))
