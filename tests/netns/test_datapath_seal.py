"""Seals on guest interfaces: what they stop without our table, what they leave alone, and who else is at the hooks."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

import pytest

from gateway.config import Zone
from gateway.datapath import base
from gateway.datapath.program import name_of
from gateway.datapath.seal import seal, seals, unseal
from tests.netns.gate import Gate, ask_udp, config_of, connect, listen, narrower, open_lab
from tests.netns.harness import WEB4, WEB6, Guest, Lab, wait_for

pytestmark = pytest.mark.root

PORT = 7777
BRIDGE_MAC = bytes.fromhex("02005e000001")
TO_ALL = b"\xff" * 6
IPV4, IPV6, TAG = (struct.pack("!H", number) for number in (0x0800, 0x86DD, 0x8100))
VLAN_0 = b"\0\0"


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(text: bytes, source: bytes, target: bytes) -> bytes:
    """A UDP datagram with its checksum, which IPv6 demands."""
    head = struct.pack("!HHHH", PORT, PORT, 8 + len(text), 0)
    pseudo = source + target + struct.pack("!II", 8 + len(text), 17)
    return head[:6] + struct.pack("!H", checksum(pseudo + head + text) or 0xFFFF) + text


def packets4(guest: Guest, text: bytes, *, options: bytes = b"", cut_at: int = 0) -> list[bytes]:
    """An IPv4 packet for the Internet's web server, in fragments when `cut_at` says where."""
    assert guest.address is not None
    body = datagram(text, guest.address.packed, WEB4.packed)
    pieces = [(0, body)] if not cut_at else [(0, body[:cut_at]), (cut_at, body[cut_at:])]
    made = []
    for place, piece in pieces:
        more = 0x2000 if place + len(piece) < len(body) else 0
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            0,
            20 + len(options) + len(piece),
            7,
            more | place // 8,
            64,
            17,
            0,
            guest.address.packed,
            WEB4.packed,
        )
        head += options
        made.append(head[:10] + struct.pack("!H", checksum(head)) + head[12:] + piece)
    return made


def packet6(guest: Guest, text: bytes) -> bytes:
    """The same by IPv6."""
    assert guest.address6 is not None
    body = datagram(text, guest.address6.packed, WEB6.packed)
    return struct.pack("!IHBB16s16s", 0x60000000, len(body), 17, 64, guest.address6.packed, WEB6.packed) + body


def frames(guest: Guest, text: bytes, to: bytes = BRIDGE_MAC) -> dict[str, list[bytes]]:
    """Frames that carry one datagram to the Internet, in all ways in which the kernel takes them."""
    head = to + bytes(guest.mac)
    whole = packets4(guest, text)[0]
    return {
        "IPv4": [head + IPV4 + whole],
        "IPv6": [head + IPV6 + packet6(guest, text)],
        "IPv4 with options": [head + IPV4 + packets4(guest, text, options=b"\1\1\1\0")[0]],
        "IPv4 in fragments": [head + IPV4 + piece for piece in packets4(guest, text * 8, cut_at=16)],
        "IPv4 in VLAN 0": [head + TAG + VLAN_0 + IPV4 + whole],
        "IPv6 in VLAN 0": [head + TAG + VLAN_0 + IPV6 + packet6(guest, text)],
        "IPv4 in VLAN 0 twice": [head + TAG + VLAN_0 + TAG + VLAN_0 + IPV4 + whole],
    }


@contextlib.contextmanager
def sending(lab: Lab) -> Iterator[Callable[[list[bytes]], bool]]:
    """A function that sends frames as the first guest, and tells whether their datagram came out on the Internet."""
    with contextlib.ExitStack() as stack:
        with lab.inside(lab.internet):
            sinks = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for family in (2, 10)]
        sinks[0].bind((str(WEB4), PORT))
        sinks[1].bind((str(WEB6), PORT))
        for sink in sinks:
            sink.settimeout(0.15)
        with lab.inside(lab.guest.netns):
            raw = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        raw.bind(("eth0", 0))

        def passes(sent: list[bytes]) -> bool:
            for frame in sent:
                raw.send(frame)
            is6 = IPV6 in sent[0][12:20]
            try:
                return bool(sinks[is6].recv(4096))
            except TimeoutError:
                return False

        yield passes


