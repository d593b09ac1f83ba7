"""The queue of accounting records: what has not yet been answered for, in order, through any outage (RFC 2866, 5080).

Sans-IO. The records of one session go one after the other; a newer Interim replaces an older one that waits, a Stop
removes them. While servers answer, a new record goes at once. After a failed train the queue holds everything back and
tries with one record at a time, at growing distances; the first answer ends the outage, and what has waited follows
oldest first, at most `REPLAY_PER_S`. A record that fails again and again while others are answered is tried by itself,
ever more seldom, and holds up only its own session. Accounting-On and -Off hold up younger records while under way.

The hub's journal keeps the records; this queue tells which ones are done (answered, replaced, or dropped because
`limit` was reached: the oldest complete session first). Nothing else ever ends a record.

A record that has to wait is kept as octets: thousands of them in an outage are a third of what they are as objects, and
what lies scattered among objects that stay is memory that the process never gives back.
"""

from __future__ import annotations

import marshal
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, assert_never

from gateway.radius.requests import AccountingBody, Randomness
from gateway.session.model import AccountingRecord, AccountingStatus
from gateway.session.store import load_accounting, save_accounting
from gateway.values import value_class

REPLAY_PER_S: Final = 50.0
FIRST_BACKOFF_S: Final = 30.0
LONGEST_BACKOFF_S: Final = 600.0
_SERVER_SEEN_WAIT_S: Final = 1.0
_LATE_S: Final = 5.0  # a record that waited longer says so, whatever it waited for
_SUSPECT: Final = 2  # outages that others ended while this record failed: then the record is suspected
_GATEWAY_TRIES: Final = 5  # On and Off keep their place that often, because Starts must not overtake them
_WHOLE_GATEWAY: Final = (AccountingStatus.ON, AccountingStatus.OFF)
_FIELDS: Final = tuple(save_accounting(AccountingRecord(0, AccountingStatus.ON, "", None)))  # in the order of `_packed`


@value_class
class RecordQueued:
    """A record was made."""

    record: AccountingRecord


@value_class
class RecordsRestored:
    """The journal held these records from before the start."""

    records: tuple[AccountingRecord, ...]


@value_class
class RecordSettled:
    """A server answered for a record, or none did."""

    record_id: int
    answered: bool


@value_class
class ServerSeen:
    """There is reason to believe that accounting servers can be reached again."""


AccountingEvent = RecordQueued | RecordsRestored | RecordSettled | ServerSeen


@value_class
class SendRecord:
    """Ask the exchange to tell a server."""

    record_id: int


@value_class
class RecordsDone:
    """These records need not be kept any longer; `dropped` of them were never answered for."""

    record_ids: tuple[int, ...]
    dropped: int = 0


AccountingAction = SendRecord | RecordsDone


@dataclass(slots=True, eq=False)
class _Entry:
    record_id: int
    status: AccountingStatus
    session: str  # Acct-Session-Id
    kept: AccountingRecord | bytes  # as octets once it is late
    queued_at: float
    late: bool = False  # it was held back: it is sent with Acct-Delay-Time, and within the replay rate
    in_flight: bool = False
    probing: bool = False  # its train began in an outage
    superseded: bool = False
    answers_before: int = 0  # answers to anybody when its train began
    tries: int = 0  # failed trains of the present outage
    failures: int = 0  # times that others fared better
    due: float = 0.0  # not to be tried before; 0 unless it is suspected

    @property
    def rank(self) -> tuple[float, int, int]:
        """Its place among those that wait: who was tried less often first, then the oldest."""
        patience = _GATEWAY_TRIES if self.status in _WHOLE_GATEWAY else 1
        return self.due, self.tries // patience, self.record_id

    @property
    def record(self) -> AccountingRecord:
        """The record itself."""
        return _unpacked(self.record_id, self.kept) if isinstance(self.kept, bytes) else self.kept

    def hold_back(self) -> None:
        """It is late, and has to wait."""
        self.late = True
        self.pack()

    def pack(self) -> None:
        """Keep it as octets."""
        if not isinstance(self.kept, bytes):
            self.kept = _packed(self.kept)


