"""Administrators, their second factors, sessions and tokens, and the audit log: what is asked about them.

Everybody who has logged in manages their own means of entry; those of others take the role administrator. Whoever asks
at the socket itself (root, the operators' group) names the account and needs no current password: that is how an owner
who has forgotten it gets back in.
"""

from __future__ import annotations

from typing import Final

from gateway.accounts.users import name_key
from gateway.admin.administrators import Administrator
from gateway.admin.roles import ROLES, Role
from gateway.admin.service import AdminService
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, DENIED, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method

LONGEST_NAME: Final = 64
LONGEST_PASSWORD: Final = 256
MAX_ROWS: Final = 1000


class AccountsMethods:
    """The methods, over the service."""

    def __init__(self, service: AdminService) -> None:
        self._service = service

    def table(self) -> dict[str, Method]:
        """All of them."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        return {
            "accounts.list": Method(self.everybody, look, role=Role.ADMINISTRATOR),
            "accounts.show": Method(self.show, look),
            "accounts.add": Method(self.add, change),
            "accounts.change": Method(self.change, change),
            "accounts.remove": Method(self.remove, change),
            "accounts.passwd": Method(self.passwd, change, role=Role.VIEWER),
            "accounts.totp_begin": Method(self.totp_begin, change, role=Role.VIEWER),
            "accounts.totp_confirm": Method(self.totp_confirm, change, role=Role.VIEWER),
            "accounts.totp_remove": Method(self.totp_remove, change, role=Role.VIEWER),
            "accounts.sessions": Method(self.sessions, look),
            "accounts.revoke": Method(self.revoke, change, role=Role.VIEWER),
            "tokens.create": Method(self.create_token, change, role=Role.VIEWER),
            "tokens.list": Method(self.list_tokens, look),
            "tokens.revoke": Method(self.revoke_token, change, role=Role.VIEWER),
            "audit.list": Method(self.audit, look, role=Role.ADMINISTRATOR),
        }

    # -- accounts ---------------------------------------------------------------------------------------------------

    def everybody(self, caller: Caller, params: Params) -> JsonValue:
        """All administrators."""
        read.only(params)
        return {"rows": [_row(one, sessions) for one, sessions in self._service.administrators()]}

    def show(self, caller: Caller, params: Params) -> JsonValue:
        """One account: one's own, or somebody else's."""
        read.only(params, "name")
        name, _ = self._whose(caller, params)
        return _row(self._service.administrator(name), len(self._service.sessions(name)))

    async def add(self, caller: Caller, params: Params) -> JsonValue:
        """Make an administrator."""
        read.only(params, "name", "password", "role")
        role = ROLES[read.choice(params, "role", ROLES, Role.VIEWER.word)]
        name = read.text(params, "name", longest=LONGEST_NAME)
        one = await self._service.add(name, read.text(params, "password", longest=LONGEST_PASSWORD), role)
        return _row(one, 0)

    async def change(self, caller: Caller, params: Params) -> JsonValue:
        """Change a role, or switch an account off or on."""
        read.only(params, "name", "role", "disabled")
        word = read.choice(params, "role", ROLES, None)
        disabled = None if params.get("disabled") is None else read.flag(params, "disabled")
        if word is None and disabled is None:
            raise ControlError(BAD_PARAMS, "role or disabled must be given")
        name = read.text(params, "name", longest=LONGEST_NAME)
        one = await self._service.change(name, role=None if word is None else ROLES[word], disabled=disabled)
        return _row(one, 0)

    async def remove(self, caller: Caller, params: Params) -> JsonValue:
        """Remove an administrator."""
        read.only(params, "name")
        name = read.text(params, "name", longest=LONGEST_NAME)
        await self._service.remove(name)
        return {"name": name}

    async def passwd(self, caller: Caller, params: Params) -> JsonValue:
        """Set a password: one's own with the current one, or somebody else's."""
        read.only(params, "name", "password", "current")
        name, own = self._whose(caller, params)
        await self._confirmed(caller, params, name, own=own)
        keep = caller.acting.id if caller.acting is not None and own else ""
        await self._service.set_password(name, read.text(params, "password", longest=LONGEST_PASSWORD), but=keep)
        return {"name": name}

    def totp_begin(self, caller: Caller, params: Params) -> JsonValue:
        """A secret for an authenticator app."""
        read.only(params)
        secret, uri = self._service.factors.begin(self._service.administrator(_self(caller)))
        return {"secret": secret, "uri": uri}

    async def totp_confirm(self, caller: Caller, params: Params) -> JsonValue:
        """Switch the second factor on with its first code."""
        read.only(params, "totp")
        one = self._service.administrator(_self(caller))
        recovery = await self._service.factors.confirm(one, read.text(params, "totp", longest=32))
        return {"recovery": list[JsonValue](recovery)}

    async def totp_remove(self, caller: Caller, params: Params) -> JsonValue:
        """Switch a second factor off: one's own with the password, or somebody else's."""
        read.only(params, "name", "current")
        name, own = self._whose(caller, params)
        await self._confirmed(caller, params, name, own=own)
        return {"name": name, "removed": await self._service.factors.remove(self._service.administrator(name))}

    def sessions(self, caller: Caller, params: Params) -> JsonValue:
        """Logins that are alive: one's own, somebody else's, or (`all`) everybody's."""
        read.only(params, "name", "all")
        if read.flag(params, "all") or (caller.acting is None and params.get("name") is None):
            _only_administrators(caller)
            owner = None
        else:
            owner, _ = self._whose(caller, params)
        current = "" if caller.acting is None else caller.acting.id
        rows: list[JsonValue] = [
            {
                "id": session.id,
                "name": name,
                "address": session.address,
                "agent": session.agent,
                "started_unix": session.started_unix,
                "left_s": int(left_s),
                "current": session.id == current,
            }
            for session, name, left_s in self._service.sessions(owner)
        ]
        return {"rows": rows}

    async def revoke(self, caller: Caller, params: Params) -> JsonValue:
        """End one login, or all of an account but the one that asks."""
        read.only(params, "id", "name")
        session_id = read.text(params, "id", None, longest=32)
        current = "" if caller.acting is None else caller.acting.id
        if session_id is None:
            name, _ = self._whose(caller, params)
            wanted = [session.id for session, _, _ in self._service.sessions(name) if session.id != current]
        else:
            administers = caller.acting is None or caller.acting.role is Role.ADMINISTRATOR
            within = self._service.sessions(None if administers else caller.name)
            wanted = [session.id for session, _, _ in within if session.id == session_id]
        return {"ended": await self._service.revoke(wanted)}

    # -- tokens -----------------------------------------------------------------------------------------------------

    async def create_token(self, caller: Caller, params: Params) -> JsonValue:
        """Make a token for one's own programs; its value is told this once."""
        read.only(params, "owner", "name", "scopes", "expires_unix")
        owner = read.text(params, "owner", longest=LONGEST_NAME) if caller.acting is None else caller.acting.name
        scopes = params.get("scopes")
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ControlError(BAD_PARAMS, "scopes must be a list of names such as read")
        token, value = await self._service.add_token(
            owner,
            read.text(params, "name", longest=LONGEST_NAME),
            [str(scope) for scope in scopes],
            read.number(params, "expires_unix", None),
        )
        return {"id": token.id, "token": value}

    def list_tokens(self, caller: Caller, params: Params) -> JsonValue:
        """One's own tokens; administrators see all of them with `all`."""
        read.only(params, "all")
        everybody = caller.acting is None or read.flag(params, "all")
        if everybody:
            _only_administrators(caller)
        rows: list[JsonValue] = []
        for token, owner in self._service.tokens(None if everybody else caller.name):
            scopes: list[JsonValue] = [str(scope) for scope in sorted(token.scopes)]
            rows.append(
                {
                    "id": token.id,
                    "owner": owner,
                    "name": token.name,
                    "scopes": scopes,
                    "created_unix": token.created_unix,
                    "expires_unix": token.expires_unix,
                }
            )
        return {"rows": rows}

    async def revoke_token(self, caller: Caller, params: Params) -> JsonValue:
        """Revoke a token."""
        read.only(params, "id")
        token_id = read.text(params, "id", longest=32)
        administers = caller.acting is None or caller.acting.role is Role.ADMINISTRATOR
        if not administers and all(token.id != token_id for token, _ in self._service.tokens(caller.name)):
            raise ControlError(DENIED, f"{token_id!r} is not one of your tokens")
        await self._service.remove_token(token_id)
        return {"id": token_id}

    # -- audit ------------------------------------------------------------------------------------------------------

    async def audit(self, caller: Caller, params: Params) -> JsonValue:
        """Who changed what, newest first."""
        read.only(params, "who", "method", "search", "offset", "limit")
        total, entries = await self._service.audit.page(
            who=read.text(params, "who", "", longest=LONGEST_NAME),
            method=read.text(params, "method", "", longest=64),
            search=read.text(params, "search", "", longest=100),
            offset=read.integer(params, "offset", 0),
            limit=read.integer(params, "limit", 100, low=1, high=MAX_ROWS),
        )
        rows: list[JsonValue] = [
            {
                "at_unix": entry.at_unix,
                "who": entry.who,
                "via": entry.via,
                "address": entry.address,
                "method": entry.method,
                "summary": entry.summary,
                "outcome": entry.outcome,
            }
            for entry in entries
        ]
        return {"total": total, "rows": rows}

    # -- whose ------------------------------------------------------------------------------------------------------

    def _whose(self, caller: Caller, params: Params) -> tuple[str, bool]:
        """The account that is meant, and whether it is the caller's own; others take the role administrator."""
        if caller.acting is None:
            return read.text(params, "name", longest=LONGEST_NAME), False
        name = read.text(params, "name", caller.acting.name, longest=LONGEST_NAME)
        own = name_key(name) == name_key(caller.acting.name)
        if not own:
            _only_administrators(caller)
        return name, own

    async def _confirmed(self, caller: Caller, params: Params, name: str, *, own: bool) -> None:
        """One's own means of entry take the password once more: a browser that was left open must not give it away."""
        if own and caller.acting is not None:
            current = read.text(params, "current", longest=LONGEST_PASSWORD)
            await self._service.confirm_password(name, current, caller.acting.address)


def _only_administrators(caller: Caller) -> None:
    if caller.acting is not None and caller.acting.role is not Role.ADMINISTRATOR:
        raise ControlError(DENIED, "accounts of others take the role administrator")


def _self(caller: Caller) -> str:
    if caller.acting is None:
        raise ControlError(BAD_PARAMS, "a second factor is set up by its owner, in the web interface")
    return caller.acting.name


def _row(one: Administrator, sessions: int) -> dict[str, JsonValue]:
    return {
        "name": one.name,
        "role": one.role.word,
        "created_unix": one.created_unix,
        "disabled": one.disabled,
        "totp": one.totp_secret is not None,
        "recovery_left": len(one.recovery),
        "sessions": sessions,
    }
