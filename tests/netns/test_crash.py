"""The crash test: the daemon is killed at random moments while a hundred clients log in and out.

Promises of the gate, whatever the moment: who was told that it is online has access, also while no daemon runs; who was
told that it is logged out has none; the accounting server has a Start and a Stop of every session that anybody was told
of, and what it has twice it has twice alike. An answer that never came tells nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.netns.freeradius import DetailRecord, FreeRadius, user_entry
from tests.netns.harness import INTERNET4, UPLINK4, Lab, wait_for
from tests.netns.hotspot import Hotspot
from tests.netns.phones import NotToldError, Phone, lease_all, make_phones

pytestmark = [pytest.mark.root, pytest.mark.slow]
SEED: Final = 20_260_101
CLIENTS: Final = 100
KILLS: Final = 50
LIMIT_S: Final = 280.0  # on a machine that is busy with other things; alone it takes half of it
DRAIN_S: Final = 60.0
SECRET: Final = "crash-secret"
ZONE: Final = "\tlist method password\n\tlist auth radius\n"
# Differs from one sending to the next by right (RFC 2866 §5.2), follows from that, or is the server's own.
VOLATILE: Final = frozenset({"Acct-Delay-Time", "Message-Authenticator", "Timestamp"})


@dataclass(slots=True)
class Visitor:
    """A phone, what it was told, and what it found untrue."""

    phone: Phone
    dice: random.Random
    online: bool | None = False  # as told last; None while nobody knows
    names: list[str] = field(default_factory=list)  # every login is under a name of its own
    told: set[str] = field(default_factory=set)  # names under which it was told to be online
    broken: list[str] = field(default_factory=list)
    checks: int = 0

    async def live(self, until: asyncio.Event) -> None:
        """Come and go at random until told to stop."""
        while not until.is_set():
            await asyncio.sleep(self.dice.uniform(0.05, 1.2))
            try:
                if self.online is None:
                    await self.ask()
                elif self.online and self.dice.random() < 0.5:
                    await self.log_out()
                elif not self.online and self.dice.random() < 0.8:
                    await self.log_in()
                else:
                    await self.look()
            except NotToldError:
                pass  # nothing was promised; `online` says so where it matters

    async def log_in(self) -> None:
        """Log in under a new name; whether it worked is unknown until somebody says so."""
        name = f"{self.phone.device}-{len(self.names)}"
        self.names.append(name)
        self.online = None
        status, answer = await self.phone.ask_portal("/api/v1/login", {"username": name, "password": "secret"})
        if status == 200:
            self.online = True
            self.told.add(name)
            if self.dice.random() < 0.5:
                await self.look()
        elif status in (401, 403):
            self.broken.append(f"{name} was refused: {answer}")

    async def log_out(self) -> None:
        """Log out; until the answer comes nothing is sure."""
        self.online = None
        status, _ = await self.phone.ask_portal("/api/v1/logout", {})
        if status in (200, 404):
            self.online = False
            if self.dice.random() < 0.5:
                await self.look()

    async def ask(self) -> None:
        """Ask how things stand after an answer that did not come."""
        status, answer = await self.phone.ask_portal("/api/v1/status")
        if status == 200:
            self.online = True
            self.told.add(str(answer["username"]))
        elif status == 404:
            self.online = False

    async def look(self) -> None:
        """See with a real connection whether what was told is so; it must be, with and without a daemon."""
        told = self.online
        self.checks += 1
        if told is not None and await self.phone.passes(limit_s=10) is not told:
            self.broken.append(f"{self.phone.device} was told online={told}, and it is not so ({self.names[-1:]})")


def test_no_promise_is_broken_by_fifty_kills(tmp_path: Path) -> None:
    """Fifty SIGKILLs, a hundred clients; some kills hit a daemon that is only just starting."""
    with Lab("crash") as lab:
        lab.start_internet()
        users = user_entry("DEFAULT", "secret", "Session-Timeout := 7200", "Class := 0x6372617368")
        with (
            FreeRadius(tmp_path, users, {str(UPLINK4): SECRET}, namespace=lab.internet) as server,
            Hotspot(
                lab,
                zone_options=ZONE,
                sections=f"config radius_server 'one'\n\toption address '{INTERNET4}'\n\toption secret '{SECRET}'\n",
                log_level="warning",
            ) as hotspot,
        ):
            visitors = [Visitor(phone, random.Random(f"{SEED} {phone.device}")) for phone in make_phones(lab, CLIENTS)]
            began = time.monotonic()
            kills = asyncio.run(storm(hotspot, visitors))
            took_s = time.monotonic() - began
            online = {visitor.phone.device: visitor.online for visitor in visitors}
            assert kills >= KILLS
            assert [text for visitor in visitors for text in visitor.broken] == []
            assert hotspot.web is not None
            assert hotspot.web.poll() is None, "the portal lived through it all"
            assert wait_for(lambda: hotspot.ask("radius", "status")["queue"]["length"] == 0, timeout_s=DRAIN_S)
            rows = hotspot.ask("sessions", "list", "--limit", "1000")["rows"]
            running = {row["session_id"] for row in rows if row["state"] == "online"}
            assert len(running) == sum(bool(known) for known in online.values())
            told = {name for visitor in visitors for name in visitor.told}
            assert len(told) > CLIENTS, "a storm in which nobody logs in shows nothing"
            records = server.records()
            check_accounting(records, told, running)
            print(
                f"{kills} kills in {took_s:.0f} s; {len(told)} sessions told of {sum(len(v.names) for v in visitors)} "
                f"logins, {sum(v.checks for v in visitors)} looks, {len(records)} records with "
                f"{len(records) - len({(r['Acct-Session-Id'], r['Acct-Status-Type']) for r in records})} repetitions"
            )
            assert hotspot.ask("ruleset", "check")["problems"] == []
            tables = lab.run(lab.gateway, ["nft", "list", "tables"]).stdout.split("\n")
            assert [line for line in tables if line] == ["table inet postern"], "no start left anything behind"


async def storm(hotspot: Hotspot, visitors: Sequence[Visitor]) -> int:
    """Let visitors come and go while the daemon is killed again and again; returns how often it was."""
    await lease_all([visitor.phone for visitor in visitors])
    dice = random.Random(SEED)
    enough = asyncio.Event()
    began = time.monotonic()
    kills = 0
    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(visitor.live(enough)) for visitor in visitors]
        try:
            while kills < KILLS:
                assert time.monotonic() - began < LIMIT_S, f"only {kills} kills in {LIMIT_S} s"
                if dice.random() < 0.3:
                    await asyncio.sleep(dice.uniform(0.1, 1.5))  # perhaps it has not even begun to serve
                else:
                    await up(hotspot)
                    await asyncio.sleep(dice.uniform(0.2, 1.5))
                hotspot.stop_daemon(signal.SIGKILL)
                kills += 1
                hotspot.spawn_daemon()
            await up(hotspot)
            await asyncio.sleep(3)  # logins under way are answered
        finally:
            enough.set()
        await asyncio.wait(lives)
        for visitor in visitors:
            if visitor.online is None:
                group.create_task(settle(visitor))
    for visitor in visitors:
        await visitor.look()
    return kills


async def settle(visitor: Visitor) -> None:
    """Ask until somebody says how things stand."""
    async with asyncio.timeout(30):
        while visitor.online is None:
            with contextlib.suppress(NotToldError):
                await visitor.ask()
            await asyncio.sleep(0.2)


async def up(hotspot: Hotspot, limit_s: float = 30.0) -> None:
    """Wait until the daemon answers; clients go on meanwhile."""
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(hotspot.is_up):
            assert hotspot.daemon is not None
            assert hotspot.daemon.poll() is None, f"posternd ended by itself:\n{hotspot.log()}"
            await asyncio.sleep(0.05)


def check_accounting(records: Sequence[DetailRecord], told: set[str], running: set[str]) -> None:
    """Every session that anybody was told of began once and ended once; what came twice came alike."""
    versions: dict[tuple[str, str, str], set[frozenset[tuple[str, tuple[str, ...]]]]] = defaultdict(set)
    sessions: dict[str, set[str]] = defaultdict(set)
    begun: dict[str, set[str]] = defaultdict(set)
    for record in records:
        kind, session = record["Acct-Status-Type"], record["Acct-Session-Id"]
        if kind in ("Accounting-On", "Accounting-Off"):
            continue
        stamp = record["Event-Timestamp"] if kind == "Interim-Update" else ""
        fixed = frozenset((name, values) for name, values in record.attributes.items() if name not in VOLATILE)
        versions[session, kind, stamp].add(fixed)
        sessions[session].add(kind)
        if kind == "Start":
            begun[record["User-Name"]].add(session)
    unlike = {key: values for key, values in versions.items() if len(values) > 1}
    assert not unlike, f"records that differ from their repetition: {unlike}"
    assert told - set(begun) == set(), "sessions without a Start"
    assert {name: found for name, found in begun.items() if len(found) > 1} == {}, "logins with two sessions"
    wanted = {session: {"Start"} if session in running else {"Start", "Stop"} for session in sessions}
    got = {session: found - {"Interim-Update"} for session, found in sessions.items()}
    wrong = {session: found for session, found in got.items() if found != wanted[session]}
    assert not wrong, f"sessions without Start or Stop, or stopped while online: {wrong}"
    assert running <= set(sessions)
