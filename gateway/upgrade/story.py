"""How far an upgrade has come, as it is told to the operator: one small file on the data partition.

verified → installed → trial → committed
    └──────────┴→ interrupted └──→ rolled back

Root alone writes the file, while the upgrade goes on. What it means once the device has started anew (`after_start`) is
reckoned by whoever asks: posternd may only read it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from gateway.upgrade.slots import Slots
from gateway.values import value_class

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@value_class
class Story:
    """The last upgrade."""

    state: str  # verified, installed, trial, committed, rolled back, interrupted
    version: str
    build_id: str
    slot: str  # where the new version is
    text: str = ""  # why it was rolled back or interrupted
    boot: str = ""  # the kernel's boot id of when it was told


def told(data: Path) -> Story | None:
    """The last upgrade, if there was one and its file can be read."""
    try:
        return Story(**json.loads((data / "upgrade.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def boot_id() -> str:
    """The kernel's name for the time since it started."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def tell(data: Path, story: Story) -> None:
    """Keep how far it has come; it survives a power cut at any moment."""
    part = data / "upgrade.json.new"
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(replace(story, boot=boot_id())), file)
        os.fchmod(file.fileno(), 0o644)  # posternd reads it, and postern-system's umask keeps others out
        file.flush()
        os.fsync(file.fileno())
    part.rename(data / "upgrade.json")
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # the new name, which the file's own sync leaves to some seconds later
    finally:
        os.close(descriptor)


def after_start(slots: Slots, boot: str) -> Story | None:
    """What the story is in the system that runs: what an earlier one left under way has come to an end with it."""
    story = told(slots.data)
    if story is None or story.boot == boot:
        return story
    if story.state in ("verified", "installed"):
        text = "the device went off before the new version was whole in its slot: ask for the upgrade again"
        return replace(story, state="interrupted", text=text)
    if story.state != "trial" or slots.trial:
        return story
    if story.slot == slots.running:
        return replace(story, state="committed", text="")  # the power went between the proof and the note of it
    text = story.text or "the new version did not start, or did not prove that the gate works"
    return replace(story, state="rolled back", text=text)
