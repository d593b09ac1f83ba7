"""The two slots of an image: which one runs, writing the other, and what the boot loader shall do next.

The initramfs notes in /run/postern-slot what it started. Off an image there is no such file, and no slot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from gateway.upgrade import environment
from gateway.upgrade.bundle import BundleRefused, Manifest, copy_part

NOTE: Final = Path("/run/postern-slot")
BOARD: Final = Path("/usr/lib/postern/board")
_PARTITION: Final = {"a": "2", "b": "3"}
_BLOCK: Final = 1 << 20


class NoSlots(Exception):
    """This system is not one of our images; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the running system came from."""

    running: str  # a or b
    trial: bool  # this start is a trial
    disk: str  # /dev/vda
    boot: str  # the boot partition's device
    data: Path  # what lasts

    @property
    def other(self) -> str:
        """The slot that does not run."""
        return "b" if self.running == "a" else "a"

    def device(self, slot: str) -> Path:
        """The partition of a slot."""
        return Path(f"{self.disk}{_PARTITION[slot]}")


def here(note: Path = NOTE) -> Slots:
    """The running system's slots; raises NoSlots."""
    try:
        told = dict(line.split("=", 1) for line in note.read_text(encoding="ascii").splitlines())
    except FileNotFoundError:
        raise NoSlots("this system is no Postern image: upgrade it with its own package manager") from None
    return Slots(told["slot"], told["start"] == "trial", told["disk"], told["boot"], Path("/data"))


@contextlib.contextmanager
def boot_partition(slots: Slots) -> Iterator[Path]:
    """The boot partition, mounted for as long as the block lasts and no longer."""
    with tempfile.TemporaryDirectory(prefix="boot-", dir="/run") as name:
        subprocess.run(["mount", "-t", "vfat", "-o", "rw,noatime", slots.boot, name], check=True, capture_output=True)
        try:
            yield Path(name)
        finally:
            os.sync()
            subprocess.run(["umount", name], check=True, capture_output=True)


def write(slots: Slots, bundle: Path, manifest: Manifest) -> None:
    """Write a verified bundle into the slot that does not run, and read it back; raises BundleRefused or OSError.

    The boot loader is told nothing yet: cut off here, the device starts as before.
    """
    system = manifest.part("system.squashfs")
    device = slots.device(slots.other)
    with device.open("r+b") as goal:
        room = goal.seek(0, os.SEEK_END)
        if system.size_bytes > room:
            raise BundleRefused(f"the new system has {system.size_bytes} octets and a slot {room}: write a new image")
        goal.seek(0)
        copy_part(bundle, system, goal)
        goal.flush()
        os.fsync(goal.fileno())
        # Read from the disk and not from memory: a card that lies is found now.
        os.posix_fadvise(goal.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        goal.seek(0)
        if _digest(goal, system.size_bytes) != system.sha256:
            raise BundleRefused(f"{device} gives back other octets than were written: the disk or card is worn out")
    with boot_partition(slots) as boot:
        folder = boot / slots.other
        folder.mkdir(exist_ok=True)
        for name in ("vmlinuz", "initrd"):
            # In place of the old one, which no start uses now: two kernels for one slot might not fit.
            (folder / name).unlink(missing_ok=True)
            with (folder / name).open("wb") as file:
                copy_part(bundle, manifest.part(name), file)
                file.flush()
                os.fsync(file.fileno())


def arm(slots: Slots) -> None:
    """Let the next start, and only that one, try the other slot."""
    _remember(slots, slot=slots.running, trial=slots.other)


def commit(slots: Slots) -> None:
    """The running slot is good from now on."""
    _remember(slots, slot=slots.running, trial="")


def _remember(slots: Slots, **values: str) -> None:
    with boot_partition(slots) as boot, (boot / "grubenv").open("r+b") as file:
        known = environment.decode(file.read(environment.SIZE))
        file.seek(0)
        file.write(environment.encode({**known, **values}))
        file.flush()
        os.fsync(file.fileno())


def _digest(file: IO[bytes], size_bytes: int) -> str:
    digest = hashlib.sha256()
    left = size_bytes
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
