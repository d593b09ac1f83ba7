"""What the timeline says, in words for people."""

from __future__ import annotations

import pytest

from gateway.session.words import data, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7200, "2 h 0 min"),
        (172_799, "47 h 59 min"),
        (604_799, "6 d 23 h"),
    ],
)
def test_times_have_their_largest_units(seconds: float, words: str) -> None:
    """Short ones exactly, long ones in days."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("octets", "words"),
    [(0, "0 B"), (999, "999 B"), (2082, "2.1 kB"), (3_003_226, "3.0 MB"), (2_000_000_000, "2.0 GB")],
)
def test_octets_have_a_unit(octets: int, words: str) -> None:
    """Nobody counts the digits of a number."""
    assert data(octets) == words
