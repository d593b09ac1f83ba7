"""Logins of local users as the hub sees them: a question now, an answer later, the loop free in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from gateway.accounts import service as service_module
from gateway.accounts.passwords import Cost, cost_of, hash_password, verify_password
from gateway.accounts.service import DISABLED, EXPIRED, LONGEST_WAIT_S, WRONG, AccountService, Answer
from gateway.accounts.users import User
from gateway.addresses import MacAddress
from gateway.config import Accounts
from gateway.control.protocol import BAD_PARAMS, BUSY, CONFLICT, UNAVAILABLE, ControlError
from gateway.session.actions import VerifyLocalUser
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import AuthenticatedBy, ClientKey, Grant, Limits, PapCredentials

KEY = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2a"))
SETTINGS = Accounts(hash_time=0.01, hash_queue=8)
UNIX = 1_800_000_000.0


def login(name: str, password: str, login_id: int = 1) -> VerifyLocalUser:
    """A login of the one client."""
    return VerifyLocalUser(KEY, login_id, PapCredentials(name, password))


class Desk:
    """A service and what it posted."""

    def __init__(self, state_dir: Path, settings: Accounts = SETTINGS) -> None:
        self.answers: list[Answer] = []
        self.now = 100.0
        self.unix = UNIX
        self.service = AccountService(
            settings, state_dir, self.answers.append, lambda: self.now, unix_clock=lambda: self.unix
        )

    async def ask(self, name: str, password: str) -> Answer:
        """Log in and wait for the answer."""
        before = len(self.answers)
        self.service.verify(login(name, password))
        assert len(self.answers) == before, "the answer is never posted from within the question"
        await self.answered(before + 1)
        return self.answers[-1]

    async def answered(self, count: int) -> None:
        """Wait until so many answers are there."""
        async with asyncio.timeout(20):
            while len(self.answers) < count:
                await asyncio.sleep(0.002)


@asynccontextmanager
async def desk(state_dir: Path, settings: Accounts = SETTINGS) -> AsyncIterator[Desk]:
    """A running service."""
    one = Desk(state_dir, settings)
    await one.service.start()
    try:
        yield one
    finally:
        one.service.close()


async def hold(one: Desk) -> threading.Event:
    """Keep the thread busy until the event is set."""
    held, running = threading.Event(), threading.Event()

    def wait() -> None:
        running.set()
        held.wait(20)

    assert one.service._worker.submit(wait, urgent=True)
    await asyncio.to_thread(running.wait, 20)
    return held


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    """Each event loop that posternd may use."""
    return asyncio.Runner(loop_factory=request.param)


def test_a_user_logs_in_with_the_limits_of_the_account(runner: asyncio.Runner, tmp_path: Path) -> None:
    """The grant carries the name as it was made, the limits, the devices, and ends with the account."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            limits = Limits(session_time_s=3600, total_bytes=10**9)
            await one.service.add_user("Alice", "wonderland", limits=limits, devices=2, valid_until_unix=UNIX + 60)
            granted = replace(limits, terminate_unix=UNIX + 60)
            assert await one.ask("aLiCe", "wonderland") == AccessAccepted(
                KEY, 1, Grant("Alice", AuthenticatedBy.LOCAL, granted, devices=2)
            )
            assert await one.ask("alice", "Wonderland") == AccessRejected(KEY, 1, WRONG)
            assert one.service.counts().accepted == one.service.counts().rejected == 1

    with runner:
        runner.run(story())


