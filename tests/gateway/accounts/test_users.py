"""Rules of user names and values."""

from __future__ import annotations

import pytest

from gateway.accounts.users import AccountError, User, check_name, check_user, name_key
from gateway.session.model import Limits


@pytest.mark.parametrize("name", ["alice", "Zimmer 12", "josé@hotel.example", "用户", "a" * 64, "O'Brien"])
def test_names_of_people_and_rooms_are_accepted(name: str) -> None:
    """Blanks within, any script, any mark."""
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", " alice", "alice ", "a" * 65, "a\nb", "a\0b", "a\u200bb", "a\u202eb", "\ud800", "用" * 64 + "户"]
)
def test_names_that_deceive_or_cannot_travel_are_refused(name: str) -> None:
    """Empty, too long, invisible and direction-changing characters."""
    with pytest.raises(AccountError, match="user name"):
        check_name(name)


@pytest.mark.parametrize(
    ("one", "other"), [("Alice", "aLICE"), ("STRASSE", "straße"), ("Ａlice", "alice"), ("É", "e\u0301")]
)
def test_case_and_width_do_not_count(one: str, other: str) -> None:
    """Two spellings that people take for the same name are the same user."""
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(
    "user",
    [
        User("a", devices=0),
        User("a", valid_until_unix=float("nan")),
        User("a", valid_until_unix=float("inf")),
        User("a", Limits(total_bytes=-1)),
        User("a", Limits(total_bytes=2**63)),
        User("a", note="x" * 1001),
        User("a", note="\ud800"),
        User("a", Limits(role="\ud800")),
    ],
)
def test_values_that_make_no_sense_are_refused(user: User) -> None:
    """Zero, negative, endless and unwritable values raise AccountError."""
    with pytest.raises(AccountError):
        check_user(user)


def test_a_session_ends_with_the_account() -> None:
    """The earlier of the limit and the account's own end holds."""
    assert User("a", Limits(terminate_unix=50.0), valid_until_unix=40.0).granted().terminate_unix == 40.0
    assert User("a", Limits(terminate_unix=30.0), valid_until_unix=40.0).granted().terminate_unix == 30.0
    assert User("a", Limits(session_time_s=5)).granted() == Limits(session_time_s=5)


def test_a_row_shows_what_is_set_and_no_password() -> None:
    """Values for the table of `postern users list`."""
    user = User("alice", Limits(total_bytes=1000), devices=2, note="room 12", created_unix=1.0)
    assert user.as_row() == {
        "username": "alice",
        "created_unix": 1.0,
        "devices": 2,
        "total_bytes": 1000,
        "note": "room 12",
    }
