"""The service of the administration: with its file and its thread, and with clocks that the test sets."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.admin import totp
from gateway.admin.roles import Role, Scope
from gateway.admin.service import AdminService, Opened, Refused
from gateway.config import Admin
from gateway.control.protocol import BAD_PARAMS, CONFLICT, DENIED, NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE, ControlError
from gateway.sqlite_file import StoreError

HERE = "192.0.2.1"
ELSEWHERE = "198.51.100.9"
PASSWORD = "correct horse battery"
UNIX = 1_800_000_015.0


class Office:
    """A service and its clocks."""

    def __init__(self, state_dir: Path, settings: Admin | None = None, boot_id: str = "boot-1") -> None:
        self.now = 1000.0
        self.unix = UNIX
        self.service = AdminService(
            settings or Admin(), 0.005, state_dir, lambda: self.now, boot_id, unix_clock=lambda: self.unix
        )

    async def first(self) -> Opened:
        """The first administrator, alice."""
        opened = await self.service.set_up(self.service.setup_code(), "alice", PASSWORD, HERE, "a browser")
        assert isinstance(opened, Opened)
        return opened

    async def log_in(self, name: str, password: str, second: str = "", address: str = HERE) -> Opened:
        """A login that succeeds."""
        outcome = await self.service.log_in(name, password, second, address, "a browser")
        assert isinstance(outcome, Opened), outcome
        return outcome

    async def refused(self, name: str, password: str, second: str = "", address: str = HERE) -> Refused:
        """A login that does not."""
        outcome = await self.service.log_in(name, password, second, address, "a browser")
        assert isinstance(outcome, Refused), outcome
        return outcome

    def is_over(self, opened: Opened) -> bool:
        """Whether a login is not valid any more."""
        try:
            self.service.who(opened.value, HERE, touch=False)
        except ControlError as err:
            return err.code == UNAUTHENTICATED
        return False

    async def add_factor(self, name: str = "alice") -> tuple[bytes, list[str]]:
        """A second factor; its secret and recovery codes."""
        self.service.factors.begin(self.service.administrator(name))
        secret = self.service.factors.begun[name][0]
        return secret, await self.service.factors.confirm(self.service.administrator(name), self.code(secret))

    def code(self, secret: bytes, steps: int = 0) -> str:
        """What the app shows."""
        return totp.code_at(secret, int(self.unix) // totp.STEP_S + steps)


@asynccontextmanager
async def office(state_dir: Path, settings: Admin | None = None, boot_id: str = "boot-1") -> AsyncIterator[Office]:
    """A running service."""
    one = Office(state_dir, settings, boot_id)
    await one.service.start()
    try:
        yield one
    finally:
        one.service.close()


async def expect(code: str, awaitable: object) -> str:
    """The sentence of a refusal."""
    with pytest.raises(ControlError) as caught:
        await awaitable  # type: ignore[misc]  # a coroutine of any result
    assert caught.value.code == code
    return caught.value.message


def test_the_first_administrator_needs_the_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said on the console, survives a restart, and is worth nothing afterwards."""

    async def story() -> None:
        async with office(tmp_path) as one:
            code = one.service.setup_code()
            assert one.service.setup_needed
            assert code in caplog.text
            wrong = await one.service.set_up("AAAA-BBBB-CCCC-DDDD", "mallory", PASSWORD, HERE, "")
            assert isinstance(wrong, Refused)
            assert wrong.result == "reject"
        async with office(tmp_path) as one:
            assert one.service.setup_code() == code
            opened = await one.first()
            assert (opened.holder.acting.name, opened.holder.acting.role) == ("alice", Role.ADMINISTRATOR)
            assert not one.service.setup_needed
            await expect(CONFLICT, one.service.set_up(code, "mallory", PASSWORD, HERE, ""))
        caplog.clear()
        async with office(tmp_path) as one:
            assert not one.service.setup_needed
            assert "set-up code" not in caplog.text

    asyncio.run(story())


