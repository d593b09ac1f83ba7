"""`postern-uvloop`: the faster event loop, repacked from its wheel for routers whose processor has one.

A wheel's library carries symbols for debuggers, four fifths of it; the target's own `strip` takes them out. It goes to
the packages of one Python, 3.11: another one does not see it and takes asyncio's loop.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openwrt.ipk import Package
from rootfs.payload import PROJECT
from rootfs.tree import Tree
from rootfs.vendor import VendorError

LOCK: Final = Path(__file__).with_name("wheels.lock")
PYTHON: Final = "3.11"
HOME: Final = f"usr/lib/python{PYTHON}/site-packages"
STRIPPED_LIMIT_BYTES: Final = 2_000_000
_LINE: Final = re.compile(r"uvloop==(?P<version>[\w.]+) (?P<platform>\w+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")
# Everything else of the wheel is source in Cython and a test's base.
_MODULES: Final = ("__init__.py", "_noop.py", "_version.py", "includes/__init__.py")


@dataclass(frozen=True, slots=True)
class Processor:
    """What a family of processors is called by whom."""

    wheel: str  # in the wheel's platform
    strip: str  # the program
    package: str  # Debian's, which has that program
    machine: str  # in readelf's words


_X86_64: Final = Processor("x86_64", "x86_64-linux-gnu-strip", "binutils", "Advanced Micro Devices X86-64")
_AARCH64: Final = Processor("aarch64", "aarch64-linux-gnu-strip", "binutils-aarch64-linux-gnu", "AArch64")


def processor(architecture: str) -> Processor | None:
    """The processor of an OpenWrt architecture, or None when there is no wheel for it."""
    if architecture == "x86_64":
        return _X86_64
    return _AARCH64 if architecture.startswith("aarch64_") else None


def package(architecture: str, cache: Path) -> Package | None:
    """The package for an architecture, or None where there is no wheel; raises VendorError."""
    target = processor(architecture)
    if target is None:
        return None
    version, platform, sha256 = next(line for line in locked() if line[1].endswith(f"_{target.wheel}"))
    tree = Tree()
    with zipfile.ZipFile(_wheel(cache / "wheels", version, platform, sha256)) as wheel:
        for name in _MODULES:
            tree.add(f"{HOME}/uvloop/{name}", wheel.read(f"uvloop/{name}"))
        [library] = [name for name in wheel.namelist() if re.fullmatch(r"uvloop/loop\.cpython-311-.*\.so", name)]
        stripped = _strip(wheel.read(library), target)
        tree.add(
            "usr/share/licenses/postern-uvloop/LICENSE", wheel.read(f"uvloop-{version}.dist-info/licenses/LICENSE-MIT")
        )
    if broken := library_problems(stripped, target):
        raise VendorError(f"{library}: {'; '.join(broken)}")
    # Any Python of this version imports a bare name; the one in the wheel is that of another platform.
    tree.add(f"{HOME}/uvloop/loop.so", stripped)
    return Package(
        "postern-uvloop",
        f"{version}-r1",
        f"Faster event loop for Postern, for Python {PYTHON}.",
        tree,
        depends=("python3-light", "python3-asyncio", "python3-openssl", "postern"),
        architecture=architecture,
        licence="MIT OR Apache-2.0",
    )


def locked() -> Iterator[tuple[str, str, str]]:
    """Version, platform and hash of each wheel in the lock file; raises VendorError for a line that is none."""
    for number, line in enumerate(LOCK.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise VendorError(f"{LOCK}, line {number}: not uvloop==VERSION PLATFORM --hash=sha256:HEX: {line}")
        yield match["version"], match["platform"], match["sha256"]


def library_problems(data: bytes, target: Processor) -> list[str]:
    """What keeps a library from a router's loader, in sentences."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        done = subprocess.run(
            ["readelf", "--file-header", "--dynamic", "--wide", file.name],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
    found = []
    if f"Machine:                           {target.machine}\n" not in done.stdout:
        found.append(f"it is not for {target.machine}")
    needed = set(re.findall(r"\(NEEDED\) +Shared library: \[(.*)\]", done.stdout))
    # musl's loader takes every libc.* for itself.
    if others := needed - {f"libc.musl-{target.wheel}.so.1"}:
        found.append(f"it needs {', '.join(sorted(others))}")
    if len(data) > STRIPPED_LIMIT_BYTES:
        found.append(f"it has {len(data)} octets, more than {STRIPPED_LIMIT_BYTES}")
    return found


def _strip(data: bytes, target: Processor) -> bytes:
    if shutil.which(target.strip) is None:
        raise VendorError(f"{target.strip} is missing: apt-get install {target.package}")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "loop.so"
        path.write_bytes(data)
        subprocess.run([target.strip, "--strip-unneeded", str(path)], check=True, capture_output=True)
        return path.read_bytes()


def _wheel(wheels: Path, version: str, platform: str, sha256: str) -> Path:
    wheels.mkdir(parents=True, exist_ok=True)
    # pip takes a wheel for another platform only when every tag of it is spelled out.
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(wheels),
        "--implementation", "cp", "--python-version", PYTHON, "--abi", "cp311", "--abi", "abi3", "--abi", "none",
        "--platform", platform, f"uvloop=={version}",
    ]  # fmt: skip
    for attempt in (1, 2):
        for path in sorted(wheels.glob(f"uvloop-{version}-*{platform}.whl")):
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path
        if attempt == 1:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
            if done.returncode:
                raise VendorError(f"uvloop {version} for {platform}: {done.stderr.strip().splitlines()[-1:]}")
    raise VendorError(f"uvloop {version} for {platform} has another hash than {LOCK.name} says: look why first")
