"""Codes that people copy by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.codes import ALPHABET, SETUP_CHARACTERS, digest, make_code, plain, same_code


def test_a_code_has_no_letters_that_look_alike() -> None:
    """Neither 0 nor O, neither 1 nor I; thirty-two characters are five bits each."""
    assert len(ALPHABET) == len(set(ALPHABET)) == 32
    assert not set("01IO") & set(ALPHABET)
    assert SETUP_CHARACTERS * 5 >= 80


@given(st.binary(min_size=16, max_size=16))
def test_case_blanks_and_dashes_do_not_count(random: bytes) -> None:
    """A code that was typed carelessly is the code."""
    code = make_code(random)
    assert [len(group) for group in code.split("-")] == [4, 4, 4, 4]
    assert same_code(code, code.lower().replace("-", " ") + " ")
    assert digest(code) == digest(plain(code).lower())


@given(st.text(max_size=200))
def test_anything_else_is_not_the_code(typed: str) -> None:
    """Whatever is typed is compared and refused, never an error."""
    assert not same_code("ZW98-8LMD-TM4S-ZK9G", typed)
    assert len(digest(typed)) == 64
