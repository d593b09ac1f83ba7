"""Form data cut out of a stream: the same events for every way of cutting it, and refusals in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.multipart import (
    MAX_FIELD_BYTES,
    MAX_PARTS,
    Event,
    Field,
    FileBegun,
    FileData,
    FileEnded,
    MultipartError,
    MultipartReader,
    boundary_of,
)

BOUNDARY = b"----WebKitFormBoundaryx7Gk"


def body(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    """A form of parts, each with the parameters of its Content-Disposition."""
    out = b""
    for parameters, content in parts:
        out += b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; " + parameters.encode()
        out += b"\r\nContent-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    return out + b"--" + BOUNDARY + end


def events_of(data: bytes, *, step: int = 1 << 20) -> tuple[list[Event], bool]:
    """All events, file data joined, and whether the end was there."""
    reader = MultipartReader(BOUNDARY)
    joined: list[Event] = []
    for at in range(0, len(data), step):
        for event in reader.feed(data[at : at + step]):
            last = joined[-1] if joined else None
            if isinstance(event, FileData) and isinstance(last, FileData):
                joined[-1] = FileData(last.data + event.data)
            else:
                joined.append(event)
    return joined, reader.complete


def test_a_form_with_a_field_and_a_file() -> None:
    """Fields come whole, files with their name and octets."""
    data = body(('name="csrf"', b"t0ken"), ('name="file"; filename="a b.pcap"', b"\r\n--x\r\n\r"))
    assert events_of(data) == (
        [Field("csrf", "t0ken"), FileBegun("file", "a b.pcap"), FileData(b"\r\n--x\r\n\r"), FileEnded()],
        True,
    )


@given(
    content=st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"x", b"\r\n", b"\r\n--", b"--" + BOUNDARY[:9]]), max_size=60
    ),
    step=st.integers(1, 70),
)
def test_the_cut_of_the_stream_changes_nothing(content: list[bytes], step: int) -> None:
    """Octets that nearly are a boundary stay the file's, however the pieces fall."""
    octets = b"".join(content)
    data = body(('name="note"', b""), ('name="file"; filename="f"', octets))
    wanted: list[Event] = [Field("note", ""), FileBegun("file", "f")]
    wanted += [FileData(octets)] if octets else []
    assert events_of(data, step=step) == ([*wanted, FileEnded()], True)


def test_a_body_that_ends_early_is_not_complete() -> None:
    """At every place where it can be cut before the closing boundary."""
    data = body(('name="file"; filename="f"', b"abc"), end=b"--")
    for at in range(len(data)):
        assert not events_of(data[:at])[1]
    assert events_of(data)[1]


def test_what_follows_the_end_is_ignored() -> None:
    """An epilogue is allowed and means nothing."""
    assert events_of(body(('name="a"', b"1")) + b"epilogue --" + BOUNDARY) == ([Field("a", "1")], True)


def test_names_with_quotes_and_paths_arrive_as_they_are() -> None:
    """They are display text; whoever stores them cleans them."""
    (begun, *_), _ = events_of(body((r'name="file"; filename="..\\..\"<b>é"', b"x")))
    assert begun == FileBegun("file", '..\\.."<b>é')


def test_no_octet_of_a_large_file_is_held_back_for_long() -> None:
    """What is kept is shorter than a boundary."""
    reader = MultipartReader(BOUNDARY)
    reader.feed(body(('name="file"; filename="f"', b""), end=b"")[: -len(BOUNDARY) - 4])
    for _ in range(20):
        given_out = sum(len(event.data) for event in reader.feed(b"\0" * 100_000) if isinstance(event, FileData))
        assert given_out >= 100_000 - len(BOUNDARY) - 4
        assert len(reader._buffer) <= len(BOUNDARY) + 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 5000, "first boundary"),
        (b"--" + BOUNDARY + b"garbage\r\n", "something else"),
        (b"--" + BOUNDARY + b"x" * 100, "something else"),
        (b"--" + BOUNDARY + b"\r\n" + b"A: b\r\n" * 1000, "head of a part is too long"),
        (b"--" + BOUNDARY + b"\r\nno colon\r\n\r\n", "not a header field"),
        (b"--" + BOUNDARY + b"\r\nContent-Type: text/plain\r\n\r\n", "no name"),
        (b"--" + BOUNDARY + b"\r\nContent-Disposition: attachment; name=a\r\n\r\n", "not form data"),
        (b"--" + BOUNDARY + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", "base64"),
        (body(('name="a"', b"x" * (MAX_FIELD_BYTES + 1))), "too long"),
        (body(*[('name="a"', b"")] * (MAX_PARTS + 1)), "more than"),
    ],
)
def test_what_no_browser_sends_is_refused(data: bytes, words: str) -> None:
    """With words that say what is wrong, also when it comes octet by octet."""
    with pytest.raises(MultipartError, match=words):
        events_of(data)
    with pytest.raises(MultipartError, match=words):
        events_of(data, step=1)


@given(st.binary(max_size=400))
def test_garbage_ends_with_events_or_a_refusal(data: bytes) -> None:
    """Nothing else is ever raised."""
    try:
        events_of(b"--" + BOUNDARY + b"\r\n" + data, step=7)
    except MultipartError:
        pass


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b/c"', b"a b/c"),
        ("multipart/form-data; Boundary=----x", b"----x"),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    """Quoted or not, whatever else stands there."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/mixed; boundary=a",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=" + "x" * 71,
    ],
)
def test_a_content_type_without_a_usable_boundary_is_refused(content_type: str) -> None:
    """It would be cut anywhere."""
    with pytest.raises(MultipartError):
        boundary_of(content_type)
