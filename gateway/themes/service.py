"""Themes on disk, below the state directory, and which zone has which; work is done in the accounts' thread.

A theme is a folder that appears and goes as a whole, by rename. The portal gets the files over the control socket: it
has no right to read the state directory, and needs none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from gateway.accounts.service import AccountService
from gateway.control.protocol import BAD_PARAMS, CONFLICT, NOT_FOUND, ControlError
from gateway.values import value_class

MAX_THEMES: Final = 20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_FACT: Final = "theme:"

log = logging.getLogger(__name__)


@value_class
class ThemeRow:
    """One theme: its version changes with its files."""

    name: str
    version: str
    size_bytes: int
    files: tuple[str, ...]


class ThemeService:
    """The operator's themes."""

    def __init__(self, accounts: AccountService, state_dir: Path, changed: Callable[[], None]) -> None:
        """`changed` is called on the loop when a zone's look is another."""
        self._accounts = accounts
        self._folder = state_dir / "themes"
        self._changed = changed
        self._rows: dict[str, ThemeRow] = {}
        self._zones: dict[str, str] = {}

    async def start(self, zones: Iterable[str]) -> None:
        """Read what is there; a theme that cannot be read is left out, with a line in the log."""

        def work() -> tuple[dict[str, ThemeRow], dict[str, str]]:
            store = self._accounts.store
            chosen = {zone: name for zone in zones if (name := store.fact(f"{_FACT}{zone}"))}
            return self._read_rows(), chosen

        with contextlib.suppress(ControlError):  # the accounts say what is wrong with their file
            self._rows, self._zones = await self._accounts.for_operator(work)

    def active(self, zone: str) -> tuple[str, str]:
        """Name and version of a zone's theme; both empty for our own look."""
        row = self._rows.get(self._zones.get(zone, ""))
        return ("", "") if row is None else (row.name, row.version)

    def rows(self) -> list[ThemeRow]:
        """All themes by name."""
        return sorted(self._rows.values(), key=lambda row: row.name)

    async def files(self, name: str) -> dict[str, bytes]:
        """The files of a theme."""
        if name not in self._rows:
            raise ControlError(NOT_FOUND, f"there is no theme {name!r}")
        return await self._accounts.for_operator(lambda: self._files(name))

    async def store(self, name: str, archive: bytes) -> ThemeRow:
        """Keep an uploaded theme under a name, in place of the one that had it."""
        if not _NAME.fullmatch(name):
            raise ControlError(BAD_PARAMS, "a theme's name is small letters, digits, - and _, at most 32")
        if name not in self._rows and len(self._rows) >= MAX_THEMES:
            raise ControlError(CONFLICT, f"there are {len(self._rows)} themes; remove one first")

        def work() -> ThemeRow:
            from gateway.themes.archive import read_archive  # zip and HTML parsers, for one upload in a year

            self._write(name, read_archive(archive))
            return self._row(name)

        row = self._rows[name] = await self._accounts.for_operator(work)
        if name in self._zones.values():
            self._changed()
        return row

    async def remove(self, name: str) -> None:
        """Remove a theme; zones that have it go back to our look."""
        if name not in self._rows:
            raise ControlError(NOT_FOUND, f"there is no theme {name!r}")
        for zone in [zone for zone, theme in self._zones.items() if theme == name]:
            await self.choose(zone, "")
        await self._accounts.for_operator(lambda: _remove(self._folder / name))
        del self._rows[name]

    async def choose(self, zone: str, name: str) -> None:
        """Give a zone a theme; the empty name is our own look."""
        if name and name not in self._rows:
            raise ControlError(NOT_FOUND, f"there is no theme {name!r}; themes.store takes one")
        await self._accounts.for_operator(lambda: self._accounts.store.keep_fact(f"{_FACT}{zone}", name))
        self._zones[zone] = name
        self._changed()

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _read_rows(self) -> dict[str, ThemeRow]:
        rows = {}
        with contextlib.suppress(FileNotFoundError):
            for folder in sorted(self._folder.iterdir()):
                if _NAME.fullmatch(folder.name) and folder.is_dir():
                    try:
                        rows[folder.name] = self._row(folder.name)
                    except OSError as err:
                        log.error("theme cannot be read theme=%s reason=%s", folder.name, err)
        return rows

    def _files(self, name: str) -> dict[str, bytes]:
        try:
            return {path.name: path.read_bytes() for path in sorted((self._folder / name).iterdir())}
        except OSError as err:
            raise ValueError(f"The theme {name} cannot be read: {err}. Upload it again.") from err

    def _row(self, name: str) -> ThemeRow:
        files = {path.name: path.read_bytes() for path in sorted((self._folder / name).iterdir())}
        digest = hashlib.sha256()
        for file, data in files.items():
            digest.update(f"{file}\0{len(data)}\0".encode() + data)
        return ThemeRow(name, digest.hexdigest()[:12], sum(map(len, files.values())), tuple(files))

    def _write(self, name: str, files: dict[str, bytes]) -> None:
        """Put a theme in place as a whole; what a power cut leaves of a new one has a name that is no theme's."""
        fresh, old = self._folder / f".new-{name}", self._folder / f".old-{name}"
        try:
            for leftover in (fresh, old):
                _remove(leftover)
            fresh.mkdir(parents=True, mode=0o755)
            for file, data in files.items():
                path = fresh / file
                path.write_bytes(data)
                path.chmod(0o644)
            if (self._folder / name).exists():
                (self._folder / name).rename(old)
            fresh.rename(self._folder / name)
            _remove(old)
        except OSError as err:
            raise ValueError(f"The theme cannot be kept in {self._folder}: {err.strerror}. Is there room?") from err


def _remove(folder: Path) -> None:
    """Remove a folder with what is in it, as far as possible."""
    import shutil  # here, because it stays in memory for good

    shutil.rmtree(folder, ignore_errors=True)
