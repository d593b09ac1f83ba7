"""The gate over restarts: SIGTERM, SIGKILL, a reboot, and journals that were cut, spoilt or had no room.

The kernel keeps the gate while the daemon is away; what the daemon must know again it reads from its journal.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hub import LEASE, SESSION
from tests.netns.freeradius import DetailRecord, FreeRadius, user_entry
from tests.netns.harness import INTERNET4, UPLINK4, WEB4, Lab, wait_for
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root
SECRET = "restart-secret"
ZONE = "\tlist method password\n\tlist auth radius\n"
SERVER = f"config radius_server 'one'\n\toption address '{INTERNET4}'\n\toption secret '{SECRET}'\n"
USERS = user_entry(
    "alice",
    "wonderland",
    "Session-Timeout := 3600",
    "ChilliSpot-Max-Total-Octets := 50000000",
    "Class := 0x676f6c64",
    "Class += 0x0001ff",
)
USERS += user_entry("brief", "wonderland", "Session-Timeout := 5") + user_entry("ample", "wonderland")
SOON_S = 15  # more than a start takes on a busy machine
USERS += user_entry("soon", "wonderland", f"Session-Timeout := {SOON_S}")
LOCAL = "\tlist method password\n\tlist auth local\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests behind one bridge, and the Internet."""
    with Lab("restart", guests_wanted=2) as made:
        made.start_internet()
        yield made


@pytest.fixture
def freeradius(lab: Lab, tmp_path: Path) -> Iterator[FreeRadius]:
    """A RADIUS server in the Internet."""
    with FreeRadius(tmp_path, USERS, {str(UPLINK4): SECRET}, namespace=lab.internet) as server:
        yield server


@pytest.fixture
def hotspot(lab: Lab, freeradius: FreeRadius) -> Iterator[Hotspot]:
    """A gateway whose guests are known to the RADIUS server."""
    with Hotspot(lab, zone_options=ZONE, sections=SERVER) as made:
        yield made


def of_session(server: FreeRadius, session_id: str) -> list[DetailRecord]:
    return [record for record in server.records() if record["Acct-Session-Id"] == session_id]


def kinds(records: list[DetailRecord]) -> list[str]:
    return [record["Acct-Status-Type"] for record in records]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "reboot"])
def test_clients_go_on_through_a_restart(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius, how: str) -> None:
    """Online stays online, with time, quota, counters, Class and session id; held stays held; one Start, one Stop."""
    online, held = lab.guests
    hotspot.lease(online)
    hotspot.lease(held)
    assert hotspot.log_in(online, "alice", "wonderland").status == 200
    hotspot.curl(online, f"http://{WEB4}/bytes/300000", "-o", "/dev/null")
    before = hotspot.session(online)
    if how == "reboot":
        # A power cut loses what was counted since the last saving; here that was just before it.
        hotspot.stop_daemon()
        hotspot.forget_boot()
    else:
        hotspot.stop_daemon(signal.Signals[how])
        assert hotspot.passes(online), "the kernel lets online clients through without us"
        assert hotspot.curl(held, f"http://{WEB4}:8080/", limit_s=2).status == 0
        assert not hotspot.passes(held)
    assert not hotspot.is_up()
    hotspot.start_daemon()
    assert hotspot.state(online) == "online"
    assert hotspot.state(held) == "held"
    after = hotspot.session(online)
    for name in ("session_id", "username", "ip"):
        assert after[name] == before[name]
    assert before["seconds_left"] - 60 < after["seconds_left"] <= before["seconds_left"]
    assert after["download_bytes"] >= before["download_bytes"] > 300_000
    assert 0 < after["bytes_left"] <= before["bytes_left"] < 50_000_000
    assert wait_for(lambda: hotspot.passes(online))
    assert not hotspot.passes(held)
    assert hotspot.ask("ruleset", "check")["problems"] == []
    hotspot.curl(online, f"http://{WEB4}/bytes/200000", "-o", "/dev/null")
    counted = hotspot.session(online)
    assert counted["download_bytes"] > before["download_bytes"] + 200_000
    hotspot.wait_for_portal()
    assert hotspot.log_out(online).status == 200
    assert not hotspot.passes(online)
    assert wait_for(lambda: "Stop" in kinds(of_session(freeradius, before["session_id"])))
    records = of_session(freeradius, before["session_id"])
    assert kinds(records) == ["Start", "Stop"]
    for record in records:
        assert record.attributes["Class"] == ("0x676f6c64", "0x0001ff")
    assert int(records[1]["Acct-Output-Octets"]) >= counted["download_bytes"]
    assert records[1]["Acct-Terminate-Cause"] == "User-Request"
    assert "Accounting-On" not in kinds(freeradius.records())[1:], "nothing began anew"


