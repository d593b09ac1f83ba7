"""The datapath's shell: performs the session core's orders on the kernel, and tells it what the kernel says.

Orders come by `perform` and are done when it returns (with the codec; a little later with the fallback); facts leave by
`post`. Around that `run` keeps watch: it rebuilds a lost table, and runs what has a module of its own: counters
(`readings`), retired numbers (`sweeper`), interfaces, bridge ports and neighbours (`surroundings`).

The kernel outlives us: `close` leaves table and elements in place, so that clients keep their access while the daemon
restarts, and `start` takes them over with their counters. `teardown` removes everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final

from gateway.config import Config
from gateway.datapath.base import Base
from gateway.datapath.damage import Damage, Statistics
from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Done,
    Drop,
    Elements,
    ElementsRefused,
    Finals,
    Put,
    key_of_client,
    key_of_number,
)
from gateway.datapath.kernel import KernelElements, self_test
from gateway.datapath.ledger import ZERO, Client, Ledger, zone_sets
from gateway.datapath.netlink import Netlink
from gateway.datapath.nft import run_nft
from gateway.datapath.readings import CounterReader
from gateway.datapath.reconcile import Reconciler
from gateway.datapath.ruleset import render
from gateway.datapath.scripted import ScriptedElements
from gateway.datapath.surroundings import Surroundings
from gateway.datapath.sweeper import Sweeper
from gateway.datapath.table import GateTable
from gateway.session.actions import (
    AllowTraffic,
    ApplyLimits,
    BindAddress,
    DenyTraffic,
    ReadActivity,
    ReadCounters,
    UnbindAddress,
)
from gateway.session.events import (
    Event,
    TrafficAllowed,
    TrafficDenied,
    TrafficRefused,
)
from gateway.session.model import ClientKey, Counters

log = logging.getLogger(__name__)

WATCH_INTERVAL_S: Final = 0.5  # how soon a lost table is noticed

DatapathAction = BindAddress | UnbindAddress | AllowTraffic | DenyTraffic | ApplyLimits | ReadCounters | ReadActivity


class Datapath:
    """The kernel's side of the gate."""

    def __init__(self, config: Config, post: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self.statistics = Statistics()
        self._config = config
        self._post = post
        self._clock = clock
        self._text = render(config)
        self._ledger = Ledger(zone_sets(config))
        self._unclosed: list[DenyTraffic] = []
        self._problems: list[str] = []
        self._netlink = Netlink()
        self._base = Base(self._netlink, config)
        self._surroundings = Surroundings(self._netlink, config, self._ledger, post, clock)
        self._table = GateTable(config.network.table)
        self._damage = Damage()
        self._elements: Elements = ScriptedElements(config.network.table)
        self._counters = CounterReader(self._elements, self._ledger, post, self._damage)
        self._reconciler = Reconciler(self._elements, self._ledger, post, clock, self._damage, self.statistics)
        self._sweeper = Sweeper(self._ledger, post, self.statistics, config.performance.session_gc_interval)
        self._changing = asyncio.Lock()

    async def start(
        self,
        wanted: Sequence[AllowTraffic],
        bindings: Sequence[BindAddress],
        leaving: Sequence[AllowTraffic] = (),
    ) -> dict[ClientKey, Counters]:
        """Set up everything and make the kernel hold exactly these clients and bindings.

        Returns the counters of clients whose elements were there already, since they were added; also of those that are
        `leaving`, whose elements are removed. Raises RulesetRefused when the ruleset does not load; what else of the
        system could not be set is a problem in `check` and a log line.
        """
        self._note_problems(await self._base.apply(table_is_loaded=False))
        try:
            self._use(KernelElements(self._config.network.table, await self_test()))
        except (ElementsRefused, OSError) as error:
            log.warning("the netlink codec does not work here, falling back to nft reason=%s", error)
        now = self._clock()
        for binding in bindings:
            self._ledger.bind(binding.key, binding.address)
        for want in wanted:
            self._ledger.remember(_client_of(want, now))
        async with self._changing:
            await self._table.load(self._text)
            self._note_problems([*self._problems, *await self._base.guard()])
            kept = await self._reconciler.adopt([_client_of(action, now) for action in leaving])
        await self._surroundings.start()
        return kept

    def prepare(self, config: Config) -> None:
        """Take another configuration before `start`; raises ValueError as `reconfigure` does."""
        self._text, self._config = render(config), config
        self._ledger.zones = zone_sets(config)

    async def run(self) -> None:
        """Keep watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="datapath-watch")
            tasks.create_task(self._counters.run_all(), name="datapath-counters")
            tasks.create_task(self._counters.run_activity(), name="datapath-activity")
            tasks.create_task(self._sweeper.run(), name="datapath-sweep")
            tasks.create_task(self._follow_system(), name="datapath-system")
            if isinstance(self._elements, ScriptedElements):
                tasks.create_task(self._elements.run(), name="datapath-fallback")

    async def reconfigure(self, config: Config) -> None:
        """Go over to another configuration; online clients keep their access where their zone remains.

        Raises ValueError or RulesetRefused and keeps the old configuration when the new ruleset does not load.
        """
        text = render(config)
        if config.network.table != self._config.network.table:
            raise ValueError("the table's name changes only with a restart of the daemon")
        async with self._changing:
            await self._table.load(text)
            self._config, self._text = config, text
            self._ledger.zones = zone_sets(config)
            self._sweeper.interval_s = config.performance.session_gc_interval
            await self._reconciler.reconcile()
            self._note_problems(await self._base.change(config))
            await self._surroundings.change(config)

    async def close(self) -> None:
        """Let go of sockets and the thread; table, elements and guards stay, and with them everybody's access."""
        self._surroundings.close()
        self._elements.close()
        self._table.close()
        await self._netlink.close()

    async def teardown(self) -> None:
        """Remove the table, the guards, addresses and isolation, and switch forwarding off where it was ours."""
        async with self._changing:
            await self._base.withdraw()
            await self._table.remove()

    def ruleset_text(self) -> str:
        """The ruleset as it is, or should be, loaded."""
        return self._text

    async def check(self) -> list[str]:
        """Try the ruleset without loading it, and name every difference between kernel and wanted state."""
        return await self.check_table() + await self._base.differences() + self._problems

    async def check_table(self) -> list[str]:
        """Of `check` what concerns our table: the ruleset, its rules, and the elements of clients."""
        found: list[str] = []
        trouble = await run_nft(self._text, "-c")
        if trouble:
            found.append(f"nft does not accept the ruleset: {trouble}")
        if not self._table.is_version_of(self._text):
            found.append(f"the table inet {self._table.name} is not loaded, or with another ruleset")
        elif not self._table.intact():
            found.append(f"rules of the table inet {self._table.name} were changed by somebody else")
        else:
            found += self._ledger.differences(await self._reconciler.dump(), self._clock())
        return found

    def status(self) -> dict[str, object]:
        """How the datapath stands, for `postern status` and metrics."""
        numbers = self.statistics
        return {
            "elements": self._elements.mode,
            "guard": self._base.guarding,
            "clients": len(self._ledger.clients),
            "bindings": sum(map(len, self._ledger.bound.values())),
            "tables_lost": numbers.tables_lost,
            "elements_restored": numbers.elements_restored,
            "refusals": numbers.refusals,
            "sweep_backlog": self._sweeper.backlog,
            "numbers_swept": numbers.numbers_swept,
            "sweep_walks": numbers.sweep_walks,
            "clones_seen": self._surroundings.clones_seen,
            "problems": list(self._problems),
        }

    def problems(self) -> tuple[str, ...]:
        """What of the system could not be set as it should be, in sentences."""
        return tuple(self._problems)

    @property
    def ready(self) -> bool:
        """Whether our table is loaded and as we left it."""
        return self._table.intact()

    @property
    def elements(self) -> int:
        """Set and map elements of clients that should be in the kernel."""
        return sum(map(len, self._ledger.bound.values())) + 4 * len(self._ledger.clients)

    def perform(self, action: DatapathAction) -> None:
        """Do what the session core orders."""
        match action:
            case AllowTraffic():
                self._allow(action)
            case DenyTraffic():
                self._deny(action)
            case ReadCounters(keys):
                self._counters.read(keys)
            case ReadActivity():
                self._counters.read_activity()
            case BindAddress(key, address):
                self._ledger.bind(key, address)
                self._bind(key, address, bound=True)
            case UnbindAddress(key, address):
                self._ledger.unbind(key, address)
                self._bind(key, address, bound=False)
            case ApplyLimits():
                client = self._ledger.clients.get(action.key)
                if client is not None:
                    client.expires_at = _expiry(action.lifetime_s, self._clock())
                    self._elements.commit(
                        self._ledger.permissions(client, self._clock()), self._expect_done(action.key)
                    )

    def sweep_soon(self) -> None:
        """Give retired numbers back before their time, as when the session core has few left."""
        self._sweeper.sweep_soon()

    def _use(self, elements: Elements) -> None:
        """Change how elements get into the kernel."""
        self._elements = self._counters.elements = self._reconciler.elements = elements

    # Permission

    def _allow(self, action: AllowTraffic) -> None:
        key = action.key
        trouble = self._ledger.objection(action)
        if trouble:
            self.statistics.refusals += 1
            self._post(TrafficRefused(key, trouble))
            return
        client = _client_of(action, self._clock())
        changes: list[Change] = []
        old = self._ledger.clients.get(key)
        if old is not None:
            changes = [Drop(change.set, change.key) for change in self._ledger.permissions(old, self._clock())]
            if old.number == client.number:
                # The same session at another address or lifetime goes on counting.
                client.kernel, client.before = old.kernel, old.before
            else:
                changes += [Drop(UP, key_of_number(old.number)), Drop(DOWN, key_of_number(old.number))]
                self._ledger.forget(old)
        self._ledger.remember(client)
        changes += self._ledger.permissions(client, self._clock())
        number = key_of_number(client.number)
        changes += (Put(UP, number), Put(DOWN, number))

        def done(refused: ElementsRefused | None, _finals: Finals) -> None:
            if self._ledger.clients.get(key) is not client:
                return  # closed again before the fallback came to it
            if refused is None:
                client.confirmed = True
                self.statistics.logins += 1
                self._post(TrafficAllowed(key))
            elif refused.lost:
                self._damage.note()  # the rebuilt table will have this client, and then the hub is told
            else:
                self.statistics.refusals += 1
                self._ledger.forget(client)
                self._post(TrafficRefused(key, str(refused)))

        self._elements.commit(changes, done)

    def _deny(self, action: DenyTraffic) -> None:
        key, number = action.key, action.client_number
        client = self._ledger.clients.get(key)
        zone = self._ledger.zones.get(key.zone)
        changes: list[Change] = []
        if zone is not None:
            addresses = {action.address} if client is None else {action.address, client.address}
            changes += [Drop(zone.auth4, key_of_client(key.mac, address)) for address in addresses]
            if zone.auth6 is not None:
                changes.append(Drop(zone.auth6, key.mac))
        if self._ledger.numbers.get(number, key) == key:
            changes += (Drop(UP, key_of_number(number)), Drop(DOWN, key_of_number(number)))
        if client is not None:
            self._ledger.forget(client)

        def done(refused: ElementsRefused | None, finals: Finals) -> None:
            if refused is not None and not refused.lost:
                log.error("could not close the gate, trying again mac=%s reason=%s", key.mac, refused)
                self.statistics.refusals += 1
                self._unclosed.append(action)
                if client is not None and key not in self._ledger.clients:
                    self._ledger.remember(client)
                return
            counters = ZERO
            if client is not None:
                up, down = finals.get((UP.name, key_of_number(number))), finals.get((DOWN.name, key_of_number(number)))
                counters = client.total() if up is None or down is None else client.note(up, down)
            self.statistics.logouts += 1
            self._sweeper.retire(number)
            self._post(TrafficDenied(key, counters))

        self._elements.commit(changes, done)

    def _bind(self, key: ClientKey, address: IPv4Address, *, bound: bool) -> None:
        zone = self._ledger.zones.get(key.zone)
        if zone is not None:
            element = key_of_client(key.mac, address)
            change = Put(zone.bind4, element) if bound else Drop(zone.bind4, element)
            self._elements.commit([change], self._expect_done(key))

    def _expect_done(self, key: ClientKey) -> Done:
        def done(refused: ElementsRefused | None, _finals: Finals) -> None:
            if refused is not None:
                self.statistics.refusals += 1
                log.warning("the kernel did not take a change, rebuilding mac=%s reason=%s", key.mac, refused)
                self._damage.note((key,))

        return done

    # Watch

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._damage.look.wait(), WATCH_INTERVAL_S)
            self._damage.look.clear()
            try:
                if not self._table.intact() or self._damage:
                    await self._rebuild()
            except Exception as error:  # noqa: BLE001 - whatever it is, the gate is shut and must be tried again
                log.error("the table could not be rebuilt, trying again reason=%s", error)
                await asyncio.sleep(WATCH_INTERVAL_S)
                self._damage.note()
            unclosed, self._unclosed = self._unclosed, []
            for action in unclosed:
                self._deny(action)

    async def _rebuild(self) -> None:
        async with self._changing:
            lost = not self._table.intact()  # looked at again: a reload in between was no loss
            if not lost and not self._damage:
                return
            damaged = self._damage.take()
            if lost:
                self.statistics.tables_lost += 1
                self.statistics.lost_at = self._clock()
                log.warning("the table was lost or changed by somebody else, rebuilding table=%s", self._table.name)
                await self._table.load(self._text)
            else:
                log.warning("elements were lost, restoring clients=%d", len(damaged))
            await self._reconciler.reconcile()
            if lost:
                # Who removes tables often also resets sysctls and rules.
                self._note_problems(await self._base.apply())

    async def _follow_system(self) -> None:
        """Hold interfaces to the configuration as they come and go."""
        while True:
            await self._surroundings.changed.wait()
            self._surroundings.changed.clear()
            async with self._changing:
                # In this order: a port that joins in between is new to the next event, and isolated by it.
                await self._surroundings.refresh_links()
                self._note_problems(await self._base.apply())

    def _note_problems(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                log.warning("%s", problem)
        self._problems = problems


def _client_of(action: AllowTraffic, now: float) -> Client:
    return Client(action.key, action.address, action.client_number, _expiry(action.lifetime_s, now))


def _expiry(lifetime_s: int | None, now: float) -> float | None:
    return None if lifetime_s is None else now + lifetime_s
