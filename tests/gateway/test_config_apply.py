"""Applying a configuration: what waits to be confirmed, is taken back, and is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.thread import AdminThread
from gateway.config_apply import ConfigChanges
from gateway.config_change import MARK, SetOption, apply
from gateway.config_loader import Problem, load
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, UNAVAILABLE, ControlError

TEXT = "config radius\n\toption coa_secret 'long-enough-secret'\n\toption timeout '3'\n"


class Box:
    """A configuration file and a gateway that runs by it."""

    def __init__(self, directory: Path, boot_id: str = "boot-1") -> None:
        self.path = directory / "postern"
        self.now = 1000.0
        self.loaded = load(TEXT)
        self.reloads = 0
        self.refuses = ""  # a word in the file that the reload refuses
        self.writable = True
        if not self.path.exists():
            self.path.write_text(TEXT)
        self.thread = AdminThread(directory / "admin.db", 0.005)
        self.thread.start()
        self.changes = ConfigChanges(
            self.path,
            self.thread,
            running=lambda: self.loaded,
            reload=self.reload,
            not_changeable=lambda loaded: [],
            write=self.write,
            clock=lambda: self.now,
            unix_clock=lambda: 1_800_000_000.0 + self.now,
            boot_id=boot_id,
        )

    async def write(self, text: str) -> None:
        if not self.writable:
            raise ControlError(UNAVAILABLE, "postern-system does not answer")
        self.path.write_text(text)

    async def reload(self) -> tuple[list[str], list[Problem]]:
        self.reloads += 1
        text = self.path.read_text()
        if self.refuses and self.refuses in text:
            return [], [Problem("postern", 1, "radius", None, "is refused")]
        self.loaded = load(text)
        return ["something"], []

    async def set(self, section: str, option: str, value: str, confirm_s: int | None = None) -> tuple[int, int | None]:
        """Apply one option."""
        text = apply(self.changes.text(), [SetOption(section, "", option, (value,))])
        return await self.changes.apply(
            text, self.changes.version(self.changes.text()), who="alice", address="192.0.2.1", confirm_s=confirm_s
        )

    async def until(self, condition: Any) -> None:
        """Let the changes' own task work until the condition holds; Any: a function without arguments."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def states(self) -> list[tuple[int, str]]:
        """All changes."""
        return [(one.number, one.state) for one in await self.changes.past()]


@asynccontextmanager
async def box(directory: Path, boot_id: str = "boot-1") -> AsyncIterator[Box]:
    """A box whose changes are watched."""
    one = Box(directory, boot_id)
    await one.thread.ask(one.thread.store.open)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(one.changes.run())
        try:
            yield one
        finally:
            watching.cancel()
            one.thread.close()


async def refusal(awaitable: Any) -> tuple[str, str]:
    """Code and sentence of a refusal; Any: a coroutine of any result."""
    with pytest.raises(ControlError) as caught:
        await awaitable
    return caught.value.code, caught.value.message


def test_a_harmless_change_holds_at_once_and_is_remembered(tmp_path: Path) -> None:
    """With who, when and what, and both texts."""

    async def story() -> None:
        async with box(tmp_path) as one:
            assert await one.set("radius", "timeout", "5") == (1, None)
            assert one.loaded.config.radius.timeout == 5
            past = await one.changes.one(1)
            assert (past.who, past.address, past.state, past.before) == ("alice", "192.0.2.1", "applied", TEXT)
            assert past.sentences == ("radius: timeout from 3.0 s to 5.0 s",)
            assert (await refusal(one.changes.one(7)))[0] == NOT_FOUND

    asyncio.run(story())


def test_a_risky_change_that_is_not_confirmed_is_taken_back(tmp_path: Path) -> None:
    """After its time; the file and what runs are as before."""

    async def story() -> None:
        async with box(tmp_path) as one:
            assert await one.set("admin", "port", "9443") == (1, 60)
            assert one.loaded.config.admin.port == 9443
            assert one.changes.left_s() == 60
            assert (await refusal(one.set("radius", "timeout", "5")))[0] == CONFLICT
            one.now += 61
            one.changes._pending_changed.set()  # what the timer does a minute later
            await one.until(lambda: one.loaded.config.admin.port == 8443)
            await one.until(lambda: one.changes.pending is None)
            assert one.path.read_text() == TEXT
            assert await one.states() == [(1, "reverted")]
            assert (await refusal(one.changes.confirm(1)))[0] == CONFLICT

    asyncio.run(story())


