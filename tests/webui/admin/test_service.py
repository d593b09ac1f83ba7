"""Certificate and listeners of the administration: made on the device, replaced, and never where guests are."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.webui.admin.fake_admin import FakeAdmin, running_admin
from tests.webui.fake_daemon import eventually, free_port
from tests.webui.wire import run
from webui.admin import service as service_module
from webui.admin.certificate import CertificateError, fingerprint, keep, kept, own_certificate, tls_context
from webui.admin.daemon import AdminDaemon, JsonValue, Params
from webui.admin.service import AdminService, Options, Place
from webui.parsing import DEFAULT_PARSER


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    """The second start finds the first one's; the key is for this user alone."""
    certificate, key = own_certificate(tmp_path / "tls", "gate.lan")
    made = fingerprint(certificate)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert own_certificate(tmp_path / "tls", "gate.lan") == (certificate, key)
    assert fingerprint(certificate) == made
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "DNS:gate.lan" in shown
    assert "id-ecPublicKey" in shown
    assert tls_context(certificate, key).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_is_nearly_over_is_made_anew(tmp_path: Path) -> None:
    """Also one from a time when the clock was not set."""
    certificate, key = own_certificate(tmp_path, "gate")
    before = fingerprint(certificate)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-key", str(key), "-days", "5", "-subj", "/CN=gate"),
            *("-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    assert fingerprint(certificate) != before
    own_certificate(tmp_path, "gate")
    text = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-checkend", str(30 * 86400)],
        capture_output=True,
        check=False,
    )
    assert text.returncode == 0


@pytest.mark.parametrize("hostname", ["", "a/CN=evil", "x" * 200, "é", "a,DNS:evil.example"])
def test_no_host_name_puts_anything_else_into_the_certificate(tmp_path: Path, hostname: str) -> None:
    """What is not a letter, digit, dot or dash is left out."""
    certificate, _ = own_certificate(tmp_path, hostname)
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "DNS:evil" not in shown
    assert "CN = evil" not in shown


def test_files_that_are_no_certificate_are_told(tmp_path: Path) -> None:
    """With their names."""
    (tmp_path / "a").write_text("nonsense")
    with pytest.raises(CertificateError, match="cannot be used"):
        tls_context(tmp_path / "a", tmp_path / "a")


class Configured(FakeAdmin):
    """A daemon whose configuration says where to listen."""

    def __init__(self, **config: JsonValue) -> None:
        super().__init__()
        self.config = config

    def admin_config(self, params: Params) -> JsonValue:
        return {"enabled": True, "port": 8443, "interfaces": ["lo"], "guest_interfaces": [], **self.config}


async def places(fake: FakeAdmin, folder: Path, port: int) -> list[Place]:
    """Where the administration listens a moment after its start."""
    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        options = Options((), folder)
        service = AdminService(AdminDaemon(fake), options, DEFAULT_PARSER, group, loop.time, loop.time)
        service.start()
        try:
            await eventually(lambda: fake.called("admin.config"), "asked")
            await eventually(lambda: service.settled, "settled")
            return service.places
        finally:
            await service.stop(1.0)


def test_the_configuration_says_where_to_listen(tmp_path: Path) -> None:
    """Loopback has both families; nothing when it is switched off."""
    port = free_port()

    async def story() -> None:
        here = await places(Configured(port=port), tmp_path, port)
        assert Place("127.0.0.1", port, "lo") in here
        assert await places(Configured(port=port, enabled=False), tmp_path, port) == []

    run(story())


def test_an_interface_and_loopback_have_the_same_port(tmp_path: Path) -> None:
    """Every address of the one does not keep the other from its own."""
    port = free_port()
    other = next(name for _, name in socket.if_nameindex() if name != "lo")

    async def story() -> None:
        here = await places(Configured(port=port, interfaces=[other, "lo"]), tmp_path, port)
        assert {Place("", port, other), Place("127.0.0.1", port, "lo")} <= set(here)

    run(story())


def test_an_interface_of_guests_is_never_listened_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even when the configuration names it."""
    port = free_port()

    async def story() -> None:
        fake = Configured(port=port, interfaces=["lo"], guest_interfaces=["lo"])
        assert await places(fake, tmp_path, port) == []

    with caplog.at_level(logging.ERROR):
        run(story())
    assert "guests' interface" in caplog.text


async def served(port: int) -> bytes:
    """The certificate that a browser is shown, in DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


def test_a_certificate_that_takes_its_place_is_served_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one of a backup that was put back."""
    monkeypatch.setattr(service_module, "_LOOK_S", 0.05)
    other = own_certificate(tmp_path / "other", "old-gate")
    port = free_port()

    async def story() -> None:
        async with running_admin(FakeAdmin(), port, tmp_path / "own"):
            before = await served(port)
            for path, name in zip(other, ("device.crt", "device.key"), strict=True):
                path.rename(tmp_path / "own" / name)
            while await served(port) == before:
                await asyncio.sleep(0.05)

    run(story())


def test_the_operators_certificate_is_kept_for_backups(tmp_path: Path) -> None:
    """PEM alone, for this user alone; what is the same is not written again."""
    certificate, key = own_certificate(tmp_path / "etc", "hotel")
    certificate.write_text("Bag Attributes: a friendly näme\n" + certificate.read_text() * 2, "utf-8")
    keep((certificate, key), tmp_path)
    copies = kept(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in copies] == [0o600, 0o600]
    assert copies[0].read_bytes().startswith(b"-----BEGIN CERT")
    assert copies[0].read_bytes().count(b"BEGIN") == 2
    tls_context(*copies)
    before = [path.stat().st_ino for path in copies]
    keep((certificate, key), tmp_path)
    assert [path.stat().st_ino for path in copies] == before


def test_the_operators_certificate_is_served_while_its_files_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On the device where it was, or on another that took a backup; without any copy, the device's own serves."""
    monkeypatch.setattr(service_module, "_LOOK_S", 0.05)
    port, own = free_port(), tmp_path / "own"
    certificate, key = own_certificate(tmp_path / "etc", "hotel")
    shown = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    fake = Configured(certificate=str(certificate), certificate_key=str(key))

    async def until(wanted: bool) -> None:
        async with asyncio.timeout(30):
            while (await served(port) == shown) != wanted:
                await asyncio.sleep(0.05)

    async def story() -> None:
        async with running_admin(fake, port, own):
            await until(wanted=True)
            await eventually(lambda: all(path.is_file() for path in kept(own)), "kept")
            key.rename(tmp_path / "elsewhere")
        async with running_admin(fake, port, own):  # nothing was kept in memory
            await until(wanted=True)
            for path in kept(own):
                path.unlink()
            await until(wanted=False)
            (tmp_path / "elsewhere").rename(key)
            await until(wanted=True)
            fake.config |= {"certificate": "", "certificate_key": ""}
            await until(wanted=False)
            assert not any(path.exists() for path in kept(own))

    with caplog.at_level(logging.ERROR):
        run(story())
    assert 1 <= sum("not served" in one.message for one in caplog.records) <= 4  # said, and not at each look
