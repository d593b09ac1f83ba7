"""The system's time zone: which there are, which one is set, and setting it on Debian and on OpenWrt.

Zones are files of the system's own database. Their last line is the rule in POSIX form (RFC 9636 §3.3), which is what
OpenWrt's C library wants instead of the name.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

DATABASE: Final = Path("usr/share/zoneinfo")
_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}")
_NO_ZONES: Final = frozenset({"posix", "right", "leapseconds", "localtime", "posixrules", "Factory", "SystemV"})
_UCI: Final = Path("sbin/uci")
_SECONDS: Final = 10.0


def names(root: Path = Path("/")) -> list[str]:
    """The zones that the system has, such as Europe/Paris; UTC alone where it has no database."""
    base = root / DATABASE
    found = set()
    for path in base.rglob("*"):
        relative = path.relative_to(base)
        name = str(relative)
        if relative.parts[0] not in _NO_ZONES and _NAME.fullmatch(name) and path.is_file() and _is_zone(path):
            found.add(name)
    return sorted(found | {"UTC"})


def current(root: Path = Path("/")) -> str:
    """The zone that is set; UTC when nothing says one."""
    try:
        target = str((root / "etc/localtime").readlink())
        if "zoneinfo/" in target:
            return target.partition("zoneinfo/")[2]
    except OSError:
        pass  # a copy, or none
    for path in (root / "etc/timezone", root / "etc/TZ"):
        try:
            name = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if name:
            return name
    return "UTC"


def set_timezone(name: str, root: Path = Path("/")) -> None:
    """Set a zone; raises ValueError for one that is not there, OSError when it cannot be written."""
    base = root / DATABASE
    file = base / name
    if not _NAME.fullmatch(name) or (name != "UTC" and not (file.is_file() and _is_zone(file))):
        raise ValueError(f"{name[:64]!r} is not a time zone of this system; give one such as Europe/Paris")
    if (root / _UCI).exists():
        _set_openwrt(name, _rule(file), root)
        return
    new = root / "etc/localtime.new"
    new.unlink(missing_ok=True)
    new.symlink_to(Path("/") / DATABASE / name)
    new.replace(root / "etc/localtime")
    (root / "etc/timezone").write_text(f"{name}\n", "utf-8")


def _set_openwrt(name: str, rule: str, root: Path) -> None:
    """OpenWrt keeps both in /etc/config/system, and makes /etc/TZ from it."""
    uci = str(root / _UCI)
    for words in (
        (uci, "set", f"system.@system[0].zonename={name}"),
        (uci, "set", f"system.@system[0].timezone={rule}"),
        (uci, "commit", "system"),
        (str(root / "etc/init.d/system"), "reload"),
    ):
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:200]
            raise OSError(f"{' '.join(words[1:])} failed: {said or f'status {done.returncode}'}")


def _is_zone(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"TZif"
    except OSError:
        return False


def _rule(path: Path) -> str:
    """The last line of a zone's file; UTC0 for a file that has none."""
    try:
        lines = path.read_bytes().rstrip(b"\n").rsplit(b"\n", 1)
    except OSError:
        return "UTC0"
    rule = lines[-1].decode("ascii", "replace")
    return rule if len(lines) == 2 and re.fullmatch(r"[A-Za-z0-9<>+:,./-]{1,64}", rule) else "UTC0"
