"""The control socket for programs without an event loop: the command line and the metrics exporter.

Apart from `client`, because importing asyncio takes longer than everything else that `postern status` does.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from gateway.control import protocol
from gateway.control.protocol import ControlError, FrameBuffer, FrameError, JsonValue, Params

DEFAULT_SOCKET: Final = Path("/run/postern/control.sock")
_READ_BYTES: Final = 262144


class SyncControlClient:
    """One connection, one request at a time. Connects at the first use; every failure is a ControlError.

    Its codes beside those of the daemon: `unreachable` (nobody answers), `denied` (the socket's mode), `timeout`.
    """

    def __init__(self, path: Path = DEFAULT_SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._frames = FrameBuffer(protocol.MAX_REPLY_BYTES)
        self._next_id = 0

    def __enter__(self) -> SyncControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._frames = FrameBuffer(protocol.MAX_REPLY_BYTES)

    def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Ask and wait for the answer; raises ControlError."""
        deadline = time.monotonic() + timeout_s
        request_id = self._send(method, params or {}, timeout_s)
        while True:
            message = self._receive(deadline - time.monotonic())
            if message.get("id") == request_id:
                return message.get("result")

    def subscribe(self, method: str, params: Params | None = None) -> Iterator[JsonValue]:
        """The events of a stream until it ends; it is asked for at once, not at the first event.

        Leaving the loop early closes the connection.
        """
        return self._events(self._send(method, params or {}, None))

    def _events(self, request_id: int) -> Iterator[JsonValue]:
        try:
            while True:
                message = self._receive(None)
                if message.get("id") != request_id:
                    continue
                if message.get("end") is True:
                    return
                yield message.get("event")
        finally:
            self.close()

    def _send(self, method: str, params: Params, timeout_s: float | None) -> int:
        connection = self._connected()
        self._next_id += 1
        connection.settimeout(timeout_s)
        try:
            connection.sendall(protocol.request_frame(self._next_id, method, params))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon has said why before it closed; that is read next
        except OSError as err:
            self.close()
            raise ControlError(protocol.UNREACHABLE, f"the connection to posternd failed: {err}") from None
        return self._next_id

    def _receive(self, timeout_s: float | None) -> dict[str, JsonValue]:
        """The next frame; an error frame is raised. Only one request is ever under way, so it is ours."""
        assert self._socket is not None
        try:
            while (body := self._frames.take()) is None:
                self._socket.settimeout(None if timeout_s is None else max(0.001, timeout_s))
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ControlError(protocol.UNREACHABLE, "posternd closed the connection (it may be restarting)")
                self._frames.feed(data)
            message = protocol.decode(body)
        except TimeoutError:
            self.close()
            raise ControlError(protocol.TIMEOUT, "posternd did not answer in time; it may be overloaded") from None
        except FrameError as err:
            self.close()
            raise ControlError(protocol.INTERNAL, f"what answers at {self._path} is not posternd: {err}") from None
        except OSError as err:
            self.close()
            raise ControlError(protocol.UNREACHABLE, f"the connection to posternd failed: {err}") from None
        except ControlError:
            self.close()
            raise
        error = protocol.error_of(message)
        if error is not None:
            raise error
        return message

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                connection.settimeout(10.0)
                connection.connect(os.fspath(self._path))
            except OSError as err:
                connection.close()
                raise connection_error(self._path, err) from None
            self._socket = connection
        return self._socket


def connection_error(path: Path, err: OSError) -> ControlError:
    """What a failed connect() means for the person at the terminal, and what to do."""
    if err.errno in (errno.ENOENT, errno.ENOTDIR):
        text = f"posternd is not running (there is no control socket at {path}); start it with: systemctl start postern"
        return ControlError(protocol.UNREACHABLE, text)
    if err.errno == errno.ECONNREFUSED:
        text = (
            f"posternd is not running (it left its socket at {path} behind); look at `journalctl -u postern` "
            "and start it with: systemctl start postern"
        )
        return ControlError(protocol.UNREACHABLE, text)
    if err.errno in (errno.EACCES, errno.EPERM):
        text = (
            f"you may not use the control socket {path}; run the command as root, or join group postern to look "
            "or postern-admin to change (usermod -aG postern NAME, then log in again)"
        )
        return ControlError(protocol.DENIED, text)
    if err.errno in (errno.EAGAIN, errno.ETIMEDOUT):
        return ControlError(
            protocol.UNREACHABLE, f"posternd does not accept connections at {path}; it may be overloaded"
        )
    return ControlError(protocol.UNREACHABLE, f"{path} cannot be reached: {err.strerror or err}")
