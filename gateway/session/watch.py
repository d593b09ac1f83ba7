"""When to look at which session, and what is asked about all of them together. Pure; `machine` decides what it means.

Each session has one time at which it must be looked at again: a heap has them. Entries of old times are passed over,
and dropped when there are more of them than of others: who logs in and out all day would leave one each time, for as
long as their session might have lasted. Three rounds go over all sessions: who has sent (for idle times), all counters,
and saving them.
"""

from __future__ import annotations

import heapq
from typing import Final

from gateway.session.actions import Action, ReadActivity, ReadCounters, SaveSession
from gateway.session.model import ClientKey
from gateway.session.policy import Policy
from gateway.session.table import Session, SessionTable
from gateway.session.usage import idle_ends_at, quota_look_at

# How often the clients' upload counters are compared, so that an idle time ends within two seconds of being reached.
# With more clients the rounds grow apart: a round costs some µs a client, and is held to a share of the processor.
ACTIVITY_ROUND_S: Final = 1.5
ACTIVITY_CLIENTS_PER_ROUND: Final = 3000
# Ten thousand sessions saved in one go would hold up everything else for a tenth of a second.
SAVED_AT_ONCE: Final = 200
SAVE_PAUSE_S: Final = 0.05
SOONEST_S: Final = 0.01
OLD_WAKES: Final = 1000  # of the heap that are not worth a walk
USUAL_LINK_RATE_BPS: Final = 1_000_000_000  # of a zone that the configuration no longer has


class Watch:
    """The times of all sessions of a table."""

    def __init__(self, sessions: SessionTable, policy: Policy) -> None:
        self.policy = policy
        self._sessions = sessions
        self._wakes: list[tuple[float, ClientKey]] = []
        self._activity_due_at: float | None = None
        self._counters_due_at: float | None = None
        self._save_due_at: float | None = None
        self._to_save: list[ClientKey] = []

    def __len__(self) -> int:
        """Entries of the heap, old ones included."""
        return len(self._wakes)

    def deadline(self) -> float | None:
        """When something is due next."""
        earliest = self._wakes[0][0] if self._wakes else None
        for due in (self._activity_due_at, self._counters_due_at, self._save_due_at):  # asked after every event
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def begin(self, session: Session, now: float) -> None:
        """Watch a session that has just come online, or changed."""
        self.schedule(session, now)
        if session.limits.idle_time_s is not None and self._activity_due_at is None:
            self._activity_due_at = now + ACTIVITY_ROUND_S
        if self._counters_due_at is None:
            self._counters_due_at = now + self.policy.stats_interval_s
        if self._save_due_at is None:
            self._save_due_at = now + self.policy.save_interval_s

    def schedule(self, session: Session, now: float) -> None:
        """Set the next time at which this session must be looked at."""
        times = (session.ends_at, idle_ends_at(session), session.interim_due_at, self.quota_look_at(session))
        due = min((time for time in times if time is not None), default=None)
        if due is not None:
            due = max(due, now + SOONEST_S)
        if due != session.wake_at:
            session.wake_at = due
            if due is not None:
                if len(self._wakes) > 2 * self._sessions.online_count + OLD_WAKES:
                    self._drop_old()
                heapq.heappush(self._wakes, (due, session.key))

    def _drop_old(self) -> None:
        """Keep the entries that `take_due` would not pass over; there is one of them for each session at most."""
        known = self._sessions.get
        self._wakes = list(
            {entry for entry in self._wakes if (session := known(entry[1])) is not None and session.wake_at == entry[0]}
        )
        heapq.heapify(self._wakes)

    def quota_look_at(self, session: Session) -> float | None:
        """When the session's quota could be used up."""
        zone = self.policy.zones.get(session.key.zone)
        return quota_look_at(session, USUAL_LINK_RATE_BPS if zone is None else zone.link_rate)

    def take_due(self, now: float) -> list[Session]:
        """The online sessions whose time has come; each is scheduled anew by whoever looks at it."""
        due: list[Session] = []
        while self._wakes and self._wakes[0][0] <= now:
            due_at, key = heapq.heappop(self._wakes)
            session = self._sessions.get(key)
            if session is not None and session.wake_at == due_at:
                session.wake_at = None
                if session.online:
                    due.append(session)
        return due

    def rounds(self, now: float) -> list[Action]:
        """What is to be asked about all clients together now."""
        orders: list[Action] = []
        online = self._sessions.online_count
        if self._activity_due_at is not None and now >= self._activity_due_at:
            self._activity_due_at = None
            if any(session.limits.idle_time_s is not None for session in self._sessions.online()):
                orders.append(ReadActivity())
                self._activity_due_at = now + ACTIVITY_ROUND_S * max(1.0, online / ACTIVITY_CLIENTS_PER_ROUND)
        if self._counters_due_at is not None and now >= self._counters_due_at:
            self._counters_due_at = now + self.policy.stats_interval_s if online else None
            if online:
                orders.append(ReadCounters(()))
        if self._save_due_at is not None and now >= self._save_due_at:
            orders.extend(self._save(now))
        return orders

    def _save(self, now: float) -> list[Action]:
        """The next slice of sessions to be saved."""
        if not self._to_save:
            self._to_save = [session.key for session in self._sessions.online()]
        slice_, self._to_save = self._to_save[:SAVED_AT_ONCE], self._to_save[SAVED_AT_ONCE:]
        if self._to_save:
            self._save_due_at = now + SAVE_PAUSE_S
        else:
            self._save_due_at = now + self.policy.save_interval_s if slice_ else None
        return [SaveSession(key) for key in slice_ if (found := self._sessions.get(key)) is not None and found.online]
