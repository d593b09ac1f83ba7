"""The life of each client in order: a bounded ring of events, the newest of which push out the oldest.

Held in parallel arrays rather than objects: 20,000 events with their words fit 4 MB. Each event points to the event
before it in the same bucket of clients, so that one client's life is read by walking back, without a second copy and
without any table that grows with the number of clients (an attacker with rotating MACs would fill it). Two bounds hold:
the number of events, and the octets of their words.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from gateway.control.protocol import TOO_SLOW, ControlError
from gateway.session.model import ClientKey

LONGEST_TEXT_BYTES: Final = 400  # of one event; a Reply-Message alone may have 253 (RFC 2865 §5.18)
MEAN_TEXT_BYTES: Final = 80  # what all events together may have per event that the ring holds
FOLLOWER_EVENTS: Final = 1000  # events that a follower may leave untaken
_NONE: Final = -1


class TimelineEvent(NamedTuple):
    """One thing that happened to a client. `kind` is a short fixed name, `text` says it in words."""

    at: float  # seconds on the monotonic clock
    key: ClientKey
    kind: str
    text: str


class Follower:
    """Events of the future, waiting to be taken: iterate over it asynchronously; it never ends by itself."""

    def __init__(self, key: ClientKey | None) -> None:
        self._key = key
        self._waiting: deque[TimelineEvent] = deque()
        self._arrived = asyncio.Event()
        self._missed = False

    def note(self, event: TimelineEvent) -> None:
        """Keep an event that this follower wants, up to a bound."""
        if self._key is not None and event.key != self._key:
            return
        if len(self._waiting) < FOLLOWER_EVENTS:
            self._waiting.append(event)
        else:
            self._missed = True
        self._arrived.set()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> TimelineEvent:
        """The next event; raises ControlError(too_slow) after the last one before the first that was missed."""
        while not self._waiting:
            if self._missed:
                raise ControlError(TOO_SLOW, f"more than {FOLLOWER_EVENTS} events were waiting; the stream is ended")
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


class Timeline:
    """The ring. Its own times are whatever `at` is given; nothing here looks at a clock."""

    def __init__(self, capacity: int) -> None:
        """A ring of at most `capacity` events (General.timeline_events)."""
        self._capacity = capacity
        self._at = array("d", bytes(8 * capacity))
        self._before = array("q", bytes(8 * capacity))  # number of the bucket's event before this one
        self._keys: list[ClientKey | None] = [None] * capacity
        self._kinds: list[str] = [""] * capacity
        self._texts: list[bytes] = [b""] * capacity  # UTF-8: a third smaller than str
        self._buckets = array("q", [_NONE]) * max(16, capacity // 4)  # number of each bucket's newest event
        self._first = 0  # number of the oldest event that is still here
        self._next = 0  # number of the next event; events are numbered from the start of the process
        self._text_bytes = 0
        self._text_budget = capacity * MEAN_TEXT_BYTES
        self._followers: list[Follower] = []
        self.total = 0  # events ever added

    def __len__(self) -> int:
        """Events held."""
        return self._next - self._first

    @property
    def forgotten(self) -> int:
        """Events that were pushed out."""
        return self._first

    def add(self, at: float, key: ClientKey, kind: str, text: str) -> None:
        """Note that something happened to a client; about a microsecond."""
        words = text.encode("utf-8", "backslashreplace")
        if len(words) > LONGEST_TEXT_BYTES:
            words = words[: LONGEST_TEXT_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()
        number = self._next
        if number - self._first >= self._capacity:
            self._forget_oldest()
        self._text_bytes += len(words)
        while self._text_bytes > self._text_budget and self._first < number:
            self._forget_oldest()
        slot = number % self._capacity
        bucket = hash(key) % len(self._buckets)
        before = self._buckets[bucket]
        if before >= self._first:
            known = self._keys[before % self._capacity]
            if known == key:
                key = known  # one object per client, not one per event
        self._at[slot] = at
        self._before[slot] = before
        self._keys[slot] = key
        self._kinds[slot] = kind
        self._texts[slot] = words
        self._buckets[bucket] = number
        self._next = number + 1
        self.total += 1
        if self._followers:
            event = TimelineEvent(at, key, kind, words.decode("utf-8"))
            for follower in self._followers:
                follower.note(event)

    def newest(self, limit: int) -> list[TimelineEvent]:
        """The last `limit` events of all clients, oldest first."""
        return [self._event(number) for number in range(max(self._first, self._next - limit), self._next)]

    def of_client(self, key: ClientKey, limit: int) -> list[TimelineEvent]:
        """The last `limit` events of one client, oldest first."""
        found: list[TimelineEvent] = []
        for number in self._bucket_backwards(key):
            if self._keys[number % self._capacity] == key:
                if len(found) >= limit:
                    break
                found.append(self._event(number))
        found.reverse()
        return found

    @contextmanager
    def follower(self, key: ClientKey | None) -> Iterator[Follower]:
        """The events from now on, of one client or (None) of all, for as long as the context lasts."""
        follower = Follower(key)
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    @property
    def followers(self) -> int:
        """Subscriptions under way."""
        return len(self._followers)

    def _bucket_backwards(self, key: ClientKey) -> Iterator[int]:
        number = self._buckets[hash(key) % len(self._buckets)]
        while number >= self._first:
            yield number
            number = self._before[number % self._capacity]

    def _event(self, number: int) -> TimelineEvent:
        slot = number % self._capacity
        key = self._keys[slot]
        assert key is not None
        return TimelineEvent(self._at[slot], key, self._kinds[slot], self._texts[slot].decode("utf-8"))

    def _forget_oldest(self) -> None:
        slot = self._first % self._capacity
        self._text_bytes -= len(self._texts[slot])
        self._keys[slot] = None
        self._texts[slot] = b""
        self._first += 1