def test_a_weak_password_does_not_use_up_the_code(tmp_path: Path) -> None:
    """The form is shown again."""

    async def story() -> None:
        async with office(tmp_path) as one:
            code = one.service.setup_code()
            await expect(BAD_PARAMS, one.service.set_up(code, "alice", "short", HERE, ""))
            await expect(BAD_PARAMS, one.service.set_up(code, "", PASSWORD, HERE, ""))
            await one.first()

    asyncio.run(story())


def test_two_who_set_up_at_once_make_one_administrator(tmp_path: Path) -> None:
    """The second one hears that it is done."""

    async def story() -> None:
        async with office(tmp_path) as one:
            code = one.service.setup_code()
            both = await asyncio.gather(
                *(one.service.set_up(code, name, PASSWORD, HERE, "") for name in ("alice", "bob")),
                return_exceptions=True,
            )
            assert sorted(type(outcome).__name__ for outcome in both) == ["ControlError", "Opened"]
            assert len(one.service.administrators()) == 1

    asyncio.run(story())


def test_wrong_codes_are_slowed_down(tmp_path: Path) -> None:
    """From one place; another one is not made to wait for it."""

    async def story() -> None:
        async with office(tmp_path) as one:
            code = one.service.setup_code()
            outcomes = [await one.service.set_up("wrong", "mallory", PASSWORD, ELSEWHERE, "") for _ in range(8)]
            assert [outcome.result for outcome in outcomes if isinstance(outcome, Refused)] == [
                *["reject"] * 5,
                *["wait"] * 3,
            ]
            waits = await one.service.set_up(code, "mallory", PASSWORD, ELSEWHERE, "")
            assert isinstance(waits, Refused)
            assert waits.retry_after_s > 0
            await one.first()

    asyncio.run(story())


def test_a_login_gives_a_new_session_each_time(tmp_path: Path) -> None:
    """Upper and lower case of the name do not count; what is wrong is not said."""

    async def story() -> None:
        async with office(tmp_path) as one:
            first = await one.first()
            second = await one.log_in("ALICE", PASSWORD)
            assert first.value != second.value
            assert first.holder.csrf != second.holder.csrf
            wrong, unknown = await one.refused("alice", "wrong"), await one.refused("nobody", "wrong")
            assert (wrong.result, wrong.message) == (unknown.result, unknown.message)
            assert one.service.who(second.value, HERE).acting.name == "alice"
            assert await one.service.log_out(first.value)
            assert not await one.service.log_out(first.value)
            assert one.is_over(first)
            assert not one.is_over(second)

    asyncio.run(story())


def test_sessions_survive_a_restart_of_the_daemon_but_not_of_the_box(tmp_path: Path) -> None:
    """Their times are on the clock of one boot; hashes alone are in the file, which only its owner reads."""

    async def story() -> None:
        async with office(tmp_path) as one:
            opened = await one.first()
        path = tmp_path / "admin.db"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert opened.value.encode() not in path.read_bytes()
        assert PASSWORD.encode() not in path.read_bytes()
        async with office(tmp_path) as one:
            assert not one.is_over(opened)
        async with office(tmp_path, boot_id="boot-2") as one:
            assert one.is_over(opened)

    asyncio.run(story())


def test_an_idle_session_ends_and_a_used_one_lives_on(tmp_path: Path) -> None:
    """Requests count, streams that only listen do not."""

    async def story() -> None:
        async with office(tmp_path, Admin(session_idle=600, session_lifetime=3600)) as one:
            used, idle = await one.first(), await one.log_in("alice", PASSWORD)
            for _ in range(3):
                one.now += 400
                one.service.who(used.value, ELSEWHERE)
                assert one.is_over(idle) or one.now <= 1400
            assert one.is_over(idle)
            assert one.service.sessions("alice")[0][0].address == ELSEWHERE
            one.now += 2500
            assert one.is_over(used)

    asyncio.run(story())


