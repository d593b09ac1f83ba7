"""The daemon's end of the control socket: the listening socket, made safely and removed again.

One `Method` per name is given at construction; this module knows none of them. Who may call is in `access`, what a
connection does in `connection`.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from gateway.control import protocol
from gateway.control.access import Access, Caller, Roles, access_of
from gateway.control.connection import Bounds, Connection, ControlCounters, Handler, Method, Office, StreamHandler
from gateway.control.protocol import ControlError

__all__ = [
    "Access",
    "Bounds",
    "Caller",
    "ControlCounters",
    "ControlServer",
    "Handler",
    "Method",
    "Roles",
    "StreamHandler",
    "access_of",
]

LOG: Final = logging.getLogger(__name__)

_BACKLOG: Final = 128
_MAX_PATH: Final = 107  # sun_path, less its final NUL


class ControlServer:
    """The listening socket and its connections.

    `bind()` makes the socket (and raises OSError or ControlError when it cannot), `run()` serves until it is cancelled.
    Between the two, connections wait in the kernel.
    """

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, Method],
        roles: Roles | None = None,
        *,
        socket_group: str | None = "postern",
        bounds: Bounds | None = None,
    ) -> None:
        self._path = path
        self._socket_group = socket_group
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._office = Office(dict(methods), roles or Roles(), bounds or Bounds())

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._office.connections)

    @property
    def counters(self) -> ControlCounters:
        """What happened since the start."""
        return self._office.counters

    def bind(self) -> None:
        """Make the socket with mode 0660 and its group; a stale one of the same name is replaced.

        Raises ControlError(conflict) when another daemon answers there or something else than a socket is in the way,
        OSError when the directory does not allow it.
        """
        if len(os.fsencode(self._path)) > _MAX_PATH:
            raise ControlError(
                protocol.CONFLICT, f"the control socket's path {self._path} is longer than {_MAX_PATH} octets"
            )
        _remove_stale(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            before = os.umask(0o117)  # the socket must never be open to others, not even for a moment
            try:
                listener.bind(os.fspath(self._path))
            finally:
                os.umask(before)
            self._give_to_group()
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        status = self._path.stat()
        self._inode = (status.st_dev, status.st_ino)
        self._listener = listener
        self._warn_of_missing_names()

    async def run(self) -> None:
        """Serve until cancelled; then close every connection and remove the socket."""
        if self._listener is None:
            self.bind()
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._office.tasks = tasks
                server = await loop.create_unix_server(partial(Connection, self._office), sock=self._listener)
                try:
                    await loop.create_future()  # cancellation is the only way to stop
                finally:
                    server.close()
                    for connection in tuple(self._office.connections):
                        connection.close()
        finally:
            self._listener.close()
            self._listener = None
            self._remove_own_socket()

    def _give_to_group(self) -> None:
        if self._socket_group is None:
            return
        try:
            os.chown(self._path, -1, grp.getgrnam(self._socket_group).gr_gid)
        except (KeyError, PermissionError) as err:
            # Without the group only root and the daemon's own user reach the socket: safe, so not fatal.
            LOG.warning(
                "control socket keeps the daemon's own group path=%s group=%s reason=%s",
                self._path,
                self._socket_group,
                "no such group" if isinstance(err, KeyError) else "not permitted",
            )

    def _warn_of_missing_names(self) -> None:
        for name in self._office.roles.missing_groups():
            LOG.info("group does not exist, so nobody has its access to the control socket group=%s", name)

    def _remove_own_socket(self) -> None:
        try:
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._inode:
                self._path.unlink()
        except OSError as err:
            LOG.info("control socket could not be removed path=%s reason=%s", self._path, err)


def _remove_stale(path: Path) -> None:
    """Make room for our socket; what answers there, or is no socket, stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        text = f"{path} is in the way and is not a socket: move it, or set another run_dir"
        raise ControlError(protocol.CONFLICT, text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        outcome = probe.connect_ex(os.fspath(path))
    if outcome == errno.ECONNREFUSED:
        path.unlink()
        return
    if outcome == errno.ENOENT:
        return
    text = f"another posternd answers at {path}: stop it first (systemctl stop postern), or set another run_dir"
    raise ControlError(protocol.CONFLICT, text)
