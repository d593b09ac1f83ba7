"""Guests that lie: borrowed addresses, cloned MACs, other zones, and each other behind the gateway's back."""

from __future__ import annotations

import contextlib
import subprocess
from ipaddress import IPv4Address

import pytest

from gateway.datapath.base import Base
from gateway.session.events import ClonedClientSeen
from tests.netns.gate import Gate, ask_udp, connect, key_of, listen, open_lab
from tests.netns.harness import WEB4, WEB6

pytestmark = pytest.mark.root


def test_borrowed_address_with_own_mac_gets_nothing() -> None:
    """A guest that takes an online client's address keeps its own MAC: no Internet, no portal, no resolver."""
    with open_lab("borrow", guests=2) as (lab, gate), contextlib.ExitStack() as stack:
        listen(lab, stack, lab.gateway, 3990, answer=b"portal")
        listen(lab, stack, lab.gateway, 53, answer=b"resolver")
        honest, thief = lab.guests
        gate.login(honest)
        assert honest.address is not None
        lab.run(honest.netns, ["ip", "link", "set", "eth0", "down"])
        lab.give_address(thief, honest.address)
        assert connect(lab, thief.netns, WEB4, 443, timeout_s=0.5) == "silence"
        assert connect(lab, thief.netns, WEB4, 80, timeout_s=0.5) == "silence"
        assert connect(lab, thief.netns, "10.41.0.1", 3990, timeout_s=0.5) == "silence"
        assert ask_udp(lab, thief.netns, "10.41.0.1", 53, b"?", timeout_s=0.5) == "silence"
        assert gate.counters(honest).upload_packets == 0


def test_borrowed_mac_with_unbound_address_gets_nothing() -> None:
    """A guest that takes an online client's MAC but an address of its own invention gets nothing by IPv4."""
    with open_lab("mac", guests=2) as (lab, gate):
        honest, thief = lab.guests
        gate.login(honest)
        lab.run(honest.netns, ["ip", "link", "set", "eth0", "down"])
        lab.run(thief.netns, ["ip", "link", "set", "eth0", "address", str(honest.mac)])
        lab.give_address(thief, IPv4Address("10.41.0.77"))
        assert connect(lab, thief.netns, WEB4, 443, timeout_s=0.5) == "silence"
        assert connect(lab, thief.netns, WEB4, 80, timeout_s=0.5) == "silence"
        assert gate.counters(honest).upload_packets == 0


def test_address_given_back_is_no_longer_accepted() -> None:
    """After UnbindAddress the client's packets are dropped; after BindAddress they reach the portal again."""
    from gateway.session.actions import UnbindAddress
    from tests.netns.gate import address_of

    with open_lab("unbind") as (lab, gate):
        guest = lab.guest
        assert connect(lab, guest.netns, WEB4, 443) == "reset"
        gate.perform(UnbindAddress(key_of(guest), address_of(guest)))
        assert connect(lab, guest.netns, WEB4, 443, timeout_s=0.5) == "silence"
        gate.bind(guest)
        assert connect(lab, guest.netns, WEB4, 443) == "reset"


def test_full_clone_is_reported_once() -> None:
    """A MAC that moves between bridge ports while online is reported, and not with every frame."""
    with open_lab("clone", guests=2) as (lab, gate):
        honest, clone = lab.guests
        gate.login(honest)
        assert connect(lab, honest.netns, WEB4, 443) == "open"
        lab.run(clone.netns, ["ip", "link", "set", "eth0", "address", str(honest.mac)])
        for _ in range(3):
            lab.run(clone.netns, ["ping", "-c1", "-W1", "10.41.0.1"], check=False)
            lab.run(honest.netns, ["ping", "-c1", "-W1", "10.41.0.1"], check=False)
        reports = [event for event in gate.events if isinstance(event, ClonedClientSeen)]
        assert gate.until(lambda: any(isinstance(event, ClonedClientSeen) for event in gate.events))
        gate.let_run(0.1)
        reports = [event for event in gate.events if isinstance(event, ClonedClientSeen)]
        assert [report.key for report in reports] == [key_of(honest)]
        assert "port1" in reports[0].detail
        assert "port2" in reports[0].detail


