"""The upgrade bundle: a tar of `manifest.json`, its Ed25519 signature, and the files that the manifest binds by hash.

Only the manifest is signed (RFC 8032, over its exact octets); everything else is bound by SHA-256. `verify` reads the
whole bundle and writes nothing; nothing of a bundle is used before it returned. Any of several public keys will do, so
that keys can be changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from gateway.upgrade.progress import Report, silent
from gateway.values import value_class

FORMAT: Final = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
PARTS: Final = ("vmlinuz", "initrd", "system.squashfs")
_MAX_MANIFEST_BYTES: Final = 65536
_SIGNATURE_BYTES: Final = 64
_BLOCK: Final = 1 << 20


class BundleRefused(Exception):
    """The bundle is not one for this device; the message says why and what to do."""


@value_class
class Part:
    """One file of the bundle."""

    name: str
    size_bytes: int
    sha256: str


@value_class
class Manifest:
    """What a bundle says of itself, once its signature is known to be good."""

    board: str
    version: str
    build_id: str
    built_unix: int
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.size_bytes for part in self.parts)

    def part(self, name: str) -> Part:
        """The part of this name."""
        return next(part for part in self.parts if part.name == name)


def verify(path: Path, keys: Sequence[Path], board: str, report: Report = silent) -> Manifest:
    """Check signature, board and every hash; raises BundleRefused. Reads the bundle once and writes nothing."""
    try:
        with _opened(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            members = iter(archive)
            raw = _small(archive, next(members, None), MANIFEST, _MAX_MANIFEST_BYTES)
            signature = _small(archive, next(members, None), SIGNATURE, _SIGNATURE_BYTES)
            _check_signature(raw, signature, keys)
            manifest = parse(raw)
            if manifest.board != board:
                raise BundleRefused(
                    f"this bundle is for {manifest.board}, and this device is {board}: take the other one"
                )
            done_bytes = 0
            for part in manifest.parts:
                member = next(members, None)
                if member is None or member.name != part.name or not member.isreg() or member.size != part.size_bytes:
                    raise BundleRefused(f"the bundle is cut off or damaged before {part.name}: download it again")
                content = archive.extractfile(member)
                digest = hashlib.sha256()
                while content is not None and (block := content.read(_BLOCK)):
                    digest.update(block)
                    done_bytes += len(block)
                    report("verifying", done_bytes, manifest.size_bytes)
                if digest.hexdigest() != part.sha256:
                    raise BundleRefused(f"{part.name} in the bundle is damaged: download it again")
            return manifest
    except (tarfile.TarError, EOFError) as error:
        raise BundleRefused(f"this is not an upgrade bundle, or it is cut off: {error}") from error
    except FileNotFoundError:
        raise BundleRefused(f"{path}: there is no bundle; hand one over first") from None
    except OSError as error:
        raise BundleRefused(f"{path}: cannot be read: {error.strerror or error}") from error


def _opened(path: Path) -> IO[bytes]:
    """The file itself: whoever may fill its place must not have root read a link's goal, or wait at a pipe."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleRefused(f"{path}: is not a file")
    return file


def copy_part(path: Path, part: Part, goal: IO[bytes], report: Report = silent) -> None:
    """Copy one part of a verified bundle; raises BundleRefused when it is no longer what was verified."""
    digest = hashlib.sha256()
    done_bytes = 0
    with _opened(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            if member.name != part.name:
                continue
            content = archive.extractfile(member)
            while content is not None and (block := content.read(_BLOCK)):
                digest.update(block)
                goal.write(block)
                done_bytes += len(block)
                report("writing", done_bytes, part.size_bytes)
            break
    if digest.hexdigest() != part.sha256:
        raise BundleRefused(f"{part.name} changed while it was being copied: nothing was switched over")


def parse(raw: bytes) -> Manifest:
    """The manifest's values; raises BundleRefused for what this version does not understand."""
    try:
        told = json.loads(raw)
        if told["format"] != FORMAT:
            raise BundleRefused(f"this bundle has format {told['format']}, and this version reads {FORMAT}")
        parts = tuple(Part(item["name"], int(item["size_bytes"]), item["sha256"]) for item in told["parts"])
        manifest = Manifest(told["board"], told["version"], told["build_id"], int(told["built_unix"]), parts)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleRefused(f"the bundle's manifest cannot be read: {error}") from error
    if tuple(part.name for part in parts) != PARTS:
        raise BundleRefused(f"the bundle has other parts than {', '.join(PARTS)}")
    if not all(re.fullmatch("[0-9a-f]{64}", part.sha256) for part in parts):
        raise BundleRefused("the bundle's manifest has a hash that is none")
    return manifest


def newer(ours: str, theirs: str) -> bool:
    """Whether `theirs` is not older than `ours`, by the numbers in both."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in re.findall(r"\d+", text))

    return numbers(theirs) >= numbers(ours)


def _small(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, limit: int) -> bytes:
    if member is None or member.name != name or not member.isreg() or member.size > limit:
        raise BundleRefused(f"this is not an upgrade bundle: {name} is not where it belongs")
    content = archive.extractfile(member)
    return content.read(limit) if content is not None else b""


def _check_signature(raw: bytes, signature: bytes, keys: Sequence[Path]) -> None:
    """By the openssl program: Python has no Ed25519, and a signature is no place for code of our own."""
    with tempfile.TemporaryDirectory() as name:
        data, seal = Path(name) / "data", Path(name) / "seal"
        data.write_bytes(raw)
        seal.write_bytes(signature)
        for key in keys:
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin"]
            done = subprocess.run([*command, "-in", str(data), "-sigfile", str(seal)], capture_output=True, check=False)
            if done.returncode == 0:
                return
    raise BundleRefused(
        "the bundle's signature is not by a key that this device trusts: take it from where you took the image"
        if keys
        else "this device trusts no key for upgrades: write the new image to the disk instead"
    )
