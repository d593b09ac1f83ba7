"""The libraries that packages carry: fetched by the lock file, checked, pruned to what is used.

The lock's hashes are those of wheels; a wheel that the registry changed is refused. Wheels are kept in the cache, so
that a second build needs no network.
"""

from __future__ import annotations

import email.parser
import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rootfs.tree import Tree

LOCK: Final = Path(__file__).with_name("vendor.lock")
_LINE: Final = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")
# What of a wheel we never import: documentation, tests and whole parts of the library.
_UNUSED: Final = {
    "pyrad": ("docs/", "example/", "tests/", "pyrad/tests/"),
    "prometheus_client": ("prometheus_client/bridge/", "prometheus_client/django/", "prometheus_client/twisted/"),
    "segno": ("segno/cli.py", "segno/__init__.pyi", "segno/helpers.pyi"),
    "pyroute2": tuple(
        f"pyroute2/{part}"
        for part in (
            "ndb/",
            "plan9/",
            "bsd/",
            "fixtures/",
            "dhcp/",
            "cli/",
            "nftables/",
            "ethtool/",
            "config/test",
            "remote/",
        )
    ),
}


# What a wheel's metadata does not say in SPDX's words, read from its licence text.
_LICENCES: Final = {"segno": "BSD-3-Clause"}


class VendorError(Exception):
    """A library cannot be had as the lock file wants it; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Library:
    """A library as it goes into packages."""

    name: str
    version: str
    sha256: str  # of the wheel
    licence: str  # as the wheel's metadata says, an SPDX expression where it has one
    licence_texts: tuple[tuple[str, bytes], ...]
    files: tuple[tuple[str, bytes], ...]  # path within the vendored tree -> content


def locked() -> list[tuple[str, str, str]]:
    """Name, version and hash of each library in the lock file; raises VendorError for a line that is not one."""
    found = []
    for number, line in enumerate(LOCK.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise VendorError(f"{LOCK}, line {number}: not NAME==VERSION --hash=sha256:HEX: {line}")
        found.append((match["name"], match["version"], match["sha256"]))
    return found


def libraries(cache: Path) -> list[Library]:
    """Every library of the lock file, from the cache or from the registry that pip knows; raises VendorError."""
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    return [_unpack(name, version, sha256, _wheel(wheels, name, version, sha256)) for name, version, sha256 in locked()]


def vendored(found: list[Library]) -> Tree:
    """The tree that goes to usr/lib/postern/vendor."""
    tree = Tree()
    for library in found:
        for path, data in library.files:
            tree.add(path, data)
    return tree


def _wheel(wheels: Path, name: str, version: str, sha256: str) -> Path:
    if path := _cached(wheels, sha256):
        return path
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
    ]
    done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VendorError(f"{name} {version} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    if path := _cached(wheels, sha256):
        return path
    raise VendorError(f"{name} {version} has another hash than {LOCK.name} says: look why before you change the lock")


def _cached(wheels: Path, sha256: str) -> Path | None:
    for path in sorted(wheels.glob("*.whl")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


def _unpack(name: str, version: str, sha256: str, wheel: Path) -> Library:
    unused = _UNUSED.get(name, ())
    files, texts, licence = [], [], ""
    with zipfile.ZipFile(wheel) as archive:
        for path in sorted(archive.namelist()):
            if path.endswith("/"):
                continue
            data = archive.read(path)
            if ".dist-info/" in path:
                if path.endswith("/METADATA"):
                    licence = _licence(data)
                elif re.search(r"(licen[cs]e|copying|notice)", path.rsplit(".dist-info/", 1)[1], re.IGNORECASE):
                    texts.append((path.rsplit("/", 1)[1], data))
            elif not path.startswith(unused) and ".data/" not in path:
                files.append((path, data))
    return Library(name, version, sha256, _LICENCES.get(name, licence), tuple(texts), tuple(files))


def _licence(metadata: bytes) -> str:
    fields = email.parser.BytesHeaderParser().parsebytes(metadata)
    return str(fields.get("License-Expression") or fields.get("License") or "NOASSERTION").splitlines()[0]
