"""Frames of the control socket: four octets of length (big-endian), then one JSON object (docs/control-protocol.md).

    request   {"id": 1, "method": "status", "params": {}}        answered by exactly one of the next two
    result    {"id": 1, "result": ...}
    error     {"id": 1, "error": {"code": "not_found", "message": "a sentence"}}
    stream    {"id": 1, "event": ...} any number of times, then {"id": 1, "end": true} or an error
    cancel    {"id": 1, "cancel": true}                          ends a stream or a request under way
    notice    {"method": "...", "params": {}}                    a request without id; never answered

This module only turns octets into values and back; sockets are in `server`, `client` and `blocking`. JSON, because an
operator can read it and because no parser of ours is involved; the standard library's is bounded here in size, depth,
digits (its own limit of 4300) and character set. No dataclasses: importing them takes the command line 10 ms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, NoReturn

# What JSON can say. A method's parameters are a JSON object.
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
Params = dict[str, JsonValue]

MAX_REQUEST_BYTES: Final = 1 << 20  # one frame to the daemon
MAX_REPLY_BYTES: Final = 32 << 20  # one frame from the daemon: a listing of 60,000 sessions fits
MAX_DEPTH: Final = 16  # arrays and objects within each other
MAX_ID_LENGTH: Final = 64  # characters of an id that is a string
HEADER_BYTES: Final = 4

# Error codes: fixed names that programs act upon; the message is for people.
BAD_FRAME: Final = "bad_frame"  # not one JSON object, or nested too deeply
FRAME_TOO_LONG: Final = "frame_too_long"
BAD_REQUEST: Final = "bad_request"  # an object, but not a request
UNKNOWN_METHOD: Final = "unknown_method"
BAD_PARAMS: Final = "bad_params"
DENIED: Final = "denied"  # the caller may not do this
UNAUTHENTICATED: Final = "unauthenticated"  # an administrator's session or token that is missing, unknown or over
NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"  # it exists already, or is in a state that forbids the request
BUSY: Final = "busy"  # a bound was reached; trying again later is reasonable
UNAVAILABLE: Final = "unavailable"  # a part of the gateway that is needed is off or away
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
TOO_SLOW: Final = "too_slow"  # a subscriber that does not read its events
TOO_LARGE: Final = "too_large"  # the answer would not fit a frame
TOO_MANY_CONNECTIONS: Final = "too_many_connections"
INTERNAL: Final = "internal"  # our own fault; the daemon's log has the details
UNREACHABLE: Final = "unreachable"  # made by the client: nobody answers at the socket


class ControlError(Exception):
    """A request that cannot be answered: `code` is one of the names above, `message` a sentence for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class FrameError(Exception):
    """A frame that is not ours to understand; `fatal` says that the next frame's beginning is lost with it."""

    def __init__(self, code: str, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fatal = fatal


class Request(NamedTuple):
    """One request, notice (id None) or cancellation as it arrived."""

    id: int | str | None
    method: str
    params: Params
    cancel: bool = False


class FrameBuffer:
    """Octets in, frame bodies out. Holds at most one frame and what arrived behind it; the shell bounds the latter."""

    __slots__ = ("_buffer", "_limit", "_offset")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._offset = 0  # frames before it were taken; removed together, so that many small frames cost little
        self._limit = limit

    def feed(self, data: bytes) -> None:
        """Add octets as they came from the socket."""
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole frame's body, or None; raises FrameError for a length beyond the limit."""
        start = self._offset + HEADER_BYTES
        if len(self._buffer) < start:
            return None
        length = int.from_bytes(self._buffer[self._offset : start], "big")
        if length > self._limit:
            text = f"a frame of {length} octets is announced, {self._limit} are accepted"
            raise FrameError(FRAME_TOO_LONG, text, fatal=True)
        end = start + length
        if len(self._buffer) < end:
            return None
        self._offset = end
        return bytes(self._buffer[start:end])

    def __len__(self) -> int:
        """Octets held."""
        return len(self._buffer) - self._offset


def encode(message: dict[str, JsonValue]) -> bytes:
    """One frame; raises ValueError for what JSON cannot say (NaN, infinity) and TypeError for other types."""
    body = _ENCODE(message).encode("ascii")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode(body: bytes) -> dict[str, JsonValue]:
    """The object in one frame's body; raises FrameError (not fatal) for anything else."""
    try:
        text = body.decode("utf-8")
        value = _DECODE(text)
    except UnicodeDecodeError:
        raise FrameError(BAD_FRAME, "the frame is not UTF-8", fatal=False) from None
    except RecursionError:
        raise FrameError(BAD_FRAME, f"the frame nests deeper than {MAX_DEPTH} levels", fatal=False) from None
    except ValueError as err:  # JSONDecodeError, and int() at more than 4300 digits
        raise FrameError(BAD_FRAME, f"the frame is not JSON: {err}", fatal=False) from None
    if not isinstance(value, dict):
        raise FrameError(BAD_FRAME, "the frame is JSON, but not an object", fatal=False)
    # Brackets can only nest if there are more of them than levels: nearly every frame is done after two counts.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise FrameError(BAD_FRAME, f"the frame nests deeper than {MAX_DEPTH} levels", fatal=False)
    # JSON can spell half a surrogate pair, which no text file, socket or database takes afterwards.
    if (b"\\ud" in body or b"\\uD" in body) and not _is_text(value):
        raise FrameError(BAD_FRAME, "a string in the frame holds half a surrogate pair", fatal=False)
    return value


def parse_request(body: bytes) -> Request:
    """A request, notice or cancellation; raises FrameError."""
    message = decode(body)
    request_id = message.get("id")
    # bool is an int to Python, and True == 1 would answer somebody else's request
    if request_id is not None and (isinstance(request_id, bool) or not isinstance(request_id, int | str)):
        raise FrameError(BAD_REQUEST, '"id" must be a number without fraction or a string', fatal=False)
    if isinstance(request_id, str) and len(request_id) > MAX_ID_LENGTH:
        raise FrameError(BAD_REQUEST, f'"id" must not be longer than {MAX_ID_LENGTH} characters', fatal=False)
    if isinstance(request_id, int) and abs(request_id) >= 1 << 63:
        raise FrameError(BAD_REQUEST, '"id" must fit 64 bits', fatal=False)
    if message.get("cancel") is True:
        return Request(request_id, "", {}, cancel=True)
    method = message.get("method")
    if not isinstance(method, str):
        raise FrameError(BAD_REQUEST, '"method" must be a string', fatal=False)
    params = message.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise FrameError(BAD_REQUEST, '"params" must be an object', fatal=False)
    return Request(request_id, method, params)


def request_frame(request_id: int | str | None, method: str, params: Params) -> bytes:
    """A request, or a notice when `request_id` is None; raises ControlError when it is too long for the daemon."""
    message: dict[str, JsonValue] = {"method": method, "params": params}
    if request_id is not None:
        message["id"] = request_id
    frame = encode(message)
    if len(frame) > MAX_REQUEST_BYTES + HEADER_BYTES:
        text = f"the request {method} has {len(frame)} octets, {MAX_REQUEST_BYTES} are accepted"
        raise ControlError(FRAME_TOO_LONG, text)
    return frame


def cancel_frame(request_id: int | str) -> bytes:
    """Ask for the end of a stream or request."""
    return encode({"id": request_id, "cancel": True})


def result_frame(request_id: int | str, result: JsonValue) -> bytes:
    """The answer to a request."""
    return encode({"id": request_id, "result": result})


def event_frame(request_id: int | str, event: JsonValue) -> bytes:
    """One item of a stream."""
    return encode({"id": request_id, "event": event})


def end_frame(request_id: int | str) -> bytes:
    """The regular end of a stream."""
    return encode({"id": request_id, "end": True})


def error_frame(request_id: int | str | None, code: str, message: str) -> bytes:
    """The refusal of a request; with id None it concerns the connection or a frame that could not be read."""
    return encode({"id": request_id, "error": {"code": code, "message": message}})


def error_of(message: dict[str, JsonValue]) -> ControlError | None:
    """The error that a frame of the daemon carries, if it carries one."""
    error = message.get("error")
    if error is None:
        return None
    if not isinstance(error, dict):
        return ControlError(INTERNAL, "the daemon sent an error that is not an object")
    return ControlError(str(error.get("code", INTERNAL)), str(error.get("message", "")))


def _depth_exceeds(value: JsonValue, limit: int) -> bool:
    level: list[JsonValue] = [value]
    for _ in range(limit):
        deeper: list[JsonValue] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return False
        level = deeper
    return any(isinstance(item, dict | list) for item in level)


def _is_text(value: JsonValue) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    """A number with a fraction or exponent; one that Python can only hold as infinity could not be sent on."""
    value = float(digits)
    return value if math.isfinite(value) else _refuse_constant(digits[:32])


_DECODE: Final[Callable[[str], JsonValue]] = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite
).decode
# Pure ASCII on the wire: every octet of a frame can be shown in a terminal and in a bug report.
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode

Answer = JsonValue | Awaitable[JsonValue]
