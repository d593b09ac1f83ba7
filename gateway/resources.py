"""What the box has left: memory and room on the file system of the state."""

from __future__ import annotations

import os
from pathlib import Path


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Memory of the whole system, and what of it programs could still take (proc(5)); zeros where nobody says."""
    found = {"MemTotal": 0, "MemAvailable": 0}
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found["MemTotal"], found["MemAvailable"]


def disk_bytes(path: Path) -> tuple[int, int]:
    """Size of the file system that `path` is on, and what is free for others than root; zeros when it is away."""
    try:
        about = os.statvfs(path)
    except OSError:
        return 0, 0
    return about.f_frsize * about.f_blocks, about.f_frsize * about.f_bavail
