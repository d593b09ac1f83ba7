"""An image and its upgrade bundle, from nothing but the cache and the source."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from gateway.upgrade.bundle import FORMAT, MANIFEST, PARTS, SIGNATURE
from rootfs.image.assemble import Slot, disk, slot
from rootfs.image.base import base
from rootfs.image.stage import stage
from rootfs.payload import version
from rootfs.vendor import libraries

BOARDS: Final = ("x86_64", "rpi-arm64")


def make(board: str, destination: Path, cache: Path, build_id: str, epoch: int) -> tuple[Path, Path]:
    """Build the image and the bundle of a board into `destination`; returns both paths."""
    made = base(board, cache)
    found = libraries(cache)
    key = signing_key(cache)
    # Resolved: a cache may be a link to another disk, and systemctl --root refuses a root behind one.
    work = Path(tempfile.mkdtemp(prefix="image-", dir=cache.resolve()))
    try:
        root = work / "root"
        root.mkdir()
        kernel = stage(root, made, found, build_id, epoch, board=board, key=public_key(key))
        packed = slot(root, kernel, work, epoch)
        shutil.rmtree(root)
        raw = disk(board, packed, made, work, epoch)
        image = destination / f"postern-{version()}-{board}.img.zst"
        subprocess.run(["zstd", "--quiet", "--force", "-T0", "-10", str(raw), "-o", str(image)], check=True)
        bundle = destination / f"postern-{version()}-{board}.upgrade"
        write_bundle(packed, bundle, key, board=board, version=version(), build_id=build_id, epoch=epoch)
    finally:
        # Nothing is ever mounted below it: every step works on plain files.
        shutil.rmtree(work)
    return image, bundle


def signing_key(cache: Path) -> Path:
    """The key that signs bundles: POSTERN_SIGNING_KEY, or one of this clone's own that no released device trusts."""
    if given := os.environ.get("POSTERN_SIGNING_KEY"):
        return Path(given)
    path = cache / "test-signing-key.pem"
    if not path.exists():
        part = path.with_suffix(".new")
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(part)], check=True, capture_output=True
        )
        part.rename(path)
    return path


def public_key(key: Path) -> bytes:
    """The public half, as images carry it."""
    command = ["openssl", "pkey", "-in", str(key), "-pubout"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def write_bundle(packed: Slot, path: Path, key: Path, *, board: str, version: str, build_id: str, epoch: int) -> None:
    """Write a signed bundle (`gateway.upgrade.bundle` reads it)."""
    files = dict(zip(PARTS, (packed.kernel, packed.initramfs, packed.system), strict=True))
    manifest = {
        "format": FORMAT,
        "board": board,
        "version": version,
        "build_id": build_id,
        "built_unix": epoch,
        "parts": [
            {"name": name, "size_bytes": file.stat().st_size, "sha256": _sha256(file)} for name, file in files.items()
        ],
    }
    raw = (json.dumps(manifest, indent=1) + "\n").encode()
    with tempfile.TemporaryDirectory() as name, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        told, seal = Path(name) / MANIFEST, Path(name) / SIGNATURE
        told.write_bytes(raw)
        command = ["openssl", "pkeyutl", "-sign", "-inkey", str(key), "-rawin", "-in", str(told), "-out", str(seal)]
        subprocess.run(command, check=True, capture_output=True)
        for member, content in ((MANIFEST, raw), (SIGNATURE, seal.read_bytes())):
            entry = _entry(member, len(content), epoch)
            archive.addfile(entry, io.BytesIO(content))
        for member, file in files.items():
            with file.open("rb") as stream:
                archive.addfile(_entry(member, file.stat().st_size, epoch), stream)


def _entry(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, epoch, 0o644
    return entry


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
