"""Names of questions: the usual ones are looked up by their bytes, and come out as if they were read each time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.analysis import dns
from gateway.analysis.records import Notes
from gateway.analysis.settings import Settings
from gateway.analysis.state import State

KEY = bytes.fromhex("0a0900020a0900359c400035")
LABEL = st.binary(min_size=0, max_size=70).map(lambda raw: bytes((len(raw),)) + raw)
NAME = st.lists(LABEL | st.just(b"\xc0\x0c") | st.just(b"\xc0\x02"), max_size=6).map(b"".join)


def seen(question: bytes, *, response: bool, cut: bool) -> tuple[object, ...]:
    """What a fresh table knows after one message with this question."""
    state = State(Settings(), Notes())
    message = struct.pack(">HHHHHH", 7, 0x8180 if response else 0x0100, 1, 0, 0, 0) + question
    was_dns = dns.message(state, message, 0, len(message), cut, KEY, 10, 1, "udp")
    table = state.dns
    return was_dns, table.rows, table.names, list(table.parents), table.malformed, table.queries, table.responses


@given(name=NAME, rest=st.binary(max_size=300), response=st.booleans(), cut=st.booleans())
@example(name=b"\1a" + b"\3b\0c\2de", rest=b"\0\0\1\0\1", response=False, cut=False)
@example(name=b"", rest=b"\0\0\1\0\1", response=False, cut=False)
@example(name=b"\x3f" + b"x" * 63, rest=b"\0\0\1\0", response=False, cut=True)
@example(name=b"\x0aEXAMPLE-up\3NET", rest=b"\0\0\1\0\1", response=True, cut=False)
@example(name=(b"\x3e" + b"y" * 62) * 4, rest=b"\0\0\1\0\1", response=False, cut=False)
@example(name=(b"\x3f" + b"z" * 63) * 4, rest=b"\0\0\1\0\1", response=False, cut=False)
def test_the_bytes_of_a_question_stand_for_its_name(name: bytes, rest: bytes, response: bool, cut: bool) -> None:
    """Whatever a question holds, pointers, zeros in labels or too much: looking it up changes nothing."""
    looked_up = seen(name + rest, response=response, cut=cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dns, "_plain_name", lambda raw: None)
        assert looked_up == seen(name + rest, response=response, cut=cut)


def test_a_name_keeps_its_letters_and_is_matched_without_them() -> None:
    """A resolver that answers in other letters than those of the question (0x20) has answered it."""
    state = State(Settings(), Notes())
    for number, (flags, name) in enumerate(((0x0100, b"\3WwW\2eX\0"), (0x8180, b"\3wWw\2Ex\0"))):
        message = struct.pack(">HHHHHH", 7, flags, 1, 0, 0, 0) + name + b"\0\1\0\1"
        key = KEY if not number else KEY[4:8] + KEY[:4] + KEY[10:12] + KEY[8:10]
        assert dns.message(state, message, 0, len(message), False, key, number, 1 + number, "udp")
    (row,) = state.dns.rows
    assert (row[dns.R_NAME], row[dns.R_STATUS], row[dns.R_RESPONSE]) == ("WwW.eX", "ok", 2)
