"""The journal: everything that must survive a crash, in one file (the only door to msgpack).

A file is a row of records, each `length, CRC-32` (two big-endian 32-bit words) and a msgpack array
`[format, node, sequence, unix time, changes]`. A change is `[kind, key, value]`; a value of nil removes the key. One
record is one atomic step: it is read back whole or not at all. The state of a file is what its changes leave when
played in order, so a change may stand in it twice. Sequence numbers rise by one, so that a standby can follow "from n
on".

Promise: `append` returns after the record was given to the kernel, which survives the death of this process (SIGKILL).
`fdatasync` follows within `SYNC_INTERVAL_S`, many appends together, because flash wears out and its fsync takes tens of
milliseconds: a power cut may lose that last second. A torn tail is cut off and reported, never fatal. When the file has
grown to a multiple of its content it is rewritten beside the old one, in slices, and put in its place by rename.

A full disk does not stop the gateway: records wait in memory, and `trouble` says so until they could be written.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

FORMAT: Final = 1
SYNC_INTERVAL_S: Final = 0.5
COMPACT_AT_LEAST_BYTES: Final = 1 << 20
COMPACT_FACTOR: Final = 3  # times the size after the last compaction
SLICE_CHANGES: Final = 50  # gathered and packed at once while compacting: a millisecond
COMPACT_REST: Final = (
    3  # times what a slice took, for everybody else: logins go on while ten thousand sessions are written
)
MAX_RECORD_BYTES: Final = 16 << 20
MAX_WAITING_BYTES: Final = 8 << 20
_HEAD: Final = struct.Struct(">II")
# One for all records, because making one takes longer than packing with it. Used on the event loop's thread only.
_PACKER: Final = msgpack.Packer(use_bin_type=True, autoreset=True)

Key = str | int | tuple[str | bytes | int, ...]
# Any: a value is whatever msgpack carries; its owner (session.store, dhcp.leases …) gives it types.
Change = tuple[str, Key, Any]


class JournalError(OSError):
    """The journal cannot be opened; the message says what to do."""


@dataclass(slots=True)
class Replayed:
    """What a file held."""

    node: str
    sequence: int
    state: dict[str, dict[Key, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # sentences on what was cut or set aside
    changes: int = 0  # all that were played, also those that later ones undid

    def kind(self, name: str) -> dict[Key, Any]:
        """The keys and values of one kind."""
        return self.state.get(name, {})


def msgpack_flavour() -> str:
    """Which msgpack this is: with its C extension, or the slower pure-Python one."""
    return "C extension" if msgpack.Packer.__module__.endswith("_cmsgpack") else "pure Python"


def encode(node: str, sequence: int, unix: float, changes: Iterable[Change]) -> bytes:
    """One record as it stands in the file."""
    body: bytes = _PACKER.pack([FORMAT, node, sequence, unix, list(changes)])
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def replay(data: bytes) -> tuple[Replayed, int]:
    """Play records in order; returns what they leave and the offset behind the last whole record.

    Stops at the first record that is cut, damaged or of an unknown format; `notes` says which. Raises for no bytes.
    """
    result = Replayed(node="", sequence=0)
    offset, length = 0, len(data)
    while offset < length:
        if length - offset < _HEAD.size:
            result.notes.append(
                f"the last {length - offset} octets are the beginning of a record that was never finished"
            )
            break
        size, checksum = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + size]
        if size > MAX_RECORD_BYTES or len(body) < size:
            result.notes.append(f"the record at offset {offset} is cut off ({length - offset} octets are left)")
            break
        if zlib.crc32(body) != checksum or not _play(body, result):
            result.notes.append(f"the record at offset {offset} is damaged; {length - offset} octets are not read")
            break
        offset += _HEAD.size + size
    return result, offset


def _play(body: bytes, into: Replayed) -> bool:
    """Apply one record's changes; False, with nothing applied, when it is not one of ours."""
    try:
        format_number, node, sequence, _unix, changes = msgpack.unpackb(
            body, raw=False, use_list=False, strict_map_key=False
        )
        if format_number != FORMAT:
            return False
        for kind, key, _value in changes:
            hash((kind, key))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError):
        return False
    into.node, into.sequence = node, sequence
    into.changes += len(changes)
    for kind, key, value in changes:
        keys = into.state.setdefault(kind, {})
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = value
    return True


