"""The OpenAPI 3.1 document of the REST API, made from its routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from webui.admin.rest import PREFIX, PROBLEM_TYPE, ApiRoute
from webui.admin.schema import PATH_TEXT, integer, record, text

_PROBLEM: Final = record(
    {
        "type": text(),
        "title": text(),
        "status": integer(low=100, high=599),
        "detail": text("What is wrong and what to do.", longest=100_000),
        "code": text("The daemon's name of the refusal."),
    },
    "A refusal (RFC 9457).",
    required=("type", "title", "status", "detail"),
    more=True,
)
_SCOPES: Final = {
    "read": "look at everything that is no secret",
    "operate": "sessions, clients, vouchers and users",
    "captures": "captures and their reports",
    "configure": "configuration, accounts and tokens",
}


def document(routes: Iterable[ApiRoute]) -> dict[str, Any]:
    """The whole document; Any, because it is JSON for programs outside."""
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for route in routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
        tags.setdefault(route.tag)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Postern",
            "version": "1.0.0",
            "summary": "Administration of a captive-portal gateway.",
            "description": "Make a token under Accounts and send it as `Authorization: Bearer TOKEN`. Scopes: "
            + "; ".join(f"`{name}`: {words}" for name, words in _SCOPES.items())
            + ". Sizes are octets, rates bits per second, times seconds; upload and download as seen from the client.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: ApiRoute) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": route.path_schemas.get(name, PATH_TEXT),
        }
        for name in names
    ] + [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in route.query.items()]
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {
            str(route.status): {
                "description": "Done.",
                "content": {route.produces: {"schema": _result(route)}},
            },
            "default": {
                "description": "Refused.",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if route.status == 204:
        operation["responses"]["204"] = {"description": "Done."}
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(route.body.get("required")) or route.streams,
            "content": {kind: {"schema": route.body} for kind in route.consumes},
        }
    operation["security"] = [{"token": [route.scope]}] if route.scope else []
    return operation


def _result(route: ApiRoute) -> dict[str, Any]:
    return route.result if route.produces == "application/json" else {"type": "string"}


def _identifier(route: ApiRoute) -> str:
    words = re.findall(r"\w+", route.path)
    return route.method.lower() + "".join(word.capitalize() for word in words)
