"""From a root file system to a disk image, with files only: no loop device, no mount.

Layout of every board: an MBR, p1 FAT with the boot loader's files and each slot's kernel, p2 and p3 the slots
(squashfs), p4 ext4 for everything that lasts; the device grows p4 at its first start.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rootfs.image import loaders
from rootfs.image.base import RECIPE
from rootfs.image.order import priorities

MIB: Final = loaders.MIB
SECTOR: Final = loaders.SECTOR
BOOT_MIB: Final = 96
SLOT_MIB: Final = 144
DATA_MIB: Final = 32
_DISK_ID: Final = "0x706f7374"
_DATA_UUID: Final = "706f7374-6572-4e00-8000-64617461aaaa"
_FAT_ID: Final = "706f7374"
# The initramfs needs the disk and the file systems; the rest comes later, from the slot.
_EARLY: Final = (
    "virtio_blk", "virtio_pci", "virtio_scsi", "ahci", "ata_piix", "sd_mod", "nvme", "usb_storage", "uas", "xhci_pci",
    "ehci_pci", "sdhci_pci", "fixed", "gpio_regulator", "sdhci_iproc", "bcm2835", "mmc_block", "phy_generic", "dwc2",
    "reset_raspberrypi", "squashfs", "overlay", "ext4", "crc32c_generic",
    "crc32_generic",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """What a slot is made of: its system, kernel and initramfs."""

    system: Path
    kernel: Path
    initramfs: Path


def slot(root: Path, version: str, work: Path, epoch: int) -> Slot:
    """Pack a root file system into the three files of a slot."""
    kernel, initramfs, system = work / "vmlinuz", work / "initrd", work / "system.squashfs"
    code = (root / "boot" / f"vmlinuz-{version}").read_bytes()
    # A PC's kernel unpacks itself; that of arm64 is bare (an EFI program), and GRUB unpacks it.
    kernel.write_bytes(gzip.compress(code, 9, mtime=0) if code[56:60] == b"ARM\x64" else code)
    _initramfs(root, version, work / "early", initramfs, epoch)
    for path in (root / "boot").iterdir():
        path.unlink()
    order = work / "order"
    order.write_text(priorities(root), encoding="utf-8")
    subprocess.run(
        [
            *("mksquashfs", str(root), str(system), "-noappend", "-quiet", "-no-progress", "-comp", "zstd"),
            *("-Xcompression-level", os.environ.get("POSTERN_IMAGE_LEVEL", "15"), "-b", "256K", "-xattrs"),
            *("-sort", str(order)),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )
    return Slot(system, kernel, initramfs)


def disk(board: str, board_slot: Slot, made: Path, work: Path, epoch: int) -> Path:
    """The whole disk of a board, with the slot in A and nothing in B; returns its path. `made` is the board's base."""
    image = work / "disk.img"
    starts = _starts()
    with image.open("wb") as file:
        file.truncate((starts["end"]) * SECTOR)
    table = (
        f"label: dos\nlabel-id: {_DISK_ID}\nunit: sectors\n"
        f"start={starts['boot']}, size={BOOT_MIB * MIB // SECTOR}, type=c, bootable\n"
        f"start={starts['a']}, size={SLOT_MIB * MIB // SECTOR}, type=83\n"
        f"start={starts['b']}, size={SLOT_MIB * MIB // SECTOR}, type=83\n"
        f"start={starts['data']}, size={DATA_MIB * MIB // SECTOR}, type=83\n"
    )
    subprocess.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(image)], input=table, text=True, check=True
    )
    if board == "x86_64":
        loaders.bios(image, work)
    _put(image, _boot(board, board_slot, made, work, epoch), starts["boot"])
    if board_slot.system.stat().st_size > SLOT_MIB * MIB:
        raise ValueError(f"the system has {board_slot.system.stat().st_size} octets, a slot {SLOT_MIB * MIB}")
    _put(image, board_slot.system, starts["a"])
    _put(image, _data(work, epoch), starts["data"])
    return image


def _starts() -> dict[str, int]:
    """First sector of each part; 1 MiB before the first is left for the boot loader."""
    found, at = {}, MIB // SECTOR
    for name, size in (("boot", BOOT_MIB), ("a", SLOT_MIB), ("b", SLOT_MIB), ("data", DATA_MIB)):
        found[name] = at
        at += size * MIB // SECTOR
    found["end"] = at
    return found


def _put(image: Path, part: Path, sector: int) -> None:
    with image.open("r+b") as goal, part.open("rb") as source:
        goal.seek(sector * SECTOR)
        at = sector * SECTOR
        while block := source.read(4 * MIB):
            if block.strip(b"\0"):  # zeros are there already
                goal.seek(at)
                goal.write(block)
            at += len(block)


