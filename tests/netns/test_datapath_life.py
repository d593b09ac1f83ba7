"""The datapath over time: counters, lost tables, restarts, lifetimes, reloads, retired numbers, the fallback."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time

import pytest

from gateway.datapath import datapath as shell
from gateway.datapath.conntrack import sweep
from gateway.datapath.elements import ElementsRefused
from gateway.datapath.kernel import Abilities, self_test
from gateway.session.actions import ApplyLimits, BindAddress, ReadActivity, ReadCounters
from gateway.session.events import ClientsActive, CountersRead, Ipv6AddressSeen, NumberSwept, TrafficAllowed
from gateway.session.model import Counters, Limits
from tests.netns.gate import Gate, address_of, allow, ask_udp, connect, key_of, narrower, open_lab, open_tcp
from tests.netns.harness import WEB4, WEB6, Guest, Lab

pytestmark = pytest.mark.root


def exchange(lab: Lab, guest: Guest, target: object, count: int, size: int) -> None:
    """Send datagrams to the echo server and wait for each answer."""
    family = socket.AF_INET6 if ":" in str(target) else socket.AF_INET
    with lab.inside(guest.netns):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(2)
        sock.connect((str(target), 7))
        for _ in range(count):
            sock.send(bytes(size))
            assert len(sock.recv(65535)) == size


def test_counters_are_exact_in_both_directions_and_families() -> None:
    """Octets are those of layer 3, IPv4 and IPv6 together, and the final ones are those that were sent."""
    with open_lab("count") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB4, 10, 1000)
        four = Counters(10 * 1028, 10, 10 * 1028, 10)
        assert gate.counters(lab.guest) == four
        exchange(lab, lab.guest, WEB6, 7, 500)
        both = four + Counters(7 * 548, 7, 7 * 548, 7)
        assert gate.counters(lab.guest) == both
        exchange(lab, lab.guest, WEB4, 1, 72)
        assert gate.logout(lab.guest) == both + Counters(100, 1, 100, 1)


def test_traffic_with_the_gateway_itself_is_not_counted() -> None:
    """Pings to the gateway, DNS to it and refused connections cost no quota and do not keep a session from idling."""
    with open_lab("local") as (lab, gate):
        gate.login(lab.guest)
        lab.run(lab.guest.netns, ["ping", "-c2", "-i0.1", "10.41.0.1"])
        ask_udp(lab, lab.guest.netns, "10.41.0.1", 53, b"?", timeout_s=0.2)
        connect(lab, lab.guest.netns, "10.41.0.1", 22)
        assert gate.logout(lab.guest) == Counters()


def test_activity_names_who_sent_since_the_last_look() -> None:
    """ReadActivity tells the clients that sent a packet since it was asked before."""
    with open_lab("active", guests=2) as (lab, gate):
        one, other = lab.guests
        gate.login(one, 1)
        gate.login(other, 2)

        def active() -> set[object]:
            gate.events.clear()
            gate.perform(ReadActivity())
            assert gate.until(lambda: any(isinstance(event, ClientsActive) for event in gate.events))
            return {key for event in gate.events if isinstance(event, ClientsActive) for key in event.keys}

        exchange(lab, one, WEB4, 1, 10)
        assert active() == {key_of(one)}
        exchange(lab, other, WEB6, 1, 10)
        assert active() == {key_of(other)}
        assert active() == set()


def test_flushed_table_lets_nobody_through_without_the_daemon() -> None:
    """Daemon killed: online clients go on, held ones get nothing. Then the ruleset is flushed: nobody gets anything."""
    with open_lab("killed", guests=2) as (lab, gate):
        online, held = lab.guests
        gate.login(online)
        gate.close()
        for target in (WEB4, WEB6):
            assert connect(lab, online.netns, target, 443) == "open"
            assert connect(lab, held.netns, target, 443) == "reset"
        gate.nft("flush ruleset")
        for guest in lab.guests:
            for target in (WEB4, WEB6):
                for port in (80, 443):
                    assert connect(lab, guest.netns, target, port, timeout_s=0.5) in ("refused", "silence")
                assert ask_udp(lab, guest.netns, target, 53, b"?", timeout_s=0.3) in ("refused", "silence")


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table inet postern",
        "flush table inet postern",
        "flush chain inet postern base_forward",
        "flush chain inet postern input_guest",
    ],
)
def test_lost_table_is_rebuilt_with_its_counters(damage: str) -> None:
    """Whatever another tool took away is back within moments, online clients and their totals included."""
    with open_lab("lost", guests=2) as (lab, gate):
        online, held = lab.guests
        gate.login(online)
        exchange(lab, online, WEB4, 5, 1000)
        before = gate.counters(online)
        gate.nft(damage)
        assert gate.until(lambda: gate.datapath.statistics.tables_lost == 1)
        assert gate.until(gate.datapath._table.intact)
        gate.let_run(0.1)
        assert gate.check() == []
        assert gate.counters(online) == before
        exchange(lab, online, WEB6, 1, 52)
        assert gate.logout(online) == before + Counters(100, 1, 100, 1)
        assert connect(lab, held.netns, WEB4, 443) == "reset"


def test_a_table_that_a_reload_is_just_putting_in_place_is_not_lost() -> None:
    """The regular look may fall between the new text and its loading; it waits, and looks again."""
    with open_lab("between") as (lab, gate):
        datapath = gate.datapath

        async def reload() -> None:
            async with datapath._changing:
                gate.nft("flush ruleset")
                datapath._damage.look.set()
                await asyncio.sleep(0.3)
                await datapath._table.load(datapath._text)

        gate._do(reload())
        gate.let_run(0.3)
        assert datapath._table.intact()
        assert datapath.statistics.tables_lost == 0
        gate.login(lab.guest)
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"


def test_login_while_the_table_is_lost_is_answered_when_it_is_back() -> None:
    """An order that finds no table is carried out with the rebuilt one; the hub hears of it then, once."""
    with open_lab("lostlogin") as (lab, gate):
        gate.nft("flush ruleset")
        gate.login(lab.guest)
        assert gate.until(lambda: TrafficAllowed(key_of(lab.guest)) in gate.events)
        gate.let_run(0.2)
        assert gate.events.count(TrafficAllowed(key_of(lab.guest))) == 1
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"


def test_emptied_set_is_filled_again_when_counters_are_read() -> None:
    """Elements that somebody removed are noticed at the next reading and restored; totals do not go back."""
    with open_lab("emptied") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB4, 3, 72)
        before = gate.counters(lab.guest)
        gate.nft("flush set inet postern up; flush map inet postern auth4_guest")
        assert gate.counters(lab.guest) == before
        assert gate.until(lambda: connect(lab, lab.guest.netns, WEB4, 443, timeout_s=0.2) == "open")
        assert gate.counters(lab.guest).upload_bytes > before.upload_bytes


def test_counters_set_back_by_somebody_do_not_lower_totals() -> None:
    """`nft reset` and its like start the kernel's counter anew; ours goes on."""
    with open_lab("reset") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB4, 4, 72)
        assert gate.counters(lab.guest) == Counters(400, 4, 400, 4)
        gate.nft("delete element inet postern up { 1 }; add element inet postern up { 1 }")
        exchange(lab, lab.guest, WEB4, 1, 72)
        assert gate.counters(lab.guest) == Counters(500, 5, 500, 5)


