"""The daemon: makes the rooms, connects them to the hub, starts them in order, and stops them in reverse.

What happens between the rooms is in `hub`; what becomes of saved state at start is in `resume`. Stopping leaves the
kernel as it is: clients that are online stay online while the daemon is restarted, and the kernel's time limits hold.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from gateway.accounts.devices import with_blocks
from gateway.accounts.guests import GuestAccounts
from gateway.accounts.service import AccountService
from gateway.addresses import MacAddress
from gateway.admin.service import AdminService
from gateway.config import Config
from gateway.config_apply import ConfigChanges
from gateway.config_loader import (
    REPEATED,
    SINGLE,
    ConfigError,
    Loaded,
    Problem,
    check_interfaces,
    interfaces,
    load,
    option_fields,
    option_name,
)
from gateway.control.admin_methods import AdminMethods
from gateway.control.backup_methods import BackupMethods
from gateway.control.config_methods import ConfigMethods
from gateway.control.methods import Methods
from gateway.control.protocol import JsonValue
from gateway.control.server import ControlServer, Roles
from gateway.datapath.datapath import Datapath
from gateway.dhcp.sockets import DhcpService
from gateway.dhcp.v4_server import DhcpServer
from gateway.dns.service import DnsService
from gateway.history_file import HistoryKeeper
from gateway.hub import ACCOUNTING, LEASE, META, SESSION, USAGE, Hub, Ports, journal_key
from gateway.journal import Change, Journal, Replayed
from gateway.log import set_up
from gateway.memory import give_back
from gateway.notify import keep_alive, notify
from gateway.radius.breaker import BreakerState
from gateway.radius.dynauth_sockets import DynamicAuthorization
from gateway.radius.session_keys import SessionFacts, SessionKeys, matches
from gateway.radius.sockets import RadiusClient
from gateway.resources import disk_bytes, memory_bytes
from gateway.resume import accounting_records, lease_records, sort_out, usage_records
from gateway.session.actions import AllowTraffic, BindAddress
from gateway.session.events import ChangeRequested, ClockSet, LeaseBound, LeaseEnded, LogoutRequested
from gateway.session.machine import SessionMachine
from gateway.session.model import AccountingStatus, ClientKey, GrantChange, TerminateCause
from gateway.session.policy import Policy
from gateway.session.store import SavedSession, save_accounting
from gateway.sources import GatewaySources, rows
from gateway.system.client import System
from gateway.themes.service import ThemeService
from gateway.timeline import Timeline

LOG: Final = logging.getLogger(__name__)
# A wall clock before this was never set: a board without a clock starts at the epoch, or at the date of its image.
EARLIEST_UNIX: Final = 1_735_689_600  # 2025-01-01
CLOCK_LOOK_S: Final = 1.0
CLOCK_STEP_S: Final = 0.5
MAX_START_NOTES: Final = 5  # sentences on what was not resumed that `warnings` gives one by one
RESUMED_TOGETHER: Final = 200
ANSWER_S: Final = 0.5  # from the wish to start anew to the end, so that the answer arrives
OFF_WAIT_S: Final = 5.0  # for the servers to hear of the end, when nothing is kept
SETTLED_S: Final = 2.0  # after the start


class StartError(RuntimeError):
    """The daemon cannot start; the message says what to do."""


def monotonic() -> float:
    """Seconds on the clock that runs on while the system sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Gateway:
    """All rooms of one running gateway."""

    def __init__(self, loaded: Loaded, path: Path, loop_name: str) -> None:
        config = loaded.config
        self.loop_name = loop_name
        self.loaded = loaded
        self.path = path
        self.started_at = monotonic()
        self.stop_wanted = asyncio.Event()
        self.again = False  # whether it starts anew once it has stopped
        self.reload_wanted = asyncio.Event()
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._state_dir = Path(config.general.state_dir)
        self._persist = config.sessions.persistence_enabled
        self._lock = _lock(self._state_dir)
        self._zone_macs: dict[str, MacAddress | None] = {}
        self._remembered: dict[ClientKey, float] = {}  # as read at the start
        self.timeline = Timeline(config.general.timeline_events)
        self.journal = Journal(self._state_dir / config.sessions.persistence_file, self._state)
        self._replayed = self.journal.open() if self._persist else Replayed(node="", sequence=0)
        self._not_resumed: list[str] = []  # what the start could not read or take up, in sentences
        self._epoch, self._csrf_secret = self._identities()
        self.machine = SessionMachine(Policy.of(config), self._epoch, random.random)
        self.hub = Hub(
            self.machine, self.journal, self.timeline, boot_id=self.boot_id, now=monotonic, persist=self._persist
        )
        self.datapath = Datapath(config, self.hub.post, monotonic)
        self.dhcp = DhcpService(_dhcp_servers(config), self.hub.post, monotonic)
        self.radius = RadiusClient(
            config,
            self.hub.post,
            monotonic,
            self._wall_clock,
            secrets.SystemRandom(),
            accounting_done=self.hub.accounting_done,
            zone_mac=self.zone_mac,
            learned_changed=self._save_learned,
        )
        self.dynauth = DynamicAuthorization(
            config,
            self._find,
            self._disconnect,
            self._change,
            monotonic,
            self._wall_clock,
            nas_addresses=self.radius.nas_addresses,
        )
        self.accounts = AccountService(config.accounts, self._state_dir, self.hub.post, monotonic)
        self.admin = AdminService(config.admin, config.accounts.hash_time, self._state_dir, monotonic, self.boot_id)
        self.system = System(path, Path(config.general.run_dir))
        self.changes = ConfigChanges(
            path,
            self.admin.thread,
            running=lambda: self.loaded,
            reload=self.reload,
            not_changeable=self._not_changeable,
            write=self.system.write_config,
            clock=monotonic,
            unix_clock=time.time,
            boot_id=self.boot_id,
        )
        self.history = HistoryKeeper(self, self._state_dir, time.time, persist=self._persist)
        self.dns = DnsService(config, monotonic)
        self.sources = GatewaySources(self)
        self._metrics_page: Callable[[], str] | None = None
        self.guests = GuestAccounts(
            self.accounts, self._state_dir, self.hub.post, self.hub.usage_charged, monotonic, time.time
        )
        self.themes = ThemeService(self.accounts, self._state_dir, lambda: self.methods.portal.configuration_changed())
        self.methods = Methods(self, self._csrf_secret, self._metrics_text)
        self.control = ControlServer(
            Path(config.general.run_dir) / "control.sock",
            AdminMethods(self, self.admin).over(
                self.methods.table()
                | ConfigMethods(self.changes, self.system).table()
                | BackupMethods(self).table()
                | self.history.table()
            ),
            _roles(config),
            socket_group=config.general.group,
        )
        self.hub.connect(Ports(self.datapath, self.radius, self.accounts, self.guests, self))

    @property
    def config(self) -> Config:
        """The running configuration."""
        return self.loaded.config

    @property
    def state_dir(self) -> Path:
        """What lasts."""
        return self._state_dir

    def start_anew(self) -> None:
        """Stop and start again as the same process, once the answer to who asked is out."""
        self.again = True
        asyncio.get_running_loop().call_later(ANSWER_S, self.stop_wanted.set)

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start all rooms, serve until `stop_wanted`, stop them."""
        self._look_at_clock()
        self.control.bind()
        await asyncio.gather(self.accounts.start(), self.admin.start())
        await self._know_guests()
        await self._resume()
        try:
            async with asyncio.TaskGroup() as rooms:
                tasks = [
                    rooms.create_task(coroutine, name=name)
                    for name, coroutine in (
                        ("journal", self.journal.run()),
                        ("clock", self._watch_clock()),
                        ("reload", self._reload_on_demand()),
                        ("datapath", self.datapath.run()),
                        ("radius", self.radius.run()),
                        ("dynauth", self.dynauth.run()),
                        ("accounts", self.accounts.run()),
                        ("administration", self.admin.run()),
                        ("configuration", self.changes.run()),
                        ("history", self.history.run()),
                        ("dns", self.dns.run()),
                        ("dhcp", self.dhcp.run()),
                        ("control", self.control.run()),
                        ("watchdog", keep_alive()),
                    )
                ]
                LOG.info("ready zones=%d resumed=%d", len(self.config.zones), self.machine.sessions.online_count)
                notify("READY=1")
                # The walk over everything that the start made takes a while; guests who wait go first.
                asyncio.get_running_loop().call_later(SETTLED_S, give_back)
                await self.stop_wanted.wait()
                if not self.again:  # the service manager would wait for the end of a process that goes on
                    notify("STOPPING=1")
                await self._wind_down()
                for task in reversed(tasks):
                    task.cancel()
        finally:
            await self.datapath.close()
            self.accounts.close()
            self.admin.close()
            self.history.close()
            if self._persist:
                self.journal.close()
            os.close(self._lock)
        LOG.info("stopped sessions=%d", self.machine.sessions.online_count)

    async def reload(self) -> tuple[list[str], list[Problem]]:
        """Read the file again and apply the difference: what changed, and what is wrong (then nothing changes)."""
        try:
            loaded = load(self.path.read_text(encoding="utf-8"), str(self.path))
        except OSError as error:
            return [], [Problem(str(self.path), 0, "", None, f"cannot be read: {error.strerror}")]
        except UnicodeDecodeError:
            return [], [Problem(str(self.path), 0, "", None, "is not UTF-8 text")]
        except ConfigError as error:
            return [], error.problems
        problems = check_interfaces(loaded, interfaces(), str(self.path)) + self._not_changeable(loaded)
        if problems:
            return [], problems
        changed = changes(self.config, loaded.config)
        now = monotonic()
        config = with_blocks(loaded.config, self.guests.blocks)
        try:
            self.dhcp.reconfigure(config.zones, config.dhcp, config.reservations)
        except ValueError as error:
            return [], [Problem(str(self.path), 0, "zone", None, str(error))]
        self.loaded = loaded
        self._zone_macs.clear()
        self.hub.perform(self.machine.reconfigure(Policy.of(config), now))
        await self.datapath.reconfigure(config)
        self.radius.reconfigure(config)
        self.dynauth.reconfigure(config)
        self.dns.reconfigure(config)
        self.accounts.reconfigure(config.accounts)
        self.admin.reconfigure(config.admin)
        set_up(config.general.log_level, config.general.log_format)
        self.methods.portal.configuration_changed()
        LOG.info("configuration applied changed=%s", ",".join(changed) or "nothing")
        return changed, []

    async def apply_blocks(self) -> None:
        """Bring the blocked devices into force in every room; their sessions end."""
        config = with_blocks(self.config, self.guests.blocks)
        self.dhcp.reconfigure(config.zones, config.dhcp, config.reservations)
        self.hub.perform(self.machine.reconfigure(Policy.of(config), monotonic()))
        await self.datapath.reconfigure(config)

    def forget_devices(self, keys: Iterable[ClientKey]) -> None:
        """Devices that come back without a login no more."""
        for key in keys:
            self.machine.remembered.pop(key, None)

    async def _know_guests(self) -> None:
        """Before the kernel is told anything: which devices are remembered, and which are blocked."""
        self._remembered = await self.guests.start(self.forget_devices)
        await self.themes.start(zone.name for zone in self.config.zones)
        if self.guests.blocks:
            config = with_blocks(self.config, self.guests.blocks)
            self.dhcp.reconfigure(config.zones, config.dhcp, config.reservations)
            self.hub.perform(self.machine.reconfigure(Policy.of(config), monotonic()))
            self.datapath.prepare(config)

    async def _reload_on_demand(self) -> None:
        """Reload whenever a signal asked for it; problems go to the log and change nothing."""
        while True:
            await self.reload_wanted.wait()
            self.reload_wanted.clear()
            _, problems = await self.reload()
            for problem in problems:
                LOG.error("configuration not applied: %s", problem)

    def _not_changeable(self, loaded: Loaded) -> list[Problem]:
        """Options that only a restart can change."""
        problems = []
        old, new = self.config, loaded.config
        for section, before, after, options in (
            ("postern", old.general, new.general, ("state_dir", "run_dir", "event_loop")),
            ("accounts", old.accounts, new.accounts, ("database",)),
        ):
            for option in options:
                if getattr(before, option) != getattr(after, option):
                    line = loaded.origins.get((section, "", option), 0)
                    sentence = "cannot change while the gateway runs; restart posternd"
                    value = str(getattr(after, option))
                    problems.append(Problem(str(self.path), line, f"{section}, option {option}", value, sentence))
        return problems

    async def _wind_down(self) -> None:
        """The last acts before the rooms close."""
        now = monotonic()
        if self._persist:
            self.hub.save_all()
            return
        # Nothing is kept, so nothing may stay open: sessions end, and the servers hear of it.
        self.hub.perform(self.machine.end_all(TerminateCause.ADMIN_REBOOT, "the gateway was stopped", now))
        if self._accounts_to_radius():
            self.hub.perform([self.machine.gateway_record(AccountingStatus.OFF, monotonic())])
            await self.radius.drain(OFF_WAIT_S)

    # -- what people ask --------------------------------------------------------------------------------------------

    def _metrics_text(self) -> str:
        """The metrics page; its library is loaded with the first scrape, for it is not small."""
        if self._metrics_page is None:
            from gateway.metrics import MetricsPage

            self._metrics_page = MetricsPage(self.sources).text
        return self._metrics_page()

    def unix(self) -> float | None:
        """Unix time; None while the clock was never set."""
        return self._wall_clock()

    def now(self) -> float:
        """The gateway's clock."""
        return monotonic()

    def warnings(self) -> Iterator[str]:
        """What an operator should know, in sentences with the remedy."""
        if self.journal.trouble:
            yield self.journal.trouble
        for sentence in self._not_resumed[:MAX_START_NOTES]:
            yield f"at the last start: {sentence}"
        if len(self._not_resumed) > MAX_START_NOTES:
            yield f"at the last start: {len(self._not_resumed) - MAX_START_NOTES} more like this, which the log names"
        if self.hub.unix_offset_s is None:
            yield "the clock was never set: accounting records have no time until it is (is NTP reachable?)"
        for zone, listening in self.dhcp.listening.items():
            if not listening:
                yield f"zone {zone!r} gives out no addresses: its interface is away or another DHCP server has the port"
        yield from self.datapath.problems()
        yield from self.dns.status().problems
        for channel in self.radius.channels():
            if channel.breaker.state is BreakerState.OPEN:
                yield f"RADIUS server {channel.place} is left alone: {channel.last_reason}"
        for server in rows(cast(JsonValue, self.radius.status()["servers"])):
            if server.get("warning"):
                yield str(server["warning"])
        yield from self.accounts.warnings()
        yield from self.admin.warnings()
        yield from self.guests.warnings()

    def resources(self) -> dict[str, JsonValue]:
        """Memory and disk of the box, and what all guests together carried in the last minute."""
        memory_total, memory_available = memory_bytes()
        disk_total, disk_free = disk_bytes(self._state_dir)
        rate_up_bps, rate_down_bps = self.history.rates_bps()
        return {
            "memory_total_bytes": memory_total,
            "memory_available_bytes": memory_available,
            "disk_total_bytes": disk_total,
            "disk_free_bytes": disk_free,
            "rate_up_bps": rate_up_bps,
            "rate_down_bps": rate_down_bps,
        }

    def rate_limiters(self) -> dict[str, Callable[[], dict[str, JsonValue]]]:
        """Every limiter of the daemon with its state, for `postern debug rate-limiters`."""
        return {
            "dhcp": lambda: {
                zone: {str(reason): count for reason, count in server.counts().refusals.items()}
                for zone, server in self.dhcp.servers.items()
            },
            "dns": lambda: dict(self.dns.counts().core.dropped),
            "logins": lambda: {"waiting": self.hub.logins_waiting},
            "portal": lambda: {
                name: value for name, value in self.methods.portal.figures.items() if name.startswith("http_")
            },
        }

    # -- state ------------------------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Bring back what was saved: leases, then sessions, then the kernel, then records not answered for."""
        now, unix = monotonic(), self._wall_clock()
        self._not_resumed += [f"journal: {note}" for note in self._replayed.notes]
        leases, notes = lease_records(self._replayed.kind(LEASE), now=now, unix=unix, boot_id=self.boot_id)
        for server in self.dhcp.servers.values():
            over = server.restore((lease for lease in leases if lease.zone == server.zone.name), now)
            self.hub.append([(LEASE, journal_key(event.key), None) for event in over if isinstance(event, LeaseEnded)])
            for lease in server.snapshot(now):
                key, expires_at = ClientKey(lease.zone, lease.mac), now + lease.remaining_s
                self.machine.receive(LeaseBound(key, lease.address, expires_at, lease.hostname), now)
        # Not before the leases: whoever holds one of them has not just come back.
        self.machine.remembered.update(self._remembered)
        plan = sort_out(
            self._replayed.kind(SESSION),
            self.machine,
            now=now,
            unix=unix,
            boot_id=self.boot_id,
            max_age_s=self.config.sessions.resume_max_age,
        )
        records, more_notes = accounting_records(self._replayed.kind(ACCOUNTING))
        usages, usage_notes = usage_records(self._replayed.kind(USAGE))
        for usage in usages:
            self.guests.charge(usage)
        self._not_resumed += [f"not resumed: {note}" for note in [*notes, *plan.notes, *more_notes, *usage_notes]]
        for sentence in self._not_resumed:
            LOG.warning("%s", sentence)
        self.radius.restore(records, self._replayed.kind(META).get("learned", ()))
        wanted = [
            AllowTraffic(saved.key, saved.address, saved.number, self.machine.saved_lifetime_s(saved, now))
            for saved in plan.resumed
        ]
        bindings = [
            BindAddress(session.key, session.address)
            for session in self.machine.sessions
            if session.address is not None
        ]
        # Of those that are not wanted any more, the kernel may have counted something since they were saved.
        leaving = [AllowTraffic(lost.saved.key, lost.saved.address, lost.saved.number, None) for lost in plan.lost]
        kept = await self.datapath.start(wanted, bindings, leaving)
        for lost in plan.lost:
            counted = kept.get(lost.saved.key)
            self.hub.perform(self.machine.lost(lost.saved, lost.cause, lost.reason, now, kept=counted))
        for together in _slices(plan.resumed):
            actions = [self.machine.restore(saved, now, kept=kept.get(saved.key)) for saved in together]
            self.hub.perform([action for group in actions for action in group])
        if not plan.resumed and self._accounts_to_radius():
            self.hub.perform([self.machine.gateway_record(AccountingStatus.ON, now)])
        self._replayed = Replayed(node="", sequence=0)

    def _state(self) -> Iterator[Change]:
        """Everything that must survive, for the journal's compaction."""
        yield (META, "epoch", self._epoch)
        yield (META, "csrf", self._csrf_secret)
        snapshot = self.radius.snapshot()
        yield (META, "learned", sorted(snapshot.learned))
        for record in snapshot.records:
            yield (ACCOUNTING, record.record_id, save_accounting(record))
        yield from self.hub.state()

    def _identities(self) -> tuple[int, bytes]:
        """The number of this start, and the secret of the portal's forms, which outlives it.

        The number rises by one each time, and begins at random so that a lost journal repeats no session id.
        """
        saved = self._replayed.kind(META)
        epoch: int = saved.get("epoch", secrets.randbits(31)) + 1
        csrf_secret: bytes = saved.get("csrf", secrets.token_bytes(32))
        if self._persist:
            self.journal.append([(META, "epoch", epoch), (META, "csrf", csrf_secret)])
        return epoch, csrf_secret

    def _save_learned(self) -> None:
        self.hub.append([(META, "learned", sorted(self.radius.snapshot().learned))])

    def lease_record(self, key: ClientKey) -> dict[str, str | bytes | float] | None:
        """What is to be saved of a client's lease; None when it has none."""
        server = self.dhcp.servers.get(key.zone)
        record = server.record(key.mac, monotonic()) if server is not None else None
        return None if record is None else record.to_record()

    # -- the clock --------------------------------------------------------------------------------------------------

    def _wall_clock(self) -> float | None:
        """Unix time, or None while it was never set."""
        wall = time.time()
        return wall if wall >= EARLIEST_UNIX else None

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_LOOK_S)
            self._look_at_clock()

    def _look_at_clock(self) -> None:
        """Tell the core when the wall clock was set or stepped."""
        wall, known = self._wall_clock(), self.hub.unix_offset_s
        offset = None if wall is None else wall - monotonic()
        if offset == known or (offset is not None and known is not None and abs(offset - known) < CLOCK_STEP_S):
            return
        if known is not None and offset is not None:
            LOG.warning("wall clock stepped seconds=%.1f", offset - known)
        self.hub.post(ClockSet(offset))

    # -- what RADIUS asks -------------------------------------------------------------------------------------------

    def _accounts_to_radius(self) -> bool:
        return any(server.acct_port for server in self.config.radius.servers)

    def zone_mac(self, zone: str) -> MacAddress | None:
        """The MAC of our interface in a zone, for Called-Station-Id."""
        if zone not in self._zone_macs:
            self._zone_macs[zone] = _interface_mac(zone, self.config)
        return self._zone_macs[zone]

    def _find(self, keys: SessionKeys) -> list[ClientKey]:
        zones = {zone.name: zone.interface for zone in self.config.zones}
        found = []
        for session in self.machine.sessions.online():
            grant = session.grant
            assert grant is not None
            facts = SessionFacts(
                acct_session_id=session.acct_session_id,
                username=grant.username,
                mac=session.key.mac,
                address=session.address,
                ipv6_addresses=session.ipv6_addresses,
                client_number=session.number,
                interface=zones.get(session.key.zone, ""),
                chargeable_user_identity=grant.chargeable_user_identity,
            )
            if matches(keys, facts):
                found.append(session.key)
        return found

    async def _disconnect(self, key: ClientKey) -> tuple[bool, str]:
        request_id, answer = self.hub.request()
        self.hub.post(LogoutRequested(key, request_id, TerminateCause.ADMIN_RESET, "RADIUS server"))
        reply = await answer
        return reply.done, reply.reason

    async def _change(self, key: ClientKey, change: GrantChange) -> tuple[bool, str]:
        request_id, answer = self.hub.request()
        self.hub.post(ChangeRequested(key, request_id, change, "RADIUS server"))
        reply = await answer
        return reply.done, reply.reason


