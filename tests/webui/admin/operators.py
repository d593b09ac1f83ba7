"""Operators at a running administration, from outside: a person who logs in by the form, a program with a token.

Every request has a connection of its own, as short programs make them, unless `keep` is set.
"""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.webui.admin.capture_admin import trusting

LIMIT_S = 60.0
_COOKIE = re.compile(r"([^=;]+)=([^;]*)")
_FIELD = r'name="%s"[^>]*value="([^"]*)"'


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read; Any: JSON."""
        return json.loads(self.body)


@dataclass
class Operator:
    """Somebody at the administration on this port of loopback; `source` is the address that connections come from."""

    port: int
    source: str = "127.0.0.1"
    keep: bool = False
    token: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    _kept: http.client.HTTPSConnection | None = None

    def connect(self, timeout_s: float = LIMIT_S) -> http.client.HTTPSConnection:
        """A connection."""
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=timeout_s, context=trusting(), source_address=(self.source, 0)
        )

    def headers(self) -> dict[str, str]:
        """Who asks: the token where there is one, else the browser's cookies."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """One request and its whole answer; raises OSError and http.client.HTTPException."""
        connection = self._kept if self.keep and self._kept is not None else self.connect()
        try:
            connection.request(method, path, body, {**self.headers(), **(headers or {})})
            response = connection.getresponse()
            answer = Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        except BaseException:
            self._kept = None
            connection.close()
            raise
        for value in response.headers.get_all("set-cookie") or ():
            if (found := _COOKIE.match(value)) is not None:
                self.cookies[found[1]] = found[2]
        if self.keep and not response.will_close:
            self._kept = connection
        else:
            self._kept = None
            connection.close()
        return answer

    def post(self, path: str, **fields: str) -> Answer:
        """Send a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, urlencode(fields).encode(), kind)

    def log_in(self, name: str, password: str) -> None:
        """Log in by the form; raises AssertionError when that is refused."""
        page = self.ask("GET", "/login")
        answer = self.post("/login", form=hidden(page, "form"), name=name, password=password, next="/")
        assert answer.status == 303, (answer.status, answer.body)

    def make_token(self, *scopes: str) -> str:
        """A token of who is logged in, used from now on."""
        csrf = hidden(self.ask("GET", "/account"), "csrf")
        wanted = json.dumps({"name": "a program", "scopes": list(scopes)}).encode()
        kind = {"Content-Type": "application/json", "X-CSRF-Token": csrf}
        answer = self.ask("POST", "/api/v1/tokens", wanted, kind)
        assert answer.status == 201, (answer.status, answer.body)
        self.token = str(answer.json()["token"])
        return self.token

    def upload(self, data: bytes, name: str = "a.pcap") -> Answer:
        """Send a capture as a program does."""
        return self.ask(
            "POST", "/api/v1/upload", data, {"X-Filename": name, "Content-Type": "application/octet-stream"}
        )


def hidden(page: Answer, name: str) -> str:
    """The value of a hidden field of a page; raises AssertionError without one."""
    found = re.search(_FIELD % name, page.body.decode())
    assert found is not None, f"no field {name!r}, status {page.status}: {page.body[:500]!r}"
    return found[1]
