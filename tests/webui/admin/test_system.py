"""The device's own page and its routes of the API: an upgrade from the upload to its trial, restart, reset."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.webui.admin.fake_admin import FakeAdmin
from tests.webui.admin.fake_world import bundle_row
from tests.webui.admin.visitor import Answer, Program, Visitor, admin, logged_in, read_answer
from tests.webui.wire import run

BUNDLE = b"a bundle of octets\0" * 100_000  # 1.9 MB: many pieces
PATHS = ("/system/upgrade", "/system/discard", "/system/restart", "/system/reset")


def form_with_file(visitor: Visitor, content: bytes, *, token: str | None = None) -> tuple[bytes, str]:
    """A multipart form as a browser sends it, and its type."""
    own = visitor.csrf if token is None else token
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + own.encode(),
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="p.upgrade"\r\n\r\n' + content,
    ]
    return b"\r\n".join([*parts, b"--x--\r\n"]), "multipart/form-data; boundary=x"


async def upload(visitor: Visitor, content: bytes, token: str | None = None) -> Answer:
    """Send the form of the page."""
    body, kind = form_with_file(visitor, content, token=token)
    return await visitor.ask("POST", "/system/bundle", body, kind)


def test_a_bundle_is_looked_at_before_anything_is_installed(tmp_path: Path) -> None:
    """Upload by the form, what is in it, a confirmation, then progress."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            (tmp_path / "upgrade").mkdir()
            logged_in(fake, visitor)
            fake.world.bundle = bundle_row()
            answer = await upload(visitor, BUNDLE)
            assert (answer.status, answer.header("location")) == (303, "/system/upgrade")
            put = tmp_path / "upgrade" / "bundle"
            assert put.read_bytes() == BUNDLE
            assert put.stat().st_mode & 0o777 == 0o640
            assert [path.name for path in put.parent.iterdir()] == ["bundle"]
            page = await visitor.get("/system/upgrade")
            assert "Upgrade to 0.2.0?" in page.text
            assert "98.0 MB" in page.text
            unconfirmed = await visitor.post("/system/upgrade", build_id="0f9e8d7c6b5a")
            assert unconfirmed.header("location") == "/system/upgrade"
            assert not fake.called("device.upgrade")
            begun = await visitor.post("/system/upgrade", build_id="0f9e8d7c6b5a", confirm="1")
            assert begun.header("location") == "/system"
            assert fake.called("device.upgrade") == [{"older": False, "build_id": "0f9e8d7c6b5a", "wait": False}]
            assert "Writing the new version" in (await visitor.get("/system")).text
            assert (await visitor.get("/system/upgrade")).header("location") == "/system"

    run(story())


@pytest.mark.parametrize(
    "refusal",
    [
        "system.squashfs in the bundle is damaged: download it again",
        "this bundle is for rpi-arm64, and this device is x86_64: take the other one",
        "the bundle's signature is not by a key that this device trusts: take it from where you took the image",
    ],
)
def test_a_bundle_that_is_refused_says_why_and_can_be_removed(tmp_path: Path, refusal: str) -> None:
    """In postern-system's words; nothing is installed."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.bundle = {"refusal": refusal}
            page = await visitor.get("/system/upgrade")
            assert refusal.replace("'", "&#039;") in page.text
            assert "Nothing was written" in page.text
            assert 'name="build_id"' not in page.text
            assert (await visitor.post("/system/discard")).header("location") == "/system"
            assert fake.called("device.discard")
            assert not fake.called("device.upgrade")

    run(story())


def test_an_older_bundle_takes_a_second_tick(tmp_path: Path) -> None:
    """The page warns, and passes the wish on only with the box ticked."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.bundle = {**bundle_row(), "version": "0.0.9", "older": True}
            assert "older than what runs" in (await visitor.get("/system/upgrade")).text
            await visitor.post("/system/upgrade", build_id="x", confirm="1", older="1")
            assert fake.called("device.upgrade")[-1]["older"] is True

    run(story())


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        (None, "was not upgraded yet"),
        ({"state": "committed", "version": "2.0"}, "works and stays"),
        (
            {"state": "rolled back", "version": "2.0", "text": "the portal does not answer"},
            "the portal does not answer",
        ),
        ({"state": "trial", "version": "2.0"}, "is written"),
        ({"state": "verified", "version": "2.0"}, "was broken off"),
    ],
)
def test_the_story_of_the_last_upgrade_is_told(tmp_path: Path, upgrade: dict[str, str] | None, words: str) -> None:
    """Whatever became of it."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.device["upgrade"] = upgrade
            assert words in (await visitor.get("/system")).text

    run(story())


@pytest.mark.parametrize(
    ("packaging", "words"), [("debian", "apt install"), ("openwrt", "opkg upgrade"), ("source", "source code")]
)
def test_off_an_image_the_page_says_how_to_upgrade_there(tmp_path: Path, packaging: str, words: str) -> None:
    """There is no form for a bundle then, and no factory reset."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            fake.world.device |= {"packaging": packaging, "slot": None, "board": None, "start": None, "upgrade": None}
            page = (await visitor.get("/system")).text
            assert words in page
            assert "/system/bundle" not in page
            assert "/system/reset" not in page
            assert "/system/restart" in page

    run(story())