def test_restart_keeps_access_and_counters() -> None:
    """While the daemon restarts its clients stay online, and the next daemon goes on from their counters."""
    with open_lab("restart", guests=3) as (lab, gate):
        stays, leaves, joins = lab.guests
        gate.login(stays, 1)
        gate.login(leaves, 2)
        with open_tcp(lab, stays.netns, WEB4, 7) as running:
            running.sendall(b"one")
            assert running.recv(10) == b"one"
            exchange(lab, stays, WEB4, 5, 1000)
            before = gate.counters(stays)
            gate.close()
            running.sendall(b"two")
            assert running.recv(10) == b"two"
            bindings = [BindAddress(key_of(guest), address_of(guest)) for guest in lab.guests]
            second = Gate(lab, gate.config).start([allow(stays, 1), allow(joins, 3)], bindings)
            try:
                assert set(second.kept) == {key_of(stays)}
                assert second.kept[key_of(stays)].upload_bytes > before.upload_bytes
                assert second.kept[key_of(stays)].download_packets > before.download_packets
                running.sendall(b"three")
                assert running.recv(10) == b"three"
                assert connect(lab, joins.netns, WEB4, 443) == "open"
                assert connect(lab, leaves.netns, WEB4, 443) == "reset"
                assert connect(lab, leaves.netns, WEB6, 443) == "reset"
                assert second.check() == []
            finally:
                second.close()


