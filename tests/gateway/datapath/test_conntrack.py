"""How retired numbers are put together into blocks for the kernel's walks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.conntrack import cover

numbers = st.integers(1, 0xFFFE)


def matches(number: int, block: tuple[int, int]) -> bool:
    """What the kernel asks of each entry's mark."""
    return number & block[1] == block[0]


@given(st.sets(numbers, max_size=60), st.sets(numbers, max_size=60))
def test_every_retired_number_is_covered_and_no_kept_one(retired: set[int], kept: set[int]) -> None:
    """Blocks hold all retired numbers, none that is online, never mark 0, and nothing beyond 16 bits."""
    retired -= kept
    blocks = list(cover(retired, {0, *kept}))
    for number in retired:
        assert sum(matches(number, block) for block in blocks) == 1
    for number in (0, 0x10000, 0x10001, 0x10002, *kept):
        assert not any(matches(number, block) for block in blocks)


def test_hundreds_of_neighbours_need_few_walks() -> None:
    """A burst of logouts among the low numbers is a handful of walks, not hundreds."""
    online = {0, *range(1, 1001)}
    assert len(list(cover(range(1001, 1500), online))) <= 8
    assert list(cover([7], {0})) == [(4, 0xFFFFFFFC)]
    assert list(cover([], {0})) == []


def test_mixed_numbers_are_told_apart() -> None:
    """Where every other number is online each retired one needs its own walk."""
    assert len(list(cover(range(1, 41, 2), {0, *range(2, 42, 2)}))) == 20