class Journal:
    """An open journal file.

    `state_of` gives every living change when the file is compacted. It is read in slices with other work between them,
    so it must bear that keys come and go meanwhile.
    """

    def __init__(
        self, path: Path, state_of: Callable[[], Iterable[Change]], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._state_of = state_of
        self._wall_clock = wall_clock
        self._descriptor = -1
        self._size = 0
        self._compact_at = COMPACT_AT_LEAST_BYTES
        self._dirty = False
        self._node = ""
        self._sequence = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._twin = -1  # the file being written by a compaction
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._sync_wanted = asyncio.Event()
        self._troubles: dict[str, str] = {}  # what does not work now, by what was tried
        self.appended = self.compactions = self.lost_records = self.syncs = self.failures = 0

    def open(self) -> Replayed:
        """Read the file, cut a torn tail, and be ready to append; raises JournalError.

        A file that is not a journal at all is set aside under another name, and an empty one takes its place.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            data = self._path.read_bytes() if self._path.exists() else b""
            replayed, good = replay(data)
            if data and good == 0:
                aside = self._path.with_name(f"{self._path.name}.damaged-{int(self._wall_clock())}")
                self._path.rename(aside)
                replayed.notes = [f"{self._path} is not readable; it was set aside as {aside.name} and a new one begun"]
            elif good < len(data):
                os.truncate(self._path, good)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot open {self._path}: {error.strerror}; check that its directory can be written"
            ) from error
        self._path.with_name(self._path.name + ".new").unlink(missing_ok=True)
        self._size = good
        # By what is alive in it, not by its size: else a gateway that is restarted again and again never compacts.
        alive = sum(map(len, replayed.state.values()))
        self._compact_at = max(COMPACT_AT_LEAST_BYTES, COMPACT_FACTOR * good * alive // max(1, replayed.changes))
        self._node = replayed.node = replayed.node or secrets.token_hex(4)
        self._sequence = replayed.sequence
        return replayed

    def append(self, changes: list[Change]) -> None:
        """Write one atomic record; returns when it would survive our death, or waits because the disk is full."""
        self._sequence += 1
        record = encode(self._node, self._sequence, self._wall_clock(), changes)
        self.appended += 1
        if self._waiting:
            self._wait(record)
            return
        self._write(record)

    def _write(self, record: bytes) -> bool:
        try:
            written = os.write(self._descriptor, record)
            if written < len(record):
                os.truncate(self._descriptor, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += written
        except OSError as error:
            self.failures += 1
            self._troubles["write"] = (
                f"cannot write {self._path}: {error.strerror}; free some space, nothing is lost meanwhile"
            )
            self._wait(record)
            return False
        if self._twin >= 0:
            self._write_twin(record)
        self._dirty = True
        if not self._sync_wanted.is_set():
            self._sync_wanted.set()
        return True

    def _write_twin(self, record: bytes) -> None:
        """Write to the file of a compaction; when that fails, the compaction is given up and the old file goes on."""
        try:
            whole = os.write(self._twin, record) == len(record)
        except OSError:
            whole = False
        if not whole:
            os.close(self._twin)
            self._twin = -1

    def _wait(self, record: bytes) -> None:
        """Keep a record until it can be written; beyond the bound the oldest are lost, and counted."""
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        self._sync_wanted.set()
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.lost_records += 1

    def _retry(self) -> None:
        """Try to write what waits, in order."""
        while self._waiting:
            record = self._waiting.popleft()
            self._waiting_bytes -= len(record)
            remaining, self._waiting = self._waiting, deque()
            if not self._write(record):
                self._waiting.extend(remaining)
                return
            self._waiting = remaining
        self._troubles.pop("write", None)

    async def run(self) -> None:
        """Sync what was appended, retry what waits, compact what has grown; ends only by cancellation."""
        loop = asyncio.get_running_loop()
        while True:
            await self._sync_wanted.wait()
            await asyncio.sleep(SYNC_INTERVAL_S)
            self._sync_wanted.clear()
            if self._waiting:
                self._retry()
                if self._waiting:
                    self._sync_wanted.set()
            if self._dirty:
                self._dirty = False
                await loop.run_in_executor(self._executor, self._sync, self._descriptor)
            if self._size > self._compact_at:
                await self._compact(loop)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
            self.syncs += 1
            self._troubles.pop("sync", None)
        except OSError as error:
            self.failures += 1
            self._troubles["sync"] = f"cannot sync {self._path}: {error.strerror}; the storage may be failing"

    async def _compact(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write the living state beside the file and put it in its place.

        What is appended meanwhile goes into both files. Changes are whole values, so one that also stands in a slice
        written later does no harm.
        """
        beside = self._path.with_name(self._path.name + ".new")
        try:
            self._twin = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            began = time.perf_counter()
            for piece in _slices(self._state_of(), SLICE_CHANGES):
                if self._twin >= 0:
                    self._write_twin(encode(self._node, self._sequence, self._wall_clock(), piece))
                await asyncio.sleep(COMPACT_REST * (time.perf_counter() - began))
                began = time.perf_counter()
            if self._twin >= 0:
                await loop.run_in_executor(self._executor, os.fsync, self._twin)
            if self._twin < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            beside.rename(self._path)
        except OSError as error:
            self.failures += 1
            self._troubles["rewrite"] = (
                f"cannot rewrite {self._path}: {error.strerror}; it goes on growing until there is space"
            )
            self._compact_at = self._size + COMPACT_AT_LEAST_BYTES
            beside.unlink(missing_ok=True)
            if self._twin >= 0:
                os.close(self._twin)
            self._twin = -1
            return
        os.close(self._descriptor)
        self._descriptor, self._twin = self._twin, -1
        self._size = os.fstat(self._descriptor).st_size
        self._compact_at = max(COMPACT_AT_LEAST_BYTES, COMPACT_FACTOR * self._size)
        self.compactions += 1
        self._troubles.pop("rewrite", None)
        await loop.run_in_executor(self._executor, self._sync_directory)

    def _sync_directory(self) -> None:
        """Make the rename last; without that a power cut may bring the old file back, which is whole as well."""
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.failures += 1
            self._troubles["sync"] = f"cannot sync {self._path.parent}: {error.strerror}; the storage may be failing"

    @property
    def trouble(self) -> str:
        """What does not work now, in sentences; empty while all is well."""
        return "; ".join(self._troubles.values())

    @property
    def size_bytes(self) -> int:
        """The file's size."""
        return self._size

    @property
    def waiting_records(self) -> int:
        """Records that could not be written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Write and sync what is left; the file stays as it is."""
        if self._descriptor >= 0:
            self._retry()
            self._sync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._executor.shutdown(wait=True)
        if self._twin >= 0:  # a rewriting that was cut short
            os.close(self._twin)
            self._twin = -1
            self._path.with_name(self._path.name + ".new").unlink(missing_ok=True)


def _slices(changes: Iterable[Change], size: int) -> Iterator[list[Change]]:
    piece: list[Change] = []
    for change in changes:
        piece.append(change)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
