"""The doctor with the real daemon, portal and kernel: a healthy gateway, then one thing after the other broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.addresses import MacAddress
from gateway.control.protocol import ControlError
from tests.browser.administration import Administration
from tests.netns.freeradius import FreeRadius, user_entry
from tests.netns.harness import INTERNET4, UPLINK, UPLINK4, Lab, wait_for
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root
SECRET = "doctor-radius-secret"
RADIUS = (
    f"config radius_server 'main'\n\toption address '{INTERNET4}'\n\toption secret '{SECRET}'\n"
    "config admin\n\toption enabled '0'\n"
)
Rows = dict[str, dict[str, str]]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A guest and somebody who will be another DHCP server, behind one bridge, and the Internet."""
    with Lab("doctor", guests_wanted=2) as made:
        made.start_internet()
        yield made


@pytest.fixture
def freeradius(lab: Lab, tmp_path: Path) -> Iterator[FreeRadius]:
    """A RADIUS server in the Internet."""
    users = user_entry("alice", "wonderland")
    with FreeRadius(tmp_path, users, {str(UPLINK4): SECRET}, namespace=lab.internet) as server:
        yield server


@pytest.fixture
def hotspot(lab: Lab, freeradius: FreeRadius) -> Iterator[Hotspot]:
    """A gateway with all its parts."""
    with Hotspot(lab, sections=RADIUS) as made:
        yield made


def examine(hotspot: Hotspot, *, exit_status: int | None = None) -> Rows:
    """Run `postern doctor` in the gateway's network; its rows by check."""
    words = f"-m gateway.cli --socket {hotspot.socket} doctor --json --config {hotspot.config_path}"
    done = hotspot.lab.run(
        hotspot.lab.gateway,
        [sys.executable, *words.split()],
        check=False,
        timeout_s=30,
    )
    assert done.returncode in (0, 1), done.stderr
    if exit_status is not None:
        assert done.returncode == exit_status, done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return {row["check"]: row for row in answer["rows"]}


def failed(rows: Rows) -> list[str]:
    return [name for name, row in rows.items() if row["state"] == "fail"]


@contextmanager
def rogue(lab: Lab) -> Iterator[tuple[MacAddress, str]]:
    """dnsmasq on a guest's port, giving out addresses of its own; its MAC and address."""
    guest, address = lab.guests[1], "192.168.77.1"
    lab.run(guest.netns, ["ip", "address", "add", f"{address}/24", "dev", "eth0"])
    words = (
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --leasefile-ro --interface=eth0 --bind-interfaces"
    )
    options = ["--dhcp-range=192.168.77.10,192.168.77.90,1h", "--user=root", "--pid-file="]
    child = lab.popen(guest.netns, [*words.split(), *options])

    def listens() -> bool:
        return ":67" in lab.run(guest.netns, ["ss", "-Hlun", "sport = :67"]).stdout

    assert wait_for(listens)
    try:
        yield guest.mac, address
    finally:
        lab.stop(child)


def demand(rows: Rows, check: str, state: str, words: str) -> None:
    """A row is there, in this state, says this, and says how to mend it."""
    row = rows[check]
    assert row["state"] == state, rows
    assert words in row["text"], row
    assert row["remedy"].endswith("."), row


def test_a_healthy_gateway_then_each_fault_named_with_its_remedy(
    lab: Lab, hotspot: Hotspot, freeradius: FreeRadius
) -> None:
    """Nothing fails at first; each thing that is broken is told in its row, and is gone when it is mended."""
    gateway, bridge = lab.gateway, lab.zones[0].bridge
    rows = examine(hotspot, exit_status=0)
    assert failed(rows) == []
    assert rows["zone guest: other DHCP servers"]["state"] == "ok"
    assert rows["RADIUS main (accounting)"]["state"] == "ok"
    assert {row["state"] for name, row in rows.items() if name.startswith("login page: ")} == {"ok"}

    # Another DHCP server, on a guest's port.
    with rogue(lab) as (mac, address):
        # It pings for three of the four seconds that it is waited for: on a busy machine that may take a second look.
        check = "zone guest: other DHCP servers"
        assert wait_for(lambda: rows.update(examine(hotspot)) or rows[check]["state"] == "fail", timeout_s=15)
        demand(rows, check, "fail", f"{address} ({mac})")

    # Somebody flushes the ruleset: it is back at once, and told for a day.
    lab.run(gateway, ["nft", "flush", "ruleset"])
    assert wait_for(lambda: hotspot.call("status")["datapath"]["tables_lost"] == 1)
    demand(examine(hotspot), "packet filter", "warn", "was removed or changed by somebody else")

    # A sysctl and a routing rule that somebody else set.
    lab.run(gateway, ["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"])
    lab.run(gateway, ["ip", "rule", "add", "fwmark", "0x100/0xff00", "lookup", "100"])
    rows = examine(hotspot, exit_status=1)
    demand(rows, "forwarding", "fail", "net.ipv4.ip_forward is 0, not 1")
    demand(rows, "marks", "warn", "fwmark 0x100/0xff00")
    lab.run(gateway, ["ip", "rule", "del", "fwmark", "0x100/0xff00", "lookup", "100"])
    hotspot.postern("config", "reload")

    # The portal and RADIUS are gone.
    hotspot.stop_web()
    freeradius.stop()
    rows = examine(hotspot, exit_status=1)
    demand(rows, "zone guest: portal", "fail", "guests see no login page")
    demand(rows, "portal process", "fail", "lets nobody log in")
    demand(rows, "RADIUS main (logins)", "fail", "198.18.0.1:1812")
    assert rows["login page: Android"]["state"] == "skipped"
    assert "forwarding" not in failed(rows), "mended by the reload"

    # The guests' network is unplugged, then gone.
    ports = [guest.port for guest in lab.guests]
    for port in ports:
        lab.run(gateway, ["ip", "link", "set", port, "down"])
    demand(examine(hotspot), "zone guest: interface", "fail", "no carrier")
    for port in ports:
        lab.run(gateway, ["ip", "link", "set", port, "up"])
    lab.run(gateway, ["ip", "link", "set", bridge, "down"])
    rows = examine(hotspot)
    demand(rows, "zone guest: interface", "fail", "switched off")
    lab.run(gateway, ["ip", "link", "set", bridge, "up"])

    # The uplink's resolver answers no more.
    lab.run(gateway, ["ip", "link", "set", UPLINK, "down"])
    rows = examine(hotspot)
    demand(rows, f"uplink {UPLINK}", "fail", "switched off")
    demand(rows, "resolvers", "fail", "No resolver answers")