@pytest.mark.parametrize("name", ["otto", "vera"])
def test_operators_and_viewers_are_refused(tmp_path: Path, name: str) -> None:
    """Every page and form of it, also with the token of their session, and the upload before it is read."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            (tmp_path / "upgrade").mkdir()
            logged_in(fake, visitor, name)
            assert 'href="/system"' not in (await visitor.get("/")).text
            for path in ("/system", "/system/upgrade", "/system/live"):
                assert (await visitor.get(path)).status == 403, path
            for path in PATHS:
                assert (await visitor.post(path, confirm="1", hostname="gate", build_id="x")).status == 403, path
            assert (await upload(visitor, b"x")).status == 403
            assert not list((tmp_path / "upgrade").iterdir())
            assert not [method for method, _ in fake.calls if method.startswith("device.")]

    run(story())


def test_forms_from_elsewhere_are_refused(tmp_path: Path) -> None:
    """Without the token of the session nothing is done, and nothing of an upload is kept."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            (tmp_path / "upgrade").mkdir()
            logged_in(fake, visitor)
            for path in PATHS:
                assert (await visitor.submit(path, confirm="1", hostname="gate")).status == 403, path
            assert (await upload(visitor, BUNDLE, token="guessed")).status == 403
            assert (await visitor.ask("POST", "/system/bundle", BUNDLE, "application/octet-stream")).status == 403
            body, kind = form_with_file(visitor, b"x")
            foreign = {"Sec-Fetch-Site": "cross-site"}
            assert (await visitor.ask("POST", "/system/bundle", body, kind, foreign)).status == 403
            api = await visitor.ask("POST", "/api/v1/device/bundle", b"x", "application/octet-stream")
            assert api.status == 403
            assert not list((tmp_path / "upgrade").iterdir())

    run(story())


