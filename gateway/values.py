"""Values: small immutable classes, the same as `@dataclass(frozen=True, slots=True)` makes, made later and faster.

The gateway has nearly three hundred of them. The standard decorator writes and compiles six functions for each when its
module is imported, which was half of what importing the daemon cost, and most of these functions are never called. Here
`__init__`, `__eq__` and `__hash__` are compiled when they are called for the first time, the rest is shared by all
classes, and `__init__` fills the slots by their descriptors, in two thirds of the time.

To its users a value is a dataclass: `fields`, `replace`, `asdict`, `field(default_factory=...)`, `__post_init__` and
`match` work, mypy checks it as one, and assigning to a field raises FrozenInstanceError. What the standard decorator
can do beyond that nobody needed (inherited, keyword-only or computed fields, order): the first three are refused when
the class is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, Final, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")
_Function = Callable[..., Any]  # Any: functions that are written here take what the class has
_OWN: Final = ("__dict__", "__weakref__")  # of the class without slots that the decorator is given


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What the standard library notes about such a class and its fields is taken from this one."""

    field: int


_PARAMS: Final = _Pattern.__dataclass_params__  # type: ignore[attr-defined]  # for `is_dataclass` and its like
_KIND: Final = fields(_Pattern)[0]._field_type  # type: ignore[attr-defined]  # `fields` lists those of this kind


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def value_class(cls: type[T]) -> type[T]:
    """Make a value of a class with annotated fields; raises TypeError for what is not supported."""
    body = dict(cls.__dict__)
    made: dict[str, Field[Any]] = {}
    for base in cls.__mro__[1:]:
        if hasattr(base, "__dataclass_fields__"):
            raise TypeError(f"{cls.__qualname__}: a value inherits no fields")
    for name, annotation in body.get("__annotations__", {}).items():
        if str(annotation).startswith(("ClassVar", "typing.ClassVar")):
            continue
        default = body.pop(name, MISSING)
        made[name] = _field(cls, name, annotation, default if isinstance(default, Field) else field(default=default))
    for name in _OWN:
        body.pop(name, None)
    if body.get("__hash__", MISSING) is None:
        del body["__hash__"]  # what Python notes where a class has its own __eq__
    body |= {
        "__slots__": tuple(made),
        "__match_args__": tuple(made),
        "__dataclass_fields__": made,
        "__dataclass_params__": _PARAMS,
        "__setattr__": _refuse_to_set,
        "__delattr__": _refuse_to_delete,
        "__getstate__": _state,
        "__setstate__": _set_state,
    }
    body.setdefault("__repr__", _repr)
    kind: Any = type(cls)  # Any: a class of classes has no type that says so
    value: type[T] = kind(cls.__name__, cls.__bases__, body)
    for name, write in (("__init__", _init), ("__eq__", _eq), ("__hash__", _hash)):
        if name not in body:
            _later(value, name, write)
    return value


def _field(cls: type, name: str, annotation: Any, item: Field[Any]) -> Field[Any]:
    if not item.init or item.kw_only is True:
        raise TypeError(f"{cls.__qualname__}.{name}: a value's fields are all given, and in their order")
    if item.default.__class__.__hash__ is None:
        raise TypeError(f"{cls.__qualname__}.{name}: a default that can change belongs into a default_factory")
    item.name = name
    item.type = annotation
    item.kw_only = False
    item._field_type = _KIND  # type: ignore[attr-defined]
    return item


def _later(cls: type, name: str, write: Callable[[type], _Function]) -> None:
    """Have a method written when it is called first. Two threads may both do so: the results are the same."""

    def first(*arguments: object, **named: object) -> object:
        method = write(cls)
        setattr(cls, name, method)
        return method(*arguments, **named)

    setattr(cls, name, first)


def _init(cls: type) -> _Function:
    known: dict[str, object] = {"__missing": MISSING}
    parameters, lines = [], []
    for name, item in _fields(cls).items():
        known[f"__set_{name}"] = cls.__dict__[name].__set__  # the slot's: __setattr__ refuses
        given = name
        if item.default_factory is not MISSING:
            known[f"__make_{name}"] = item.default_factory
            parameters.append(f"{name}=__missing")
            given = f"__make_{name}() if {name} is __missing else {name}"
        elif item.default is not MISSING:
            known[f"__default_{name}"] = item.default
            parameters.append(f"{name}=__default_{name}")
        else:
            parameters.append(name)
        lines.append(f"__set_{name}(self, {given})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    return _function(cls, "__init__", ["self", *parameters], lines or ["pass"], known)


def _eq(cls: type) -> _Function:
    lines = [
        "if other.__class__ is not self.__class__:",
        "    return NotImplemented",
        f"return {_compared(cls, 'self')} == {_compared(cls, 'other')}",
    ]
    return _function(cls, "__eq__", ["self", "other"], lines, {})


def _hash(cls: type) -> _Function:
    return _function(cls, "__hash__", ["self"], [f"return hash({_compared(cls, 'self')})"], {})


def _compared(cls: type, who: str) -> str:
    """An expression for the tuple of fields that make two values equal."""
    return f"({''.join(f'{who}.{name}, ' for name, item in _fields(cls).items() if item.compare)})"


def _function(cls: type, name: str, parameters: list[str], lines: list[str], known: Mapping[str, object]) -> _Function:
    """Compile a method; what is `known` to it are variables of a function around it, the fastest to read."""
    inner = "".join(f"\n        {line}" for line in lines)
    made: dict[str, Any] = {}
    exec(f"def around({', '.join(known)}):\n    def {name}({', '.join(parameters)}):{inner}\n    return {name}", made)
    method: _Function = made["around"](**known)
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    method.__module__ = cls.__module__
    return method


def _fields(cls: type) -> dict[str, Field[Any]]:
    found: dict[str, Field[Any]] = cls.__dict__["__dataclass_fields__"]
    return found


# -- shared by all values ---------------------------------------------------------------------------------------------


def _repr(self: Any) -> str:
    shown = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_to_set(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    """For `copy` and `pickle`, which would assign to the fields."""
    return [getattr(self, item.name) for item in fields(self)]


def _set_state(self: Any, state: list[object]) -> None:
    for item, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, item.name, value)
