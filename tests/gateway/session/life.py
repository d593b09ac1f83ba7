"""A session machine with a clock in hand, and the answers that shells would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from gateway.addresses import MacAddress
from gateway.config import Config, Network, RadiusServer, Zone
from gateway.session.actions import (
    Action,
    AllowTraffic,
    DenyTraffic,
    QueueAccounting,
    ReadActivity,
    ReadCounters,
    ReplyLogin,
    ReplyRequest,
)
from gateway.session.events import (
    AccessAccepted,
    ClientsActive,
    ClockSet,
    CountersRead,
    Event,
    LeaseBound,
    LoginRequested,
    TrafficAllowed,
    TrafficDenied,
)
from gateway.session.machine import SessionMachine
from gateway.session.model import (
    AccountingRecord,
    AuthenticatedBy,
    ClientKey,
    Counters,
    Grant,
    Limits,
    LoginMethod,
    PapCredentials,
)
from gateway.session.policy import Policy

ZONE = Zone(
    name="guest",
    interface="br-guest",
    address=IPv4Interface("10.41.0.1/24"),
    methods=(LoginMethod.PASSWORD, LoginMethod.CLICK),
    session_timeout=0,
    idle_timeout=0,
)
SERVER = RadiusServer(name="main", address=IPv4Address("192.0.2.1"))
ALICE = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:01"))
BOB = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:02"))
UNIX = 1_800_000_000.0


def address_of(key: ClientKey) -> IPv4Address:
    """The address that a client of these tests has."""
    return IPv4Address("10.41.0.0") + key.mac[-1] + 9


def grant(name: str = "alice", limits: Limits | None = None, **more: object) -> Grant:
    """A grant of a RADIUS server."""
    made = Grant(username=name, authenticated_by=AuthenticatedBy.RADIUS, limits=limits or Limits())
    return replace(made, **more)  # type: ignore[arg-type]  # tests name fields of Grant


class Life:
    """One machine; every action that it orders is kept in `log`."""

    def __init__(self, zone: Zone = ZONE, *, radius: bool = True, max_sessions: int = 100) -> None:
        config = Config(network=Network(uplinks=("eth0",)), zones=(zone,))
        config = replace(config, performance=replace(config.performance, max_sessions=max_sessions))
        if radius:
            config = replace(config, radius=replace(config.radius, servers=(SERVER,)))
        self.config = config
        self.now = 1000.0
        self.machine = SessionMachine(Policy.of(config), epoch=7, spread=lambda: 0.5)
        self.log: list[Action] = []
        self.kernel: dict[ClientKey, Counters] = {}
        self._requests = 0
        self._seen: dict[ClientKey, int] = {}  # upload packets at the last question for activity
        self.send(ClockSet(UNIX - self.now))

    def send(self, event: Event) -> list[Action]:
        """Hand over an event."""
        actions = self.machine.receive(event, self.now)
        self.log.extend(actions)
        return actions

    def request(self) -> int:
        """A new request id."""
        self._requests += 1
        return self._requests

    def lease(self, key: ClientKey, address: IPv4Address | None = None) -> list[Action]:
        """The client gets an address."""
        return self.send(LeaseBound(key, address or address_of(key), self.now + 3600))

    def ask(self, key: ClientKey, name: str = "alice", password: str = "secret") -> list[Action]:
        """The guest sends the password form."""
        credentials = PapCredentials(name, password)
        return self.send(LoginRequested(key, self.request(), LoginMethod.PASSWORD, credentials))

    def login_id(self, key: ClientKey) -> int:
        """The id of the client's login that is being decided."""
        session = self.machine.sessions.get(key)
        assert session is not None
        assert session.attempt is not None
        return session.attempt.login_id

    def online(self, key: ClientKey, granted: Grant | None = None) -> list[Action]:
        """The client gets an address, logs in through RADIUS, and the kernel opens."""
        if self.machine.sessions.get(key) is None:
            self.lease(key)
        self.ask(key, (granted or grant()).username)
        self.send(AccessAccepted(key, self.login_id(key), granted or grant()))
        self.kernel[key] = Counters()
        return self.send(TrafficAllowed(key))

    def traffic(self, key: ClientKey, up: int = 0, down: int = 0) -> None:
        """The client sends and receives octets, in packets of a thousand."""
        more = Counters(up, -(-up // 1000), down, -(-down // 1000))
        self.kernel[key] = self.kernel[key] + more

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, ticking when the machine wants it and answering its questions as the kernel would."""
        until = self.now + seconds
        done: list[Action] = []
        for _ in range(100_000):
            due = self.machine.deadline()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            done.extend(self._answer(self.machine.tick(self.now)))
        else:
            raise AssertionError("the machine wants to be ticked without end")
        self.now = until
        return done

    def _answer(self, actions: Sequence[Action]) -> list[Action]:
        done = list(actions)
        self.log.extend(actions)
        for action in actions:
            if isinstance(action, ReadCounters):
                keys = action.keys or tuple(self.kernel)
                readings = tuple((key, self.kernel[key]) for key in keys if key in self.kernel)
                done.extend(self._answer(self.machine.receive(CountersRead(readings), self.now)))
            elif isinstance(action, ReadActivity):
                active = tuple(
                    key for key, used in self.kernel.items() if used.upload_packets != self._seen.get(key, 0)
                )
                self._seen.update((key, used.upload_packets) for key, used in self.kernel.items())
                done.extend(self._answer(self.machine.receive(ClientsActive(active), self.now)))
            elif isinstance(action, DenyTraffic):
                used = self.kernel.pop(action.key, Counters())
                done.extend(self._answer(self.machine.receive(TrafficDenied(action.key, used), self.now)))
            elif isinstance(action, AllowTraffic):
                self.kernel[action.key] = Counters()
                done.extend(self._answer(self.machine.receive(TrafficAllowed(action.key), self.now)))
        return done

    def act(self, event: Event) -> list[Action]:
        """Hand over an event and answer what follows as the kernel would."""
        return self._answer(self.machine.receive(event, self.now))

    def records(self) -> list[AccountingRecord]:
        """All accounting records so far."""
        return [action.record for action in self.log if isinstance(action, QueueAccounting)]

    def replies(self) -> list[ReplyLogin]:
        """All answers to logins so far."""
        return [action for action in self.log if isinstance(action, ReplyLogin)]

    def answers(self) -> list[ReplyRequest]:
        """All answers to other requests so far."""
        return [action for action in self.log if isinstance(action, ReplyRequest)]
