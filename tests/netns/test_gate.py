"""The gate as guests and operators meet it: the real daemon, portal and kernel, real DHCP and HTTP clients.

Each test has a laboratory of its own. Passwords are checked by the embedded accounts; stories with a RADIUS server are
in `test_gate_radius`, those of restarts in `test_gate_restart`.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.harness import RESOLVER4, UPLINK4, WEB4, WEB6, Lab, wait_for
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root
BOTH = "\tlist method password\n\tlist method click\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests behind one bridge, and the Internet."""
    with Lab("gate", guests_wanted=2) as made:
        made.start_internet()
        yield made


@pytest.fixture
def hotspot(lab: Lab) -> Iterator[Hotspot]:
    """A gateway with one local user."""
    with Hotspot(lab, zone_options=BOTH) as made:
        made.add_user("alice", "wonderland")
        yield made


def test_a_guest_logs_in_passes_and_logs_out(lab: Lab, hotspot: Hotspot) -> None:
    """The whole visit by the JSON interface; what is asked is what the owner's document promises."""
    guest = lab.guest
    hotspot.lease(guest)
    assert not hotspot.passes(guest)
    wrong = hotspot.log_in(guest, "alice", "looking-glass")
    assert wrong.status == 401
    assert json.loads(hotspot.log_in(guest, "alice", "wonderland").body) == {"status": "success"}
    assert hotspot.passes(guest)
    status = json.loads(hotspot.curl(guest, f"{hotspot.portal}/api/v1/status").body)
    assert (status["username"], status["ip"], status["mac"]) == ("alice", str(guest.address), str(guest.mac))
    assert status["input_octets"] > 0
    assert status["output_octets"] > 0
    assert json.loads(hotspot.log_out(guest).body) == {"status": "logged_out"}
    assert not hotspot.passes(guest)


def test_click_through_needs_the_terms_accepted(lab: Lab) -> None:
    """A zone with terms lets in who accepted them."""
    with Hotspot(lab, zone_options="\tlist method click\n\toption terms 'Be kind.'\n") as hotspot:
        guest = lab.guest
        hotspot.lease(guest)
        page = hotspot.curl(guest, f"{hotspot.portal}/")
        assert "Be kind." in page.body
        fields = [("method", "click"), ("token", page.field("token"))]
        refused = hotspot.post_form(guest, f"{hotspot.portal}/login", fields)
        assert refused.status == 200
        assert not hotspot.passes(guest)
        assert hotspot.post_form(guest, f"{hotspot.portal}/login", [*fields, ("accept", "1")]).status == 303
        assert hotspot.passes(guest)