def know_each_other(lab: Lab) -> None:
    """Let the gateway know its neighbours before frames are made by hand."""
    for address in (IPv4Address("10.41.0.1"), IPv6Address("2001:db8:41::1")):
        lab.run(lab.guest.netns, ["ping", "-c1", "-W2", str(address)])
    for address6 in ("198.18.0.1", "2001:db8:18::1"):
        lab.run(lab.gateway, ["ping", "-c1", "-W2", address6])


def rules(lab: Lab) -> int:
    """How many of our routing rules there are."""
    return sum(lab.run(lab.gateway, ["ip", family, "rule"]).stdout.count("prohibit") for family in ("-4", "-6"))


def sealed(lab: Lab) -> dict[str, str]:
    """The seals in the gateway, by interface."""
    with lab.inside(lab.gateway):
        return {socket.if_indextoname(index): name for index, name in seals().items()}


def tc(lab: Lab, *words: str) -> str:
    """Do to the gateway's filters what another tool might do, or ask about them."""
    return lab.run(lab.gateway, ["tc", *words]).stdout


def test_a_seal_stops_every_frame_that_would_be_forwarded() -> None:
    """A plain router forwards all of them; sealed and without a table it forwards none, and unsealed all again."""
    with Lab("sealed", static=True, plain=True) as lab, sending(lab) as passes:
        know_each_other(lab)
        bridge = lab.zones[0].bridge
        kinds = frames(lab.guest, b"by hand ")
        assert {kind: passes(sent) for kind, sent in kinds.items()} == dict.fromkeys(kinds, True)
        with lab.inside(lab.gateway):
            index = socket.if_nametoindex(bridge)
            seal(index, bridge)
            seal(index, bridge)  # once more is no error
            assert seals() == {index: name_of(bridge)}
        assert {kind: passes(sent) for kind, sent in kinds.items()} == dict.fromkeys(kinds, False)
        with lab.inside(lab.gateway):
            unseal(index)
            unseal(index)
            assert seals() == {}
        assert "clsact" not in tc(lab, "qdisc", "show", "dev", bridge)
        assert {kind: passes(sent) for kind, sent in kinds.items()} == dict.fromkeys(kinds, True)


def test_with_our_table_frames_go_as_if_there_were_no_seal() -> None:
    """An online client's frames pass in all their forms; what it sends to many or to another device does not."""
    with open_lab("unsealed") as (lab, gate), sending(lab) as passes:
        assert set(sealed(lab)) == {"br-guest"}
        know_each_other(lab)
        kinds = frames(lab.guest, b"by hand ")
        assert not any(passes(sent) for sent in kinds.values())
        gate.login(lab.guest)
        assert {kind: passes(sent) for kind, sent in kinds.items()} == dict.fromkeys(kinds, True)
        lab.run(lab.gateway, ["ip", "link", "set", "br-guest", "promisc", "on"])
        for to in (TO_ALL, bytes.fromhex("01005e000001"), bytes.fromhex("02005e990001")):
            assert not any(passes(sent) for sent in frames(lab.guest, b"to others", to).values())
        # A port's own address is the box's, too.
        port = bytes.fromhex(lab.run(lab.gateway, ["cat", "/sys/class/net/port1/address"]).stdout.replace(":", ""))
        assert passes(frames(lab.guest, b"to the port", port)["IPv4"])
        # And so is whatever address the interface has from now on.
        lab.run(lab.gateway, ["ip", "link", "set", "br-guest", "address", "02:00:5e:00:99:02"])
        assert passes(frames(lab.guest, b"to the new", bytes.fromhex("02005e009902"))["IPv4"])


def test_without_the_table_the_box_still_answers_what_keeps_a_network_alive() -> None:
    """ARP, pings and DHCP's datagrams arrive; connections to a listener of the box do not, by either family."""
    with open_lab("alive") as (lab, gate), contextlib.ExitStack() as stack:
        listen(lab, stack, lab.gateway, 2222, answer=b"a listener")
        gate.close()
        gate.nft("flush ruleset")
        lab.run(lab.guest.netns, ["ip", "neigh", "flush", "all"])
        for address in ("10.41.0.1", "2001:db8:41::1"):
            lab.run(lab.guest.netns, ["ping", "-c1", "-W2", address])
            assert ask_udp(lab, lab.guest.netns, address, 2222, b"?") == b"a listener"
            assert connect(lab, lab.guest.netns, address, 2222, timeout_s=0.5) == "silence"


