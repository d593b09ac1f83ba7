"""The distribution's part of an image: bootstrapped once, kept in the cache by what it was made of.

Packages come from wherever the host's apt gets them. The kernel is unpacked on the host, never configured in the new
root: its scripts would make an initramfs by running one emulated process for each module.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

RECIPE: Final = Path(__file__).parent
SUITE: Final = "bookworm"
# Whatever makes the same list of packages into another base must change this.
_MADE_SO: Final = "1"
_COMPONENTS: Final = {"x86_64": "main", "rpi-arm64": "main,non-free-firmware"}
_DEBIAN_ARCH: Final = {"x86_64": "amd64", "rpi-arm64": "arm64"}
_MACHINE: Final = {"x86_64": "x86_64", "rpi-arm64": "aarch64"}
_KERNEL: Final = {"x86_64": "linux-image-amd64", "rpi-arm64": "linux-image-arm64"}
# Packages of the board that are only taken apart: none of them is installed into the new root.
_TAKEN_APART: Final[dict[str, tuple[str, ...]]] = {
    "x86_64": (),
    "rpi-arm64": ("raspi-firmware", "firmware-brcm80211", "u-boot-rpi", "grub-efi-arm64-bin"),
}
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")


class BaseError(Exception):
    """The base cannot be made here; the message says what is missing."""


class NoEmulation(Exception):
    """This machine does not run the board's programs, which its bootstrap needs; the message says how to mend it."""


def recipe(name: str, board: str) -> list[str]:
    """The lines of a list of the recipe that are for a board: `WORD` is for all, `WORD [BOARD]` for one."""
    found = []
    for line in (RECIPE / name).read_text(encoding="utf-8").splitlines():
        word, _, limit = line.partition(" [")
        if word and not line.startswith("#") and limit in ("", f"{board}]"):
            found.append(word)
    return found


def foreign(board: str) -> bool:
    """Whether the programs of a board are not this machine's own: its bootstrap runs them in emulation."""
    return _MACHINE[board] != platform.machine()


def binutils(board: str, program: str) -> str:
    """What a program of binutils is called that knows the board's machine code."""
    return f"{_MACHINE[board]}-linux-gnu-{program}"


def base(board: str, cache: Path) -> Path:
    """A directory in the cache with `root.tar`, `kernel.deb` and what else is taken apart; made where it is not yet."""
    arch = _DEBIAN_ARCH[board]
    made_of = [_MADE_SO, SUITE, arch, *recipe("packages.txt", board), *_TAKEN_APART[board]]
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
    made = cache / f"base-{SUITE}-{arch}-{key}"
    if (made / "root.tar").exists():
        return made
    _enable_emulation(board)
    work = Path(tempfile.mkdtemp(prefix="base-", dir=cache))
    try:
        _bootstrap(board, arch, work)
        work.rename(made)
    finally:
        if work.exists():
            shutil.rmtree(work)
    made.chmod(0o755)
    return made


def _enable_emulation(board: str) -> None:
    """Let the kernel run the board's programs by QEMU's user emulation; raises NoEmulation."""
    if not foreign(board):
        return
    handler = _BINFMT / f"qemu-{_MACHINE[board]}"
    # In a container or a small virtual machine nobody may have mounted it, or told it of QEMU.
    for command in (
        ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)],
        ["update-binfmts", "--enable", handler.name],
    ):
        if not handler.exists():
            subprocess.run(command, check=False, capture_output=True)
    if not handler.exists():
        raise NoEmulation(
            f"this kernel does not run {_MACHINE[board]} programs: {handler} is missing; "
            "apt-get install qemu-user-static binfmt-support, on a kernel with binfmt_misc"
        )


def _bootstrap(board: str, arch: str, work: Path) -> None:
    # The kernel's package is fetched with the new system's own lists: the same archive, the same architecture.
    fetch = (
        f'cd "{work}" && name=$(APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-cache depends --important {_KERNEL[board]} '
        "| sed -n 's/^ *Depends: *//p' | head -1) && "
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download -q "$name" {" ".join(_TAKEN_APART[board])}'
    )
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--architectures={arch}",
        f"--components={_COMPONENTS[board]}",
        "--aptopt=Apt::Install-Recommends false",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        f"--include={','.join(recipe('packages.txt', board))}",
        f"--customize-hook={fetch}",
        SUITE,
        str(work / "root.tar"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        raise BaseError(f"mmdebstrap failed:\n{done.stderr[-3000:]}")
    wanted = {"kernel": "linux-image-", **{name: f"{name}_" for name in _TAKEN_APART[board]}}
    for name, start in wanted.items():
        found = sorted(work.glob(f"{start}*.deb"))
        if len(found) != 1:
            raise BaseError(f"no package {start}… was fetched for {board}:\n{done.stderr[-3000:]}")
        found[0].rename(work / f"{name}.deb")
