"""Heads and bodies as hostile clients send them; both parsers must say the same about the same octets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.messages import Request, RequestError
from webui.parsing import MAX_HEAD_BYTES, MAX_HEADERS, PARSERS, BodyReader, parse_head, wants_close

both = pytest.mark.parametrize("parser", sorted(PARSERS))


def head(data: bytes, parser: str) -> Request:
    """Parse with one parser."""
    return parse_head(data, "127.0.0.1", PARSERS[parser])


def outcome(data: bytes, parser: str) -> object:
    """What a parser makes of a head: the request's values, or the status of the refusal."""
    try:
        request = head(data, parser)
    except RequestError as err:
        return err.status
    return (request.method, request.target, request.minor, sorted(request.headers.items()))


def test_both_parsers_are_there() -> None:
    """The development machine has httptools, so that the tests below really compare two parsers."""
    assert sorted(PARSERS) == ["h11", "httptools"]


@both
def test_a_plain_request_is_read(parser: str) -> None:
    """Method, target and fields arrive; names in lower case, blanks around values gone."""
    request = head(b"GET /a?b=c HTTP/1.1\r\nHOST:  example.com \r\nX-Empty:\r\nAccept: a\r\nAccept: b\r\n\r\n", parser)
    assert (request.method, request.path, request.query, request.minor) == ("GET", "/a", "b=c", 1)
    assert request.headers == {"host": "example.com", "x-empty": "", "accept": "a, b"}


@both
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x01b\r\n\r\n", 400),
        (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET ftp://example.com/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(parser: str, data: bytes, status: int) -> None:
    """Each has one status, whichever parser is used."""
    assert outcome(data, parser) == status


@both
def test_an_upgrade_is_ignored(parser: str) -> None:
    """Java clients offer h2c with each request; the request counts, the offer does not."""
    request = head(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        parser,
    )
    assert request.target == "/"


@both
def test_octets_beyond_ascii_in_a_value_survive(parser: str) -> None:
    """They are kept as Latin-1, so nothing is lost and nothing fails."""
    assert head(b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", parser).headers["host"] == "\xff\xfe"


def test_closing_is_asked_for_or_of_the_version() -> None:
    """HTTP/1.1 keeps the connection unless one of the options says close."""
    fields: dict[str, str] = {"host": "a"}
    assert not wants_close(Request("GET", "/", 1, fields, ""))
    assert wants_close(Request("GET", "/", 0, fields, ""))
    assert wants_close(Request("GET", "/", 1, {**fields, "connection": "TE, Close"}, ""))


_tokens = st.text("abcXYZ019-_!~", min_size=1, max_size=12).map(str.encode)
_values = st.binary(max_size=30)
_lines = st.one_of(
    st.tuples(_tokens, _values).map(lambda pair: pair[0] + b": " + pair[1]),
    st.sampled_from(
        [
            b"Content-Length: 5",
            b"Content-Length: +5",
            b"Content-Length: 5, 5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"Host: b",
            b" folded",
        ]
    ),
)
_methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"FOO", b"CONNECT"])
_targets = st.one_of(
    st.sampled_from([b"/", b"*", b"http://a.example/x?y", b"https://a.example?x", b"//", b"/%00", b"HTTP://A"]),
    st.binary(max_size=20).map(lambda data: b"/" + data),
)
_ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])


@given(_methods, _targets, st.sampled_from([b"1.1", b"1.0", b"0.9", b"2"]), st.lists(_lines, max_size=6), _ends)
@settings(max_examples=1500)
def test_parsers_agree_on_nearly_requests(
    method: bytes, target: bytes, version: bytes, lines: list[bytes], end: bytes
) -> None:
    """Heads that are almost right: the same request, or the same refusal, and never another exception."""
    data = method + b" " + target + b" HTTP/" + version + b"\r\nHost: a" + b"".join(end + line for line in lines)
    data += b"\r\n\r\n"
    assert outcome(data, "httptools") == outcome(data, "h11")


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_parsers_agree_on_any_octets(data: bytes) -> None:
    """Noise is refused by both with the same status."""
    assert outcome(data, "httptools") == outcome(data, "h11")


def body_reader(limit: int = 1000, **fields: str) -> BodyReader:
    """A reader for a POST with some fields."""
    return BodyReader(
        Request("POST", "/", 1, {name.replace("_", "-"): value for name, value in fields.items()}, ""), limit
    )


def test_without_a_length_there_is_no_body() -> None:
    """RFC 9112 §6.3: a request without either field ends with its head."""
    assert body_reader().complete


def test_a_body_ends_where_its_length_says() -> None:
    """What follows stays for the next request."""
    reader, buffer = body_reader(content_length="3"), bytearray(b"abcGET")
    reader.feed(buffer)
    assert reader.complete
    assert (reader.take(), buffer) == (b"abc", bytearray(b"GET"))


def test_a_body_beyond_the_limit_is_refused_before_it_comes() -> None:
    """The announced length is enough to say no."""
    with pytest.raises(RequestError) as caught:
        body_reader(content_length="1001")
    assert caught.value.status == 413


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 7), st.booleans())
def test_chunks_give_back_the_body_however_they_arrive(parts: list[bytes], step: int, trailer: bool) -> None:
    """Decode after encode is identity at any size of the pieces, and the next request stays in the buffer."""
    wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n"
    wire += b"X-Trailer: 1\r\n\r\n" if trailer else b"\r\n"
    reader, buffer = body_reader(transfer_encoding="chunked"), bytearray()
    for start in range(0, len(wire), step):
        buffer += wire[start : start + step]
        reader.feed(buffer)
    buffer += b"NEXT"
    assert reader.complete
    assert reader.take() == b"".join(parts)
    assert bytes(buffer) == b"NEXT"


@pytest.mark.parametrize(
    "wire",
    [
        b"5\r\nhelloX",
        b"zz\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"5\nhello\r\n",
        b"1" * 300,
        b"123456789\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"X: " + b"y" * 200 + b"\r\n" + (b"X: " + b"y" * 200 + b"\r\n") * 30 + b"\r\n",
        b"1\r\na\r\n" * 200,
        b"3e9\r\n",
    ],
)
def test_broken_chunks_are_refused(wire: bytes) -> None:
    """Wrong sizes, wrong ends, floods of one-octet chunks, more than the limit."""
    reader, buffer = body_reader(transfer_encoding="chunked"), bytearray(wire * 2)
    with pytest.raises(RequestError):
        reader.feed(buffer)


@given(st.binary(max_size=300), st.integers(1, 20))
@settings(max_examples=500)
def test_any_octets_as_chunks_end_in_a_body_or_a_refusal(wire: bytes, step: int) -> None:
    """Nothing but RequestError is raised, and never more than the limit is held."""
    reader, buffer = body_reader(limit=64, transfer_encoding="chunked"), bytearray()
    try:
        for start in range(0, len(wire), step):
            buffer += wire[start : start + step]
            reader.feed(buffer)
    except RequestError:
        pass
    assert reader.size <= 64
    assert len(buffer) <= max(len(wire), MAX_HEAD_BYTES)