def test_the_latest_request_of_a_session_is_written_seldom(tmp_path: Path) -> None:
    """Flash wears: a click a second is eight writes in an idle time, and a restart costs that much of it at most."""

    async def story() -> None:
        async with office(tmp_path, Admin(session_idle=800)) as one:
            opened = await one.first()
            saved: set[float] = set()
            for _ in range(800):
                one.now += 1
                one.service.who(opened.value, HERE)
                saved.update(one.service._saved_at.values())
        assert len(saved) == 9  # one of them from the login

    asyncio.run(story())


def test_the_owner_gets_in_while_somebody_guesses_from_elsewhere(tmp_path: Path) -> None:
    """A place that has logged in before keeps its own budget, over a restart as well."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            await one.log_in("alice", PASSWORD)
        async with office(tmp_path) as one:
            for number in range(60):
                await one.service.log_in("alice", "guess", "", f"203.0.113.{number}", "")
            assert (await one.refused("alice", PASSWORD, address=ELSEWHERE)).result == "wait"
            await one.log_in("alice", PASSWORD)

    asyncio.run(story())


def test_a_wrong_password_waits_and_a_right_one_does_not_help_meanwhile(tmp_path: Path) -> None:
    """While a place waits nothing is hashed for it."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            results = [(await one.refused("alice", "wrong")).result for _ in range(6)]
            assert results == [*["reject"] * 5, "wait"]
            refused = await one.refused("alice", PASSWORD)
            assert (refused.result, round(refused.retry_after_s)) == ("wait", 10)
            one.now += 10
            await one.log_in("alice", PASSWORD)

    asyncio.run(story())


def test_a_second_factor_is_asked_for_and_used_once(tmp_path: Path) -> None:
    """The same six digits a second time are refused, also after a restart and when both come at once."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            secret, recovery = await one.add_factor()
            assert len(recovery) == len(set(recovery)) == 10
            assert (await one.refused("alice", PASSWORD)).result == "totp"
            assert (await one.refused("alice", PASSWORD, one.code(secret))).result == "reject"  # it switched it on
            one.unix += 30
            code = one.code(secret)
            both = await asyncio.gather(*(one.service.log_in("alice", PASSWORD, code, HERE, "") for _ in range(2)))
            assert sorted(type(outcome).__name__ for outcome in both) == ["Opened", "Refused"]
        async with office(tmp_path) as one:
            one.unix += 30
            assert (await one.refused("alice", PASSWORD, code)).result == "reject"
            one.unix += 30
            await one.log_in("alice", PASSWORD, one.code(secret))

    asyncio.run(story())


def test_a_recovery_code_is_good_once_and_without_a_clock(tmp_path: Path) -> None:
    """A box without a clock says so instead of refusing right codes in silence."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            secret, recovery = await one.add_factor()
            one.unix = 5.0
            assert "clock was never set" in (await one.refused("alice", PASSWORD, one.code(secret))).message
            await one.log_in("alice", PASSWORD, recovery[3].lower())
            assert (await one.refused("alice", PASSWORD, recovery[3])).result == "reject"
        async with office(tmp_path) as one:
            assert (await one.refused("alice", PASSWORD, recovery[3])).result == "reject"
            await one.log_in("alice", PASSWORD, recovery[4])
            assert len(one.service.administrator("alice").recovery) == 8
            assert await one.service.factors.remove(one.service.administrator("alice"))
            await one.log_in("alice", PASSWORD)

    asyncio.run(story())


