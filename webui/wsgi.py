"""Runs a WSGI application (our Bottle pages) in a few threads behind a bounded queue (PEP 3333).

Pages that are not hot go here. What waits for anybody else (a login) must not: it would hold a thread.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIEnvironment

from webui.messages import Request, Response, plain

_THREADS: Final = 4
_QUEUE: Final = 32  # at about 1 ms a page nobody waits long; beyond it, coming back later is quicker
_MAX_PAGE_BYTES: Final = 4 << 20

WsgiApp = Callable[[WSGIEnvironment, Callable[..., object]], Iterable[bytes]]


class ThreadedWsgi:
    """A few threads, and a bounded queue before them, for WSGI applications."""

    def __init__(self, threads: int = _THREADS, queue: int = _QUEUE) -> None:
        self._bound = threads + queue
        self._under_way = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="page")

    async def run(self, app: WsgiApp, request: Request) -> Response:
        """Let `app` answer in a thread; 503 when the queue is full."""
        if self._under_way >= self._bound:
            return plain(503, "the gateway is busy", close=True, retry_after_s=2)
        self._under_way += 1
        future = self._pool.submit(run_wsgi, app, request)
        loop = asyncio.get_running_loop()
        # The slot is free when the thread is, not when a client that went away stopped waiting.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._under_way -= 1

    async def close(self, grace_s: float) -> None:
        """Let the threads end: pages under way get `grace_s` seconds, those in the queue are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = asyncio.get_running_loop().time() + grace_s
        while self._under_way and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)


def run_wsgi(app: WsgiApp, request: Request) -> Response:
    """Call a WSGI application with one request and collect its whole answer (at most 4 MiB, else ValueError)."""
    response = Response(500)

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> Callable[[bytes], int]:
        response.status = int(status.partition(" ")[0])
        response.headers = []
        for name, value in headers:
            if name.lower() == "content-type":
                response.content_type = value
            elif name.lower() != "content-length":  # the server's to write
                response.headers.append((name, value))
        return lambda _data: 0

    parts: list[bytes] = []
    size = 0
    pieces = app(_environ(request), start_response)
    try:
        for piece in pieces:
            size += len(piece)
            if size > _MAX_PAGE_BYTES:
                raise ValueError(f"a page of more than {_MAX_PAGE_BYTES} octets")
            parts.append(piece)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    response.body = b"".join(parts)
    return response


def _environ(request: Request) -> WSGIEnvironment:
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": request.header("content-type"),
        "SERVER_NAME": "postern",
        "SERVER_PORT": "0",  # pages link relative to themselves
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        if name not in ("content-length", "content-type"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