def test_zones_do_not_open_each_other() -> None:
    """A grant in one zone is none in another, for the same MAC and for the neighbour's network."""
    with open_lab("zones", guests=1, zones=2) as (lab, gate):
        first = lab.guest
        twin = lab.add_guest(lab.zones[1], mac=first.mac)
        gate.bind(twin)
        gate.login(first)
        for target in (WEB4, WEB6):
            assert connect(lab, first.netns, target, 443) == "open"
            assert connect(lab, twin.netns, target, 443) == "reset"
        gate.login(twin, number=2)
        assert connect(lab, twin.netns, WEB4, 443) == "open"
        # Both online, and still no way from one zone into the other, nor to the other's side of the gateway.
        with contextlib.ExitStack() as stack:
            listen(lab, stack, twin.netns, 2222)
            listen(lab, stack, lab.gateway, 3990)
            assert connect(lab, first.netns, twin.address, 2222) == "reset"
            assert connect(lab, first.netns, twin.address6, 2222) == "reset"
            assert connect(lab, first.netns, lab.zones[1].address.ip, 3990) == "reset"
        gate.logout(first)
        assert connect(lab, twin.netns, WEB4, 443) == "open"


def settles(gate: Gate) -> bool:
    """Let the watchers work until nothing is amiss; returns whether that came."""
    for _ in range(50):
        gate.let_run(0.05)
        if not gate.check():
            return True
    return False


def test_guests_do_not_reach_each_other() -> None:
    """Isolated ports keep frames apart also while online, with the bridge's filter calls off; late ports likewise."""
    with open_lab("isolate", guests=2) as (lab, gate):
        late = lab.add_guest()
        gate.bind(late)
        assert settles(gate)
        for number, guest in enumerate(lab.guests, 1):
            gate.login(guest, number)
        for one in lab.guests:
            assert connect(lab, one.netns, WEB4, 443) == "open"
            for other in lab.guests:
                if one is not other:
                    for address in (other.address, other.address6):
                        ping = lab.run(one.netns, ["ping", "-c1", "-W0.3", str(address)], check=False)
                        assert ping.returncode != 0
        for call in ("iptables", "ip6tables", "arptables"):
            path = f"/proc/sys/net/bridge/bridge-nf-call-{call}"
            assert lab.run(lab.gateway, ["cat", path]).stdout == "0\n"


def test_port_that_joins_during_the_start_is_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interfaces were read just before it joined, and nobody listened for changes yet."""
    held = Base.apply

    async def apply_then_join(base: Base, *, table_is_loaded: bool) -> list[str]:
        monkeypatch.setattr(Base, "apply", held)
        problems = await held(base, table_is_loaded=table_is_loaded)
        # The gate runs in the gateway's namespace, and so do its children.
        subprocess.run(["ip", "link", "add", "late", "type", "veth", "peer", "far"], check=True)
        subprocess.run(["ip", "link", "set", "late", "master", "br-guest"], check=True)
        return problems

    monkeypatch.setattr(Base, "apply", apply_then_join)
    with open_lab("joining") as (lab, gate):
        assert settles(gate)
        assert "isolated on" in lab.run(lab.gateway, ["bridge", "-d", "link", "show", "dev", "late"]).stdout


def test_guests_reach_each_other_where_the_zone_says_so() -> None:
    """Without isolation the bridge connects its ports, and that is none of the gate's business."""
    with open_lab("together", guests=2, isolate=False) as (lab, _gate):
        one, other = lab.guests
        assert lab.run(one.netns, ["ping", "-c1", "-W1", str(other.address)], check=False).returncode == 0


def test_ipv6_stays_shut_where_the_zone_says_so() -> None:
    """With IPv6 off for a zone, login opens IPv4 only."""
    with open_lab("noipv6", ipv6=False) as (lab, gate):
        gate.login(lab.guest)
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"
        assert connect(lab, lab.guest.netns, WEB6, 443) == "reset"
