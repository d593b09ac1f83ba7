"""What postern-system does. Each verb is a function of its place and its parameters; `VERBS` is all of them.

A verb takes no path from who asks, and nothing that a shell would read: whoever has taken over posternd gains what is
in this table and no more.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, CONFLICT, UNAVAILABLE, ControlError, JsonValue, Params
from gateway.system.files import replace_file
from gateway.system.timezones import set_timezone
from gateway.uci import UciSyntaxError, parse
from gateway.upgrade.slots import NoSlots
from gateway.values import value_class

if TYPE_CHECKING:
    from gateway.upgrade.progress import Report

LONGEST_CONFIG: Final = 1 << 19
# As `postern-web --role admin` calls what it made itself, and its copy of the operator's.
MADE_HERE: Final = "device.crt", "device.key"
OPERATORS: Final = "operator.crt", "operator.key"
_LONGEST_PEM: Final = 1 << 16
# Where an upgrade is put before the verb is asked: whoever may fill the place may ask for an upgrade, and no signature
# that this device trusts means no upgrade.
BUNDLE: Final = "var/lib/postern/upgrade/bundle"


@value_class
class Place:
    """Where this system has what the verbs change."""

    config: Path
    root: Path = Path("/")
    run_dir: Path = Path("/run/postern")
    admin_web_dir: Path = Path("/var/lib/postern-admin-web")


Verb = Callable[[Place, Params], JsonValue]


def write_config(place: Place, params: Params) -> JsonValue:
    """Replace the gateway's configuration by a text that is UCI."""
    read.only(params, "text")
    text = read.text(params, "text", longest=LONGEST_CONFIG)
    try:
        parse(text)
        replace_file(place.config, text.encode("utf-8"))
    except UciSyntaxError as err:
        raise ControlError(BAD_PARAMS, f"the text is not UCI: {err}") from err
    except OSError as err:
        raise ControlError(UNAVAILABLE, f"{place.config} cannot be written: {err.strerror or err}") from err
    return {"written": len(text)}


def timezone(place: Place, params: Params) -> JsonValue:
    """Set the system's time zone."""
    read.only(params, "name")
    name = read.text(params, "name", longest=64)
    try:
        set_timezone(name, place.root)
    except ValueError as err:
        raise ControlError(BAD_PARAMS, str(err)) from err
    except OSError as err:
        raise ControlError(UNAVAILABLE, f"the time zone cannot be set: {err.strerror or err}") from err
    return {"name": name}


def read_certificate(place: Place, params: Params) -> JsonValue:
    """The certificate that the administration made, or the `operator`'s, and its key; both null when there is none."""
    read.only(params, "operator")
    names = OPERATORS if read.flag(params, "operator") else MADE_HERE
    try:
        texts = [_pem(place.admin_web_dir / name) for name in names]
    except FileNotFoundError:
        return {"certificate": None, "key": None}
    except OSError as err:
        raise ControlError(UNAVAILABLE, f"the certificate cannot be read: {err.strerror or err}") from err
    return {"certificate": texts[0], "key": texts[1]}


def write_certificate(place: Place, params: Params) -> JsonValue:
    """Replace that certificate and its key; they belong to whom their directory belongs."""
    import tempfile  # here, because it stays in memory for good

    read.only(params, "certificate", "key", "operator")
    names = OPERATORS if read.flag(params, "operator") else MADE_HERE
    texts = [read.text(params, name, longest=_LONGEST_PEM) for name in ("certificate", "key")]
    if not all(text.isascii() and text.startswith("-----BEGIN ") for text in texts):
        raise ControlError(BAD_PARAMS, "certificate and key must be PEM")
    folder = place.admin_web_dir
    try:
        owner = folder.stat()
        for name, text in ((names[1], texts[1]), (names[0], texts[0])):
            # A fresh name and a rename: what is in the directory is another user's, who may have put a link there.
            descriptor, fresh = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).replace(folder / name)
    except FileNotFoundError:
        return {"written": False}  # no administration runs here; there is nobody who would use it
    except OSError as err:
        raise ControlError(UNAVAILABLE, f"the certificate cannot be written: {err.strerror or err}") from err
    return {"written": True}


def _pem(path: Path) -> str:
    """A file of another user's directory: itself, not what a link in its place leads to."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is not a file")
        content = file.read(_LONGEST_PEM)
    if not content.isascii() or not content.startswith(b"-----BEGIN "):
        raise OSError(f"{path} is not PEM")
    return content.decode("ascii")


@contextmanager
def _reporting(place: Place, failed: str) -> Iterator[Report]:
    """Say how far it is while it lasts; what goes wrong becomes a refusal, `failed` begins those of the system."""
    from gateway.upgrade import progress
    from gateway.upgrade.bundle import BundleRefused

    try:
        yield progress.reporter(place.run_dir)
    except (BundleRefused, NoSlots) as err:
        raise ControlError(CONFLICT, str(err)) from err
    except (OSError, subprocess.SubprocessError) as err:
        raise ControlError(UNAVAILABLE, f"{failed}: {err}") from err
    finally:
        progress.forget(place.run_dir)


def check_upgrade(place: Place, params: Params) -> JsonValue:
    """Verify the bundle that lies in its place, and say what is in it; nothing is written."""
    read.only(params)
    from gateway.upgrade import perform  # the daemon knows the verbs, too, and never upgrades by itself

    with _reporting(place, "the bundle cannot be verified") as report:
        checked = perform.check(place.root / BUNDLE, report)
    manifest = checked.manifest
    return {
        "version": manifest.version,
        "build_id": manifest.build_id,
        "board": manifest.board,
        "built_unix": manifest.built_unix,
        "size_bytes": manifest.size_bytes,
        "older": checked.older,
    }


def upgrade(place: Place, params: Params) -> JsonValue:
    """Install the bundle that lies in its place, and start the system anew to try it."""
    read.only(params, "older", "build_id")
    from gateway.upgrade import perform

    with _reporting(place, "the upgrade could not be written") as report:
        story = perform.install(
            place.root / BUNDLE,
            older=read.flag(params, "older"),
            build_id=read.text(params, "build_id", "", longest=64),
            report=report,
        )
        perform.restart()
    return asdict(story)


def factory_reset(place: Place, params: Params) -> JsonValue:
    """Remove everything that was set on this device, by starting it anew."""
    read.only(params)
    from gateway.upgrade import perform

    try:
        perform.factory_reset()
        perform.restart()
    except NoSlots as err:
        text = "this system is no Postern image: remove the package with its data to go back to the beginning"
        raise ControlError(CONFLICT, text) from err
    except (OSError, subprocess.CalledProcessError) as err:
        raise ControlError(UNAVAILABLE, f"the reset could not be noted: {err}") from err
    return {"restarting": True}


def restart(place: Place, params: Params) -> JsonValue:
    """Start the system anew."""
    read.only(params)
    from gateway.upgrade import perform

    try:
        perform.restart()
    except (OSError, subprocess.CalledProcessError) as err:
        raise ControlError(UNAVAILABLE, f"the system does not start anew: {err}") from err
    return {"restarting": True}


VERBS: Final[Mapping[str, Verb]] = {
    "write_config": write_config,
    "timezone": timezone,
    "read_certificate": read_certificate,
    "write_certificate": write_certificate,
    "check_upgrade": check_upgrade,
    "upgrade": upgrade,
    "factory_reset": factory_reset,
    "restart": restart,
}
