"""The part of JSON Schema (2020-12) that the REST API uses; what checks a request is also what OpenAPI shows of it."""

from __future__ import annotations

import re
from typing import Any, Final

# Any, because a schema is JSON and nothing reads it but `problems` and programs outside.
Schema = dict[str, Any]

_NAMES: Final = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
_MAX_PROBLEMS: Final = 20


def text(doc: str = "", *, longest: int = 1000, shortest: int = 0, pattern: str = "", form: str = "") -> Schema:
    """A text; `pattern` must match the whole of it, `form` names a format for readers of the document."""
    found: Schema = {"type": "string", "maxLength": longest}
    if shortest:
        found["minLength"] = shortest
    if pattern:
        found["pattern"] = f"^(?:{pattern})$"
    if form:
        found["format"] = form
    return _said(found, doc)


def choice(doc: str, *choices: str) -> Schema:
    """One of some words."""
    return _said({"type": "string", "enum": list(choices)}, doc)


def integer(doc: str = "", *, low: int | None = 0, high: int | None = 2**53) -> Schema:
    """A whole number."""
    found: Schema = {"type": "integer"}
    if low is not None:
        found["minimum"] = low
    if high is not None:
        found["maximum"] = high
    return _said(found, doc)


def number(doc: str = "") -> Schema:
    """A number."""
    return _said({"type": "number"}, doc)


def boolean(doc: str = "") -> Schema:
    """True or false."""
    return _said({"type": "boolean"}, doc)


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    kind = schema["type"]
    found = {**schema, "type": [*kind, "null"] if isinstance(kind, list) else [kind, "null"]}
    if "enum" in found:
        found["enum"] = [*found["enum"], None]
    return found


def array(of: Schema, doc: str = "", *, most: int | None = None, least: int = 0) -> Schema:
    """A list."""
    found: Schema = {"type": "array", "items": of}
    if most is not None:
        found["maxItems"] = most
    if least:
        found["minItems"] = least
    return _said(found, doc)


def record(fields: dict[str, Schema], doc: str = "", *, required: tuple[str, ...] = (), more: bool = False) -> Schema:
    """An object with these fields; `more` lets others through, as our answers may hold."""
    found: Schema = {"type": "object", "properties": fields}
    if required:
        found["required"] = list(required)
    if not more:
        found["additionalProperties"] = False
    return _said(found, doc)


def anything(doc: str = "") -> Schema:
    """Any object; for answers that are described elsewhere."""
    return _said({"type": "object"}, doc)


def rows(of: Schema, **others: Schema) -> Schema:
    """An answer with `rows`."""
    return record({"rows": array(of), **others}, required=("rows", *others), more=True)


def _said(schema: Schema, doc: str) -> Schema:
    if doc:
        schema["description"] = doc
    return schema


PATH_TEXT: Final[Schema] = text(shortest=1, longest=300)  # a path parameter that says nothing else


def problems(schema: Schema, value: object, where: str = "") -> list[str]:
    """What is wrong with a value, one sentence each; empty when it fits."""
    found: list[str] = []
    _check(schema, value, where, found)
    return found[:_MAX_PROBLEMS]


def _check(schema: Schema, value: object, where: str, found: list[str]) -> None:
    if len(found) >= _MAX_PROBLEMS:
        return
    place = where or "the body"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if value is None and "null" in kinds:
        return
    match value:
        case bool():
            kind = "boolean"
        case int():
            kind = "integer"
        case float():
            kind = "integer" if value.is_integer() and "integer" in kinds else "number"
        case str():
            kind = "string"
        case list():
            kind = "array"
        case dict():
            kind = "object"
        case _:
            kind = "null"
    if kinds and kind not in kinds and not (kind == "integer" and "number" in kinds):
        wanted = " or ".join(_NAMES.get(name, f"an {name}") for name in kinds if name != "null")
        found.append(f"{place}: {wanted} is wanted")
        return
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: one of {', '.join(str(one) for one in schema['enum'])} is wanted")
    elif isinstance(value, str):
        _check_text(schema, value, place, found)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            found.append(f"{place}: from {low} to {high} is accepted")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{place}: {len(value)} entries are too few or too many")
        for number_, item in enumerate(value):
            _check(schema.get("items", {}), item, f"{where}[{number_}]", found)
    elif isinstance(value, dict):
        _check_record(schema, value, where, found)


def _check_text(schema: Schema, value: str, place: str, found: list[str]) -> None:
    if len(value) > schema.get("maxLength", len(value)):
        found.append(f"{place}: at most {schema['maxLength']} characters are accepted")
    elif len(value) < schema.get("minLength", 0):
        found.append(f"{place}: at least {schema['minLength']} characters are wanted")
    elif "pattern" in schema and re.fullmatch(schema["pattern"], value) is None:
        found.append(f"{place}: {value[:40]!r} is not of the form {schema['pattern']}")
    elif "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        found.append(f"{place}: holds a character that is not text")


def _check_record(schema: Schema, value: dict[str, object], where: str, found: list[str]) -> None:
    fields = schema.get("properties", {})
    prefix = f"{where}." if where else ""
    for name in schema.get("required", ()):
        if name not in value:
            found.append(f"{prefix}{name}: is missing")
    for name, item in value.items():
        if name in fields:
            _check(fields[name], item, f"{prefix}{name}", found)
        elif schema.get("additionalProperties") is False:
            known = ", ".join(fields) or "nothing"
            found.append(f"{prefix}{name[:40]}: is not known; accepted: {known}")


def from_query(schema: Schema, value: str) -> object:
    """A value of a query as its schema's type; what cannot be one stays a text and is refused by `problems`."""
    kind = schema.get("type")
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,17}", value):
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    return value
