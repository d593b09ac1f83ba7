"""The record of who changed what: how a call is summed up without its secrets. Pure."""

from __future__ import annotations

import json
from typing import Final

from gateway.control.protocol import JsonValue, Params
from gateway.values import value_class

HIDDEN: Final = "…"
LONGEST_VALUE: Final = 80  # characters of one parameter
LONGEST_SUMMARY: Final = 300
# Parameters that are never written down. Whatever ends in one of these counts too (`new_password`).
_SECRET: Final = (
    "password",
    "current",
    "passphrase",
    "secret",
    "code",
    "totp",
    "credential",
    "token",
    "key",
    "recovery",
)
_BULKY: Final = frozenset({"data", "text", "changes"})  # whole files: their size is said


@value_class
class Entry:
    """One act. `via` is `web`, `token` or `console`; `outcome` is `done` or the error's code."""

    at_unix: float
    who: str
    via: str
    address: str
    method: str
    summary: str
    outcome: str


def summary_of(params: Params) -> str:
    """Parameters as `name=value`, one line, secrets hidden and files left out."""
    parts = []
    for name, value in params.items():
        if value is None:
            continue
        parts.append(f"{name[:40]}={_shown(name, value)}")
    text = " ".join(parts)
    return text if len(text) <= LONGEST_SUMMARY else text[: LONGEST_SUMMARY - 1] + "…"


def _shown(name: str, value: JsonValue) -> str:
    lowered = name.lower()
    if lowered.endswith(_SECRET):
        return HIDDEN
    if lowered in _BULKY:
        return f"({len(value) if isinstance(value, str | list | dict) else 1})"
    if isinstance(value, dict):
        inner = " ".join(f"{key[:40]}:{_shown(key, item)}" for key, item in value.items())
        text = "{" + inner + "}"
    else:
        text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