def test_routes_are_looked_up_the_short_way() -> None:
    """Seals need no routing rule, not even for a moment: the kernel would look up routes the long way ever after."""
    with Lab("short", static=True) as lab, lab.inside(lab.gateway):
        watching = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        with watching:
            watching.bind((0, 1 << 7 | 1 << 18))  # RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE
            watching.setblocking(False)
            gate = Gate(lab, config_of(lab)).start()
            try:
                assert gate.datapath.status()["guard"] == "seals"
                assert gate.check() == []
            finally:
                gate.close()
            with pytest.raises(BlockingIOError):
                watching.recv(4096)


@pytest.mark.parametrize(
    "words", [("qdisc", "del", "dev", "br-guest", "clsact"), ("filter", "del", "dev", "br-guest", "ingress")]
)
def test_a_seal_that_somebody_takes_away_comes_back(words: tuple[str, ...]) -> None:
    """It is back within moments, and the clients that are online notice nothing."""
    with open_lab("broken") as (lab, gate):
        gate.login(lab.guest)
        tc(lab, *words)
        assert sealed(lab) == {}
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"
        assert gate.until(lambda: bool(sealed(lab)))
        assert gate.check() == []
        assert connect(lab, lab.guest.netns, WEB6, 443) == "open"


@pytest.mark.parametrize("hooks", ["clsact", "ingress"])
def test_filters_of_others_stay(hooks: str) -> None:
    """Somebody who filters at the same interface keeps hooks and filters, and ours stands before theirs."""
    with open_lab("others", start=False) as (lab, gate):
        tc(lab, "qdisc", "add", "dev", "br-guest", hooks)
        theirs = ("dev", "br-guest", "parent", "ffff:fff2" if hooks == "clsact" else "ffff:")
        tc(
            lab,
            "filter",
            "add",
            *theirs,
            "pref",
            "10",
            "protocol",
            "ip",
            "u32",
            "match",
            "u32",
            "0",
            "0",
            "classid",
            "1:1",
        )
        gate.start()
        assert set(sealed(lab)) == {"br-guest"}
        listed = tc(lab, "filter", "show", *theirs)
        assert listed.index("postern ") < listed.index("u32")
        gate.teardown()
        assert sealed(lab) == {}
        assert "u32" in tc(lab, "filter", "show", *theirs)


def test_an_interface_made_anew_is_sealed_anew_and_one_given_up_is_freed() -> None:
    """Whatever is no guest interface any more loses its seal, or its network would be shut for good."""
    with open_lab("anew", zones=2) as (lab, gate):
        assert set(sealed(lab)) == {"br-guest", "br-guest2"}
        lab.run(lab.gateway, ["ip", "link", "delete", "br-guest2"])
        lab.run(lab.gateway, ["ip", "link", "add", "br-guest2", "type", "bridge"])
        assert gate.until(lambda: set(sealed(lab)) == {"br-guest", "br-guest2"})
        gate.reconfigure(replace(gate.config, zones=gate.config.zones[:1]))
        assert set(sealed(lab)) == {"br-guest"}
        # The next daemon has another configuration, which says nothing of the first bridge.
        gate.close()
        other = Gate(lab, replace(gate.config, zones=(replace(gate.config.zones[0], interface="br-guest2"),))).start()
        try:
            assert set(sealed(lab)) == {"br-guest2"}
        finally:
            other.close()


def rename(lab: Lab, before: str, after: str) -> None:
    for words in (["down"], ["name", after], ["up"]):
        lab.run(lab.gateway, ["ip", "link", "set", after if words == ["up"] else before, *words])