class AccountingQueue:
    """Every record that no server has answered for."""

    def __init__(self, *, limit: int, window: int, random: Randomness) -> None:
        self._random = random
        self._entries: dict[int, _Entry] = {}
        # By Acct-Session-Id, oldest first: a few at most, for which a deque would take half a kilobyte.
        self._chains: dict[str, list[_Entry]] = {}
        self._complete: dict[str, None] = {}  # sessions of which both Start and Stop wait
        self._ready: deque[_Entry] = deque()  # heads of chains that wait only for room
        self._replay: list[tuple[float, int, int]] = []  # heap of ranks: heads of chains that are late
        self._tried: dict[_Entry, None] = {}  # failed in the present outage, in that order
        self._gateway_in_flight: set[int] = set()  # On and Off under way
        self._in_flight = 0
        self._outage_tries = 0
        self._resume_at = 0.0  # when the next try of an outage, or the next replayed record, may go
        self.outage = False
        self.answered = 0
        self.replaced = 0
        self.dropped = 0
        self.configure(limit=limit, window=window)

    def configure(self, *, limit: int, window: int) -> None:
        """Take over bounds: records kept, records under way at once."""
        self._limit = limit
        self._window = window

    def __len__(self) -> int:
        return len(self._entries)

    def receive(self, event: AccountingEvent, now: float) -> list[AccountingAction]:
        """Take note of an event; returns what to do about it, in order."""
        out: list[AccountingAction] = []
        match event:
            case RecordQueued(record):
                self._add(record, now, late=False, out=out)
            case RecordsRestored(records):
                for record in sorted(records, key=lambda record: record.record_id):
                    self._add(record, now, late=True, out=out)
            case RecordSettled(record_id, answered):
                self._settle(record_id, answered, now, out)
            case ServerSeen():
                if self.outage:
                    self._resume_at = min(self._resume_at, now + _SERVER_SEEN_WAIT_S)
            case _:
                assert_never(event)
        self._go(now, out)
        return out

    def tick(self, now: float) -> list[AccountingAction]:
        """Send what is due."""
        out: list[AccountingAction] = []
        self._go(now, out)
        return out

    def deadline(self) -> float | None:
        """When to tick next, None when nothing waits for a time."""
        self._drop_stale_heads()
        if not self._replay or self._blocked():
            return None
        return max(self._replay[0][0], self._resume_at)

    def snapshot(self) -> tuple[AccountingRecord, ...]:
        """All records not yet answered for, oldest first."""
        return tuple(self._entries[number].record for number in sorted(self._entries))

    def body(self, record_id: int, now: float, unix: float | None) -> AccountingBody:
        """The record as it is to be sent now, and how late it is (RFC 2866 §5.2).

        Its Event-Timestamp never changes: a record made before the clock was set goes without.
        """
        entry = self._entries[record_id]
        record = entry.record
        event_unix = record.event_unix
        if not entry.late and now - entry.queued_at < _LATE_S:
            return AccountingBody(record, event_unix, None)
        delay = now - entry.queued_at if event_unix is None or unix is None else unix - event_unix
        return AccountingBody(record, event_unix, max(0, int(delay)))

    # Coming

    def _add(self, record: AccountingRecord, now: float, *, late: bool, out: list[AccountingAction]) -> None:
        if record.record_id in self._entries:
            return
        if record.status in (AccountingStatus.INTERIM, AccountingStatus.STOP):
            self._replace_interims(record.acct_session_id, out)
        chain = self._chains.setdefault(record.acct_session_id, [])
        entry = _Entry(record.record_id, record.status, record.acct_session_id, record, now)
        if late:
            entry.hold_back()
        elif self.outage:
            entry.pack()
        self._entries[record.record_id] = entry
        chain.append(entry)
        self._note_complete(chain)
        if chain[0] is entry:
            self._offer(entry)
        if len(self._entries) > self._limit:
            self._make_room(out)

    def _replace_interims(self, session: str, out: list[AccountingAction]) -> None:
        """A newer Interim or the Stop says all that older Interims would have said."""
        replaced = []
        for entry in list(self._chains.get(session, ())):
            if entry.status is AccountingStatus.INTERIM:
                if entry.in_flight:
                    entry.superseded = True  # its answer is still welcome, but it is not sent again
                else:
                    self._forget(entry)
                    replaced.append(entry.record_id)
        if replaced:
            self.replaced += len(replaced)
            out.append(RecordsDone(tuple(replaced)))

    def _note_complete(self, chain: list[_Entry]) -> None:
        """Remember a session whose Start and Stop both wait: dropping it loses nobody's half."""
        first, last = chain[0], chain[-1]
        started = first.status is AccountingStatus.START and not first.in_flight
        if started and last.status is AccountingStatus.STOP:
            self._complete[first.session] = None

    def _make_room(self, out: list[AccountingAction]) -> None:
        """Drop the oldest session that would be told completely, else the oldest record that is not under way."""
        session = next(iter(self._complete), None)
        if session is not None:
            victims = list(self._chains[session])
        else:
            victims = [entry for entry in self._entries.values() if not entry.in_flight][:1]
        for entry in victims:
            self._forget(entry)
        if victims:
            self.dropped += len(victims)
            out.append(RecordsDone(tuple(entry.record_id for entry in victims), dropped=len(victims)))
            self._offer_next(victims[-1])

    # Going

    def _offer(self, entry: _Entry) -> None:
        """A record has become the first of its session: it waits for its turn, which may be now."""
        if entry.late or self.outage:
            entry.hold_back()
            heappush(self._replay, entry.rank)
        else:
            if self._blocked():
                entry.pack()
            self._ready.append(entry)

    def _offer_next(self, before: _Entry) -> None:
        """The first record of a session is over: the one behind it comes, no earlier than it would have."""
        chain = self._chains.get(before.session)
        if chain and not chain[0].in_flight:
            chain[0].late |= before.late
            self._offer(chain[0])

    def _blocked(self) -> bool:
        return self._in_flight >= self._window or bool(self._gateway_in_flight) or (self.outage and self._in_flight > 0)

    def _go(self, now: float, out: list[AccountingAction]) -> None:
        """Send what may go: new records at once, late ones at their rate, in an outage one alone to see who answers."""
        while self._ready and not self._blocked():
            entry = self._ready.popleft()
            if self._entries.get(entry.record_id) is not entry or entry.in_flight:
                continue
            if self.outage:
                self._offer(entry)
            else:
                self._send(entry, out)
        self._drop_stale_heads()
        while self._replay and not self._blocked() and now >= self._resume_at and self._replay[0][0] <= now:
            _, _, record_id = heappop(self._replay)
            self._send(self._entries[record_id], out)
            self._resume_at = max(self._resume_at, now - 1 / REPLAY_PER_S) + 1 / REPLAY_PER_S
            self._drop_stale_heads()

    def _drop_stale_heads(self) -> None:
        while self._replay:
            entry = self._entries.get(self._replay[0][2])
            if entry is not None and not entry.in_flight and entry.rank == self._replay[0]:
                return
            heappop(self._replay)

    def _send(self, entry: _Entry, out: list[AccountingAction]) -> None:
        entry.in_flight = True
        entry.probing = self.outage
        entry.answers_before = self.answered
        self._in_flight += 1
        self._complete.pop(entry.session, None)
        if entry.status in _WHOLE_GATEWAY:
            self._gateway_in_flight.add(entry.record_id)
        out.append(SendRecord(entry.record_id))

    def _settle(self, record_id: int, answered: bool, now: float, out: list[AccountingAction]) -> None:
        entry = self._entries.get(record_id)
        if entry is None or not entry.in_flight:
            return
        entry.in_flight = False
        self._in_flight -= 1
        self._gateway_in_flight.discard(record_id)
        if answered:
            self.answered += 1
            if self.outage:
                self._end_outage(entry, now)
        else:
            self._failed(entry, now)
        if answered or entry.superseded:
            self.replaced += not answered
            self._forget(entry)
            out.append(RecordsDone((record_id,)))
            self._offer_next(entry)
        else:
            entry.hold_back()
            heappush(self._replay, entry.rank)
            self._note_complete(self._chains[entry.session])

    def _failed(self, entry: _Entry, now: float) -> None:
        """Decide whether nobody answers, or only this record is not wanted."""
        if self.answered > entry.answers_before or (entry.failures >= _SUSPECT and not self.outage):
            entry.failures += 1
            entry.due = now + self._jittered(_grown(entry.failures))
            return
        entry.tries += 1
        self._tried[entry] = None
        if self.outage and not entry.probing:
            return  # it was under way when the outage began, and says nothing new
        self._outage_tries = self._outage_tries + 1 if self.outage else 1
        self.outage = True
        self._resume_at = now + self._jittered(_grown(self._outage_tries))

    def _end_outage(self, answered: _Entry, now: float) -> None:
        self.outage = False
        self._resume_at = now
        tried, self._tried = self._tried, {}
        for entry in tried:
            if entry is answered or self._entries.get(entry.record_id) is not entry:
                continue
            entry.failures += 1
            entry.tries = 0
            if entry.failures >= _SUSPECT:
                entry.due = now + self._jittered(_grown(entry.failures - 1))
            if not entry.in_flight and self._chains[entry.session][0] is entry:
                heappush(self._replay, entry.rank)

    def _forget(self, entry: _Entry) -> None:
        session = entry.session
        del self._entries[entry.record_id]
        chain = self._chains[session]
        chain.remove(entry)
        self._complete.pop(session, None)
        if not chain:
            del self._chains[session]

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.9 + 0.2 * self._random.random())


def _packed(record: AccountingRecord) -> bytes:
    """A record as octets for this process alone; its id is kept beside them."""
    return marshal.dumps(tuple(save_accounting(record).values()))


def _unpacked(record_id: int, octets: bytes) -> AccountingRecord:
    return load_accounting(record_id, dict(zip(_FIELDS, marshal.loads(octets), strict=True)))


def _grown(times: int) -> float:
    """The wait after so many failures in a row, in seconds: doubled each time."""
    return float(min(FIRST_BACKOFF_S * 2 ** min(times - 1, 10), LONGEST_BACKOFF_S))
