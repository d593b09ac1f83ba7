"""What starts a slot's kernel: GRUB on every board, behind whatever the board itself starts.

x86_64: GRUB's core behind the BIOS's first sector, and as an EFI program. rpi-arm64: the Raspberry Pi's firmware starts
U-Boot, which is an EFI firmware, and that starts GRUB as an EFI program. So slots, trials and the way back are the same
code on every board, and QEMU's machine "virt", which has an EFI firmware too, runs all of it but the first two links.

The Pi's own mechanism (autoboot.txt and "reboot '0 tryboot'") is not used: only the vendor's kernel can ask the
firmware for a trial start, Debian's has no such code.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from rootfs.image.base import RECIPE

MIB: Final = 1 << 20
SECTOR: Final = 512
# The boards whose device trees go along; the firmware takes the one of its board by name. A Pi 5 needs a later kernel.
DEVICE_TREES: Final = (
    "bcm2837-rpi-3-a-plus", "bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus", "bcm2837-rpi-cm3-io3", "bcm2837-rpi-zero-2-w",
    "bcm2711-rpi-4-b", "bcm2711-rpi-400", "bcm2711-rpi-cm4-io",
)  # fmt: skip
_FIRMWARE: Final = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")
_MODULES: Final = (
    "part_msdos", "fat", "normal", "linux", "loadenv", "terminal", "test", "echo", "search", "search_label", "reboot",
    "configfile", "minicmd",
)  # fmt: skip


def fill(board: str, tree: Path, made: Path, work: Path) -> None:
    """Put what a board starts with into the tree of its boot partition; `made` is the board's base."""
    shutil.copy(RECIPE / "grub.cfg", tree / "grub.cfg")
    programs = tree / "EFI" / "BOOT"
    programs.mkdir(parents=True)
    if board == "x86_64":
        _efi("x86_64-efi", programs / "BOOTX64.EFI", ("serial", "efi_gop", "all_video"), work)
        return
    grub = unpacked(made, "grub-efi-arm64-bin", work) / "usr/lib/grub/arm64-efi"
    _efi("arm64-efi", programs / "BOOTAA64.EFI", ("gzio",), work, grub)
    firmware = unpacked(made, "raspi-firmware", work) / "usr"
    for name in _FIRMWARE:
        shutil.copy(firmware / "lib/raspi-firmware" / name, tree / name)
    shutil.copy(firmware / "share/doc/raspi-firmware/copyright", tree / "LICENCE-firmware.txt")
    shutil.copy(unpacked(made, "u-boot-rpi", work) / "usr/lib/u-boot/rpi_arm64/u-boot.bin", tree / "u-boot.bin")
    [trees] = unpacked(made, "kernel", work).glob("usr/lib/linux-image-*/broadcom")
    for name in DEVICE_TREES:
        shutil.copy(trees / f"{name}.dtb", tree / f"{name}.dtb")
    shutil.copy(RECIPE / "config.txt", tree / "config.txt")


def unpacked(made: Path, package: str, work: Path) -> Path:
    """The files of a package of the base, unpacked once below `work`."""
    goal = work / f"unpacked-{package}"
    if not goal.exists():
        subprocess.run(["dpkg-deb", "--extract", str(made / f"{package}.deb"), str(goal)], check=True)
    return goal


def bios(image: Path, work: Path) -> None:
    """GRUB for a PC's BIOS: the first sector's code, and its core in the gap before the first partition."""
    core = work / "core.img"
    subprocess.run(
        [
            *("grub-mkimage", "-O", "i386-pc", "-o", str(core), "-p", "(hd0,msdos1)/", "-c", str(_early_config(work))),
            *("biosdisk", "serial", *_MODULES),
        ],
        check=True,
    )
    first = Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()
    with image.open("r+b") as file:
        file.write(first[:440])
        file.seek(SECTOR)
        data = core.read_bytes()
        if len(data) > MIB - SECTOR:
            raise ValueError("the boot loader does not fit before the first partition")
        file.write(data)


def _efi(kind: str, goal: Path, modules: tuple[str, ...], work: Path, directory: Path | None = None) -> None:
    """GRUB as an EFI program, from the host's modules or those in `directory`."""
    where = ["-d", str(directory)] if directory else []
    subprocess.run(
        [
            *("grub-mkimage", *where, "-O", kind, "-o", str(goal), "-p", "/", "-c", str(_early_config(work))),
            *_MODULES,
            *modules,
        ],
        check=True,
    )


def _early_config(work: Path) -> Path:
    path = work / "early.cfg"
    path.write_text(
        "search --no-floppy --label --set=root POSTERNBOOT\nconfigfile ($root)/grub.cfg\n", encoding="utf-8"
    )
    return path
