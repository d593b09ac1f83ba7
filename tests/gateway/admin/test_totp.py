"""The second factor, held against the tables of its RFC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.totp import STEP_S, code_at, matching_step, uri, written

SECRET = b"12345678901234567890"  # RFC 6238, appendix B


@pytest.mark.parametrize(
    ("unix", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_codes_are_those_of_the_rfc(unix: int, code: str) -> None:
    """The last six digits of its eight-digit examples."""
    assert code_at(SECRET, unix // STEP_S) == code
    assert matching_step(SECRET, f" {code[:3]} {code[3:]}", unix, -1) == unix // STEP_S


def test_one_step_to_either_side_is_accepted_and_no_more() -> None:
    """Clocks may differ by half a minute and a little."""
    now = 1_800_000_015
    step = now // STEP_S
    accepted = [offset for offset in range(-4, 5) if matching_step(SECRET, code_at(SECRET, step + offset), now, -1)]
    assert accepted == [-1, 0, 1]


def test_a_code_is_used_once_and_older_ones_with_it() -> None:
    """Whoever looked over a shoulder cannot use what was typed."""
    now = 1_800_000_015
    step = now // STEP_S
    assert matching_step(SECRET, code_at(SECRET, step), now, step) is None
    assert matching_step(SECRET, code_at(SECRET, step - 1), now, step) is None
    assert matching_step(SECRET, code_at(SECRET, step + 1), now, step) == step + 1


@given(st.text(max_size=40))
def test_garbage_is_refused(typed: str) -> None:
    """Letters, digits of other scripts and numbers of another length are no code."""
    found = matching_step(SECRET, typed, 59, -1)
    assert found is None or "".join(typed.split()) in {code_at(SECRET, step) for step in (0, 1, 2)}


def test_the_uri_is_what_apps_read() -> None:
    """Names are escaped; the secret is base32 without padding."""
    assert written(SECRET) == "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"
    assert uri(SECRET, "zoë/1", "Postern") == (
        "otpauth://totp/Postern:zo%C3%AB%2F1?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Postern&digits=6&period=30"
    )
