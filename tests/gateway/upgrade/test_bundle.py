"""A bundle is taken whole and signed, or not at all."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.upgrade.bundle import BundleRefused, copy_part, newer, verify
from rootfs.image.assemble import Slot
from rootfs.image.make import public_key, write_bundle

BOARD = "x86_64"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signing key, and the public half as a device has it."""
    directory = tmp_path_factory.mktemp("keys")
    return new_key(directory / "own.pem")


def new_key(private: Path) -> tuple[Path, Path]:
    """Make a key pair."""
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(command, check=True, capture_output=True)
    public = private.with_suffix(".pub")
    public.write_bytes(public_key(private))
    return private, public


@pytest.fixture
def bundle(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A good bundle with three small parts."""
    parts = []
    for name in ("system", "kernel", "early"):
        path = tmp_path / name
        path.write_bytes(name.encode() * 1000)
        parts.append(path)
    path = tmp_path / "good.upgrade"
    write_bundle(Slot(*parts), path, keys[0], board=BOARD, version="1.2.3", build_id="abc", epoch=1)
    return path


def test_a_good_bundle_is_verified(bundle: Path, keys: tuple[Path, Path]) -> None:
    """And tells what is in it; its parts come out as they went in."""
    manifest = verify(bundle, [keys[1]], BOARD)
    assert (manifest.version, manifest.build_id, manifest.board) == ("1.2.3", "abc", BOARD)
    goal = io.BytesIO()
    copy_part(bundle, manifest.part("system.squashfs"), goal)
    assert goal.getvalue() == b"system" * 1000


def test_every_flipped_bit_of_content_is_found(bundle: Path, keys: tuple[Path, Path]) -> None:
    """In the manifest, the signature or a part, wherever it is."""
    raw = bundle.read_bytes()
    with tarfile.open(bundle) as archive:
        spans = [(member.name, member.offset_data, member.size) for member in archive.getmembers()]
    for name, start, size in spans:
        for offset in {0, size // 2, size - 1}:
            damaged = bytearray(raw)
            damaged[start + offset] ^= 1
            bundle.write_bytes(damaged)
            with pytest.raises(BundleRefused):
                verify(bundle, [keys[1]], BOARD)
            assert name


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.97])
def test_a_bundle_that_is_cut_off_is_refused(bundle: Path, keys: tuple[Path, Path], share: float) -> None:
    """Wherever it ends."""
    raw = bundle.read_bytes()
    with tarfile.open(bundle) as archive:
        last = archive.getmembers()[-1]
    bundle.write_bytes(raw[: int((last.offset_data + last.size) * share)])
    with pytest.raises(BundleRefused):
        verify(bundle, [keys[1]], BOARD)


def test_another_key_is_refused_and_one_of_several_is_enough(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """Keys can be changed: a device may trust an old and a new one."""
    _, foreign = new_key(tmp_path / "foreign.pem")
    with pytest.raises(BundleRefused, match="not by a key that this device trusts"):
        verify(bundle, [foreign], BOARD)
    with pytest.raises(BundleRefused, match="trusts no key"):
        verify(bundle, [], BOARD)
    assert verify(bundle, [foreign, keys[1]], BOARD).version == "1.2.3"


def test_another_board_is_refused(bundle: Path, keys: tuple[Path, Path]) -> None:
    """The message names both."""
    with pytest.raises(BundleRefused, match="for x86_64, and this device is rpi-arm64"):
        verify(bundle, [keys[1]], "rpi-arm64")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"\x7fELF" + bytes(5000)),
        lambda path: path.write_bytes(b""),
        lambda path: tarfile.open(path, "w").close(),
    ],
)
def test_what_is_no_bundle_is_refused(make: Callable[[Path], object], tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """With a sentence, whatever it is."""
    path = tmp_path / "other"
    make(path)
    with pytest.raises(BundleRefused):
        verify(path, [keys[1]], BOARD)


def test_a_part_that_changes_after_it_was_verified_is_refused(bundle: Path, keys: tuple[Path, Path]) -> None:
    """Whoever can replace the file between the two looks gains nothing."""
    manifest = verify(bundle, [keys[1]], BOARD)
    damaged = bytearray(bundle.read_bytes())
    damaged[damaged.index(b"systemsystem") + 7] ^= 1
    bundle.write_bytes(damaged)
    with pytest.raises(BundleRefused, match="changed while"):
        copy_part(bundle, manifest.part("system.squashfs"), io.BytesIO())


def test_a_manifest_of_a_later_format_is_refused(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Signed and whole, but not for this version."""
    with tarfile.open(bundle) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        told = json.loads(content.read())
    told["format"] = 2
    raw, seal, later = tmp_path / "m", tmp_path / "s", tmp_path / "later"
    raw.write_bytes(json.dumps(told).encode())
    command = ["openssl", "pkeyutl", "-sign", "-inkey", str(keys[0]), "-rawin", "-in", str(raw), "-out", str(seal)]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(later, "w") as archive:
        archive.add(raw, "manifest.json")
        archive.add(seal, "manifest.sig")
    with pytest.raises(BundleRefused, match="format 2"):
        verify(later, [keys[1]], BOARD)


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [("0.1.0", "0.1.0", True), ("0.9.0", "0.10.0", True), ("1.0.0", "0.9.9", False), ("1.2", "1.2.1", True)],
)
def test_versions_are_compared_by_their_numbers(ours: str, theirs: str, answer: bool) -> None:
    """Not as text."""
    assert newer(ours, theirs) is answer