def test_udhcpc_gets_its_lease_too(lab: Lab, hotspot: Hotspot) -> None:
    """BusyBox's client, which small devices have."""
    script = hotspot.directory / "udhcpc-script"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || ip address replace "$ip/$mask" dev "$interface"\n')
    script.chmod(0o755)
    lab.run(lab.guest.netns, ["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script)])
    assert hotspot.address(lab.guest) is not None
    assert hotspot.state(lab.guest) == "held"


def test_a_guest_without_login_gets_nothing(lab: Lab, hotspot: Hotspot) -> None:
    """Not by IPv4, IPv6, a foreign resolver, encrypted DNS or port 443; each is refused at once, not left hanging."""
    guest = lab.guest
    hotspot.lease(guest)
    lab.run(guest.netns, ["ip", "-6", "address", "add", "2001:db8:41::9/64", "dev", "eth0", "nodad"])
    lab.run(guest.netns, ["ip", "-6", "route", "add", "default", "via", "2001:db8:41::1"])
    for address, port in ((WEB4, 443), (WEB4, 22), (WEB4, 853), (WEB6, 80), (WEB6, 443), (WEB4, 8080)):
        host = f"[{address}]" if address.version == 6 else str(address)
        began = time.monotonic()
        answer = hotspot.curl(guest, f"http://{host}:{port}/")
        assert answer.status in (0, 302), f"{host}:{port} answered {answer}"
        assert answer.status == 0 or answer.location.startswith(hotspot.portal)
        assert time.monotonic() - began < 5
    dig = ["dig", "+tries=1", "+time=2", f"@{RESOLVER4}", "TXT", "whoami.example", "+short"]
    answered = lab.run(guest.netns, dig, check=False).stdout
    assert str(RESOLVER4) in answered or not answered, "the question goes through our resolver"
    assert hotspot.curl(guest, f"http://{WEB4}/").location.startswith(hotspot.portal)


def test_every_listener_but_dhcp_dns_and_the_portal_is_refused(lab: Lab, hotspot: Hotspot) -> None:
    """Whatever address of the gateway a guest asks, also that of the uplink, before and after login."""
    guest = lab.guest
    hotspot.lease(guest)
    listeners = [(port, lab.popen(lab.gateway, ["nc", "-lk", "-p", str(port)])) for port in (22, 8443, 2112)]
    time.sleep(0.2)
    for stage in ("before", "after"):
        for address in (lab.zones[0].address.ip, UPLINK4):
            for port, _ in listeners:
                answer = hotspot.curl(guest, f"http://{address}:{port}/", limit_s=3)
                assert answer.status == 0, f"{stage} login {address}:{port} answered"
        assert hotspot.curl(guest, f"{hotspot.portal}/").status in (200, 303)
        assert "10.41.0.1" in lab.run(guest.netns, ["dig", "+short", "@10.41.0.1", "login.postern.lan"]).stdout
        hotspot.log_in(guest, "alice", "wonderland")


def test_an_address_of_somebody_else_gets_nothing(lab: Lab, hotspot: Hotspot) -> None:
    """Neither the IP of a client that is online under one's own MAC, nor that client's MAC with another IP."""
    online, thief = lab.guests
    hotspot.lease(online)
    hotspot.lease(thief)
    hotspot.log_in(online, "alice", "wonderland")
    assert hotspot.passes(online)
    lab.run(thief.netns, ["ip", "address", "flush", "dev", "eth0"])
    lab.run(thief.netns, ["ip", "address", "add", f"{online.address}/24", "dev", "eth0"])
    lab.run(thief.netns, ["ip", "route", "replace", "default", "via", "10.41.0.1"])
    assert hotspot.curl(thief, f"http://{WEB4}/", limit_s=3).status == 0
    lab.run(thief.netns, ["ip", "link", "set", "eth0", "address", str(online.mac)])
    lab.run(thief.netns, ["ip", "address", "flush", "dev", "eth0"])
    lab.run(thief.netns, ["ip", "address", "add", "10.41.0.77/24", "dev", "eth0"])
    lab.run(thief.netns, ["ip", "route", "replace", "default", "via", "10.41.0.1"])
    assert hotspot.curl(thief, f"http://{WEB4}/", limit_s=3).status == 0


def test_a_full_clone_is_reported(lab: Lab, hotspot: Hotspot) -> None:
    """MAC and address together cannot be told apart on a shared bridge; that the MAC moves is seen and said."""
    online, clone = lab.guests
    hotspot.lease(online)
    hotspot.log_in(online, "alice", "wonderland")
    lab.run(clone.netns, ["ip", "link", "set", "eth0", "address", str(online.mac)])
    lab.run(clone.netns, ["ip", "address", "add", f"{online.address}/24", "dev", "eth0"])
    for _ in range(3):
        lab.run(clone.netns, ["ping", "-c1", "-W1", "10.41.0.1"], check=False)
        lab.run(online.netns, ["ping", "-c1", "-W1", "10.41.0.1"], check=False)

    def kinds() -> list[str]:
        return [row["kind"] for row in hotspot.ask("events", "--client", str(online.mac))["rows"]]

    assert wait_for(lambda: "clone" in kinds(), timeout_s=8)


def test_a_flushed_ruleset_leaves_the_gate_shut_and_is_rebuilt(lab: Lab, hotspot: Hotspot) -> None:
    """Another tool that empties nftables opens nothing; who was online is online again, counters and all."""
    online, held = lab.guests
    hotspot.lease(online)
    hotspot.lease(held)
    hotspot.log_in(online, "alice", "wonderland")
    hotspot.curl(online, f"http://{WEB4}/bytes/100000", "-o", "/dev/null")
    before = hotspot.session(online)["download_bytes"]
    assert hotspot.daemon is not None
    hotspot.daemon.send_signal(signal.SIGSTOP)
    try:
        lab.run(lab.gateway, ["nft", "flush", "ruleset"])
        assert hotspot.curl(held, f"http://{WEB4}/", limit_s=2).status == 0
        assert hotspot.curl(held, f"http://{WEB4}:8080/", limit_s=2).status == 0
    finally:
        hotspot.daemon.send_signal(signal.SIGCONT)
    assert wait_for(lambda: hotspot.passes(online), timeout_s=8)
    assert not hotspot.passes(held)
    assert hotspot.session(online)["download_bytes"] >= before
    assert hotspot.ask("ruleset", "check")["problems"] == []


def test_an_established_connection_is_dead_after_logout(lab: Lab, hotspot: Hotspot) -> None:
    """A download under way stops; it does not run on by its connection-tracking entry."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")
    target = hotspot.directory / "stream"
    with target.open("w") as file:
        child = lab.popen(guest.netns, ["nc", str(WEB4), "19"], stdout=file)
        assert wait_for(lambda: target.stat().st_size > 100_000)
        assert hotspot.log_out(guest).status == 200
        time.sleep(0.3)
        size = target.stat().st_size
        time.sleep(0.7)
        assert target.stat().st_size == size
    lab.stop(child)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--session-time", "3"], "session time is over"),
        (["--idle-time", "4"], "nothing sent"),
        (["--download", "500k"], "download quota is used up"),
        (["--upload", "500k"], "upload quota is used up"),
        (["--total", "800k"], "total quota is used up"),
    ],
)
def test_limits_end_a_session_within_two_seconds(lab: Lab, hotspot: Hotspot, options: list[str], cause: str) -> None:
    """Each limit closes the gate soon after it is reached, and the timeline says which."""
    guest = lab.guest
    hotspot.add_user("bob", "builder-bob", *options)
    hotspot.lease(guest)
    hotspot.log_in(guest, "bob", "builder-bob")
    assert hotspot.passes(guest)
    hotspot.curl(guest, f"http://{WEB4}/bytes/600000", "-o", "/dev/null", limit_s=4)
    body = hotspot.directory / "body"
    body.write_bytes(bytes(600_000))
    hotspot.curl(guest, f"http://{WEB4}/", "--data-binary", f"@{body}", limit_s=4)
    assert wait_for(lambda: hotspot.state(guest) == "held", timeout_s=9)
    events = hotspot.ask("events", "--client", str(guest.mac))["rows"]
    assert cause in next(row["text"] for row in events if row["kind"] == "gate_closed")
    assert not hotspot.passes(guest)


def test_a_user_of_one_device_is_refused_on_a_second(lab: Lab) -> None:
    """The bound of a zone; logging the first out frees the place."""
    with Hotspot(lab, zone_options=f"{BOTH}\toption sessions_per_user 1\n") as hotspot:
        hotspot.add_user("alice", "wonderland")
        first, second = lab.guests
        for guest in (first, second):
            hotspot.lease(guest)
        assert hotspot.log_in(first, "alice", "wonderland").status == 200
        refused = hotspot.log_in(second, "ALICE", "wonderland")
        assert refused.status != 200
        assert "log it out first" in refused.body
        hotspot.log_out(first)
        assert hotspot.log_in(second, "alice", "wonderland").status == 200


def test_an_operator_sees_kicks_and_lets_in(lab: Lab, hotspot: Hotspot) -> None:
    """What `postern` shows and does, on a live client."""
    guest = lab.guest
    hotspot.lease(guest)
    assert hotspot.postern("sessions", "authorize", str(guest.mac), "--minutes", "5").returncode == 0
    assert hotspot.passes(guest)
    shown = hotspot.session(guest)
    assert shown["seconds_left"] in range(290, 301)
    assert "ended 1 session" in hotspot.postern("sessions", "kick", str(guest.address)).stdout
    assert not hotspot.passes(guest)
    assert hotspot.postern("sessions", "kick", str(guest.mac), check=False).returncode == 1
    assert hotspot.postern("sessions", "show", "nobody-at-all", check=False).returncode == 1
    hotspot.postern("leases", "release", str(guest.mac))
    assert hotspot.ask("leases", "list")["rows"] == []
    assert hotspot.state(guest) == ""


def test_the_timeline_tells_a_clients_life_in_order(lab: Lab, hotspot: Hotspot) -> None:
    """From the lease to the door that is shut again, each with its reason."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.curl(guest, "http://captive.apple.com/hotspot-detect.html")
    hotspot.log_in(guest, "alice", "wrong-password")
    hotspot.log_in(guest, "alice", "wonderland")
    hotspot.log_out(guest)
    kinds = [row["kind"] for row in hotspot.ask("events", "--client", str(guest.mac))["rows"]]
    order = ["lease", "login", "login_failed", "login", "gate_opened", "gate_closed"]
    assert [kind for kind in kinds if kind in order] == order


def test_a_reload_applies_what_changed_and_refuses_what_is_wrong(lab: Lab, hotspot: Hotspot) -> None:
    """By command and by signal; a wrong file leaves everything as it is, and says why."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")
    hotspot.write_config(zone_options=f"{BOTH}\toption lease_tme 5\n")
    refused = hotspot.postern("config", "reload", check=False)
    assert refused.returncode == 1
    assert "did you mean lease_time?" in refused.stdout
    hotspot.write_config(
        zone_options=f"{BOTH}\toption title 'Another title'\n",
        sections="config garden g\n\tlist network 203.0.113.99/32\n",
    )
    assert "zone 'guest'.title" in hotspot.postern("config", "reload").stdout
    assert hotspot.passes(guest), "a reload takes nobody offline"
    other = lab.guests[1]
    hotspot.lease(other)
    assert wait_for(lambda: "Another title" in hotspot.curl(other, f"{hotspot.portal}/").body)
    assert hotspot.curl(other, "http://203.0.113.99/").status == 200, "the garden is open"
    hotspot.write_config(zone_options=f"{BOTH}\tlist block_mac '{other.mac}'\n", sections="")
    assert hotspot.daemon is not None
    hotspot.daemon.send_signal(signal.SIGHUP)
    assert wait_for(lambda: hotspot.curl(other, "http://203.0.113.99/", limit_s=2).status == 0, timeout_s=8)


def test_the_processes_hold_what_they_may_and_no_more(lab: Lab, hotspot: Hotspot) -> None:
    """The portal has another user and no capability; the daemon never loads scapy; neither opens port 80."""
    assert hotspot.daemon is not None
    assert hotspot.web is not None
    status = Path(f"/proc/{hotspot.web.pid}/status").read_text()
    assert re.search(r"CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"CapPrm:\s+0+$", status, re.MULTILINE)
    assert not re.search(r"^Uid:\s+0\s", status, re.MULTILINE)
    for process in (hotspot.daemon, hotspot.web):
        assert "scapy" not in Path(f"/proc/{process.pid}/maps").read_text()


def test_the_daemon_needs_four_capabilities_and_no_root(lab: Lab) -> None:
    """As its service runs it: a whole visit, a reload and a restart, with no other power."""
    guest = lab.guest
    with Hotspot(lab, zone_options=BOTH, user="daemon") as hotspot:
        assert hotspot.daemon is not None
        status = Path(f"/proc/{hotspot.daemon.pid}/status").read_text()
        assert re.search(r"^CapBnd:\s+0*8000003400$", status, re.MULTILINE), "net_bind_service, net_admin, net_raw, bpf"
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        hotspot.add_user("alice", "wonderland")
        hotspot.lease(guest)
        assert hotspot.log_in(guest, "alice", "wonderland").status == 200
        assert hotspot.passes(guest)
        hotspot.postern("config", "reload")
        hotspot.stop_daemon(signal.SIGKILL)
        hotspot.start_daemon()
        assert hotspot.passes(guest)
        hotspot.wait_for_portal()
        hotspot.log_out(guest)
        assert not hotspot.passes(guest)
        assert hotspot.ask("ruleset", "check")["problems"] == []


def test_the_portal_may_call_its_own_methods_only(lab: Lab, hotspot: Hotspot) -> None:
    """The user that reads guests' bytes is refused every operator's method by the kernel's word on who it is."""
    code = (
        "import sys\n"
        "from gateway.control.blocking import SyncControlClient\n"
        "from gateway.control.protocol import ControlError\n"
        "for method in sys.argv[2:]:\n"
        "    try:\n"
        "        SyncControlClient(sys.argv[1]).call(method, {})\n"
        "        print(method, 'allowed')\n"
        "    except ControlError as error:\n"
        "        print(method, error.code)\n"
    )
    forbidden = ["status", "sessions.list", "sessions.kick", "users.list", "config.show", "config.reload", "debug.heap"]
    done = subprocess.run(
        [
            "setpriv",
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            sys.executable,
            "-c",
            code,
            str(hotspot.socket),
            *forbidden,
            "portal.config",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["denied"] * len(forbidden) + ["allowed"]


def test_guests_do_not_reach_each_other_when_isolated(lab: Lab) -> None:
    """On one bridge, with bridge-nf-call off; without isolation they do."""
    for isolate, reached in (("1", False), ("0", True)):
        with Hotspot(lab, zone_options=f"{BOTH}\toption isolate {isolate}\n") as hotspot:
            first, second = lab.guests
            hotspot.lease(first)
            hotspot.lease(second)
            ping = lab.run(first.netns, ["ping", "-c2", "-W1", str(second.address)], check=False)
            assert (ping.returncode == 0) is reached


def test_metrics_have_what_happened(lab: Lab, hotspot: Hotspot) -> None:
    """The predecessor's names, with counts of this very visit."""
    guest = lab.guest
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")

    def page() -> str:
        return hotspot.postern("metrics").stdout

    assert re.search(r"^chilli_sessions_active 1(\.0)?$", page(), re.MULTILINE)
    assert re.search(r'chilli_dhcp_requests_total\{type="discover"\} [1-9]', page())
    wanted = re.compile(r'^chilli_http_login_outcomes_total\{.*status="success".*\} 1(\.0)?$', re.MULTILINE)
    assert wait_for(lambda: wanted.search(page()), timeout_s=10, every_s=0.5), "the portal tells its counts by and by"
