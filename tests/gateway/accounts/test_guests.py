"""Vouchers and devices as the hub and operators meet them: the real thread and database, the clock in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.accounts.devices import Block, Device, with_blocks
from gateway.accounts.guests import KEY_FILE, GuestAccounts
from gateway.accounts.service import AccountService, Answer
from gateway.accounts.vouchers import Batch
from gateway.addresses import MacAddress
from gateway.config import Accounts, Config, Zone
from gateway.control.protocol import BAD_PARAMS, ControlError
from gateway.session.actions import RecallDevice, RememberDevice, VerifyVoucher
from gateway.session.events import AccessAccepted, AccessRejected
from gateway.session.model import (
    AuthenticatedBy,
    ClientKey,
    Counters,
    Grant,
    Limits,
    LoginMethod,
    Usage,
    UsedBefore,
    VoucherCode,
)

UNIX = 1_800_000_000.0
KEY = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2a"))
OTHER = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2b"))
BATCH = Batch(0, b"", "digits", 10, 0.0, "eve", limits=Limits(session_time_s=3600))


class Desk:
    """The services and what they posted."""

    def __init__(self, state_dir: Path) -> None:
        self.answers: list[Answer] = []
        self.charged: list[str] = []
        self.forgotten: list[ClientKey] = []
        self.now, self.unix = 100.0, UNIX
        settings = Accounts(hash_time=0.01)
        self.accounts = AccountService(
            settings, state_dir, self.answers.append, lambda: self.now, unix_clock=lambda: self.unix
        )
        self.guests = GuestAccounts(
            self.accounts, state_dir, self.answers.append, self.charged.extend, lambda: self.now, lambda: self.unix
        )

    async def ask(self, code: str, key: ClientKey = KEY) -> Answer:
        """Try a code."""
        return await self._answer(lambda: self.guests.verify(VerifyVoucher(key, 7, VoucherCode(code))))

    async def recall(self, key: ClientKey = KEY) -> Answer:
        """The device comes back."""
        return await self._answer(lambda: self.guests.recall(RecallDevice(key, 8)))

    async def _answer(self, question: object) -> Answer:
        assert callable(question)
        before = len(self.answers)
        question()
        assert len(self.answers) == before, "the answer is never posted from within the question"
        await self.until(lambda: len(self.answers) > before)
        return self.answers[-1]

    async def until(self, condition: object) -> None:
        """Wait until something holds."""
        assert callable(condition)
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    async def make(self, batch: Batch = BATCH, count: int = 1) -> list[str]:
        """A batch; returns its codes."""
        _, made = await self.guests.create(batch, count)
        return [code for _, code in made]

    async def known(self) -> list[Device]:
        """The remembered devices; asked after everything that was ordered before."""
        done: list[bool] = []
        assert self.accounts.submit(lambda: done.append(True))
        await self.until(lambda: done)
        await asyncio.sleep(0)  # what the thread told the loop before
        return await self.guests.with_devices(lambda store, unix: store.devices(unix))


@asynccontextmanager
async def desk(state_dir: Path) -> AsyncIterator[Desk]:
    """Running services."""
    one = Desk(state_dir)
    await one.accounts.start()
    await one.guests.start(one.forgotten.extend)
    try:
        yield one
    finally:
        one.accounts.close()


def usage(session_id: str, account: str, seconds: int, *, back: bool = True) -> Usage:
    """What a session used."""
    return Usage(session_id, KEY, account, seconds, Counters(10, 1, 20, 1), back)


def remember(grant: Grant, method: LoginMethod, key: ClientKey = KEY, at_most: int | None = None) -> RememberDevice:
    """The order to keep a device for a day."""
    return RememberDevice(key, method, grant, UNIX + 86400, at_most)


def test_a_right_code_grants_what_is_left_and_a_wrong_one_nothing(tmp_path: Path) -> None:
    """What a session used is in the next grant, once it was written."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            (code,) = await one.make()
            answer = await one.ask(code)
            assert isinstance(answer, AccessAccepted)
            assert answer.grant.username == "voucher-1-1"
            one.guests.charge(usage("s-1", "voucher-1-1", 600))
            await one.until(lambda: one.charged == ["s-1"])
            assert one.guests.uncharged() == []
            again = await one.ask(code)
            assert isinstance(again, AccessAccepted)
            assert again.grant.used == UsedBefore(600, Counters(upload_bytes=10, download_bytes=20))
            wrong = await one.ask("0000000000")
            assert isinstance(wrong, AccessRejected)
            assert wrong.reason == "wrong"

    asyncio.run(story())


