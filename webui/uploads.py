"""Uploads of captures: a body streamed straight to its final place, in constant memory, as raw octets or as a form.

The place in the queue is taken before anything is read. Pieces go to a thread, which looks at them (`precheck`), writes
them, and is waited for before the next piece is read; so a slow disk holds the client back and nothing piles up.
Whatever ends an upload early removes what came and gives the place back.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from gateway.analysis.job import NAME_LIMIT, Failure, Retention, State
from gateway.analysis.precheck import Precheck
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Reader as ReaderSettings
from gateway.buckets import TokenBuckets
from webui import jobs
from webui.backend import Backend, Place
from webui.jobs import Limits, Refusal, Room
from webui.messages import Request, RequestError
from webui.multipart import Event, Field, FileBegun, FileData, FileEnded, MultipartError, MultipartReader, boundary_of

BODY_LIMIT: Final = 1 << 40  # our own bound comes first, with its own words
DRAIN_BYTES: Final = 64 << 20  # of a refused body that are read and thrown away, so that the refusal is heard
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Uploads:
    """What comes in now, with its bounds over all of it."""

    def __init__(self, backend: Backend, limits: Limits, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self.limits = limits
        self.active = 0
        self._backend = backend
        self._clock = clock
        self._buckets = TokenBuckets(limits.uploads_per_minute / 60, limits.uploads_per_minute)
        self._cleanups: set[asyncio.Future[None]] = set()
        self._settings: dict[str, str] = {}
        if limits.upload_bytes > ReaderSettings().max_bytes:
            self._settings["reader.max_bytes"] = str(limits.upload_bytes)

    async def receive(self, request: Request, owner: str, *, token_fits: Callable[[str], bool] | None = None) -> State:
        """Take the capture that is the body of a request, and queue it; raises Refusal and RequestError.

        With `token_fits` the body must be a form whose field `csrf`, before the file, passes it.
        """
        now = self._clock()
        if not self._buckets.take(owner, now):
            failure = Failure("too-many-uploads", "There were too many uploads within a minute.")
            raise Refusal(429, failure, max(1, round(self._buckets.wait_s(owner, now))))
        try:
            intake = await self._reserve(request, owner, token_fits)
        except OSError as err:
            if err.errno in _FULL:  # not even the row of an expired report can be written
                raise jobs.disk_full(0) from err
            raise
        try:
            await self._pour(request, intake)
            state = await asyncio.to_thread(intake.finish)
        except AnalysisRefused as err:
            raise jobs.refused(err) from None
        except MultipartError as err:
            raise jobs.bad_upload(f"The form cannot be read: {err}.") from None
        except OSError as err:
            if err.errno in _FULL:
                raise jobs.disk_full(0) from err
            raise
        finally:
            self._give_back(intake)
        return state

    async def _reserve(self, request: Request, owner: str, token_fits: Callable[[str], bool] | None) -> Intake:
        """A place in the queue, or Refusal; nothing was read yet."""
        declared = request.header("content-length")
        if not declared and not request.header("transfer-encoding"):
            raise Refusal(411, Failure("no-length", "The request has no body and no length."))
        wanted = int(declared) if declared else None
        if wanted == 0:
            raise jobs.bad_upload("The file is empty.")
        form = None
        if token_fits is not None or request.media_type == "multipart/form-data":
            try:
                form = MultipartReader(boundary_of(request.header("content-type")))
            except MultipartError as err:
                raise jobs.bad_upload(f"The form cannot be read: {err}.") from None
        self.active += 1  # before the first wait, so that no two uploads take the same place
        try:
            retention, states, room = await asyncio.to_thread(self._look)
            most = jobs.admit(self.limits, retention, states, self.active - 1, room, wanted)
            if wanted is not None:
                await asyncio.to_thread(self._backend.make_room, wanted)
        except BaseException:
            self.active -= 1
            raise

        def begin(name: str) -> Place:
            return self._backend.begin(name, owner, self._settings)

        return Intake(begin, most, self.limits, form=form, raw_name=_raw_name(request), token_fits=token_fits)

    def _look(self) -> tuple[Retention, list[State], Room]:
        return self._backend.retention(), self._backend.states(), self._backend.room()

    async def _pour(self, request: Request, intake: Intake) -> None:
        assert request.stream is not None
        began, received = self._clock(), 0
        async for piece in request.stream:
            received += len(piece)
            await asyncio.to_thread(intake.feed, piece)
            if jobs.is_too_slow(self.limits, received, self._clock() - began):
                raise RequestError(408, "the upload is too slow")

    def _give_back(self, intake: Intake) -> None:
        """Free the place once the thread has removed what was not queued; also when we are being cancelled."""
        loop = asyncio.get_running_loop()
        cleanup = loop.run_in_executor(None, intake.abandon)
        self._cleanups.add(cleanup)

        def done(future: asyncio.Future[None]) -> None:
            self._cleanups.discard(future)
            self.active -= 1

        cleanup.add_done_callback(done)


class Intake:
    """One upload on its way to the disk; blocking, for a thread.

    Its methods raise Refusal, AnalysisRefused, MultipartError and OSError.
    """

    def __init__(
        self,
        begin: Callable[[str], Place],
        most_bytes: int,
        limits: Limits,
        *,
        form: MultipartReader | None = None,
        raw_name: str = "capture",
        token_fits: Callable[[str], bool] | None = None,
    ) -> None:
        self._begin = begin
        self._most_bytes = most_bytes
        self._limits = limits
        self._form = form
        self._raw_name = raw_name
        self._token_fits = token_fits
        self._place: Place | None = None
        self._check = Precheck(ReaderSettings(max_bytes=limits.upload_bytes))
        self._bytes = 0
        self._files = 0
        self._over = False
        self._lock = threading.Lock()  # a cancelled upload is removed while its last piece may still be written

    def feed(self, data: bytes) -> None:
        """The next octets of the body."""
        with self._lock:
            if self._over:
                return
            if self._form is None:
                if self._place is None:
                    self._open(self._raw_name)
                self._take(data)
                return
            for event in self._form.feed(data):
                self._act(event)

    def finish(self) -> State:
        """The body is whole: check what can only be told now, and queue the capture."""
        with self._lock:
            if self._form is not None and not self._form.complete:
                raise jobs.bad_upload("The form ends in the middle.", "Upload the file again.")
            if self._place is None:
                raise jobs.bad_upload("No file was sent.", "Choose a capture file first.")
            self._check.finish()
            return self._place.submit()

    def abandon(self) -> None:
        """Remove what was not queued; nothing if it was."""
        with self._lock:
            self._over = True
            if self._place is not None:
                self._place.abandon()

    def _act(self, event: Event) -> None:
        match event:
            case Field(name="csrf", value=value) if self._token_fits is not None:
                if not self._token_fits(value):
                    raise _not_accepted()
                self._token_fits = None
            case FileBegun(filename=filename):
                if self._token_fits is not None:
                    raise _not_accepted()
                if not filename:  # the form was sent without a file being chosen
                    return
                if self._files:
                    raise jobs.bad_upload("The form holds more than one file.", "Upload one file after the other.")
                self._open(filename)
            case FileData(data=data):
                if self._place is not None:
                    self._take(data)
            case FileEnded() | Field():
                pass

    def _open(self, name: str) -> None:
        self._files += 1
        self._place = self._begin(name)

    def _take(self, data: bytes) -> None:
        assert self._place is not None
        self._bytes += len(data)
        if self._bytes > self._most_bytes:
            too_large = self._most_bytes >= self._limits.upload_bytes
            raise jobs.too_large(self._limits.upload_bytes) if too_large else jobs.disk_full(self._most_bytes)
        self._check.feed(data)
        self._place.write(data)


def _not_accepted() -> Refusal:
    return Refusal(
        403,
        Failure(
            "denied",
            "The form was too old, or was not sent from these pages.",
            hint="Load the page again and try again.",
        ),
    )


def _raw_name(request: Request) -> str:
    """The name that a client gives a body without a form: `X-Filename`, percent-encoded where it is not ASCII."""
    return unquote(request.header("x-filename"), errors="replace")[: 4 * NAME_LIMIT] or "capture"
