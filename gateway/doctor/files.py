"""What files tell: disk, clock, kernel tables, sysctls, who holds a socket, the worker's sign of life. Blocking, brief.

What a system does not have (a sysctl of a module that is not loaded) is None, not an error.
"""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.doctor.box import Clock, Disk, Tables, Worker
from gateway.doctor.sockets_in_use import Bound, Holder, inodes_of, read_table
from gateway.resources import disk_bytes

SPOOL: Final = "spool"
_BEAT: Final = "worker.json"  # as `analysis.worker` writes it, whose modules are not for the daemon
_NET: Final = Path("/proc/thread-self/net")
_SYSCTL: Final = Path("/proc/sys/net")
_MAX_BEAT_BYTES: Final = 65536
_UNSYNCHRONISED: Final = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES: Final = 512  # struct timex has 208 at most
_OWN_PROGRAMS: Final = ("posternd", "postern-web")
_OWN_MODULES: Final = ("gateway", "webui")


def disk_of(directory: Path) -> Disk:
    """The room in a directory, and whether a file can be made in it."""
    total, free = disk_bytes(directory)
    trouble = ""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-") as trial:
            trial.write(b"postern\n")
    except OSError as err:
        trouble = err.strerror or str(err)
    return Disk(str(directory), total, free, trouble)


def clock_of(directory: Path) -> Clock:
    """The wall clock beside the newest file of a directory."""
    newest: float | None = None
    try:
        with os.scandir(directory) as entries:
            newest = max((entry.stat().st_mtime for entry in entries if entry.is_file()), default=None)
    except OSError:
        pass  # `disk_of` says what is wrong with the directory
    return Clock(time.time(), newest, _is_kept())


def _is_kept() -> bool | None:
    """Whether the kernel believes the clock to be synchronised (adjtimex(2), which changes nothing with mode 0)."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _UNSYNCHRONISED


def tables() -> Tables:
    """Bounds of the kernel, and how many connections it follows."""
    return Tables(
        _number("netfilter/nf_conntrack_count"),
        _number("netfilter/nf_conntrack_max"),
        _number("ipv4/neigh/default/gc_thresh3"),
    )


def sysctls(paths: Iterable[str]) -> dict[str, str | None]:
    """Values below /proc/sys/net; None for what does not exist here."""
    return {path: _sysctl(path) for path in paths}


def _sysctl(path: str) -> str | None:
    try:
        return (_SYSCTL / path).read_text("ascii").strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _sysctl(path)
    return int(text) if text is not None and text.isdecimal() else None


def worker_of(state_dir: Path) -> Worker:
    """The worker's sign of life in the spool."""
    spool = state_dir / SPOOL
    try:
        if not spool.is_dir():
            return Worker(has_spool=False)
        with (spool / _BEAT).open("rb") as beat:
            told = json.loads(beat.read(_MAX_BEAT_BYTES))
    except FileNotFoundError:
        return Worker(has_spool=True)
    except (OSError, ValueError) as err:
        return Worker(has_spool=True, trouble=str(err))
    at = told.get("beat_unix") if isinstance(told, dict) else None
    if not isinstance(at, int | float):
        return Worker(has_spool=True, trouble=f"{spool / _BEAT} is not as the worker writes it")
    return Worker(has_spool=True, beat_age_s=max(0.0, time.time() - at))


def holders_of(config: Config, portal_uid: int | None) -> list[Holder]:
    """Who holds the ports that we need; `portal_uid` is the user of our portal."""
    bounds: list[Bound] = []
    for protocol in ("udp", "tcp"):
        for version, suffix in ((4, ""), (6, "6")):
            try:
                text = (_NET / f"{protocol}{suffix}").read_text("ascii")
            except OSError:
                continue  # a kernel without IPv6
            bounds += read_table(protocol, version, text)
    wanted = inodes_of(bounds, config)
    processes = _processes(frozenset(wanted)) if wanted else {}
    found = []
    for inode, bound in wanted.items():
        words = processes.get(inode, [])
        ours = _is_ours(words) or (not words and bound.port == config.uam.port and bound.uid == portal_uid)
        found.append(Holder(bound, Path(words[0]).name if words else "", ours))
    return found


def _is_ours(words: list[str]) -> bool:
    """Whether a command line is posternd's or postern-web's."""
    names = [Path(word).name for word in words[:3]]
    if any(name in _OWN_PROGRAMS for name in names):
        return True
    return any(flag == "-m" and module in _OWN_MODULES for flag, module in pairwise(words))


def _processes(inodes: frozenset[int]) -> dict[int, list[str]]:
    """Command lines by the inodes of their sockets, as far as we may look into other processes."""
    found: dict[int, list[str]] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                inode = links.get(str(descriptor.readlink()))
                if inode is not None and inode not in found:
                    found[inode] = _command_line(process)
        except OSError:
            continue  # it has ended, or is not ours to look into
        if len(found) == len(inodes):
            break
    return found


def _command_line(process: Path) -> list[str]:
    words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return [word.decode("utf-8", "replace") for word in words]