def test_an_unknown_name_costs_a_hash_and_tells_the_guest_nothing(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work and the same sentence as a wrong password; only the core learns that the next source may try."""
    costs: list[Cost] = []

    def watched(password: str, stored: str) -> bool:
        costs.append(cost_of(stored))
        return verify_password(password, stored)

    monkeypatch.setattr(service_module, "verify_password", watched)

    async def story() -> None:
        async with desk(tmp_path) as one:
            await one.service.add_user("alice", "wonderland")
            wrong = await one.ask("alice", "x")
            for name in ("bob", "", "x" * 5000, "a\0b", "\ud800"):
                unknown = await one.ask(name, "x")
                assert unknown == AccessRejected(KEY, 1, WRONG, unknown_user=True)
            assert isinstance(wrong, AccessRejected)
            assert wrong.message == WRONG
            assert len(costs) == 6
            assert len(set(costs)) == 1

    with runner:
        runner.run(story())


def test_accounts_that_are_off_or_over_are_refused_with_the_right_password_only(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    """Who does not know the password does not learn the state of the account."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            await one.service.add_user("off", "pw", disabled=True)
            await one.service.add_user("over", "pw", valid_until_unix=UNIX - 1)
            assert await one.ask("off", "pw") == AccessRejected(KEY, 1, DISABLED, reason="disabled")
            assert await one.ask("off", "x") == AccessRejected(KEY, 1, WRONG)
            assert await one.ask("over", "pw") == AccessRejected(KEY, 1, EXPIRED, reason="expired")
            one.unix = 1000.0
            assert isinstance(await one.ask("over", "pw"), AccessAccepted), "a clock that was never set expires nothing"
            assert await one.service.change_user(User("off"))
            assert isinstance(await one.ask("off", "pw"), AccessAccepted)

    with runner:
        runner.run(story())


def test_the_loop_goes_on_while_passwords_are_hashed(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Asking takes no time, the loop turns freely while the thread is busy, and every login is answered."""

    async def story() -> None:
        async with desk(tmp_path, replace(SETTINGS, hash_queue=40)) as one:
            await one.service.add_user("alice", "wonderland")
            held = await hold(one)
            for number in range(40):
                one.service.verify(login("alice", "wonderland" if number % 2 else "x", number))
            turns = 0
            for _ in range(200):
                await asyncio.sleep(0)
                turns += 1
            assert (turns, one.answers) == (200, []), "the loop turned 200 times while nothing could be hashed"
            held.set()
            await one.answered(40)
            accepted = {answer.login_id for answer in one.answers if isinstance(answer, AccessAccepted)}
            assert accepted == set(range(1, 40, 2))

    with runner:
        runner.run(story())


def test_a_full_queue_fails_at_once_and_operators_go_first(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Beyond the bound a login gets a sentence; what an operator asks is done before the logins that wait."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            await one.service.add_user("alice", "wonderland")
            held = await hold(one)
            for number in range(SETTINGS.hash_queue + 3):
                one.service.verify(login("alice", "wonderland", number))
            await one.answered(3)
            refused = list(one.answers)
            assert [answer.login_id for answer in refused] == [8, 9, 10]
            assert all(isinstance(answer, AccessFailed) and "8 passwords" in answer.reason for answer in refused)
            listing = asyncio.ensure_future(one.service.list_users())
            await asyncio.sleep(0)
            held.set()
            await listing
            assert len(one.answers) < 3 + SETTINGS.hash_queue
            await one.answered(3 + SETTINGS.hash_queue)

    with runner:
        runner.run(story())


def test_a_login_that_waited_too_long_is_not_hashed(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Nobody listens any more, so the thread is for those who do."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            held = await hold(one)
            one.service.verify(login("alice", "x"))
            one.now += LONGEST_WAIT_S + 1
            held.set()
            await one.answered(1)
            assert isinstance(one.answers[0], AccessFailed)

    with runner:
        runner.run(story())


def test_a_hash_of_another_cost_is_made_anew_at_login(runner: asyncio.Runner, tmp_path: Path) -> None:
    """After the answer, and only by the right password."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            service = one.service
            await service.add_user("alice", "wonderland")
            other = Cost(10, 1) if service._cost != Cost(10, 1) else Cost(11, 1)
            old = hash_password("wonderland", other, bytes(16))
            await service._in_thread(lambda: service._store.set_password("alice", old))
            await one.ask("alice", "wrong")
            assert await service._in_thread(lambda: service._store.find("alice")) == (await service.user("alice"), old)
            assert isinstance(await one.ask("alice", "wonderland"), AccessAccepted)
            found = await service._in_thread(lambda: service._store.find("alice"))
            while found is not None and found[1] == old:
                found = await service._in_thread(lambda: service._store.find("alice"))
            assert found is not None
            assert cost_of(found[1]) == service._cost
            assert isinstance(await one.ask("alice", "wonderland"), AccessAccepted)

    with runner:
        runner.run(story())


def test_the_cost_stays_over_restarts_while_it_fits(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement that varies a little must not make every hash outdated; a faster box makes better hashes."""
    speed = [0.002]
    monkeypatch.setattr(service_module, "_measure", lambda cost: speed[0] * 2 ** (cost.log2_n - 10) * cost.p)

    async def cost() -> Cost:
        async with desk(tmp_path) as one:
            await one.ask("nobody", "x")  # nothing needed the cost before
            return one.service._cost

    async def story() -> None:
        first = await cost()
        assert first == Cost(12, 1)
        speed[0] = 0.0012
        assert await cost() == first
        speed[0] = 0.0002
        assert (await cost()).log2_n == 14

    with runner:
        runner.run(story())


def test_operators_are_told_in_sentences_what_is_wrong(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Taken names, bad names, bad passwords and bad values are errors of the control socket with their own codes."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            service = one.service
            await service.add_user("alice", "wonderland")
            for name, password, code in (
                ("ALICE", "x", CONFLICT),
                ("a\nb", "x", BAD_PARAMS),
                ("bob", "", BAD_PARAMS),
                ("bob", "a\0", BAD_PARAMS),
            ):
                with pytest.raises(ControlError) as caught:
                    await service.add_user(name, password)
                assert caught.value.code == code
            assert [user.name for user in await service.list_users()] == ["alice"]
            assert await service.set_password("Alice", "looking-glass")
            assert isinstance(await one.ask("alice", "looking-glass"), AccessAccepted)
            assert await service.user("nobody") is None
            assert not await service.set_password("nobody", "x")
            assert await service.remove_user("alice")
            assert not await service.remove_user("alice")

    with runner:
        runner.run(story())


def test_without_a_usable_store_logins_fail_with_a_sentence_and_it_mends_itself(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    """The gateway starts and goes on; warnings say what to do; when the directory is there, users can be made."""

    async def story() -> None:
        state = tmp_path / "state"
        async with desk(state) as one:
            assert any("writable" in sentence for sentence in one.service.warnings())
            failed = await one.ask("alice", "x")
            assert isinstance(failed, AccessFailed)
            assert "writable" in failed.reason
            with pytest.raises(ControlError) as caught:
                await one.service.add_user("alice", "x")
            assert caught.value.code == UNAVAILABLE
            state.mkdir()
            await one.service.add_user("alice", "x")
            assert isinstance(await one.ask("alice", "x"), AccessAccepted)
            assert list(one.service.warnings()) == []

    with runner:
        runner.run(story())


def test_a_damaged_file_is_a_warning_and_logins_go_on(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Old file aside, unknown user for everybody, RADIUS may be asked next."""

    async def story() -> None:
        (tmp_path / "accounts.sqlite").write_bytes(b"rubbish" * 1000)
        async with desk(tmp_path) as one:
            assert any("damaged-1" in sentence for sentence in one.service.warnings())
            assert await one.ask("alice", "x") == AccessRejected(KEY, 1, WRONG, unknown_user=True)

    with runner:
        runner.run(story())


def test_an_account_with_an_unreadable_hash_is_named(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Neither accepted nor a crash: the operator is told which password to set."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            service = one.service
            await service.add_user("alice", "x")
            await service._in_thread(lambda: service._store.set_password("alice", "$scrypt$ln=40,r=8,p=1$AA==$AA=="))
            failed = await one.ask("alice", "x")
            assert isinstance(failed, AccessFailed)
            assert "'alice'" in failed.reason

    with runner:
        runner.run(story())


def test_a_fault_of_ours_ends_run_loudly(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody planned for does not vanish in the thread."""

    def broken(password: str, stored: str) -> bool:
        raise RuntimeError("a bug")

    async def story() -> None:
        async with desk(tmp_path) as one:
            monkeypatch.setattr(service_module, "verify_password", broken)
            one.service.verify(login("alice", "x"))
            with pytest.raises(RuntimeError, match="a bug"):
                async with asyncio.timeout(20):
                    await one.service.run()

    with runner:
        runner.run(story())


def test_after_the_end_nothing_is_accepted(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Closing twice is closing once; logins and operators are refused, and the thread is gone."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            one.service.close()
            one.service.verify(login("alice", "x"))
            await one.answered(1)
            assert isinstance(one.answers[0], AccessFailed)
            with pytest.raises(ControlError) as caught:
                await one.service.list_users()
            assert caught.value.code == BUSY
        assert "accounts" not in {thread.name for thread in threading.enumerate()}

    with runner:
        runner.run(story())


def test_run_serves_until_it_is_cancelled(runner: asyncio.Runner, tmp_path: Path) -> None:
    """As a task of the daemon."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            task = asyncio.ensure_future(one.service.run())
            await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    with runner:
        runner.run(story())


def test_other_settings_hold_without_a_restart(tmp_path: Path) -> None:
    """The queue at once, the time of a hash for the hashes made from then on."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            before = one.service._cost
            one.service.reconfigure(replace(SETTINGS, hash_queue=1, hash_time=0.3))
            await one.service.list_users()  # after what was to be done before it
            assert one.service._cost > before
            held = await hold(one)
            for number in range(3):
                one.service.verify(login("alice", "wonderland", number))
            await one.answered(2)
            held.set()
            await one.answered(3)
            assert sum(isinstance(answer, AccessFailed) for answer in one.answers) == 2

    asyncio.run(story())
