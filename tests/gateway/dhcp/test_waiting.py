"""Newcomers that were turned away."""

from __future__ import annotations

from gateway.dhcp.waiting import MEMORY_S, TurnedAway


def test_a_client_is_known_from_a_second_after_it_was_first_turned_away() -> None:
    """A burst is one question; asking on does not push the moment away."""
    waiting = TurnedAway()
    assert not waiting.has_waited(b"a", 0.0)
    for tenth in range(10):
        waiting.add(b"a", tenth / 10)
        assert not waiting.has_waited(b"a", tenth / 10)
    assert waiting.has_waited(b"a", 1.0)
    assert not waiting.has_waited(b"b", 1.0)


def test_what_was_long_ago_does_not_count() -> None:
    """A client that comes back hours later begins anew."""
    waiting = TurnedAway()
    waiting.add(b"a", 0.0)
    assert waiting.has_waited(b"a", MEMORY_S)
    assert not waiting.has_waited(b"a", MEMORY_S + 1)
    waiting.add(b"a", 1000.0)
    assert waiting.has_waited(b"a", 1001.0)


def test_memory_is_bounded() -> None:
    """A million invented MACs are not remembered; the first ones are forgotten first."""
    waiting = TurnedAway(keep=10)
    for number in range(1000):
        waiting.add(b"%d" % number, number / 1000)
    assert len(waiting) == 10
    assert waiting.has_waited(b"999", 10.0)
    assert not waiting.has_waited(b"989", 10.0)
