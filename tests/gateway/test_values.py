"""Values: they are what the standard library's frozen dataclasses are, to everybody who uses them."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.values import value_class

PROJECT = Path(__file__).resolve().parent.parent.parent
OLD = "@dataclass(frozen=True, slots=True)"


@value_class
class Lease:
    """As the gateway writes them."""

    mac: str
    seconds: float = 60.0
    options: dict[int, str] = field(default_factory=dict)
    LONGEST: ClassVar[int] = 3600

    @property
    def is_long(self) -> bool:
        """Longer than all."""
        return self.seconds > self.LONGEST


@dataclass(frozen=True, slots=True)
class Twin:
    """The same by the standard library."""

    mac: str
    seconds: float = 60.0
    options: dict[int, str] = field(default_factory=dict)
    LONGEST: ClassVar[int] = 3600


@value_class
class Pair:
    """One that can be a key; what was seen does not tell one from another, and the secret is not shown."""

    zone: str
    number: int
    seen: float = field(default=0.0, compare=False)
    secret: str = field(default="", repr=False)


@value_class
class Nothing:
    """An event without particulars."""


@value_class
class Checked:
    """Refuses what it was given."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError("ends before it begins")


def fresh() -> type[Any]:
    """A class of which no method was called yet."""

    @value_class
    class Fresh:
        first: int
        second: str = "two"

    return Fresh


@pytest.mark.parametrize("kind", [Lease, Twin])
def test_fields_are_given_by_position_or_name_and_have_defaults(kind: Callable[..., Any]) -> None:
    """Each instance has a container of its own from `default_factory`."""
    one, other = kind("02:00", options={1: "a"}), kind(mac="02:01", seconds=5)
    assert (one.mac, one.seconds, one.options) == ("02:00", 60.0, {1: "a"})
    assert (other.seconds, other.options) == (5, {})
    assert kind("x").options is not kind("x").options


@pytest.mark.parametrize("kind", [Lease, Twin])
def test_it_looks_the_same_from_outside(kind: Callable[..., Any]) -> None:
    """The functions of `dataclasses`, `match` and printing work."""
    one: Any = kind("02:00", 5.0)
    assert is_dataclass(type(one))
    assert [item.name for item in fields(one)] == ["mac", "seconds", "options"]
    assert asdict(one) == {"mac": "02:00", "seconds": 5.0, "options": {}}
    assert replace(one, seconds=6.0) == kind("02:00", 6.0)
    assert repr(one) == f"{type(one).__name__}(mac='02:00', seconds=5.0, options={{}})"
    assert type(one).__match_args__ == ("mac", "seconds", "options")
    assert copy.deepcopy(one) == copy.copy(one) == pickle.loads(pickle.dumps(one)) == one
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("kind", [Lease, Twin])
def test_a_field_cannot_be_assigned_or_deleted(kind: Callable[..., Any]) -> None:
    """A value that was handed on stays what it was."""
    one = kind("02:00")
    with pytest.raises(FrozenInstanceError, match="seconds"):
        one.seconds = 1.0
    with pytest.raises(FrozenInstanceError, match="seconds"):
        del one.seconds
    assert one == kind("02:00")


def test_a_value_gets_no_other_attributes() -> None:
    """Not even by accident; the standard decorator with slots trips over itself here."""
    one: Any = Lease("02:00")
    with pytest.raises(FrozenInstanceError, match="other"):
        one.other = 1


@pytest.mark.parametrize("kind", [Lease, Twin])
def test_wrong_arguments_are_refused_by_the_class_name(kind: Callable[..., Any]) -> None:
    """At the first call and at the next."""
    for _ in range(2):
        with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'mac'"):
            kind()
        with pytest.raises(TypeError, match="unexpected keyword argument 'port'"):
            kind("02:00", port=1)


