"""What is written down of a call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.audit import LONGEST_SUMMARY, summary_of
from gateway.control.protocol import JsonValue


def test_secrets_are_never_written_down() -> None:
    """By name, also within objects; files are said by their size."""
    summary = summary_of(
        {
            "username": "bob",
            **dict.fromkeys(("password", "passphrase", "code", "totp", "New_Password"), "hush"),
            "zone": {"name": "guest", "secret": "hush"},
            "text": "config\n" * 100,
            "data": "hush",
            "note": None,
            "limit": 5,
        }
    )
    assert "hush" not in summary
    assert summary == (
        'username="bob" password=… passphrase=… code=… totp=… New_Password=… zone={name:"guest" secret:…} '
        "text=(700) data=(4) limit=5"
    )


def test_the_current_password_is_a_secret_too() -> None:
    """It is what accounts.passwd calls the old one."""
    assert summary_of({"current": "hush"}) == "current=…"


@given(
    st.dictionaries(
        st.text(max_size=80),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=400),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=8,
    )
)
def test_a_summary_is_one_short_line(params: dict[str, JsonValue]) -> None:
    """Whatever was sent."""
    summary = summary_of(params)
    assert len(summary) <= LONGEST_SUMMARY