def test_number_that_belonged_to_another_is_counted_from_zero() -> None:
    """If the kernel has a client number under another MAC, its counters are not taken for the new holder's."""
    with open_lab("stranger", guests=2) as (lab, gate):
        old, new = lab.guests
        gate.login(old, 5)
        exchange(lab, old, WEB4, 3, 1000)
        gate.close()
        second = Gate(lab, gate.config).start([allow(new, 5)], [BindAddress(key_of(new), address_of(new))])
        try:
            assert second.kept == {}
            assert second.counters(new) == Counters()
            assert connect(lab, new.netns, WEB4, 443) == "open"
            assert connect(lab, old.netns, WEB6, 443) == "reset"
        finally:
            second.close()


def test_lifetime_holds_without_the_daemon() -> None:
    """The kernel itself shuts the gate when the lifetime is over, and its counters can still be read."""
    with open_lab("lifetime") as (lab, gate):
        gate.login(lab.guest, 1, lifetime_s=1)
        exchange(lab, lab.guest, WEB4, 2, 72)
        time.sleep(1.2)
        for target in (WEB4, WEB6):
            assert connect(lab, lab.guest.netns, target, 443) == "reset"
        assert gate.logout(lab.guest) == Counters(200, 2, 200, 2)


@pytest.mark.parametrize("renews", [True, False])
def test_changed_limits_change_the_lifetime_and_keep_the_counters(
    monkeypatch: pytest.MonkeyPatch, renews: bool
) -> None:
    """A longer lifetime lets the client stay, none for ever, on kernels that renew it in place and on others."""

    async def abilities() -> Abilities:
        return dataclasses.replace(await self_test(), renews_lifetimes=renews)

    monkeypatch.setattr(shell, "self_test", abilities)
    with open_lab("limits") as (lab, gate):
        guest = lab.guest
        gate.login(guest, 1, lifetime_s=1)
        exchange(lab, guest, WEB4, 2, 72)
        gate.perform(ApplyLimits(key_of(guest), address_of(guest), 1, 600, Limits()))
        time.sleep(1.2)
        assert connect(lab, guest.netns, WEB4, 443) == "open"
        gate.perform(ApplyLimits(key_of(guest), address_of(guest), 1, None, Limits()))
        assert connect(lab, guest.netns, WEB6, 443) == "open"
        gate.perform(ApplyLimits(key_of(guest), address_of(guest), 1, 1, Limits()))
        time.sleep(1.2)
        assert connect(lab, guest.netns, WEB4, 443) == "reset"
        assert gate.logout(guest).upload_bytes > 200


@pytest.mark.parametrize("lacking", [{"echoes_counters": False}, {"destroys": False}])
def test_counters_come_with_the_removal_on_lesser_kernels(
    monkeypatch: pytest.MonkeyPatch, lacking: dict[str, bool]
) -> None:
    """Where a removed element is not echoed with its counter, or must be there, it is read just before."""

    async def abilities() -> Abilities:
        return dataclasses.replace(await self_test(), **lacking)

    monkeypatch.setattr(shell, "self_test", abilities)
    with open_lab("noecho") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB4, 2, 72)
        assert gate.logout(lab.guest) == Counters(200, 2, 200, 2)
        assert gate.logout(lab.guest) == Counters()  # nothing is there any more, and that is no error


