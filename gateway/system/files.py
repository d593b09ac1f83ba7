"""Replacing a file so that a power cut leaves the old one or the new one, with the owner and mode that it had."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

NEW_MODE: Final = 0o640  # of a file that was not there


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; raises OSError. A symbolic link stays one: what it names is replaced."""
    target = path.resolve()
    try:
        about = target.stat()
        mode, owner = stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid)
    except FileNotFoundError:
        mode, owner = NEW_MODE, None
    import tempfile  # here, because it stays in memory for good

    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                try:
                    os.fchown(file.fileno(), *owner)
                except PermissionError:
                    # Not root: the group at least, so that whoever could read it still can.
                    os.fchown(file.fileno(), -1, owner[1])
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def may_replace(path: Path) -> bool:
    """Whether this process can replace the file: it takes a temporary file beside it."""
    target = path.resolve()
    return os.access(target.parent, os.W_OK | os.X_OK) and (not target.exists() or os.access(target, os.W_OK))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # a file system that does not sync directories; the file's own content is safe
    finally:
        os.close(descriptor)