def test_a_second_factor_takes_effect_with_its_first_code(tmp_path: Path) -> None:
    """Somebody who closes the page before it is shut out of nothing."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            alice, factors = one.service.administrator("alice"), one.service.factors
            await expect(CONFLICT, factors.confirm(alice, "123456"))
            factors.begin(alice)
            await expect(BAD_PARAMS, factors.confirm(alice, "abcdef"))
            await one.log_in("alice", PASSWORD)
            one.now += 601
            secret = factors.begun["alice"][0]
            await expect(CONFLICT, factors.confirm(alice, one.code(secret)))
            await one.add_factor()
            with pytest.raises(ControlError):
                factors.begin(one.service.administrator("alice"))

    asyncio.run(story())


def test_a_change_of_role_or_password_ends_logins(tmp_path: Path) -> None:
    """What somebody may do is looked at again at once."""

    async def story() -> None:
        async with office(tmp_path) as one:
            alice = await one.first()
            await one.service.add("bob", PASSWORD, Role.OPERATOR)
            for act in (
                lambda: one.service.change("bob", role=Role.VIEWER, disabled=None),
                lambda: one.service.set_password("bob", PASSWORD),
                lambda: one.service.change("bob", role=None, disabled=True),
            ):
                bob = await one.log_in("bob", PASSWORD)
                await act()
                assert one.is_over(bob)
            assert (await one.refused("bob", PASSWORD)).result == "reject"
            assert not one.is_over(alice)
            await one.service.set_password("alice", PASSWORD + "!", but=alice.holder.acting.id)
            assert not one.is_over(alice)

    asyncio.run(story())


def test_somebody_must_stay_who_may_do_everything(tmp_path: Path) -> None:
    """The last administrator is neither removed, nor made less, nor switched off."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            await one.service.add("bob", PASSWORD, Role.OPERATOR)
            for attempt in (
                one.service.remove("alice"),
                one.service.change("alice", role=Role.VIEWER, disabled=None),
                one.service.change("alice", role=None, disabled=True),
            ):
                assert "last one" in await expect(CONFLICT, attempt)
            await one.service.change("bob", role=Role.ADMINISTRATOR, disabled=None)
            await one.service.remove("alice")
            await expect(NOT_FOUND, one.service.remove("alice"))
            await expect(CONFLICT, one.service.add("BOB", PASSWORD, Role.VIEWER))

    asyncio.run(story())


def test_a_token_has_its_scopes_its_end_and_its_owners_fate(tmp_path: Path) -> None:
    """It is over when it is revoked, when it expires, and when its owner goes."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            await one.service.add("bob", PASSWORD, Role.OPERATOR)
            await expect(BAD_PARAMS, one.service.add_token("bob", "t", ["configure"], None))
            await expect(BAD_PARAMS, one.service.add_token("bob", "t", ["read"], UNIX - 1))
            token, value = await one.service.add_token("bob", "monitoring", ["read"], UNIX + 60)
            _, other = await one.service.add_token("bob", "backup", ["read", "operate"], None)
            holder = one.service.who(value, HERE)
            assert (holder.acting.kind, holder.acting.scopes, holder.csrf) == ("token", frozenset({Scope.READ}), "")
        async with office(tmp_path) as one:
            assert one.service.who(value, HERE).acting.name == "bob"
            one.unix += 61
            with pytest.raises(ControlError, match="expired"):
                one.service.who(value, HERE)
            await one.service.remove_token(token.id)
            await expect(NOT_FOUND, one.service.remove_token(token.id))
            assert one.service.who(other, HERE).acting.role is Role.OPERATOR
            await one.service.remove("bob")
            with pytest.raises(ControlError, match="revoked"):
                one.service.who(other, HERE)

    asyncio.run(story())


def test_who_waits_for_the_end_of_a_login_hears_of_it(tmp_path: Path) -> None:
    """For streams: by logout, by revocation, by time."""

    async def story() -> None:
        async with office(tmp_path) as one:
            first = await one.first()
            second = await one.log_in("alice", PASSWORD)
            ends = [one.service.ended(opened.holder.acting) for opened in (first, second)]
            await one.service.log_out(first.value)
            assert [end.done() for end in ends] == [True, False]
            assert await one.service.revoke([second.holder.acting.id]) == 1
            assert ends[1].done()
            third = await one.log_in("alice", PASSWORD)
            left = one.service.ended(third.holder.acting)
            one.service.unwatch(third.holder.acting, left)
            assert not one.service._watchers

    asyncio.run(story())


def test_the_current_password_is_guarded_like_a_login(tmp_path: Path) -> None:
    """A browser that was left open does not let anybody try passwords at leisure."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
            await one.service.confirm_password("alice", PASSWORD, HERE)
            sentences = [await expect(DENIED, one.service.confirm_password("alice", "x", HERE)) for _ in range(6)]
            assert "wrong" in sentences[0]
            assert "wait 10 s" in sentences[5]

    asyncio.run(story())