def test_reload_keeps_access_and_counters() -> None:
    """Another configuration replaces the rules under running connections; a newly blocked client is out."""
    with open_lab("reload", guests=2) as (lab, gate):
        stays, blocked = lab.guests
        gate.login(stays, 1)
        gate.login(blocked, 2)
        exchange(lab, stays, WEB4, 2, 72)
        with open_tcp(lab, stays.netns, WEB4, 7) as running:
            running.sendall(b"one")
            assert running.recv(10) == b"one"
            before = gate.counters(stays)
            gate.reconfigure(narrower(gate.config, block_macs=(blocked.mac,), isolate=False))
            running.sendall(b"two")
            assert running.recv(10) == b"two"
        assert gate.counters(stays).upload_bytes > before.upload_bytes
        assert connect(lab, blocked.netns, WEB4, 443, timeout_s=0.5) == "silence"
        assert gate.check() == []
        ping = lab.run(stays.netns, ["ping", "-c1", "-W1", str(blocked.address)], check=False)
        assert ping.returncode == 0


def test_more_sessions_than_before_make_the_table_anew_and_keep_everybody() -> None:
    """A limit that needs larger sets cannot be changed in place; clients and totals are carried over."""
    with open_lab("larger") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB4, 2, 72)
        before = gate.counters(lab.guest)
        performance = dataclasses.replace(gate.config.performance, max_sessions=60_000)
        gate.reconfigure(dataclasses.replace(gate.config, performance=performance))
        assert gate.counters(lab.guest) == before
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"
        assert gate.check() == []


def test_retired_numbers_are_swept_and_others_left_alone() -> None:
    """After logout the number's connection-tracking entries go, those of other clients and of strangers stay."""
    with open_lab("sweep", guests=2) as (lab, gate):
        leaves, stays = lab.guests
        gate.login(leaves, 1)
        gate.login(stays, 2)
        with open_tcp(lab, leaves.netns, WEB4, 7), open_tcp(lab, stays.netns, WEB4, 7) as running:
            lab.run(lab.gateway, ["ping", "-c1", "198.18.0.1"])
            gate.logout(leaves, 1)
            assert _marks(lab) >= {"mark=1", "mark=2"}
            gate.perform_sweep()
            assert gate.until(lambda: NumberSwept(1) in gate.events)
            assert "mark=1" not in _marks(lab)
            assert "mark=2" in _marks(lab)
            running.sendall(b"still")
            assert running.recv(10) == b"still"
        assert NumberSwept(2) not in gate.events


def test_retired_numbers_among_online_ones_are_swept_one_by_one() -> None:
    """Where online and retired numbers alternate, entries of both families are deleted singly, and only those."""
    with open_lab("mixed") as (lab, gate):
        assert gate.until(lambda: gate.datapath.statistics.sweep_walks >= 16)  # the start's own sweep is over
        # A slow machine takes longer than entries of UDP live, and forty ports by chance are not always different.
        lab.run(lab.gateway, ["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=3600"])
        for number in range(1, 41):
            gate.login(lab.guest, number)
            for target in (WEB4, WEB6):
                assert ask_udp(lab, lab.guest.netns, target, 7, b"x", timeout_s=10, source_port=20_000 + number) == b"x"
            gate.logout(lab.guest, number)
        odd = range(1, 41, 2)
        with lab.inside(lab.gateway):
            assert sweep(odd) <= 16
        listed = "".join(lab.run(lab.gateway, ["conntrack", "-L", "-f", family]).stdout for family in ("ipv4", "ipv6"))
        marks = [int(word.removeprefix("mark=")) for word in listed.split() if word.startswith("mark=")]
        assert {number: marks.count(number) for number in range(1, 41)} == {
            number: 0 if number in odd else 2 for number in range(1, 41)
        }


def test_entries_that_nobody_knows_are_swept_after_a_start() -> None:
    """A number retired just before the daemon died leaves no entry for whoever gets it next; known ones stay."""
    with open_lab("unknown", guests=2) as (lab, gate):
        gone, stays = lab.guests
        for number, guest in enumerate(lab.guests, 1):
            gate.login(guest, number)
            exchange(lab, guest, WEB4, 1, 10)
        gate.close()
        second = Gate(lab, gate.config).start([allow(stays, 2)], [BindAddress(key_of(gone), address_of(gone))])
        try:
            assert second.until(lambda: "mark=1" not in _marks(lab))
            assert "mark=2" in _marks(lab)
        finally:
            second.close()


