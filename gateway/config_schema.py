"""What can be configured, as plain values: every section and option with its kind, default, unit, range and meaning.

Made from the tree of `config`, so that forms and the REST API's document cannot know other options than the loader.
"""

from __future__ import annotations

import typing
from dataclasses import MISSING, Field
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Config, Endpoint, Secret
from gateway.config_loader import REPEATED, SINGLE, option_fields, option_name, plain
from gateway.control.protocol import JsonValue
from gateway.control.views import written

_KINDS: Final[dict[Any, str]] = {
    bool: "switch",
    int: "integer",
    float: "number",
    str: "text",
    Secret: "secret",
    MacAddress: "mac",
    Ipv4Range: "range",
    IPv4Address: "ipv4",
    IPv6Address: "ipv6",
    IPv4Interface: "ipv4-with-prefix",
    IPv4Network: "ipv4-prefix",
    IPv6Network: "ipv6-prefix",
    Endpoint: "endpoint",
}


class OptionKind(typing.NamedTuple):
    """How an option's values are written."""

    kind: str
    several: bool  # a list of values
    empty: bool  # may be empty, for none
    choices: tuple[str, ...]


def section_class(section_type: str) -> type[Any] | None:
    """The class of a section type; None for an unknown one."""
    found = SINGLE.get(section_type) or REPEATED.get(section_type)
    return None if found is None else found[1]


@cache
def options_of(section_type: str) -> dict[str, Field[Any]]:
    """The options of a section type by name, aliases included; empty for an unknown type."""
    known = section_class(section_type)
    if known is None:
        return {}
    found = {option_name(item): item for item in option_fields(known)}
    return {alias: item for item in found.values() for alias in item.metadata["aliases"]} | found


@cache
def kind_of(section_type: str, option: str) -> OptionKind | None:
    """How an option is written; None for an unknown one."""
    item = options_of(section_type).get(option)
    if item is None:
        return None
    hint = typing.get_type_hints(section_class(section_type))[item.name]
    several = typing.get_origin(hint) is tuple
    if several:
        hint = typing.get_args(hint)[0]
    members = [member for member in typing.get_args(hint) if member is not type(None)] or [hint]
    choices = tuple(item.metadata["choices"])
    first = members[0]
    if isinstance(first, type) and issubclass(first, Enum):
        return OptionKind("choice", several, False, tuple(str(member.value) for member in first))
    if choices:
        return OptionKind("choice", several, False, choices)
    if len(members) > 1:
        kind = "prefix" if IPv4Network in members else "address"
    else:
        kind = _KINDS.get(first, "text")
    return OptionKind(kind, several, type(None) in typing.get_args(hint), ())


def is_secret(section_type: str, option: str) -> bool:
    """Whether an option's value is never shown."""
    kind = kind_of(section_type, option)
    return kind is not None and kind.kind == "secret"


def schema() -> list[JsonValue]:
    """Every section with its options."""
    defaults = Config()
    sections: list[JsonValue] = []
    for types, repeated in ((SINGLE, False), (REPEATED, True)):
        for section_type, (attribute, known) in types.items():
            holder = None if repeated else getattr(defaults, attribute)
            options: list[JsonValue] = [_option(section_type, item, holder) for item in option_fields(known)]
            sections.append({"type": section_type, "repeated": repeated, "doc": _about(known), "options": options})
    return sections


def _option(section_type: str, item: Field[Any], holder: Any) -> dict[str, JsonValue]:
    name = option_name(item)
    kind = kind_of(section_type, name)
    assert kind is not None
    default = getattr(holder, item.name) if holder is not None else item.default
    if default is MISSING:
        default = None
    values: list[JsonValue] = [written(value) for value in default] if kind.several and default else []
    hint = item.metadata
    choices: list[JsonValue] = list(kind.choices)
    return {
        "name": name,
        "kind": kind.kind,
        "list": kind.several,
        "default": values if kind.several else ("" if hint["required"] else written(default)),
        "required": bool(hint["required"]),
        "may_be_empty": kind.empty or kind.several,
        "unit": hint["unit"],
        "low": None if hint["low"] is None else float(plain(hint["low"])),
        "high": None if hint["high"] is None else float(plain(hint["high"])),
        "choices": choices,
        "minimum_length": hint["minimum_length"],
        "example": hint["example"],
        "doc": hint["doc"],
    }


def _about(known: type[Any]) -> str:
    text = (known.__doc__ or "").split(": ", 1)[-1]
    return text[:1].upper() + text[1:].replace("`", "")
