"""Accounts that several devices use up together: who is on them, and what is left for each. Pure.

An account (`Grant.account`, a voucher) has one budget of time and octets. Its *pot* exists while a device is on it:
what ended sessions used, and the sessions that use it now. Each session's own view of the limits is `beside` and
`beside_s`, what was or will be used by others; with those, every rule that holds for one session holds for a shared
one.

What an ended session used is *pending* until the store says that it was written. Logins are decided by what the store
knew at that moment, so what is pending is added to it: nothing is counted twice, and nothing is given twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.session.model import NOTHING, ClientKey, Counters, Grant, Usage, UsedBefore
from gateway.session.table import Session


@dataclass(slots=True)
class _Pot:
    used: UsedBefore  # by sessions that have ended
    members: dict[ClientKey, Session] = field(default_factory=dict)


class SharedAccounts:
    """The pots of all accounts with somebody on them, and usage that is not written yet."""

    def __init__(self) -> None:
        self.pending: dict[str, Usage] = {}  # by session id
        self._pots: dict[str, _Pot] = {}

    def join(self, session: Session, grant: Grant, now: float) -> None:
        """A session begins under a grant: set what was used of it before, and beside it now."""
        if not grant.account:
            session.used, session.beside, session.beside_s = grant.used, grant.used.counters, grant.used.seconds
            return
        pot = self._pots.get(grant.account)
        if pot is None:
            waiting = (usage for usage in self.pending.values() if usage.account == grant.account)
            pot = self._pots[grant.account] = _Pot(_sum(grant.used, waiting))
        others = [member for member in pot.members.values() if member is not session]
        session.used = pot.used
        session.beside = sum((member.counters for member in others), pot.used.counters)
        session.beside_s = pot.used.seconds + sum(now - member.started_at for member in others)
        pot.members[session.key] = session

    def rejoin(self, session: Session, grant: Grant, now: float) -> None:
        """A session goes on after a restart; of what its fellows saved of the account, the most is true."""
        pot = self._pots.get(grant.account)
        if grant.account and pot is not None:
            pot.used = _more(pot.used, grant.used)
        self.join(session, grant, now)

    def leave(self, session: Session, grant: Grant) -> None:
        """A session is over; harmless when it was not in a pot."""
        pot = self._pots.get(grant.account)
        if pot is not None and pot.members.pop(session.key, None) is not None and not pot.members:
            del self._pots[grant.account]

    def ended(self, usage: Usage) -> None:
        """Take what an ended session used; call it before `leave`."""
        self.pending[usage.acct_session_id] = usage
        pot = self._pots.get(usage.account)
        if usage.account and pot is not None:
            pot.used = _sum(pot.used, (usage,))

    def charged(self, acct_session_ids: Iterable[str]) -> None:
        """These are written."""
        for acct_session_id in acct_session_ids:
            self.pending.pop(acct_session_id, None)

    def fellows(self, session: Session) -> list[Session]:
        """The other sessions that are online on the session's account."""
        pot = self._pots.get(session.grant.account) if session.grant is not None else None
        if pot is None:
            return []
        return [member for member in pot.members.values() if member is not session and member.online]

    def share_octets(self, sessions: list[Session], account: str) -> None:
        """Set what each of all sessions of an account sees of the octets that were used so far."""
        pot = self._pots[account]
        total = sum((session.counters for session in sessions), pot.used.counters)
        for session in sessions:
            session.used = pot.used
            session.beside = _less(total, session.counters)

    def share_time(self, sessions: list[Session], account: str, now: float) -> None:
        """Divide the time that is left among all sessions of an account, in equal parts from now on."""
        used_s = self._pots[account].used.seconds
        spent_s = used_s + sum(now - session.started_at for session in sessions)
        for session in sessions:
            budget_s = session.limits.session_time_s
            if budget_s is not None:
                ends_at = now + max(0.0, budget_s - spent_s) / len(sessions)
                session.beside_s = session.started_at + budget_s - ends_at


def _sum(used: UsedBefore, more: Iterable[Usage]) -> UsedBefore:
    seconds, counters = used.seconds, used.counters
    for usage in more:
        seconds += usage.seconds
        counters = counters + usage.counters
    return UsedBefore(seconds, counters)


def _more(one: UsedBefore, other: UsedBefore) -> UsedBefore:
    return one if one.seconds >= other.seconds else other


def _less(total: Counters, part: Counters) -> Counters:
    if part == NOTHING:
        return total
    return Counters(
        total.upload_bytes - part.upload_bytes,
        total.upload_packets - part.upload_packets,
        total.download_bytes - part.download_bytes,
        total.download_packets - part.download_packets,
    )
