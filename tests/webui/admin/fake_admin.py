"""A daemon in memory that speaks the administration's control methods, and the administration on loopback against it.

`python -m tests.webui.admin.fake_admin --port 8443` serves it for looking at pages and for load programs.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.control.client import ControlError
from tests.webui.admin import fake_world
from tests.webui.fake_daemon import eventually, free_port
from webui.admin.daemon import AdminDaemon, JsonValue, Params
from webui.admin.service import AdminService, Options, Place
from webui.admin.site import ROLES
from webui.parsing import DEFAULT_PARSER

PASSWORD = "correct horse battery"
SETUP_CODE = "abcd-efgh-jkmn-pqrs"
TOTP = "123456"

# The least role of a method, where it is not what the name says (lists and shows are for viewers).
_LOOKS = (
    "list",
    "show",
    "status",
    "text",
    "schema",
    "past",
    "history",
    "read",
    "run",
    "batches",
    "blocked",
    "interfaces",
)


@dataclass
class FakeAdmin:
    """Answers as the daemon does. `accounts` are roles by name; `sessions` are names by credential."""

    setup_needed: bool = False
    accounts: dict[str, str] = field(
        default_factory=lambda: {"ada": "administrator", "otto": "operator", "vera": "viewer"}
    )
    totp: set[str] = field(default_factory=set)
    sessions: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # name and scopes
    reachable: bool = True
    wait_s: int = 0
    calls: list[tuple[str, Params]] = field(default_factory=list)
    world: fake_world.World = field(default_factory=fake_world.World)
    failures: dict[str, ControlError] = field(default_factory=dict)
    events: set[asyncio.Queue[dict[str, JsonValue]]] = field(default_factory=set)
    made: int = 0

    # The shape of ControlClient.

    async def call(self, method: str, params: Params | None = None, timeout_s: float = 30.0) -> JsonValue:
        """Answer one call."""
        params = copy.deepcopy(params or {})
        self.calls.append((method, params))
        if not self.reachable:
            raise ControlError("unreachable", "posternd is not running")
        if method == "admin.call":
            return self._on_behalf(params)
        handler: Callable[[Params], JsonValue] = getattr(self, method.replace(".", "_"))
        return handler(params)

    async def subscribe(self, method: str, params: Params | None = None) -> AsyncIterator[JsonValue]:
        """Events that tests put with `tell`, until the session is gone."""
        assert method == "admin.stream"
        assert params is not None
        queue: asyncio.Queue[dict[str, JsonValue]] = asyncio.Queue()
        self.events.add(queue)
        try:
            while True:
                self._who(params)
                yield await queue.get()
        finally:
            self.events.discard(queue)

    async def close(self) -> None:
        """Nothing is open."""

    # For tests.

    def tell(self, event: dict[str, JsonValue]) -> None:
        """Send an event to every stream."""
        for queue in self.events:
            queue.put_nowait(event)

    def log_in(self, name: str = "ada") -> str:
        """A session of an account, without asking anybody."""
        self.made += 1
        credential = f"session-{name}-{self.made}"
        self.sessions[credential] = name
        return credential

    def token(self, *scopes: str, name: str = "ada") -> str:
        """An API token of an account."""
        self.made += 1
        secret = f"token-{self.made}"
        self.tokens[secret] = (name, scopes)
        return secret

    def called(self, method: str) -> list[Params]:
        """The parameters of every call of a method, also those on somebody's behalf."""
        direct = [params for name, params in self.calls if name == method]
        wrapped = [params for name, params in self.calls if name == "admin.call" and params.get("method") == method]
        return direct + [found for params in wrapped if isinstance(found := params["params"], dict)]

    # The methods.

    def _who(self, params: Params) -> tuple[str, str]:
        credential = str(params.get("credential"))
        name = self.sessions.get(credential) or self.tokens.get(credential, ("", ()))[0]
        if name not in self.accounts:
            raise ControlError("unauthenticated", "log in again")
        return name, self.accounts[name]

    def _on_behalf(self, params: Params) -> JsonValue:
        name, role = self._who(params)
        method, given = str(params["method"]), params["params"]
        assert isinstance(given, dict)
        if method in self.failures:
            raise self.failures[method]
        room, _, verb = method.partition(".")
        needed = "administrator"
        if verb in _LOOKS or method in ("status", "themes.preview"):
            needed = "administrator" if room in ("accounts", "tokens", "audit", "backup") else "viewer"
        elif room in ("sessions", "clients", "vouchers", "users", "captures", "devices"):
            needed = "operator"
        if ROLES.index(role) < ROLES.index(needed):
            raise ControlError("denied", f"{method} is for {needed}s")
        return self.world.answer(method, given, name)

    def admin_state(self, params: Params) -> JsonValue:
        return {
            "setup_needed": self.setup_needed,
            "version": "0.1.0",
            "hostname": "gate",
            "zones": ["guests"],
            "timezone": "Europe/Paris",
            "now_unix": fake_world.NOW,
        }

    def admin_config(self, params: Params) -> JsonValue:
        return {"enabled": True, "port": 8443, "interfaces": ["lo"], "guest_interfaces": ["wlan0"], "certificate": ""}

    def admin_setup_check(self, params: Params) -> JsonValue:
        if self.wait_s:
            return {"result": "wait", "retry_after_s": self.wait_s, "message": "Please wait."}
        right = params["code"] == SETUP_CODE
        if not right:
            return {"result": "reject", "message": "That is not the code."}
        return {"result": "success", "message": "", "methods": {"guests": ["password", "click"]}}

    def admin_setup(self, params: Params) -> JsonValue:
        if not self.setup_needed:
            raise ControlError("conflict", "there is an administrator already")
        if params["code"] != SETUP_CODE:
            raise ControlError("denied", "The setup code is not right; it is on the gateway's console.")
        self.setup_needed = False
        self.accounts = {str(params["name"]): "administrator"}
        return {"session": self.log_in(str(params["name"]))}

    def admin_login(self, params: Params) -> JsonValue:
        name = str(params["name"])
        if self.wait_s:
            return {"result": "wait", "retry_after_s": self.wait_s, "message": f"Please wait {self.wait_s} seconds."}
        if name not in self.accounts or params["password"] != PASSWORD:
            return {"result": "reject", "message": "Name or password is not right."}
        if name in self.totp and "totp" not in params:
            return {"result": "totp", "message": ""}
        if name in self.totp and params["totp"] != TOTP:
            return {"result": "reject", "message": "The code is not right."}
        return {"result": "success", "session": self.log_in(name), "name": name, "role": self.accounts[name]}

    def admin_whoami(self, params: Params) -> JsonValue:
        name, role = self._who(params)
        credential = str(params["credential"])
        if credential in self.tokens:
            scopes: list[JsonValue] = [*self.tokens[credential][1]]
            return {"name": name, "role": role, "kind": "token", "scopes": scopes, "csrf": "", "expires_s": None}
        csrf = f"csrf-of-{credential}"
        return {"name": name, "role": role, "kind": "session", "scopes": [], "csrf": csrf, "expires_s": 3600}

    def admin_logout(self, params: Params) -> JsonValue:
        self.sessions.pop(str(params["credential"]), None)
        return None


