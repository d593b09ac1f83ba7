"""docs/control-protocol.md names what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.control import protocol
from gateway.control.server import Bounds
from gateway.debug import Debugger
from gateway.session.model import LoginResult, SessionState

PROJECT = Path(__file__).resolve().parents[3]
PAGE = (PROJECT / "docs" / "control-protocol.md").read_text("utf-8")
METHOD = re.compile(r'"([a-z]+(?:\.[a-z_]+)?)": Method\(')


def declared_methods() -> set[str]:
    """Every method that a module of the gateway puts into the daemon's table."""
    sources = (PROJECT / "gateway").rglob("*.py")
    found = {name for source in sources for name in METHOD.findall(source.read_text("utf-8"))}
    return found | set(Debugger({}).methods())


def test_every_method_is_documented_and_no_other() -> None:
    """A method in the code is a row on the page, and the other way round."""
    rows = set(re.findall(r"^\| `([a-z]+(?:\.[a-z_]+)?)` \|", PAGE, re.MULTILINE))
    errors = {value for name, value in vars(protocol).items() if name.isupper() and isinstance(value, str)}
    assert rows - errors - {"no_lease"} == declared_methods()


def test_every_error_code_is_documented() -> None:
    """Each code of the protocol is in the table of codes."""
    for name, value in vars(protocol).items():
        if name.isupper() and isinstance(value, str):
            assert f"`{value}`" in PAGE


def test_bounds_and_names_are_those_of_the_code() -> None:
    """Numbers and fixed names on the page are the code's."""
    bounds = Bounds()
    assert f"| {bounds.requests_per_connection}; {bounds.portal_requests_per_connection} for the portal" in PAGE
    assert f"| {bounds.connections_per_uid}, {bounds.connections} |" in PAGE
    assert f"for {bounds.subscriber_patience_s:g} s" in PAGE
    assert f"| {protocol.MAX_REQUEST_BYTES >> 20} MiB |" in PAGE
    assert f"| {protocol.MAX_REPLY_BYTES >> 20} MiB |" in PAGE
    assert f"| {protocol.MAX_DEPTH} levels |" in PAGE
    for state in SessionState:
        assert f"`{state.value}`" in PAGE
    for result in LoginResult:
        assert f"`{result.value}`" in PAGE
