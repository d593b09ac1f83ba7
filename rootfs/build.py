"""`./build.sh sdist|deb|openwrt|image`: makes what people install, into dist/.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a tool is missing (its package is named).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from openwrt import ipk, uvloop
from openwrt.feed_index import write_index
from openwrt.packages import ARCHITECTURES, packages
from rootfs import deb, native
from rootfs.dist import CACHE, DIST, TooLarge, bill_of_materials, common_modes, record
from rootfs.image.base import BaseError, NoEmulation, foreign
from rootfs.image.make import BOARDS, make
from rootfs.payload import PROJECT, version
from rootfs.sdist import write_sdist
from rootfs.vendor import Library, VendorError, libraries

MIB: Final = 1 << 20
IPK_LIMITS: Final = {
    "postern": 340_000,
    "postern-admin": 125_000,
    "postern-analysis": 190_000,
    "postern-vendor": 500_000,
    "postern-uvloop": 700_000,
    "luci-app-postern": 100_000,
}
IMAGE_LIMITS: Final = {"x86_64": 130_000_000, "rpi-arm64": 150_000_000}
IMAGE_TOOLS: Final = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "grub-mkimage": "grub-common",
    "zstd": "zstd",
    "cpio": "cpio",
    "depmod": "kmod",
    "readelf": "binutils",
    "openssl": "openssl",
}
EMULATION_TOOLS: Final = {
    "qemu-aarch64-static": "qemu-user-static",
    "arch-test": "arch-test",
    "aarch64-linux-gnu-strip": "binutils-aarch64-linux-gnu",
}
# Debian's name -> the kernel's
DEB_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}


# Task -> what it can be made for; a task without any takes no second word.
TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "sdist": (),
    "deb": tuple(DEB_ARCHITECTURES),
    "openwrt": ARCHITECTURES,
    "image": tuple(BOARDS),
}


class MissingTool(Exception):
    """A program that the build needs is not here."""


def main(arguments: Sequence[str]) -> int:
    """Make one target; returns the exit code. After the word --known it only looks at the words."""
    words = arguments[1:] if arguments[:1] == ["--known"] else arguments
    if problem := usage_problem(words):
        print(problem, file=sys.stderr)
        return 2
    if words is not arguments:
        return 0
    with common_modes():
        return _make(arguments)


def usage_problem(words: Sequence[str]) -> str:
    """What is wrong with a target and how it is said right; empty for one that can be made."""
    task = words[0] if words else ""
    if task not in TARGETS:
        return f"usage: ./build.sh {'|'.join(TARGETS)} [FOR]"
    known = TARGETS[task]
    if list(words[1:]) in ([[name] for name in known] if known else [[]]):
        return ""
    return f"usage: ./build.sh {task}" + (f" {'|'.join(known)}" if known else "")


def _make(arguments: Sequence[str]) -> int:
    DIST.mkdir(exist_ok=True)
    try:
        match list(arguments):
            case ["sdist"]:
                make_sdist(DIST)
            case ["deb", arch]:
                make_deb(arch, DIST)
            case ["openwrt", arch]:
                make_openwrt(arch, DIST)
            case ["image", board]:
                make_image(board, DIST)
    except (MissingTool, NoEmulation) as error:
        print(error, file=sys.stderr)
        return 3
    except (VendorError, TooLarge, BaseError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed with {error.returncode}: {(error.stderr or b'')!r}", file=sys.stderr)
        return 1
    return 0


def source_epoch() -> int:
    """The time that artefacts carry: SOURCE_DATE_EPOCH, else that of the last commit, else of the change log."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(_git("log", "-1", "--format=%ct") or (PROJECT / "CHANGELOG.md").stat().st_mtime)


