"""Hashing passwords: what is kept, what is compared, how much work it is."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounts.passwords import (
    MAX_P,
    Cost,
    check_password,
    choose_cost,
    cost_of,
    hash_password,
    verify_password,
)

CHEAP = Cost(10, 1)
SALT = bytes(range(16))


def test_the_right_password_fits_and_a_wrong_one_does_not() -> None:
    """The hash knows its password, whatever cost it was made with."""
    for cost in (CHEAP, Cost(11, 2)):
        stored = hash_password("wonderland", cost, SALT)
        assert verify_password("wonderland", stored)
        assert not verify_password("Wonderland", stored)
        assert not verify_password("", stored)
        assert cost_of(stored) == cost


def test_the_hash_is_scrypt_with_the_cost_written_beside_it() -> None:
    """Another program can check it: standard scrypt, salt and hash in base64."""
    scheme, cost, salt, digest = hash_password("wonderland", CHEAP, SALT).split("$")[1:]
    assert (scheme, cost) == ("scrypt", "ln=10,r=8,p=1")
    assert salt == "AAECAwQFBgcICQoLDA0ODw=="
    expected = hashlib.scrypt(b"wonderland", salt=SALT, n=1024, r=8, p=1, dklen=32)
    assert expected == base64.b64decode(digest)


def test_the_same_letters_composed_otherwise_are_the_same_password() -> None:
    """Keyboards that send a letter and an accent apart log in too."""
    assert verify_password("caf\u0065\u0301", hash_password("café", CHEAP, SALT))


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_no_text_breaks_the_comparison(password: str) -> None:
    """Whatever a client sends is compared, not an error."""
    verify_password(password, hash_password("x", CHEAP, SALT))
    verify_password(password + "\ud800", hash_password("x", CHEAP, SALT))


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        "$scrypt$ln=10,r=8,p=1$AAAA",
        "$argon2$ln=10,r=8,p=1$AAAA$AAAA",
        "$scrypt$ln=30,r=8,p=1$AAAA$AAAA",
        "$scrypt$ln=10,r=8,p=99$AAAA$AAAA",
        "$scrypt$ln=10,r=9,p=1$AAAA$AAAA",
        "$scrypt$ln=10$AAAA$AAAA",
        "$scrypt$r$AAAA$AAAA",
        "$scrypt$ln=10,r=8,p=1$!$AAAA",
    ],
)
def test_a_damaged_hash_is_an_error_and_never_hours_of_work(stored: str) -> None:
    """What is no hash of ours, or costs more than a login may, raises ValueError."""
    with pytest.raises(ValueError, match="cannot be read"):
        verify_password("x", stored)


@pytest.mark.parametrize(
    ("lowest_s", "expected"),
    [
        (0.2, Cost(10, 1)),  # too slow even for the least: the least
        (0.06, Cost(10, 1)),
        (0.03, Cost(11, 1)),
        (0.01, Cost(13, 1)),
        (0.003, Cost(14, 2)),
        (0.0001, Cost(14, MAX_P)),
    ],
)
def test_the_cost_fits_the_box(lowest_s: float, expected: Cost) -> None:
    """As much work as fits in a tenth of a second, never more than 16 MiB."""
    assert choose_cost(0.1, lambda cost: lowest_s * 2 ** (cost.log2_n - 10) * cost.p) == expected


def test_a_box_whose_cache_is_small_gets_less_than_reckoned() -> None:
    """Large tables can be slower than the small one promised; then the table is halved."""
    assert choose_cost(0.1, lambda cost: 0.005 if cost.log2_n < 13 else 1.0) == Cost(12, 1)


@pytest.mark.parametrize("password", ["", "x" * 257, "a\nb", "a\0b", "\ud800"])
def test_what_cannot_be_a_password_is_refused_with_a_sentence(password: str) -> None:
    """Empty, endless, and what no form can send."""
    with pytest.raises(ValueError, match="password"):
        check_password(password)
