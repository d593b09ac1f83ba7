"""Client numbers against a model that keeps lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.session.numbers import ClientNumbers

HIGHEST = 6
NUMBERS = st.integers(0, HIGHEST + 1)
STEPS = st.lists(
    st.one_of(st.just(("take", 0)), st.tuples(st.sampled_from(["claim", "give_back", "retire", "swept"]), NUMBERS)),
    max_size=80,
)


class Model:
    """New ones in order, then those freed longest ago."""

    def __init__(self) -> None:
        self.new = list(range(1, HIGHEST + 1))
        self.freed: list[int] = []
        self.used: set[int] = set()
        self.retired: set[int] = set()

    def take(self, _: int) -> int | None:
        free = self.new or self.freed
        if not free:
            return None
        self.used.add(number := free.pop(0))
        return number

    def claim(self, number: int) -> bool:
        for free in (self.new, self.freed):
            if number in free:
                free.remove(number)
                self.used.add(number)
                return True
        return False

    def give_back(self, number: int) -> None:
        if number in self.used:
            self.used.remove(number)
            self.freed.append(number)

    def retire(self, number: int) -> None:
        if number in self.used:
            self.used.remove(number)
            self.retired.add(number)

    def swept(self, number: int) -> None:
        if number in self.retired:
            self.retired.remove(number)
            self.freed.append(number)


@given(STEPS)
def test_a_number_has_one_owner_and_rests_as_long_as_it_can(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order, also orders that make no sense."""
    numbers, model = ClientNumbers(HIGHEST), Model()
    for what, number in steps:
        if what == "take":
            assert numbers.take() == model.take(number)
        else:
            assert getattr(numbers, what)(number) == getattr(model, what)(number)
        assert (numbers.in_use, numbers.retired) == (len(model.used), len(model.retired))


def test_all_numbers_go_round_without_taking_more_memory() -> None:
    """The queue of freed numbers is as large at the start as after every number was used."""
    numbers = ClientNumbers()
    for _ in range(2):
        taken = [number for _ in range(65534) if (number := numbers.take()) is not None]
        assert len(set(taken)) == 65534
        assert numbers.take() is None
        for number in taken:
            numbers.retire(number)
            numbers.swept(number)