@asynccontextmanager
async def running_admin(
    fake: FakeAdmin, port: int, folder: Path, parser: str = DEFAULT_PARSER
) -> AsyncIterator[AdminService]:
    """The administration, listening with TLS on loopback."""
    async with asyncio.TaskGroup() as group:
        options = Options((Place("127.0.0.1", port),), folder, bundles=folder / "upgrade")
        service = AdminService(AdminDaemon(fake), options, parser, group, time.monotonic, time.time)
        service.start()
        try:
            await eventually(lambda: service.places, "the administration listens")
            yield service
        finally:
            await service.stop(1.0)


async def _serve(fake: FakeAdmin, port: int, folder: Path) -> None:
    async with running_admin(fake, port, folder):
        print(f"listening on https://127.0.0.1:{port}/ as ada, otto or vera, password: {PASSWORD}", flush=True)
        print(f"token {fake.token('read', 'operate', 'captures', 'configure')}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=free_port())
    options.add_argument("--setup", action="store_true", help="as a gateway that nobody has set up")
    options.add_argument("--clients", type=int, default=120)
    chosen = options.parse_args()
    fake = FakeAdmin(setup_needed=chosen.setup)
    fake.world.populate(chosen.clients)
    with tempfile.TemporaryDirectory(prefix="postern-fake-") as folder, asyncio.Runner() as runner:
        runner.run(_serve(fake, chosen.port, Path(folder)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
