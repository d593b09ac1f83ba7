"""How far an upgrade has come, as it is told to the operator: one small file on the data partition.

verified → installed → trial → committed
                          └──→ rolled back
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.upgrade.slots import Slots


@dataclass(frozen=True, slots=True)
class Story:
    """The last upgrade."""

    state: str  # verified, installed, trial, committed, rolled back
    version: str
    build_id: str
    slot: str  # where the new version is
    text: str = ""  # why it was rolled back


def told(data: Path) -> Story | None:
    """The last upgrade, if there was one and its file can be read."""
    try:
        return Story(**json.loads((data / "upgrade.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def tell(data: Path, story: Story) -> None:
    """Keep how far it has come; it survives a power cut at any moment."""
    part = data / "upgrade.json.new"
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(story), file)
        file.flush()
        os.fsync(file.fileno())
    part.rename(data / "upgrade.json")


def after_start(slots: Slots) -> Story | None:
    """What the story is once a system has started: a trial that is not running any more has failed."""
    story = told(slots.data)
    if story is None or story.state != "trial" or slots.trial:
        return story
    if story.slot == slots.running:
        return story
    text = story.text or "the new version did not start, or did not prove that the gate works"
    failed = Story("rolled back", story.version, story.build_id, story.slot, text)
    tell(slots.data, failed)
    return failed
