"""The backup page: save, look at what a file holds, put it back."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.webui.admin.visitor import Answer, Visitor, admin, field_of, logged_in
from tests.webui.wire import run

PASSPHRASE = "a long passphrase"
CONTENT = bytes(range(256)) * 5000  # 1.28 MB: three pieces


async def look(
    visitor: Visitor, content: bytes = CONTENT, passphrase: str = PASSPHRASE, token: str | None = None
) -> Answer:
    """Send the form with the file, as a browser does."""
    fields = {"csrf": visitor.csrf if token is None else token, "passphrase": passphrase}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in fields.items()
    ]
    parts.append(b'--x\r\nContent-Disposition: form-data; name="file"; filename="gate.backup"\r\n\r\n' + content)
    body = b"\r\n".join([*parts, b"--x--\r\n"])
    return await visitor.ask("POST", "/config/restore", body, "multipart/form-data; boundary=x")


def test_a_backup_is_saved_as_a_file(tmp_path: Path) -> None:
    """With the passphrase typed twice; the page says what is in it and what is not."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            page = (await visitor.get("/config/backup")).text
            for word in ("vouchers with the key", "certificate", "Not in it", "themes"):
                assert word in page
            unequal = await visitor.post("/config/backup", passphrase=PASSPHRASE, again="other")
            assert "not the same" in unequal.text
            answer = await visitor.post("/config/backup", passphrase=PASSPHRASE, again=PASSPHRASE)
            assert answer.body == b"backup"
            assert answer.header("content-type") == "application/octet-stream"
            assert 'filename="gate-2026-01-01.backup"' in answer.header("content-disposition")

    run(story())


def test_a_backup_is_looked_at_before_it_is_put_back(tmp_path: Path) -> None:
    """It goes to the daemon in pieces, its content is shown and escaped, and a tick confirms it."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            page = await look(visitor)
            assert page.status == 200
            assert fake.world.uploaded == CONTENT
            assert max(len(base64.b64decode(str(one["data"]))) for one in fake.called("backup.put")) <= 500_000
            for word in ("old-gate", "120 in 3", "hotel", "ssid from", "&lt;b&gt;"):
                assert word in page.text
            assert PASSPHRASE not in page.text
            ticket = field_of(page, "ticket")
            assert (await visitor.post("/config/restore/apply", ticket=ticket)).status == 400
            assert not fake.called("backup.restore")
            done = await visitor.post("/config/restore/apply", ticket=ticket, confirm="1")
            assert "starts anew" in done.text
            assert fake.called("backup.restore") == [{"ticket": "ticket-1"}]
            late = await visitor.post("/config/restore/apply", ticket="old", confirm="1")
            assert (late.status, "too long ago" in late.text) == (400, True)

    run(story())


def test_what_does_not_fit_or_may_cut_off_is_said_before(tmp_path: Path) -> None:
    """With problems there is no button."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.backup = {"problems": ["zone, option interface: there is no wlan7 <here>"]}
            page = (await look(visitor)).text
            assert "no wlan7 &lt;here&gt;" in page
            assert "/config/restore/apply" not in page
            fake.world.backup = {"cuts_off": True}
            page = (await look(visitor)).text
            assert "could cut you off" in page
            done = await visitor.post("/config/restore/apply", ticket="ticket-1", confirm="1")
            assert "within 5 min" in done.text

    run(story())


def test_wrong_files_and_forms_are_told(tmp_path: Path) -> None:
    """A wrong passphrase, no file, a form that ends early."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            wrong = await look(visitor, passphrase="wrong")
            assert (wrong.status, "passphrase is wrong" in wrong.text) == (400, True)
            assert (await look(visitor, content=b"")).status == 400
            cut = await visitor.ask("POST", "/config/restore", b"--x\r\n", "multipart/form-data; boundary=x")
            assert cut.status == 400
            assert not fake.called("backup.restore")

    run(story())


@pytest.mark.parametrize("name", ["otto", "vera"])
def test_it_is_for_administrators(tmp_path: Path, name: str) -> None:
    """And for nobody who was led here by another page."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor, name)
            assert (await visitor.get("/config/backup")).status == 403
            assert (await look(visitor)).status == 403
            assert (await visitor.post("/config/restore/apply", ticket="ticket-1", confirm="1")).status == 403
            logged_in(fake, visitor)
            assert (await look(visitor, token="guessed")).status == 400
            assert (await visitor.submit("/config/restore/apply", ticket="ticket-1", confirm="1")).status == 403
            assert not [method for method, params in fake.calls if "backup" in str(params.get("method"))]

    run(story())