def environment(**values: str) -> bytes:
    """GRUB's environment block: 1024 octets that it rewrites in place."""
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in values.items())
    return text.encode().ljust(1024, b"#")


def _boot(board: str, board_slot: Slot, made: Path, work: Path, epoch: int) -> Path:
    """The boot partition: FAT, because every firmware reads it and the owner's computer too."""
    tree = work / "boot"
    (tree / "a").mkdir(parents=True)
    (tree / "b").mkdir()
    shutil.copy(board_slot.kernel, tree / "a" / "vmlinuz")
    shutil.copy(board_slot.initramfs, tree / "a" / "initrd")
    shutil.copy(RECIPE / "boot-readme.txt", tree / "README.txt")
    (tree / "grubenv").write_bytes(environment(slot="a", trial=""))
    loaders.fill(board, tree, made, work)
    image = work / "boot.fat"
    with image.open("wb") as file:
        file.truncate(BOOT_MIB * MIB)
    for path in [tree, *sorted(tree.rglob("*"))]:
        os.utime(path, (epoch, epoch))
    subprocess.run(
        ["mkfs.vfat", "-F", "32", "--invariant", "-i", _FAT_ID, "-n", "POSTERNBOOT", str(image)],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )
    names = [str(path) for path in sorted(tree.iterdir())]
    subprocess.run(["mcopy", "-s", "-m", "-i", str(image), *names, "::"], check=True, env={**os.environ, "TZ": "UTC"})
    return image


def _data(work: Path, epoch: int) -> Path:
    image = work / "data.ext4"
    with image.open("wb") as file:
        file.truncate(DATA_MIB * MIB)
    options = f"hash_seed={_DATA_UUID}"
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "postern-data", "-U", _DATA_UUID, "-E", options, str(image)],
        check=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": str(epoch)},
    )
    return image


def _initramfs(root: Path, version: str, tree: Path, goal: Path, epoch: int) -> None:
    """Our own small one: busybox, what mends file systems, the modules of the disk, and init."""
    for name in ("bin", "sbin", "lib", "lib64", "etc", "data", "usr/lib"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    shutil.copy(RECIPE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    (tree / "etc/mke2fs.conf").write_bytes((root / "etc/mke2fs.conf").read_bytes())
    for program in ("e2fsck", "mke2fs"):
        _with_libraries(root, root / "sbin" / program, tree)
    modules = root / "lib/modules" / version
    dependencies = {}
    for line in (modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        name, _, others = line.partition(":")
        dependencies[Path(name).name.removesuffix(".ko").replace("-", "_")] = [name, *others.split()]
    wanted = [name for name in _EARLY if name.replace("-", "_") in dependencies]
    for name in {path for item in wanted for path in dependencies[item.replace("-", "_")]}:
        path = tree / "lib/modules" / version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(modules / name, path)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(modules / name, tree / "lib/modules" / version / name)
    subprocess.run(["depmod", "-b", str(tree), version], check=True)
    (tree / "modules").write_text("\n".join(wanted) + "\n", encoding="utf-8")
    names = []
    for path in sorted(tree.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
        names.append(str(path.relative_to(tree)))
    packed = subprocess.run(
        ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0", "--reproducible"],
        input="\n".join(sorted(names)).encode() + b"\n", cwd=tree, capture_output=True, check=True,
    ).stdout  # fmt: skip
    goal.write_bytes(gzip.compress(packed, 9, mtime=0))


def _with_libraries(root: Path, program: Path, tree: Path) -> None:
    """Copy a program and the shared libraries that it names, found in `root`."""
    goal = tree / "sbin" / program.name
    shutil.copy(program, goal)
    waiting, seen = [program], set()
    while waiting:
        needed = subprocess.run(
            ["readelf", "--dynamic", "--program-headers", "--wide", str(waiting.pop())],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "(NEEDED)" in line]
        loaders = [line.split(": ")[1].rstrip("]") for line in needed.splitlines() if "program interpreter" in line]
        for loader in loaders:
            path = tree / loader.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_inside(root, loader), path)
        for name in names:
            if name in seen:
                continue
            seen.add(name)
            found = next(path for path in sorted((root / "usr/lib").glob(f"*/{name}")))
            real = _inside(root, "/" + str(found.relative_to(root)))
            shutil.copy(real, tree / "lib" / name)
            waiting.append(real)


def _inside(root: Path, name: str) -> Path:
    """A path of the new root with its symbolic links followed inside it."""
    path = Path(name)
    for _ in range(20):
        parts = path.parts[1:]
        at = root
        for index, part in enumerate(parts):
            at = at / part
            if at.is_symlink():
                target = at.readlink()
                base = Path("/") if target.is_absolute() else Path("/", *parts[:index])
                path = Path(os.path.normpath(base / target / Path(*parts[index + 1 :])))
                break
        else:
            return root / path.relative_to("/")
    raise ValueError(f"{name}: too many links")
