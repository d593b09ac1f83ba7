"""Accepts connections, and answers at once what can be answered at once.

Most requests that a portal sees are background traffic of apps: one small request on a new connection, answered with a
redirect and closed. For these no transport and no protocol object is made: the kernel hands the connection over with
its first octets (TCP_DEFER_ACCEPT), and the answer leaves in one segment together with the end of the connection. Most
of what is left is the kernel's work per segment, so segments are saved: no acknowledgement of the request alone, no FIN
alone. Everything else becomes a `Connection` of `server`, together with what was read and decided so far.
"""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Final

from webui.messages import App, RequestError, Response
from webui.parsing import MAX_HEAD_BYTES, wants_close
from webui.server import Connection, Decision, HttpServer, path_of, serialize

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_ACCEPTS_AT_ONCE: Final = 32  # then others have their turn
_DEFER_S: Final = 1  # a connection that says nothing is handed over after about this time
_REST_S: Final = 0.5  # when no descriptor is left
_MAX_AT_ONCE_BYTES: Final = 4096  # surely fits the send buffer of a new connection
_MAX_HANDSHAKES: Final = 128  # at once; a handshake costs milliseconds of CPU before anybody has a name
_MAX_HANDSHAKES_PER_CLIENT: Final = 32  # whoever begins handshakes and says no more keeps nobody else out
_HANDSHAKE_S: Final = 10.0
# The answer waits for the close that follows at once, and so carries the FIN.
_WITH_THE_CLOSE: Final = socket.MSG_DONTWAIT | socket.MSG_MORE
# The C class below `socket.socket`, whose constructor and `accept` look up enumerations for 5 µs.
_PlainSocket: Final = socket.SocketType


class Listener:
    """One listening socket and the application behind it."""

    def __init__(self, server: HttpServer, sock: socket.socket, app: App, tls: ssl.SSLContext | None = None) -> None:
        """`sock` is bound and non-blocking; it is ours from now on. With `tls` nothing is read in the clear."""
        self._server = server
        self._sock = sock
        self._app = app
        self._tls = tls
        self._handshakes: dict[str, int] = {}  # under way, by client
        self._family = sock.family  # a lookup of an enumeration each time
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_S)
        sock.listen(_BACKLOG)
        # Inherited by connections, and set back by `listen`: what acknowledges the request is the answer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        self._resume()

    def close(self) -> None:
        """Listen no more; connections that exist go on. Twice is once."""
        if self._sock.fileno() >= 0:
            self._server.loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def set_tls(self, tls: ssl.SSLContext) -> None:
        """Use another certificate for connections from now on."""
        self._tls = tls

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._server.loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                # As `accept` begins; the rest of it makes a `socket.socket`. Not in the stubs.
                descriptor, peer = self._sock._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as err:
                log.error("connections are not accepted for a moment reason=%s", err)
                self._server.loop.remove_reader(self._sock.fileno())
                self._server.loop.call_later(_REST_S, self._resume)
                return
            sock = _PlainSocket(self._family, socket.SOCK_STREAM, 0, descriptor)
            if self._tls is not None:
                self._hand_over(sock, peer[0], b"", None)
                continue
            try:
                self._serve(sock, peer[0])
            except OSError:
                sock.close()  # the client went away meanwhile

    def _serve(self, sock: socket.SocketType, client: str) -> None:
        try:
            data = sock.recv(MAX_HEAD_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._hand_over(sock, client, b"", None)
            return
        # Exactly one head and nothing behind it: the plain case.
        if not data.endswith(b"\r\n\r\n") or data.find(b"\r\n\r\n") != len(data) - 4 or data.startswith(b"\r\n"):
            if data:
                self._hand_over(sock, client, data, None)
            else:
                sock.close()
            return
        try:
            decision = self._server.decide(data, client, self._app)
        except RequestError as err:
            self._server.counts.bad_requests += 1
            decision = Decision(None, self._app.refusal(path_of(data), err.status, err.reason))
        request, answer = decision.request, decision.answer
        if (
            isinstance(answer, Response)
            and isinstance(answer.body, bytes)
            and (answer.close or request is None or wants_close(request))
            and not decision.has_body
        ):
            head_only = request is not None and request.method == "HEAD"
            wire = serialize(answer, answer.body, keep=False, head_only=head_only)
            if len(wire) <= _MAX_AT_ONCE_BYTES:
                self._server.counts.connections += 1
                sock.send(wire, _WITH_THE_CLOSE)
                sock.close()
                return
        self._hand_over(sock, client, b"", decision)

    def _hand_over(self, plain_sock: socket.SocketType, client: str, data: bytes, decision: Decision | None) -> None:
        if self._tls is not None and not self._may_shake_hands(client):
            self._server.counts.refused_connections += 1
            plain_sock.close()
            return
        sock = socket.socket(self._family, socket.SOCK_STREAM, 0, plain_sock.detach())
        sock.setblocking(False)
        self._server.group.create_task(self._connect(sock, client, data, decision), name="http connection")

    def _may_shake_hands(self, client: str) -> bool:
        """Count a handshake in, unless there are too many at once: of all, or of this client."""
        of_client = self._handshakes.get(client, 0)
        if of_client >= _MAX_HANDSHAKES_PER_CLIENT or sum(self._handshakes.values()) >= _MAX_HANDSHAKES:
            return False
        self._handshakes[client] = of_client + 1
        return True

    def _shaken(self, client: str) -> None:
        """Count a handshake out."""
        left = self._handshakes.pop(client) - 1
        if left:
            self._handshakes[client] = left

    async def _connect(self, sock: socket.socket, client: str, data: bytes, decision: Decision | None) -> None:
        tls = self._tls
        try:
            if decision is None or decision.has_body:
                # A client that sends its request in pieces waits for our acknowledgements between them (Nagle).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            await self._server.loop.connect_accepted_socket(
                lambda: Connection(self._server, self._app, data, decision),
                sock,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else _HANDSHAKE_S,
            )
        except OSError as err:  # also ssl.SSLError: a scanner, or a browser that does not trust the certificate
            log.debug("connection not made reason=%s", err)
            sock.close()
        finally:
            if tls is not None:
                self._shaken(client)
