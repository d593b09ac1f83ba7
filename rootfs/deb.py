"""The Debian packages: one for every architecture, because nothing in it is compiled, and the helper that is.

`dpkg-deb` writes the archive; what is in it, with which mode and time, is decided here, so that two builds of one
source are the same octets.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from gateway.config_example import example
from rootfs.manual import pages
from rootfs.payload import DOCUMENTS, HOME, PROJECT, carried, licences, program, version
from rootfs.tree import PROGRAM, Tree
from rootfs.vendor import Library

RECIPE: Final = Path(__file__).with_name("debian")
SCRIPTS: Final = ("postinst", "prerm", "postrm")
# Stopped in this order, started in this order.
UNITS: Final = (
    "postern-system.service",
    "posternd.service",
    "postern-portal.service",
    "postern-admin-web.service",
    "postern-worker.service",
)
# posternd(8) is about these as well.
LINKED: Final = ("postern-web", "postern-worker", "postern-system")


def contents(libraries: list[Library], build_id: str, epoch: int) -> Tree:
    """Every file of the package."""
    tree = program(build_id)
    tree.merge(carried(libraries))
    for unit in UNITS:
        tree.add(f"usr/lib/systemd/system/{unit}", (RECIPE / unit).read_bytes())
    order = (RECIPE / "posternd-order.conf").read_bytes()
    tree.add("usr/lib/systemd/system/posternd.service.d/order.conf", order)
    tree.add("usr/lib/sysusers.d/postern.conf", (RECIPE / "sysusers.conf").read_bytes())
    tree.add("usr/lib/tmpfiles.d/postern.conf", (RECIPE / "tmpfiles.conf").read_bytes())
    tree.add("usr/lib/sysctl.d/60-postern.conf", (RECIPE / "sysctl.conf").read_bytes())
    tree.add("etc/config/postern", (RECIPE / "postern.conf").read_bytes(), 0o640)
    tree.add(
        "usr/share/bash-completion/completions/postern", (PROJECT / "gateway" / "cli" / "postern.bash").read_bytes()
    )
    for name, text in pages(epoch).items():
        tree.add(f"usr/share/man/man{name[-1]}/{name}.gz", _packed(text.encode()))
    for name in LINKED:
        tree.link(f"usr/share/man/man8/{name}.8.gz", "posternd.8.gz")
    tree.add(f"{DOCUMENTS}/copyright", licences(libraries))
    tree.add(f"{DOCUMENTS}/changelog.gz", _packed((PROJECT / "CHANGELOG.md").read_bytes()))
    tree.add(f"{DOCUMENTS}/README.md.gz", _packed((PROJECT / "README.md").read_bytes()))
    tree.add(f"{DOCUMENTS}/postern.conf.example", example())
    return tree


def build(tree: Tree, destination: Path, epoch: int) -> Path:
    """Write the package into `destination`; returns its path. Raises CalledProcessError with what dpkg-deb said."""
    return _archive(tree, _control(tree), destination / f"postern_{version()}_all.deb", epoch)


def build_native(module: Path, architecture: str, destination: Path, epoch: int) -> Path:
    """Write the package of the analysis' helper, compiled as `module` for this Python; returns its path."""
    tree = Tree()
    tree.add(f"{HOME}/gateway/analysis/{module.name}", module.read_bytes())
    tree.add("usr/share/doc/postern-native/copyright", (PROJECT / "LICENSE").read_bytes())
    major, minor = sys.version_info[:2]
    values = {"ARCHITECTURE": architecture, "PYTHON": f"{major}.{minor}", "NEXT_PYTHON": f"{major}.{minor + 1}"}
    control = Tree()
    control.add("DEBIAN/control", _fields("control-native", tree, values))
    control.add("DEBIAN/md5sums", _sums(tree))
    return _archive(tree, control, destination / f"postern-native_{version()}_{architecture}.deb", epoch)


def _archive(tree: Tree, control: Tree, path: Path, epoch: int) -> Path:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        root = Path(name) / "postern"
        root.mkdir()
        root.chmod(0o755)
        tree.write(root, epoch)
        control.write(root, epoch)
        os.utime(root, (epoch, epoch))
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
    return path


def _control(tree: Tree) -> Tree:
    control = Tree()
    control.add("DEBIAN/control", _fields("control", tree, {}))
    control.add("DEBIAN/conffiles", "/etc/config/postern\n")
    control.add("DEBIAN/md5sums", _sums(tree))
    for script in SCRIPTS:
        text = (RECIPE / script).read_text(encoding="utf-8")
        control.add(f"DEBIAN/{script}", text.replace("@UNITS@", " ".join(UNITS)), PROGRAM)
    return control


def _fields(name: str, tree: Tree, values: dict[str, str]) -> str:
    """A control file with its blanks filled in."""
    size_kib = sum(-(-len(entry.data) // 1024) for _, entry in tree)
    text = (RECIPE / name).read_text(encoding="utf-8")
    for word, value in {"VERSION": version(), "SIZE": str(size_kib), **values}.items():
        text = text.replace(f"@{word}@", value)
    return text


def _sums(tree: Tree) -> str:
    """Not for keeping secrets, so MD5 is enough: dpkg --verify compares with it what is on the disk."""
    return "".join(
        f"{hashlib.md5(entry.data, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, entry in tree
        if not entry.link_to and not path.startswith("etc/")
    )


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)
