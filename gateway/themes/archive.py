"""Reads an uploaded theme: a zip archive of at most 700 KB, held against bounds before and while it is unpacked. Pure.

Nothing is written while this reads, and no name of the archive becomes a path: a theme is flat, and its files are known
by plain names. One folder around everything is taken off, because that is how people pack.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from typing import Final

from gateway.themes.check import problems_of
from gateway.themes.contract import (
    IGNORED_TYPES,
    MAX_ARCHIVE_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_RATIO,
    MAX_TOTAL_BYTES,
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}\.[A-Za-z0-9]{2,5}")
_CHUNK: Final = 65536
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ThemeError(ValueError):
    """A theme cannot be taken; the text has a sentence for each thing that is wrong."""


def read_archive(data: bytes) -> dict[str, bytes]:
    """The files of a theme by name; raises ThemeError with everything that is wrong."""
    if len(data) > MAX_ARCHIVE_BYTES:
        raise ThemeError(f"The archive has {len(data)} octets; at most {MAX_ARCHIVE_BYTES} are accepted.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _unpack(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as err:
        raise ThemeError(f"This is not a zip archive that can be read: {err}.") from err
    problems = problems_of(files)
    if problems:
        raise ThemeError("\n".join(problems))
    return files


def _unpack(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_litter(entry.filename)]
    if len(entries) > MAX_FILES:
        raise ThemeError(f"The archive has {len(entries)} files; at most {MAX_FILES} are accepted.")
    names = _plain_names([entry.filename for entry in entries])
    files: dict[str, bytes] = {}
    total = 0
    for entry, name in zip(entries, names, strict=True):
        _check_entry(entry)
        content = _read(archive, entry)
        total += len(content)
        if total > MAX_TOTAL_BYTES:
            raise ThemeError(f"The theme has more than {MAX_TOTAL_BYTES} octets.")
        if name.lower() in map(str.lower, files):
            raise ThemeError(f"{name} stands twice in the archive.")
        if not name.lower().endswith(IGNORED_TYPES):
            files[name] = content
    return files


def _is_litter(path: str) -> bool:
    """What some systems put into archives besides."""
    return path.startswith("__MACOSX/") or path.rpartition("/")[2] in (".DS_Store", "Thumbs.db", "desktop.ini")


def _plain_names(paths: list[str]) -> list[str]:
    folders = {path.rpartition("/")[0] for path in paths}
    if len(folders) > 1:
        raise ThemeError("The archive has files in several folders; put all files of the theme beside each other.")
    names = [path.rpartition("/")[2] for path in paths]
    for path, name in zip(paths, names, strict=True):
        if path.startswith("/") or ".." in path.split("/") or "\\" in path or ":" in path or path.count("/") > 1:
            raise ThemeError(f"{path[:80]!r} is a path that leads elsewhere; files lie beside each other.")
        if not _NAME.fullmatch(name):
            raise ThemeError(f"{name[:80]!r} is not a plain file name (letters, digits, - and _, one dot).")
    return names


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename[:80]
    if entry.flag_bits & 0x1:
        raise ThemeError(f"{name!r} is encrypted; pack the theme without a password.")
    if entry.compress_type not in _METHODS:
        raise ThemeError(f"{name!r} is packed in an unusual way; use plain zip (deflate).")
    mode = entry.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0):
        raise ThemeError(f"{name!r} is a link or a device, not a file.")
    if entry.file_size > MAX_FILE_BYTES:
        raise ThemeError(f"{name!r} has {entry.file_size} octets; at most {MAX_FILE_BYTES} are accepted.")
    if entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        raise ThemeError(f"{name!r} is packed more tightly than real files are.")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content, never more than a file may have, whatever the archive's directory says."""
    pieces, size = [], 0
    with archive.open(entry) as stream:
        while piece := stream.read(_CHUNK):
            size += len(piece)
            if size > min(MAX_FILE_BYTES, MAX_RATIO * max(1, entry.compress_size)):
                raise ThemeError(f"{entry.filename[:80]!r} is larger than the archive says.")
            pieces.append(piece)
    return b"".join(pieces)
