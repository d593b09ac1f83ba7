"""The JSON Schema of a report, made from the types in `report`, so that the two cannot disagree.

`report.schema.json` beside this module is its output, kept in the package for programs in other languages; a test holds
the file against this module. Written again by `python -m gateway.analysis.schema`.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any, Final, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from gateway.analysis import report
from gateway.analysis.words import SCHEMA

FILE: Final = Path(__file__).with_name("report.schema.json")
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_PLAIN: Final[dict[Any, dict[str, str]]] = {  # Any: keys are types
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def build(*, closed: bool = False) -> dict[str, Any]:
    """The schema as a dict. Open by default, because a minor version adds fields; `closed` forbids unknown ones."""
    definitions: dict[str, Any] = {}
    root = _of(report.Report, definitions, closed)
    return {
        "$schema": DRAFT,
        "$id": SCHEMA,
        "title": "Postern capture analysis report",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(build(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _of(kind: Any, definitions: dict[str, Any], closed: bool) -> dict[str, Any]:  # Any: a type expression
    if kind is Any or kind is object:
        return {}
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if is_typeddict(kind):
        _define(kind, definitions, closed)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return _of(arguments[0], definitions, closed)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0], definitions, closed)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions, closed)}
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_of(argument, definitions, closed) for argument in arguments]}
    raise TypeError(f"a report cannot hold {kind!r}")


def _define(kind: Any, definitions: dict[str, Any], closed: bool) -> None:  # Any: a TypedDict class
    if kind.__name__ in definitions:
        return
    definitions[kind.__name__] = {}  # taken, so that a type may hold itself
    hints = get_type_hints(kind, include_extras=True)
    definition: dict[str, Any] = {
        "type": "object",
        "properties": {name: _of(hint, definitions, closed) for name, hint in hints.items()},
        "required": sorted(name for name, hint in hints.items() if get_origin(hint) is not NotRequired),
    }
    if kind.__doc__ and not kind.__doc__.startswith("dict("):
        definition["description"] = " ".join(kind.__doc__.split())
    if closed:
        definition["additionalProperties"] = False
    definitions[kind.__name__] = definition


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