def test_guessing_makes_a_client_wait_and_a_used_up_voucher_is_no_guess(tmp_path: Path) -> None:
    """Whoever holds a real voucher may try it as often as they like."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            (code,) = await one.make()
            one.guests.charge(usage("s-1", "voucher-1-1", 3600))
            await one.until(lambda: one.charged)
            for _ in range(8):
                answer = await one.ask(code)
                assert isinstance(answer, AccessRejected)
                assert (answer.reason, answer.wait_s) == ("used_up", 0.0)
            for _ in range(5):
                answer = await one.ask("0000000000")
            assert isinstance(answer, AccessRejected)
            assert answer.wait_s > 0
            throttled = await one.ask(code)
            assert isinstance(throttled, AccessRejected)
            assert throttled.reason == "throttled"
            assert isinstance(await one.ask(code, OTHER), AccessRejected), "another client is asked about at once"

    asyncio.run(story())


def test_codes_and_use_survive_a_restart(tmp_path: Path) -> None:
    """The key is a file of its own that nobody else reads."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            (code,) = await one.make()
            await one.ask(code)
        assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
        async with desk(tmp_path) as one:
            assert isinstance(await one.ask(code), AccessAccepted)
        (tmp_path / KEY_FILE).unlink()
        async with desk(tmp_path) as one:
            answer = await one.ask(code)
            assert isinstance(answer, AccessRejected)
            assert "another key" in " ".join(one.guests.warnings())

    asyncio.run(story())


def test_a_device_comes_back_with_what_its_voucher_has_left(tmp_path: Path) -> None:
    """And not when the voucher was revoked meanwhile."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            (code,) = await one.make()
            entered = await one.ask(code)
            assert isinstance(entered, AccessAccepted)
            one.guests.remember(remember(entered.grant, LoginMethod.VOUCHER))
            one.guests.charge(usage("s-1", "voucher-1-1", 600))
            back = await one.recall()
            assert isinstance(back, AccessAccepted)
            assert back.method is LoginMethod.VOUCHER
            assert back.grant.used.seconds == 600
            await one.guests.with_vouchers(lambda store, unix: store.revoke(1, None, unix))
            refused = await one.recall()
            assert isinstance(refused, AccessRejected)
            assert refused.reason == "revoked"

    asyncio.run(story())


def test_a_user_that_was_closed_does_not_come_back(tmp_path: Path) -> None:
    """The account is asked each time; a new limit holds from then on."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            user = await one.accounts.add_user("alice", "wonderland")
            grant = Grant("alice", AuthenticatedBy.LOCAL)
            one.guests.remember(remember(grant, LoginMethod.PASSWORD))
            one.guests.charge(usage("s-1", "", 100))
            await one.accounts.change_user(replace(user, limits=Limits(total_bytes=5)))
            back = await one.recall()
            assert isinstance(back, AccessAccepted)
            assert back.grant.limits.total_bytes == 5
            assert back.grant.used.seconds == 100, "the login goes on where it was"
            await one.accounts.change_user(replace(user, disabled=True))
            assert isinstance(await one.recall(), AccessRejected)

    asyncio.run(story())