def test_an_interface_that_is_renamed_is_shut() -> None:
    """No rule knows it any more: whoever is not online gets nothing at once, the others as soon as it is seen."""
    with open_lab("renamed", guests=2) as (lab, gate):
        online, held = lab.guests
        bridge = lab.zones[0].bridge
        gate.login(online)
        assert connect(lab, online.netns, WEB4, 443) == "open"
        rename(lab, bridge, "lan9")
        assert connect(lab, held.netns, WEB4, 443, timeout_s=0.5) == "silence"
        assert gate.until(lambda: any(bridge in problem for problem in gate.datapath.problems()))
        assert connect(lab, online.netns, WEB4, 443, timeout_s=0.5) == "silence"
        gate.reconfigure(narrower(gate.config, isolate=False))  # whatever else changes, it is not taken for given up
        assert connect(lab, online.netns, WEB4, 443, timeout_s=0.5) == "silence"
        assert connect(lab, held.netns, WEB4, 443, timeout_s=0.5) == "silence"
        rename(lab, "lan9", bridge)
        assert gate.until(lambda: not gate.datapath.problems())
        assert gate.until(lambda: connect(lab, online.netns, WEB4, 443, timeout_s=0.5) == "open")
        gate.close()
        rename(lab, bridge, "lan9")
        assert connect(lab, held.netns, WEB4, 443, timeout_s=0.5) == "silence"


def test_bridged_frames_that_pass_the_table_early_are_not_lost() -> None:
    """With bridge-nf-call-iptables the table sees a packet before its seal, and no second time."""
    with open_lab("bridged") as (lab, gate):
        for family in ("iptables", "ip6tables"):
            lab.run(lab.gateway, ["sh", "-c", f"echo 1 >/proc/sys/net/bridge/bridge-nf-call-{family}"])
        assert connect(lab, lab.guest.netns, WEB4, 443) == "reset"
        gate.login(lab.guest)
        for target in (WEB4, WEB6):
            assert connect(lab, lab.guest.netns, target, 443) == "open"
        gate.close()
        gate.nft("flush ruleset")
        for target in (WEB4, WEB6):
            assert connect(lab, lab.guest.netns, target, 443, timeout_s=0.5) == "silence"


def test_each_of_many_zones_breaks_its_own_seal() -> None:
    """With more zones than are compared one by one each guest is still judged by its own zone alone."""
    with open_lab("many", zones=2, guests=1) as (lab, gate):
        third = Zone(name="third", interface="br-third", address=IPv4Interface("10.43.0.1/24"))
        lab.run(lab.gateway, ["ip", "link", "add", "br-third", "type", "bridge"])
        guest = lab.guest
        other = lab.add_guest(lab.zones[1])
        gate.reconfigure(replace(gate.config, zones=(*gate.config.zones, third)))
        assert set(sealed(lab)) == {"br-guest", "br-guest2", "br-third"}
        gate.bind(other)
        gate.login(guest)
        assert connect(lab, guest.netns, WEB4, 443) == "open"
        assert connect(lab, other.netns, WEB4, 443) == "reset"
        gate.login(other, 2)
        assert connect(lab, other.netns, WEB6, 443) == "open"
        assert gate.check() == []


def test_where_seals_do_not_work_routing_rules_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, the gate is as shut; whichever guard the next start has takes the place of the other."""
    with open_lab("fallback", start=False) as (lab, gate):
        with monkeypatch.context() as patched:
            patched.setattr(base, "why_not", lambda: "a test says so")
            gate.start()
            assert gate.datapath.status()["guard"] == "routing rules (a test says so)"
            assert (rules(lab), sealed(lab)) == (2, {})
            assert gate.check() == []
            lab.run(lab.gateway, ["ip", "-6", "rule", "del", "priority", "100"])
            assert any("nothing guards br-guest" in line for line in gate.check())
            gate.reconfigure(narrower(gate.config, isolate=False))
            assert rules(lab) == 2
            gate.close()
            gate.nft("flush ruleset")
            for target in (WEB4, WEB6):
                assert connect(lab, lab.guest.netns, target, 443, timeout_s=0.5) in ("refused", "silence")
        second = Gate(lab, gate.config).start()
        try:
            assert (rules(lab), set(sealed(lab))) == (0, {"br-guest"})
            assert second.check() == []
        finally:
            second.close()


def test_an_interface_that_takes_no_filter_is_guarded_by_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the filter's module takes the program, and says only then that it cannot use it."""

    def refused(index: int, interface: str) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(base, "seal", refused)
    with open_lab("module") as (lab, gate):
        assert rules(lab) == 2
        assert gate.datapath.status()["guard"] == "routing rules (br-guest: No such file or directory)"
        gate.login(lab.guest)
        assert connect(lab, lab.guest.netns, WEB4, 443) == "open"
        gate.teardown()
        assert wait_for(lambda: rules(lab) == 0)