def test_what_is_checked_without_the_daemon(lab: Lab, hotspot: Hotspot) -> None:
    """The command says that posternd does not run and why, checks the rest, and names what has its ports."""
    hotspot.stop_daemon()
    hotspot.stop_web()
    address = lab.zones[0].address.ip
    listening = (
        "import socket,sys,time; s=socket.create_server((sys.argv[1], 3990)); print(1,flush=True); time.sleep(60)"
    )
    thief = lab.popen(lab.gateway, [sys.executable, "-c", listening, str(address)])
    assert thief.stdout is not None
    thief.stdout.readline()
    rows = examine(hotspot, exit_status=1)
    demand(rows, "posternd", "fail", "not running")
    demand(rows, "zone guest: ports", "fail", f"{address}:3990")
    demand(rows, "zone guest: portal", "fail", "in time")
    for check in ("configuration", "zone guest: interface", "routing guard", "resolvers", "disk"):
        assert rows[check]["state"] == "ok", rows[check]
    assert rows["packet filter"]["state"] == "skipped"
    lab.run(lab.gateway, ["tc", "qdisc", "del", "dev", lab.zones[0].bridge, "clsact"])
    demand(examine(hotspot, exit_status=1), "routing guard", "fail", f"{lab.zones[0].bridge} (IPv4)")
    hotspot.config_path.write_text("config zone 'guest'\n\toption lease_tim '5'\n")
    demand(examine(hotspot, exit_status=1), "configuration", "fail", "lease_tim")
    hotspot.config_path.unlink()
    demand(examine(hotspot, exit_status=1), "configuration", "fail", "cannot be read")


def test_who_else_sets_marks(lab: Lab, hotspot: Hotspot) -> None:
    """A chain of another table that sets packet marks is named."""
    chain = "type filter hook prerouting priority 10\nmeta mark set 7\n"
    lab.run(lab.gateway, ["nft", "-f", "-"], stdin=f"table inet other {{\nchain qos {{\n{chain}}}\n}}\n")
    demand(examine(hotspot), "marks", "warn", "table inet other, chain qos")


def test_the_page_health_and_the_interface_for_programs_show_it(lab: Lab, hotspot: Hotspot) -> None:
    """Through the administration's own process, whose certificate is judged on the way."""
    hotspot.write_config(sections="")
    hotspot.postern("config", "reload")
    with Administration(hotspot, places=("127.0.0.1:8443",), namespace=lab.gateway, port=8443) as administration:
        code = administration.setup_code()
        words = {"name": "operator", "password": "long enough a password", "address": "127.0.0.1"}
        session = hotspot.call("admin.setup", code=code, **words)["session"]
        token = hotspot.call("tokens.create", name="doctor", scopes=["read"], owner="operator")["token"]

        def fetch(path: str, header: str) -> str:
            words = ["curl", "-sk", "--max-time", "30", "-H", header, f"https://127.0.0.1:8443{path}"]
            return lab.run(lab.gateway, words, timeout_s=40).stdout

        told = json.loads(fetch("/api/v1/health/checks", f"Authorization: Bearer {token}"))
        rows = {row["check"]: row for row in told["rows"]}
        assert rows["administration"]["state"] == "ok"
        assert "the certificate is good for" in rows["administration"]["text"]
        page = fetch("/health", f"Cookie: __Host-postern={session}")
        assert "login page: iPhone, iPad and Mac" in page
        assert page.count('class="badge ok"') > 20


def test_one_examination_at_a_time_and_none_holds_up_the_daemon(hotspot: Hotspot) -> None:
    """A second one is told to wait; meanwhile the daemon answers others at once."""

    def examined() -> str:
        try:
            hotspot.call("doctor.run")
        except ControlError as err:
            return err.code
        return "done"

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(examined) for _ in range(2)]
        answered = 0
        while not all(future.done() for future in both):
            hotspot.call("radius.status")
            answered += 1
        assert sorted(future.result() for future in both) == ["busy", "done"]
    assert answered > 5, "the loop served others all the while"
