"""The root file system of an image: the base, our package, the overlay, the kernel's modules, less what is not needed.

Nothing of it runs here: units are enabled with systemctl --root, users are made with systemd-sysusers --root, modules
are listed by depmod -b. So a foreign architecture costs no emulation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from rootfs import deb, native
from rootfs.image.base import binutils, foreign, recipe
from rootfs.payload import DOCUMENTS, HOME, PROJECT
from rootfs.tree import PROGRAM, Tree
from rootfs.vendor import Library

OVERLAY: Final = PROJECT / "rootfs" / "overlay"
ENABLED: Final = (
    *deb.UNITS,
    "postern-firstboot.service",
    "postern-console.service",
    "postern-settle.service",
    "postern-radio.service",
    "postern-ssh.service",
    "postern-trial.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "avahi-daemon.service",
)
MASKED: Final = (
    "hostapd.service",
    "dropbear.service",
    "systemd-networkd-wait-online.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-udev-settle.service",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    # Each costs a process or two before the gate opens, and none of them has anything to do on a device like this.
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-firstboot.service",
    "systemd-initctl.socket",
    "systemd-journald-audit.socket",
    "systemd-machine-id-commit.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-update-utmp-runlevel.service",
)
# Programs that systemd runs before it starts anything. There is no fstab here, no encrypted disk, no script of SysV.
_GENERATORS: Final = "usr/lib/systemd/system-generators"
_GENERATORS_KEPT: Final = ("systemd-getty-generator",)
RADIO_PACKAGES: Final = {"rpi-arm64": ("firmware-brcm80211", "raspi-firmware")}
# The chips of the Raspberry Pi 3, 3+, 4, 400: 43430, 43455, 43456. Calibrations of other makers' boards stay out.
RADIO_FILES: Final = r"(brcm|cy)fmac4(3430|3455|3456)-sdio(\.raspberrypi,[\w-]+)?\.(bin|clm_blob|txt)"
# Below the root: never needed by a device that is upgraded as a whole.
_PRUNED: Final = (
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
    "var/lib/dpkg/info",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion/completions",
    "usr/share/zoneinfo/right",
    "usr/share/zoneinfo/posix",
    "usr/share/bug",
    "usr/share/debconf",
    # perl came with the distribution's own tools, and nothing that runs on a device is written in it.
    "usr/share/perl5",
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl5",
    "usr/lib/aarch64-linux-gnu/perl-base",
    "usr/lib/aarch64-linux-gnu/perl",
    "usr/lib/aarch64-linux-gnu/perl5",
    "usr/bin/perl",
    "usr/bin/perl5.36.0",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/idlelib",
    # Looks for a reporter of crashes, which is not there, at each start of a Python program.
    "usr/lib/python3.11/sitecustomize.py",
    "etc/machine-id",
    "etc/ssh",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/dropbear",
)
_BACKUPS: Final = ("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-")


def stage(
    root: Path, made: Path, libraries: list[Library], build_id: str, epoch: int, *, board: str, key: bytes
) -> str:
    """Fill the empty directory `root` from a base; returns the kernel's version. Raises CalledProcessError.

    `key` is the public key whose bundles the device will take.
    """
    _run("tar", "--extract", "--file", str(made / "root.tar"), "--directory", str(root), "--exclude=./dev/*")
    package = deb.contents(libraries, build_id, epoch)
    kept = Tree(
        {path: entry for path, entry in package.files.items() if not path.startswith((DOCUMENTS, "usr/share/man"))}
    )
    del kept.files["etc/config/postern"]  # the overlay has the image's own
    kept.add(f"{DOCUMENTS}/copyright", package.files[f"{DOCUMENTS}/copyright"].data)
    if not foreign(board) and (root / "usr/bin" / f"python{sysconfig.get_python_version()}").exists():
        with tempfile.TemporaryDirectory() as name:
            module = native.build(Path(name))
            kept.add(f"{HOME}/gateway/analysis/{module.name}", module.read_bytes())
    bill = root / "usr/lib/postern/packages.txt"
    _prune(root)
    kept.write(root, epoch)
    _overlay(root)
    bill.write_text(_installed(root), encoding="utf-8")
    (root / "usr/lib/postern/board").write_text(f"{board}\n", encoding="ascii")
    (root / "usr/lib/postern/keys").mkdir()
    (root / "usr/lib/postern/keys/release.pem").write_bytes(key)
    version = _kernel(root, made / "kernel.deb", board)
    _radio_firmware(root, made, board)
    _run("systemd-sysusers", f"--root={root}")
    _run("systemctl", f"--root={root}", "--quiet", "enable", *ENABLED)
    _run("systemctl", f"--root={root}", "--quiet", "mask", *MASKED)
    _run("systemctl", f"--root={root}", "--quiet", "set-default", "multi-user.target")
    _settings(root)
    _bytecode(root)
    for path in root.rglob("*"):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    return version


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})


def _prune(root: Path) -> None:
    licences = root / "usr/share/licences"
    for text in sorted((root / "usr/share/doc").glob("*/copyright")):
        licences.mkdir(exist_ok=True)
        shutil.copy(text, licences / text.parent.name)
    for name in (*_PRUNED, *_BACKUPS):
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    for path in sorted((root / _GENERATORS).iterdir()):
        if path.name not in _GENERATORS_KEPT:
            path.unlink()
    (root / "var/log").mkdir(exist_ok=True)
    for cache in root.rglob("__pycache__"):
        shutil.rmtree(cache)


def _overlay(root: Path) -> None:
    """Everything below rootfs/overlay, verbatim, with modes that do not come from the checkout."""
    for path in sorted(OVERLAY.rglob("*")):
        goal = root / path.relative_to(OVERLAY)
        if path.is_dir():
            goal.mkdir(exist_ok=True)
            goal.chmod(0o755)
            continue
        data = path.read_bytes()
        goal.write_bytes(data)
        goal.chmod(PROGRAM if data.startswith(b"#!") else 0o644)


def _installed(root: Path) -> str:
    """Name, version and architecture of every package of the distribution, for the bill of materials."""
    text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status") == "install ok installed":
            found.append(f"{fields['Package']} {fields['Version']} {fields['Architecture']}\n")
    return "".join(sorted(found))


def _kernel(root: Path, package: Path, board: str) -> str:
    """Unpack the kernel's package, keep the modules that the recipe names and what those depend on."""
    # Not into the root itself: the package has a directory where the merged /usr has a link, and would replace it.
    unpacked = root.with_name("kernel")
    _run("dpkg-deb", "--extract", str(package), str(unpacked))
    [found] = (unpacked / "lib/modules").iterdir()
    version = found.name
    modules = root / "usr/lib/modules" / version
    modules.parent.mkdir(exist_ok=True)
    found.rename(modules)
    (root / "boot").mkdir(exist_ok=True)
    (unpacked / f"boot/vmlinuz-{version}").rename(root / f"boot/vmlinuz-{version}")
    shutil.rmtree(unpacked)
    _run("depmod", "-b", str(root), version)
    wanted = recipe("modules.txt", board)
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        name, _, others = line.partition(":")
        needs[name] = others.split()
    keep: set[str] = set()
    waiting = [name for name in needs if any(name.removeprefix("kernel/").startswith(start) for start in wanted)]
    while waiting:
        name = waiting.pop()
        if name not in keep:
            keep.add(name)
            waiting.extend(needs[name])
    for name in set(needs) - keep:
        (modules / name).unlink()
    # Neither their maker's seal, which this kernel asks of nobody, nor their types for tracing: to check the one and
    # read the other was most of what loading a module cost.
    strip = ("--strip-debug", "--remove-section=.BTF")
    _run(binutils(board, "strip"), *strip, *(str(modules / name) for name in sorted(keep)))
    _run("depmod", "-b", str(root), version)
    return version