def build_id() -> str:
    """Which source this was made of: the commit, marked when files differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return f"{version()}-source"
    return commit + ("-changed" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def need(program: str, package: str) -> None:
    """Raise MissingTool unless the program can be called."""
    if shutil.which(program) is None:
        raise MissingTool(f"{program} is missing: apt-get install {package}")


def report(path: Path, limit_bytes: int) -> None:
    """List an artefact and say what it is."""
    artefact = record(path, limit_bytes)
    print(
        f"{path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path}  {artefact.size_bytes / 1e6:.2f} MB "
        f"(limit {limit_bytes / 1e6:.2f})  sha256 {artefact.sha256}"
    )


def report_bill(found: list[Library], wanted: list[dict[str, str]], destination: Path, epoch: int) -> None:
    """Write the bill of materials and list it."""
    bill = destination / "postern.spdx.json"
    bill.write_text(bill_of_materials(found, wanted, epoch), encoding="utf-8")
    report(bill, MIB)


def make_sdist(destination: Path) -> None:
    """The source archive, and from it the wheel."""
    epoch = source_epoch()
    source = write_sdist(destination, epoch)
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", name, str(source)],
            check=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
        [made] = Path(name).glob("*.whl")
        wheel = destination / made.name
        shutil.move(made, wheel)
    report(source, 3 * MIB)
    report(wheel, 2 * MIB)


def make_deb(arch: str, destination: Path) -> None:
    """The Debian package, its bill of materials and, on a machine of that architecture, the analysis' helper."""
    need("dpkg-deb", "dpkg")
    found = libraries(CACHE)
    epoch = source_epoch()
    report(deb.build(deb.contents(found, build_id(), epoch), destination, epoch), 2 * MIB)
    report_bill(found, _depends(), destination, epoch)
    if not native.fits(DEB_ARCHITECTURES[arch]):
        print(f"postern-native is compiled where it runs: not made for {arch} here (analysis works without, slower)")
        return
    need("gcc", "gcc")
    with tempfile.TemporaryDirectory() as name:
        report(deb.build_native(native.build(Path(name)), arch, destination, epoch), MIB)


def make_openwrt(arch: str, destination: Path) -> None:
    """A feed for one architecture: our packages and their index."""
    feed = destination / "openwrt" / arch
    feed.mkdir(parents=True, exist_ok=True)
    epoch = source_epoch()
    if processor := uvloop.processor(arch):
        need(processor.strip, processor.package)
        need("readelf", "binutils")
    need("zopfli", "zopfli")
    own = uvloop.package(arch, CACHE)
    made, found = [], libraries(CACHE)
    every = [*packages(found, build_id()), *([own] if own else [])]
    for package in every:
        path = ipk.write(package, feed, epoch)
        if broken := ipk.problems(path):
            raise VendorError(f"{path.name}: {'; '.join(broken)}")
        report(path, IPK_LIMITS[package.name])
        made.append(path)
    for path in write_index(made, feed):
        report(path, MIB)
    ours = {package.name for package in every}
    wanted = sorted({name for package in every for name in package.depends} - ours)
    report_bill(found, [{"name": name, "version": "any", "licence": "NOASSERTION"} for name in wanted], feed, epoch)


def make_image(board: str, destination: Path) -> None:
    """The image of a board and its upgrade bundle."""
    if os.geteuid() != 0:
        raise MissingTool("an image holds files of several users: sudo ./build.sh image " + board)
    for program, package in {**IMAGE_TOOLS, **(EMULATION_TOOLS if foreign(board) else {})}.items():
        need(program, package)
    image, bundle = make(board, destination, CACHE, build_id(), source_epoch())
    report(image, IMAGE_LIMITS[board])
    report(bundle, IMAGE_LIMITS[board])


def _depends() -> list[dict[str, str]]:
    """What the package wants from the distribution, as its control file says."""
    text = (deb.RECIPE / "control").read_text(encoding="utf-8")
    [line] = re.findall(r"^Depends: (.*)$", text, re.MULTILINE)
    found = (re.fullmatch(r"([\w.+-]+)(?: \((.*)\))?", item.strip()) for item in line.split(","))
    return [{"name": item[1], "version": item[2] or "any", "licence": "NOASSERTION"} for item in found if item]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