def test_a_stop_that_is_clean_loses_no_octet(lab: Lab, hotspot: Hotspot) -> None:
    """After SIGTERM and a reboot the counters stand where the kernel's stood."""
    hotspot.lease(lab.guest)
    hotspot.log_in(lab.guest, "alice", "wonderland")
    hotspot.curl(lab.guest, f"http://{WEB4}/bytes/700000", "-o", "/dev/null")
    hotspot.stop_daemon()
    hotspot.forget_boot()
    hotspot.start_daemon()
    assert hotspot.session(lab.guest)["download_bytes"] > 700_000


def test_octets_beyond_four_gigabytes_are_told(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """Counters go on from what was saved, and the Stop carries them in two attributes each (RFC 2869 §5.1)."""
    hotspot.lease(lab.guest)
    assert hotspot.log_in(lab.guest, "ample", "wonderland").status == 200
    session = hotspot.session(lab.guest)["session_id"]
    hotspot.stop_daemon()
    hotspot.forget_boot()

    def enlarge(kind: str, value: dict[str, Any]) -> None:
        if kind == SESSION:
            value["used"] = [5_000_000_000, 4_000_000, 9_000_000_000, 7_000_000]

    hotspot.rewrite_journal(enlarge)
    hotspot.start_daemon()
    hotspot.postern("sessions", "kick", str(lab.guest.mac))
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Stop"])
    stop = of_session(freeradius, session)[1]
    assert (int(stop["Acct-Input-Gigawords"]) << 32) + int(stop["Acct-Input-Octets"]) >= 5_000_000_000
    assert (int(stop["Acct-Output-Gigawords"]) << 32) + int(stop["Acct-Output-Octets"]) >= 9_000_000_000


def test_a_session_time_that_ran_out_while_we_were_dead_ends_at_start(
    lab: Lab, hotspot: Hotspot, freeradius: FreeRadius
) -> None:
    """Without a single event of the network: the start itself looks at the time."""
    guest = lab.guest
    hotspot.lease(guest)
    assert hotspot.log_in(guest, "brief", "wonderland").status == 200
    session = hotspot.session(guest)["session_id"]
    hotspot.curl(guest, f"http://{WEB4}/bytes/100000", "-o", "/dev/null")
    hotspot.stop_daemon(signal.SIGKILL)
    time.sleep(5)
    hotspot.start_daemon()
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Stop"], timeout_s=3)
    stop = of_session(freeradius, session)[1]
    assert stop["Acct-Terminate-Cause"] == "Session-Timeout"
    assert int(stop["Acct-Output-Octets"]) > 100_000, "what the kernel counted meanwhile is told"
    assert hotspot.state(guest) == "held"
    assert not hotspot.passes(guest)


def test_a_start_that_was_killed_leaves_nothing_behind(lab: Lab) -> None:
    """The scratch table of a self-test that never ended goes with the next start, and does not spoil its test."""
    with Hotspot(lab, zone_options=LOCAL) as hotspot:
        hotspot.stop_daemon(signal.SIGKILL)
        lab.run(lab.gateway, ["nft", "add table inet postern_selftest; add chain inet postern_selftest left"])
        hotspot.start_daemon()
        tables = lab.run(lab.gateway, ["nft", "list", "tables"]).stdout.split("\n")
        assert [line for line in tables if line] == ["table inet postern"]
        assert hotspot.ask("status")["datapath"]["elements"] == "codec"


def test_a_limit_that_comes_after_a_restart_is_kept(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """The time that was left is over soon after the start, and nothing happens that would remind the daemon."""
    guest = lab.guest
    hotspot.lease(guest)
    assert hotspot.log_in(guest, "soon", "wonderland").status == 200
    began = time.monotonic()
    session = hotspot.session(guest)["session_id"]
    hotspot.stop_daemon(signal.SIGKILL)
    hotspot.start_daemon()
    assert hotspot.curl(guest, f"http://{WEB4}:8080/", limit_s=2).status == 200
    time.sleep(max(0.0, began + SOON_S + 2 - time.monotonic()))
    # On a machine that is busy with other things everything may come later; the record below says when it was decided.
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Stop"], timeout_s=10)
    stop = of_session(freeradius, session)[1]
    assert stop["Acct-Terminate-Cause"] == "Session-Timeout"
    assert SOON_S <= int(stop["Acct-Session-Time"]) <= SOON_S + 2
    assert hotspot.curl(guest, f"http://{WEB4}:8080/", limit_s=2).status == 0


def test_a_lease_survives_and_is_renewed(lab: Lab, hotspot: Hotspot) -> None:
    """A client that asks for its address again after a restart gets it; another new client gets another."""
    first, second = lab.guests
    address = hotspot.lease(first)
    hotspot.log_in(first, "alice", "wonderland")
    hotspot.stop_daemon(signal.SIGKILL)
    hotspot.start_daemon()
    assert [row["ip"] for row in hotspot.ask("leases", "list")["rows"]] == [str(address)]
    assert hotspot.lease(first) == address
    assert hotspot.state(first) == "online", "asking again ends nothing"
    assert hotspot.lease(second) != address


def test_a_lease_that_ran_out_while_we_were_dead_ends_its_session(
    lab: Lab, hotspot: Hotspot, freeradius: FreeRadius
) -> None:
    """Nobody may use an address for which nobody answers; the Stop says Lost-Carrier."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")
    session = hotspot.session(guest)["session_id"]
    hotspot.stop_daemon(signal.SIGKILL)
    hotspot.curl(guest, f"http://{WEB4}/bytes/150000", "-o", "/dev/null")

    def age(kind: str, value: dict[str, Any]) -> None:
        if kind == LEASE:
            value["at"] -= 4000

    hotspot.rewrite_journal(age)
    hotspot.start_daemon()
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Stop"])
    stop = of_session(freeradius, session)[1]
    assert stop["Acct-Terminate-Cause"] == "Lost-Carrier"
    assert int(stop["Acct-Output-Octets"]) > 150_000, "what the kernel counted while we were dead is told"
    assert not hotspot.passes(guest)
    hotspot.stop_daemon(signal.SIGKILL)
    hotspot.start_daemon()
    time.sleep(1)
    assert kinds(of_session(freeradius, session)) == ["Start", "Stop"], "an end is told once"


def test_a_gateway_that_was_off_too_long_ends_its_sessions(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """After a day in the dark nobody goes on; the Stop says NAS-Reboot."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")
    session = hotspot.session(guest)["session_id"]
    hotspot.stop_daemon()
    hotspot.forget_boot()

    def age(kind: str, value: dict[str, Any]) -> None:
        if kind == SESSION:
            value["saved_unix"] -= 90_000

    hotspot.rewrite_journal(age)
    hotspot.start_daemon()
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Stop"])
    assert of_session(freeradius, session)[1]["Acct-Terminate-Cause"] == "NAS-Reboot"
    assert hotspot.state(guest) == "held"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_without_persistence_nobody_goes_on(lab: Lab, freeradius: FreeRadius, how: str) -> None:
    """A stop ends every session and says so; after a death the server hears that all began anew. The gate is shut."""
    guest = lab.guest
    sections = f"config sessions\n\toption persistence_enabled 0\n{SERVER}"
    with Hotspot(lab, zone_options=ZONE, sections=sections) as hotspot:
        assert wait_for(lambda: kinds(freeradius.records()) == ["Accounting-On"])
        hotspot.lease(guest)
        hotspot.log_in(guest, "alice", "wonderland")
        session = hotspot.session(guest)["session_id"]
        assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start"])
        hotspot.stop_daemon(signal.Signals[how])
        if how == "SIGTERM":
            assert hotspot.curl(guest, f"http://{WEB4}:8080/", limit_s=2).status == 0
            assert kinds(freeradius.records())[2:] == ["Stop", "Accounting-Off"]
            assert of_session(freeradius, session)[1]["Acct-Terminate-Cause"] == "Admin-Reboot"
        hotspot.start_daemon()
        assert wait_for(lambda: kinds(freeradius.records())[-1] == "Accounting-On")
        assert not hotspot.passes(guest)
        assert hotspot.state(guest) == ""


def test_a_journal_cut_anywhere_starts(lab: Lab) -> None:
    """Cut at three places: every start succeeds, says what was cut, and opens the gate to nobody whom it forgot."""
    guest = lab.guest
    with Hotspot(lab, zone_options=LOCAL) as hotspot:
        hotspot.add_user("alice", "wonderland")
        hotspot.lease(guest)
        hotspot.log_in(guest, "alice", "wonderland")
        hotspot.stop_daemon(signal.SIGKILL)
        whole = hotspot.journal.read_bytes()
        places = random.Random(7).sample(range(1, len(whole)), 3)
        for place in places:
            hotspot.journal.write_bytes(whole[:place])
            hotspot.start_daemon()
            online = hotspot.state(guest) == "online"
            assert hotspot.passes(guest) is online
            warnings = " ".join(hotspot.ask("status")["warnings"])
            assert re.search(r"journal|sessions\.msgpack", warnings), (place, warnings)
            hotspot.stop_daemon(signal.SIGKILL)


@pytest.mark.parametrize("spoil", ["noise", "flipped"])
def test_a_spoilt_journal_starts_and_is_reported(lab: Lab, spoil: str) -> None:
    """Noise in the journal's place is set aside; a record with a wrong octet ends what is read."""
    guest = lab.guest
    with Hotspot(lab, zone_options=LOCAL) as hotspot:
        hotspot.add_user("alice", "wonderland")
        hotspot.lease(guest)
        hotspot.log_in(guest, "alice", "wonderland")
        hotspot.stop_daemon(signal.SIGKILL)
        data = bytearray(hotspot.journal.read_bytes())
        if spoil == "noise":
            data = bytearray(random.Random(3).randbytes(20_000))
        else:
            data[len(data) // 2] ^= 0x10
        hotspot.journal.write_bytes(data)
        hotspot.start_daemon()
        warnings = " ".join(hotspot.ask("status")["warnings"])
        assert ("set aside" if spoil == "noise" else "damaged") in warnings
        assert hotspot.passes(guest) is (hotspot.state(guest) == "online")
        assert hotspot.lease(guest) is not None
        hotspot.wait_for_portal()
        assert hotspot.log_in(guest, "alice", "wonderland").status == 200
        assert hotspot.passes(guest)
        hotspot.stop_daemon(signal.SIGKILL)
        hotspot.start_daemon()
        assert hotspot.state(guest) == "online", "what was written after the damage is read"


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of that size at `path`; gives the file that fills it when written."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "postern-test", str(path)], check=True)
    try:
        yield path / "filler"
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(filler: Path) -> None:
    """Write until there is no room."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))


def test_a_full_disk_stops_nothing(lab: Lab) -> None:
    """Guests come and go as ever, `postern status` says what is wrong, and with room again everything is written."""
    guest, other = lab.guests
    with Hotspot(lab, zone_options=LOCAL) as hotspot:
        hotspot.add_user("alice", "wonderland")
        hotspot.stop_daemon()
        saved = {path.name: path.read_bytes() for path in (hotspot.directory / "state").iterdir() if path.is_file()}
        with small_disk(hotspot.directory / "state", 1 << 20) as filler:
            for name, data in saved.items():
                (filler.parent / name).write_bytes(data)
            hotspot.start_daemon()
            hotspot.wait_for_portal()
            hotspot.lease(guest)
            fill(filler)
            for _ in range(12):  # the last page of the journal's file has some room yet
                assert hotspot.log_in(guest, "alice", "wonderland").status == 200
                if any("free some space" in text for text in hotspot.ask("status")["warnings"]):
                    break
                assert hotspot.log_out(guest).status == 200
            else:
                pytest.fail("the disk was never full")
            assert hotspot.passes(guest)
            assert hotspot.lease(other) is not None
            hotspot.stop_daemon(signal.SIGKILL)
            hotspot.start_daemon()  # on a disk that is still full
            assert hotspot.state(guest) in ("held", "online")
            assert hotspot.passes(guest) is (hotspot.state(guest) == "online")
            hotspot.lease(guest)
            hotspot.wait_for_portal()
            assert hotspot.log_in(guest, "alice", "wonderland").status == 200
            filler.unlink()
            assert wait_for(lambda: hotspot.ask("status")["journal"]["waiting"] == 0)
            assert not any("free some space" in text for text in hotspot.ask("status")["warnings"])
            hotspot.stop_daemon(signal.SIGKILL)
            hotspot.start_daemon()
            assert hotspot.state(guest) == "online"
            hotspot.stop_daemon()
