"""What this gateway runs on: version and build, the slots of an image, the last upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.control.protocol import JsonValue
from gateway.upgrade.slots import BOARD, NoSlots, here
from gateway.upgrade.story import after_start

BUILD_ID: Final = Path(__file__).with_name("build_id")


def build_id() -> str:
    """Which source this was made of; packages write it down, a clone says so."""
    try:
        return BUILD_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return "source"


def platform() -> dict[str, JsonValue]:
    """`version`, `build_id`, `board`, `slot`, `trial`, `upgrade`; off an image the last four are null."""
    found: dict[str, JsonValue] = {"version": __version__, "build_id": build_id()}
    try:
        slots = here()
    except NoSlots:
        return {**found, "board": None, "slot": None, "start": None, "upgrade": None}
    story = after_start(slots)
    return {
        **found,
        "board": BOARD.read_text(encoding="ascii").strip(),
        "slot": slots.running,
        "start": "trial" if slots.trial else "good",
        "upgrade": {"state": story.state, "version": story.version, "text": story.text} if story else None,
    }
