"""An HTTP client for tests that sends exactly the octets it is given, and reads answers without being clever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

# What makes the loop of `run`; a fixture that wants another one puts it last.
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one test's coroutine, for a minute at most; closed connections get a moment to be gone from the loop."""

    async def whole() -> T:
        try:
            return await asyncio.wait_for(work, 60)
        finally:
            await asyncio.sleep(0.02)

    with asyncio.Runner(loop_factory=LOOPS[-1]) as runner:
        return runner.run(whole())


@dataclass
class Answer:
    """One response as it was read."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    closed: bool = False  # the server closed the connection afterwards
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fields = {name.lower(): value for name, value in self.headers}

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """One response, by Content-Length or chunked."""
    status_line = await reader.readuntil(b"\r\n")
    version, status, _ = status_line.split(b" ", 2)
    assert version == b"HTTP/1.1"
    headers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
        headers.append((name, value))
    fields = {name.lower(): value for name, value in headers}
    assert len(fields) == len(headers), f"a field was sent twice: {headers}"
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while not head:
            size = int(await reader.readuntil(b"\r\n"), 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
    elif not head and int(status) not in (100, 204, 304):
        body = await reader.readexactly(int(fields["content-length"]))
    return Answer(int(status), headers, body)


async def exchange(port: int, data: bytes, *, client: str = "127.0.0.1", head: bool = False) -> Answer:
    """Send octets on a new connection, read one response, and see whether the server then closes within a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
    try:
        writer.write(data)
        answer = await read_answer(reader, head=head)
        try:
            answer.closed = (
                await asyncio.wait_for(reader.read(1), 0.2 if "connection" not in answer.fields else 5) == b""
            )
        except TimeoutError:
            answer.closed = False
        return answer
    finally:
        writer.close()


async def get(port: int, target: str, host: str = "", *, client: str = "127.0.0.1", headers: str = "") -> Answer:
    """A GET with a Host (by default the portal's own) and further header lines, on a connection of its own."""
    host = host or f"127.0.0.1:{port}"
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    return await exchange(port, request.encode("latin-1"), client=client)


async def post(
    port: int,
    target: str,
    body: bytes,
    content_type: str = "application/x-www-form-urlencoded",
    *,
    client: str = "127.0.0.1",
    host: str = "",
    headers: str = "",
) -> Answer:
    """A POST, likewise."""
    host = host or f"127.0.0.1:{port}"
    request = (
        f"POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return await exchange(port, request.encode("latin-1") + body, client=client)
