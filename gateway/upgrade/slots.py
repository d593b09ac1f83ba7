"""The two slots of an image, and which one runs.

The initramfs notes in /run/postern-slot what it started. Off an image there is no such file, and no slot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.values import value_class

NOTE: Final = Path("/run/postern-slot")
BOARD: Final = Path("/usr/lib/postern/board")
_PARTITION: Final = {"a": "2", "b": "3"}


class NoSlots(Exception):
    """This system is not one of our images; the message says what to do instead."""


@value_class
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
