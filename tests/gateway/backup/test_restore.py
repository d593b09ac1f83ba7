"""From one gateway to another: all of it or nothing, whatever happens on the way."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from gateway.admin.service import Opened, Refused
from gateway.backup import staging
from gateway.backup.sealed import Backup, Heading, seal
from gateway.config_backup import seal as seal_format_1
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, Params
from tests.gateway.backup.box import PASSPHRASE, PASSWORD, ROOT, TestStartingSystem, refused, running

PROJECT = Path(__file__).resolve().parents[3]
STEPS = (
    *("device.crt", "operator.crt", "config", "voucher.key", "accounts.sqlite", "admin.db"),
    *("themes", "themes are out", "done"),
)


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a story; passwords are hashed in it, on a machine that may be busy."""

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await story()

    asyncio.run(bounded())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A gateway `old` in `a` with its backup, and a gateway `new` in `b`; made once, for hashing takes its time."""
    directory = tmp_path_factory.mktemp("gateways")
    found: list[str] = []

    async def story() -> None:
        async with running(directory / "a", timeout=7) as one:
            await one.populate("old")
            found.append(await one.backup())
        async with running(directory / "b", timeout=4) as other:
            await other.populate("new")

    run(story)
    return directory, found[0]


@pytest.fixture
def data(made: tuple[Path, str], tmp_path: Path) -> str:
    """The backup of `old`; both gateways are copied to the test's own directory."""
    directory, backup = made
    for name in ("a", "b"):
        shutil.copytree(directory / name, tmp_path / name)
        path = tmp_path / name / "postern.conf"
        path.write_text(path.read_text().replace(str(directory), str(tmp_path)))
    return backup


def is_of(facts: dict[str, object], name: str, timeout: float) -> bool:
    """Whether everything is of one gateway; raises when it is a mixture."""
    kinds = {
        facts["administrators"] == [name],
        facts["users"] == [f"user-of-{name}"],
        facts["batches"] == [name],
        facts["themes"] == [name],
        facts["timeout"] == timeout,
        f"of {name}\n" in str(facts["certificate"]),
        f"of {name}\n" in str(facts["operators_key"]),
    }
    assert len(kinds) == 1, facts
    return kinds.pop()


def test_everything_comes_back_on_another_gateway(tmp_path: Path, data: str) -> None:
    """With the passwords, the codes of vouchers and the box's own directories; nobody stays logged in."""

    async def story() -> None:
        async with running(tmp_path / "b") as box:
            before = await box.admin.log_in("new", PASSWORD, "", "192.0.2.1", "browser")
            assert isinstance(before, Opened)
            assert (await box.restore(data))["restarting"] is True
            assert box.anew
            assert is_of(await box.facts(), "new", 4)  # nothing changes before it starts anew
        async with running(tmp_path / "a", finish=False) as old:
            key = (await old.facts())["key"]
        async with running(tmp_path / "b") as box:
            facts = await box.facts()
            assert is_of(facts, "old", 7)
            assert facts["key"] == key
            assert not list(box.guests.warnings())
            assert box.config.general.state_dir == str(tmp_path / "b" / "state")
            opened = await box.admin.log_in("old", PASSWORD, "", "192.0.2.1", "browser")
            assert isinstance(opened, Opened)
            assert (await box.admin.log_out(before.value)) is False
            assert isinstance(await box.admin.log_in("new", PASSWORD, "", "192.0.2.9", "x"), Refused)
            assert len(await box.changes.past()) == 1
            assert not staging.pending(box.state_dir)
            assert not list((box.state_dir / "restore").iterdir())

    run(story)


