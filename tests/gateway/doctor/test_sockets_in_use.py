"""Who has our ports, from the kernel's tables."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, Zone
from gateway.doctor.files import holders_of
from gateway.doctor.rows import State
from gateway.doctor.sockets_in_use import Bound, Holder, inodes_of, judge_ports, read_table

CONFIG = Config(zones=(Zone(name="guest", interface="br-guest"),))
ANY, OWN = IPv4Address("0.0.0.0"), IPv4Address("10.41.0.1")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def bound(protocol: str, address: IPv4Address, port: int) -> Bound:
    return Bound(protocol, address, port, 0, 7)


OURS = [Holder(bound("udp", OWN, 53), "posternd", True)]
DNSMASQ = Holder(bound("udp", ANY, 53), "dnsmasq", False)


def test_lines_of_the_kernels_tables() -> None:
    """Listening TCP and bound UDP sockets; connections, specific IPv6 addresses and nonsense are passed over."""
    here = int.from_bytes(OWN.packed, sys.byteorder)
    line = f"   0: {here:08X}:0F96 00000000:0000 %s 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 0\n"
    assert read_table("tcp", 4, HEAD + line % "0A" + line % "01" + "nonsense\n") == [
        Bound("tcp", OWN, 3990, 1000, 4242)
    ]
    wild6 = f"   1: {'0' * 32}:0035 {'0' * 32}:0000 07 00000000:00000000 00:00000000 00000000  0        0 77 2 0 0\n"
    one6 = wild6.replace("0" * 32 + ":0035", "0" * 31 + "1:0035")
    assert read_table("udp", 6, HEAD + wild6 + one6) == [Bound("udp", ANY, 53, 0, 77)]
    assert list(inodes_of([Bound("tcp", OWN, 22, 0, 1), Bound("tcp", OWN, 3990, 0, 2)], CONFIG)) == [2]


@given(st.text(max_size=300))
def test_no_table_breaks_the_reader(text: str) -> None:
    """Whatever a kernel prints, what can be read is read."""
    read_table("tcp", 4, HEAD + text)


@pytest.mark.parametrize(
    ("holders", "running", "state"),
    [
        ([], True, State.OK),
        (OURS, True, State.OK),
        ([*OURS, DNSMASQ], True, State.OK),  # ours is bound to the address, and gets what comes to it
        ([DNSMASQ], True, State.FAIL),
        ([DNSMASQ], False, State.FAIL),
        ([*OURS, Holder(bound("udp", OWN, 53), "named", False)], True, State.FAIL),
        ([Holder(bound("udp", IPv4Address("127.0.0.53"), 53), "systemd-resolved", False)], True, State.OK),
        ([Holder(bound("tcp", OWN, 3990), "", False)], True, State.FAIL),
    ],
)
def test_who_is_in_the_way(holders: list[Holder], running: bool, state: State) -> None:
    """Another program at our address is, one at every address is where we have none."""
    (row,) = judge_ports(CONFIG, holders, running=running)
    assert row.state is state


def test_the_process_is_named() -> None:
    """With its name where the system tells it, else with its user."""
    assert "dnsmasq at 0.0.0.0:53" in judge_ports(CONFIG, [DNSMASQ], running=False)[0].text
    unknown = Holder(Bound("udp", OWN, 67, 107, 9), "", False)
    assert "a process of user 107 at 10.41.0.1:67" in judge_ports(CONFIG, [unknown], running=False)[0].text


def test_looking_on_this_machine_raises_nothing() -> None:
    """Whatever runs here, the look ends with a list."""
    assert Path("/proc").is_dir()
    assert isinstance(holders_of(CONFIG, None), list)
