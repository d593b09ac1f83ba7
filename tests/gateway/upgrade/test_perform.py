"""What is checked before an upgrade is written, and what is said meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

import gateway
from gateway.upgrade import perform, progress, slots, writing
from gateway.upgrade.bundle import BundleRefused, verify
from gateway.upgrade.story import Story, tell, told
from rootfs.image.assemble import Slot
from rootfs.image.make import write_bundle
from tests.gateway.upgrade.test_bundle import BOARD, new_key

VERSION = gateway.__version__


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image whose slots are files below a directory, trusting one key."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "data").mkdir()
    _, public = new_key(tmp_path / "own.pem")
    public.rename(tmp_path / "keys" / "own.pem")
    (tmp_path / "board").write_text(f"{BOARD}\n")
    monkeypatch.setattr(perform, "KEYS", tmp_path / "keys")
    monkeypatch.setattr(slots, "BOARD", tmp_path / "board")
    here = slots.Slots("a", trial=False, disk=f"{tmp_path}/disk", boot="none", data=tmp_path / "data")
    monkeypatch.setattr(slots, "here", lambda: here)
    (tmp_path / "disk3").write_bytes(bytes(1 << 20))
    return tmp_path


def bundle_of(device: Path, *, version: str = VERSION, board: str = BOARD) -> Path:
    """A bundle by the key that the device trusts."""
    parts = []
    for name in ("system", "kernel", "early"):
        path = device / name
        path.write_bytes(name.encode() * 1000)
        parts.append(path)
    path = device / "bundle"
    write_bundle(Slot(*parts), path, device / "own.pem", board=board, version=version, build_id="abc", epoch=1)
    return path


def test_a_look_writes_nothing_and_says_what_is_in_it(device: Path) -> None:
    """Version, build, size, and whether it is older."""
    found = perform.check(bundle_of(device))
    assert (found.manifest.version, found.manifest.build_id, found.older) == (VERSION, "abc", False)
    assert found.manifest.size_bytes == sum(len(name) * 1000 for name in ("system", "kernel", "early"))
    assert perform.check(bundle_of(device, version="0.0.0")).older
    assert (device / "disk3").read_bytes() == bytes(1 << 20)
    assert told(device / "data") is None


@pytest.mark.parametrize("case", ["damaged", "foreign", "older", "another"])
def test_what_is_refused_leaves_the_other_slot_alone(device: Path, case: str) -> None:
    """Nothing is written, and no story is told of it."""
    path = bundle_of(
        device, board="rpi-arm64" if case == "foreign" else BOARD, version="0.0.0" if case == "older" else VERSION
    )
    if case == "damaged":
        octets = bytearray(path.read_bytes())
        octets[octets.find(b"systemsystem")] ^= 1
        path.write_bytes(octets)
    with pytest.raises(BundleRefused):
        perform.install(path, build_id="another" if case == "another" else "")
    assert (device / "disk3").read_bytes() == bytes(1 << 20)
    assert told(device / "data") is None


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "nothing"])
def test_root_reads_nothing_but_a_file_in_the_place(device: Path, kind: str) -> None:
    """A link's goal is not read, and a pipe is not waited for."""
    good = bundle_of(device)
    path = device / "place"
    match kind:
        case "link":
            path.symlink_to(good)
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with pytest.raises(BundleRefused):
        verify(path, sorted((device / "keys").glob("*.pem")), BOARD)


def test_every_phase_is_reported_to_its_end(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying, writing, reading back; each ends at its whole."""
    said: list[tuple[str, int, int]] = []
    monkeypatch.setattr(writing, "boot_partition", _Boot)
    monkeypatch.setattr(writing, "arm", lambda here: None)
    _Boot.place = device / "boot"
    _Boot.place.mkdir()
    story = perform.install(bundle_of(device), report=lambda *told: said.append(told))
    assert (story.state, story.slot) == ("trial", "b")
    ends = [(phase, done) for phase, done, total in said if done == total]
    assert [phase for phase, _ in ends][:2] == ["verifying", "writing"]
    assert ends[-1][0] in ("proving", "writing")
    assert "proving" in {phase for phase, _ in ends}
    assert (device / "disk3").read_bytes().startswith(b"systemsystem")
    assert (_Boot.place / "b" / "vmlinuz").exists()


@pytest.mark.parametrize(("state", "taken"), [("", False), ("trial", False), ("committed", True), ("verified", True)])
def test_a_version_on_trial_takes_no_upgrade_until_it_has_proved_itself(
    device: Path, monkeypatch: pytest.MonkeyPatch, state: str, taken: bool
) -> None:
    """Once it has, the next upgrade needs no restart in between."""
    monkeypatch.setattr(writing, "boot_partition", _Boot)
    monkeypatch.setattr(writing, "arm", lambda here: None)
    _Boot.place = device / "boot"
    _Boot.place.mkdir()
    on_trial = dataclasses.replace(slots.here(), trial=True)
    monkeypatch.setattr(slots, "here", lambda: on_trial)
    if state:
        tell(device / "data", Story(state, VERSION, "abc", "a"))
    if taken:
        assert perform.install(bundle_of(device)).slot == "b"
    else:
        with pytest.raises(BundleRefused, match="on trial itself"):
            perform.install(bundle_of(device))


class _Boot:
    """The boot partition, as a directory."""

    place = Path()

    def __init__(self, here: slots.Slots) -> None:
        pass

    def __enter__(self) -> Path:
        return self.place

    def __exit__(self, *args: object) -> None:
        pass


def test_progress_is_read_back_and_forgotten(tmp_path: Path) -> None:
    """A file that is damaged, or was replaced by a link, tells nothing and is not written through."""
    assert progress.told(tmp_path) is None
    report = progress.reporter(tmp_path)
    report("writing", 1, 10)
    report("writing", 2, 10)  # too soon after the one before
    assert progress.told(tmp_path) == progress.Progress("writing", 1, 10)
    report("writing", 10, 10)
    assert progress.told(tmp_path) == progress.Progress("writing", 10, 10)
    assert (tmp_path / progress.NAME).stat().st_mode & 0o777 == 0o644
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / progress.NAME).unlink()
    (tmp_path / progress.NAME).symlink_to(elsewhere)
    report("proving", 10, 10)
    assert elsewhere.read_text() == "mine"
    (tmp_path / progress.NAME).write_text(json.dumps({"phase": 1}))
    assert progress.told(tmp_path) is None
    progress.forget(tmp_path)
    progress.forget(tmp_path)
    assert not (tmp_path / progress.NAME).exists()
