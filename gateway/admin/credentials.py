"""Sessions of administrators, and tokens of their programs. Pure state; time arrives as an argument.

The holder has a random value of 256 bits, we its SHA-256: whoever reads our memory or file cannot log in with it.
Session times are on the monotonic clock, which no wrong or stepped wall clock can stretch; sessions end with a boot.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.admin.roles import Scope
from gateway.values import value_class

VALUE_BYTES: Final = 32
TOKEN_MARK: Final = "pst_"  # lets secret scanners find a token that was published by mistake
MAX_VALUE_CHARACTERS: Final = 128
SESSIONS_PER_OWNER: Final = 32
SESSIONS_KEPT: Final = 256
TOKENS_PER_OWNER: Final = 64


@dataclass(slots=True)
class Session:
    """One login. Times are seconds on the monotonic clock."""

    id: str
    digest: bytes
    owner: str  # key of the administrator
    started_at: float
    seen_at: float
    address: str  # where the latest request came from
    agent: str
    started_unix: float


@value_class
class Token:
    """What a program may do for its owner."""

    id: str
    digest: bytes
    owner: str
    name: str
    scopes: frozenset[Scope]
    created_unix: float
    expires_unix: float | None


def session_value(random: bytes) -> str:
    """The value of a session's cookie."""
    return base64.urlsafe_b64encode(random).decode().rstrip("=")


def token_value(random: bytes) -> str:
    """The value of a token."""
    return TOKEN_MARK + session_value(random)


def digest_of(value: str) -> bytes:
    """What is kept of a session's or token's value."""
    return hashlib.sha256(value[:MAX_VALUE_CHARACTERS].encode("utf-8", "replace")).digest()


def csrf_of(value: str) -> str:
    """The key for form tokens of a session: known to whoever has the session's value, and to nobody else."""
    return hmac.new(value.encode("utf-8", "replace"), b"postern csrf", hashlib.sha256).hexdigest()


class Sessions:
    """All sessions, by digest. Ended ones are gone."""

    def __init__(self, idle_s: float, lifetime_s: float) -> None:
        self._by_digest: dict[bytes, Session] = {}
        self.configure(idle_s, lifetime_s)

    def configure(self, idle_s: float, lifetime_s: float) -> None:
        """Change how long sessions live; those there are included."""
        self._idle_s = idle_s
        self._lifetime_s = lifetime_s

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_digest.values()))

    def add(self, session: Session) -> list[Session]:
        """Take a new or restored session; returns those that have to go to make room."""
        own = [other for other in self if other.owner == session.owner]
        leaving = []
        if len(own) >= SESSIONS_PER_OWNER:
            leaving.append(min(own, key=lambda other: other.seen_at))
        elif len(self._by_digest) >= SESSIONS_KEPT:
            leaving.append(min(self, key=lambda other: other.seen_at))
        for other in leaving:
            del self._by_digest[other.digest]
        self._by_digest[session.digest] = session
        return leaving

    def find(self, digest: bytes, now: float) -> Session | None:
        """The session of a value, if it is alive."""
        session = self._by_digest.get(digest)
        return session if session is not None and self.left_s(session, now) > 0 else None

    def left_s(self, session: Session, now: float) -> float:
        """Seconds until it is over without another request; 0 or less when it is."""
        return min(session.seen_at + self._idle_s, session.started_at + self._lifetime_s) - now

    def rest_s(self, session: Session, now: float) -> float:
        """Seconds until it is over in any case."""
        return session.started_at + self._lifetime_s - now

    def over(self, now: float) -> list[Session]:
        """Take out the sessions whose time is over."""
        return self.remove(session for session in self if self.left_s(session, now) <= 0)

    def remove(self, leaving: Iterable[Session]) -> list[Session]:
        """Take out sessions; returns those that were there."""
        gone = [session for session in leaving if self._by_digest.get(session.digest) is session]
        for session in gone:
            del self._by_digest[session.digest]
        return gone
