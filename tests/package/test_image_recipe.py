"""What images are made of, board by board, before anything is bootstrapped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rootfs.build import IMAGE_LIMITS
from rootfs.image import stage
from rootfs.image.base import RECIPE, recipe
from rootfs.image.loaders import DEVICE_TREES
from rootfs.image.make import BOARDS
from rootfs.image.qemu import EMULATORS, command


def test_every_board_has_a_limit_and_an_emulator() -> None:
    """Nothing is shipped that is not held to a size and booted."""
    assert set(BOARDS) == set(IMAGE_LIMITS) == set(EMULATORS)


@pytest.mark.parametrize("name", ["packages.txt", "modules.txt"])
def test_a_line_for_one_board_is_for_that_board_only(name: str) -> None:
    """Every limit names a board that there is, and every line is for somebody."""
    lines = (RECIPE / name).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert set(re.findall(r" \[([^]]*)\]$", "\n".join(lines), re.MULTILINE)) <= set(BOARDS)
    for line in lines:
        word, _, limit = line.partition(" [")
        wanted = {limit.rstrip("]")} if limit else set(BOARDS)
        assert wanted <= {board for board in BOARDS if word in recipe(name, board)}, line


def test_a_raspberry_pi_has_the_drivers_of_its_own_hardware() -> None:
    """Card, Ethernet of the three generations, radio and watchdog; a PC's are left out."""
    modules = recipe("modules.txt", "rpi-arm64")
    for driver in ("mmc/host/sdhci-iproc", "net/ethernet/broadcom/genet/", "net/usb/", "watchdog/bcm2835_wdt"):
        assert f"drivers/{driver}" in modules
    assert "drivers/net/ethernet/" not in modules


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("brcmfmac43455-sdio.bin", True),
        ("cyfmac43430-sdio.clm_blob", True),
        ("brcmfmac43455-sdio.raspberrypi,4-model-b.txt", True),
        ("brcmfmac43456-sdio.txt", True),
        ("brcmfmac43455-sdio.pine64,pinebook-pro.txt", False),
        ("brcmfmac4356-pcie.bin", False),
    ],
)
def test_only_the_firmware_of_a_raspberry_pis_radio_is_taken(name: str, taken: bool) -> None:
    """Calibrations of other makers' boards are left out."""
    assert bool(re.fullmatch(stage.RADIO_FILES, name)) is taken


def test_the_firmware_is_told_what_the_boot_partition_has() -> None:
    """64 bit, U-Boot, Linux's names of the device trees: of the Raspberry Pi 3 and 4."""
    lines = (RECIPE / "config.txt").read_text(encoding="ascii").splitlines()
    told = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert (told["arm_64bit"], told["kernel"], told["upstream_kernel"]) == ("1", "u-boot.bin", "1")
    assert {"bcm2837-rpi-3-b", "bcm2711-rpi-4-b"} <= set(DEVICE_TREES)


def test_the_disk_comes_first_in_every_emulator() -> None:
    """A firmware that tried the network first would wait for minutes; a PC's needs no file of its own."""
    for board in BOARDS:
        words = command(board, Path("disk.qcow2"), [])
        assert "virtio-blk-pci,drive=disk,bootindex=0" in words
        assert ("-bios" in words) is (board != "x86_64")
