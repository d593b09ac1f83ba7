"""Frames: what is understood, and that nothing else does harm."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control import protocol
from gateway.control.protocol import ControlError, FrameBuffer, FrameError, JsonValue

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text that is Unicode: no half surrogate pairs
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refusal_of(reader: Callable[[bytes], object], body: bytes) -> FrameError | None:
    """The FrameError that a body gets; any other exception ends the test."""
    try:
        reader(body)
    except FrameError as err:
        return err
    return None


@given(JSON)
def test_what_is_encoded_is_decoded(value: JsonValue) -> None:
    """Every value that JSON can say and the protocol allows survives the way there and back."""
    frame = protocol.encode({"result": value})
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4:].isascii()
    assert refusal_of(protocol.decode, frame[4:]) is None
    assert protocol.decode(frame[4:]) == {"result": value}


@given(st.binary(max_size=300))
def test_any_octets_are_an_object_or_an_error(body: bytes) -> None:
    """A body is decoded, or refused with FrameError; nothing else is raised, and the next frame is not lost."""
    refusal = refusal_of(protocol.parse_request, body)
    assert refusal is None or not refusal.fatal


@given(JSON)
def test_any_json_is_a_request_or_an_error(value: JsonValue) -> None:
    """JSON of another shape than a request is refused with FrameError."""
    for body in (value, {"id": value, "method": "x"}, {"method": value}, {"method": "x", "params": value}):
        raw = json.dumps(body).encode()
        refusal = refusal_of(protocol.parse_request, raw)
        if refusal is None:
            request = protocol.parse_request(raw)
            assert isinstance(request.method, str)
            assert isinstance(request.params, dict)
            assert request.id is None or type(request.id) in (int, str)
        else:
            assert refusal.code in (protocol.BAD_FRAME, protocol.BAD_REQUEST)


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_frames_come_out_whole_however_they_arrive(bodies: list[bytes], data: st.DataObject) -> None:
    """Frames cut at any octet are put together again, in order."""
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    buffer = FrameBuffer(40)
    taken = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer.feed(stream[start:end])
        while (body := buffer.take()) is not None:
            taken.append(body)
    assert taken == bodies
    assert len(buffer) == 0


@given(st.text(max_size=30), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_frames_are_the_librarys_json(text: str, whole: int, part: float) -> None:
    """What JSON cannot say is refused."""
    message: dict[str, JsonValue] = {"id": 1, "result": [text, whole, part, True, None, {text: {}}]}
    assert protocol.encode(message)[4:] == json.dumps(message, separators=(",", ":")).encode("ascii")
    with pytest.raises(ValueError, match="JSON"):
        protocol.encode({"id": 1, "result": float("nan")})


def test_a_long_frame_is_refused_at_its_header() -> None:
    """The length alone is enough to refuse a frame: nothing is waited for or kept."""
    buffer = FrameBuffer(1000)
    buffer.feed((1001).to_bytes(4, "big"))
    with pytest.raises(FrameError, match="1001 octets") as refusal:
        buffer.take()
    assert refusal.value.fatal


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", protocol.BAD_FRAME),
        (b"GET / HTTP/1.1", protocol.BAD_FRAME),
        (b"\xff\xfe{}", protocol.BAD_FRAME),
        (b"[1]", protocol.BAD_FRAME),
        (b"{} {}", protocol.BAD_FRAME),
        (b'{"id":NaN,"method":"x"}', protocol.BAD_FRAME),
        (b'{"method":"x","params":{"n":-Infinity}}', protocol.BAD_FRAME),
        (b'{"method":"x","params":{"n":-1e999}}', protocol.BAD_FRAME),
        (b'{"method":"x","params":{"n":' + b"9" * 5000 + b"}}", protocol.BAD_FRAME),
        (b'{"method":"x","params":' + b'{"a":' * 20 + b"1" + b"}" * 20 + b"}", protocol.BAD_FRAME),
        (b'{"a":' * 100_000, protocol.BAD_FRAME),
        (b"[" * 500_000, protocol.BAD_FRAME),
        (b'{"method":"x","params":{"name":"\\ud800"}}', protocol.BAD_FRAME),
        (b"{}", protocol.BAD_REQUEST),
        (b'{"method":7}', protocol.BAD_REQUEST),
        (b'{"method":"x","id":true}', protocol.BAD_REQUEST),
        (b'{"method":"x","id":1.5}', protocol.BAD_REQUEST),
        (b'{"method":"x","id":[]}', protocol.BAD_REQUEST),
        (b'{"method":"x","id":' + b"9" * 30 + b"}", protocol.BAD_REQUEST),
        (b'{"method":"x","id":"' + b"i" * 65 + b'"}', protocol.BAD_REQUEST),
        (b'{"method":"x","params":[]}', protocol.BAD_REQUEST),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value,
)
def test_bad_frames_have_a_code(body: bytes, code: str) -> None:
    """Each kind of nonsense is refused by name, and the connection could go on."""
    with pytest.raises(FrameError) as refusal:
        protocol.parse_request(body)
    assert (refusal.value.code, refusal.value.fatal) == (code, False)


def test_depth_is_counted_in_levels_not_in_brackets() -> None:
    """Many brackets side by side, or within a string, are no depth."""
    wide = b'{"method":"x","params":{"list":[' + b",".join([b"[]"] * 1000) + b'],"text":"' + b"[" * 1000 + b'"}}'
    assert protocol.parse_request(wide).method == "x"
    levels = protocol.MAX_DEPTH - 2  # the frame's object and "params" are two of them
    deepest = b'{"method":"x","params":{"p":' + b"[" * levels + b"]" * levels + b"}}"
    assert protocol.parse_request(deepest).method == "x"
    with pytest.raises(FrameError, match="deeper"):
        protocol.parse_request(deepest.replace(b"[]", b"[[]]"))


def test_a_request_that_is_too_long_is_refused_before_it_is_sent() -> None:
    """The client says so itself; sending it would cost the connection."""
    with pytest.raises(ControlError) as refusal:
        protocol.request_frame(1, "config.check", {"text": "x" * protocol.MAX_REQUEST_BYTES})
    assert refusal.value.code == protocol.FRAME_TOO_LONG


def test_errors_of_odd_shape_are_still_errors() -> None:
    """An error frame without code or message does not pass for a result."""
    odd: tuple[JsonValue, ...] = ("text", {}, [], 0)
    for error in odd:
        made = protocol.error_of({"error": error})
        assert made is not None
        assert made.code == protocol.INTERNAL
    assert protocol.error_of({"result": None}) is None
