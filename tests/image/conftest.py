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
from rootfs.dist import CACHE, common_modes
from rootfs.image.assemble import Slot, disk, slot
from rootfs.image.base import base
from rootfs.image.make import public_key, signing_key, write_bundle
from rootfs.image.stage import stage
from rootfs.payload import version
from rootfs.vendor import libraries

# `./build.sh boot BOARD --test` names another one.
BOARD = os.environ.get("POSTERN_BOARD", "x86_64")
# The lightest: the tests look at what is in it, and the size of the shipped image is the build's to check.
QUICK_LEVEL = "1"


@dataclass(frozen=True, slots=True)
class Built:
    """What one build gave."""

    directory: Path
    root: Path
    kernel_version: str
    disk: Path

    def pack(self, name: str) -> Slot:
        """The root as it is now, as the files of a slot."""
        shutil.copytree(self.directory / "kept-boot", self.root / "boot", dirs_exist_ok=True)
        work = self.directory / name
        work.mkdir()
        return slot(self.root, self.kernel_version, work, source_epoch())


@dataclass(frozen=True, slots=True)
class Bundles:
    """Upgrades to newer builds."""

    newer: Path  # works
    failing: Path  # its portal does not start
    panicking: Path  # has no init


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    """Build it; takes a minute."""
    CACHE.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="postern-built-"))
    os.environ["POSTERN_IMAGE_LEVEL"] = QUICK_LEVEL
    try:
        with common_modes():
            root = directory / "root"
            root.mkdir()
            key, epoch, found = public_key(signing_key(CACHE)), source_epoch(), base(BOARD, CACHE)
            kernel = stage(root, found, libraries(CACHE), build_id(), epoch, board=BOARD, key=key)
            shutil.copytree(root / "boot", directory / "kept-boot")
            made = Built(directory, root, kernel, directory / "disk.img")
            disk(BOARD, made.pack("first"), found, directory, epoch)
        yield made
    finally:
        del os.environ["POSTERN_IMAGE_LEVEL"]
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def bundles(built: Built) -> Bundles:
    """Make the upgrades, each with one change to the root before."""
    identity = built.root / "usr/lib/postern/gateway/build_id"
    portal = built.root / "etc/systemd/system/multi-user.target.wants/postern-portal.service"
    kept = portal.readlink()
    init = built.root / "usr/sbin/init"
    kept_init = init.readlink()

    def bundle(name: str) -> Path:
        path = built.directory / f"{name}.upgrade"
        with common_modes():
            identity.write_text(f"{name}\n", encoding="ascii")
            packed = built.pack(name)
        key = signing_key(CACHE)
        write_bundle(packed, path, key, board=BOARD, version=version(), build_id=name, epoch=source_epoch())
        return path

    newer = bundle("newer")
    portal.unlink()
    failing = bundle("failing")
    portal.symlink_to(kept)
    init.unlink()
    panicking = bundle("panicking")
    init.symlink_to(kept_init)
    return Bundles(newer, failing, panicking)


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
