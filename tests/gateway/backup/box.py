"""A gateway's state and what backups need of it, without a network: everything real but the kernel and RADIUS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gateway.accounts.codes import SALT_BYTES
from gateway.accounts.guests import GuestAccounts
from gateway.accounts.service import AccountService
from gateway.accounts.vouchers import Batch
from gateway.admin.service import AdminService, Opened
from gateway.backup import staging
from gateway.config import Config
from gateway.config_apply import ConfigChanges
from gateway.config_loader import Loaded, Problem, load
from gateway.control.access import Access, Caller
from gateway.control.backup_methods import BackupMethods
from gateway.control.protocol import ControlError, JsonValue, Params
from gateway.system.client import StartingSystem, System
from gateway.system.verbs import Place, write_certificate

if TYPE_CHECKING:
    from gateway.daemon import Gateway

ROOT = Caller(0, 0, 1, frozenset({0}), Access.READ | Access.WRITE, "root")
PASSPHRASE = "a long passphrase"
PASSWORD = "correct horse battery"
PEM = "-----BEGIN CERTIFICATE-----\nof {name}\n-----END CERTIFICATE-----\n"


class TestSystem(System):
    """postern-system's acts below the test's directory, done by ourselves."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "postern.conf", directory)
        self._place = Place(directory / "postern.conf", directory, directory, directory / "admin-web")


class TestStartingSystem(StartingSystem):
    """The same, before the loop runs."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "postern.conf", directory)
        self._place = Place(directory / "postern.conf", directory, directory, directory / "admin-web")


class Box:
    """One gateway; `cast` to Gateway for the methods, which use what is here."""

    def __init__(self, directory: Path, timeout: int) -> None:
        self.state_dir = directory / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.path = directory / "postern.conf"
        if not self.path.exists():
            self.path.write_text(
                f"config postern\n\toption state_dir '{self.state_dir}'\n\n"
                f"config radius\n\toption timeout '{timeout}'\n\toption coa_secret 'long-enough-secret'\n"
            )
        self.loaded: Loaded = load(self.path.read_text())
        self.boot_id = "boot-1"
        self.time = 1000.0
        self.anew = False
        self.system = TestSystem(directory)
        self.accounts = AccountService(self.config.accounts, self.state_dir, lambda answer: None, self.now)
        self.guests = GuestAccounts(
            self.accounts, self.state_dir, lambda answer: None, lambda ids: None, self.now, lambda: 1_800_000_000.0
        )
        self.admin = AdminService(self.config.admin, 0.005, self.state_dir, self.now, self.boot_id)
        self.changes = ConfigChanges(
            self.path,
            self.admin.thread,
            running=lambda: self.loaded,
            reload=self.reload,
            not_changeable=lambda loaded: [],
            write=self.system.write_config,
            clock=self.now,
            unix_clock=self.unix,
            boot_id=self.boot_id,
        )
        self.methods = BackupMethods(cast("Gateway", self))

    @property
    def config(self) -> Config:
        """The running configuration."""
        return self.loaded.config

    def now(self) -> float:
        """The box's clock."""
        return self.time

    def unix(self) -> float:
        """Its time of day."""
        return 1_800_000_000.0

    def start_anew(self) -> None:
        """What the daemon does by itself."""
        self.anew = True

    async def reload(self) -> tuple[list[str], list[Problem]]:
        """Take the file as it is."""
        self.loaded = load(self.path.read_text())
        return ["something"], []

    async def populate(self, name: str) -> None:
        """An administrator, a user, vouchers, a theme, a certificate; all with the box's name in them."""
        opened = await self.admin.set_up(self.admin.setup_code(), name, PASSWORD, "192.0.2.1", "browser")
        assert isinstance(opened, Opened)
        await self.admin.add_token(name, "script", ["read"], None)
        await self.accounts.add_user(f"user-of-{name}", PASSWORD)
        await self.guests.create(Batch(0, bytes(SALT_BYTES), "digits", 12, 0.0, note=name), 3)
        theme = self.state_dir / "themes" / name
        theme.mkdir(parents=True)
        (theme / "style.css").write_text(f"/* {name} */")
        (self.path.parent / "admin-web").mkdir()
        certificate = PEM.format(name=name)
        for operator in (False, True):
            params: Params = {"certificate": certificate, "key": certificate, "operator": operator}
            write_certificate(self.system._place, params)

    async def facts(self) -> dict[str, object]:
        """What tells one box from another."""
        users = [user.name for user in await self.accounts.list_users()]
        batches = await self.guests.with_vouchers(lambda store, unix: [row.batch.note for row in store.batches()])
        return {
            "administrators": [one.name for one, _ in self.admin.administrators()],
            "users": users,
            "batches": batches,
            "themes": sorted(path.name for path in (self.state_dir / "themes").glob("*")),
            "timeout": self.config.radius.timeout,
            "certificate": (self.path.parent / "admin-web" / "device.crt").read_text(),
            "operators_key": (self.path.parent / "admin-web" / "operator.key").read_text(),
            "key": (self.state_dir / "voucher.key").read_bytes(),
        }

    async def backup(self) -> str:
        """A backup, as it is answered."""
        answer = await self.methods.create(ROOT, {"passphrase": PASSPHRASE})
        assert isinstance(answer, dict)
        return str(answer["data"])

    async def restore(self, data: str, **more: JsonValue) -> dict[str, JsonValue]:
        """Put a backup back in one step."""
        answer = await self.methods.restore(ROOT, {"passphrase": PASSPHRASE, "data": data, **more})
        assert isinstance(answer, dict)
        return answer


@asynccontextmanager
async def running(directory: Path, *, timeout: int = 3, finish: bool = True) -> AsyncIterator[Box]:
    """A box that runs; what was committed is put in place first, as posternd does."""
    if finish and (directory / "state").exists():
        staging.finish(directory / "state", "accounts.sqlite", TestStartingSystem(directory))
    one = Box(directory, timeout)
    await one.accounts.start()
    await one.admin.start()
    await one.guests.start(lambda keys: None)
    try:
        yield one
    finally:
        await asyncio.sleep(0)
        one.accounts.close()
        one.admin.close()


async def refused(work: object) -> ControlError:
    """The refusal of a call."""
    try:
        await work  # type: ignore[misc]
    except ControlError as err:
        return err
    raise AssertionError("it was not refused")
