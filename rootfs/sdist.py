"""The source archive: every file that git knows, in one order, with one time and no owner."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from rootfs.payload import PROJECT, committed, version


def write_sdist(destination: Path, epoch: int) -> Path:
    """Write postern-VERSION.tar.gz; returns its path."""
    top = f"postern-{version()}"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        metadata = f"Metadata-Version: 2.1\nName: postern\nVersion: {version()}\n".encode()
        _add(archive, f"{top}/PKG-INFO", metadata, 0o644, epoch)
        for path in committed():
            source = PROJECT / path
            mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
            _add(archive, f"{top}/{path}", source.read_bytes(), mode, epoch)
    made = destination / f"{top}.tar.gz"
    made.write_bytes(gzip.compress(raw.getvalue(), 9, mtime=0))
    return made


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int, epoch: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), mode, epoch
    archive.addfile(entry, io.BytesIO(data))
