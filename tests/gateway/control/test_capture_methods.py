"""Recordings asked for at the control socket: which interface and filter is meant; a real one becomes a job."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.addresses import MacAddress
from gateway.analysis import job
from gateway.analysis.frames import CaptureFile
from gateway.capture import recorder, recording
from gateway.capture.recording import Bounds, Recording
from gateway.control.capture_methods import CaptureMethods
from gateway.control.protocol import ControlError, Params
from gateway.control.server import Access, Caller

MAC = MacAddress.parse("02:00:5e:10:00:2a")
CALLER = Caller(0, 0, 1, frozenset(), Access.WRITE, "ada")


def session(zone: str = "guests") -> Any:
    """As much of a session as is looked at."""
    return SimpleNamespace(
        key=SimpleNamespace(zone=zone, mac=MAC), address=IPv4Address("10.1.0.7"), acct_session_id="67a1-1"
    )


@dataclass
class World:
    """As much of a gateway as is asked, and what the recorder was told."""

    state_dir: Path
    zones: tuple[str, ...] = ("guests",)
    sessions: list[Any] = field(default_factory=list)
    started: list[tuple[Any, ...]] = field(default_factory=list)

    def methods(self) -> CaptureMethods:
        """The methods over it."""
        config = SimpleNamespace(
            zones=[SimpleNamespace(name=name, interface=f"br-{name}") for name in self.zones],
            network=SimpleNamespace(uplinks=("eth0",)),
            general=SimpleNamespace(state_dir=str(self.state_dir)),
        )
        return CaptureMethods(
            cast(Any, SimpleNamespace(config=config, machine=SimpleNamespace(sessions=self.sessions)))
        )

    def start(self, captures: Path, interface: str, text: str, bounds: Bounds, **names: str) -> Recording:
        """In the place of the recorder."""
        self.started.append((interface, text, bounds, names["job_owner"], names["job_name"].rsplit("-", 2)[0]))
        return Recording("x", interface, text, 1, bounds, started_unix=time.time())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A gateway with one zone and a spool."""
    (tmp_path / "spool").mkdir()
    made = World(tmp_path)
    monkeypatch.setattr(recorder, "start", made.start)
    return made


def record(world: World, **params: Any) -> Any:
    """Ask for a recording."""
    return asyncio.run(world.methods().record(CALLER, cast(Params, params)))


def test_an_interface_is_recorded_with_its_bounds(world: World) -> None:
    """The job belongs to who asked and is called after the interface."""
    row = record(world, interface="eth0", seconds=5, bytes=1 << 20, filter="udp")
    assert row["status"] == "recording"
    ((interface, text, bounds, owner, name),) = world.started
    assert (interface, text, owner, name) == ("eth0", "udp", "ada", "eth0")
    assert (bounds.max_seconds, bounds.max_bytes) == (5.0, 1 << 20)


@pytest.mark.parametrize("wanted", ["02-00-5E-10-00-2A", "10.1.0.7", "67a1-1"])
def test_a_client_is_recorded_where_it_is(world: World, wanted: str) -> None:
    """By MAC, address or session id; a filter of its own is added to that of the client."""
    world.zones, world.sessions = ("staff", "guests"), [session()]
    record(world, client=wanted, filter="port 53 or port 443")
    ((interface, text, _, _, name),) = world.started
    assert (interface, name) == ("br-guests", "02005e10002a")
    assert text == f"mac {MAC} and (port 53 or port 443)"


def test_a_client_that_is_not_here_is_looked_for_in_the_only_zone(world: World) -> None:
    """With several zones nobody knows where it will come."""
    record(world, client=str(MAC))
    assert world.started[0][:2] == ("br-guests", f"mac {MAC}")
    world.zones = ("guests", "staff")
    with pytest.raises(ControlError, match="record on an interface"):
        record(world, client=str(MAC))
    with pytest.raises(ControlError, match="no client has"):
        record(world, client="bob")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "an interface or a client"),
        ({"interface": "eth0", "client": "10.1.0.7"}, "one of the two"),
        ({"interface": "eth0", "seconds": 0}, "seconds"),
        ({"interface": "eth0", "bytes": 1}, "bytes"),
        ({"interface": "eth0", "snap": 1}, "snap"),
    ],
)
def test_what_is_wrong_is_named(world: World, params: dict[str, Any], words: str) -> None:
    """Before anything is started."""
    with pytest.raises(ControlError, match=words):
        record(world, **params)
    assert not world.started


def test_only_two_recordings_run_at_once(world: World) -> None:
    """Each takes a socket, a process and a part of the disk."""
    for number in range(2):
        directory = world.state_dir / "spool" / f"20260101-00000{number}-eth0"
        directory.mkdir()
        pid = os.getpid()
        running = Recording(
            directory.name, "eth0", "", 1, Bounds(), pid=pid, pid_started=recording.process_started(pid)
        )
        recording.save(directory, running)
    with pytest.raises(ControlError, match="2 recordings run"):
        record(world, interface="eth0")


def test_without_a_spool_there_is_a_sentence(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(ControlError, match="postern-worker"):
        record(World(tmp_path), interface="lo")


def test_without_its_package_there_is_a_sentence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On OpenWrt recording comes with a package that the gate can do without."""
    monkeypatch.setitem(sys.modules, "gateway.capture.expression", None)
    with pytest.raises(ControlError, match="the package postern-analysis, which is not installed"):
        record(world, interface="lo")
    assert world.started == []


@pytest.mark.root
def test_a_recording_becomes_a_job(tmp_path: Path) -> None:
    """On loopback: started, stopped, and in the queue with its packets, as a file that the group can read."""
    spool = tmp_path / "spool"
    spool.mkdir()
    for path in (spool, tmp_path, *tmp_path.parents[:3]):
        if path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)

    async def story() -> job.State:
        methods = World(tmp_path).methods()
        names = [row["name"] for row in cast(Any, methods.interfaces(CALLER, {}))["rows"]]
        assert "lo" in names
        params: Params = {"interface": "lo", "filter": "udp and port 47809", "seconds": 60}
        row = cast(dict[str, Any], await methods.record(CALLER, params))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(5):
                sock.sendto(b"to be seen", ("127.0.0.1", 47809))
        assert job.listing(spool) == []
        await asyncio.sleep(0.3)
        await methods.stop(CALLER, {"id": row["id"]})
        deadline = time.monotonic() + 20
        while not job.listing(spool):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        while (ended := cast(Any, await methods.recordings(CALLER, {}))["rows"][0])["status"] == "recording":
            await asyncio.sleep(0.05)
        assert (ended["status"], ended["ended_by"], ended["packets"]) == ("finished", "stop", 5)
        return job.listing(spool)[0]

    before = os.umask(0o077)
    try:
        state = asyncio.run(story())
    finally:
        os.umask(before)
    assert (state.status, state.owner) == ("pending", "ada")
    assert state.name.startswith("lo-")
    capture = spool / state.id / job.CAPTURE
    assert capture.stat().st_mode & 0o777 == 0o660
    with CaptureFile.open(capture) as file:
        assert len(list(file.walk())) == 5
