"""Themes on disk: whole or not at all, kept over a restart, given to zones."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.accounts.service import AccountService
from gateway.config import Accounts
from gateway.control.protocol import BAD_PARAMS, NOT_FOUND, ControlError
from gateway.themes.service import ThemeService

ZONES = ("guest", "pool")


def packed(**files: bytes) -> bytes:
    """An archive; names have a dot where the keyword has a double underscore."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


@asynccontextmanager
async def desk(state_dir: Path) -> AsyncIterator[tuple[ThemeService, list[bool]]]:
    """A running service, and how often the look of a zone changed."""
    accounts = AccountService(Accounts(hash_time=0.01), state_dir, lambda answer: None, lambda: 0.0)
    await accounts.start()
    changed: list[bool] = []
    themes = ThemeService(accounts, state_dir, lambda: changed.append(True))
    await themes.start(ZONES)
    try:
        yield themes, changed
    finally:
        accounts.close()


def test_a_theme_is_kept_given_to_a_zone_and_taken_off_again(tmp_path: Path) -> None:
    """Over a restart too; a new version of it is another version."""

    async def story() -> None:
        async with desk(tmp_path) as (themes, changed):
            row = await themes.store("sea", packed(style__css=b"p { }"))
            assert row.files == ("style.css",)
            assert themes.active("guest") == ("", "")
            await themes.choose("guest", "sea")
            assert themes.active("guest") == ("sea", row.version)
            assert changed == [True]
        assert (tmp_path / "themes" / "sea" / "style.css").read_bytes() == b"p { }"
        async with desk(tmp_path) as (themes, changed):
            assert themes.active("guest") == ("sea", row.version)
            assert await themes.files("sea") == {"style.css": b"p { }"}
            again = await themes.store("sea", packed(style__css=b"q { }", logo__svg=b"<svg/>"))
            assert again.version != row.version
            assert changed == [True], "guests see the new version at once"
            await themes.choose("guest", "")
            assert themes.active("guest") == ("", "")

    asyncio.run(story())


def test_what_is_removed_is_off_every_zone(tmp_path: Path) -> None:
    """Guests see our own look again."""

    async def story() -> None:
        async with desk(tmp_path) as (themes, _):
            await themes.store("sea", packed(style__css=b"p { }"))
            for zone in ZONES:
                await themes.choose(zone, "sea")
            await themes.remove("sea")
            assert [themes.active(zone) for zone in ZONES] == [("", ""), ("", "")]
            assert list((tmp_path / "themes").iterdir()) == []
            with pytest.raises(ControlError) as caught:
                await themes.files("sea")
            assert caught.value.code == NOT_FOUND

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", "../sea", "Sea", "a/b", ".new-sea", "x" * 33])
def test_a_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: str) -> None:
    """No name becomes a path."""

    async def story() -> None:
        async with desk(tmp_path) as (themes, _):
            with pytest.raises(ControlError) as caught:
                await themes.store(name, packed(style__css=b"p { }"))
            assert caught.value.code == BAD_PARAMS
            assert not (tmp_path / "themes").exists()

    asyncio.run(story())


def test_a_bad_theme_leaves_the_good_one_in_place(tmp_path: Path) -> None:
    """Whatever is uploaded under its name."""

    async def story() -> None:
        async with desk(tmp_path) as (themes, _):
            good = await themes.store("sea", packed(style__css=b"p { }"))
            with pytest.raises(ControlError, match="imports"):
                await themes.store("sea", packed(style__css=b"@import 'x';"))
            assert themes.rows() == [good]
            assert await themes.files("sea") == {"style.css": b"p { }"}

    asyncio.run(story())


def test_what_a_power_cut_left_is_no_theme(tmp_path: Path) -> None:
    """A folder that was not put in place has a name that nobody asks for."""

    async def story() -> None:
        (tmp_path / "themes" / ".new-sea").mkdir(parents=True)
        async with desk(tmp_path) as (themes, _):
            assert themes.rows() == []
            await themes.store("sea", packed(style__css=b"p { }"))
            assert [row.name for row in themes.rows()] == ["sea"]

    asyncio.run(story())