def _marks(lab: Lab) -> set[str]:
    listed = lab.run(lab.gateway, ["conntrack", "-L"]).stdout
    return {word for word in listed.split() if word.startswith("mark=")}


def test_ipv6_addresses_of_a_client_are_told_once() -> None:
    """An address that a known client uses is reported, link-local ones are not."""
    with open_lab("ipv6") as (lab, gate):
        gate.login(lab.guest)
        exchange(lab, lab.guest, WEB6, 3, 10)
        assert gate.until(lambda: any(isinstance(event, Ipv6AddressSeen) for event in gate.events))
        exchange(lab, lab.guest, WEB6, 3, 10)
        gate.let_run(0.1)
        seen = [event for event in gate.events if isinstance(event, Ipv6AddressSeen)]
        assert [(event.key, event.address) for event in seen] == [(key_of(lab.guest), lab.guest.address6)]


def test_interface_that_comes_back_is_served_again() -> None:
    """A zone's bridge that was removed and made anew gets its address, and its guests their gate."""
    with open_lab("comeback") as (lab, gate):
        bridge = lab.zones[0].bridge
        lab.run(lab.gateway, ["ip", "link", "delete", bridge])
        assert gate.until(lambda: any(bridge in problem for problem in gate.datapath.problems()))
        assert any(bridge in line for line in gate.check())
        for line in (
            ["ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0"],
            ["ip", "link", "set", "port1", "master", bridge],
        ):
            lab.run(lab.gateway, line)
        gate.let_run(0.1)
        assert gate.until(lambda: not gate.datapath.problems())
        gate.let_run(0.2)
        gate.login(lab.guest)
        lab.run(lab.guest.netns, ["ip", "neigh", "flush", "all"])
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"


def test_teardown_leaves_nothing_behind() -> None:
    """Afterwards there is no table, no guard, no address, no isolation, and no forwarding."""
    with open_lab("teardown") as (lab, gate):
        gate.login(lab.guest)
        gate.teardown()
        assert lab.run(lab.gateway, ["nft", "list", "tables"]).stdout == ""
        assert "prohibit" not in lab.run(lab.gateway, ["ip", "rule"]).stdout
        assert "prohibit" not in lab.run(lab.gateway, ["ip", "-6", "rule"]).stdout
        assert lab.run(lab.gateway, ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"
        assert "10.41.0.1" not in lab.run(lab.gateway, ["ip", "address"]).stdout
        assert "isolated on" not in lab.run(lab.gateway, ["bridge", "-d", "link"]).stdout


@pytest.fixture
def without_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel on which the codec's self-test fails."""

    async def fails() -> Abilities:
        await asyncio.sleep(0)
        raise ElementsRefused("a test says so")

    monkeypatch.setattr(shell, "self_test", fails)


@pytest.mark.usefixtures("without_codec")
def test_fallback_does_the_same_a_little_later() -> None:
    """Without the codec logins, counters, limits and logouts work through nft, batched."""
    with open_lab("fallback", guests=2) as (lab, gate):
        guest = lab.guest
        assert gate.datapath.status()["elements"] == "fallback"
        assert gate.until(lambda: connect(lab, guest.netns, WEB4, 443, timeout_s=0.2) == "reset")
        for number, each in enumerate(lab.guests, 1):
            gate.login(each, number)
        both = {TrafficAllowed(key_of(each)) for each in lab.guests}
        assert gate.until(lambda: both <= set(gate.events))
        exchange(lab, guest, WEB4, 2, 72)
        exchange(lab, guest, WEB6, 1, 52)
        gate.perform(ApplyLimits(key_of(guest), address_of(guest), 1, 300, Limits()))
        gate.perform(ReadCounters((key_of(guest),)))
        expected = Counters(300, 3, 300, 3)
        assert gate.until(lambda: CountersRead(((key_of(guest), expected),)) in gate.events)
        assert gate.check() == []
        assert gate.logout_later(guest) == expected
        assert connect(lab, guest.netns, WEB4, 443) == "reset"
        assert connect(lab, lab.guests[1].netns, WEB6, 443) == "open"
