"""`python -m gateway.metrics_http`: serves the daemon's `metrics.text` at GET /metrics, and nothing else.

A process of its own without any power: it needs to read the control socket (group postern) and to listen on one port.
Whoever parses bytes from strangers over HTTP stays out of the daemon. A scraper that is slow or hostile holds one of a
few threads for a few seconds; further connections wait in the kernel.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Final

from gateway.control.blocking import DEFAULT_SOCKET, SyncControlClient
from gateway.control.protocol import ControlError

LOG: Final = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_THREADS: Final = 8
SOCKET_TIMEOUT_S: Final = 5.0  # to read a request or to write to a scraper that does not read
SCRAPE_TIMEOUT_S: Final = 15.0  # for the whole connection, however many octets trickle in
DAEMON_TIMEOUT_S: Final = 5.0


class MetricsServer(ThreadingMixIn, HTTPServer):
    """Answers scrapes with what `read_metrics` returns."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, address: str, port: int, read_metrics: Callable[[], str]) -> None:
        if ip_address(address).version == 6:
            self.address_family = socket.AF_INET6
        self.read_metrics = read_metrics
        self._slots = threading.BoundedSemaphore(MAX_THREADS)
        super().__init__((address, port), _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Start a thread for the connection, waiting for one to end when there are too many."""
        self._slots.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve one connection, and cut it when it takes too long as a whole."""
        timer = threading.Timer(SCRAPE_TIMEOUT_S, _cut, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke is the scraper's affair; anything else is ours and is logged."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            LOG.debug("scrape broke off peer=%s reason=%s", client_address, error)
        else:
            LOG.error("scrape failed peer=%s", client_address, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = SOCKET_TIMEOUT_S
    server_version = "postern"
    sys_version = ""

    def do_GET(self) -> None:
        """200 with the metrics, 404 for other paths, 503 while the daemon is away."""
        if self.path.split("?", 1)[0] != "/metrics":
            self._answer(404, "only /metrics is here\n")
            return
        try:
            text = self.server.read_metrics()
        except ControlError as err:
            self._answer(503, f"{err}\n")
            return
        self._answer(200, text, CONTENT_TYPE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Scrapes are no news."""
        LOG.debug("request peer=%s line=%s", self.client_address[0], format % args)

    def _answer(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended in the meantime


def read_from(path: Path) -> Callable[[], str]:
    """A function that asks the daemon at `path`; one connection per scrape, so that a restart needs no care."""

    def read() -> str:
        with SyncControlClient(path) as client:
            answer = client.call("metrics.text", {}, timeout_s=DAEMON_TIMEOUT_S)
        text = answer.get("text") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise ControlError("internal", "posternd answered metrics.text without a text")
        return text

    return read


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:2112` or `[::1]:2112`; raises argparse.ArgumentTypeError."""
    address, colon, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    try:
        ip_address(address)
        number = int(port)
    except ValueError:
        number = -1
    if not colon or not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address and port such as 127.0.0.1:2112")
    return address, number


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; 0 then, 1 when the port cannot be had."""
    parser = argparse.ArgumentParser(prog="postern-metrics", description="Serve the gateway's metrics to Prometheus.")
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET, help="control socket of posternd")
    parser.add_argument("--listen", type=parse_listen, default=("127.0.0.1", 2112), help="address and port")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    address, port = arguments.listen
    try:
        server = MetricsServer(address, port, read_from(arguments.socket))
    except OSError as err:
        LOG.error("metrics cannot be served listen=%s:%d reason=%s", address, port, err)
        return 1
    LOG.info("serving metrics listen=%s:%d socket=%s", address, server.server_address[1], arguments.socket)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
