"""The socket of postern-system: one caller after the other, known by the kernel's word, one frame at a time.

Plain blocking code, because this is what runs as root: no event loop, no thread, nothing that is kept between callers.
Frames are those of the control socket. Everybody may connect and only posternd's user and root are answered: making the
socket somebody else's in a directory that posternd may write would let a symbolic link in its place be given away.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.control import protocol
from gateway.control.protocol import ControlError, FrameBuffer, FrameError, JsonValue
from gateway.system.verbs import Place, Verb

LOG: Final = logging.getLogger(__name__)
PATIENCE_S: Final = 5.0  # how long a caller may keep the next one waiting without a word
REQUESTS: Final = 100  # of one caller
_PEERCRED: Final = struct.Struct("iII")
_READ_BYTES: Final = 65536


class SystemServer:
    """The socket and its verbs."""

    def __init__(self, path: Path, user: str, place: Place, verbs: Mapping[str, Verb]) -> None:
        self._path = path
        self._user = user
        self._place = place
        self._verbs = verbs
        self._listener: socket.socket | None = None

    def bind(self) -> None:
        """Make the socket; raises OSError."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0)
        try:
            listener.bind(os.fspath(self._path))
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.listen(16)
        self._listener = listener

    def serve(self, stop: Callable[[], bool]) -> None:
        """Answer callers until `stop` says so; it is asked once a second."""
        assert self._listener is not None
        self._listener.settimeout(1.0)
        while not stop():
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                continue
            with peer:
                try:
                    self._converse(peer)
                except OSError as err:
                    LOG.info("caller is gone reason=%s", err)

    def close(self) -> None:
        """Close and remove the socket."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def _converse(self, peer: socket.socket) -> None:
        peer.settimeout(PATIENCE_S)
        pid, uid, _ = _PEERCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
        if uid not in self._allowed():
            LOG.warning("caller refused uid=%d pid=%d", uid, pid)
            text = f"postern-system answers root and user {self._user} only"
            peer.sendall(protocol.error_frame(None, protocol.DENIED, text))
            return
        frames = FrameBuffer(protocol.MAX_REQUEST_BYTES)
        for _ in range(REQUESTS):
            while (body := _take(frames)) is None:
                data = peer.recv(_READ_BYTES)
                if not data:
                    return
                frames.feed(data)
            peer.sendall(self._answer(body, uid))

    def _allowed(self) -> set[int]:
        try:
            return {0, pwd.getpwnam(self._user).pw_uid}
        except KeyError:
            return {0}  # a user that does not exist is nobody

    def _answer(self, body: bytes, uid: int) -> bytes:
        try:
            request = protocol.parse_request(body)
        except FrameError as err:
            return protocol.error_frame(None, err.code, err.message)
        if request.id is None:
            return protocol.error_frame(None, protocol.BAD_REQUEST, "a request needs an id")
        verb = self._verbs.get(request.method)
        if verb is None:
            known = ", ".join(sorted(self._verbs))
            text = f"there is no verb {request.method[:64]!r}; there are: {known}"
            return protocol.error_frame(request.id, protocol.UNKNOWN_METHOD, text)
        result: JsonValue
        try:
            result = verb(self._place, request.params)
        except ControlError as err:
            LOG.warning("refused verb=%s uid=%d reason=%s", request.method, uid, err.message)
            return protocol.error_frame(request.id, err.code, err.message)
        except Exception:  # a fault in one verb must not end the others
            LOG.exception("verb failed verb=%s", request.method)
            return protocol.error_frame(request.id, protocol.INTERNAL, "postern-system failed; its log says why")
        LOG.info("done verb=%s uid=%d", request.method, uid)
        return protocol.result_frame(request.id, result)


def _take(frames: FrameBuffer) -> bytes | None:
    try:
        return frames.take()
    except FrameError as err:
        raise OSError(err.message) from err  # the next frame's beginning is lost: the conversation is over
