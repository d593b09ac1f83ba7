"""Writing a slot, and telling the boot loader what to do next. As root, by postern-system and the trial alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from gateway.upgrade import environment
from gateway.upgrade.bundle import BundleRefused, Manifest, copy_part
from gateway.upgrade.progress import Report, silent
from gateway.upgrade.slots import Slots

_BLOCK: Final = 1 << 20


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


def write(slots: Slots, bundle: Path, manifest: Manifest, report: Report = silent) -> None:
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
        copy_part(bundle, system, goal, report)
        goal.flush()
        os.fsync(goal.fileno())
        # Read from the disk and not from memory: a card that lies is found now.
        os.posix_fadvise(goal.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        goal.seek(0)
        if _digest(goal, system.size_bytes, report) != system.sha256:
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


def _digest(file: IO[bytes], size_bytes: int, report: Report) -> str:
    digest = hashlib.sha256()
    left = size_bytes
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
        report("proving", size_bytes - left, size_bytes)
    return digest.hexdigest()
