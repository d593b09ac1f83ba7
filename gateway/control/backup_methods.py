"""Backup and restore for the command and the administration's pages: one way for both.

A backup may be larger than a frame, so it is handed over in pieces (`backup.put`). A look (`backup.preview`) opens it
and says what it would change, and is remembered under a ticket for ten minutes, so that the passphrase need not be
given twice. A backup of more than the configuration is put back by starting posternd anew (`gateway.backup.staging`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.admin.audit import Entry
from gateway.admin.store import AdminStore
from gateway.backup import contents, staging
from gateway.backup.sealed import CONFIG, MAX_SEALED_BYTES, Backup, Heading, seal, unsealed
from gateway.config_apply import Preview
from gateway.config_backup import SALT_BYTES, BackupError
from gateway.config_change import ChangeError, SetOption
from gateway.config_change import apply as with_changes
from gateway.config_history import APPLIED, PENDING, PastChange
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, UNAVAILABLE, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.uci import UciSyntaxError
from gateway.values import value_class

if TYPE_CHECKING:
    from gateway.daemon import Gateway

LOG: Final = logging.getLogger(__name__)
PIECE_BYTES: Final = 700_000  # in base64, so that it fits a frame
TICKET_S: Final = 600.0
# Whoever restores has to log in anew, with the passwords of the backup, before they can confirm.
LEAST_CONFIRM_S: Final = 300
_STATE_OPTIONS: Final = (("postern", "state_dir"), ("postern", "run_dir"), ("accounts", "database"))


@value_class
class _Looked:
    """A backup that was opened and looked at."""

    ticket: str
    until: float
    backup: Backup
    preview: Preview


class BackupMethods:
    """The methods `backup.*`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._looked: _Looked | None = None
        self._lock = asyncio.Lock()

    def table(self) -> dict[str, Method]:
        """All of them; they are for administrators, and for no token."""
        change = Access.WRITE
        return {
            "backup.create": Method(self.create, change),
            "backup.put": Method(self.put, change),
            "backup.preview": Method(self.preview, change),
            "backup.restore": Method(self.restore, change),
        }

    # -- saving -----------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, params: Params) -> JsonValue:
        """Everything that makes this gateway, sealed by a passphrase."""
        read.only(params, "passphrase")
        passphrase = read.text(params, "passphrase")
        try:
            parts = await self._parts()
            heading = Heading(2, self._gateway.unix(), socket.gethostname(), __version__)
            salt = secrets.token_bytes(SALT_BYTES)
            data = await asyncio.to_thread(seal, Backup(heading, parts), passphrase, salt)
        except BackupError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"the backup cannot be made: {err.strerror or err}") from err
        name = f"postern-{os.uname().nodename}-{time.strftime('%Y-%m-%d')}.backup"
        return {"data": base64.b64encode(data).decode("ascii"), "name": name}

    async def _parts(self) -> dict[str, bytes]:
        import tempfile  # here, because it stays in memory for good

        gateway = self._gateway
        parts = {CONFIG: gateway.changes.text().encode()}
        with tempfile.TemporaryDirectory(dir=staging.folder(gateway.state_dir)) as name:
            accounts, thread = gateway.accounts, gateway.admin.thread
            parts[contents.ACCOUNTS] = await accounts.for_operator(
                partial(contents.accounts_copy, accounts.store, Path(name))
            )
            parts[contents.ADMINISTRATORS] = await thread.ask(
                partial(contents.administrators_copy, thread.store, Path(name))
            )
        parts |= await asyncio.to_thread(contents.files, gateway.state_dir)
        certificate = await gateway.system.read_certificate()
        if certificate is not None:
            parts[contents.CERTIFICATE], parts[contents.CERTIFICATE_KEY] = (one.encode() for one in certificate)
        operators = await gateway.system.read_certificate(operator=True)
        if operators is not None:
            parts[contents.OPERATORS_CERTIFICATE], parts[contents.OPERATORS_KEY] = (one.encode() for one in operators)
        return parts

    # -- looking ----------------------------------------------------------------------------------------------------

    async def put(self, caller: Caller, params: Params) -> JsonValue:
        """Take the next piece of a backup; the piece at 0 begins anew."""
        read.only(params, "offset", "data")
        offset = read.integer(params, "offset", high=MAX_SEALED_BYTES)
        piece = _octets(read.text(params, "data", longest=1 << 20))
        async with self._lock:
            return {"size": await asyncio.to_thread(self._append, offset, piece)}

    def _append(self, offset: int, piece: bytes) -> int:
        path = staging.upload(self._gateway.state_dir)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if offset == 0 else 0)
        try:
            with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
                if file.tell() != offset:
                    raise ControlError(CONFLICT, f"{file.tell()} octets are here; go on there, or begin at 0")
                if offset + len(piece) > MAX_SEALED_BYTES:
                    raise ControlError(BAD_PARAMS, f"a backup has at most {MAX_SEALED_BYTES} octets")
                file.write(piece)
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"{path} cannot be written: {err.strerror or err}") from err
        return offset + len(piece)

    async def preview(self, caller: Caller, params: Params) -> JsonValue:
        """Open the backup that was put (or is in `data`), and say what is in it and what it would change."""
        read.only(params, "passphrase", "data")
        async with self._lock:
            looked = await self._look(params)
            self._looked = looked
        summary = await asyncio.to_thread(self._summary, looked.backup)
        heading = looked.backup.heading
        return {
            "ticket": looked.ticket,
            "format": heading.format,
            "made_unix": heading.made_unix,
            "hostname": heading.hostname,
            "version": heading.version,
            "config_only": _config_only(looked.backup),
            "administrators": list[JsonValue](summary.administrators),
            "tokens": summary.tokens,
            "users": summary.users,
            "batches": summary.batches,
            "vouchers": summary.vouchers,
            "devices": summary.devices,
            "themes": list[JsonValue](summary.themes),
            "certificate": summary.certificate,
            "operators_certificate": summary.operators_certificate,
            "changes": list[JsonValue](looked.preview.sentences),
            "problems": list[JsonValue](looked.preview.problems),
            "cuts_off": looked.preview.cuts_off,
        }

    async def _look(self, params: Params) -> _Looked:
        passphrase = read.text(params, "passphrase")
        given = read.text(params, "data", None, longest=1 << 20)
        data = _octets(given) if given is not None else await asyncio.to_thread(self._uploaded)
        try:
            backup = await asyncio.to_thread(unsealed, data, passphrase)
            text = self._fitted(backup.parts[CONFIG].decode())
            await asyncio.to_thread(self._summary, backup)
        except BackupError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        except (KeyError, ValueError) as err:
            raise ControlError(BAD_PARAMS, "The configuration in the backup cannot be read.") from err
        staging.upload(self._gateway.state_dir).unlink(missing_ok=True)
        preview = await self._gateway.changes.preview(text)
        return _Looked(secrets.token_urlsafe(16), self._gateway.now() + TICKET_S, backup, preview)

    def _uploaded(self) -> bytes:
        try:
            return staging.upload(self._gateway.state_dir).read_bytes()
        except FileNotFoundError:
            raise ControlError(CONFLICT, "no backup was handed over; backup.put takes it") from None

    def _summary(self, backup: Backup) -> contents.Summary:
        import tempfile  # here, because it stays in memory for good

        with tempfile.TemporaryDirectory(dir=staging.folder(self._gateway.state_dir)) as name:
            return contents.look(backup.parts, Path(name))

    def _fitted(self, text: str) -> str:
        """The backup's configuration, with the directories and the database of this system."""
        general, accounts = self._gateway.config.general, self._gateway.config.accounts
        own = {"state_dir": general.state_dir, "run_dir": general.run_dir, "database": accounts.database}
        wanted = {option: self._gateway.loaded.origins.get((section, "", option)) for section, option in _STATE_OPTIONS}
        changes = [
            SetOption(section, "", option, (str(own[option]),) if wanted[option] else ())
            for section, option in _STATE_OPTIONS
        ]
        try:
            return with_changes(text, changes)
        except (ChangeError, UciSyntaxError) as err:
            raise BackupError(f"The configuration in the backup cannot be read: {err}") from err

    # -- restoring --------------------------------------------------------------------------------------------------

    async def restore(self, caller: Caller, params: Params) -> JsonValue:
        """Put back what was looked at (`ticket`), or what is handed over with its passphrase."""
        read.only(params, "ticket", "passphrase", "data", "confirm_s")
        confirm_s = read.integer(params, "confirm_s", None, high=3600)
        ticket = read.text(params, "ticket", None, longest=64)
        async with self._lock:
            looked = await self._look(params) if ticket is None else self._ticket(ticket)
            if looked.preview.problems:
                raise ControlError(BAD_PARAMS, "\n".join(looked.preview.problems[:5]))
            if _config_only(looked.backup):
                self._looked = None
                return await self._configure(caller, looked, confirm_s)
            await self._expect_idle()
            wait_s = await self._stage(caller, looked, confirm_s)
            self._looked = None
        LOG.warning("a backup is put back: starting anew who=%s", caller.name)
        self._gateway.start_anew()
        return {"restarting": True, "change": None, "confirm_within_s": wait_s}

    def _ticket(self, ticket: str) -> _Looked:
        looked = self._looked
        if looked is None or not secrets.compare_digest(looked.ticket, ticket) or looked.until < self._gateway.now():
            raise ControlError(NOT_FOUND, "that was too long ago, or another backup was looked at since; begin again")
        return looked

    async def _expect_idle(self) -> None:
        if self._gateway.changes.pending is not None:
            raise ControlError(
                CONFLICT, "a change of the configuration waits to be confirmed or taken back; do that first"
            )
        if staging.pending(self._gateway.state_dir):
            raise ControlError(CONFLICT, "a backup is being put back already; the gateway starts anew")

    async def _configure(self, caller: Caller, looked: _Looked, confirm_s: int | None) -> JsonValue:
        """A backup of the configuration alone is a change of it like any other."""
        changes = self._gateway.changes
        address = "" if caller.acting is None else caller.acting.address
        version = changes.version(changes.text())
        number, wait_s = await changes.apply(
            looked.preview.text, version, who=caller.name, address=address, confirm_s=confirm_s
        )
        return {"restarting": False, "change": number, "confirm_within_s": wait_s}

    async def _stage(self, caller: Caller, looked: _Looked, confirm_s: int | None) -> int | None:
        """Write all of it beside what is, and commit; returns how long the configuration waits to be confirmed."""
        gateway, parts = self._gateway, looked.backup.parts
        state_dir = gateway.state_dir
        settings = gateway.config.admin
        wait_s = max(settings.confirm_time, LEAST_CONFIRM_S) if looked.preview.cuts_off else None
        if confirm_s is not None:
            wait_s = confirm_s or None
        before = gateway.changes.text()
        change = PastChange(
            number=0,
            at_unix=time.time(),
            who=caller.name,
            address="" if caller.acting is None else caller.acting.address,
            sentences=("a backup was put back", *looked.preview.sentences),
            state=APPLIED if wait_s is None else PENDING,
            before=before,
            after=looked.preview.text,
            boot_id=gateway.boot_id,
            confirm_until=None if wait_s is None else gateway.now() + wait_s,
        )
        entry = Entry(
            change.at_unix, caller.name, "web" if caller.acting else "console", change.address, "", "", "done"
        )

        def write() -> Path:
            staged = staging.begin(state_dir)
            (staged / contents.THEMES).mkdir(mode=0o755)
            for name, content in parts.items():
                if name not in (CONFIG, contents.ADMINISTRATORS):
                    staging.stage(staged, name, content)
            staging.stage(staged, CONFIG, looked.preview.text.encode())
            if contents.ACCOUNTS in parts:
                contents.usable_accounts(staged / contents.ACCOUNTS)
            return staged

        def merge(staged: Path) -> None:
            thread = gateway.admin.thread
            contents.merged_administrators(thread.store, parts.get(contents.ADMINISTRATORS, b""), staged)
            copy = AdminStore(staged / contents.ADMINISTRATORS)
            copy.open()
            try:
                copy.add_entry(replace(entry, method="backup.restore"), settings.audit_entries)
                copy.changes.add(change, settings.config_history)
            finally:
                copy.close()

        try:
            staged = await asyncio.to_thread(write)
            await gateway.admin.thread.ask(partial(merge, staged))
            await asyncio.to_thread(staging.commit, state_dir, staged)
        except BackupError as err:
            raise ControlError(BAD_PARAMS, str(err)) from err
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"the backup cannot be put back: {err.strerror or err}") from err
        return wait_s


def _config_only(backup: Backup) -> bool:
    return set(backup.parts) == {CONFIG}


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as err:
        raise ControlError(BAD_PARAMS, "data is not base64") from err
