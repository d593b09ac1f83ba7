from collections.abc import Callable, Iterator

from gateway.analysis.flows import Direction
from gateway.analysis.records import Record
from gateway.analysis.state import State

def bind(
    direction: type[Direction],
    opening_syn: Callable[..., bool],
    roll: Callable[..., None],
    feed: Callable[..., None],
    /,
) -> None: ...
def round_floats(tree: object, /) -> None: ...

class Records:
    def append(self, record: Record, /) -> None: ...
    def walk(
        self, buffer: bytes, position: int, header: int, unit_ns: int, big: bool, previous: int, until: int, /
    ) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...
    def __iter__(self) -> Iterator[Record]: ...

class Unusual:
    def __init__(
        self,
        records: Records,
        buffer: bytes,
        first_frame: int,
        ethertype_at: int,
        tcp: dict[bytes, Direction],
        state: State,
        /,
    ) -> None: ...
    def __iter__(self) -> Iterator[tuple[int, Record]]: ...
    def __next__(self) -> tuple[int, Record]: ...
