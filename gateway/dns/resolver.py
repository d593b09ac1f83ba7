"""The resolver core: what happens to each query of a guest (sans-IO).

Names of our own are answered here (`names`); every other query is forwarded as it is, under an unpredictable id and
from an unpredictable port, over the transport that the client used (an answer with the TC bit passes, and the client
asks again by TCP). An answer counts only if it comes through the socket that asked, with the id and the question of
the query (RFC 5452 §9.1). Equal queries under way are sent once. The longest wait is `timeout_s`; after a third of it
the query is repeated at the next resolver that is well, and when nobody answers, the client gets SERVFAIL and is not
left waiting. There is no cache: the clients and the upstream resolvers have one, and a gateway has little memory.

Nothing here must survive a restart, so this core has no snapshot. Every bound drops and counts (`Drop`). Each query by
TCP is answered exactly once or its connection closed; queries by UDP may be dropped.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, assert_never

from gateway.buckets import TokenBuckets
from gateway.config import Endpoint
from gateway.dns.events import (
    Action,
    CloseClient,
    CloseLane,
    Complain,
    Counts,
    Drop,
    Event,
    LaneFailed,
    OpenLane,
    QueryReceived,
    ResponseReceived,
    SendAnswer,
    SendQuery,
    Settings,
    SettingsChanged,
    UpstreamsChanged,
    UpstreamStatus,
)
from gateway.dns.message import (
    HEADER_BYTES,
    DecodeError,
    Question,
    Rcode,
    RecordType,
    encode_response,
    is_response,
    opcode,
    rcode,
    read_question,
)
from gateway.dns.upstreams import Attempt, Lane, Path, Pending, choose
from gateway.reports import ReportLimit

MAX_UPSTREAMS: Final = 8
MAX_UNDER_WAY: Final = 30_000  # a socket has 65,536 ids, and a query may use two
REPEAT_AFTER: Final = 1 / 3  # of the timeout
_ONE: Final = b"\x00\x01"


class Resolver:
    """The state of the resolver; see the module's docstring."""

    def __init__(self, settings: Settings, random_bits: Callable[[int], int]) -> None:
        """`random_bits(n)` gives n unpredictable bits, as `secrets.randbits` does."""
        self._random_bits = random_bits
        self._buckets = TokenBuckets(settings.client_rate, settings.client_burst)
        self._configure(settings)
        self._paths: dict[bool, list[Path]] = {False: [], True: []}  # by whether TCP
        self._lanes: dict[int, Lane] = {}
        self._next_lane = 1
        self._active: OrderedDict[tuple[bool, bytes], Pending] = OrderedDict()  # by start, hence by end
        self._unrepeated: OrderedDict[tuple[bool, bytes], Pending] = OrderedDict()
        self._waiters = 0
        self._reports = ReportLimit()
        self._queries: Counter[str] = Counter()
        self._local: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # of resolvers that are no longer asked
        self._forwarded = self._answered = self._unanswered = 0

    def receive(self, event: Event, now: float) -> list[Action]:
        """Take an event, return what is to be done."""
        actions: list[Action] = []
        match event:
            case QueryReceived():
                self._query(event, now, actions)
            case ResponseReceived():
                self._response(event, now, actions)
            case LaneFailed():
                lane = self._lanes.get(event.lane)
                if lane is not None:
                    if event.unreachable:
                        lane.path.not_reachable(now)
                    self._lose_lane(lane, now, actions)
            case UpstreamsChanged():
                self._change_upstreams(event.endpoints[:MAX_UPSTREAMS], now, actions)
            case SettingsChanged():
                self._configure(event.settings)
            case _:
                assert_never(event)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Repeat what got no answer, give up what waited long enough."""
        actions: list[Action] = []
        while self._unrepeated:
            key, pending = next(iter(self._unrepeated.items()))
            if pending.repeat_at > now:
                break
            del self._unrepeated[key]
            self._repeat(pending, now, actions)
        while self._active:
            pending = next(iter(self._active.values()))
            if pending.ends_at > now:
                break
            last = pending.attempts[-1]
            last.lane.path.timed_out(last.sent_at, now)
            self._finish(pending, actions)
        return actions

    def deadline(self) -> float | None:
        """When to tick next; None when nothing is under way."""
        if not self._active:
            return None
        end = next(iter(self._active.values())).ends_at
        if self._unrepeated:
            return min(end, next(iter(self._unrepeated.values())).repeat_at)
        return end

    def counts(self) -> Counts:
        """The totals so far."""
        failures = Counter(self._failures)
        for path in self._paths[False] + self._paths[True]:
            failures[str(path.endpoint)] += path.failures
        return Counts(
            dict(self._queries),
            dict(self._local),
            self._forwarded,
            self._answered,
            self._unanswered,
            dict(self._dropped),
            dict(failures),
            len(self._active),
            len(self._buckets),
        )

    def upstreams(self, now: float) -> tuple[UpstreamStatus, ...]:
        """How the resolvers are doing."""
        result = []
        for path in self._paths[False] + self._paths[True]:
            if path.resting_until > now:
                state = "unreachable" if path.unreachable else "resting"
            else:
                state = "answering" if path.last_answer_at > float("-inf") else "not asked yet"
            result.append(UpstreamStatus(path.endpoint, path.tcp, state, path.failures))
        return tuple(result)

    def _configure(self, settings: Settings) -> None:
        self._names = settings.names
        self._timeout_s = settings.timeout_s
        self._max_pending = min(settings.max_pending, MAX_UNDER_WAY)
        self._buckets.configure(settings.client_rate, settings.client_burst)

    def _query(self, event: QueryReceived, now: float, actions: list[Action]) -> None:
        self._queries[event.zone] += 1
        data = event.data
        if not self._buckets.take(event.client, now):
            self._refuse(event, Drop.RATE, Rcode.REFUSED, now, actions)
            return
        if len(data) < HEADER_BYTES:
            self._unanswerable(event, Drop.MALFORMED, now, actions)
            return
        if is_response(data):  # never answered, or two servers could talk for ever
            self._unanswerable(event, Drop.NOT_A_QUERY, now, actions)
            return
        if opcode(data) != 0:
            self._dropped[Drop.NOT_A_QUERY] += 1
            actions.append(SendAnswer(event.reply_to, encode_response(data, None, Rcode.NOTIMP)))
            return
        try:
            question = read_question(data)
        except DecodeError as err:
            self._dropped[Drop.MALFORMED] += 1
            self._complain(event.client, f"sent a query that cannot be read: {err}", now, actions)
            actions.append(SendAnswer(event.reply_to, encode_response(data, None, Rcode.FORMERR)))
            return
        if question.type in (RecordType.AXFR, RecordType.IXFR):
            self._dropped[Drop.NOT_A_QUERY] += 1
            actions.append(SendAnswer(event.reply_to, encode_response(data, question, Rcode.REFUSED)))
            return
        local = self._names.answer(event.zone, question)
        if local is None:
            self._forward(event, question, now, actions)
            return
        self._local[local.kind.value] += 1
        answer = encode_response(
            data, question, local.rcode, answers=local.answers, authority=local.authority, authoritative=True
        )
        actions.append(SendAnswer(event.reply_to, answer))

    def _forward(self, event: QueryReceived, question: Question, now: float, actions: list[Action]) -> None:
        data = event.data
        key = (event.tcp, data[2:])
        waiter = (event.reply_to, data[:2])
        pending = self._active.get(key)
        if pending is not None and not event.tcp and waiter in pending.waiters:
            return  # the client repeats itself; its answer is under way
        if self._waiters >= self._max_pending:
            self._refuse(event, Drop.FULL, Rcode.SERVFAIL, now, actions)
            return
        if pending is not None:
            pending.waiters.append(waiter)
            self._waiters += 1
            return
        path = choose(self._paths[event.tcp], [], now)
        if path is None:
            self._unanswered += 1
            actions.append(SendAnswer(event.reply_to, encode_response(data, question, Rcode.SERVFAIL)))
            return
        pending = Pending(
            event.tcp, data, key, question, now + self._timeout_s, now + self._timeout_s * REPEAT_AFTER, [waiter]
        )
        self._active[key] = self._unrepeated[key] = pending
        self._waiters += 1
        self._send(pending, path, now, actions)

    def _send(self, pending: Pending, path: Path, now: float, actions: list[Action]) -> None:
        bits = self._random_bits(32)
        choice, upstream_id = bits >> 16, bits & 0xFFFF
        lane = path.lane_for_query(now, choice)
        if lane is None:
            lane = self._open_lane(path, choice, now, actions)
        lane.queries += 1
        while upstream_id in lane.waiting:
            upstream_id = (upstream_id + 1) & 0xFFFF
        lane.waiting[upstream_id] = pending
        pending.attempts.append(Attempt(lane, upstream_id, now))
        if path not in pending.tried:
            pending.tried.append(path)
        self._forwarded += 1
        actions.append(SendQuery(lane.number, upstream_id.to_bytes(2) + pending.query[2:]))

    def _open_lane(self, path: Path, choice: int, now: float, actions: list[Action]) -> Lane:
        lane = self._lanes[self._next_lane] = Lane(self._next_lane, path, now)
        self._next_lane += 1
        worn = path.adopt(lane, choice)
        if worn is not None:
            del self._lanes[worn.number]
            actions.append(CloseLane(worn.number))
        actions.append(OpenLane(lane.number, path.endpoint, path.tcp))
        return lane

    def _response(self, event: ResponseReceived, now: float, actions: list[Action]) -> None:
        lane = self._lanes.get(event.lane)
        data = event.data
        if lane is None:
            self._dropped[Drop.STRAY] += 1
            return
        if len(data) < HEADER_BYTES or not is_response(data):
            self._dropped[Drop.MALFORMED] += 1
            self._complain(str(lane.path.endpoint), "sent what is not a DNS answer", now, actions)
            return
        pending = lane.waiting.get(data[0] << 8 | data[1])
        if pending is None:  # late, or forged; the two cannot be told apart
            self._dropped[Drop.STRAY] += 1
            return
        question, query = pending.question, pending.query
        end = question.end
        if (
            data[4:6] != _ONE
            or data[HEADER_BYTES : end - 4].lower() != question.name
            or data[end - 4 : end] != query[end - 4 : end]
        ):
            self._dropped[Drop.MISMATCH] += 1
            self._complain(str(lane.path.endpoint), "answered another question than was asked", now, actions)
            return
        lane.path.answered(now)
        if rcode(data) in (Rcode.SERVFAIL, Rcode.REFUSED):
            other = choose(self._paths[pending.tcp], pending.tried, now)
            if other is not None:
                pending.held = pending.held or data
                self._detach(pending, actions)
                self._send(pending, other, now, actions)
                return
        self._answered += 1
        pending.held = data
        self._finish(pending, actions)

    def _repeat(self, pending: Pending, now: float, actions: list[Action]) -> None:
        """Ask the next resolver, or the same again; the first attempt may still be answered."""
        last = pending.attempts[-1]
        path = last.lane.path
        path.timed_out(last.sent_at, now)
        if path.tcp and last.lane in path.lanes:  # the connection may be dead; the repetition gets a new one
            path.lanes.remove(last.lane)
            path.draining.add(last.lane)
        other = choose(self._paths[pending.tcp], pending.tried, now)
        self._send(pending, path if other is None else other, now, actions)

    def _lose_lane(self, lane: Lane, now: float, actions: list[Action]) -> None:
        """Forget a lane; what waited on it alone is asked elsewhere, each resolver once more at most."""
        del self._lanes[lane.number]
        lane.path.retire(lane)
        orphans = list(dict.fromkeys(lane.waiting.values()))  # a query may have been repeated on the same lane
        lane.waiting.clear()
        for pending in orphans:
            pending.attempts = [attempt for attempt in pending.attempts if attempt.lane is not lane]
            if pending.attempts:
                continue
            paths = self._paths[pending.tcp]
            path = choose(paths, pending.tried, now)
            repeatable = pending.key in self._unrepeated and lane.path in paths and not lane.path.unreachable
            if path is None and repeatable:
                del self._unrepeated[
                    pending.key
                ]  # this is its repetition: a server closed a connection that was in use
                path = lane.path
            if path is None:
                self._finish(pending, actions)
            else:
                self._send(pending, path, now, actions)

    def _detach(self, pending: Pending, actions: list[Action]) -> None:
        """Take the question off its lanes, and close those that waited for nothing else."""
        for lane, upstream_id, _ in pending.attempts:
            lane.waiting.pop(upstream_id, None)
            if not lane.waiting and lane in lane.path.draining:
                lane.path.draining.discard(lane)
                del self._lanes[lane.number]
                actions.append(CloseLane(lane.number))
        pending.attempts.clear()

    def _finish(self, pending: Pending, actions: list[Action]) -> None:
        del self._active[pending.key]
        self._unrepeated.pop(pending.key, None)
        self._detach(pending, actions)
        answer = pending.held
        if answer is None:
            self._unanswered += 1
            answer = encode_response(pending.query, pending.question, Rcode.SERVFAIL)
        body = answer[2:]
        self._waiters -= len(pending.waiters)
        for reply_to, client_id in pending.waiters:
            actions.append(SendAnswer(reply_to, client_id + body))

    def _change_upstreams(self, endpoints: tuple[Endpoint, ...], now: float, actions: list[Action]) -> None:
        gone: list[Path] = []
        for tcp, paths in self._paths.items():
            known = {path.endpoint: path for path in paths}
            self._paths[tcp] = [known.get(endpoint) or Path(endpoint, tcp) for endpoint in dict.fromkeys(endpoints)]
            gone += (path for path in paths if path.endpoint not in endpoints)
        for path in gone:
            self._failures[str(path.endpoint)] += path.failures
        for lane in [lane for lane in self._lanes.values() if lane.path in gone]:
            actions.append(CloseLane(lane.number))
            self._lose_lane(lane, now, actions)

    def _refuse(self, event: QueryReceived, why: Drop, code: Rcode, now: float, actions: list[Action]) -> None:
        """Drop by UDP, where silence slows the sender down; say no by TCP, where every query is answered."""
        self._dropped[why] += 1
        if why is Drop.RATE:
            self._complain(event.client, "asks more than its share", now, actions)
        if not event.tcp:
            return
        if len(event.data) < HEADER_BYTES or is_response(event.data):
            actions.append(CloseClient(event.reply_to))
            return
        try:
            question: Question | None = read_question(event.data)
        except DecodeError:
            question = None
        actions.append(SendAnswer(event.reply_to, encode_response(event.data, question, code)))

    def _unanswerable(self, event: QueryReceived, why: Drop, now: float, actions: list[Action]) -> None:
        self._dropped[why] += 1
        self._complain(event.client, "sent what is not a DNS query", now, actions)
        if event.tcp:
            actions.append(CloseClient(event.reply_to))

    def _complain(self, source: str, what: str, now: float, actions: list[Action]) -> None:
        if self._reports.admit(source, now) is not None:
            actions.append(Complain(source, what))
