"""A complete report made from the types in `report`: every field present, every list with one row, values by type.

What renders, tabulates or validates this touches every field there is; a field that is added appears here by itself.
"""

from __future__ import annotations

import copy
import typing
from typing import Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from gateway.analysis import report as types
from gateway.analysis.words import SCHEMA

HOSTILE = '\x1b[31m<script>alert(1)</script>\u202egpj.exe\' onload="x"=1+1'
_ADDRESSES = {"orig_host": "192.0.2.10", "resp_host": "198.51.100.7"}


def sample(text: str = "plain") -> dict[str, Any]:
    """A report in which every free string is `text`."""
    made: dict[str, Any] = _make(types.Report, text, "")
    made["schema"] = SCHEMA
    made["capture"]["first_unix_ns"] = 1_700_000_000_000_000_000
    row = made["flows"]["rows"][0]
    row.update(uid="C1", proto="tcp", **_ADDRESSES)
    made["flows"]["total"] = made["dns"]["total"] = made["tls"]["total"] = made["http"]["total"] = 1
    finding = made["findings"][0]
    finding.update(id="tcp.loss-0a1b2c", flow="C1", severity="high", muted=None)
    finding["class"] = "performance"
    made["series"].update(bin_s=1.0, packets=[3, 0, 9], bytes=[300, 0, 4000])
    made["series"]["marks"] = [{"t": 1.5, "finding": finding["id"], "severity": "high"}]
    made["verdict"][0]["findings"] = [finding["id"]]
    made["health"].update(score=81.5, grade="good")
    return made


def many_rows(report: dict[str, Any], count: int) -> dict[str, Any]:
    """The same report with every list of rows repeated."""
    grown = copy.deepcopy(report)
    for section in ("flows", "dns", "tls", "http"):
        grown[section]["rows"] = grown[section]["rows"] * count
        grown[section]["total"] = count
    findings = []
    for index in range(count):
        findings.append({**grown["findings"][0], "id": f"tcp.loss-{index:06x}"})
    grown["findings"] = findings
    return grown


def _make(kind: Any, text: str, field: str) -> Any:
    if kind is str:
        return text
    if kind is bool:
        return True
    if kind is int:
        return 7
    if kind is float:
        return 0.25
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {name: _make(hint, text, name) for name, hint in hints.items()}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return _make(arguments[0], text, field)
    if origin is typing.Literal:
        return arguments[0]
    if origin is list:
        return [_make(arguments[0], text, field)]
    if origin is dict:
        return {text or "key": _make(arguments[1], text, field)}
    if arguments:  # a union: the first of it that is a value
        return _make(arguments[0], text, field)
    return 3  # Any or object
