"""WSGI applications in a few threads: what they see, and the bound of their queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from wsgiref.types import WSGIEnvironment

import pytest

from tests.webui.fake_daemon import eventually
from tests.webui.wire import run
from webui.messages import Request
from webui.wsgi import ThreadedWsgi, run_wsgi

Start = Callable[..., object]


def test_an_application_sees_the_request_and_its_answer_is_taken_whole() -> None:
    """Path decoded, query not; fields as HTTP_*; the length is left to the server."""
    seen: WSGIEnvironment = {}

    def app(environ: WSGIEnvironment, start: Start) -> Iterable[bytes]:
        seen.update(environ)
        start("201 Created", [("Content-Type", "text/x"), ("Content-Length", "99"), ("X-A", "b")])
        return [b"one", b"two"]

    headers = {"host": "a", "accept-language": "fr", "content-type": "x/y"}
    response = run_wsgi(app, Request("POST", "/a%20b?c=%20", 1, headers, "10.0.0.1", b"body"))
    assert (response.status, response.content_type, response.body) == (201, "text/x", b"onetwo")
    assert response.headers == [("X-A", "b")]
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["REMOTE_ADDR"]) == ("/a b", "c=%20", "10.0.0.1")
    assert (seen["HTTP_ACCEPT_LANGUAGE"], seen["CONTENT_TYPE"]) == ("fr", "x/y")
    assert seen["wsgi.input"].read() == b"body"


def test_an_endless_page_is_cut_off_and_closed() -> None:
    """No page can fill the memory."""
    closed = []

    def app(environ: WSGIEnvironment, start: Start) -> Iterable[bytes]:
        def pieces() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                closed.append(True)

        start("200 OK", [])
        return pieces()

    with pytest.raises(ValueError, match="more than"):
        run_wsgi(app, Request("GET", "/", 1, {}, ""))
    assert closed == [True]


def test_beyond_threads_and_queue_guests_are_told_to_come_back() -> None:
    """503 with Retry-After at once; when the pages end there is room again."""
    release = threading.Event()

    def app(environ: WSGIEnvironment, start: Start) -> Iterable[bytes]:
        release.wait(10)
        start("200 OK", [])
        return []

    async def story() -> None:
        pool = ThreadedWsgi(threads=2, queue=1)
        request = Request("GET", "/", 1, {}, "")
        waiting = [asyncio.ensure_future(pool.run(app, request)) for _ in range(3)]
        await asyncio.sleep(0)
        refused = await pool.run(app, request)
        assert (refused.status, dict(refused.headers)["Retry-After"]) == (503, "2")
        waiting[0].cancel()  # the client went away; its thread is still at work
        await asyncio.sleep(0)
        assert (await pool.run(app, request)).status == 503
        release.set()
        assert [response.status for response in await asyncio.gather(*waiting[1:])] == [200, 200]
        await eventually(lambda: pool._under_way == 0, "all threads are free")
        assert (await pool.run(app, request)).status == 200
        await pool.close(1.0)

    run(story())
