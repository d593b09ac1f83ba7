"""How long a login lives, and what is kept of its value."""

from __future__ import annotations

from gateway.admin.credentials import (
    SESSIONS_KEPT,
    SESSIONS_PER_OWNER,
    Session,
    Sessions,
    csrf_of,
    digest_of,
    session_value,
    token_value,
)


def session(number: int, owner: str = "alice", at: float = 0.0) -> Session:
    """A login."""
    return Session(str(number), digest_of(f"{owner} {number}"), owner, at, at, "192.0.2.1", "a browser", 0.0)


def test_a_session_ends_when_nobody_asks() -> None:
    """Half an hour without a request is enough; a request begins it anew."""
    sessions = Sessions(1800, 43200)
    one = session(1)
    sessions.add(one)
    assert sessions.find(one.digest, 1799) is one
    one.seen_at = 1799
    assert sessions.find(one.digest, 3598) is one
    assert sessions.find(one.digest, 3599) is None
    assert [over.id for over in sessions.over(3599)] == ["1"]
    assert sessions.find(one.digest, 0) is None


def test_a_session_ends_in_any_case_after_its_lifetime() -> None:
    """However busy."""
    sessions = Sessions(1800, 43200)
    one = session(1)
    sessions.add(one)
    one.seen_at = 43199
    assert sessions.left_s(one, 43199) == sessions.rest_s(one, 43199) == 1
    assert sessions.find(one.digest, 43200) is None


def test_the_number_of_sessions_is_bounded() -> None:
    """The one that was silent longest goes: of the same person first, so that nobody pushes others out."""
    sessions = Sessions(1800, 43200)
    sessions.add(session(0, "bob", at=-5.0))
    leaving = [gone.id for n in range(SESSIONS_PER_OWNER + 2) for gone in sessions.add(session(n, at=float(n)))]
    assert leaving == ["0", "1"]
    assert sum(one.owner == "bob" for one in sessions) == 1
    for n in range(SESSIONS_KEPT * 2):
        sessions.add(session(n, f"user{n}", at=100.0 + n))
    assert len(list(sessions)) == SESSIONS_KEPT


def test_values_are_random_and_kept_as_hashes_only() -> None:
    """The digest is no value; the form key follows from the value alone."""
    value = session_value(bytes(range(32)))
    assert len(value) == 43
    assert value not in repr(session(1))
    assert token_value(bytes(32)).startswith("pst_")
    assert csrf_of(value) != csrf_of(session_value(bytes(32)))
    assert digest_of("\udcff" + value) != digest_of(value)
