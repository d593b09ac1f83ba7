"""How retired numbers are put together into blocks for the kernel's walks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.conntrack import cover, spans

numbers = st.integers(1, 0xFFFE)


def matches(number: int, block: tuple[int, int]) -> bool:
    """What the kernel asks of each entry's mark."""
    return number & block[1] == block[0]


@given(st.sets(numbers, max_size=60) | st.builds(lambda a, n: set(range(a, min(a + n, 0xFFFF))), numbers, numbers))
def test_every_retired_number_is_covered_and_nothing_else(retired: set[int]) -> None:
    """Blocks hold all retired numbers once, and none that may be given to somebody while the kernel walks."""
    blocks = list(cover(retired))
    sizes = [0x1_0000_0000 - mask for _value, mask in blocks]
    assert sum(sizes) == len(retired)
    for (value, _mask), size in zip(blocks, sizes, strict=True):
        assert value % size == 0
        assert set(range(value, value + size)) <= retired


def test_hundreds_of_neighbours_need_few_walks() -> None:
    """A burst of logouts among neighbouring numbers is a handful of walks, not hundreds."""
    assert len(list(cover(range(1001, 1500)))) <= 12
    assert list(cover([7])) == [(7, 0xFFFFFFFF)]
    assert list(cover([4, 5, 6, 7])) == [(4, 0xFFFFFFFC)]
    assert list(cover([])) == []


@given(st.sets(numbers, min_size=1, max_size=60))
def test_lists_are_at_most_sixteen_and_leave_out_the_unmarked(retired: set[int]) -> None:
    """What is listed holds every retired number, never mark 0 and never our reserved marks."""
    blocks = list(spans(retired))
    assert len(blocks) <= 16
    for number in retired:
        assert sum(matches(number, block) for block in blocks) == 1
    for mark in (0, 0x10000, 0x10001, 0x10002):
        assert not any(matches(mark, block) for block in blocks)
