"""What this gateway runs on: version and build, the slots of an image, the last upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.control.protocol import JsonValue
from gateway.upgrade.slots import BOARD, NoSlots, here
from gateway.upgrade.story import after_start, boot_id

_ROOT: Final = Path("/")
BUILD_ID: Final = Path(__file__).with_name("build_id")


def build_id() -> str:
    """Which source this was made of; packages write it down, a clone says so."""
    try:
        return BUILD_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return "source"


def packaging(root: Path = _ROOT) -> str:
    """How this came onto the system, and so how it is upgraded: `image`, `openwrt`, `debian` or `source`."""
    if (root / "run/postern-slot").exists():
        return "image"
    if build_id() == "source":
        return "source"
    return "openwrt" if (root / "etc/openwrt_release").exists() else "debian"


def platform() -> dict[str, JsonValue]:
    """`version`, `build_id`, `packaging`, `board`, `slot`, `start`, `upgrade`; off an image the last four are null."""
    found: dict[str, JsonValue] = {"version": __version__, "build_id": build_id(), "packaging": packaging()}
    try:
        slots = here()
    except NoSlots:
        return {**found, "board": None, "slot": None, "start": None, "upgrade": None}
    story = after_start(slots, boot_id())
    return {
        **found,
        "board": BOARD.read_text(encoding="ascii").strip(),
        "slot": slots.running,
        "start": "trial" if slots.trial else "good",
        "upgrade": (
            {
                "state": story.state,
                "version": story.version,
                "build_id": story.build_id,
                "slot": story.slot,
                "text": story.text,
            }
            if story
            else None
        ),
    }
