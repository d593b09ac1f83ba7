"""What postern-system does about upgrades, as root: install a bundle, go back to factory settings, start anew."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import gateway
from gateway.upgrade import slots, writing
from gateway.upgrade.bundle import BundleRefused, Manifest, newer, verify
from gateway.upgrade.progress import Report, silent
from gateway.upgrade.story import Story, tell, told
from gateway.values import value_class

KEYS: Final = Path("/usr/lib/postern/keys")
RESTART_DELAY_S: Final = 3
LOG: Final = logging.getLogger(__name__)


@value_class
class Checked:
    """A bundle that could be installed."""

    manifest: Manifest
    older: bool  # than what runs


def check(path: Path, report: Report = silent) -> Checked:
    """Verify a bundle for this device; writes nothing. Raises BundleRefused or slots.NoSlots."""
    slots.here()
    board = slots.BOARD.read_text(encoding="ascii").strip()
    manifest = verify(path, sorted(KEYS.glob("*.pem")), board, report)
    return Checked(manifest, not newer(gateway.__version__, manifest.version))


def install(path: Path, *, older: bool = False, build_id: str = "", report: Report = silent) -> Story:
    """Verify a bundle, write it into the other slot, arm its trial; the caller starts the system anew.

    `build_id` is that of the bundle that was looked at before, if it was. Raises BundleRefused (nothing was written, or
    nothing that any start uses), slots.NoSlots, or OSError.
    """
    here = slots.here()
    before = told(here.data)
    if here.trial and (before is None or before.state == "trial"):
        raise BundleRefused("this version is on trial itself: wait until it has proved itself, some minutes at most")
    checked = check(path, report)
    manifest = checked.manifest
    if build_id and manifest.build_id != build_id:
        raise BundleRefused("another bundle was put in the place of the one that was looked at: look at it first")
    if checked.older and not older:
        raise BundleRefused(
            f"the bundle has version {manifest.version}, older than {gateway.__version__}; ask for it with --older"
        )
    story = Story("verified", manifest.version, manifest.build_id, here.other)
    tell(here.data, story)
    LOG.info("upgrade verified version=%s build=%s slot=%s", manifest.version, manifest.build_id, here.other)
    writing.write(here, path, manifest, report)
    tell(here.data, Story("installed", manifest.version, manifest.build_id, here.other))
    writing.arm(here)
    story = Story("trial", manifest.version, manifest.build_id, here.other)
    tell(here.data, story)
    LOG.info("upgrade installed, its trial is the next start")
    return story


def factory_reset() -> None:
    """At the next start everything that was set on this device is removed. Raises slots.NoSlots or OSError."""
    here = slots.here()
    flag = here.data / "factory-reset"
    with flag.open("w", encoding="ascii") as file:
        file.write("asked\n")
        file.flush()
        os.fsync(file.fileno())


def restart() -> None:
    """Start the system anew, in an orderly way, some seconds from now: whoever asked is to hear the answer first."""
    # OpenWrt has no systemd; its reboot asks procd.
    command = "systemctl reboot" if shutil.which("systemctl") else "reboot"
    subprocess.Popen(["sh", "-c", f"sleep {RESTART_DELAY_S}; exec {command}"], start_new_session=True)
