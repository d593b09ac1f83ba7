"""The description of what can be configured, held against the loader."""

from __future__ import annotations

import json
from typing import Any, cast

from gateway.config_loader import REPEATED, SINGLE, load, option_fields, option_name
from gateway.config_schema import is_secret, kind_of, schema
from gateway.uci import quote


def options() -> dict[tuple[str, str], dict[str, Any]]:
    """Every described option."""
    return {
        (section["type"], option["name"]): option
        for section in cast(list[dict[str, Any]], schema())
        for option in section["options"]
    }


def test_every_option_is_described_with_a_kind() -> None:
    """As plain values that JSON can say."""
    described = options()
    classes = {kind: known for types in (SINGLE, REPEATED) for kind, (_, known) in types.items()}
    known = {(kind, option_name(item)) for kind, known in classes.items() for item in option_fields(known)}
    assert described.keys() == known
    assert json.loads(json.dumps(schema())) == schema()
    assert described["zone", "method"]["choices"][:2] == ["click", "password"]
    assert described["zone", "method"]["list"] is True
    assert described["admin", "interface"]["default"] == ["lo"]
    assert described["zone", "rate_up"]["may_be_empty"]
    assert described["radius", "timeout"]["low"] == 0.1
    assert described["radius_server", "address"]["kind"] == "address"
    assert described["garden", "network"]["kind"] == "prefix"


def test_defaults_are_what_the_loader_takes() -> None:
    """A form that sends back what it was told changes nothing."""
    lines: dict[str, list[str]] = {}
    for (section, name), option in options().items():
        if section in SINGLE and not option["required"]:
            values = option["default"] if option["list"] else [option["default"]]
            keyword = "list" if option["list"] else "option"
            lines.setdefault(section, []).extend(
                f"\t{keyword} {name} {quote(value)}" for value in values if value or not option["may_be_empty"]
            )
    text = "\n".join(line for section, rest in lines.items() for line in (f"config {section}", *rest))
    smallest = "config network\n\tlist uplink eth0\n"
    text = text.replace("config network", smallest)
    assert load(text).config == load(smallest).config


def test_secrets_are_known_by_their_type() -> None:
    """Also by an alias; an unknown option is none."""
    assert is_secret("radius_server", "secret")
    assert is_secret("radius", "coa_secret")
    assert not is_secret("radius", "timeout")
    assert not is_secret("moon", "secret")
    assert kind_of("radius", "coaport") == kind_of("radius", "coa_port")