def test_a_change_that_is_confirmed_stays(tmp_path: Path) -> None:
    """And its time passes without effect."""

    async def story() -> None:
        async with box(tmp_path) as one:
            number, _ = await one.set("admin", "port", "9443")
            await one.changes.confirm(number)
            one.now += 100
            await asyncio.sleep(0.05)
            assert one.loaded.config.admin.port == 9443
            assert await one.states() == [(1, "confirmed")]
            assert await one.set("admin", "port", "9444", confirm_s=0) == (2, None)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("boot_id", "later_s", "port"), [("boot-1", 10, 9443), ("boot-1", 100, 8443), ("boot-2", 0, 8443)]
)
def test_a_change_that_waits_survives_a_restart(tmp_path: Path, boot_id: str, later_s: float, port: int) -> None:
    """It waits on, is taken back when its time is over, and at once when the box was rebooted."""

    async def story() -> None:
        async with box(tmp_path) as one:
            await one.set("admin", "port", "9443")
        async with asyncio.timeout(20):
            after = Box(tmp_path, boot_id)
            after.now += later_s
            after.loaded = load(after.path.read_text())
            await after.thread.ask(after.thread.store.open)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(after.changes.run())
                if port == 9443:
                    await after.until(lambda: after.changes.pending is not None)
                    await after.changes.confirm(1)
                else:
                    await after.until(lambda: after.loaded.config.admin.port == port)
                watching.cancel()
            after.thread.close()
            assert after.loaded.config.admin.port == port

    asyncio.run(story())


def test_a_change_is_taken_back_by_hand(tmp_path: Path) -> None:
    """One that waits at once; an old one by applying the text before it."""

    async def story() -> None:
        async with box(tmp_path) as one:
            await one.set("radius", "timeout", "5")
            number, _ = await one.set("admin", "port", "9443")
            assert await one.changes.revert(number, who="bob", address="") == (number, None)
            assert one.loaded.config.admin.port == 8443
            assert await one.changes.revert(1, who="bob", address="") == (3, None)
            assert one.path.read_text() == TEXT
            assert await one.states() == [(3, "applied"), (2, "reverted"), (1, "applied")]

    asyncio.run(story())


def test_what_cannot_be_applied_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """A text with problems, a reload that refuses, a file that cannot be written, a text that somebody else changed."""

    async def story() -> None:
        async with box(tmp_path) as one:
            code, sentence = await refusal(one.set("admin", "port", "99999"))
            assert (code, "too large" in sentence) == (BAD_PARAMS, True)
            one.refuses = "timeout '7'"
            assert (await refusal(one.set("radius", "timeout", "7")))[0] == BAD_PARAMS
            one.writable = False
            assert (await refusal(one.set("radius", "timeout", "8")))[0] == UNAVAILABLE
            one.writable = True
            apply_stale = one.changes.apply(TEXT + "#", "another", who="a", address="", confirm_s=None)
            assert (await refusal(apply_stale))[0] == CONFLICT
            version = one.changes.version(TEXT)
            unchanged = one.changes.apply(TEXT, version, who="a", address="", confirm_s=None)
            assert await refusal(unchanged) == (BAD_PARAMS, "nothing is different")
            assert one.path.read_text() == TEXT
            assert one.loaded.config.radius.timeout == 3
            assert await one.states() == [(2, "failed"), (1, "failed")]

    asyncio.run(story())


def test_what_somebody_edited_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Root with an editor wins over a change that is taken back."""

    async def story() -> None:
        async with box(tmp_path) as one:
            await one.set("admin", "port", "9443")
            by_hand = one.path.read_text() + "# by hand\n"
            one.path.write_text(by_hand)
            await one.changes.revert(1, who="alice", address="")
            assert one.path.read_text() == by_hand

    asyncio.run(story())


def test_a_preview_says_what_would_happen(tmp_path: Path) -> None:
    """Marks stand for the secrets that are there; nothing is written."""

    async def story() -> None:
        async with box(tmp_path) as one:
            shown = TEXT.replace("long-enough-secret", MARK).replace("'3'", "'4'")
            preview = await one.changes.preview(shown)
            assert (preview.problems, preview.cuts_off) == ((), False)
            assert preview.text == TEXT.replace("'3'", "'4'")
            assert "-\toption timeout '3'\n+\toption timeout '4'" in preview.diff
            assert "long-enough" not in preview.diff
            assert (await one.changes.preview("config '")).problems
            assert "did you mean" in (await one.changes.preview("config radiu\n")).problems[0]
            assert (await one.changes.preview(f"config radius_server 'x'\n\toption secret '{MARK}'\n")).problems
            assert one.path.read_text() == TEXT
            assert one.reloads == 0

    asyncio.run(story())


def test_only_so_many_changes_are_kept(tmp_path: Path) -> None:
    """The newest, of which one can go back to."""

    async def story() -> None:
        async with box(tmp_path) as one:
            one.loaded = load(TEXT + "config admin\n\toption config_history 3\n")
            one.path.write_text(TEXT + "config admin\n\toption config_history 3\n")
            for seconds in range(4, 12):
                await one.set("radius", "timeout", str(seconds))
            assert [number for number, _ in await one.states()] == [8, 7, 6]

    asyncio.run(story())


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    """Removed, or not text."""

    async def story() -> None:
        async with box(tmp_path) as one:
            one.path.write_bytes(b"\xff")
            with pytest.raises(ControlError, match="not UTF-8"):
                one.changes.text()
            one.path.unlink()
            with pytest.raises(ControlError, match="cannot be read"):
                one.changes.text()

    asyncio.run(story())