def test_a_look_says_what_is_in_it_and_the_ticket_restores_it(tmp_path: Path, data: str) -> None:
    """Handed over in pieces; the passphrase is given once; a ticket is good for ten minutes and for one backup."""

    async def story() -> None:
        octets = base64.b64decode(data)
        async with running(tmp_path / "b") as box:
            half = len(octets) // 2
            pieces = (0, octets[:half]), (half, octets[half:])
            for offset, piece in pieces:
                await box.methods.put(ROOT, {"offset": offset, "data": base64.b64encode(piece).decode()})
            wrong: Params = {"offset": 5, "data": base64.b64encode(b"x").decode()}
            assert (await refused(box.methods.put(ROOT, wrong))).code == CONFLICT
            found = await box.methods.preview(ROOT, {"passphrase": PASSPHRASE})
            assert isinstance(found, dict)
            assert found["administrators"] == ["old"]
            assert (found["users"], found["vouchers"], found["batches"], found["tokens"]) == (1, 3, 1, 1)
            assert (found["themes"], found["certificate"], found["problems"]) == (["old"], True, [])
            assert found["changes"] == ["radius: timeout from 4.0 s to 7.0 s"]
            assert (await refused(box.methods.preview(ROOT, {"passphrase": PASSPHRASE}))).code == CONFLICT
            assert (await refused(box.methods.restore(ROOT, {"ticket": "guessed"}))).code == NOT_FOUND
            box.time += 601
            assert (await refused(box.methods.restore(ROOT, {"ticket": found["ticket"]}))).code == NOT_FOUND
            box.time -= 601
            await box.methods.restore(ROOT, {"ticket": found["ticket"]})
        async with running(tmp_path / "b") as box:
            assert is_of(await box.facts(), "old", 7)

    run(story)


