"""The client's sockets: asking RADIUS servers about logins, telling them about sessions.

A thin shell over `exchange` and `accounting`: it sends, receives, keeps one timer and writes the log. Connected,
non-blocking UDP sockets with the loop's readers are used instead of asyncio's datagram endpoints: one system call per
packet and no layer between, alike on uvloop and asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, assert_never

from gateway.addresses import MacAddress
from gateway.config import Config, RadiusServer
from gateway.log import LogLimiter
from gateway.radius.accounting import (
    AccountingAction,
    AccountingQueue,
    RecordQueued,
    RecordsDone,
    RecordSettled,
    RecordsRestored,
    SendRecord,
    ServerSeen,
)
from gateway.radius.breaker import BreakerState
from gateway.radius.channel import Channel, Purpose
from gateway.radius.exchange import Exchange
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
from gateway.radius.requests import Randomness, RequestWriter
from gateway.radius.status import describe
from gateway.session.actions import SendAccessRequest
from gateway.session.events import AccessFailed, Event
from gateway.session.model import AccountingRecord
from gateway.values import value_class

_LOG: Final = logging.getLogger("postern.radius")
_LARGEST: Final = 4097  # one more than is allowed, so that what is too long is seen to be
# How long datagrams are read before others get their turn, and what they led to is told. An answer lets a client in
# within half of it: clients who wait together are answered one after the other, and the portal writes to the first
# while the kernel is told of the next.
_TURN_S: Final = 0.0005
_RECEIVE_BUFFER: Final = 1 << 20
_DONE_BATCH_S: Final = 0.05


@value_class
class RadiusSnapshot:
    """What must survive a restart: records not answered for, servers that sign their answers."""

    records: tuple[AccountingRecord, ...]
    learned: frozenset[str]


class RadiusClient:
    """Asks and tells the RADIUS servers; answers to logins are posted as events of the session core.

    `accounting_done` gets the ids of records that need not be kept any longer, in batches; `learned_changed` is called
    when `snapshot().learned` has grown. `wall_clock` returns unix time, or None while it was never set.
    """

    def __init__(
        self,
        config: Config,
        post: Callable[[Event], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float | None],
        random: Randomness,
        *,
        accounting_done: Callable[[list[int]], None],
        zone_mac: Callable[[str], MacAddress | None],
        learned_changed: Callable[[], None],
    ) -> None:
        self._post = post
        self._clock = clock
        self._wall_clock = wall_clock
        self._accounting_done = accounting_done
        self._learned_changed = learned_changed
        self._writer = RequestWriter(config, random, zone_mac)
        self._exchange = Exchange(config, self._writer, random)
        self._queue = AccountingQueue(limit=config.radius.accounting_queue, window=_window(config), random=random)
        self._sockets: dict[tuple[str, Purpose, int], tuple[RadiusServer, socket.socket]] = {}
        self._log_limited = LogLimiter(clock=clock)
        self._early: list[ExchangeEvent | RecordQueued | RecordsRestored] = []  # what came before `run`
        self._done: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # when it wakes us, on our clock
        self._done_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied = asyncio.Event()

    # What the hub orders

    def send_access_request(self, action: SendAccessRequest) -> None:
        """Ask about a login; AccessAccepted, AccessRejected or AccessFailed is posted, unless it is cancelled."""
        self._take(LoginSubmitted(action, self._wall_clock()))

    def cancel(self, login_id: int) -> None:
        """Nobody waits for this login any more; nothing will be posted for it."""
        self._take(LoginCancelled(login_id))

    def queue_accounting(self, record: AccountingRecord) -> None:
        """Tell a record to a server, now or whenever one answers."""
        self._take(RecordQueued(record))

    def restore(self, records: Iterable[AccountingRecord], learned: Iterable[str]) -> None:
        """Take over what `snapshot` gave before the restart; to be called before `run`."""
        self._exchange.learned.update(learned)
        self._take(RecordsRestored(tuple(records)))

    def snapshot(self) -> RadiusSnapshot:
        """What must survive a restart."""
        return RadiusSnapshot(self._queue.snapshot(), self._exchange.snapshot())

    def reconfigure(self, config: Config) -> None:
        """Take over another configuration; requests to servers that are gone go to others."""
        self._writer.reconfigure(config)
        self._queue.configure(limit=config.radius.accounting_queue, window=_window(config))
        actions = self._exchange.reconfigure(config, self._clock())
        for key, (server, _) in list(self._sockets.items()):
            channel = self._exchange.channels.get(key[:2])
            if channel is None or channel.server != server:
                self._close(key)
        if self._loop is not None:
            self._open_all()
            self._perform(actions)
            self._arm()

    def status(self) -> dict[str, object]:
        """Servers, breakers, round-trip times, warnings and the queue, for the control socket."""
        return describe(self._exchange, self._queue, self._clock())

    def channels(self) -> tuple[Channel, ...]:
        """One per server and purpose; their `tallies` and `breaker` are what metrics read."""
        return tuple(self._exchange.channels.values())

    def queue_length(self) -> int:
        """Accounting records not answered for."""
        return len(self._queue)

    def nas_addresses(self) -> frozenset[IPv4Address | IPv6Address]:
        """Addresses under which the servers know us."""
        return self._writer.nas_addresses()

    async def drain(self, limit_s: float) -> bool:
        """Wait until every record is answered for; returns whether that was so within the time."""
        try:
            async with asyncio.timeout(limit_s):
                while len(self._queue):
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Serve until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            self._open_all()
            early, self._early = self._early, []
            for event in early:
                self._take(event)
            await asyncio.get_running_loop().create_future()
        finally:
            for key in list(self._sockets):
                self._close(key)
            for timer in (self._timer, self._done_timer):
                if timer is not None:
                    timer.cancel()
            self._timer = None
            self._flush_done()
            self._loop = None

    # Between the cores

    def _take(self, event: ExchangeEvent | RecordQueued | RecordsRestored) -> None:
        if self._loop is None:
            self._early.append(event)
            return
        now = self._clock()
        if isinstance(event, RecordQueued | RecordsRestored):
            self._account(self._queue.receive(event, now))
        else:
            self._perform(self._exchange.receive(event, now))
        self._arm()

    def _perform(self, actions: list[ExchangeAction]) -> None:
        for action in actions:
            match action:
                case Transmit():
                    self._transmit(action)
                case DecideLogin(event):
                    if self._queue.outage and not isinstance(event, AccessFailed):
                        self._account(self._queue.receive(ServerSeen(), self._clock()))
                    self._post(event)
                case SettleRecord(record_id, answered):
                    self._account(self._queue.receive(RecordSettled(record_id, answered), self._clock()))
                case ReportServer():
                    self._report(action)
                case ReportRefusal(place, reason, text):
                    self._log_limited(
                        (place, reason),
                        _LOG,
                        logging.WARNING,
                        "RADIUS answer dropped server=%s reason=%s: %s",
                        place,
                        reason,
                        text,
                    )
                case RememberSigner(place):
                    _LOG.info("RADIUS server signs its answers and must from now on server=%s", place)
                    self._learned_changed()
                case Remark(text):
                    _LOG.info("RADIUS login: %s", text)
                case _:
                    assert_never(action)

    def _account(self, actions: list[AccountingAction]) -> None:
        for action in actions:
            match action:
                case SendRecord(record_id):
                    now = self._clock()
                    body = self._queue.body(record_id, now, self._wall_clock())
                    self._perform(self._exchange.receive(RecordSubmitted(body), now))
                case RecordsDone(record_ids, dropped):
                    if dropped:
                        _LOG.error("accounting records dropped because the queue is full records=%d", dropped)
                    self._done.extend(record_ids)
                    if self._done_timer is None and self._loop is not None:
                        self._done_timer = self._loop.call_later(_DONE_BATCH_S, self._flush_done)
                case _:
                    assert_never(action)

    def _report(self, action: ReportServer) -> None:
        if action.state is BreakerState.OPEN:
            _LOG.warning(
                "RADIUS server left alone server=%s for=%s: %s", action.place, action.purpose.value, action.reason
            )
            return
        _LOG.info("RADIUS server back server=%s for=%s: %s", action.place, action.purpose.value, action.reason)
        if action.purpose is Purpose.ACCT:
            self._account(self._queue.receive(ServerSeen(), self._clock()))

    def _flush_done(self) -> None:
        self._done_timer = None
        done, self._done = self._done, []
        if done:
            self._accounting_done(done)
        if not len(self._queue):
            self._emptied.set()

    # Time

    def _arm(self) -> None:
        due, queue_due = self._exchange.deadline(), self._queue.deadline()
        if queue_due is not None and (due is None or queue_due < due):
            due = queue_due
        if due is None or self._loop is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return  # it wakes us early enough, and arms itself anew
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock()
        self._perform(self._exchange.tick(now))
        self._account(self._queue.tick(now))
        self._arm()

    # Sockets

    def _open_all(self) -> None:
        """Open the first socket of every channel, so that our own addresses are known before the first request."""
        for server, purpose in self._exchange.channels:
            self._socket((server, purpose, 0))

    def _socket(self, key: tuple[str, Purpose, int]) -> socket.socket | None:
        """The socket of this number, opened when it is not there; None when the system refuses."""
        known = self._sockets.get(key)
        if known is not None:
            return known[1]
        channel = self._exchange.channels[key[:2]]
        server = channel.server
        loop = self._loop
        assert loop is not None
        opened = socket.socket(socket.AF_INET6 if server.address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            if server.source_address is not None:
                opened.bind((str(server.source_address), 0))
            opened.connect((str(server.address), channel.port))
        except OSError as err:
            opened.close()
            self._log_limited(
                (channel.place, "socket"),
                _LOG,
                logging.WARNING,
                "RADIUS server cannot be reached server=%s: %s",
                channel.place,
                err,
            )
            return None
        self._sockets[key] = (server, opened)
        self._writer.set_source(server.name, ip_address(opened.getsockname()[0]))
        loop.add_reader(opened, self._read, key, opened)
        return opened

    def _close(self, key: tuple[str, Purpose, int]) -> None:
        _, closing = self._sockets.pop(key)
        assert self._loop is not None
        self._loop.remove_reader(closing)
        closing.close()

    def _transmit(self, action: Transmit) -> None:
        key = (action.server, action.purpose, action.socket)
        for _ in range(2):  # the first error may be that of an earlier packet
            sending = self._socket(key)
            if sending is None:
                return  # the repetition tries again
            try:
                sending.send(action.data)
            except BlockingIOError:
                return  # the system's buffer is full: as good as lost on the way
            except ConnectionRefusedError:
                self._refused(key)
                continue
            except OSError as err:
                self._log_limited(
                    (action.server, "send"),
                    _LOG,
                    logging.WARNING,
                    "RADIUS request not sent server=%s: %s",
                    action.server,
                    err,
                )
                self._close(key)  # its source address may be gone: the repetition opens another
            return

    def _read(self, key: tuple[str, Purpose, int], reading: socket.socket) -> None:
        server, purpose, number = key
        began = now = self._clock()
        while now - began < _TURN_S:
            try:
                data = reading.recv(_LARGEST)
            except BlockingIOError:
                if now == began:  # woken for nothing
                    self._watch_again(key)
                break
            except ConnectionRefusedError:
                self._refused(key)
                continue
            except OSError as err:
                _LOG.debug("RADIUS socket error server=%s: %s", server, err)
                break
            event = DatagramReceived(server, purpose, number, data, self._wall_clock())
            self._perform(self._exchange.receive(event, now))
            now = self._clock()
            if self._sockets.get(key, (None, None))[1] is not reading:
                return  # closed on the way
        self._arm()

    def _watch_again(self, key: tuple[str, Purpose, int]) -> None:
        """Renew the reader soon: libuv stops watching a socket for good once it has seen an error on it."""

        def renew() -> None:
            if self._loop is not None and (known := self._sockets.get(key)) is not None:
                self._loop.remove_reader(known[1])
                self._loop.add_reader(known[1], self._read, key, known[1])

        assert self._loop is not None
        self._loop.call_soon(renew)  # after the events of this round, which may hold another stop

    def _refused(self, key: tuple[str, Purpose, int]) -> None:
        self._watch_again(key)
        server, purpose, number = key
        self._perform(self._exchange.receive(PortUnreachable(server, purpose, number), self._clock()))


def _window(config: Config) -> int:
    """Accounting records under way at once: half of what may be, so that logins always have the other half."""
    return max(1, config.radius.max_in_flight // 2)
