"""The DHCPv4 codec: identity, canonical form, and nothing but DecodeError for hostile octets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dhcp.v4_codec import (
    MINIMUM_OCTETS,
    DecodeError,
    Message,
    MessageType,
    Op,
    Option,
    decode,
    encode,
    options_octets,
    read_host_name,
    read_word,
    write_host_name,
    write_word,
)

CHADDR = bytes.fromhex("02005e100001") + bytes(10)
COOKIE = bytes((99, 130, 83, 99))

_words = st.integers(0, 2**32 - 1)
_halves = st.integers(0, 2**16 - 1)
_octets = st.integers(0, 255)
_codes = st.integers(1, 254).filter(lambda code: code not in (Option.OVERLOAD, Option.MESSAGE_TYPE))
messages = st.builds(
    Message,
    op=_octets,
    kind=st.sampled_from(MessageType),
    xid=_words,
    chaddr=st.binary(min_size=16, max_size=16),
    htype=_octets,
    hlen=st.integers(0, 16),
    hops=_octets,
    secs=_halves,
    flags=_halves,
    ciaddr=_words,
    yiaddr=_words,
    siaddr=_words,
    giaddr=_words,
    sname=st.binary(min_size=64, max_size=64),
    file=st.binary(min_size=128, max_size=128),
    options=st.dictionaries(_codes, st.binary(max_size=600), max_size=8),
)


def header(sname: bytes = bytes(64), file: bytes = bytes(128)) -> bytes:
    """The fixed part of a DISCOVER, cookie included."""
    return bytes((1, 1, 6, 0)) + bytes(24) + CHADDR + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + COOKIE


@given(messages)
def test_what_was_encoded_is_decoded_to_the_same(message: Message) -> None:
    """Decoding undoes encoding for every message, unknown and long options included."""
    assert decode(encode(message)) == message


@given(messages)
def test_encoding_is_deterministic_and_option_82_is_last(message: Message) -> None:
    """The order in which options were set does not show, and the relay's option stands before End."""
    message.options[Option.RELAY_AGENT] = b"\x01\x02ab"
    octets = encode(message)
    message.options = dict(reversed(message.options.items()))
    assert encode(message) == octets
    assert octets.rstrip(b"\0").endswith(bytes((82, 4)) + b"\x01\x02ab\xff")


@given(st.binary(max_size=700))
def test_any_octets_give_a_message_or_a_decode_error(octets: bytes) -> None:
    """Whatever arrives, alone or behind a proper header, the decoder raises nothing but DecodeError."""
    for packet in (octets, header() + octets, header(octets[:64], octets[64:192]) + b"\x34\x01\x03" + octets[192:]):
        try:
            decode(packet)
        except DecodeError:
            pass


def test_a_mutated_real_message_never_breaks_the_decoder() -> None:
    """Twenty thousand seeded mutations of a full request: a message or DecodeError, nothing else."""
    source = random.Random(20)
    options = {55: bytes(range(1, 40)), 61: bytes(20), 82: bytes(300), 12: b"phone", 57: b"\x05\xdc"}
    original = encode(Message(Op.REQUEST, MessageType.DISCOVER, 7, CHADDR, options=options))
    for _ in range(20_000):
        octets = bytearray(original[: source.randrange(len(original) + 1)])
        for _ in range(source.randrange(6)):
            if octets:
                octets[source.randrange(len(octets))] = source.randrange(256)
        try:
            decode(bytes(octets))
        except DecodeError:
            pass


def test_repeated_options_are_concatenated() -> None:
    """An option in two pieces is one value (RFC 3396)."""
    message = decode(header() + bytes((53, 1, 1, 61, 2)) + b"ab" + bytes((0, 61, 3)) + b"cde\xff")
    assert message.options == {61: b"abcde"}


def test_long_values_are_split_and_found_whole_again() -> None:
    """A value of 600 octets travels as three options of at most 255."""
    octets = encode(Message(Op.REPLY, MessageType.ACK, 1, CHADDR, options={120: bytes(range(200)) * 3}))
    assert bytes((120, 255)) in octets
    assert bytes((120, 90)) in octets
    assert decode(octets).options[120] == bytes(range(200)) * 3


def test_overloaded_fields_are_read_in_order() -> None:
    """Options in file come before those in sname, and both after the options field (RFC 2131 §4.1, RFC 3396 §5)."""
    octets = header(sname=bytes((12, 1)) + b"c\xff", file=bytes((12, 1)) + b"b\xff") + bytes(
        (53, 1, 1, 52, 1, 3, 12, 1)
    )
    message = decode(octets + b"a\xff")
    assert message.options == {12: b"abc"}
    assert message.sname == bytes(64)
    assert message.file == bytes(128)


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"", "too few"),
        (header()[:239], "too few"),
        (header()[:-4] + bytes(4), "cookie"),
        (header(), "message type"),
        (header() + b"\xff", "message type"),
        (header() + bytes((53, 1, 99, 255)), "message type"),
        (header() + bytes((53, 2, 1, 1, 255)), "message type"),
        (header() + bytes((53, 1, 1, 53, 1, 1, 255)), "message type"),
        (header() + bytes((53, 1, 1, 61)), "before its length"),
        (header() + bytes((53, 1, 1, 61, 9, 1)), "longer than the message"),
        (header() + bytes((53, 1, 1, 52, 1, 4)), "overload"),
        (header() + bytes((53, 1, 1, 52, 0)), "overload"),
        (header(file=bytes((52, 1, 1))) + bytes((53, 1, 1, 52, 1, 1)), "inside an overloaded"),
        (header(file=bytes((12, 200))) + bytes((53, 1, 1, 52, 1, 1)), "longer than the message"),
        (bytes((1, 1, 17)) + header()[3:] + bytes((53, 1, 1)), "hardware address length"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(octets: bytes, sentence: str) -> None:
    """Each kind of damage has its own words."""
    with pytest.raises(DecodeError, match=sentence):
        decode(octets)


def test_a_message_without_end_is_accepted() -> None:
    """Some clients fill the packet to its last octet."""
    assert decode(header() + bytes((53, 1, 1, 12, 1)) + b"a").options == {12: b"a"}


def test_short_messages_are_padded_for_old_relays() -> None:
    """No message is shorter than 300 octets (RFC 1542 §2.1)."""
    assert len(encode(Message(Op.REPLY, MessageType.NAK, 1, CHADDR))) == MINIMUM_OCTETS


@given(st.dictionaries(_codes, st.binary(max_size=600), max_size=6))
def test_the_size_of_options_is_known_before_encoding(options: dict[int, bytes]) -> None:
    """The size that the room is reckoned with is what encoding takes: header, type, options, End."""
    message = Message(Op.REPLY, MessageType.ACK, 1, CHADDR, options=options)
    assert len(encode(message)) == max(MINIMUM_OCTETS, 240 + 3 + options_octets(options) + 1)


@given(_words)
def test_words_round_trip(number: int) -> None:
    """Numbers and addresses of four octets are read as they were written; other lengths are no number."""
    assert read_word(write_word(number)) == number
    assert read_word(write_word(number)[1:]) is None


@given(st.binary(max_size=300))
def test_a_host_name_keeps_only_harmless_letters(value: bytes) -> None:
    """Whatever a client calls itself, what we keep can stand in a log line, a table and a page."""
    name = read_host_name(value)
    assert len(name) <= 63
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in name)
    assert read_host_name(write_host_name(name)) == name.strip(".")
