"""Upgrade bundles as they are uploaded: streamed straight to where postern-system finds them, one at a time.

Nothing of a bundle is read here: whether it is one, and for this device, is postern-system's to say, by its signature.
A piece is written by a thread and waited for before the next is taken, so an upload of any size costs the same memory.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from webui.admin.rest import Problem
from webui.messages import Request
from webui.multipart import Field, FileBegun, FileData, MultipartError, MultipartReader, boundary_of

PLACE: Final = Path("/var/lib/postern/upgrade")
LIMIT_BYTES: Final = 500_000_000  # a slot of an image is smaller
BODY_LIMIT: Final = 1 << 40  # our own bound comes first, with its own words
DRAIN_BYTES: Final = 64 << 20
_KEEP_FREE_BYTES: Final = 32 << 20
_MODE: Final = 0o640  # the group is that of the directory
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BundleIntake:
    """The place for a bundle; `receive` fills it."""

    def __init__(self, place: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._goal = place / "bundle"
        self._part = place / "bundle.uploading"
        self._busy = False

    @property
    def available(self) -> bool:
        """Whether there is a place where a bundle could be put."""
        return self._goal.parent.is_dir()

    async def receive(self, request: Request, *, token_fits: Callable[[str], bool] | None = None) -> int:
        """Take the bundle that is the body of a request; returns its size in octets. Raises Problem, RequestError.

        With `token_fits` the body must be a form whose field `csrf`, before the file, passes it.
        """
        declared = int(request.header("content-length") or 0)
        if declared > self.limit_bytes + (64 << 10):
            raise self._too_large()
        if self._busy:
            raise Problem(503, "Another bundle is being uploaded; wait until that is done.", code="busy")
        self._busy = True
        try:
            return await self._store(request, declared, token_fits)
        except MultipartError as err:
            raise Problem(400, f"The form cannot be read: {err}.", code="bad_request") from None
        except OSError as err:
            if err.errno in _FULL:
                raise Problem(507, "There is no room for the bundle; remove captures first.", code="full") from err
            raise Problem(503, f"The bundle cannot be kept: {err.strerror or err}.", code="unavailable") from err
        finally:
            self._busy = False
            self._part.unlink(missing_ok=True)

    async def _store(self, request: Request, declared: int, token_fits: Callable[[str], bool] | None) -> int:
        form = request.media_type == "multipart/form-data"
        if token_fits is not None and not form:
            raise Problem(415, "A form with the file was expected.")
        if not self.available:
            raise Problem(409, "This system is not upgraded from here.", code="conflict")
        room = os.statvfs(self._goal.parent)
        if declared > room.f_bavail * room.f_frsize - _KEEP_FREE_BYTES:
            raise Problem(507, "There is no room for the bundle; remove captures first.", code="full")
        assert request.stream is not None
        pieces = _of_form(request, token_fits) if form else request.stream
        self._part.unlink(missing_ok=True)
        size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._part, flags, _MODE), "wb") as file:
            os.fchmod(file.fileno(), _MODE)  # whatever the umask is: postern-system and posternd read it
            async for piece in pieces:
                size += len(piece)
                if size > self.limit_bytes:
                    raise self._too_large()
                await asyncio.to_thread(file.write, piece)
            if not size:
                raise Problem(400, "No file was sent.", code="bad_request")
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        self._part.replace(self._goal)
        return size

    def _too_large(self) -> Problem:
        return Problem(413, f"A bundle has at most {self.limit_bytes // 1_000_000} MB.", code="too_large")


async def _of_form(request: Request, token_fits: Callable[[str], bool] | None) -> AsyncIterator[bytes]:
    """The octets of the one file of a form, once its token was seen."""
    reader = MultipartReader(boundary_of(request.header("content-type")))
    assert request.stream is not None
    accepted, files = token_fits is None, 0
    async for piece in request.stream:
        for event in reader.feed(piece):
            match event:
                case Field(name="csrf", value=value) if token_fits is not None:
                    accepted = accepted or token_fits(value)
                case FileBegun() | FileData() if not accepted:
                    raise Problem(403, "The form was too old, or was not sent from these pages.", code="denied")
                case FileBegun(filename=filename) if filename:
                    files += 1
                    if files > 1:
                        raise Problem(400, "The form holds more than one file.", code="bad_request")
                case FileData(data=data):
                    yield data
    if not reader.complete:
        raise Problem(400, "The form ends in the middle.", code="bad_request")
