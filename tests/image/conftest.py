"""An image of this source, built once for all of its tests, and bundles made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootfs.build import build_id, source_epoch
from rootfs.dist import CACHE
from rootfs.image.assemble import Slot, disk, slot
from rootfs.image.base import base
from rootfs.image.make import public_key, signing_key, write_bundle
from rootfs.image.stage import stage
from rootfs.payload import version
from rootfs.vendor import libraries

BOARD = "x86_64"
# The lightest: the tests look at what is in it, and the size of the shipped image is the build's to check.
QUICK_LEVEL = "1"


@dataclass(frozen=True, slots=True)
class Built:
    """What one build gave."""

    directory: Path
    root: Path
    kernel_version: str
    disk: Path
    bundle: Path  # of a newer build that works
    failing: Path  # of a newer build whose portal does not start
    panicking: Path  # of a newer build that has no init


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    """Build it; takes a minute or two."""
    CACHE.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="postern-built-"))
    os.environ["POSTERN_IMAGE_LEVEL"] = QUICK_LEVEL
    try:
        yield _build(directory)
    finally:
        del os.environ["POSTERN_IMAGE_LEVEL"]
        shutil.rmtree(directory)


def _build(directory: Path) -> Built:
    root = directory / "root"
    root.mkdir()
    key = signing_key(CACHE)
    epoch = source_epoch()
    made = base(BOARD, CACHE)
    kernel = stage(root, made, libraries(CACHE), build_id(), epoch, board=BOARD, key=public_key(key))
    boot = directory / "kept-boot"
    shutil.copytree(root / "boot", boot)

    def pack(name: str) -> Slot:
        shutil.copytree(boot, root / "boot", dirs_exist_ok=True)
        work = directory / name
        work.mkdir()
        return slot(root, kernel, work, epoch)

    def bundle(packed: Slot, name: str) -> Path:
        path = directory / f"{name}.upgrade"
        write_bundle(packed, path, key, board=BOARD, version=version(), build_id=name, epoch=epoch)
        for part in (packed.system, packed.kernel, packed.initramfs):
            part.unlink()
        return path

    first = pack("first")
    image = disk(first, directory, epoch)
    identity = root / "usr/lib/postern/gateway/build_id"
    identity.write_text("newer\n", encoding="ascii")
    newer = bundle(pack("newer"), "newer")
    unit = root / "etc/systemd/system/multi-user.target.wants/postern-portal.service"
    unit.unlink()
    identity.write_text("failing\n", encoding="ascii")
    failing = bundle(pack("failing"), "failing")
    (root / "usr/sbin/init").unlink()
    panicking = bundle(pack("panicking"), "panicking")
    return Built(directory, root, kernel, image, newer, failing, panicking)


def flipped(path: Path) -> Path:
    """A copy of a bundle with one bit of its system flipped."""
    other = path.with_name("flipped.upgrade")
    subprocess.run(["cp", "--reflink=auto", str(path), str(other)], check=True)
    with other.open("r+b") as file:
        file.seek(other.stat().st_size // 2)
        [octet] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([octet ^ 1]))
    return other
