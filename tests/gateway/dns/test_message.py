"""The wire format: names, questions, OPT records and our own answers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dns.message import (
    DecodeError,
    Edns,
    Name,
    Rcode,
    Record,
    decode_name,
    encode_name,
    encode_response,
    parse_name,
    read_edns,
    read_question,
)
from tests.gateway.dns.messages import counts_of, opt, query, rcode_of, wire_name

labels = st.binary(min_size=1, max_size=63)
names: st.SearchStrategy[Name] = (
    st.lists(labels, max_size=12).map(tuple).filter(lambda name: sum(len(label) + 1 for label in name) < 255)
)


@given(names, st.binary(max_size=20), st.binary(max_size=20))
def test_a_name_survives_encoding_and_decoding(name: Name, before: bytes, behind: bytes) -> None:
    """What encode_name writes, decode_name reads, wherever it stands."""
    wire = encode_name(name)
    assert decode_name(before + wire + behind, len(before)) == (name, len(before) + len(wire))


@given(names, labels)
def test_a_compressed_name_is_the_name_it_points_to(suffix: Name, label: bytes) -> None:
    """A label followed by a pointer reads as the label and the earlier name."""
    if sum(len(one) + 1 for one in (label, *suffix)) >= 255:
        return
    first = encode_name(suffix)
    message = first + bytes([len(label)]) + label + b"\xc0\x00"
    assert decode_name(message, len(first)) == ((label, *suffix), len(message))


@pytest.mark.parametrize(
    "message",
    [
        b"\xc0\x00",  # itself
        b"\x01a\xc0\x00",  # its own beginning
        b"\xc0\x02\xc0\x00",  # forwards, and back
        b"\x01a\xc0\x06\x01b\xc0\x00",
        b"\xc0",
        b"\x3fabc",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x80\0",
        b"",
        b"\x01a",
    ],
)
def test_a_bad_name_is_refused(message: bytes) -> None:
    """Loops, forward pointers, cut labels and unknown label types raise DecodeError and end."""
    with pytest.raises(DecodeError):
        decode_name(message, 0)


def test_a_chain_of_pointers_that_grows_too_long_is_refused() -> None:
    """255 octets are the limit of a name, also when compression makes it longer than the message."""
    message = bytearray(b"\x3f" + b"a" * 63 + b"\0")
    for _ in range(4):
        target = 0 if len(message) == 65 else len(message) - 66
        message += b"\x3f" + b"b" * 63 + (0xC000 | target).to_bytes(2)
    with pytest.raises(DecodeError, match="255"):
        decode_name(bytes(message), len(message) - 66)


def test_a_name_of_255_octets_is_the_longest() -> None:
    """Exactly 255 octets with the root pass, 256 do not."""
    longest = (b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61)
    assert len(encode_name(longest)) == 255
    with pytest.raises(DecodeError):
        encode_name((b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 62))
    with pytest.raises(DecodeError):
        read_question(query("")[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0\0\1\0\1")


@given(st.binary(max_size=300), st.integers(0, 310))
@example(b"\xc0\x00" * 6, 0)
def test_any_octets_decode_or_raise_decode_error(message: bytes, offset: int) -> None:
    """Readers raise DecodeError and nothing else."""
    for read in (lambda: decode_name(message, offset), lambda: read_question(message), lambda: read_edns(message, 12)):
        try:
            read()
        except DecodeError:
            pass


@given(st.binary(min_size=12, max_size=200))
def test_an_answer_can_be_written_to_any_query_with_a_header(message: bytes) -> None:
    """Whatever a client sent behind its header, our refusal is a well-formed response with its id."""
    try:
        question = read_question(message)
    except DecodeError:
        question = None
    answer = encode_response(message, question, Rcode.REFUSED)
    assert answer[:2] == message[:2]
    assert answer[2] & 0x80
    assert rcode_of(answer) == 5
    if question is not None:
        assert read_question(answer) == question
        read_edns(answer, question.end)


def test_the_question_is_read_in_lower_case_with_its_type_and_class() -> None:
    """Case is folded for comparison; type and class are numbers, known or not."""
    message = query("WwW.eXample.NET", 65, class_=3)
    assert read_question(message) == (wire_name("www.example.net"), 65, 3, len(message))


@pytest.mark.parametrize("count", [0, 2, 256])
def test_a_message_without_exactly_one_question_is_refused(count: int) -> None:
    """No question or two raise DecodeError."""
    message = query("example.net")
    with pytest.raises(DecodeError, match="one question"):
        read_question(message[:4] + struct.pack("!H", count) + message[6:])


def test_the_opt_record_is_found_behind_other_records() -> None:
    """EDNS is read wherever it stands in the additional section; two of them are refused."""
    other = wire_name("x") + struct.pack("!HHIH", 250, 1, 0, 3) + b"abc"
    message = query("example.net", additional=(other, opt(4096, dnssec_ok=True)))
    assert read_edns(message, read_question(message).end) == Edns(4096, True)
    twice = query("example.net", additional=(opt(), opt()))
    with pytest.raises(DecodeError, match="two OPT"):
        read_edns(twice, read_question(twice).end)


def test_our_answer_echoes_the_question_as_sent_and_answers_edns() -> None:
    """Mixed case comes back octet for octet, an OPT record is answered by one with the DO bit copied."""
    message = query("LoGiN.example", additional=(opt(4096, dnssec_ok=True),))
    question = read_question(message)
    record = Record(wire_name("login.example"), 1, 30, bytes((10, 0, 0, 1)))
    answer = encode_response(message, question, Rcode.NOERROR, answers=(record,), authoritative=True)
    assert answer[12 : question.end] == message[12 : question.end]
    assert counts_of(answer) == (1, 1, 0, 1)
    assert read_edns(answer, question.end) == Edns(1232, True)
    assert answer[2:4] == b"\x85\x80"  # QR AA RD, RA


@pytest.mark.parametrize("text", ["a..b", ".a", "x" * 64, "a." * 130])
def test_what_is_no_domain_name_is_refused(text: str) -> None:
    """Empty and too long labels and names raise DecodeError with the text or the length in it."""
    with pytest.raises(DecodeError):
        parse_name(text)


def test_names_of_people_become_labels() -> None:
    """The last dot does not matter, and letters beyond ASCII become A-labels."""
    assert parse_name("login.postern.lan.") == (b"login", b"postern", b"lan")
    assert parse_name("café.example") == (b"xn--caf-dma", b"example")
    assert parse_name(".") == ()
