"""The resolvers that we ask: which of them is well, through which sockets ("lanes") we speak, and what is under way.

Pure state of the resolver core. A `Path` is one resolver over one transport, because a resolver that answers by UDP may
refuse TCP. A `Lane` is one socket of a path: over UDP a connected socket with a port of its own that the kernel chose
at random, replaced after some queries, so that whoever forges answers must guess port and id (RFC 5452 §9.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.config import Endpoint
from gateway.dns.message import Question

UDP_LANES: Final = 8  # sockets of a UDP path that take new queries; a TCP path has one connection
MAX_LANES: Final = 64  # sockets of a path at all, those included that wait for their last answers
LANE_QUERIES: Final = 500
LANE_AGE_S: Final = 60.0
FAILURES_TO_REST: Final = 3  # unanswered queries in a row
FIRST_REST_S: Final = 5.0
LONGEST_REST_S: Final = 60.0
UNREACHABLE_REST_S: Final = 2.0  # the kernel says so at once, so asking again is cheap

SocketAddress = tuple[str | int, ...]  # as the socket module gives it


class ReplyPath(NamedTuple):
    """Where an answer goes: number of a listening socket or of a client's connection; `address` with the former."""

    endpoint: int
    address: SocketAddress | None = None


class Attempt(NamedTuple):
    """One sending of a query."""

    lane: Lane
    upstream_id: int
    sent_at: float


@dataclass(slots=True, eq=False)
class Pending:
    """A question under way, and everybody who waits for its answer."""

    tcp: bool
    query: bytes
    key: tuple[bool, bytes]  # transport, and all of the query but its id: what makes two queries equal
    question: Question
    ends_at: float
    repeat_at: float
    waiters: list[tuple[ReplyPath, bytes]]  # with the id that each client chose
    attempts: list[Attempt] = field(default_factory=list)  # those that may still be answered
    tried: list[Path] = field(default_factory=list)
    held: bytes | None = None  # an answer that says no, kept while another resolver is asked


@dataclass(slots=True, eq=False)
class Lane:
    """One socket towards a resolver, and the questions that wait on it by their upstream id."""

    number: int
    path: Path
    opened_at: float
    queries: int = 0
    waiting: dict[int, Pending] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Path:
    """One resolver over one transport: its health and its lanes."""

    endpoint: Endpoint
    tcp: bool
    lanes: list[Lane] = field(default_factory=list)  # those that take new queries
    draining: set[Lane] = field(default_factory=set)  # those that wait for their last answers
    failures_in_a_row: int = 0
    failures: int = 0  # of all time, for the metrics
    rests: int = 0  # in a row
    resting_until: float = float("-inf")
    unreachable: bool = False  # the last rest is because the kernel could not even send
    last_answer_at: float = float("-inf")

    def answered(self, now: float) -> None:
        """An answer came: the path is well."""
        self.last_answer_at = now
        self.failures_in_a_row = self.rests = 0
        self.resting_until = float("-inf")
        self.unreachable = False

    def timed_out(self, asked_at: float, now: float) -> None:
        """A query of `asked_at` got no answer; a loss among answers says nothing about health."""
        self.failures += 1
        if self.last_answer_at >= asked_at:
            return
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= FAILURES_TO_REST and self.resting_until <= now:
            self.resting_until = now + min(LONGEST_REST_S, FIRST_REST_S * 2**self.rests)
            self.rests = min(self.rests + 1, 8)
            self.failures_in_a_row = 0
            self.unreachable = False

    def not_reachable(self, now: float) -> None:
        """The kernel says that nobody is there: no route, or the port is closed."""
        self.failures += 1
        self.unreachable = True
        self.resting_until = now + UNREACHABLE_REST_S

    def lane_for_query(self, now: float, choice: int) -> Lane | None:
        """A lane for one query, `choice` being a random number; None when a new one is to be opened for it.

        The first queries open the lanes; each later one takes a lane at random and replaces it when it is worn out.
        """
        lanes = self.lanes
        if len(lanes) < (1 if self.tcp else UDP_LANES):
            return None
        lane = lanes[choice % len(lanes)]
        worn = lane.queries >= LANE_QUERIES or now - lane.opened_at >= LANE_AGE_S
        return None if worn and not self.tcp and len(lanes) + len(self.draining) < MAX_LANES else lane

    def adopt(self, lane: Lane, choice: int) -> Lane | None:
        """Take a new lane, in place of the chosen one when all are there; returns that one if it may be closed now."""
        if len(self.lanes) < (1 if self.tcp else UDP_LANES):
            self.lanes.append(lane)
            return None
        at = choice % len(self.lanes)
        worn, self.lanes[at] = self.lanes[at], lane
        if worn.waiting:
            self.draining.add(worn)
            return None
        return worn

    def retire(self, lane: Lane) -> None:
        """Give the lane no new queries."""
        if lane in self.lanes:
            self.lanes.remove(lane)
        self.draining.discard(lane)


def choose(paths: list[Path], tried: list[Path], now: float) -> Path | None:
    """The path to ask next: the first that is well and was not tried, else the one whose rest ends first.

    None when none is left, or when the kernel has just said of all that are left that they cannot be reached.
    """
    resting: Path | None = None
    for path in paths:
        if path in tried:
            continue
        if path.resting_until <= now:
            return path
        if not path.unreachable and (resting is None or path.resting_until < resting.resting_until):
            resting = path
    return resting
