"""Who may call what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.admin.roles import Acting, Role, Scope, opened_by, read_scopes, refusal, scopes_of
from gateway.control.access import Access
from gateway.control.connection import Method

ALICE = Acting("alice", Role.ADMINISTRATOR, "session", "1", "192.0.2.1")


def test_a_role_has_what_lower_ones_have() -> None:
    """An operator may what a viewer may, and not what an administrator may."""
    bob = replace(ALICE, name="bob", role=Role.OPERATOR)
    assert refusal(bob, "status", Role.VIEWER) is None
    assert refusal(bob, "vouchers.create", Role.OPERATOR) is None
    assert (
        refusal(bob, "config.apply", Role.ADMINISTRATOR) == "bob is operator; config.apply takes the role administrator"
    )


def test_what_belongs_to_a_web_process_is_nobodys() -> None:
    """Not even an administrator calls the portal's methods through the web interface."""
    assert refusal(ALICE, "client.login", None) == "client.login is not for the administration's web interface"


def test_a_method_says_its_least_role_by_its_access() -> None:
    """Looking is for viewers and changing for administrators, unless the method says another role."""

    def handler(*_: object) -> None:
        return None

    assert Method(handler, Access.READ | Access.WRITE).least_role is Role.VIEWER
    assert Method(handler, Access.WRITE).least_role is Role.ADMINISTRATOR
    assert Method(handler, Access.WRITE, role=Role.OPERATOR).least_role is Role.OPERATOR
    assert Method(handler, Access.PORTAL | Access.WRITE).least_role is None
    assert Method(handler, Access.ADMIN).least_role is None


@pytest.mark.parametrize(
    ("method", "least", "scopes"),
    [
        ("status", Role.VIEWER, {Scope.READ}),
        ("vouchers.create", Role.OPERATOR, {Scope.OPERATE}),
        ("config.apply", Role.ADMINISTRATOR, {Scope.CONFIGURE}),
        ("captures.recordings", Role.VIEWER, {Scope.READ, Scope.CAPTURES}),
        ("captures.record", Role.OPERATOR, {Scope.CAPTURES}),
        ("accounts.passwd", Role.VIEWER, set()),
        ("tokens.create", Role.VIEWER, set()),
        ("backup.create", Role.ADMINISTRATOR, set()),
    ],
)
def test_a_method_is_opened_by_the_scope_of_its_kind(method: str, least: Role, scopes: set[Scope]) -> None:
    """What concerns means of entry is opened by no scope at all."""
    assert opened_by(method, least) == scopes


def test_a_token_does_a_part_of_what_its_owner_does() -> None:
    """It needs the owner's role and the scope; a stolen one makes no other."""
    token = replace(ALICE, kind="token", scopes=frozenset({Scope.READ, Scope.OPERATE}))
    assert refusal(token, "status", Role.VIEWER) is None
    assert refusal(token, "config.apply", Role.ADMINISTRATOR) == (
        "this token has no scope configure, which config.apply takes"
    )
    assert "a token does not do" in str(refusal(token, "tokens.create", Role.VIEWER))
    demoted = replace(token, role=Role.VIEWER)
    assert "takes the role operator" in str(refusal(demoted, "vouchers.create", Role.OPERATOR))


def test_scopes_stay_within_the_role() -> None:
    """A viewer's token reads, and no more."""
    assert scopes_of(Role.VIEWER) == {Scope.READ}
    assert read_scopes(["read", "captures"], Role.OPERATOR) == {Scope.READ, Scope.CAPTURES}
    for words, role, sentence in (
        (["rule"], Role.ADMINISTRATOR, "'rule' is not a scope"),
        ([], Role.ADMINISTRATOR, "needs a scope"),
        (["configure"], Role.OPERATOR, "takes the role administrator"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_scopes(words, role)
