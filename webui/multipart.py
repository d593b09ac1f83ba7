"""`multipart/form-data` as it streams by (RFC 7578, RFC 2046 §5.1): fields and files out of pieces of any size.

Sans-IO: octets in, events out; nothing of a file is kept but the few octets that may be the beginning of a boundary.
Small fields come as `Field`, a part with a file name as `FileBegun`, `FileData` …, `FileEnded`. What a browser never
sends (nested multiparts, transfer encodings, endless part headers) is refused.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.values import value_class

MAX_PART_HEAD_BYTES: Final = 4096
MAX_FIELD_BYTES: Final = 16 << 10
MAX_PARTS: Final = 16
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PARAMETER: Final = re.compile(r';\s*([A-Za-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')


class MultipartError(ValueError):
    """The body is not the form data that it says it is; the text says what is wrong with it."""


@value_class
class Field:
    """A form field without a file."""

    name: str
    value: str


@value_class
class FileBegun:
    """A file begins; `filename` is what the client says, for display only."""

    name: str
    filename: str


@value_class
class FileData:
    """The next octets of the file."""

    data: bytes


@value_class
class FileEnded:
    """The file is whole."""


Event = Field | FileBegun | FileData | FileEnded


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names; raises MultipartError."""
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        raise MultipartError("the body is not multipart/form-data")
    for name, quoted, bare in _PARAMETER.findall(content_type[len(media_type) :]):
        if name.lower() == "boundary":
            boundary = quoted or bare
            if not _BOUNDARY.fullmatch(boundary):
                break
            return bytes(boundary, "ascii")
    raise MultipartError("the body names no boundary between its parts")


class MultipartReader:
    """One body. Feed it until `complete`; a body that ends earlier was cut."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first boundary has no line before it; with one put in front all boundaries look the same.
        self._buffer = bytearray(b"\r\n")
        self._state = "preamble"  # preamble, line (behind a boundary), head, field, file, done
        self._name = ""
        self._parts = 0

    @property
    def complete(self) -> bool:
        """Whether the closing boundary was read; what follows it is ignored (RFC 2046 §5.1.1)."""
        return self._state == "done"

    def feed(self, data: bytes) -> list[Event]:
        """Go on with the next octets; raises MultipartError."""
        if self._state == "done":
            return []
        self._buffer += data
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Event]) -> bool:
        """One step; False when more octets are needed."""
        match self._state:
            case "preamble":
                return self._skip_preamble()
            case "line":
                return self._behind_boundary()
            case "head":
                return self._head(events)
            case "field":
                return self._field(events)
            case "file":
                return self._file(events)
            case _:
                return False

    def _skip_preamble(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            if len(self._buffer) > MAX_PART_HEAD_BYTES:
                raise MultipartError("the first boundary does not come")
            return False
        del self._buffer[: at + len(self._delimiter)]
        self._state = "line"
        return True

    def _behind_boundary(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._state = "done"
            self._buffer.clear()
            return False
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > 80:
                raise MultipartError("a boundary is followed by something else than a new line")
            return False
        if self._buffer[:end].strip(b" \t"):
            raise MultipartError("a boundary is followed by something else than a new line")
        del self._buffer[: end + 2]
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MultipartError(f"the form has more than {MAX_PARTS} parts")
        self._state = "head"
        return True

    def _head(self, events: list[Event]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_PART_HEAD_BYTES:
            if len(self._buffer) > MAX_PART_HEAD_BYTES:
                raise MultipartError("the head of a part is too long")
            return False
        self._name, filename = _disposition(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._state = "field" if filename is None else "file"
        if filename is not None:
            events.append(FileBegun(self._name, filename))
        return True

    def _field(self, events: list[Event]) -> bool:
        at = self._buffer.find(self._delimiter)
        if (at if at >= 0 else len(self._buffer)) > MAX_FIELD_BYTES:
            raise MultipartError(f"the field {self._name[:64]!r} is too long")
        if at < 0:
            return False
        events.append(Field(self._name, self._buffer[:at].decode("utf-8", "replace")))
        del self._buffer[: at + len(self._delimiter)]
        self._state = "line"
        return True

    def _file(self, events: list[Event]) -> bool:
        at = self._buffer.find(self._delimiter)
        # Without a boundary in sight, all but what may be the beginning of one is the file's.
        upto = at if at >= 0 else len(self._buffer) - len(self._delimiter) + 1
        if upto > 0:
            events.append(FileData(bytes(self._buffer[:upto])))
            del self._buffer[:upto]
        if at < 0:
            return False
        del self._buffer[: len(self._delimiter)]
        events.append(FileEnded())
        self._state = "line"
        return True


def _disposition(head: bytes) -> tuple[str, str | None]:
    """Name and file name of a part (RFC 7578 §4.2); browsers send both in UTF-8, quotes as %22."""
    name, filename = None, None
    for line in head.decode("utf-8", "replace").split("\r\n"):
        field, colon, value = line.partition(":")
        if not colon:
            raise MultipartError("a line in the head of a part is not a header field")
        match field.strip().lower():
            case "content-disposition":
                if value.partition(";")[0].strip().lower() != "form-data":
                    raise MultipartError("a part is not form data")
                for key, quoted, bare in _PARAMETER.findall(value):
                    text = re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
                    if key.lower() == "name":
                        name = text
                    elif key.lower() == "filename":
                        filename = text
            case "content-transfer-encoding" if value.strip().lower() not in {"binary", "8bit", "7bit"}:
                raise MultipartError(f"the transfer encoding {value.strip()[:40]!r} is not known here")
            case _:
                pass
    if name is None:
        raise MultipartError("a part has no name")
    return name, filename
