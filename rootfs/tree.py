"""A file tree in memory, before it becomes a package: what is where, with which mode, whoever checked it out.

Packages take modes and times from here and never from the disk, so that the same source gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

PLAIN: Final = 0o644
PROGRAM: Final = 0o755
PRIVATE: Final = 0o640
DIRECTORY: Final = 0o755


@dataclass(frozen=True, slots=True)
class File:
    """One file: its content and its mode. With `link_to` it is a symbolic link and has no content."""

    data: bytes
    mode: int = PLAIN
    link_to: str = ""


@dataclass(slots=True)
class Tree:
    """Files by their path from the device's root, without the leading slash."""

    files: dict[str, File] = field(default_factory=dict)

    def add(self, path: str, data: bytes | str, mode: int = PLAIN) -> None:
        """Put a file; raises ValueError when there is one already, or the path leaves the tree."""
        self._check(path)
        self.files[path] = File(data.encode() if isinstance(data, str) else data, mode)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link."""
        self._check(path)
        self.files[path] = File(b"", 0o777, target)

    def _check(self, path: str) -> None:
        if path in self.files:
            raise ValueError(f"{path} is there twice")
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{path} leaves the tree")

    def merge(self, other: Tree) -> None:
        """Take all files of another tree."""
        for path, entry in other.files.items():
            self._check(path)
            self.files[path] = entry

    def __iter__(self) -> Iterator[tuple[str, File]]:
        """Files in the order of their paths' octets."""
        return iter(sorted(self.files.items(), key=lambda item: item[0].encode()))

    def directories(self) -> list[str]:
        """Every directory that the files need, parents first."""
        found = {str(parent) for path in self.files for parent in PurePosixPath(path).parents}
        return sorted(found - {"."}, key=str.encode)

    @property
    def size_bytes(self) -> int:
        """Octets of all files together."""
        return sum(len(entry.data) for entry in self.files.values())

    def write(self, root: Path, epoch: int) -> None:
        """Write everything below `root`, with the modes from here and one time for all."""
        for directory in self.directories():
            path = root / directory
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(DIRECTORY)
        for name, entry in self:
            path = root / name
            if entry.link_to:
                path.symlink_to(entry.link_to)
            else:
                path.write_bytes(entry.data)
                path.chmod(entry.mode)
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        for directory in reversed(self.directories()):
            os.utime(root / directory, (epoch, epoch))