def _slices(sessions: list[SavedSession]) -> Iterator[list[SavedSession]]:
    """Some sessions at a time, for one journal record each."""
    for first in range(0, len(sessions), RESUMED_TOGETHER):
        yield sessions[first : first + RESUMED_TOGETHER]


def changes(old: Config, new: Config) -> list[str]:
    """Which options differ, as `section.option`; sections that came or went are named alone."""
    found = []
    for kind, (attribute, section_class) in SINGLE.items():
        found += _different(kind, getattr(old, attribute), getattr(new, attribute), section_class)
    for kind, (attribute, section_class) in REPEATED.items():
        before = {item.name: item for item in _sections(old, attribute)}
        after = {item.name: item for item in _sections(new, attribute)}
        found += [f"{kind} {name!r}" for name in sorted(before.keys() ^ after.keys())]
        for name in sorted(before.keys() & after.keys()):
            found += _different(f"{kind} {name!r}", before[name], after[name], section_class)
    return found


def _sections(config: Config, attribute: str) -> tuple[Any, ...]:
    sections: tuple[Any, ...] = getattr(config.radius if attribute == "servers" else config, attribute)
    return sections


def _different(place: str, old: Any, new: Any, section_class: type[Any]) -> list[str]:
    names = [(item.name, option_name(item)) for item in option_fields(section_class)]
    return [f"{place}.{option}" for name, option in names if getattr(old, name) != getattr(new, name)]


