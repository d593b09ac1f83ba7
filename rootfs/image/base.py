"""The distribution's part of an image: bootstrapped once, kept in the cache by what it was made of.

Packages come from wherever the host's apt gets them. The kernel is unpacked on the host, never configured in the new
root: its scripts would make an initramfs by running one emulated process for each module.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

RECIPE: Final = Path(__file__).parent
SUITE: Final = "bookworm"
# Whatever makes the same list of packages into another base must change this.
_MADE_SO: Final = "1"
_DEBIAN_ARCH: Final = {"x86_64": "amd64"}
_KERNEL: Final = {"x86_64": "linux-image-amd64"}


class BaseError(Exception):
    """The base cannot be made here; the message says what is missing."""


def packages() -> list[str]:
    """The packages of every image."""
    lines = (RECIPE / "packages.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def base(board: str, cache: Path) -> Path:
    """A directory in the cache with `root.tar` and `kernel.deb` for a board; made when it is not there."""
    arch = _DEBIAN_ARCH[board]
    key = hashlib.sha256("\n".join([_MADE_SO, SUITE, arch, *packages()]).encode()).hexdigest()[:12]
    made = cache / f"base-{SUITE}-{arch}-{key}"
    if (made / "root.tar").exists():
        return made
    work = Path(tempfile.mkdtemp(prefix="base-", dir=cache))
    try:
        _bootstrap(board, arch, work)
        work.rename(made)
    finally:
        if work.exists():
            shutil.rmtree(work)
    made.chmod(0o755)
    return made


def _bootstrap(board: str, arch: str, work: Path) -> None:
    # The kernel's package is fetched with the new system's own lists: the same archive, the same architecture.
    fetch = (
        f'cd "{work}" && name=$(APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-cache depends --important {_KERNEL[board]} '
        "| sed -n 's/^ *Depends: *//p' | head -1) && "
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download -q "$name"'
    )
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--architectures={arch}",
        "--aptopt=Apt::Install-Recommends false",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        f"--include={','.join(packages())}",
        f"--customize-hook={fetch}",
        SUITE,
        str(work / "root.tar"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        raise BaseError(f"mmdebstrap failed:\n{done.stderr[-3000:]}")
    kernels = sorted(work.glob("linux-image-*.deb"))
    if len(kernels) != 1:
        raise BaseError(f"no kernel package was fetched for {board}:\n{done.stderr[-3000:]}")
    kernels[0].rename(work / "kernel.deb")
