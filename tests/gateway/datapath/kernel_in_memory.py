"""Elements of sets and maps in memory, with what a kernel refuses: a stand-in for nfnetlink."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Done,
    Drop,
    ElementSet,
    ElementsRefused,
    ReadDone,
    Stored,
    Tally,
    key_of_number,
)

NOTHING = Tally(0, 0)


class MemoryElements:
    """Holds what it is told; `refusal`, while set, is the answer to everything."""

    mode = "memory"

    def __init__(self) -> None:
        self.sets: dict[ElementSet, dict[bytes, Stored]] = {}
        self.refusal: ElementsRefused | None = None
        self.transactions = 0

    def commit(self, changes: Sequence[Change], done: Done) -> None:
        """All changes, or none."""
        self.transactions += 1
        if self.refusal is not None:
            done(self.refusal, {})
            return
        finals = {}
        for change in changes:
            elements = self.sets.setdefault(change.set, {})
            if isinstance(change, Drop):
                gone = elements.pop(change.key, None)
                if gone is not None and change.set.kind.counted:
                    finals[change.set.name, change.key] = gone.tally
            elif change.key in elements:
                elements[change.key] = Stored(change.mark, elements[change.key].tally)
            else:
                elements[change.key] = Stored(change.mark, change.tally or NOTHING)
        done(None, finals)

    def read(self, numbers: Sequence[int], done: ReadDone) -> None:
        """The counters of those that are there."""
        keys = {number: key_of_number(number) for number in numbers}
        up, down = self.sets.get(UP, {}), self.sets.get(DOWN, {})
        done({number: (up[key].tally, down[key].tally) for number, key in keys.items() if key in up and key in down})

    async def dump(self, element_set: ElementSet) -> dict[bytes, Stored]:
        """A copy of a set."""
        if self.refusal is not None:
            raise self.refusal
        return dict(self.sets.get(element_set, {}))

    def close(self) -> None:
        """Nothing is held elsewhere."""

    def count(self, number: int, up: Tally, down: Tally) -> None:
        """Let a client's counters stand at these values."""
        self.sets[UP][key_of_number(number)] = Stored(0, up)
        self.sets[DOWN][key_of_number(number)] = Stored(0, down)
