"""Asking RADIUS servers: retransmission, failover, circuit breakers and revival (RFC 5080 §2.2.1, RFC 5997).

Sans-IO: `receive` and `tick` take what happened and the monotonic time and return what to do; `deadline` says when to
tick next. A *train* is one question with its identical repetitions to one server; when it ends without a valid answer,
the next server gets a new packet (new identifier, authenticator and hidden password). Answers that do not verify are
counted and dropped, and the wait goes on: they may come from somebody who wants it to end.

What must survive a restart is only which servers are known to sign their answers (`learned`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final, assert_never

from gateway.config import Config
from gateway.radius.attributes import Moment, read_decision
from gateway.radius.breaker import BreakerState
from gateway.radius.channel import HEALTHY_PROBES, Channel, Purpose, Train
from gateway.radius.identifiers import PER_SOCKET, identifier_of, socket_of
from gateway.radius.messages import (
    DatagramReceived,
    DecideLogin,
    ExchangeAction,
    ExchangeEvent,
    LoginCancelled,
    LoginSubmitted,
    PortUnreachable,
    RecordSubmitted,
    Remark,
    RememberSigner,
    ReportRefusal,
    ReportServer,
    SettleRecord,
    Transmit,
)
from gateway.radius.packets import Code, DecodeError, MessageAuthenticatorMissing, Packet, decode_answer
from gateway.radius.requests import (
    AccessBody,
    AccountingBody,
    Randomness,
    RequestWriter,
    StatusBody,
    as_chap,
    credentials_refused,
)
from gateway.session.events import AccessFailed, AccessRejected
from gateway.session.model import PapCredentials

# Accounting trains (RFC 5080 §2.2.1: initial time, longest time, count, duration).
ACCOUNTING_FIRST_WAIT_S: Final = 2.0
ACCOUNTING_LONGEST_WAIT_S: Final = 16.0
ACCOUNTING_SENDS: Final = 5
ACCOUNTING_DURATION_S: Final = 30.0
UNREACHABLE_WAIT_S: Final = 0.2  # a late answer may still overtake the ICMP error that says there is nobody
_REPLY_MARGIN_S: Final = 0.5  # our sentence should reach the portal before its own patience ends

_STATUS_OF: Final[dict[int, str]] = {
    Code.ACCESS_ACCEPT: "accept",
    Code.ACCESS_REJECT: "reject",
    Code.ACCESS_CHALLENGE: "challenge",
    Code.ACCOUNTING_RESPONSE: "response",
}


class Exchange:
    """All servers, all requests in flight."""

    def __init__(self, config: Config, writer: RequestWriter, random: Randomness, learned: Iterable[str] = ()) -> None:
        self._writer = writer
        self._random = random
        self.learned = set(learned)
        self.channels: dict[tuple[str, Purpose], Channel] = {}
        self._trains: dict[tuple[Purpose, int], Train] = {}
        self._waiting: dict[Purpose, deque[Train]] = {purpose: deque() for purpose in Purpose}
        self._in_flight = 0
        self._agenda: list[tuple[float, int, Train | Channel]] = []  # a heap; entries that no longer hold are skipped
        self._serial = 0
        self._configure(config)

    def reconfigure(self, config: Config, now: float) -> list[ExchangeAction]:
        """Take over other servers; what is in flight to a server that is gone goes to the next one."""
        gone = self._configure(config)
        out: list[ExchangeAction] = []
        for channel in gone:
            for train in list(channel.in_flight.values()):
                self._release(train)
                if not isinstance(train.body, StatusBody):
                    self._advance(train, now, out)
        self._pump(now, out)
        return out

    def receive(self, event: ExchangeEvent, now: float) -> list[ExchangeAction]:
        """Take note of an event; returns what to do about it, in order."""
        out: list[ExchangeAction] = []
        match event:
            case DatagramReceived():
                self._answer(event, now, out)
            case LoginSubmitted():
                self._login(event, now, out)
            case RecordSubmitted():
                body = event.body
                self._submit(Train(Purpose.ACCT, body.record.record_id, body, None), now, out)
            case LoginCancelled():
                self._cancel(event.login_id)
            case PortUnreachable():
                self._unreachable(event, now)
            case _:
                assert_never(event)
        self._pump(now, out)
        return out

    def tick(self, now: float) -> list[ExchangeAction]:
        """Do what is due: repetitions, ends of trains, probes."""
        out: list[ExchangeAction] = []
        while self._agenda and self._agenda[0][0] <= now:
            due, _, item = heappop(self._agenda)
            if isinstance(item, Channel):
                if item.probe_due == due:
                    self._probe(item, now, out)
            elif item.due == due and not item.over:
                self._train_due(item, now, out)
        self._pump(now, out)
        return out

    def deadline(self) -> float | None:
        """When to tick next, None when nothing is under way."""
        while self._agenda:
            due, _, item = self._agenda[0]
            if due == item.probe_due if isinstance(item, Channel) else (due == item.due and not item.over):
                return due
            heappop(self._agenda)
        return None

    def snapshot(self) -> frozenset[str]:
        """Servers known to sign their answers."""
        return frozenset(self.learned)

    @property
    def waiting(self) -> int:
        """Requests that wait for a free identifier."""
        return sum(len(queue) for queue in self._waiting.values())

    def has(self, purpose: Purpose) -> bool:
        """Whether any server is configured for a purpose."""
        return bool(self._order[purpose])

    def demands_signature(self, channel: Channel) -> bool:
        """Whether an answer of this server without Message-Authenticator is refused."""
        policy = channel.server.require_message_authenticator
        return policy == "require" or (policy == "auto" and channel.identity in self.learned)

    # Submitting

    def _configure(self, config: Config) -> list[Channel]:
        """Build the channels anew, keeping those whose server is the same; returns those that are gone."""
        radius = config.radius
        self._radius = radius
        self._login_timeout_s = max(1.0, config.uam.login_timeout - _REPLY_MARGIN_S)
        self._client_view = radius.accounting_view == "client"
        before, self.channels = self.channels, {}
        for server in radius.servers:
            for purpose, port in ((Purpose.AUTH, server.auth_port), (Purpose.ACCT, server.acct_port)):
                if not port:
                    continue
                kept = before.get((server.name, purpose))
                if kept is not None and kept.server == server:
                    before.pop((server.name, purpose))
                    kept.breaker.configure(
                        failure_threshold=radius.circuit_breaker_failure_threshold,
                        timeout_s=radius.circuit_breaker_timeout,
                        max_requests=radius.circuit_breaker_max_requests,
                    )
                else:
                    kept = Channel(server, purpose, radius, config.performance.radius_workers, self._random)
                self.channels[server.name, purpose] = kept
        self._order = {
            purpose: sorted(
                (channel for channel in self.channels.values() if channel.purpose is purpose),
                key=lambda channel: channel.server.priority,
            )
            for purpose in Purpose
        }
        for channel in before.values():
            channel.probe_due = None
        return list(before.values())

    def _login(self, event: LoginSubmitted, now: float, out: list[ExchangeAction]) -> None:
        action, credentials = event.action, event.action.credentials
        if refused := credentials_refused(credentials):
            out.append(Remark(f"a login was refused without asking: {refused}"))
            out.append(DecideLogin(AccessRejected(action.key, action.login_id)))
            return
        if isinstance(credentials, PapCredentials) and self._radius.protocol == "chap":
            credentials = as_chap(credentials, self._random)
        body = AccessBody(action, credentials, event.unix)
        self._submit(Train(Purpose.AUTH, action.login_id, body, now + self._login_timeout_s), now, out)

    def _submit(self, train: Train, now: float, out: list[ExchangeAction]) -> None:
        self._trains[train.purpose, train.number] = train
        if len(self._waiting[train.purpose]) >= self._radius.max_in_flight:
            train.reasons += ("too many requests wait for RADIUS servers",)
            self._fail(train, out)
        elif self._waiting[train.purpose]:
            self._queue(train)
        else:
            self._advance(train, now, out)

    def _queue(self, train: Train) -> None:
        self._waiting[train.purpose].append(train)
        if train.deadline is not None and train.due != train.deadline:
            self._schedule(train, train.deadline)

    def _pump(self, now: float, out: list[ExchangeAction]) -> None:
        """Let waiting requests go as long as there is room."""
        for queue in self._waiting.values():
            for _ in range(len(queue)):
                if self._in_flight >= self._radius.max_in_flight:
                    return
                train = queue.popleft()
                if train.over:
                    continue
                self._advance(train, now, out)
                if queue and queue[-1] is train:  # no room after all: back to its place
                    queue.rotate(1)
                    break

    def _advance(self, train: Train, now: float, out: list[ExchangeAction]) -> None:
        """Send to the best server not tried yet, wait for room, or give up."""
        if train.deadline is not None and now >= train.deadline:
            train.reasons += ("the time for a login is over",)
            self._fail(train, out)
            return
        channel = self._pick(train, now)
        if channel is None:
            if not train.tried:
                train.reasons += tuple(self._nobody(train.purpose))
            self._fail(train, out)
            return
        slot = channel.identifiers.take(now) if self._in_flight < self._radius.max_in_flight else None
        if slot is None:
            self._queue(train)
            return
        self._start(train, channel, slot, now, out)

    def _start(self, train: Train, channel: Channel, slot: int, now: float, out: list[ExchangeAction]) -> None:
        written = self._writer.write(channel.server, train.body, identifier_of(slot))
        train.channel, train.slot = channel, slot
        train.data, train.code, train.authenticator = written.data, written.code, written.authenticator
        train.sends, train.first_sent, train.refusal, train.unreachable = 0, now, "", False
        train.wait_s = ACCOUNTING_FIRST_WAIT_S if isinstance(train.body, AccountingBody) else self._radius.timeout
        channel.in_flight[slot] = train
        self._in_flight += 1
        if not isinstance(train.body, StatusBody):
            channel.breaker.begin()
        self._send(train, channel, now, out)

    def _send(self, train: Train, channel: Channel, now: float, out: list[ExchangeAction]) -> None:
        train.sends += 1
        channel.tallies.transmissions += 1
        channel.identifiers.sent(train.slot, now)
        out.append(Transmit(channel.server.name, channel.purpose, socket_of(train.slot), train.data))
        self._schedule(train, now + self._jittered(train.wait_s))
        if channel.purpose is Purpose.ACCT:
            train.wait_s = min(train.wait_s * 2, ACCOUNTING_LONGEST_WAIT_S)

    def _pick(self, train: Train, now: float) -> Channel | None:
        candidates = [channel for channel in self._order[train.purpose] if channel not in train.tried]
        if candidates and candidates[0].breaker.state is BreakerState.CLOSED:
            return candidates[0]
        others = any(channel.breaker.state is BreakerState.CLOSED for channel in candidates)
        return next((channel for channel in candidates if channel.usable(now, others=others)), None)

    def _nobody(self, purpose: Purpose) -> list[str]:
        """Why no server can be asked at all."""
        if not self._order[purpose]:
            return ["no RADIUS server is configured for this"]
        return [f"left alone for now: {channel.last_reason}" for channel in self._order[purpose]]

    # Time

    def _train_due(self, train: Train, now: float, out: list[ExchangeAction]) -> None:
        channel = train.channel
        if channel is None:  # it waited for room until its deadline
            train.reasons += ("all requests that may be under way are, and none ended in time",)
            self._fail(train, out)
            return
        if isinstance(train.body, StatusBody):
            self._release(train)
            self._probe_missed(channel, now)
            return
        ended = train.deadline is not None and now >= train.deadline
        if ended or train.unreachable or not self._may_repeat(train, now):
            self._give_up(train, channel, now, out)
        else:
            self._send(train, channel, now, out)

    def _may_repeat(self, train: Train, now: float) -> bool:
        if train.purpose is Purpose.AUTH:
            return train.sends <= self._radius.retries
        return train.sends < ACCOUNTING_SENDS and now < train.first_sent + ACCOUNTING_DURATION_S

    def _give_up(self, train: Train, channel: Channel, now: float, out: list[ExchangeAction]) -> None:
        """A server did not answer a whole train: count it, ask the next."""
        self._release(train)
        channel.tallies.requests["timeout"] += 1
        hint = ", and the network says that nobody is there" if train.unreachable else ""
        reason = train.refusal or (
            f"{channel.place} did not answer {train.sends} request(s) in {now - train.first_sent:.1f} s{hint}"
        )
        train.reasons += (reason,)
        train.tried += (channel,)
        if now - train.first_sent < self._radius.timeout * 0.9 and not train.unreachable:
            channel.breaker.withdraw()  # the login's time was over before the server had its own
        elif channel.breaker.failed(now):
            channel.last_reason = reason
            channel.healthy_probes = 0
            out.append(ReportServer(channel.place, channel.purpose, BreakerState.OPEN, reason))
            self._plan_probe(channel, now)
        self._advance(train, now, out)

    def _fail(self, train: Train, out: list[ExchangeAction]) -> None:
        self._finish(train)
        if isinstance(train.body, AccessBody):
            action = train.body.action
            out.append(DecideLogin(AccessFailed(action.key, action.login_id, "; ".join(train.reasons))))
        else:
            out.append(SettleRecord(train.number, answered=False))

    def _cancel(self, login_id: int) -> None:
        train = self._trains.get((Purpose.AUTH, login_id))
        if train is None:
            return
        if train.channel is not None:
            train.channel.breaker.withdraw()
            self._release(train)
        self._finish(train)

    def _finish(self, train: Train) -> None:
        train.over, train.data = True, b""  # the agenda may hold it for some seconds more
        self._trains.pop((train.purpose, train.number), None)

    def _release(self, train: Train) -> None:
        """Free the identifier of a request that is over with its server."""
        channel = train.channel
        assert channel is not None
        del channel.in_flight[train.slot]
        channel.identifiers.release(train.slot)
        self._in_flight -= 1
        train.channel, train.slot, train.due = None, -1, 0.0

    def _unreachable(self, event: PortUnreachable, now: float) -> None:
        """Shorten the wait of those who have another server to go to; the others had better repeat."""
        channel = self.channels.get((event.server, event.purpose))
        if channel is None:
            return
        for slot, train in channel.in_flight.items():
            if socket_of(slot) != event.socket or train.unreachable or isinstance(train.body, StatusBody):
                continue
            if any(
                other is not channel and other not in train.tried and other.breaker.state is BreakerState.CLOSED
                for other in self._order[train.purpose]
            ):
                train.unreachable = True
                self._schedule(train, min(train.due, now + self._jittered(UNREACHABLE_WAIT_S)))

    # Answers

    def _answer(self, event: DatagramReceived, now: float, out: list[ExchangeAction]) -> None:
        channel = self.channels.get((event.server, event.purpose))
        if channel is None:
            return
        identifier = event.data[1] if len(event.data) > 1 else 0
        train = channel.in_flight.get(event.socket * PER_SOCKET + identifier)
        try:
            if train is None:
                raise DecodeError(
                    "identifier", f"nothing is under way with identifier {identifier}: too late, or foreign"
                )
            packet = decode_answer(
                event.data,
                train.code,
                identifier,
                train.authenticator,
                channel.server.secret.reveal().encode(),
                require_message_authenticator=train.code == Code.ACCESS_REQUEST and self.demands_signature(channel),
            )
        except DecodeError as err:
            channel.tallies.refused[err.reason] += 1
            text = str(err)
            if isinstance(err, MessageAuthenticatorMissing) and train is not None:
                text = train.refusal = (
                    f"{channel.place} answered without Message-Authenticator, which is demanded of it: let the server"
                    f" send it, or set option require_message_authenticator to off in radius_server '{event.server}'"
                )
            out.append(ReportRefusal(channel.place, err.reason, text))
            return
        self._release(train)
        if isinstance(train.body, StatusBody):
            self._probe_answered(channel, now, out)
        else:
            self._answered(train, channel, packet, Moment(event.unix), now, out)

    def _answered(
        self, train: Train, channel: Channel, packet: Packet, moment: Moment, now: float, out: list[ExchangeAction]
    ) -> None:
        channel.tallies.answered(_STATUS_OF[packet.code], now - train.first_sent, now)
        self._finish(train)
        if channel.breaker.answered():
            channel.probe_due = None
            if channel.answers_status is None:  # now that it lives, its silence would tell
                channel.probe_due = now
                self._enter(now, channel)
            out.append(ReportServer(channel.place, channel.purpose, BreakerState.CLOSED, "it answers again"))
        if not isinstance(train.body, AccessBody):
            out.append(SettleRecord(train.number, answered=True))
            return
        if channel.identity not in self.learned and packet.has("Message-Authenticator"):
            self.learned.add(channel.identity)
            out.append(RememberSigner(channel.place))
        decision = read_decision(packet, train.body.action, channel.place, client_view=self._client_view, moment=moment)
        out.extend(Remark(f"{channel.place}: {note}") for note in decision.notes)
        out.append(DecideLogin(decision.event))

    # Probes

    def _plan_probe(self, channel: Channel, now: float) -> None:
        """Ask again after the breaker's time whether the server lives, unless it does not know the question."""
        if channel.answers_status is False:
            return
        channel.probe_due = now + self._jittered(self._radius.circuit_breaker_timeout)
        self._enter(channel.probe_due, channel)

    def _probe(self, channel: Channel, now: float, out: list[ExchangeAction]) -> None:
        channel.probe_due = None
        slot = channel.identifiers.take(now)
        if slot is None:
            self._plan_probe(channel, now)
            return
        self._start(Train(channel.purpose, -1, StatusBody(), None), channel, slot, now, out)

    def _probe_missed(self, channel: Channel, now: float) -> None:
        channel.healthy_probes = 0
        if channel.breaker.state is not BreakerState.CLOSED:
            self._plan_probe(channel, now)
        elif channel.answers_status is None:
            channel.answers_status = False  # it lives and does not know the question: traffic must try it

    def _probe_answered(self, channel: Channel, now: float, out: list[ExchangeAction]) -> None:
        channel.answers_status = True
        channel.healthy_probes += 1
        channel.tallies.last_answer_at = now
        if channel.breaker.state is BreakerState.CLOSED:
            return
        if channel.healthy_probes >= HEALTHY_PROBES:
            channel.breaker.answered()
            out.append(ReportServer(channel.place, channel.purpose, BreakerState.CLOSED, "it answers Status-Server"))
        else:
            self._plan_probe(channel, now)

    # The agenda

    def _jittered(self, seconds: float) -> float:
        """A wait up to a tenth shorter or longer (RFC 5080 §2.2.1)."""
        return seconds * (0.9 + 0.2 * self._random.random())

    def _schedule(self, train: Train, due: float) -> None:
        train.due = due if train.deadline is None else min(due, train.deadline)
        self._enter(train.due, train)

    def _enter(self, due: float, item: Train | Channel) -> None:
        self._serial += 1
        heappush(self._agenda, (due, self._serial, item))