def test_what_radius_granted_is_granted_again(tmp_path: Path) -> None:
    """With Class and the rest, which accounting echoes; the server is not asked."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            grant = Grant(
                "bob@example.org",
                AuthenticatedBy.RADIUS,
                Limits(session_time_s=7200, download_bps=8000, role="staff"),
                interim_interval_s=300,
                class_values=(b"\x00\xff", b"x"),
                chargeable_user_identity=b"\x01",
                reply_message="Hello",
                redirection_url="http://example.org/",
                filter_ids=("a", "b"),
                devices=2,
            )
            one.guests.remember(remember(grant, LoginMethod.PASSWORD))
            back = await one.recall()
            assert isinstance(back, AccessAccepted)
            assert back.grant == grant

    asyncio.run(story())


def test_a_user_has_no_more_remembered_devices_than_devices(tmp_path: Path) -> None:
    """The one that logged in first goes; a session that ended for good forgets its device."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            grant = Grant("alice", AuthenticatedBy.RADIUS)
            one.guests.remember(remember(grant, LoginMethod.PASSWORD, KEY, 1))
            assert [device.key for device in await one.known()] == [KEY]
            one.unix += 10
            one.guests.remember(remember(grant, LoginMethod.PASSWORD, OTHER, 1))
            assert [device.key for device in await one.known()] == [OTHER]
            assert one.forgotten == [KEY]
            one.guests.charge(replace(usage("s-1", "", 5, back=False), key=OTHER))
            await one.until(lambda: one.charged)
            assert await one.known() == []

    asyncio.run(story())


def test_the_time_to_come_back_is_kept_and_ends(tmp_path: Path) -> None:
    """A restart reads who may come back, and until when."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            one.guests.remember(remember(Grant("m", AuthenticatedBy.LOCAL), LoginMethod.CLICK))
            await one.known()
        async with desk(tmp_path) as one:
            assert await one.guests.start(one.forgotten.extend) == {KEY: UNIX + 86400}
            one.unix = UNIX + 86400
            assert isinstance(await one.recall(), AccessRejected)
            assert await one.guests.start(one.forgotten.extend) == {}

    asyncio.run(story())


def test_blocked_devices_are_kept_and_stand_beside_those_of_the_configuration(tmp_path: Path) -> None:
    """In one zone or in all."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            await one.guests.block(Block(KEY.mac, note="loud"))
            await one.guests.block(Block(OTHER.mac, "pool"))
        async with desk(tmp_path) as one:
            configured = MacAddress.parse("02:00:5e:10:00:01")
            zones = (Zone(name="guest", block_macs=(configured,)), Zone(name="pool"))
            guest, pool = with_blocks(Config(zones=zones), one.guests.blocks).zones
            assert guest.block_macs == (configured, KEY.mac)
            assert pool.block_macs == (KEY.mac, OTHER.mac)
            assert await one.guests.unblock(KEY.mac, None) == 1
            assert await one.guests.unblock(KEY.mac, None) == 0
            assert [block.mac for block in one.guests.blocks] == [OTHER.mac]

    asyncio.run(story())


def test_what_operators_ask_wrongly_is_said_in_words(tmp_path: Path) -> None:
    """As a control error with the sentence of the policy."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            with pytest.raises(ControlError) as caught:
                await one.make(replace(BATCH, length=3))
            assert caught.value.code == BAD_PARAMS
            assert "8 to 20" in caught.value.message

    asyncio.run(story())


def test_a_sentence_of_the_operator_is_kept_and_taken_back(tmp_path: Path) -> None:
    """For all zones, or for one."""

    async def story() -> None:
        async with desk(tmp_path) as one:
            await one.guests.set_text("", "en", "login_lead", "Ahoy")
            await one.guests.set_text("pool", "en", "login_lead", "Splash")
            assert one.guests.texts == {"": {"en": {"login_lead": "Ahoy"}}, "pool": {"en": {"login_lead": "Splash"}}}
            await one.guests.set_text("", "en", "login_lead", None)
            assert one.guests.texts == {"pool": {"en": {"login_lead": "Splash"}}}

    asyncio.run(story())
