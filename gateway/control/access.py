"""Who may call what at the control socket: the kernel's word about the peer, and groups of the system.

There are no passwords here. The kernel notes at connect() who the peer is and which groups it is in; groups and users
are looked up by name at each connection, so that one made later holds from then on.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from enum import Flag, auto
from typing import Final

from gateway.admin.roles import Acting
from gateway.values import value_class

LOG: Final = logging.getLogger(__name__)

SO_PEERGROUPS: Final = getattr(socket, "SO_PEERGROUPS", 59)  # Linux 4.13; Python has no name for it
_PEERCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MAX_PEER_GROUPS_BYTES: Final = 1024  # what getsockopt of Python takes: 256 groups


class Access(Flag):
    """What a caller may do. A method names the one it needs, or several of which one is enough."""

    READ = auto()  # look: group postern
    WRITE = auto()  # change: root, the daemon's own user, group postern-admin
    PORTAL = auto()  # what the guests' portal needs and nothing else: user postern-portal
    ADMIN = auto()  # the administration's web interface, which calls on behalf of who has logged in there


@value_class
class Roles:
    """Which groups and users have which access. Names that the system does not know give nothing to anybody.

    The portal's user (and whoever has the portal's group as primary group) gets PORTAL alone, whatever other groups it
    is in: it has to be in the socket's group to reach the socket at all. The administration's user gets ADMIN alone in
    the same way.
    """

    read_groups: tuple[str, ...] = ("postern",)
    write_groups: tuple[str, ...] = ("postern-admin",)
    portal_groups: tuple[str, ...] = ("postern-portal",)
    portal_users: tuple[str, ...] = ("postern-portal",)
    admin_web_groups: tuple[str, ...] = ("postern-admin-web",)
    admin_web_users: tuple[str, ...] = ("postern-admin-web",)

    def missing_groups(self) -> list[str]:
        """Groups that are named here and that the system does not know."""
        names = {*self.read_groups, *self.write_groups, *self.portal_groups, *self.admin_web_groups}
        return sorted(name for name in names if _gid_of(name) is None)


@value_class
class Caller:
    """Who is at the other end, as the kernel said when the connection was made."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]
    access: Access
    name: str  # the user's name, or "uid 1000" when it has none; the administrator's when one acts through the web
    acting: Acting | None = None  # the administrator on whose behalf the web interface calls

    def may(self, access: Access) -> bool:
        """Whether one of the kinds of access in `access` is the caller's."""
        return bool(self.access & access)


def identify(transport: asyncio.Transport, roles: Roles) -> Caller:
    """The peer's credentials, taken by the kernel at connect() (unix(7)): a later setuid does not change them."""
    # A duplicate, because uvloop's own socket object does not return whole buffers from getsockopt.
    peer = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    try:
        pid, uid, gid = _PEERCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
        try:
            raw = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MAX_PEER_GROUPS_BYTES)
        except OSError as err:  # ERANGE: more groups than fit; the primary group still counts
            LOG.warning("supplementary groups of a control peer could not be read uid=%d reason=%s", uid, err)
            raw = b""
    finally:
        peer.close()
    groups = frozenset(struct.unpack(f"{len(raw) // 4}I", raw)) | {gid}
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Caller(uid, gid, pid, groups, access_of(uid, gid, groups, roles), name)


def access_of(uid: int, gid: int, groups: frozenset[int], roles: Roles) -> Access:
    """What a peer with these ids may do. Names are looked up each time: a group made later holds from then on."""
    if uid in (0, os.geteuid()):
        return Access.READ | Access.WRITE | Access.PORTAL | Access.ADMIN
    portal_gids = _gids(roles.portal_groups)
    if uid in _uids(roles.portal_users) or gid in portal_gids:
        return Access.PORTAL
    admin_gids = _gids(roles.admin_web_groups)
    if uid in _uids(roles.admin_web_users) or gid in admin_gids:
        return Access.ADMIN
    access = Access(0)
    if groups & _gids(roles.read_groups):
        access |= Access.READ
    if groups & _gids(roles.write_groups):
        access |= Access.READ | Access.WRITE
    if groups & portal_gids:
        access |= Access.PORTAL
    if groups & admin_gids:
        access |= Access.ADMIN
    return access


def denial(caller: Caller, method: str, access: Access) -> str:
    """Why a method is not the caller's, and what to do."""
    if access & Access.READ:
        return f"user {caller.name} may not call {method}: run it as root, or join group postern"
    if access & Access.WRITE:
        return f"user {caller.name} may not call {method}: run it as root, or join group postern-admin"
    whose = "the portal" if access & Access.PORTAL else "the administration's web interface"
    return f"user {caller.name} may not call {method}: it is for {whose}"


def _gids(names: Iterable[str]) -> frozenset[int]:
    return frozenset(gid for gid in map(_gid_of, names) if gid is not None)


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _uids(names: Iterable[str]) -> frozenset[int]:
    found = []
    for name in names:
        try:
            found.append(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue  # a user that does not exist is nobody
    return frozenset(found)