def _radio_firmware(root: Path, made: Path, board: str) -> None:
    """What a Raspberry Pi's radio is given at its start; other boards' radios bring their own or need none."""
    for package in RADIO_PACKAGES.get(board, ()):
        unpacked = root.with_name(package)
        _run("dpkg-deb", "--extract", str(made / f"{package}.deb"), str(unpacked))
        for path in sorted((unpacked / "lib/firmware").rglob("*")):
            if re.fullmatch(RADIO_FILES, path.name):
                goal = root / "usr/lib/firmware" / path.relative_to(unpacked / "lib/firmware")
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, goal, follow_symlinks=False)
        licence = unpacked / "usr/share/doc" / package / "copyright"
        shutil.copy(licence, root / "usr/share/licences" / package)
        shutil.rmtree(unpacked)


def _settings(root: Path) -> None:
    """Small files that are not verbatim, and empty places for what the device makes."""
    (root / "etc/machine-id").write_text("", encoding="utf-8")
    (root / "etc/hostname").write_text("postern\n", encoding="utf-8")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/resolv.conf")
    for name in (
        "data",
        "boot",
        "etc/postern",
        "etc/dropbear",
        "etc/hostapd",
        "home/operator",
        "var/lib/postern-admin-web",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    config = root / "etc/config/postern"
    config.chmod(0o640)
    groups = (root / "etc/group").read_text(encoding="utf-8")
    group = next(int(line.split(":")[2]) for line in groups.splitlines() if line.startswith("postern:"))
    os.chown(config, 0, group)
    # tar and cp keep numbers, so users must have the same ones in every version: they are fixed by the first image.
    for path in (root / "etc").glob("*-"):
        path.unlink()


def _bytecode(root: Path) -> None:
    """Compile what Python runs, trusted without a look at the source's time: each start would compile it again."""
    for directory, prefix in (
        ("usr/lib/postern", "/usr/lib/postern"),
        ("usr/lib/python3.11", "/usr/lib/python3.11"),
        ("usr/lib/python3/dist-packages", "/usr/lib/python3/dist-packages"),
    ):
        _run(
            "/usr/bin/python3",
            "-m",
            "compileall",
            "-q",
            "-j",
            "2",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            str(root / directory),
            "-p",
            prefix,
            str(root / directory),
        )
