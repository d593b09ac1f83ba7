"""An image of this source, built once for all of its tests, and upgrades made of it."""

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

    def bundle(self, name: str, *, without: str = "") -> Path:
        """An upgrade to another build of this name, less one link of the root."""
        path = self.directory / f"{name}.upgrade"
        link = self.root / without
        kept = link.readlink() if without else None
        if kept is not None:
            link.unlink()
        try:
            with common_modes():
                (self.root / "usr/lib/postern/gateway/build_id").write_text(f"{name}\n", encoding="ascii")
                packed = self.pack(name)
        finally:
            if kept is not None:
                link.symlink_to(kept)
        key = signing_key(CACHE)
        write_bundle(packed, path, key, board=BOARD, version=version(), build_id=name, epoch=source_epoch())
        shutil.rmtree(packed.system.parent)
        return path


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
