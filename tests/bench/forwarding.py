"""What the gate costs per packet: throughput and packets per second next to plain forwarding and to plain NAT.

Run as root: `python -m tests.bench.forwarding [--rounds N] [--seconds S] [--iperf N]`. Four laboratories stand beside
each other, each with its gateway in one state:

    plain        forwarding, no nftables, no connection tracking
    nat          connection tracking and masquerade alone
    gate 10      our ruleset and its guard with 10 clients online
    gate 10000   our ruleset and its guard with 10,000 clients online

They are measured in turn, some hundredths of a second each, in an order that is shuffled every time. A ratio is taken
within each turn, where the machine was the same for both, and the median of all turns is what counts; the figure
behind ± says how far that median may be off by chance (half of its 95 % interval).

Figures are per second of processor time, so that what else runs on the machine makes the ± larger and hardly moves the
ratios. Small packets are sent by sendmmsg on one core, which forwards them as well, and dropped as they arrive. Streams
run with the offloads that veth has: `tcp` between two processes on two cores, by the time of both; `rate` is the same
by the clock on the wall, which means something on a quiet machine only; `1 core` has both ends in one thread, where
nobody waits and nobody is woken, and shows differences of rulesets best. With `--iperf N` there are N turns of two
seconds of iperf3 in each direction besides, nothing of it pinned or fixed, to compare with a measurement by hand: eight
seconds a turn and direction, and to be believed on a quiet machine only.

What the kernel's own connection tracking and NAT take of a stream bounds what any gateway that uses them can reach: the
last line says that share next to ours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from gateway.addresses import MacAddress
from gateway.config import Config, Network, Zone
from gateway.datapath.ruleset import render
from gateway.datapath.seal import seal, why_not
from tests.bench.road import Road
from tests.bench.stage import foreign_connections
from tests.netns.harness import UPLINK, Lab

TCP_FLOOR: Final = 0.93  # of plain forwarding
PACKETS_FLOOR: Final = 0.75  # of connection tracking and NAT alone
FOREIGN: Final = 200_000  # entries of other people in the kernel's one table of connections
TELLING: Final = 0.05  # a ratio that may be off by more tells nothing about its floor
IPERF_S: Final = 2.0
SETTLE_S: Final = 0.5  # the kernel frees what was made meanwhile in the background

_STATES: Final = ("plain", "nat", "gate 10", "gate 10000")
_GATES: Final = ("gate 10", "gate 10000")
_WIDTHS: Final = (14, 25, 36, 36)  # of the table's columns


_Take = Callable[[Road, float], tuple[float, ...]]


class _Measure(NamedTuple):
    names: tuple[str, ...]  # of what one slice gives
    take: _Take
    slice_s: float


# A slice is as short as its warming allows; a stream between two processes needs longer to be itself.
_MEASURES: Final = (
    _Measure(("packets up",), lambda road, seconds: (road.packets("up", seconds),), 0.015),
    _Measure(("packets down",), lambda road, seconds: (road.packets("down", seconds),), 0.015),
    _Measure(("packets up v6",), lambda road, seconds: (road.packets("up6", seconds),), 0.015),
    _Measure(("tcp up, rate", "tcp up"), lambda road, seconds: road.stream("up", seconds), 0.04),
    _Measure(("tcp down, rate", "tcp down"), lambda road, seconds: road.stream("down", seconds), 0.04),
    _Measure(("tcp up, 1 core",), lambda road, seconds: (road.loop("up", seconds),), 0.015),
    _Measure(("tcp down, 1 core",), lambda road, seconds: (road.loop("down", seconds),), 0.015),
)

_IPERF: Final = (
    _Measure(("iperf up, rate", "iperf up"), lambda road, seconds: road.iperf("up", seconds), IPERF_S),
    _Measure(("iperf down, rate", "iperf down"), lambda road, seconds: road.iperf("down", seconds), IPERF_S),
)

# Which ratios the floors are about: the measures, and what the gate is compared with.
_TCP: Final = (("tcp up", "tcp down"), "plain")
_ONE_CORE: Final = ("tcp up, 1 core", "tcp down, 1 core")
_PACKETS: Final = (("packets up", "packets down", "packets up v6"), "nat")

Figures = dict[tuple[str, str], list[float]]  # (state, measure) -> octets or packets per second, one for each turn


class Ratio(NamedTuple):
    """A ratio and how far it may be off."""

    median: float
    error: float


def measure(rounds: int, seconds: float, iperf_turns: int = 0) -> Figures:
    """Measure every state in every way for `rounds` times `seconds`, cut into slices and taken in turns."""
    figures: Figures = {}
    processors = os.sched_getaffinity(0)
    order = random.Random(1)
    with contextlib.ExitStack() as stack:
        roads = {state: _open(stack, state) for state in _STATES}

        def turn(how: _Measure) -> None:
            for state in order.sample(_STATES, len(_STATES)):
                for name, figure in zip(how.names, how.take(roads[state], how.slice_s), strict=True):
                    figures.setdefault((state, name), []).append(figure)

        time.sleep(SETTLE_S)
        # Where the scheduler puts an end would decide more than the ruleset does.
        os.sched_setaffinity(0, {min(processors)})
        stack.callback(os.sched_setaffinity, 0, processors)
        for _ in range(rounds):
            for how in _MEASURES:
                for _ in range(max(3, round(seconds / how.slice_s))):
                    turn(how)
        os.sched_setaffinity(0, processors)
        for _ in range(iperf_turns):
            for how in _IPERF:
                turn(how)
    return figures


def _open(stack: contextlib.ExitStack, state: str) -> Road:
    lab = stack.enter_context(Lab("bench", static=True, plain=True))
    # As posternd has it. Where it is on, bridged frames pass the rules of all states once more.
    for family in ("iptables", "ip6tables", "arptables"):
        path = f"/proc/sys/net/bridge/bridge-nf-call-{family}"
        lab.run(lab.gateway, ["sh", "-c", f"[ ! -e {path} ] || echo 0 >{path}"])
    if state == "nat":
        _load(lab, _nat())
        stack.enter_context(foreign_connections(lab.gateway, FOREIGN))
    elif state in _GATES:
        _gate(lab, int(state.split()[1]))
    road = Road(lab)
    stack.callback(road.close)
    return road


def _nat() -> str:
    hook = "type nat hook postrouting priority srcnat;"
    return f'table inet nat {{ chain c {{ {hook} meta nfproto ipv4 oifname "{UPLINK}" masquerade; }}\n}}\n'


def _gate(lab: Lab, clients: int) -> None:
    """Our ruleset with so many clients online, the measuring guest among them, and the guards as posternd sets them."""
    zone = Zone(name="guest", interface=lab.zones[0].bridge, address=lab.zones[0].address)
    config = Config(network=Network(uplinks=(UPLINK,)), zones=(zone,))
    guest = lab.guest
    auth4, auth6, bind, numbers = [], [], [], []
    for number in range(1, clients + 1):
        if number == 1:
            mac, address = guest.mac, guest.address
        else:
            mac = MacAddress((0x020000000000 + number).to_bytes(6, "big"))
            address = IPv4Address(int(IPv4Address("10.50.0.0")) + number)
        auth4.append(f"{mac} . {address} timeout 3600s : {number}")
        auth6.append(f"{mac} timeout 3600s : {number}")
        bind.append(f"{mac} . {address}")
        numbers.append(str(number))
    text = render(config)
    filling = (
        ("auth4_guest", auth4),
        ("auth6_guest", auth6),
        ("bind4_guest", bind),
        ("up", numbers),
        ("down", numbers),
    )
    for name, elements in filling:
        text += f"add element inet postern {name} {{ {', '.join(elements)} }}\n"
    _load(lab, text)
    if not why_not():
        with lab.inside(lab.gateway):
            seal(socket.if_nametoindex(zone.interface), zone.interface)
        return
    # With any routing rule the kernel has no short cut through its tables, for any packet: that belongs to the price.
    for family in ("-4", "-6"):
        rule = f"rule add iif {zone.interface} fwmark 0/0xffffffff prohibit priority {config.network.rule_priority}"
        lab.run(lab.gateway, ["ip", family, *rule.split()])


def _load(lab: Lab, text: str) -> None:
    lab.run(lab.gateway, ["nft", "-f", "-"], stdin=text)


def ratio(figures: Figures, name: str, state: str, base: str) -> Ratio:
    """How a state compares to another in one measure."""
    ratios = sorted(one / other for one, other in zip(figures[state, name], figures[base, name], strict=True))
    # The median's interval by ranks: it asks for no shape of the noise.
    middle, away = len(ratios) // 2, round(0.98 * len(ratios) ** 0.5)
    low, high = ratios[max(0, middle - away)], ratios[min(len(ratios) - 1, middle + away)]
    return Ratio(statistics.median(ratios), (high - low) / 2)


def table(figures: Figures) -> list[str]:
    """The figures as lines, each state with its ratios to plain forwarding and to NAT alone."""
    lines = [f"{'Forwarding':17}" + "".join(f"{state:>{width}}" for state, width in zip(_STATES, _WIDTHS, strict=True))]
    for name in (name for how in (*_MEASURES, *_IPERF) for name in how.names if (_STATES[0], name) in figures):
        line = f"{name:17}"
        for state, width in zip(_STATES, _WIDTHS, strict=True):
            value = statistics.median(figures[state, name])
            shown = f"{value / 1e3:.0f} kpps" if name.startswith("packets") else f"{value * 8 / 1e9:.1f} Gbit/s"
            bases = [base for base in ("plain", "nat") if _STATES.index(base) < _STATES.index(state)]
            ratios = [ratio(figures, name, state, base) for base in bases]
            shown += "".join(f"  {found.median:.2f}±{found.error:.2f}" for found in ratios)
            line += f"{shown:>{width}}"
        lines.append(line)
    lines.append(
        "(ratios to plain, and to nat; ± is what chance may do to the ratio; rates per second of processor time)"
    )
    for what, found, floor in (
        ("TCP, gate over plain", _least(figures, *_TCP), TCP_FLOOR),
        ("small packets, gate over NAT alone", _least(figures, *_PACKETS), PACKETS_FLOOR),
    ):
        busy = "" if found.error <= TELLING else "; too much else runs here to tell"
        lines.append(f"{what}: {found.median:.2f} ± {found.error:.2f} at worst (floor {floor}{busy})")
    # By the steadiest measure, whose ratios are the lowest too: moving octets costs least there.
    nat = min(ratio(figures, name, "nat", "plain") for name in _ONE_CORE)
    ours = _least(figures, _ONE_CORE, "nat")
    lines.append(
        f"TCP on 1 core: NAT alone over plain {nat.median:.2f} ± {nat.error:.2f}, "
        f"gate over NAT alone {ours.median:.2f} ± {ours.error:.2f}, each at worst"
    )
    return lines


def worst(figures: Figures) -> tuple[float, float]:
    """The smallest ratios: TCP of the gate to plain forwarding, small packets of the gate to NAT alone."""
    return _least(figures, *_TCP).median, _least(figures, *_PACKETS).median


def _least(figures: Figures, names: Sequence[str], base: str) -> Ratio:
    return min(ratio(figures, name, gate, base) for name in names for gate in _GATES)


def main() -> int:
    """Measure, print one table, and tell whether the floors hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--iperf", type=int, default=0, metavar="TURNS")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("this bench builds network namespaces: run it as root", file=sys.stderr)
        return 2
    figures = measure(arguments.rounds, arguments.seconds, arguments.iperf)
    print("\n".join(table(figures)))
    tcp, packets = worst(figures)
    return 0 if tcp >= TCP_FLOOR and packets >= PACKETS_FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
