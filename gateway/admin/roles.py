"""Roles of administrators and scopes of tokens: who may call which method of the control socket. Pure.

A method says the least role that it needs. A role has everything that the roles below it have. A token has a part of
its owner's role, in scopes; what concerns the owner's own means of entry (passwords, second factor, tokens) takes a
session, so that a token that was stolen cannot make itself a door that stays open.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Final

from gateway.values import value_class


class Role(IntEnum):
    """What an administrator may do; a higher one may do what a lower one may."""

    VIEWER = 1  # look
    OPERATOR = 2  # guests, vouchers, users, captures
    ADMINISTRATOR = 3  # everything

    @property
    def word(self) -> str:
        """The role as it is written in requests and answers."""
        return self.name.lower()


ROLES: Final = {role.word: role for role in Role}


class Scope(StrEnum):
    """One part of what a token may do."""

    READ = "read"
    OPERATE = "operate"
    CAPTURES = "captures"
    CONFIGURE = "configure"


_SCOPE_OF_ROLE: Final = {
    Role.VIEWER: Scope.READ,
    Role.OPERATOR: Scope.OPERATE,
    Role.ADMINISTRATOR: Scope.CONFIGURE,
}
_LEAST_ROLE: Final = {
    Scope.READ: Role.VIEWER,
    Scope.OPERATE: Role.OPERATOR,
    Scope.CAPTURES: Role.OPERATOR,
    Scope.CONFIGURE: Role.ADMINISTRATOR,
}
_PERSONAL: Final = ("accounts.", "tokens.", "backup.")


@value_class
class Acting:
    """On whose behalf the administration's web interface calls."""

    name: str
    role: Role
    kind: str  # "session" or "token"
    id: str  # which session or token; not its value
    address: str  # where the browser or program is
    scopes: frozenset[Scope] = frozenset(Scope)


def scopes_of(role: Role) -> frozenset[Scope]:
    """The scopes that a token of somebody with this role may have."""
    return frozenset(scope for scope, least in _LEAST_ROLE.items() if role >= least)


def opened_by(method: str, least: Role) -> frozenset[Scope]:
    """The scopes of which a token needs one for a method; empty when no token may call it."""
    if method.startswith(_PERSONAL):
        return frozenset()
    if method.startswith("captures."):
        return frozenset({Scope.CAPTURES, Scope.READ} if least is Role.VIEWER else {Scope.CAPTURES})
    return frozenset({_SCOPE_OF_ROLE[least]})


def refusal(acting: Acting, method: str, least: Role | None) -> str | None:
    """Why somebody may not call a method, as a sentence; None when they may. `least` None: it is nobody's to call."""
    if least is None:
        return f"{method} is not for the administration's web interface"
    if acting.role < least:
        return f"{acting.name} is {acting.role.word}; {method} takes the role {least.word}"
    if acting.kind == "token":
        wanted = opened_by(method, least)
        if not wanted:
            return f"{method} takes a login with name and password; a token does not do"
        if not acting.scopes & wanted:
            return f"this token has no scope {' or '.join(sorted(wanted))}, which {method} takes"
    return None


def read_scopes(words: Iterable[str], role: Role) -> frozenset[Scope]:
    """Scopes by their names; raises ValueError for an unknown one, none at all, or one beyond the role."""
    scopes = set()
    for word in words:
        if word not in tuple(Scope):
            raise ValueError(f"{word[:32]!r} is not a scope; there are: {', '.join(Scope)}")
        scopes.add(Scope(word))
    if not scopes:
        raise ValueError(f"a token needs a scope; there are: {', '.join(Scope)}")
    beyond = sorted(scopes - scopes_of(role))
    if beyond:
        raise ValueError(f"the scope {beyond[0]} takes the role {_LEAST_ROLE[Scope(beyond[0])].word}")
    return frozenset(scopes)