def test_restart_and_reset_take_a_confirmation(tmp_path: Path) -> None:
    """A tick for the one, the device's name for the other."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert (await visitor.post("/system/restart")).status == 400
            assert not fake.called("device.restart")
            assert "starts anew" in (await visitor.post("/system/restart", confirm="1")).text
            wrong = await visitor.post("/system/reset", hostname="other")
            assert wrong.status == 400
            assert "called gate" in wrong.text
            assert "factory" in (await visitor.post("/system/reset", hostname="gate")).text

    run(story())


def test_the_api_does_all_of_it_with_a_scope(tmp_path: Path) -> None:
    """Reading takes `read`, everything else `configure`."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            (tmp_path / "upgrade").mkdir()
            fake.world.bundle = bundle_row()
            reader = Program(visitor.port, fake.token("read", "operate", "captures"))
            program = Program(visitor.port, fake.token("read", "configure"))
            assert (await reader.ask("GET", "/device")).json["slot"] == "a"
            for method, path in (
                ("POST", "/device/bundle"),
                ("GET", "/device/bundle"),
                ("DELETE", "/device/bundle"),
                ("POST", "/device/upgrade"),
                ("POST", "/device/restart"),
                ("POST", "/device/reset"),
            ):
                assert (await reader.ask(method, path)).status == 403, (method, path)
            raw = {"Authorization": f"Bearer {program.token}"}
            visitor.jar.clear()
            put = await visitor.ask("POST", "/api/v1/device/bundle", BUNDLE, "application/octet-stream", raw)
            assert (put.status, put.json) == (201, {"size_bytes": len(BUNDLE)})
            assert (await program.ask("GET", "/device/bundle")).json["version"] == "0.2.0"
            assert (await program.ask("POST", "/device/upgrade", {"build_id": "x"})).status == 202
            assert (await program.ask("DELETE", "/device/bundle")).status == 204
            refused = await program.ask("GET", "/device/bundle")
            assert (refused.status, refused.json["code"]) == (409, "conflict")
            assert (await program.ask("POST", "/device/restart")).status == 202
            assert (await program.ask("POST", "/device/reset", {"hostname": "other"})).status == 409
            assert (await program.ask("POST", "/device/reset", {"hostname": "gate"})).status == 202

    run(story())


def test_an_upload_that_is_too_large_or_breaks_leaves_nothing(tmp_path: Path) -> None:
    """The bound holds with and without a length; one that is cut off is removed."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, service):
            place = tmp_path / "upgrade"
            place.mkdir()
            service.app.bundles.limit_bytes = 1 << 20
            raw = {"Authorization": f"Bearer {fake.token('configure')}"}
            path, kind = "/api/v1/device/bundle", "application/octet-stream"
            declared = await visitor.ask("POST", path, BUNDLE, kind, raw)
            assert (declared.status, declared.json["code"]) == (413, "too_large")
            chunked = await _chunked(visitor, path, BUNDLE, raw)
            assert chunked.status == 413
            assert (await visitor.ask("POST", path, b"", kind, raw)).status == 400
            reader, writer = await visitor.connect()
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\nContent-Type: {kind}\r\n"
            writer.write((head + f"Authorization: {raw['Authorization']}\r\n\r\n").encode() + b"x" * 1000)
            await writer.drain()
            await _until(lambda: any(place.iterdir()))
            writer.close()
            await _until(lambda: not any(place.iterdir()))
            assert reader is not None

    run(story())


def test_one_upload_at_a_time(tmp_path: Path) -> None:
    """The second is told to come again."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            place = tmp_path / "upgrade"
            place.mkdir()
            raw = {"Authorization": f"Bearer {fake.token('configure')}"}
            path, kind = "/api/v1/device/bundle", "application/octet-stream"
            _, writer = await visitor.connect()
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\nContent-Type: {kind}\r\n"
            writer.write((head + f"Authorization: {raw['Authorization']}\r\n\r\n").encode() + b"x")
            await _until(lambda: any(place.iterdir()))
            second = await visitor.ask("POST", path, b"y", kind, raw)
            assert (second.status, second.header("retry-after")) == (503, "5")
            writer.close()
            await _until(lambda: not any(place.iterdir()))

    run(story())


def test_a_system_without_a_place_for_bundles_says_so(tmp_path: Path) -> None:
    """As a package on Debian that has no slots."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin()) as (fake, visitor, _):
            logged_in(fake, visitor)
            answer = await upload(visitor, b"x")
            assert answer.status == 409
            assert "not upgraded from here" in answer.text

    run(story())


async def _chunked(visitor: Visitor, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    """A body without a length."""
    pieces = [body[at : at + 60_000] for at in range(0, len(body), 60_000)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    reader, writer = await visitor.connect()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/octet-stream\r\n"
    )
    writer.write(f"{head}{lines}\r\n".encode() + framed)
    try:
        return await read_answer(reader)
    finally:
        writer.close()


async def _until(is_so: object) -> None:
    assert callable(is_so)
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.02)