def test_what_is_refused_changes_nothing(tmp_path: Path, data: str) -> None:
    """A wrong passphrase, a cut file, a flipped bit, a configuration that does not fit, a damaged database."""

    async def story() -> None:
        raw = base64.b64decode(data)
        flipped = bytearray(raw)
        flipped[len(raw) // 2] ^= 1
        async with running(tmp_path / "b") as box:
            text = box.path.read_bytes()

            def sealed(**parts: bytes) -> bytes:
                return seal(Backup(Heading(2, 1.0, "x", "y"), {"config": text, **parts}), PASSPHRASE, bytes(16))

            damaged = [
                raw[:-1],
                bytes(flipped),
                sealed(**{"accounts.sqlite": b"no database at all" * 100}),
                sealed(**{"admin.db": b"SQLite format 3\0" + bytes(500)}),
                sealed(**{"voucher.key": b"short"}),
                sealed(**{"../escape": b"x"}),
                sealed(**{"themes/../x": b"x"}),
                sealed(**{"device.crt": b"half"}),
                seal(Backup(Heading(2, 1.0, "x", "y"), {"voucher.key": bytes(32)}), PASSPHRASE, bytes(16)),
                seal(Backup(Heading(2, 1.0, "x", "y"), {"config": b"config zone '"}), PASSPHRASE, bytes(16)),
                b"",
            ]
            for octets in damaged:
                work = box.methods.restore(ROOT, {"passphrase": PASSPHRASE, "data": base64.b64encode(octets).decode()})
                assert (await refused(work)).code == BAD_PARAMS
            work = box.methods.restore(ROOT, {"passphrase": "some other phrase", "data": data})
            assert (await refused(work)).code == BAD_PARAMS
            unfit = text + b"config zone 'z'\n\toption interface 'no-such-card'\n\toption address '10.0.0.1/24'\n"
            unfitting = seal(
                Backup(Heading(2, 1.0, "x", "y"), {"config": unfit, "voucher.key": bytes(32)}), PASSPHRASE, bytes(16)
            )
            work = box.methods.restore(ROOT, {"passphrase": PASSPHRASE, "data": base64.b64encode(unfitting).decode()})
            assert "network, option uplink" in (await refused(work)).message
            assert not box.anew
            assert not staging.pending(box.state_dir)
        async with running(tmp_path / "b") as box:
            assert is_of(await box.facts(), "new", 4)

    run(story)


def test_a_backup_of_the_older_format_is_a_change_of_the_configuration(tmp_path: Path, data: str) -> None:
    """Everything else stays, and nothing starts anew."""

    async def story() -> None:
        async with running(tmp_path / "b") as box:
            text = box.path.read_text().replace("'4'", "'9'")
            older = base64.b64encode(seal_format_1(text, PASSPHRASE, bytes(16)).encode()).decode()
            answer = await box.restore(older, confirm_s=0)
            assert answer == {"restarting": False, "change": 1, "confirm_within_s": None}
            assert not box.anew
            facts = await box.facts()
            assert facts["timeout"] == 9
            assert facts["administrators"] == ["new"]

    run(story)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_gone_on_with_at_the_next_start(tmp_path: Path, data: str, step: str) -> None:
    """kill -9 at each act of putting a committed backup in place; the next start has all of it."""

    async def prepare() -> None:
        async with running(tmp_path / "b") as box:
            await box.restore(data)

    run(prepare)
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom gateway.backup import staging\n"
        "from tests.gateway.backup.box import TestStartingSystem\n"
        "place = Path(sys.argv[1])\n"
        "kill = lambda what: os.kill(os.getpid(), signal.SIGKILL) if what == sys.argv[2] else None\n"
        "staging.finish(place / 'state', 'accounts.sqlite', TestStartingSystem(place), kill)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "b"), step], cwd=PROJECT, check=False)
    assert killed.returncode == -signal.SIGKILL

    async def look() -> None:
        async with running(tmp_path / "b") as box:
            assert is_of(await box.facts(), "old", 7)

    run(look)


def test_a_kill_before_the_commit_leaves_what_was(tmp_path: Path, data: str) -> None:
    """Everything may be staged: without the rename it does not hold, and the next start clears it away."""

    async def story() -> None:
        async with running(tmp_path / "b") as box:
            await box.restore(data)
            # As a kill just before the rename would have left it.
            (box.state_dir / "restore" / "commit").rename(box.state_dir / "restore" / "staged")
        async with running(tmp_path / "b") as box:
            assert is_of(await box.facts(), "new", 4)
            assert not list((box.state_dir / "restore").iterdir())

    run(story)


def test_a_configuration_that_cannot_be_written_holds_everything_back(tmp_path: Path, data: str) -> None:
    """The old state stays whole but for the certificate; once it can be written, all of it comes."""

    async def story() -> None:
        async with running(tmp_path / "b") as box:
            await box.restore(data)

        class Away(TestStartingSystem):
            def write_config(self, text: str) -> None:
                raise OSError("read-only")

        with pytest.raises(OSError, match="read-only"):
            staging.finish(tmp_path / "b" / "state", "accounts.sqlite", Away(tmp_path / "b"))
        async with running(tmp_path / "b", finish=False) as box:
            facts = await box.facts()
            assert (facts["administrators"], facts["users"], facts["timeout"]) == (["new"], ["user-of-new"], 4)
        async with running(tmp_path / "b") as box:
            assert is_of(await box.facts(), "old", 7)

    run(story)


def test_a_configuration_that_may_cut_off_waits_to_be_confirmed(tmp_path: Path, data: str) -> None:
    """Also over the start: unconfirmed, the text before comes back."""

    async def story() -> None:
        async with running(tmp_path / "b") as box:
            answer = await box.restore(data, confirm_s=400)
            assert answer["confirm_within_s"] == 400
        async with running(tmp_path / "b") as box, asyncio.TaskGroup() as group:
            watching = group.create_task(box.changes.run())
            while box.changes.pending is None:
                await asyncio.sleep(0.01)
            assert box.changes.left_s() == 400
            assert (await box.facts())["timeout"] == 7
            await box.changes.revert(box.changes.pending.number, who="old", address="")
            assert (await box.facts())["timeout"] == 4
            watching.cancel()

    run(story)


def test_a_backup_is_private_and_leaves_nothing_behind(tmp_path: Path, data: str) -> None:
    """Neither copies nor uploads lie about afterwards, and nobody else may look into the place."""

    async def story() -> None:
        async with running(tmp_path / "a") as box:
            await box.backup()
            place = box.state_dir / "restore"
            assert place.stat().st_mode & 0o777 == 0o700
            assert not list(place.iterdir())
            await box.methods.put(ROOT, {"offset": 0, "data": base64.b64encode(b"x").decode()})
            assert (place / "upload").stat().st_mode & 0o777 == 0o600

    old = os.umask(0)
    try:
        run(story)
    finally:
        os.umask(old)


def test_a_gateway_that_was_never_set_up_can_be_restored(tmp_path: Path, data: str) -> None:
    """It has no administrators, no certificate and no themes yet."""

    async def story() -> None:
        (tmp_path / "c" / "admin-web").mkdir(parents=True)
        async with running(tmp_path / "c") as fresh:
            assert fresh.admin.setup_needed
            await fresh.restore(data)
        async with running(tmp_path / "c") as fresh:
            assert is_of(await fresh.facts(), "old", 7)
            assert not fresh.admin.setup_needed

    run(story)


def test_a_backup_without_administrators_leaves_those_of_the_box(tmp_path: Path, data: str) -> None:
    """Nobody is to be locked out by a backup that was made before the set-up."""

    async def story() -> None:
        async with running(tmp_path / "d") as one:
            empty = await one.backup()
        async with running(tmp_path / "b") as box:
            await box.restore(empty)
        async with running(tmp_path / "b") as box:
            assert [one.name for one, _ in box.admin.administrators()] == ["new"]
            assert await box.accounts.list_users() == ()

    run(story)
