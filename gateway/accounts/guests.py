"""Guests without an account of their own, as a service of the daemon: vouchers, remembered devices, blocked devices.

Works in the accounts' thread and database (`AccountService`). Codes are derived from a key in a file of its own beside
the database: neither is of use without the other. What sessions used is written in small batches; it is in the journal
until the database has it, so that a full disk or a power cut gives no voucher its time again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.accounts.codes import KEY_BYTES, SALT_BYTES
from gateway.accounts.device_store import DeviceStore
from gateway.accounts.devices import Block, Device
from gateway.accounts.guessing import GuessingGuard
from gateway.accounts.service import EARLIEST_UNIX, AccountService, Answer
from gateway.accounts.voucher_store import VoucherStore
from gateway.accounts.vouchers import Batch, Voucher, grant_of, named, why_refused
from gateway.addresses import MacAddress
from gateway.control.protocol import ControlError
from gateway.session.actions import RecallDevice, RememberDevice, VerifyVoucher
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import AuthenticatedBy, ClientKey, LoginMethod, Usage
from gateway.sqlite_file import StoreError

KEY_FILE: Final = "voucher.key"
RETRY_S: Final = 20.0  # until usage that could not be written is tried again
MAX_TOGETHER: Final = 200  # sessions whose usage is written in one transaction
_MESSAGES: Final = {  # for the timeline; guests read the page's words
    "expired": "the voucher has expired",
    "used_up": "the voucher is used up",
    "revoked": "the voucher was revoked",
    "elsewhere": "the voucher is for another network",
}

log = logging.getLogger(__name__)
T = TypeVar("T")


class GuestAccounts:
    """Vouchers and devices: `start()` after the accounts have started; calls of the hub; methods for operators."""

    def __init__(
        self,
        accounts: AccountService,
        state_dir: Path,
        post: Callable[[Answer], None],
        charged: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        """`post` takes answers, `charged` the sessions whose usage was written; both on the loop."""
        self.guard = GuessingGuard()
        self.blocks: tuple[Block, ...] = ()
        self.texts: dict[str, dict[str, dict[str, str]]] = {}
        self._accounts = accounts
        self._key_path = state_dir / KEY_FILE
        self._post = post
        self._charged = charged
        self._clock = clock
        self._unix_clock = unix_clock
        self._devices = DeviceStore(accounts.store)
        self._vouchers = VoucherStore(accounts.store, b"")
        self._trouble: list[str] = []
        self._to_charge: dict[str, Usage] = {}
        self._charging = False
        self._forgotten: Callable[[Iterable[ClientKey]], None] = lambda keys: None

    async def start(self, forgotten: Callable[[Iterable[ClientKey]], None]) -> dict[ClientKey, float]:
        """Read what is kept; returns the remembered devices with their ends. `forgotten` hears of those that go."""
        self._loop = asyncio.get_running_loop()
        self._forgotten = forgotten
        self._vouchers = VoucherStore(self._accounts.store, self._key())
        try:
            devices, self.blocks, self.texts, fits = await self._accounts.for_operator(self._read)
        except ControlError as err:  # the accounts say what is wrong; without them there is no voucher
            log.error("vouchers and devices could not be read reason=%s", err)
            return {}
        if not fits:
            self._trouble.append(
                f"The vouchers in the database were made with another key than {self._key_path}: their codes do not "
                "let in. Put back that file from the same backup as the database, or revoke the old batches."
            )
        self._charge_soon()
        return {device.key: device.until_unix for device in devices}

    def _read(self) -> tuple[list[Device], tuple[Block, ...], dict[str, dict[str, dict[str, str]]], bool]:
        devices = self._devices.devices(self._unix_clock())
        return devices, tuple(self._devices.blocks()), self._devices.texts(), self._vouchers.check_key()

    def _key(self) -> bytes:
        """The device's key for codes, made at the first start; without a file to keep it in, no code survives."""
        try:
            with contextlib.suppress(FileNotFoundError):
                key = self._key_path.read_bytes()
                if len(key) == KEY_BYTES:
                    return key
                self._key_path.replace(self._key_path.with_name(f"{KEY_FILE}.damaged"))
            key = secrets.token_bytes(KEY_BYTES)
            fresh = self._key_path.with_name(f"{KEY_FILE}.new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, key)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fresh.replace(self._key_path)
        except OSError as err:
            self._trouble.append(
                f"The key of voucher codes cannot be kept in {self._key_path} ({err.strerror}): vouchers made now are "
                "lost with the next start. Make the state directory writable for posternd and restart it."
            )
            return secrets.token_bytes(KEY_BYTES)
        return key

    def warnings(self) -> Iterator[str]:
        """What an operator should know, in sentences."""
        yield from self._trouble
        if self.guard.under_attack(self._clock()):
            yield (
                "somebody seems to guess voucher codes: unknown devices wait some seconds for each try. "
                "`postern events` shows which devices were refused; block them, or make longer codes"
            )

    # -- what the hub asks ------------------------------------------------------------------------------------------

    def verify(self, action: VerifyVoucher) -> None:
        """Check a code; the answer is posted later, never from within this call."""
        now = self._clock()
        verdict = self.guard.check(action.key.mac, now)
        if verdict.wait_s:
            text = "too many wrong codes"
            answer = AccessRejected(action.key, action.login_id, text, reason="throttled", wait_s=verdict.wait_s)
            self._loop.call_soon(self._post, answer)
        elif verdict.delay_s:
            self._loop.call_later(verdict.delay_s, self._ask, action, partial(self._by_code, action))
        else:
            self._ask(action, partial(self._by_code, action))

    def recall(self, action: RecallDevice) -> None:
        """Look what is left for a device that came back; the answer is posted later."""
        self._ask(action, partial(self._by_device, action))

    def remember(self, action: RememberDevice) -> None:
        """Keep a device that logged in."""

        def work() -> None:
            try:
                gone = self._devices.remember(action, self._unix_clock())
            except StoreError as err:
                log.warning("device not remembered mac=%s reason=%s", action.key.mac, err)
            else:
                self._accounts.call(self._forgotten, gone)

        self._accounts.submit(work)

    def charge(self, usage: Usage) -> None:
        """Have what a session used written to its voucher and device."""
        self._to_charge[usage.acct_session_id] = usage
        self._charge_soon()

    def uncharged(self) -> list[Usage]:
        """What waits to be written."""
        return list(self._to_charge.values())

    def _ask(self, action: VerifyVoucher | RecallDevice, work: Callable[[], Answer]) -> None:
        def decide() -> None:
            try:
                answer = work()
            except StoreError as err:
                answer = AccessFailed(action.key, action.login_id, str(err))
            self._accounts.call(self._answer, answer, isinstance(action, VerifyVoucher))

        if not self._accounts.submit(decide):
            reason = "too many vouchers are waiting to be checked already; the guest may try again"
            self._loop.call_soon(self._post, AccessFailed(action.key, action.login_id, reason))

    def _answer(self, answer: Answer, by_code: bool) -> None:
        """On the loop: count mistakes, then tell the hub."""
        if by_code and isinstance(answer, AccessAccepted):
            self.guard.succeeded(answer.key.mac)
        elif by_code and isinstance(answer, AccessRejected) and answer.reason == "wrong":
            # A code that exists was no guess, whatever became of the voucher.
            answer = replace(answer, wait_s=self.guard.failed(answer.key.mac, self._clock()))
        self._post(answer)

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _by_code(self, action: VerifyVoucher) -> Answer:
        voucher = self._vouchers.find(action.voucher.code)
        if voucher is None:
            return AccessRejected(action.key, action.login_id, "no such code", reason="wrong")
        return self._judge(voucher, action.key, action.login_id)

    def _judge(self, voucher: Voucher, key: ClientKey, login_id: int, method: LoginMethod | None = None) -> Answer:
        unix = self._unix()
        reason = why_refused(voucher, key.zone, unix)
        if reason:
            return AccessRejected(key, login_id, f"{voucher.id}: {_MESSAGES[reason]}", reason=reason)
        begun = self._vouchers.begin(voucher, str(key.mac), unix)
        return AccessAccepted(key, login_id, grant_of(begun, unix), method)

    def _by_device(self, action: RecallDevice) -> Answer:
        device = self._devices.get(action.key)
        if device is None or device.until_unix <= self._unix_clock():
            return AccessRejected(action.key, action.login_id, "the time to come back is over", reason="expired")
        place = named(device.grant.account)
        if place is not None:
            voucher = self._vouchers.get(*place)
            if voucher is None:
                return AccessRejected(action.key, action.login_id, _MESSAGES["revoked"], reason="revoked")
            return self._judge(voucher, action.key, action.login_id, LoginMethod.VOUCHER)
        grant = device.grant
        if device.method is LoginMethod.PASSWORD and grant.authenticated_by is AuthenticatedBy.LOCAL:
            user = self._accounts.open_account(grant.username)
            if user is None:
                return AccessRejected(action.key, action.login_id, "the account is gone or closed", reason="revoked")
            grant = replace(grant, limits=user.granted(), devices=user.devices)
        return AccessAccepted(action.key, action.login_id, grant, device.method)

    def _unix(self) -> float | None:
        unix = self._unix_clock()
        return unix if unix >= EARLIEST_UNIX else None

    # -- usage ------------------------------------------------------------------------------------------------------

    def _charge_soon(self) -> None:
        if self._charging or not self._to_charge:
            return
        together = list(self._to_charge.values())[:MAX_TOGETHER]
        # In the queue of logins: after a device was remembered, and before whoever asks next is answered.
        self._charging = self._accounts.submit(partial(self._charge, together))
        if not self._charging:
            self._loop.call_later(RETRY_S, self._charge_soon)

    def _charge(self, usages: list[Usage]) -> None:
        try:
            self._vouchers.charge([(usage, named(usage.account)) for usage in usages], self._unix_clock())
        except StoreError as err:
            log.warning("usage not written, trying again in %.0f s sessions=%d reason=%s", RETRY_S, len(usages), err)
            self._accounts.call(self._not_charged)
        else:
            self._accounts.call(self._done_charging, tuple(usage.acct_session_id for usage in usages))

    def _not_charged(self) -> None:
        self._charging = False
        self._loop.call_later(RETRY_S, self._charge_soon)

    def _done_charging(self, acct_session_ids: tuple[str, ...]) -> None:
        self._charging = False
        for acct_session_id in acct_session_ids:
            self._to_charge.pop(acct_session_id, None)
        self._charged(acct_session_ids)
        self._charge_soon()

    # -- what operators ask: ControlError says what to do -------------------------------------------------------------

    async def create(self, batch: Batch, count: int) -> tuple[Batch, list[tuple[int, str]]]:
        """Make vouchers; the batch's number, salt and time are chosen here."""
        unix = self._unix_clock()
        fresh = replace(batch, salt=secrets.token_bytes(SALT_BYTES), created_unix=unix)
        return await self._accounts.for_operator(lambda: self._vouchers.create(fresh, count))

    async def with_vouchers(self, work: Callable[[VoucherStore, float], T]) -> T:
        """Ask the vouchers something, with the time."""
        return await self._accounts.for_operator(lambda: work(self._vouchers, self._unix_clock()))

    async def with_devices(self, work: Callable[[DeviceStore, float], T]) -> T:
        """Ask the devices something, with the time."""
        return await self._accounts.for_operator(lambda: work(self._devices, self._unix_clock()))

    async def block(self, block: Block) -> None:
        """Block a device; the packet filter is the caller's to change."""
        made = replace(block, created_unix=self._unix_clock())

        def work() -> tuple[Block, ...]:
            self._devices.block(made)
            return tuple(self._devices.blocks())

        self.blocks = await self._accounts.for_operator(work)

    async def unblock(self, block: MacAddress, zone: str | None) -> int:
        """Let a device in again; returns how many blocks went."""

        def work() -> tuple[int, tuple[Block, ...]]:
            return self._devices.unblock(block, zone), tuple(self._devices.blocks())

        count, self.blocks = await self._accounts.for_operator(work)
        return count

    async def set_text(self, zone: str, language: str, key: str, text: str | None) -> None:
        """Set a sentence of the pages, or take ours again."""

        def work() -> dict[str, dict[str, dict[str, str]]]:
            self._devices.set_text(zone, language, key, text)
            return self._devices.texts()

        self.texts = await self._accounts.for_operator(work)
