"""The device as a whole: what is under way, what was refused, and that one thing is done at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

import pytest

from gateway.admin.roles import Role
from gateway.control.access import Access, Caller
from gateway.control.connection import Method
from gateway.control.protocol import CONFLICT, ControlError, JsonValue, Params
from gateway.control.system_methods import SystemMethods
from gateway.system.client import System
from gateway.upgrade import progress

ROOT = Caller(0, 0, 1, frozenset({0}), Access.READ | Access.WRITE, "root")


class ScriptedSystem(System):
    """postern-system that answers when a test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "config", folder)
        self.asked: list[tuple[str, Params]] = []
        self.go_on = asyncio.Event()
        self.answer: JsonValue | ControlError = {"state": "trial"}

    @property
    def bundle(self) -> Path:
        """In the test's own folder."""
        return self.run_dir / "bundle"

    async def ask(self, verb: str, params: Params, what: str, timeout_s: float = 30.0) -> JsonValue:
        """Wait, then answer."""
        self.asked.append((verb, params))
        await self.go_on.wait()
        if isinstance(self.answer, ControlError):
            raise self.answer
        return self.answer


def status_of(methods: SystemMethods) -> dict[str, JsonValue]:
    """The answer of device.status."""
    return cast(dict[str, JsonValue], methods.status(ROOT, {}))


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a story that must end soon."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(bounded())


def test_an_upgrade_in_the_background_is_told_by_the_status(tmp_path: Path) -> None:
    """Its progress while it runs; a second one is refused; the bundle is gone when it is installed."""

    async def story() -> None:
        system = ScriptedSystem(tmp_path)
        methods = SystemMethods(system)
        system.bundle.write_bytes(b"x")
        assert status_of(methods)["bundle"] is True
        assert await methods.upgrade(ROOT, {"wait": False, "build_id": "abc"}) == {"started": True}
        await asyncio.sleep(0)
        assert system.asked == [("upgrade", {"older": False, "build_id": "abc"})]
        progress.reporter(tmp_path)("writing", 5, 10)
        assert status_of(methods)["under_way"] == {"phase": "writing", "done_bytes": 5, "total_bytes": 10}
        for refused in (
            methods.upgrade(ROOT, {}),
            methods.check(ROOT, {}),
            methods.restart(ROOT, {}),
            methods.reset(ROOT, {"hostname": socket.gethostname()}),
        ):
            with pytest.raises(ControlError) as caught:
                await refused
            assert caught.value.code == CONFLICT
        with pytest.raises(ControlError):
            methods.discard(ROOT, {})
        system.go_on.set()
        while status_of(methods)["installing"]:
            await asyncio.sleep(0.01)
        assert not system.bundle.exists()
        assert status_of(methods)["under_way"] is None

    run(story)


def test_a_refusal_in_the_background_is_kept_until_the_bundle_is_removed(tmp_path: Path) -> None:
    """Nobody waited for it, so the status says it."""

    async def story() -> None:
        system = ScriptedSystem(tmp_path)
        system.answer = ControlError(CONFLICT, "the bundle is damaged")
        system.go_on.set()
        methods = SystemMethods(system)
        system.bundle.write_bytes(b"x")
        await methods.upgrade(ROOT, {"wait": False})
        while status_of(methods)["installing"]:
            await asyncio.sleep(0.01)
        assert status_of(methods)["failure"] == "the bundle is damaged"
        methods.discard(ROOT, {})
        assert (status_of(methods)["failure"], status_of(methods)["bundle"]) == ("", False)

    run(story)


def test_who_waits_hears_the_end_and_may_go(tmp_path: Path) -> None:
    """An upgrade goes on when the one who asked for it is gone."""

    async def story() -> None:
        system = ScriptedSystem(tmp_path)
        methods = SystemMethods(system)
        waiting = asyncio.create_task(methods.upgrade(ROOT, {}))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert status_of(methods)["installing"] is True
        system.go_on.set()
        while status_of(methods)["installing"]:
            await asyncio.sleep(0.01)
        assert await methods.upgrade(ROOT, {}) == {"state": "trial"}

    run(story)


def test_only_administrators_reach_the_device(tmp_path: Path) -> None:
    """Looking at what runs is for everybody."""

    async def story() -> None:
        table: dict[str, Method] = SystemMethods(ScriptedSystem(tmp_path)).table()
        roles = {name: method.least_role for name, method in table.items()}
        assert roles.pop("device.status") == Role.VIEWER
        assert set(roles.values()) == {Role.ADMINISTRATOR}

    run(story)
