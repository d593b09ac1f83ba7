"""A visitor of the administration for tests: keeps cookies as a browser does, over TLS, and hides nothing."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.webui.admin.fake_admin import FakeAdmin, running_admin
from tests.webui.fake_daemon import free_port
from webui.admin.service import AdminService


@dataclass
class Answer:
    """One response; `fields` in the order of their coming, names in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON; Any, as it may be anything."""
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """The first field of a name; empty without one."""
        return next((value for key, value in self.fields if key == name), "")

    def cookies(self) -> list[str]:
        """Every Set-Cookie."""
        return [value for key, value in self.fields if key == "set-cookie"]


@dataclass
class Visitor:
    """Somebody with a browser."""

    port: int
    jar: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: bytes = b"", content_type: str = "", headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        lines = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if self.jar:
            lines["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        if content_type:
            lines["Content-Type"] = content_type
        if body or method in ("POST", "PUT", "PATCH"):
            lines["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        reader, writer = await self.connect()
        try:
            writer.write(head.encode("latin-1") + b"\r\n" + body)
            answer = await read_answer(reader)
        finally:
            writer.close()
        for cookie in answer.cookies():
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return answer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; the gateway's own certificate is taken as it is."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    async def get(self, path: str, **headers: str) -> Answer:
        """A page."""
        return await self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def submit(self, path: str, headers: dict[str, str] | None = None, /, **fields: str) -> Answer:
        """A form, as it is given."""
        body = urlencode(fields).encode()
        return await self.ask("POST", path, body, "application/x-www-form-urlencoded", headers)

    async def post(self, path: str, **fields: str) -> Answer:
        """A form with the token of this session."""
        return await self.submit(path, csrf=self.csrf, **fields)

    @property
    def csrf(self) -> str:
        """The token of this session, as the fake daemon makes it."""
        return f"csrf-of-{self.jar['__Host-postern']}"


@dataclass
class Program:
    """Something with a token."""

    port: int
    token: str

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request to the REST API."""
        fields = {"Authorization": f"Bearer {self.token}", **headers} if self.token else headers
        data = b"" if body is None else json.dumps(body).encode()
        return await Visitor(self.port).ask(
            method, f"/api/v1{path}", data, "application/json" if body is not None else "", fields
        )


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One response to its end."""
    status_line = await reader.readuntil(b"\r\n")
    fields = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
        fields.append((name.lower(), value))
    length = next((value for name, value in fields if name == "content-length"), None)
    body = await (reader.read(-1) if length is None else reader.readexactly(int(length)))
    return Answer(int(status_line.split(b" ")[1]), fields, body)


def field_of(answer: Answer, name: str) -> str:
    """The value of a hidden field of a page."""
    found = re.search(rf'name="{name}" value="([^"]*)"', answer.text)
    assert found, f"no field {name} in {answer.text[:2000]}"
    return found[1]


@asynccontextmanager
async def admin(
    tmp_path: Path, fake: FakeAdmin | None = None
) -> AsyncIterator[tuple[FakeAdmin, Visitor, AdminService]]:
    """The administration with a fake daemon, and a visitor who is not logged in."""
    fake = fake or FakeAdmin()
    port = free_port()
    async with running_admin(fake, port, tmp_path) as service:
        yield fake, Visitor(port), service


def logged_in(fake: FakeAdmin, visitor: Visitor, name: str = "ada") -> Visitor:
    """The same visitor with a session."""
    visitor.jar["__Host-postern"] = fake.log_in(name)
    return visitor
