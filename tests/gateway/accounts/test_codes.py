"""Voucher codes: made from a key, read as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.codes import (
    ALPHABETS,
    DEFAULT_LENGTH,
    DIGITS,
    LETTERS,
    LONGEST,
    SHORTEST,
    SPARSENESS,
    derive,
    grouped,
    lookup,
    readings,
    strong_enough,
)

KEY, SALT = bytes(range(32)), bytes(16)


def test_a_code_is_the_same_again_from_the_same_key_and_another_from_another() -> None:
    """A sheet can be printed again, and a stolen database without the key prints nothing."""
    code = derive(KEY, SALT, 7, "digits", 10)
    assert code == derive(KEY, SALT, 7, "digits", 10)
    assert len(code) == 10
    assert code != derive(bytes(32), SALT, 7, "digits", 10)
    assert code != derive(KEY, bytes(15) + b"\1", 7, "digits", 10)
    assert code != derive(KEY, SALT, 8, "digits", 10)


def test_letters_hold_nothing_that_is_taken_for_another() -> None:
    """No I, L and O, which look like digits, and no vowels, which make words."""
    assert not set(LETTERS) & set("AEIOUL01")
    assert len(set(LETTERS)) == len(LETTERS)


@given(
    st.sampled_from(sorted(ALPHABETS)),
    st.integers(0, 2**40),
    st.sampled_from(["{}", " {} ", "{}."]),
    st.booleans(),
    st.sampled_from(["", " ", "-", "–", "\u00a0", "_"]),
)
def test_a_printed_code_is_read_back_however_it_is_typed(
    alphabet: str, number: int, frame: str, lower: bool, mark: str
) -> None:
    """Case, blanks and dashes of any kind do not count."""
    code = derive(KEY, SALT, number, alphabet, DEFAULT_LENGTH[alphabet])
    typed = frame.format(grouped(code).replace("-", mark))
    assert code in readings(typed.lower() if lower else typed)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_read_as_codes_or_as_nothing(typed: str) -> None:
    """A reading has characters of one alphabet, and there are at most two."""
    found = readings(typed)
    assert len(found) <= 2
    for code in found:
        assert set(code) <= set(DIGITS) or set(code) <= set(LETTERS)


def test_look_alikes_and_other_scripts_digits_are_forgiven() -> None:
    """An O for a zero, an l for a one, and the digits of an Arabic keyboard."""
    assert "0123456780" in readings("O1234-5678o".replace("1", "l"))
    assert "0123456789" in readings("٠١٢٣٤٥٦٧٨٩")
    assert "0123456789" in readings("０１２３４ ５６７８９")
    assert "BZSK" in readings("8zsk")
    assert readings("AEIO") == []
    assert readings("") == []
    assert readings("1" * 65) == []


@pytest.mark.parametrize(
    ("code", "printed"),
    [("12345678", "1234-5678"), ("1234567890", "12345-67890"), ("123456789", "123-456-789"), ("BCDFGHJ", "BCDF-GHJ")],
)
def test_codes_are_printed_in_groups(code: str, printed: str) -> None:
    """Groups that the eye can hold."""
    assert grouped(code) == printed


def test_the_lookup_depends_on_the_key() -> None:
    """Whoever has the database cannot try codes without the key."""
    assert lookup(KEY, "1234567890") != lookup(bytes(32), "1234567890")
    assert len(lookup(KEY, "1")) == 16


def test_a_code_must_be_rare_among_all_that_could_be_typed() -> None:
    """Ten thousand vouchers of eight digits could be guessed; of ten digits not."""
    assert not strong_enough("digits", 8, 10_000)
    assert strong_enough("digits", 10, 10_000)
    assert strong_enough("letters", DEFAULT_LENGTH["letters"], 10_000)
    for alphabet in ALPHABETS:
        assert SHORTEST[alphabet] <= DEFAULT_LENGTH[alphabet] <= LONGEST
        assert len(ALPHABETS[alphabet]) ** SHORTEST[alphabet] >= 100 * SPARSENESS