def test_equal_values_are_one_key() -> None:
    """Fields outside the comparison count for neither."""
    assert Pair("guest", 1, seen=1.0) == Pair("guest", 1, seen=2.0)
    assert len({Pair("guest", 1, seen=1.0), Pair("guest", 1, seen=2.0), Pair("guest", 2)}) == 2
    assert hash(Pair("guest", 1)) == hash(("guest", 1, ""))
    others: list[object] = [("guest", 1, ""), Nothing(), None]
    assert Pair("guest", 1) not in others
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(())


def test_a_value_with_a_list_is_no_key() -> None:
    """As the standard one: its hash asks the fields."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Lease("02:00"))


def test_a_field_can_be_kept_from_printing() -> None:
    """Secrets are not in logs."""
    assert repr(Pair("guest", 1, secret="hidden")) == "Pair(zone='guest', number=1, seen=0.0)"


def test_methods_of_the_class_are_its_own() -> None:
    """Properties, class variables and `__post_init__` work; what the class defines itself is not replaced."""

    @value_class
    class Own:
        number: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    assert Lease("02:00", 4000).is_long
    assert not Lease("02:00").is_long
    with pytest.raises(ValueError, match="before"):
        Checked(2, 1)
    assert Own(1) == Own(2)
    assert (hash(Own(1)), repr(Own(1))) == (7, "own")


def test_a_pattern_takes_a_value_apart() -> None:
    """Events and actions are matched by position or by name."""
    match Pair("guest", 3):
        case Pair(zone, number=number):
            assert (zone, number) == ("guest", 3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"__annotations__": {"a": "int"}, "a": field(init=False)}, "all given"),
        ({"__annotations__": {"a": "int"}, "a": field(kw_only=True)}, "in their order"),
        ({"__annotations__": {"a": "list[int]"}, "a": []}, "default_factory"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_class_and_field(body: dict[str, Any], words: str) -> None:
    """At import, where the author sees it."""
    with pytest.raises(TypeError, match=rf"Bad\.a: .*{words}"):
        value_class(type("Bad", (), body))


def test_fields_are_not_inherited() -> None:
    """Neither from another value nor from a dataclass."""
    for base in (Lease, Twin):
        with pytest.raises(TypeError, match="Child: a value inherits no fields"):
            value_class(type("Child", (base,), {}))


def test_nothing_is_compiled_before_it_is_used() -> None:
    """What an import costs; a first call makes the method, and the next finds it there."""
    kind = fresh()
    names = ("__init__", "__eq__", "__hash__")
    before = {name: kind.__dict__[name] for name in names}
    one = kind(1)
    made = kind.__dict__["__init__"]
    assert made is not before["__init__"]
    assert [kind.__dict__[name] is before[name] for name in names[1:]] == [True, True]
    assert one == kind(1)
    assert hash(one) == hash(kind(1))
    assert kind.__dict__["__init__"] is made
    assert [kind.__dict__[name] is before[name] for name in names[1:]] == [False, False]
    assert made.__qualname__ == f"{kind.__qualname__}.__init__"


def test_the_first_instances_may_be_made_by_many_threads_at_once() -> None:
    """The daemon has threads; none of them sees half a class."""
    for _ in range(50):
        kind = fresh()
        gate = threading.Barrier(4)
        found: list[Any] = []

        def make(kind: type[Any] = kind, gate: threading.Barrier = gate, found: list[Any] = found) -> None:
            gate.wait()
            found.append(kind(1) == kind(1, "two") and hash(kind(1)) == hash((1, "two")))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 4


def test_the_gateway_writes_its_frozen_classes_this_way() -> None:
    """One way for all that posternd, the web processes and the command line import; an analysis imports neither."""
    others = [
        str(path.relative_to(PROJECT))
        for room in ("gateway", "webui")
        for path in sorted((PROJECT / room).rglob("*.py"))
        if OLD in path.read_text(encoding="utf-8") and "analysis" not in path.parts and path.name != "values.py"
    ]
    assert not others, f"{', '.join(others)}: write @value_class (gateway/values.py) instead of {OLD}"
