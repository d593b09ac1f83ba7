"""Giving up root: a web process that an init script started as root becomes an ordinary user before it reads a byte."""

from __future__ import annotations

import os
import pwd


class UserError(Exception):
    """The operator is wrong about the user; the message says what to do."""


def become(name: str) -> None:
    """Take the user's id and all groups of that user, for ever; nothing when we are that user. Raises UserError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UserError(f"there is no user {name!r}; make it with `useradd --system {name}`") from None
    if os.geteuid() == entry.pw_uid and os.getuid() == entry.pw_uid:
        return
    if os.geteuid() != 0:
        raise UserError(f"only root can become {name}; leave out --user or start as root")
    os.initgroups(name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
