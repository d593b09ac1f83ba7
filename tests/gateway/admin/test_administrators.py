"""Which passwords are refused."""

from __future__ import annotations

import pytest

from gateway.admin.administrators import check_new_password


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("short", "use at least 12"),
        ("abababababab", "repeats a few"),
        ("margaret12345", "hardly more than the name"),
        ("PasswordPassword", "everybody tries first"),
        ("with a\ttab in it", "control character"),
        ("x" * 300, "256 are accepted"),
    ],
)
def test_weak_passwords_are_refused_with_a_remedy(password: str, sentence: str) -> None:
    """Length counts, kinds of characters do not."""
    with pytest.raises(ValueError, match=sentence):
        check_new_password(password, "margaret")


@pytest.mark.parametrize(
    "password",
    ["correct horse battery", "pâté de campagne", "margaret likes long walks", "日本語のパスワードです。長い"],
)
def test_long_passwords_of_any_script_are_fine(password: str) -> None:
    """Blanks, accents and other scripts are welcome."""
    check_new_password(password, "margaret")