def _dhcp_servers(config: Config) -> list[DhcpServer]:
    try:
        return [DhcpServer(zone, config.dhcp, config.reservations) for zone in config.zones]
    except ValueError as error:
        raise StartError(str(error)) from error


def _interface_mac(zone: str, config: Config) -> MacAddress | None:
    for item in config.zones:
        if item.name == zone:
            try:
                text = Path(f"/sys/class/net/{item.interface}/address").read_text(encoding="ascii")
                return MacAddress.parse(text)
            except (OSError, ValueError):
                return None  # the interface is away, or has no Ethernet address
    return None


def _roles(config: Config) -> Roles:
    general = config.general
    return Roles(
        read_groups=(general.group,),
        write_groups=(general.admin_group,),
        portal_groups=(general.portal_user,),
        portal_users=(general.portal_user,),
        admin_web_groups=(general.admin_web_group,),
        admin_web_users=(general.admin_user,),
    )


def _lock(state_dir: Path) -> int:
    """Take the state directory for ourselves; two gateways on one journal would destroy it."""
    path = state_dir / "posternd.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        # O_CLOEXEC: a child that inherits a locked descriptor keeps the lock after we are gone.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot use {state_dir}: {error.strerror}; make it writable for posternd") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StartError(f"another posternd uses {state_dir}; stop that one first") from error
    return descriptor