def test_changes_are_written_down_and_found_again(tmp_path: Path) -> None:
    """Newest first, by page, bounded; what strangers cause does not push out what matters."""

    async def story() -> None:
        async with office(tmp_path, Admin(audit_entries=100)) as one:
            await one.first()
            for number in range(300):
                one.service.record("alice", "web", HERE, "sessions.kick", f"client={number}%", "done")
            total, page = await one.service.audit.page(who="", method="", search="", offset=0, limit=2)
            assert 100 <= total <= 164
            assert [entry.summary for entry in page] == ["client=299%", "client=298%"]
            total, page = await one.service.audit.page(who="alice", method="sessions.", search="29_", offset=0, limit=9)
            assert total == 0
            total, page = await one.service.audit.page(who="", method="", search="299%", offset=0, limit=9)
            assert total == 1
            one.now += 3600
            for number in range(100):
                await one.service.log_in(f"name{number}", "wrong", "", f"203.0.113.{number}", "")
            total, _ = await one.service.audit.page(who="", method="admin.login", search="", offset=0, limit=9)
            assert total == 30

    asyncio.run(story())


def test_a_damaged_file_is_kept_aside_and_setting_up_begins_anew(tmp_path: Path) -> None:
    """The code is on the console only: whoever damaged the file gains nothing."""

    async def story() -> None:
        async with office(tmp_path) as one:
            await one.first()
        (tmp_path / "admin.db").write_bytes(b"SQLite format 3\0" + os.urandom(9000))
        async with office(tmp_path) as one:
            assert one.service.setup_needed
            assert (tmp_path / "admin.db.damaged-1").exists()
            assert any("was damaged" in sentence for sentence in one.service.warnings())
            await one.first()

    asyncio.run(story())


def test_without_a_file_nobody_gets_in_and_the_rest_of_the_gateway_runs(tmp_path: Path) -> None:
    """It is said in a sentence, and tried again."""

    async def story() -> None:
        async with office(tmp_path / "missing") as one:
            assert "cannot be used" in await expect(UNAVAILABLE, one.service.log_in("alice", PASSWORD, "", HERE, ""))
            assert not one.service.setup_needed
            assert list(one.service.warnings())
            (tmp_path / "missing").mkdir()
            await one.service._load()
            await one.first()
            assert not list(one.service.warnings())

    asyncio.run(story())


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    """A login that was ended while the disk was full does not come back with the next start."""

    async def story() -> None:
        async with office(tmp_path) as one:
            opened = await one.first()
            remove = one.service._store.remove_sessions
            full = [True, True]

            def on_a_full_disk(digests: list[bytes]) -> None:
                if full:
                    full.pop()
                    raise StoreError("The disk is full.")
                remove(digests)

            one.service._store.remove_sessions = on_a_full_disk  # type: ignore[method-assign]
            await one.service.log_out(opened.value)
            await one.service.audit.page(who="", method="", search="", offset=0, limit=1)
            one.service.record("root", "console", "", "x", "", "done")
        async with office(tmp_path) as one:
            assert one.is_over(opened)

    asyncio.run(story())


def test_new_bounds_hold_at_once(tmp_path: Path) -> None:
    """Sessions that are there live by the new times."""

    async def story() -> None:
        settings = Admin(session_idle=600)
        async with office(tmp_path, settings) as one:
            opened = await one.first()
            one.now += 300
            one.service.reconfigure(replace(settings, session_idle=200))
            assert one.is_over(opened)

    asyncio.run(story())
