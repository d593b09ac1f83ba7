"""What the server itself refuses: a problem document under /api/, a short text elsewhere, and when to come again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.webui.admin.visitor import Answer, Visitor, admin, logged_in, read_answer
from tests.webui.wire import run
from webui.server import path_of

PROBLEM = "application/problem+json"


async def raw(visitor: Visitor, octets: bytes) -> Answer:
    """What is answered to octets as they are."""
    reader, writer = await visitor.connect()
    try:
        writer.write(octets)
        return await read_answer(reader)
    finally:
        writer.close()


def check(answer: Answer, status: int, *, api: bool) -> None:
    """Kind and status of a refusal, with the headers that every answer carries."""
    assert answer.status == status
    assert answer.header("content-type").startswith(PROBLEM if api else "text/plain")
    assert answer.header("x-content-type-options") == "nosniff"
    if api:
        assert answer.json["status"] == status
        assert answer.json["title"] != "Refused"
        assert answer.json["detail"].endswith(".")


def test_too_many_requests(tmp_path: Path) -> None:
    """With the seconds to wait, in both forms."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, service):
            logged_in(fake, visitor)
            service.server.set_limits(replace(service.server.limits, rate=0.01, rate_burst=1.0))
            await visitor.get("/api/v1/health")
            answer = await visitor.get("/api/v1/status?x=1")
            check(answer, 429, api=True)
            assert int(answer.header("retry-after")) > 1
            answer = await visitor.get("/clients")
            check(answer, 429, api=False)
            assert int(answer.header("retry-after")) > 1

    run(story())


def test_bodies_that_are_too_large(tmp_path: Path) -> None:
    """With a length, and in chunks that only show it later."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
            for path, api in (("/api/v1/users", True), ("/login", False)):
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fake.token('operate')}\r\n"
                known = await raw(visitor, (head + "Content-Length: 99999999\r\n\r\n").encode())
                check(known, 413, api=api)
                later = await raw(visitor, (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunk * 2)
                check(later, 413, api=api)
                odd = await raw(visitor, (head + "Content-Length: 5\r\nExpect: magic\r\n\r\n").encode())
                assert odd.status == 417

    run(story())


def test_requests_that_take_too_long(tmp_path: Path) -> None:
    """Whether the head or the body does not come."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, service):
            service.server.set_limits(replace(service.server.limits, read_timeout_s=0.5))
            for path, api in (("/api/v1/users", True), ("/login", False)):
                begun = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode()
                answers = await asyncio.gather(
                    raw(visitor, begun), raw(visitor, begun + b"Content-Length: 10\r\n\r\nabc")
                )
                for answer in answers:
                    check(answer, 408, api=api)

    run(story())


def test_the_path_of_octets_that_are_no_head_yet() -> None:
    """Empty for what cannot be told."""
    assert path_of(b"GET /api/v1/x?y=1 HTTP/1.1\r\nHost: x") == "/api/v1/x"
    for octets in (b"", b"GET", b"GET /api/v1/x", b"GET http://x/api/ HTTP/1.1", b"\x16\x03\x01", b"GET  HTTP/1.1"):
        assert path_of(octets) == ""
    assert path_of(b"GET /\xff HTTP/1.1\r\n") == "/\ufffd"
